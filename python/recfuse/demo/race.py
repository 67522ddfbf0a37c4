"""The fused top-k beside what a page of NumPy does, on the vectors of the demo."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

import recfuse

__all__ = ["Race", "enlarged", "race"]

_ROUNDS = 5
_PAUSE = 0.2  # seconds before a turn
_TOLERANCE = 1e-5  # between a canonical score and a float32 sum of some hundred products

Vectors = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Race:
    """Median seconds of the fused top-k and of the same in NumPy, scores equal."""

    n_queries: int
    n_items: int
    n_generated: int
    dims: dict[str, int]
    recfuse: float
    numpy: float

    @property
    def workload(self) -> str:
        """What both had to do, in words."""
        generated = f" ({self.n_generated:,} of them generated)" if self.n_generated else ""
        dims = " + ".join(f"{name} {dim}" for name, dim in self.dims.items())
        return f"{self.n_queries:,} queries, {self.n_items:,} films{generated}, dimensions {dims}"

    @property
    def speed(self) -> float:
        """How many times as fast as NumPy."""
        return self.numpy / self.recfuse


def race(
    queries: Vectors,
    items: Vectors,
    weights: Mapping[str, float],
    k: int,
    seen: sp.csr_array,
    *,
    n_generated: int = 0,
    num_threads: int = 0,
) -> Race:
    """Time both in turn, each with its items ready, and compare their scores.

    NumPy's side is the fastest that we know: one product of the joined float32 vectors,
    `argpartition`, and a sort of what is left.

    Parameters
    ----------
    queries, items : mapping of str to ndarray of shape (n, dim)
        Of any length; both sides compare directions.
    weights : mapping of str to float
    k : int
    seen : csr_array of shape (n_queries, n_items)
        Left out of the lists.
    n_generated : int, default=0
        How many of the last items are none of the data's.
    num_threads : int, default=0

    Raises
    ------
    RuntimeError
        If scores differ by more than float32 sums round.
    """
    names = list(items)
    index = recfuse.FusedIndex({m: items[m] for m in names}, num_threads=num_threads)
    joined = np.hstack([_unit(items[m]) for m in names])
    rows, columns = seen.nonzero()

    def fused() -> tuple[Any, ...]:
        return index.topk({m: queries[m] for m in names}, k, weights=weights, exclude=seen)

    def plain() -> tuple[Any, ...]:
        query = np.hstack([np.float32(weights[m]) * _unit(queries[m]) for m in names])
        scores = query @ joined.T
        scores[rows, columns] = -np.inf
        best = np.argpartition(scores, -k, axis=1)[:, -k:]
        order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1)
        ids = np.take_along_axis(best, order, axis=1)
        return ids, np.take_along_axis(scores, ids, axis=1)

    scores, plain_scores = fused()[1], plain()[1]
    listed = np.isfinite(plain_scores)
    gap = float(np.abs(scores[listed] - plain_scores[listed]).max(initial=0.0))
    if not gap <= _TOLERANCE:
        raise RuntimeError(f"fused top-k and NumPy must agree within {_TOLERANCE}; got {gap}")
    ours, theirs = _seconds(fused, plain)
    return Race(
        n_queries=len(scores),
        n_items=index.n_items,
        n_generated=n_generated,
        dims={m: items[m].shape[1] for m in names},
        recfuse=ours,
        numpy=theirs,
    )


def enlarged(items: Vectors, n_items: int) -> dict[str, NDArray[np.float32]]:
    """Return the items, and behind them copies with noise of half their length, `n_items` in all.

    Such a catalogue has the neighbourhoods of the real one; random vectors have none.
    """
    rng = np.random.default_rng(0)
    larger = {}
    for name, real in items.items():
        copies = real[np.arange(len(real), n_items) % len(real)]
        noise = _unit(rng.standard_normal(copies.shape, np.float32))
        length = np.linalg.norm(copies, axis=1, keepdims=True)
        larger[name] = np.concatenate([real, copies + np.float32(0.5) * length * noise])
    return larger


def _unit(x: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    unit: NDArray[np.float32] = np.divide(x, norms, out=np.zeros_like(x), where=norms > 0)
    return unit


def _seconds(*contenders: Callable[[], Any]) -> list[float]:
    """Return the median of each; they take turns, so that all meet the same machine."""
    times: list[list[float]] = [[] for _ in contenders]
    for _ in range(_ROUNDS):
        for contender, mine in zip(contenders, times, strict=True):
            # Threads of OpenBLAS spin for about 0.1 s before they sleep, on the cores of the next.
            time.sleep(_PAUSE)
            contender()
            started = time.perf_counter()
            contender()
            mine.append(time.perf_counter() - started)
    return [statistics.median(mine) for mine in times]
