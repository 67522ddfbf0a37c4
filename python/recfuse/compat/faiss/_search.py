"""Exact search by inner product and by squared distance, on the same screen.

``-|q - x|^2 / 2 = <q, x> - |x|^2 / 2 - |q|^2 / 2`` and the last term is the same for all items, so
the nearest items are those with the largest inner product once they have ``-|x|^2 / 2`` as one
more dimension and the query has a 1 there. float32 does not hold that number; three of them do.
A screen in small integers has one scale for all dimensions, so the first of the three is spread
until it is no larger than the others (`_constants`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recfuse.backend import resolve_backend
from recfuse.index import FusedIndex

__all__ = ["METRIC_INNER_PRODUCT", "METRIC_L2", "ByDistance", "ByProduct", "in_range"]

METRIC_INNER_PRODUCT = 0
METRIC_L2 = 1

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Ids = NDArray[np.int64]

_MORE = 4  # candidates beyond k at first
_MOST_COLUMNS = 4  # that the largest of the constants is spread over
_BLOCK = 1 << 22  # elements that are looked at together
_MOST_HALF_SQUARE = 2.0**100  # of what the screen takes: float32 holds the constants, and sums


class ByProduct:
    """Largest inner products first."""

    def __init__(self, items: Float32) -> None:
        self.items = items
        self._index = FusedIndex({"": items}, metric="dot")

    def search(self, queries: Float32, k: int) -> tuple[Float32, Ids]:
        """Return the k largest products and their items, padded with -inf and -1."""
        ids, scores = self._index.topk({"": queries}, k)
        return scores, ids.astype(np.int64)


class ByDistance:
    """Smallest squared distances first, each the sum of squared differences in float64."""

    def __init__(self, items: Float32) -> None:
        self.items = items
        halves = _squares(items) / 2
        near = halves < _MOST_HALF_SQUARE
        self._far = np.flatnonzero(~near).astype(np.int32)
        screened = halves[near]
        # What all items have in common ranks nothing, and the rest is rounded less.
        self._centre = (screened.min() + screened.max()) / 2 if len(screened) else 0.0
        self._largest = float(screened.max(initial=0))
        constants, self._constants = _constants(
            self._centre - screened, items[near] if len(self._far) else items
        )
        columns = np.full((len(items), constants.shape[1]), np.nan, np.float32)  # never found
        columns[near] = constants
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
            step = max(1, _BLOCK // (wide + len(self._far)))
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
        constants = np.broadcast_to(self._constants, (len(queries), len(self._constants)))
        found, sums = self._index.topk({"": np.hstack([queries, constants])}, wide, **filters)
        ops = resolve_backend("cpu").ops
        candidates = found
        if len(self._far):
            candidates = np.hstack([found, self._far_of(len(queries), **filters)])
        ids, best = ops.nearest_candidates(queries, self.items, candidates, k, num_threads=0)

        last = sums[:, -1].astype(np.float64)
        size = _squares(queries)
        # 2^-23 for the rounding of the last candidate's sum, the rest for the sums in float64.
        slack = 2.0**-23 * abs(last) + _slack(self.items) * (size + 4 * self._largest) + 2.0**-140
        with np.errstate(invalid="ignore"):  # of no distance is nothing proven
            least = size + 2 * self._centre - 2 * last - slack  # distance of what is no candidate
        complete = (found[:, -1] < 0) | (wide == len(self.items))
        proven = complete | (best[:, -1].astype(np.float64) * (1 + 2.0**-22) < least)
        return best, ids.astype(np.int64), proven

    def _far_of(
        self, n: int, exclude: sp.csr_array | None, allow: NDArray[Any] | None
    ) -> NDArray[np.int32]:
        """Return the items that the screen does not take, which are candidates of every query."""
        far = np.tile(self._far, (n, 1))
        if allow is not None:
            far[:, ~np.isin(self._far, allow)] = -1
        if exclude is not None:
            stored = sp.csr_array(
                (np.ones(exclude.nnz, bool), exclude.indices, exclude.indptr), shape=exclude.shape
            )
            far[stored[:, self._far].toarray()] = -1
        return far


def in_range(
    queries: Float32, items: Float32, radius: float, metric: int
) -> tuple[Ids, Float32, Ids]:
    """Return where each query's items begin, their distances or products, and their ids."""
    with np.errstate(over="ignore"):
        limit = float(np.float32(radius))
    lims, ids, values = resolve_backend("cpu").ops.rows_in_range(
        queries, items, limit, products=metric == METRIC_INNER_PRODUCT, num_threads=0
    )
    return lims, values, ids.astype(np.int64)


def _squares(rows: Float32) -> Float64:
    """Return the squared length of every row, in float64."""
    sums = np.empty(len(rows))
    step = max(1, _BLOCK // max(1, rows.shape[1]))
    for first in range(0, len(rows), step):
        some = slice(first, first + step)
        sums[some] = np.square(rows[some], dtype=np.float64).sum(axis=1)
    return sums


def _constants(values: Float64, items: Float32) -> tuple[Float32, Float32]:
    """Return columns of items, and what queries have there, whose products add up to the values.

    The last two hold what float32 does not of the first: 72 bits, of which a float64 has 53.
    Neither is larger than the items' elements, as far as `_MOST_COLUMNS` and powers of two go.
    """
    element = np.exp2(np.floor(np.log2(np.abs(items).max(initial=0) or 1.0)))
    most = np.abs(values).max(initial=0)
    factor = np.exp2(np.ceil(np.log2(max(most / element, 2.0**-100))))
    n = int(np.clip(factor / element, 1, _MOST_COLUMNS))
    first = (values / factor).astype(np.float32)
    rest = values - factor * first.astype(np.float64)
    second = rest.astype(np.float32)
    third = (rest - second).astype(np.float32)
    columns = np.column_stack([*[first] * n, second, third])
    return columns, np.array([*[factor / n] * n, 1, 1], np.float32)


def _slack(items: Float32) -> float:
    """Return what a sum of products in float64 and its rounding to float32 may be off."""
    return float((items.shape[1] + 8) * 2.0**-51)
