"""What does a row cost each solver of ALS, by its entries and the factors, and up to which length
is a system of its entries the cheaper exact one? One thread, rows of one length on both sides.

    python benchmarks/micro/als_rows.py [factors ...]

The constants of cpp/src/ops/als_cost.cpp are fitted to this table.
"""  # noqa: D205

from __future__ import annotations

import sys
import time

import numpy as np
import scipy.sparse as sp

from recfuse import _core
from recfuse._inputs import as_csr, csr_parts

SOLVERS = {"factors": ("cholesky", 0), "entries": ("cholesky", 1 << 20), "steps": ("cg", 0)}
SOLVERS["block"] = ("block", 0)
LENGTHS = (8, 16, 32, 48, 64, 96, 128, 192, 256, 512)


def regular(rng: np.random.Generator, n: int, length: int) -> sp.csr_array:
    """Return a matrix whose rows and columns have about `length` entries."""
    step = n // length
    columns = np.arange(n)[:, None] * 7919 + np.arange(length) * step
    columns = np.sort(rng.permutation(n)[(columns + rng.integers(0, step, length)) % n], axis=1)
    ones = np.ones(n * length, np.float32)
    return sp.csr_array((ones, columns.ravel(), np.arange(n + 1) * length), shape=(n, n))


def microseconds(matrix: sp.csr_array, factors: int, solver: str, dual_entries: int) -> float:
    """Return the best time of three for one row."""
    als = _core.AlsSolver(
        csr_parts(as_csr(matrix, "matrix")), objective="implicit", solver=solver, factors=factors,
        regularization=0.1, alpha=1.0, frequency_scaling=0.0, biases=False, cg_steps=2,
        dual_entries=dual_entries,
    )  # fmt: skip
    rng, none = np.random.default_rng(0), np.zeros(0, np.float32)
    start = 0.3 * rng.standard_normal((matrix.shape[0], factors), np.float32)
    als.set_factors(start, start[::-1].copy(), none, none)
    als.step(1)
    seconds = []
    for _ in range(3):
        begin = time.perf_counter()
        als.step(1)
        seconds.append(time.perf_counter() - begin)
    return 1e6 * min(seconds) / (2 * matrix.shape[0])


def main() -> None:
    """Print the table."""
    rng = np.random.default_rng(0)
    for factors in map(int, sys.argv[1:] or ("16", "32", "64", "128", "256")):
        for length in LENGTHS:
            work = factors**2 * max(length, factors // 3)
            n = int(np.clip(4e9 / work, 2003, 20011)) | 1
            matrix = regular(rng, n, length)
            line = f"{factors:4d} factors, {length:4d} entries:"
            for name, how in SOLVERS.items():
                if name == "entries" and length > factors:
                    continue
                line += f"  {name} {microseconds(matrix, factors, *how):7.2f} us"
            print(line, flush=True)


if __name__ == "__main__":
    main()
