"""Products with sparse matrices at the cost of what a request needs; lengths of their rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

__all__ = ["product", "scaled_rows", "sparse_product", "squared_lengths"]

_DENSE_SUMS = 64  # places of a row of sums per term that is added to it


def product(left: sp.csr_array, right: Any) -> Any:
    """Return ``left @ right`` in float64; `right` is dense, or sparse by rows.

    SciPy converts all of `right`, which takes longer than the product for the few entries of one
    user. The sums run in the same order either way.
    """
    entries = len(left.indices)
    values = left.data.astype(np.float64)
    if entries >= right.shape[0]:
        return sp.csr_array((values, left.indices, left.indptr), shape=left.shape) @ right.astype(
            np.float64
        )
    parts = (values, np.arange(entries), left.indptr)
    compact = sp.csr_array(parts, shape=(left.shape[0], entries))
    return compact @ right[left.indices].astype(np.float64)


def sparse_product(left: sp.csr_array, right: sp.csr_array) -> sp.csr_array:
    """Return `product` of two sparse matrices, the indices of every row ascending."""
    if left.shape[0] == 1:
        begin, end = right.indptr[left.indices], right.indptr[left.indices + 1]
        sizes = end - begin
        n_terms = int(sizes.sum())
        if right.shape[1] <= _DENSE_SUMS * n_terms:
            first = np.cumsum(sizes) - sizes
            at = np.arange(n_terms) + np.repeat(begin - first, sizes)
            terms = np.repeat(left.data.astype(np.float64), sizes) * right.data[at]
            # Adds one after the other, like a sparse product, and has nothing to sort.
            sums = np.bincount(right.indices[at], terms, minlength=right.shape[1])
            indices = np.flatnonzero(sums != 0)
            parts = (sums[indices], indices, np.array([0, len(indices)]))
            return sp.csr_array(parts, shape=(1, right.shape[1]))
    return sp.csr_array(product(left, right)).sorted_indices()


def squared_lengths(csr: sp.csr_array) -> NDArray[np.float64]:
    """Return the sums of the squares of the rows."""
    sums = np.zeros(csr.shape[0])
    filled = np.flatnonzero(np.diff(csr.indptr))
    if len(filled):
        sums[filled] = np.add.reduceat(csr.data.astype(np.float64) ** 2, csr.indptr[filled])
    return sums


def scaled_rows(csr: sp.csr_array, squares: NDArray[np.float64], power: float) -> sp.csr_array:
    """Return the rows divided by a power of their squared lengths; rows of zeros stay."""
    factors = np.ones(len(squares))
    np.power(squares, -power, out=factors, where=squares > 0)
    data = csr.data * np.repeat(factors, np.diff(csr.indptr))
    return sp.csr_array((data.astype(np.float32), csr.indices, csr.indptr), shape=csr.shape)
