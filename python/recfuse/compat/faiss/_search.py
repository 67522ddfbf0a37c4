"""Exact search by inner product and by squared distance, on the same screen.

``-|q - x|^2 / 2 = <q, x> - |x|^2 / 2 - |q|^2 / 2`` and the last term is the same for all items, so
the nearest items are those with the largest inner product once they have ``-|x|^2 / 2`` as one
more dimension and the query has a 1 there. float32 does not hold that number; three of them do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recfuse.index import FusedIndex

__all__ = ["METRIC_INNER_PRODUCT", "METRIC_L2", "ByDistance", "ByProduct"]

METRIC_INNER_PRODUCT = 0
METRIC_L2 = 1

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Ids = NDArray[np.int64]

_MORE = 16  # candidates beyond k at first
_BLOCK = 1 << 22  # elements that are looked at together
_IN_CACHE = 1 << 16  # numbers that are subtracted and squared together


class ByProduct:
    """Largest inner products first."""

    def __init__(self, items: Float32) -> None:
        self.items = items
        self._index = FusedIndex({"": items}, metric="dot")

    def search(self, queries: Float32, k: int) -> tuple[Float32, Ids]:
        """Return the k largest products and their items, padded with -inf and -1."""
        ids, scores = self._index.topk({"": queries}, k)
        return scores, ids.astype(np.int64)

    def in_range(self, queries: Float32, radius: float) -> Iterator[tuple[NDArray[Any], Float32]]:
        """Yield, query by query, the items above the radius in ascending order."""
        sizes = np.linalg.norm(self.items.astype(np.float64), axis=1)
        for block, products, largest in _products(queries, self.items):
            slack = _slack(self.items) * (largest * sizes[None, :] + abs(radius))
            pairs = sp.csr_array(~(products < radius - slack))  # NaN is a candidate, and falls
            scores, _ = self._index.score_pairs({"": block}, pairs)
            for first, end in zip(pairs.indptr[:-1], pairs.indptr[1:], strict=True):
                kept = scores[first:end] > np.float32(radius)
                yield pairs.indices[first:end][kept], scores[first:end][kept]


class ByDistance:
    """Smallest squared distances first, each the sum of squared differences in float64."""

    def __init__(self, items: Float32) -> None:
        self.items = items
        halves = _squares(items) / 2
        finite = halves[np.isfinite(halves)]
        # What all items have in common ranks nothing, and the rest is rounded less.
        self._centre = (finite.min() + finite.max()) / 2 if len(finite) else 0.0
        self._largest = float(finite.max(initial=0))
        columns = _as_float32_columns(self._centre - halves)
        self._index = FusedIndex({"": np.hstack([items, columns])}, metric="dot")

    def search(
        self,
        queries: Float32,
        k: int,
        *,
        exclude: sp.csr_array | None = None,
        allow: NDArray[Any] | None = None,
    ) -> tuple[Float32, Ids]:
        """Return the k smallest squared distances and their items, padded with inf and -1.

        `exclude` has one row per query, `allow` ids for all queries, as in `recfuse.topk`.
        """
        distances = np.full((len(queries), k), np.inf, np.float32)
        ids = np.full((len(queries), k), -1, np.int64)
        open_rows = np.arange(len(queries))
        wide = k + _MORE
        while len(open_rows):
            wide = min(wide, len(self.items))
            step = max(1, _BLOCK // (wide * max(1, queries.shape[1])))
            left = []
            for first in range(0, len(open_rows), step):
                rows = open_rows[first : first + step]
                filters = {
                    "exclude": None if exclude is None else exclude[rows],
                    "allow": allow,
                }
                near, far, proven = self._nearest(queries[rows], k, wide, filters)
                distances[rows, : near.shape[1]], ids[rows, : far.shape[1]] = near, far
                left.append(rows[~proven])
            open_rows = np.concatenate(left)
            wide *= 8
        return distances, ids

    def _nearest(
        self, queries: Float32, k: int, wide: int, filters: dict[str, Any]
    ) -> tuple[Float32, Ids, NDArray[np.bool_]]:
        """Return the best of `wide` candidates, and for which queries no other item comes close."""
        ones = np.ones((len(queries), 3), np.float32)
        found, sums = self._index.topk({"": np.hstack([queries, ones])}, wide, **filters)
        distances = np.empty(found.shape, np.float32)
        step = max(1, _IN_CACHE // (wide * max(1, queries.shape[1])))
        for first in range(0, len(queries), step):
            some = slice(first, first + step)
            distances[some] = _distances(queries[some, None, :], self.items[found[some]])
        distances[(found < 0) | np.isnan(distances)] = np.inf
        order = np.lexsort((found, distances), axis=-1)[:, :k]
        best = np.take_along_axis(distances, order, axis=1)
        ids = np.where(np.isposinf(best), -1, np.take_along_axis(found, order, axis=1))

        last = sums[:, -1].astype(np.float64)
        size = _squares(queries)
        # 2^-23 for the rounding of the last candidate's sum, the rest for the sums in float64.
        slack = 2.0**-23 * abs(last) + _slack(self.items) * (size + 4 * self._largest) + 2.0**-140
        with np.errstate(invalid="ignore"):  # of no distance is nothing proven
            least = size + 2 * self._centre - 2 * last - slack  # distance of what is no candidate
        complete = (found[:, -1] < 0) | (wide == len(self.items))
        proven = complete | (best[:, -1].astype(np.float64) * (1 + 2.0**-22) < least)
        return best, ids.astype(np.int64), proven

    def in_range(self, queries: Float32, radius: float) -> Iterator[tuple[NDArray[Any], Float32]]:
        """Yield, query by query, the items nearer than the radius in ascending order."""
        sizes = _squares(self.items)
        for block, products, _ in _products(queries, self.items):
            both = _squares(block)[:, None] + sizes[None, :]
            slack = _slack(self.items) * (both + abs(radius))
            near = ~(both - 2 * products > radius + slack)
            for query, row in zip(block, near, strict=True):
                ids = np.flatnonzero(row)
                distances = np.concatenate(
                    [np.empty(0, np.float32)]
                    + [_distances(query, self.items[some]) for some in _cut(ids, len(query))]
                )
                kept = distances < np.float32(radius)
                yield ids[kept], distances[kept]


def _cut(ids: NDArray[Any], dim: int) -> list[NDArray[Any]]:
    step = max(1, _BLOCK // max(1, dim))
    return [ids[first : first + step] for first in range(0, len(ids), step)]


def _distances(queries: Any, items: Any) -> Float32:
    """Return squared distances in float64, rounded once; 0 for equal rows, never below."""
    differences = queries.astype(np.float64) - items
    with np.errstate(over="ignore"):
        rounded: Float32 = np.square(differences).sum(axis=-1).astype(np.float32)
    return rounded


def _squares(rows: Float32) -> Float64:
    """Return the squared length of every row, in float64."""
    sums = np.empty(len(rows))
    for some in _cut(np.arange(len(rows)), rows.shape[1]):
        sums[some] = np.square(rows[some], dtype=np.float64).sum(axis=1)
    return sums


def _as_float32_columns(values: Float64) -> Float32:
    """Return three columns that add up to the values: 72 bits hold the 53 of a float64."""
    columns = np.zeros((len(values), 3), np.float32)
    rest = values.copy()
    for i in range(3):
        columns[:, i] = rest
        rest -= columns[:, i]
    return columns


def _slack(items: Float32) -> float:
    """Return what a sum of products in float64 and its rounding to float32 may be off."""
    return float((items.shape[1] + 8) * 2.0**-51)


def _products(queries: Float32, items: Float32) -> Iterator[tuple[Float32, Float64, Float64]]:
    """Yield some queries, their products with all items in float64, and their lengths."""
    step = max(1, _BLOCK // max(1, len(items)))
    wide = items.astype(np.float64)
    for first in range(0, len(queries), step):
        block = queries[first : first + step]
        with np.errstate(invalid="ignore", over="ignore"):
            products = block.astype(np.float64) @ wide.T
        yield block, products, np.sqrt(_squares(block))[:, None]
