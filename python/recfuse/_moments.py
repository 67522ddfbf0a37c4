"""Mean and deviation of the similarities of a query with all items, from moments of the items."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Moments"]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

_ROWS = 1 << 14  # items that are in float64 together
# Queries are multiplied so many at a time, the last of them zeros: BLAS may add in another order
# where a batch has another shape, and a score must not depend on its batch.
_QUERIES = 32
# A variance below this share of |q|^2 times the mean of |y|^2 is what float32 vectors are off by.
_LEAST_VARIANCE = 1e-14


@dataclass(frozen=True)
class Moments:
    """Of the vectors y that a query is multiplied with: items, or unit vectors for the cosine.

    Attributes
    ----------
    mean : ndarray of shape (dim,), float64
    covariance : ndarray of shape (dim, dim), float64
    """

    mean: Float64
    covariance: Float64

    @classmethod
    def of(cls, items: Float32, present: NDArray[np.bool_] | None, metric: str) -> Moments:
        """Return the moments of the items that are present and finite; zeros where none is.

        Two passes over the items, and n_items * dim^2 multiplications.
        """
        dim = items.shape[1]
        n, total = 0, np.zeros(dim)
        for y in _vectors(items, present, metric):
            n += len(y)
            total += y.sum(axis=0)
        mean = total / max(n, 1)
        covariance = np.zeros((dim, dim))
        for y in _vectors(items, present, metric):
            centred = y - mean
            covariance += centred.T @ centred
        return cls(mean, covariance / max(n, 1))

    def spread(self, queries: Float32, metric: str) -> tuple[Float64, Float64]:
        """Return mean and standard deviation of every query's similarities, 0 where there is none.

        They do not depend on the other queries.
        """
        q = queries.astype(np.float64)
        if metric == "cosine":
            q *= _inverse_norms(q)[:, None]
        means, variances = np.empty(len(q)), np.empty(len(q))
        block = np.zeros((_QUERIES, q.shape[1]))
        for first in range(0, len(q), _QUERIES):
            part = q[first : first + _QUERIES]
            block[: len(part)], block[len(part) :] = part, 0
            means[first : first + _QUERIES] = (block * self.mean).sum(axis=1)[: len(part)]
            products = (block @ self.covariance) * block
            variances[first : first + _QUERIES] = products.sum(axis=1)[: len(part)]
        largest = (q * q).sum(axis=1) * (self.mean @ self.mean + np.trace(self.covariance))
        with np.errstate(invalid="ignore"):
            tells = variances > _LEAST_VARIANCE * largest
        return means, np.sqrt(np.where(tells, variances, 0))


def _vectors(items: Float32, present: NDArray[np.bool_] | None, metric: str) -> Iterator[Float64]:
    for first in range(0, len(items), _ROWS):
        block = items[first : first + _ROWS]
        if present is not None:
            block = block[present[first : first + _ROWS]]
        y = block.astype(np.float64)
        y = y[np.isfinite(y).all(axis=1)]
        if metric == "cosine":
            y *= _inverse_norms(y)[:, None]
        yield y


def _inverse_norms(x: Float64) -> Float64:
    """1 / |x|, 0 for a zero vector."""
    norms = np.sqrt((x * x).sum(axis=1))
    inverse: Float64 = np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0)
    return inverse
