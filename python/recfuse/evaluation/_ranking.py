"""One pass over batches of ranked lists: hits, the metrics of each user, what was recommended."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recfuse.evaluation._checks import positive_int
from recfuse.evaluation.report import RankingMetrics

Float64 = NDArray[np.float64]


def relevant(test: sp.csr_array, name: str) -> sp.csr_array:
    """Return the entries above 0 of a canonical matrix."""
    finite = np.isfinite(test.data)
    if not finite.all():
        raise ValueError(f"{name} must hold finite values; got {test.data[~finite][0]}")
    return _keep(test, test.data > 0)


def without(rows: sp.csr_array, seen: sp.csr_array) -> sp.csr_array:
    """Return `rows` without the entries that `seen` stores, whatever their value."""
    return _keep(rows, ~_contains(seen, _keys(rows)))


class RankingPass:
    """Takes batches of users that all have test items; gives the metrics of all of them."""

    def __init__(
        self, at: tuple[int, ...], n_columns: int, n_items: int | None, popularity: Any, op: str
    ) -> None:
        self.at = at
        self.op = op
        self.n_columns = n_columns
        self.width = min(at[-1], n_columns)  # longer lists than the catalogue are only padding
        self.n_items = n_columns if n_items is None else positive_int(n_items, "n_items", op)
        self.surprise = None if popularity is None else _surprise(popularity, n_columns, op)
        self.best_rank = np.full(n_columns, self.width + 1)  # of each item, over all users
        self.user_ids: list[NDArray[Any]] = []
        self.batches: list[dict[str, Float64]] = []

    def add(self, user_ids: NDArray[Any], ids: Any, truth: sp.csr_array, name: str) -> None:
        """Take one batch; `name` is what messages call `ids`."""
        ids = self._checked(ids, len(user_ids), name)
        recommended = ids >= 0
        keys = np.arange(len(ids))[:, None] * np.int64(self.n_columns) + ids
        hits = recommended & _contains(truth, keys)
        batch = _metrics(hits, np.diff(truth.indptr), self.at)
        if self.surprise is not None:
            batch["novelty"] = _novelty(ids, recommended, self.surprise, self.at)
        rank = np.broadcast_to(np.arange(1, ids.shape[1] + 1), ids.shape)
        np.minimum.at(self.best_rank, ids[recommended], rank[recommended])
        self.user_ids.append(user_ids)
        self.batches.append(batch)

    def result(
        self, *, n_skipped: int, n_seen_left_out: int = 0, split: str | None = None
    ) -> RankingMetrics:
        """Join the batches."""
        if not self.batches:
            raise ValueError(
                f"{self.op}: test must have a relevant item for at least one user; got none"
            )
        coverage = {k: int((self.best_rank <= min(k, self.width)).sum()) for k in self.at}
        if coverage[self.at[-1]] > self.n_items:
            raise ValueError(
                f"{self.op}: n_items must be at least the number of items recommended, "
                f"{coverage[self.at[-1]]}; got {self.n_items}"
            )
        joined = {key: np.concatenate([b[key] for b in self.batches]) for key in self.batches[0]}
        return RankingMetrics(
            k=self.at,
            user_ids=np.concatenate(self.user_ids),
            per_user={
                f"{key}@{k}": np.ascontiguousarray(values[:, c])
                for key, values in joined.items()
                for c, k in enumerate(self.at)
            },
            coverage={f"coverage@{k}": n / self.n_items for k, n in coverage.items()},
            n_skipped=n_skipped,
            n_seen_left_out=n_seen_left_out,
            split=split,
        )

    def _checked(self, ids: Any, n_rows: int, name: str) -> NDArray[np.int64]:
        array = np.asarray(ids)
        if array.dtype.kind not in "iu":
            raise TypeError(f"{name} must be integers; got dtype {array.dtype}")
        if array.ndim != 2 or array.shape[0] != n_rows or array.shape[1] < self.width:
            raise ValueError(
                f"{name} must have shape ({n_rows}, >= {self.width}), a row per user and k ids "
                f"with -1 as padding; got {array.shape}"
            )
        array = array[:, : self.width]
        wrong = (array < -1) | (array >= self.n_columns)
        if wrong.any():
            raise IndexError(f"{name} must be in [-1, {self.n_columns}); got {array[wrong][0]}")
        checked: NDArray[np.int64] = array.astype(np.int64, copy=False)
        ordered = np.sort(checked, axis=1)
        twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
        if twice.any():
            raise ValueError(
                f"{name} must have no item twice in a row; got {ordered[:, 1:][twice][0]}"
            )
        return checked


def _metrics(
    hits: NDArray[np.bool_], n_test: NDArray[Any], at: tuple[int, ...]
) -> dict[str, Float64]:
    # Running sums along the ranks: the metrics at k do not depend on what comes after k.
    k = np.array(at, np.float64)  # a k beyond int64 is senseless, but no overflow
    n = n_test[:, None]
    last = [min(j, hits.shape[1]) - 1 for j in at]
    rank = np.arange(1, hits.shape[1] + 1)
    discount = 1 / np.log2(rank + 1)
    found = np.cumsum(hits, axis=1)
    n_found = found[:, last]
    ideal = np.minimum(k, n).astype(np.intp)
    first_hit = np.where(n_found[:, -1] > 0, hits.argmax(axis=1) + 1, np.inf)[:, None]
    return {
        "precision": n_found / k,
        "recall": n_found / n,
        "f1": 2 * n_found / (k + n),  # 2PR / (P + R) without its 0/0
        "hit_rate": (n_found > 0).astype(np.float64),
        "map": np.cumsum(hits * found / rank, axis=1)[:, last] / ideal,
        "ndcg": np.cumsum(hits * discount, axis=1)[:, last] / np.cumsum(discount)[ideal - 1],
        "mrr": np.where(first_hit <= k, 1 / first_hit, 0.0),
    }


def _novelty(
    ids: NDArray[np.int64],
    recommended: NDArray[np.bool_],
    surprise: Float64,
    at: tuple[int, ...],
) -> Float64:
    last = [min(j, ids.shape[1]) - 1 for j in at]
    total = np.cumsum(np.where(recommended, surprise[ids], 0.0), axis=1)[:, last]
    n = np.cumsum(recommended, axis=1)[:, last]
    result: Float64 = np.divide(total, n, out=np.full(total.shape, np.nan), where=n > 0)
    return result


def _surprise(popularity: Any, n_columns: int, op: str) -> Float64:
    counts = np.asarray(popularity)
    if counts.dtype.kind not in "fiu":
        raise TypeError(f"{op}: train_popularity must hold numbers; got dtype {counts.dtype}")
    if counts.shape != (n_columns,):
        raise ValueError(
            f"{op}: train_popularity must have shape ({n_columns},), one number per column of "
            f"test; got {counts.shape}"
        )
    counts = counts.astype(np.float64)
    wrong = ~(np.isfinite(counts) & (counts >= 0))
    if wrong.any():
        raise ValueError(
            f"{op}: train_popularity must be finite and at least 0; got {counts[wrong][0]}"
        )
    if not counts.any():
        raise ValueError(f"{op}: train_popularity must be above 0 somewhere; got zeros only")
    least = counts[counts > 0].min()
    result: Float64 = -np.log2(np.maximum(counts, least) / counts.sum())
    return result


def _keep(csr: sp.csr_array, mask: NDArray[np.bool_]) -> sp.csr_array:
    kept_before = np.concatenate([[0], np.cumsum(mask)])
    parts = (csr.data[mask], csr.indices[mask], kept_before[csr.indptr])
    return sp.csr_array(parts, shape=csr.shape)


def _keys(csr: sp.csr_array) -> NDArray[np.int64]:
    # Row and column in one number; sorted, as the matrix is canonical.
    rows = np.repeat(np.arange(csr.shape[0], dtype=np.int64), np.diff(csr.indptr))
    keys: NDArray[np.int64] = rows * csr.shape[1] + csr.indices
    return keys


def _contains(csr: sp.csr_array, keys: NDArray[np.int64]) -> NDArray[np.bool_]:
    stored = _keys(csr)
    if not len(stored):
        return np.zeros(keys.shape, bool)
    place = np.minimum(np.searchsorted(stored, keys), len(stored) - 1)
    found: NDArray[np.bool_] = stored[place] == keys
    return found
