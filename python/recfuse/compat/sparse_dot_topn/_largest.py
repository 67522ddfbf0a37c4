"""The largest entries of products, by the compiled search; and products as SciPy makes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recfuse.backend import resolve_backend

__all__ = ["is_exact_in_float", "largest_entries", "largest_integers", "largest_sums", "product"]

_BLOCK = 1 << 22  # products of integers that are looked at together


def largest_sums(
    left: sp.csr_matrix, right: sp.csr_matrix, k: int, limit: Any, sort: bool, num_threads: int
) -> sp.csr_matrix:
    """Return the k largest entries above `limit` of every row; sums are exact or in float64."""
    dtype = np.dtype(np.float32 if left.dtype == np.float32 else np.float64)
    indptr, ids, sums = resolve_backend("cpu").ops.sparse_product_topk(
        _pattern_of(left),
        left.data.astype(dtype, copy=False),
        _pattern_of(right),
        right.data.astype(dtype, copy=False),
        k,
        above=None if limit is None else float(limit),
        sort=sort,
        num_threads=num_threads,
    )
    shape = (left.shape[0], right.shape[1])
    return sp.csr_matrix((sums.astype(left.dtype, copy=False), ids, indptr), shape=shape)


def largest_integers(
    left: sp.csr_matrix, right: sp.csr_matrix, k: int, limit: Any, sort: bool, num_threads: int
) -> sp.csr_matrix:
    """Do the same for integers whose sums float64 does not hold, or that wrap around."""
    del num_threads  # SciPy has one
    parts = [sp.csr_matrix((0, right.shape[1]), dtype=left.dtype)]
    step = max(1, _BLOCK // max(1, right.shape[1]))
    for first in range(0, left.shape[0], step):
        whole = product(left[first : first + step], right)
        parts.append(largest_entries(whole, k, limit, sort))
    return sp.vstack(parts, format="csr")


def largest_entries(
    matrix: sp.csr_matrix, k: int, limit: Any = None, sort: bool = True
) -> sp.csr_matrix:
    """Return the k largest entries above `limit`: the largest first, or in their order."""
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    values = matrix.data
    # Not their negatives: the least integer has none.
    order = np.lexsort((-matrix.indices, values, -rows))[::-1]
    rows, values = rows[order], values[order]
    kept = np.arange(len(rows)) - np.searchsorted(rows, rows) < k
    if limit is not None:
        kept &= values > limit
    chosen = order[kept] if sort else np.sort(order[kept])
    indptr = np.append(0, np.cumsum(np.bincount(rows[kept], minlength=matrix.shape[0])))
    return sp.csr_matrix((matrix.data[chosen], matrix.indices[chosen], indptr), shape=matrix.shape)


def product(left: sp.csr_matrix, right: sp.csr_matrix) -> sp.csr_matrix:
    """Return the product in SciPy's order, with the sums of zero that SciPy leaves out."""
    if left.dtype == np.float32:
        wide = product(left.astype(np.float64), right.astype(np.float64))
        # In place, because `astype` of a matrix sorts its rows.
        wide.data = wide.data.astype(np.float32)
        return wide
    found = left @ right
    if left.dtype.kind == "f" and _smallest(left) > 0 and _smallest(left) * _smallest(right) > 0:
        return found
    whole = _ones(left) @ _ones(right)
    if whole.nnz == found.nnz:
        return found
    # In the same order, and what the product lacks is zero.
    places = [rows * np.int64(whole.shape[1]) + ids for rows, ids in map(_entries, (whole, found))]
    scores = np.zeros(whole.nnz, found.dtype)
    scores[np.isin(places[0], places[1], assume_unique=True)] = found.data
    return sp.csr_matrix((scores, whole.indices, whole.indptr), shape=whole.shape)


def is_exact_in_float(left: sp.csr_matrix, right: sp.csr_matrix) -> bool:
    """Whether float64 sums are what is asked for: of floats, or of integers that it holds."""
    if left.dtype.kind == "f":
        return True
    most = np.asarray(abs(left.astype(np.float64)).sum(axis=1)).max(initial=0)
    largest = float(np.abs(right.data.astype(np.float64)).max(initial=0))
    bound = 2.0 ** (31 if left.dtype == np.int32 else 53)
    return bool(max(most, largest, most * largest) < bound)


def _pattern_of(matrix: sp.csr_matrix) -> tuple[Any, ...]:
    """Return a pattern as the compiled module takes it."""
    indptr = matrix.indptr.astype(np.int64, copy=False)
    return indptr, matrix.indices.astype(np.int32, copy=False), matrix.shape, None


def _ones(matrix: sp.csr_matrix) -> sp.csr_matrix:
    ones = np.ones(matrix.nnz, np.float32)
    return sp.csr_matrix((ones, matrix.indices, matrix.indptr), shape=matrix.shape)


def _entries(matrix: sp.csr_matrix) -> tuple[NDArray[Any], NDArray[Any]]:
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    return rows, matrix.indices


def _smallest(matrix: sp.csr_matrix) -> float:
    return float(matrix.data.min(initial=np.inf))
