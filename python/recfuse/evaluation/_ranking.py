"""One pass over batches of ranked lists: hits, the metrics of each user, what was recommended."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recfuse._index_ranks import PairRanks
from recfuse.evaluation._checks import item_numbers, item_vectors, positive_int
from recfuse.evaluation._lists import (
    auc,
    auc_of_ranks,
    diversity,
    gini,
    last_ranks,
    novelty,
    of_values,
)
from recfuse.evaluation.report import RankingMetrics

Float64 = NDArray[np.float64]

_SCORES_PER_REQUEST = 1 << 22  # of whole rankings


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
        self,
        at: tuple[int, ...],
        n_columns: int,
        op: str,
        *,
        n_items: int | None = None,
        popularity: Any = None,
        values: Any = None,
        vectors: Any = None,
        auc: bool = False,
    ) -> None:
        self.at = at
        self.op = op
        self.n_columns = n_columns
        self.auc = auc
        self.list_width = min(at[-1], n_columns)  # longer lists than the catalogue are padding
        self.width = n_columns if auc else self.list_width  # what a model is asked for
        self.n_items = n_columns if n_items is None else positive_int(n_items, "n_items", op)
        self.surprise = None if popularity is None else _surprise(popularity, n_columns, op)
        self.values = None
        if values is not None:
            self.values = item_numbers(values, n_columns, f"{op}: item_values")
        self.units = None
        if vectors is not None:
            self.units = item_vectors(vectors, n_columns, f"{op}: item_vectors")
        # How often each item is recommended at ranks from one cut-off to the next.
        self.counts: NDArray[np.int64] | None = np.zeros((len(at), n_columns), np.int64)
        self.user_ids: list[NDArray[Any]] = []
        self.batches: list[dict[str, Float64]] = []

    def users_per_request(self, batch_size: int, *, hits: bool = False) -> int:
        """Return the size of a batch: lists of all items come from fewer users at a time.

        So do hits of long lists, where nothing else is kept of them.
        """
        if not self.auc and not hits:
            return batch_size
        return min(batch_size, max(1, _SCORES_PER_REQUEST // max(1, self.width)))

    def add(
        self,
        user_ids: NDArray[Any],
        ids: Any,
        truth: sp.csr_array,
        name: str,
        *,
        scores: Any = None,
        n_candidates: NDArray[Any] | None = None,
        ranks: PairRanks | None = None,
    ) -> None:
        """Take one batch; `name` is what messages call `ids`.

        For the AUC the lists are of all items, with `scores` and the number of items that could be
        in them; or there are the `ranks` of the test items.
        """
        whole = self._checked(ids, len(user_ids), name)
        whole_hits = self._hits(whole, truth)
        ids, hits = whole[:, : self.list_width], whole_hits[:, : self.list_width]
        recommended = ids >= 0
        n_test = np.diff(truth.indptr)
        batch = _metrics(hits, n_test, self.at)
        if self.surprise is not None:
            batch["novelty"] = novelty(ids, recommended, self.surprise, self.at)
        if self.values is not None:
            batch.update(of_values(ids, hits, truth, self.values, self.at))
        if self.units is not None:
            batch["diversity"] = diversity(ids, recommended, self.units, self.at)
        if self.auc and n_candidates is not None:
            checked = self._scores(scores, whole)
            n_listed = np.count_nonzero((whole >= 0) & ~whole_hits, axis=1)
            if (n_listed > n_candidates - n_test).any():
                raise ValueError(f"{name} must leave out what user_items has, for the AUC")
            batch["auc"] = auc(whole, checked, whole_hits, n_test, n_candidates)
        if ranks is not None and n_candidates is not None:
            batch["auc"] = auc_of_ranks(ranks, truth, n_candidates)
        assert self.counts is not None  # lists and ranks do not mix
        cut = np.searchsorted(self.at, np.arange(1, ids.shape[1] + 1))
        cut = np.broadcast_to(cut, ids.shape)
        np.add.at(self.counts, (cut[recommended], ids[recommended]), 1)
        self.user_ids.append(user_ids)
        self.batches.append(batch)

    def add_ranks(
        self,
        user_ids: NDArray[Any],
        ranks: PairRanks,
        truth: sp.csr_array,
        n_candidates: NDArray[Any],
    ) -> None:
        """Take one batch of which the ranks of the test items are all that is known."""
        self.user_ids.append(user_ids)
        rows = np.repeat(np.arange(len(user_ids)), np.diff(truth.indptr))
        hits = np.zeros((len(user_ids), self.list_width), bool)
        found = (ranks.rank > 0) & (ranks.rank <= self.list_width)
        hits[rows[found], ranks.rank[found] - 1] = True
        batch = _metrics(hits, np.diff(truth.indptr), self.at)
        batch["auc"] = auc_of_ranks(ranks, truth, n_candidates)
        self.batches.append(batch)
        self.counts = None

    def _hits(self, ids: NDArray[np.int64], truth: sp.csr_array) -> NDArray[np.bool_]:
        keys = np.arange(len(ids))[:, None] * np.int64(self.n_columns) + ids
        return (ids >= 0) & _contains(truth, keys)

    def result(
        self, *, n_skipped: int, n_seen_left_out: int = 0, split: str | None = None
    ) -> RankingMetrics:
        """Join the batches."""
        if not self.batches:
            raise ValueError(
                f"{self.op}: test must have a relevant item for at least one user; got none"
            )
        counts = {}
        if self.counts is not None:
            counts = dict(zip(self.at, np.cumsum(self.counts, axis=0), strict=True))
        coverage = {k: int(np.count_nonzero(n)) for k, n in counts.items()}
        if max(coverage.values(), default=0) > self.n_items:
            raise ValueError(
                f"{self.op}: n_items must be at least the number of items recommended, "
                f"{max(coverage.values())}; got {self.n_items}"
            )
        joined = {key: np.concatenate([b[key] for b in self.batches]) for key in self.batches[0]}
        return RankingMetrics(
            k=self.at,
            user_ids=np.concatenate(self.user_ids),
            per_user=_by_name(joined, self.at),
            coverage={f"coverage@{k}": n / self.n_items for k, n in coverage.items()},
            gini={f"gini@{k}": gini(n, self.n_items) for k, n in counts.items()},
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

    def _scores(self, scores: Any, ids: NDArray[np.int64]) -> Float64:
        name = f"{self.op}: scores from recommend"
        array = np.asarray(scores)
        if array.dtype.kind not in "fiu":
            raise TypeError(f"{name} must be numbers, for the AUC; got dtype {array.dtype}")
        if array.ndim != 2 or len(array) != len(ids) or array.shape[1] < self.width:
            raise ValueError(f"{name} must have the shape of ids, {ids.shape}; got {array.shape}")
        checked = array[:, : self.width].astype(np.float64)
        listed = np.where(ids >= 0, checked, -np.inf)
        if np.isnan(listed).any() or (listed[:, 1:] > listed[:, :-1]).any():
            raise ValueError(f"{name} must fall along each list; got a rise, or NaN")
        return checked


def _by_name(joined: dict[str, Float64], at: tuple[int, ...]) -> dict[str, Float64]:
    per_user = {}
    for name, values in joined.items():
        if values.ndim == 1:  # a metric of whole rankings has no cut-off
            per_user[name] = values
        else:
            for c, k in enumerate(at):
                per_user[f"{name}@{k}"] = np.ascontiguousarray(values[:, c])
    return per_user


def _metrics(
    hits: NDArray[np.bool_], n_test: NDArray[Any], at: tuple[int, ...]
) -> dict[str, Float64]:
    # Running sums along the ranks: the metrics at k do not depend on what comes after k.
    k = np.array(at, np.float64)  # a k beyond int64 is senseless, but no overflow
    n = n_test[:, None]
    last = last_ranks(at, hits.shape[1])
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


def _surprise(popularity: Any, n_columns: int, op: str) -> Float64:
    counts = item_numbers(popularity, n_columns, f"{op}: train_popularity")
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
