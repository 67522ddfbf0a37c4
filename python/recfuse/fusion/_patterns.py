"""Sets of (query, item) pairs as sparse patterns, and the merge of ranked lists."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

__all__ = [
    "intersection",
    "merge_lists",
    "pattern",
    "pattern_of_lists",
    "union",
    "values_at",
    "without",
]


def pattern(matrix: Any) -> sp.csr_array:
    """Return the entries of a sparse matrix, stored zeros included, each with the value 1."""
    csr = sp.csr_array(matrix)
    ones = sp.csr_array(
        (np.ones(len(csr.indices), np.float32), csr.indices.copy(), csr.indptr.copy()),
        shape=csr.shape,
    )
    ones.sum_duplicates()
    ones.data[:] = 1
    return ones


def union(first: sp.csr_array, second: sp.csr_array | None) -> sp.csr_array:
    """Return the pairs that are in either."""
    return pattern(first) if second is None else pattern(pattern(first) + pattern(second))


def without(pairs: sp.csr_array, removed: sp.csr_array | None) -> sp.csr_array:
    """Return the pairs that are not in `removed`."""
    if removed is None:
        return pairs
    kept = pattern(pairs) - pattern(pairs).multiply(pattern(removed))
    kept = sp.csr_array(kept)
    kept.eliminate_zeros()
    return pattern(kept)


def intersection(pairs: sp.csr_array, allow: Any) -> sp.csr_array:
    """Return the pairs that `allow` admits: a list of items for all queries, or a pattern."""
    if sp.issparse(allow):
        return pattern(sp.csr_array(pattern(pairs).multiply(pattern(allow))))
    admitted = np.zeros(pairs.shape[1], np.float32)
    admitted[np.asarray(allow, np.int64)] = 1
    kept = pattern(pairs)
    kept.data[:] = admitted[kept.indices]
    kept.eliminate_zeros()
    return kept


def pattern_of_lists(ids: NDArray[np.int32], n_items: int) -> sp.csr_array:
    """Return the pairs of ranked lists, padding left out."""
    rows, columns = np.nonzero(ids >= 0)
    ones = np.ones(len(rows), np.float32)
    return pattern(sp.csr_array((ones, (rows, ids[rows, columns])), shape=(len(ids), n_items)))


def values_at(matrix: sp.csr_array, pairs: sp.csr_array) -> NDArray[np.float64]:
    """Return the values of `matrix` at the entries of `pairs`, 0 where it has none."""
    n_items = pairs.shape[1]
    row = np.repeat(np.arange(pairs.shape[0], dtype=np.int64), np.diff(pairs.indptr))
    wanted = row * n_items + pairs.indices
    sorted_matrix = sp.csr_array(matrix)
    if not sorted_matrix.has_sorted_indices:
        sorted_matrix = sorted_matrix.sorted_indices()
    row = np.repeat(np.arange(matrix.shape[0], dtype=np.int64), np.diff(sorted_matrix.indptr))
    stored = row * n_items + sorted_matrix.indices
    out = np.zeros(len(wanted))
    if len(stored):
        at = np.minimum(np.searchsorted(stored, wanted), len(stored) - 1)
        out = np.where(stored[at] == wanted, sorted_matrix.data[at].astype(np.float64), 0.0)
    return out


def merge_lists(
    ids: NDArray[np.int32],
    parts: NDArray[np.float64],
    pairs: sp.csr_array,
    pair_parts: NDArray[np.float64],
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float64]]:
    """Return the best of ranked lists and further pairs, by score descending, then id ascending.

    `ids` is (n, k), `parts` (n, k, n_modalities), `pair_parts` (pairs.nnz, n_modalities); no pair
    is in a list. A score is the sum of its parts, in order, rounded once.
    """
    n, k = ids.shape
    listed = np.nonzero(ids >= 0)
    rows = np.concatenate([listed[0], np.repeat(np.arange(n), np.diff(pairs.indptr))])
    items = np.concatenate([ids[listed], pairs.indices])
    terms = np.concatenate([parts[listed], pair_parts])
    total = np.zeros(len(items))
    for m in range(terms.shape[1]):
        total += terms[:, m]
    scores = total.astype(np.float32) + np.float32(0)
    order = np.lexsort((items, -scores, rows))
    order = order[~np.isnan(scores[order])]
    counts = np.bincount(rows[order], minlength=n)
    rank = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    order, rank = order[rank < k], rank[rank < k]
    out_ids = np.full((n, k), -1, np.int32)
    out_scores = np.full((n, k), -np.inf, np.float32)
    out_parts = np.zeros((n, k, terms.shape[1]))
    out_ids[rows[order], rank] = items[order]
    out_scores[rows[order], rank] = scores[order]
    out_parts[rows[order], rank] = terms[order]
    return out_ids, out_scores, out_parts
