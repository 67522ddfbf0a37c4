"""Latent semantic analysis: a sparse matrix on its largest singular vectors."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

__all__ = ["components"]


def components(matrix: sp.csr_array, dim: int, op: str) -> NDArray[np.float64]:
    """Return the right singular vectors of the `dim` largest singular values, as columns."""
    from scipy.sparse.linalg import svds

    if dim >= min(matrix.shape):
        raise ValueError(
            f"{op}: dim must be below the number of items and of columns {matrix.shape}; got {dim}"
        )
    if matrix.nnz == 0:
        return np.zeros((matrix.shape[1], dim))
    # A start vector of our own: ARPACK's would come from the global generator.
    start = np.random.default_rng(0).standard_normal(min(matrix.shape))
    _, values, rows = svds(matrix, k=dim, v0=start, return_singular_vectors="vh")
    order = np.argsort(-values, kind="stable")
    values, vectors = values[order], rows[order].T
    largest = vectors[np.abs(vectors).argmax(axis=0), np.arange(dim)]
    # Beyond the rank of the data, vectors are arbitrary.
    kept = values > values[0] * 1e-6
    return np.asarray(np.where(kept, np.where(largest < 0, -vectors, vectors), 0.0))
