"""Searches of other shapes and distributions than those of `recfuse bench`.

    OPENBLAS_CORETYPE=SkylakeX python benchmarks/shapes.py

times an index beside FAISS with the threshold that suits it best, in turn, five times, and prints
medians and how much of the lists is the same; FAISS sums in float32, so that near ties may differ.
Needs faiss-cpu. The variable tells its BLAS of AVX-512 where it does not see that.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np

import recfuse

_ROUNDS = 5


@dataclass(frozen=True)
class Shape:
    """Of a search."""

    n_queries: int
    n_items: int
    dim: int
    k: int
    kind: str


SHAPES = [
    Shape(1024, 500_000, 32, 10, "Gaussian"),
    Shape(1024, 100_000, 384, 10, "Gaussian"),
    Shape(1024, 100_000, 768, 10, "Gaussian"),
    Shape(1024, 200_000, 128, 1000, "Gaussian"),
    Shape(1024, 300_000, 128, 10, "norms log-normal"),
    Shape(1024, 300_000, 128, 10, "falling spectrum"),
    Shape(1024, 300_000, 64, 100, "falling spectrum"),
    Shape(1024, 300_000, 128, 100, "Student's t, 3"),
    Shape(256, 300_000, 96, 50, "Student's t, 3"),
    Shape(1024, 100_000, 768, 100, "Student's t, 3"),
]


def vectors_of(shape: Shape) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Draw queries and items."""
    rng = np.random.default_rng(77)
    sizes = (shape.n_queries, shape.dim), (shape.n_items, shape.dim)
    if shape.kind.startswith("Student"):
        queries, items = (rng.standard_t(3, size).astype(np.float32) for size in sizes)
        return queries, items
    queries, items = (rng.standard_normal(size, np.float32) for size in sizes)
    if shape.kind == "falling spectrum":  # as of factors
        scales = np.arange(1, shape.dim + 1, dtype=np.float32) ** -0.7
        queries, items = queries * scales, items * scales
    if shape.kind != "Gaussian":
        sigma = 1.0 if shape.kind.startswith("norms") else 0.6
        items *= rng.lognormal(0, sigma, (shape.n_items, 1)).astype(np.float32)
    return queries, items


def seconds_of(call: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def compare(shape: Shape) -> None:
    """Print a line."""
    queries, items = vectors_of(shape)
    index = recfuse.FusedIndex({"x": items}, metric="dot")
    peer = faiss.IndexFlatIP(shape.dim)
    peer.add(items)

    def search(threshold: int) -> Any:
        faiss.cvar.distance_compute_blas_threshold = threshold
        return peer.search(queries, shape.k)

    def least_seconds(threshold: int) -> float:
        return min(seconds_of(lambda: search(threshold)) for _ in range(3))

    best = min((1, 20), key=least_seconds)
    ids = index.topk({"x": queries}, shape.k)[0]
    same = np.mean(np.sort(ids, axis=1) == np.sort(search(best)[1], axis=1))
    times = np.array(
        [
            [
                seconds_of(lambda: index.topk({"x": queries}, shape.k)),
                seconds_of(lambda: search(best)),
            ]
            for _ in range(_ROUNDS)
        ]
    )
    ours, theirs = np.median(times, axis=0) * 1e3
    print(
        f"| {shape.n_queries:,} x {shape.n_items:,} x {shape.dim}, k {shape.k} | {shape.kind} "
        f"| {index.plan()['screen']} | {ours:,.4g} | {theirs:,.4g} "
        f"| {np.median(times[:, 1] / times[:, 0]):.1f} | {same:.2%} |",
        flush=True,
    )


if __name__ == "__main__":
    print("| search | items | screen | recfuse, ms | FAISS tuned, ms | times as fast | same ids |")
    print("|---|---|---|---|---|---|---|")
    for shape in SHAPES:
        compare(shape)
