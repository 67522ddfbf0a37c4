"""What an exact search of a catalogue takes: milliseconds and bytes by its size."""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np

import recfuse

SIZES = ((10_000, 64), (100_000, 64), (1_000_000, 64), (100_000, 384), (1_000_000, 384))
BATCH, K = 256, 20


def measured() -> list[dict[str, Any]]:
    """Search Gaussian vectors, the hard case: one query at a time, and many at once."""
    rng = np.random.default_rng(0)
    rows = []
    for n_items, dim in SIZES:
        index = recfuse.FusedIndex({"item": rng.standard_normal((n_items, dim), np.float32)})
        queries = rng.standard_normal((BATCH, dim), np.float32)
        spent: dict[int, list[float]] = {BATCH: [], 1: []}
        for n, times in spent.items():
            index.topk({"item": queries[:n]}, K)
            for i in range(5 if n > 1 else 21):
                started = time.perf_counter()
                index.topk({"item": queries[i : i + n] if n == 1 else queries}, K)
                times.append(time.perf_counter() - started)
        plan = recfuse.plan_memory(
            "FusedIndex", n_queries=BATCH, n_items=n_items, dims={"item": dim}, k=K
        )
        rows.append(
            {
                "n_items": n_items,
                "dim": dim,
                "one_ms": 1e3 * statistics.median(spent[1]),
                "batch_ms": 1e3 * statistics.median(spent[BATCH]) / BATCH,
                "input_bytes": plan.input_bytes,
                "peak_bytes": plan.peak_bytes,
            }
        )
    return rows
