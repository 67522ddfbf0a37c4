"""Items that a query must not get, as the arrays of a CSR matrix among a case's inputs."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recfuse.bench.case import Inputs

__all__ = ["draw_excluded", "excluded_hits", "excluded_items"]


def draw_excluded(
    rng: np.random.Generator, n_queries: int, n_items: int, n_excluded: int
) -> dict[str, NDArray[np.int32]]:
    """Draw `n_excluded` distinct items for every query."""
    # Ascending draws from a shorter range, each moved on by its place, are distinct.
    drawn = np.sort(rng.integers(n_items - n_excluded + 1, size=(n_queries, n_excluded)), axis=1)
    return {
        "excluded_indices": (drawn + np.arange(n_excluded)).astype(np.int32).ravel(),
        "excluded_indptr": np.arange(n_queries + 1, dtype=np.int32) * np.int32(n_excluded),
        "excluded_shape": np.array([n_queries, n_items], np.int32),
    }


def excluded_items(inputs: Inputs) -> sp.csr_array:
    """Return them as a matrix of shape (n_queries, n_items)."""
    indices = inputs["excluded_indices"]
    values = np.ones(len(indices), np.float32)
    shape = tuple(int(n) for n in inputs["excluded_shape"])
    return sp.csr_array((values, indices, inputs["excluded_indptr"]), shape=shape)


def excluded_hits(excluded: sp.csr_array, ids: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Return which ids of each row are excluded there, same shape as `ids`."""
    n_rows, n_items = excluded.shape
    rows = np.arange(n_rows, dtype=np.int64)
    keys = np.repeat(rows, np.diff(excluded.indptr)) * n_items + excluded.indices
    wanted = rows[:, None] * n_items + ids
    # The keys ascend already, so this beats np.isin, which would sort them.
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    hits: NDArray[np.bool_] = keys[at] == wanted
    return hits
