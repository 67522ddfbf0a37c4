"""How many steps of conjugate gradients does a row of implicit ALS need, by the preconditioner?

    python benchmarks/micro/preconditioner.py

Users are solved for the items of the iteration before, from their factors of that iteration, in
float64. Printed is by how much the row's objective exceeds its minimum, relative to that, after 0
to 4 steps, mean over 400 rows: without a preconditioner, with the diagonal of the row's matrix,
with the Gram matrix and the penalty, and with these and the items' factors, in the Gram matrix's
eigenvectors, rounded to bfloat16.
"""  # noqa: D400

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from recfuse import _core
from recfuse._inputs import csr_parts
from recfuse.datasets import synthetic

Vector = NDArray[np.float64]
STEPS = 4


def factors_after(csr, factors: int, regularization: float, alpha: float) -> tuple[Vector, Vector]:
    """Return factors of users and items after five exact iterations."""
    als = _core.AlsSolver(
        csr_parts(csr), objective="implicit", solver="cholesky", factors=factors,
        regularization=regularization, alpha=alpha, frequency_scaling=0.0, biases=False, cg_steps=2,
    )  # fmt: skip
    rng, none = np.random.default_rng(0), np.zeros(0, np.float32)
    scale = np.float32(0.1 / np.sqrt(factors))
    users, items = (scale * rng.standard_normal((n, factors), np.float32) for n in csr.shape)
    als.set_factors(users, items, none, none)
    for _ in range(5):
        als.step()
    users, items, *_ = als.factors()
    return users.astype(np.float64), items.astype(np.float64)


def conjugate_gradients(
    multiply: Callable[[Vector], Vector], b: Vector, x: Vector, inverse: Callable[[Vector], Vector]
) -> list[Vector]:
    """Return x after 0, 1, ... steps."""
    residual, seen = b - multiply(x), [x]
    z = inverse(residual)
    direction, energy = z, residual @ z
    for _ in range(STEPS):
        product = multiply(direction)
        length = energy / (direction @ product)
        x, residual = x + length * direction, residual - length * product
        seen.append(x)
        z = inverse(residual)
        direction, energy = z + (residual @ z) / energy * direction, residual @ z
    return seen


def as_bfloat16(x: Vector) -> Vector:
    """Round to 8 bits."""
    mantissa, exponent = np.frexp(x)
    return np.ldexp(np.round(mantissa * 256) / 256, exponent)


def excesses(csr, factors: int, regularization: float, alpha: float) -> dict[str, Vector]:
    """Return the mean excess after every number of steps."""
    users, items = factors_after(csr, factors, regularization, alpha)
    values, vectors = np.linalg.eigh(items.T @ items)
    users, items = users @ vectors, items @ vectors
    shared = np.maximum(values, 0) + regularization
    names = ("nothing", "diagonal", "Gram", "Gram, bfloat16")
    sums = {name: np.zeros(STEPS + 1) for name in names}
    rows = np.random.default_rng(1).permutation(np.flatnonzero(np.diff(csr.indptr)))[:400]
    for row in rows:
        part = slice(csr.indptr[row], csr.indptr[row + 1])
        weights = alpha * csr.data[part].astype(np.float64)
        y, targets = items[csr.indices[part]], 1 + weights
        matrix, b = np.diag(shared) + (y.T * weights) @ y, y.T @ targets
        best = np.linalg.solve(matrix, b)
        least = targets.sum() - b @ best
        diagonal = np.diag(matrix)
        rounded = as_bfloat16(y)
        for name, inverse, z in (
            ("nothing", lambda r: r, y),
            ("diagonal", lambda r, d=diagonal: r / d, y),
            ("Gram", lambda r: r / shared, y),
            ("Gram, bfloat16", lambda r: r / shared, rounded),
        ):
            seen = conjugate_gradients(
                lambda x, z=z, w=weights: shared * x + z.T @ (w * (z @ x)),
                z.T @ targets, users[row], inverse,
            )  # fmt: skip
            sums[name] += [(x - best) @ matrix @ (x - best) / least for x in seen]
    return {name: total / len(rows) for name, total in sums.items()}


def main() -> None:
    """Print the tables."""
    csr = synthetic(20_000, 5_000, 1_000_000, random_state=1, modalities={}).interactions.to_csr()
    for factors, regularization, alpha in ((64, 0.01, 1), (64, 10, 1), (64, 1, 40), (128, 0.01, 1)):
        print(f"{factors} factors, regularization {regularization}, alpha {alpha}")
        for name, means in excesses(csr, factors, regularization, alpha).items():
            print(f"  {name:15s}", "  ".join(f"{mean:.1e}" for mean in means), flush=True)


if __name__ == "__main__":
    main()
