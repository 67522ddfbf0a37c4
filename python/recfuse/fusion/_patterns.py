"""Sets of (query, item) pairs as sparse patterns, and the merge of ranked lists."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recfuse._inputs import is_canonical
from recfuse._merge import best_of

__all__ = [
    "intersection",
    "merge_lists",
    "pattern",
    "pattern_of_lists",
    "sums",
    "union",
    "values_at",
    "without",
]

_NO_ENTRY = np.iinfo(np.int64).max


def pattern(matrix: Any) -> sp.csr_array:
    """Return the entries of a sparse matrix, stored zeros included, each with the value 1.

    It shares its structure with the matrix and is not to be changed in place.
    """
    csr = _canonical(matrix)
    ones = np.ones(len(csr.indices), np.float32)
    return sp.csr_array((ones, csr.indices, csr.indptr), shape=csr.shape)


def union(first: sp.csr_array, second: sp.csr_array | None) -> sp.csr_array:
    """Return the pairs that are in either."""
    if second is None:
        return pattern(first)
    keys = np.concatenate([_keys(_canonical(first)), _keys(_canonical(second))])
    keys.sort(kind="stable")  # merges two ascending runs
    new = np.ones(len(keys), bool)
    np.not_equal(keys[1:], keys[:-1], out=new[1:])
    return _pattern_of_keys(keys[new], first.shape)


def without(pairs: sp.csr_array, removed: sp.csr_array | None) -> sp.csr_array:
    """Return the pairs that are not in `removed`."""
    if removed is None:
        return pattern(pairs)
    pairs = _canonical(pairs)
    return _some_of(pairs, _found(_keys(pairs), _keys(_canonical(removed))) < 0)


def intersection(pairs: sp.csr_array, allow: Any) -> sp.csr_array:
    """Return the pairs that `allow` admits: a list of items for all queries, or a pattern."""
    pairs = _canonical(pairs)
    if sp.issparse(allow):
        return _some_of(pairs, _found(_keys(pairs), _keys(_canonical(allow))) >= 0)
    admitted = np.zeros(pairs.shape[1], bool)
    admitted[np.asarray(allow, np.int64)] = True
    return _some_of(pairs, admitted[pairs.indices])


def pattern_of_lists(ids: NDArray[np.int32], n_items: int) -> sp.csr_array:
    """Return the pairs of ranked lists, padding left out."""
    rows, columns = np.nonzero(ids >= 0)
    ones = np.ones(len(rows), np.float32)
    return pattern(sp.csr_array((ones, (rows, ids[rows, columns])), shape=(len(ids), n_items)))


def values_at(matrix: sp.csr_array, pairs: sp.csr_array) -> NDArray[np.float64]:
    """Return the values of `matrix` at the entries of `pairs`, 0 where it has none."""
    matrix = _canonical(matrix)
    at = _found(_keys(pairs), _keys(matrix))
    values = np.append(matrix.data.astype(np.float64), 0.0)
    found: NDArray[np.float64] = values[at]
    return found


def _canonical(matrix: Any) -> sp.csr_array:
    """Return a matrix with ascending entries, the given one if it is so."""
    if is_canonical(matrix):
        return matrix
    csr = sp.csr_array(matrix, copy=True)
    csr.sum_duplicates()
    return csr


def _keys(pairs: sp.csr_array) -> NDArray[np.int64]:
    """Return one number per entry, in ascending order for a canonical pattern."""
    keys: NDArray[np.int64] = pairs.indices.astype(np.int64)
    if pairs.shape[0] > 1:
        first = np.arange(pairs.shape[0]) * pairs.shape[1]
        keys += np.repeat(first, np.diff(pairs.indptr))
    return keys


def _pattern_of_keys(keys: NDArray[np.int64], shape: tuple[int, int]) -> sp.csr_array:
    starts = np.arange(shape[0] + 1) * shape[1]
    indptr = np.searchsorted(keys, starts)
    indices = keys
    if shape[0] > 1:
        indices = keys - np.repeat(starts[:-1], np.diff(indptr))
    return sp.csr_array((np.ones(len(keys), np.float32), indices, indptr), shape=shape)


def _found(wanted: NDArray[np.int64], keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where every wanted key is among the ascending `keys`; -1 where it is not."""
    if len(keys) == 0:
        return np.full(len(wanted), -1)
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.asarray(np.where(keys[at] == wanted, at, -1))


def _some_of(pairs: sp.csr_array, kept: NDArray[np.bool_]) -> sp.csr_array:
    before = np.concatenate([[0], np.cumsum(kept)])
    indices = pairs.indices[kept]
    parts = (np.ones(len(indices), np.float32), indices, before[pairs.indptr])
    return sp.csr_array(parts, shape=pairs.shape)


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
    listed = ids >= 0
    scores = np.where(listed, sums(parts), -np.inf).astype(np.float32)
    of_pairs = sums(pair_parts)
    entries = _best_entries(of_pairs, pairs.indptr, k)
    # An entry -1, which is padding, takes what is appended.
    items = np.append(pairs.indices, -1).astype(np.int32)[entries]
    of_items = np.append(of_pairs, np.float32(-np.inf))[entries]
    where = np.hstack([np.arange(n * k).reshape(n, k), n * k + entries])
    out_ids, out_scores, where = best_of(
        np.hstack([ids, items]), np.hstack([scores, of_items]), where, k=k
    )
    out_parts = np.zeros((n, k, parts.shape[2]))
    of_lists = where < n * k
    out_parts[of_lists] = parts.reshape(n * k, -1)[where[of_lists]]
    out_parts[~of_lists] = pair_parts[where[~of_lists] - n * k]
    out_parts[out_ids < 0] = 0
    return out_ids, out_scores, out_parts


def _best_entries(scores: NDArray[np.float32], indptr: NDArray[Any], k: int) -> NDArray[np.int64]:
    """Return the entries of the k largest scores of every row, in any order; -1 for padding.

    Of equal scores the first entries are taken; a NaN is none.
    """
    # One number that ascends where the score descends, then by the entry: the bits of a float
    # ascend with it, but for the sign.
    bits = scores.view(np.int32)
    descending = np.where(bits < 0, bits ^ 0x7FFFFFFF, bits) ^ -1
    keys = (descending.astype(np.int64) << 32) | np.arange(len(scores))
    keys[np.isnan(scores)] = _NO_ENTRY
    best = np.full((len(indptr) - 1, k), _NO_ENTRY)
    for row, (begin, end) in enumerate(zip(indptr[:-1].tolist(), indptr[1:].tolist(), strict=True)):
        some = keys[begin:end]
        best[row, : len(some)] = np.partition(some, k - 1)[:k] if len(some) > k else some
    return np.where(best == _NO_ENTRY, -1, best & 0xFFFFFFFF)


def sums(parts: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return scores (...) from their terms (..., n_modalities): added in order, rounded once."""
    total = np.zeros(parts.shape[:-1])
    for m in range(parts.shape[-1]):
        total += parts[..., m]
    return total.astype(np.float32) + np.float32(0)
