"""Standardising a user's scores over the catalogue, without a look at the scores."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["ZScores"]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

_ROWS = 1 << 14  # of items that share moments: with dim columns they take 2 * dim / _ROWS of these


class _Moments(NamedTuple):
    """Of the present items among some rows."""

    n: int
    mean: Float64  # (dim,)
    products: Float64  # (dim, dim): the sum of (x - mean)(x - mean)'


class ZScores:
    """Turns inner products with items into z-scores over the items that are present.

    The mean and the variance of ``<q, x>`` come from the mean and the covariance of the item
    vectors, so no query needs a pass over the items. The mean travels in one more column: items
    get a 1 there (`item_vectors`), queries ``-mean / std``.

    Moments are kept for every few thousand rows. Where `before` has the same rows they are taken
    from there, so a change of few items costs little and leaves the bytes of a fresh start.
    """

    def __init__(
        self, items: Float32, present: NDArray[np.bool_], before: ZScores | None = None
    ) -> None:
        self.item_vectors = self.extend(items)
        self._present = present
        self._moments = [
            self._moments_of(first, before) for first in range(0, max(len(items), 1), _ROWS)
        ]
        n = max(sum(part.n for part in self._moments), 1)
        self.mean = sum(part.n * part.mean for part in self._moments) / n
        products = np.zeros_like(self._moments[0].products)
        for part in self._moments:
            shift = part.mean - self.mean
            products += part.products
            products += np.outer(part.n * shift, shift)
        self.covariance = products / n
        self.trace = np.trace(self.covariance)

    def _moments_of(self, first: int, before: ZScores | None) -> _Moments:
        rows = slice(first, first + _ROWS)
        if before is not None and self._same(rows, before):
            return before._moments[first // _ROWS]
        x = self.item_vectors[rows, :-1][self._present[rows]].astype(np.float64)
        mean = x.mean(axis=0) if len(x) else np.zeros(x.shape[1])
        x -= mean
        return _Moments(len(x), mean, x.T @ x)

    def _same(self, rows: slice, before: ZScores) -> bool:
        return np.array_equal(self._present[rows], before._present[rows]) and np.array_equal(
            self.item_vectors[rows], before.item_vectors[rows]
        )

    @staticmethod
    def extend(items: Float32) -> Float32:
        return np.hstack([items, np.ones((len(items), 1), np.float32)])

    def queries(self, queries: Float32) -> Float32:
        q = queries.astype(np.float64)
        return self.scaled(q, self.scale(q)).astype(np.float32)

    def scaled(self, parts: Float64, scale: Float64) -> Float64:
        scaled = parts * scale[:, None]
        return np.hstack([scaled, -(scaled @ self.mean)[:, None]])

    def scale(self, q: Float64) -> Float64:
        variance = np.einsum("ij,ij->i", q @ self.covariance, q)
        # Rounding leaves a little variance where there is none, so "none" is relative to the norms.
        largest = np.einsum("ij,ij->i", q, q) * self.trace
        tells = variance > 1e-12 * largest
        return np.asarray(np.where(tells, 1 / np.sqrt(np.where(tells, variance, 1)), 0))
