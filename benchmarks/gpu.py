"""Searches on a GPU beside PyTorch's matmul and topk, and the ceilings of the device; JSON.

    python benchmarks/gpu.py OUT.json [--quick]

Needs PyTorch with CUDA. Times are medians in milliseconds; recfuse's include the copies of queries
to the device and of lists back, PyTorch's start from tensors that lie there. Inputs rotate, so that
no run finds the last one's in the cache. Every answer is held against float64 on a sample first.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import recfuse
from gpu_sources import kernel_hash

ROUNDS = 7
SETS = 3  # of queries, in turn
SAMPLE = 4


def seconds(run: Callable[[int], Any]) -> float:
    """Return the median time of `run(i)` with the device idle before and after."""
    times = []
    for i in range(ROUNDS + 2):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        run(i)
        torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
    return statistics.median(times[2:])


def copy_rate() -> float:
    """Return the bytes that a copy within the device reads and writes, in TB/s."""
    source = torch.randn(1 << 29, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.nbytes / seconds(lambda _: target.copy_(source)) / 1e12


def matmul_rate(dtype: torch.dtype, n: int = 8192) -> float:
    """Return the TFLOP/s of a large product of matrices."""
    a, b = (torch.randn(n, n, device="cuda").to(dtype) for _ in range(2))
    return 2 * n**3 / seconds(lambda _: a @ b) / 1e12


def ceilings() -> dict[str, float]:
    """Measure what the device can do."""
    return {
        "copy_tb_s": copy_rate(),
        "matmul_float16_tflop_s": matmul_rate(torch.float16),
        "matmul_float32_tflop_s": matmul_rate(torch.float32),
    }


def check(queries: dict[str, np.ndarray], items: dict[str, np.ndarray], found: Any, k: int) -> None:
    """Hold the lists of the first queries against NumPy in float64, by scores."""
    exact = sum(
        queries[name][:SAMPLE].astype(np.float64) @ items[name].T.astype(np.float64)
        for name in items
    )
    best = -np.sort(-exact, axis=1)[:, :k]
    if not np.allclose(found[1][:SAMPLE], best, rtol=1e-6, atol=1e-6):
        sys.exit("recfuse's lists differ from those of float64")


def torch_topk(
    queries: list[torch.Tensor], items: torch.Tensor, k: int, block: int
) -> Callable[[int], None]:
    """Return a search by matmul and topk, in blocks of queries."""

    def run(i: int) -> None:
        for part in queries[i % len(queries)].split(block):
            torch.topk(part @ items.T, k)

    return run


@dataclass
class Workload:
    """Items, and sets of queries with a weight per query and modality."""

    items: dict[str, np.ndarray]
    queries: list[dict[str, np.ndarray]]
    weights: list[dict[str, np.ndarray]]

    @classmethod
    def gaussian(cls, n_queries: int, n_items: int, dims: list[int]) -> Workload:
        """Draw one."""
        rng = np.random.default_rng(0)
        widths = {f"m{i}": d for i, d in enumerate(dims)}

        def draw(n: int) -> dict[str, np.ndarray]:
            return {m: rng.standard_normal((n, d), dtype=np.float32) for m, d in widths.items()}

        weights = [{m: rng.uniform(0.1, 1, n_queries) for m in widths} for _ in range(SETS)]
        return cls(draw(n_items), [draw(n_queries) for _ in range(SETS)], weights)

    def weighted(self, i: int) -> dict[str, np.ndarray]:
        """Return the queries of set `i` times their weights, in float64."""
        return {m: q * self.weights[i][m][:, None] for m, q in self.queries[i].items()}


def time_recfuse(work: Workload, k: int) -> dict[str, Any]:
    """Check and time the search, its index made before."""
    index = recfuse.FusedIndex(work.items, metric="dot", device="cuda")

    def search(i: int) -> Any:
        at = i % SETS
        return index.topk(work.queries[at], k=k, weights=work.weights[at])

    check(work.weighted(0), work.items, search(0), k)
    return {"recfuse_ms": 1e3 * seconds(search), "plan": index.plan()}


def time_torch(work: Workload, k: int) -> dict[str, float]:
    """Time PyTorch on queries times weights and items, side by side."""
    items = torch.from_numpy(np.hstack(list(work.items.values()))).cuda()
    queries = [
        torch.from_numpy(np.hstack(list(work.weighted(i).values())).astype(np.float32)).cuda()
        for i in range(SETS)
    ]
    block = max(1, min(len(queries[0]), (8 << 30) // (4 * len(items))))
    found = {}
    for name in ("float32", "tf32", "float16"):
        dtype = torch.float16 if name == "float16" else torch.float32
        torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
        run = torch_topk([q.to(dtype) for q in queries], items.to(dtype), k, block)
        found[f"torch_{name}_ms"] = 1e3 * seconds(run)
    return found


def main() -> None:
    """Measure, print a table, write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    cases = [(10240, 1_000_000, [128], 100), (1, 1_000_000, [128], 10)]
    cases.append((10240, 1_000_000, [64, 384, 512], 100))
    if args.quick:
        cases = [(256, 20_000, [128], 100), (1, 20_000, [64, 32], 10)]
    report: dict[str, Any] = {
        "kernel_sources": kernel_hash(),
        "device": torch.cuda.get_device_name(),
        "driver": subprocess.run(
            ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
            capture_output=True, text=True, check=True,
        ).stdout.strip(),
        "torch": torch.__version__,
        "ceilings": ceilings(),
        "cases": {},
    }  # fmt: skip
    print({name: round(value, 2) for name, value in report["ceilings"].items()})
    for n_queries, n_items, dims, k in cases:
        name = f"q{n_queries} n{n_items} d{'+'.join(map(str, dims))} k{k}"
        work = Workload.gaussian(n_queries, n_items, dims)
        found = {**time_recfuse(work, k), **time_torch(work, k)}
        products = 2e-9 * n_queries * n_items * sum(dims)
        found["float16_floor_ms"] = products / report["ceilings"]["matmul_float16_tflop_s"]
        report["cases"][name] = found
        times = {key: round(value, 3) for key, value in found.items() if key.endswith("_ms")}
        print(name, times, flush=True)
    args.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
