"""Fusion weights tried on cached scores: the best by a metric of held-out events or ratings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

__all__ = ["METRICS", "CachedScores", "best_weights", "search_simplex"]

Float64 = NDArray[np.float64]

METRICS = ("ndcg", "recall", "mse", "mae")  # the latter two are errors: less is better

_N_RANDOM = 200
_STEPS = (0.0, 0.5, 0.8, 1.25, 2.0)


class _Layout(NamedTuple):
    """The candidates of the queries that have a relevant one, query by query in rows of one length.

    Each array has the shape (n_queries, n_candidates), candidates by id; what fills a row up is
    present in no modality.
    """

    scores: Float64  # (n_modalities, n_queries, n_candidates)
    combination: NDArray[np.intp]  # which modalities a pair has: a row of `combinations`
    nothing: NDArray[np.intp]  # the places, counted through, of pairs that have none
    combinations: Float64  # (n_combinations, n_modalities)
    row: NDArray[np.intp]  # of the relevant candidates, with `place`
    place: NDArray[np.intp]
    query: NDArray[np.intp]  # `row` among all queries


@dataclass(frozen=True)
class CachedScores:
    """Scores of every modality for candidate pairs, so that weights are tried without a search.

    `pairs` is a pattern (n_queries, n_items); `scores` and `present` are (pairs.nnz, n_modalities),
    in the order of its entries; `relevant` marks the entries that are held-out events, and
    `targets` are the numbers that errors are about, if there are any.
    """

    pairs: sp.csr_array
    scores: Float64
    present: NDArray[np.bool_]
    relevant: NDArray[np.bool_]
    n_relevant: NDArray[np.int64]  # (n_queries,), held-out events, candidates or not
    targets: Float64 | None = None
    users: NDArray[np.int64] | None = None  # (n_queries,), whom the queries are about

    def value(self, weights: Float64, metric: str, k: int) -> float:
        """Return the metric of the fused scores: a mean over queries, or over pairs for errors."""
        if metric in ("mse", "mae"):
            return self._error(weights, squared=metric == "mse")
        return self.ndcg(weights, k) if metric == "ndcg" else self.recall(weights, k)

    def ndcg(self, weights: Float64, k: int) -> float:
        """Return the mean NDCG@k of the queries with held-out events, by the fused ranking.

        Reference: K. Jarvelin, J. Kekalainen, "Cumulated gain-based evaluation of IR techniques",
        ACM TOIS 20(4), 2002; gains are 0 or 1.
        """
        discounts = 1 / np.log2(np.arange(2, k + 2))
        ideal = np.concatenate([[1.0], np.cumsum(discounts)])[np.minimum(self.n_relevant, k)]
        query, rank = self._hits(weights, k)
        return self._mean(discounts[rank] / ideal[query])

    def recall(self, weights: Float64, k: int) -> float:
        """Return the mean share of a query's held-out events that are among its k best."""
        query, _ = self._hits(weights, k)
        return self._mean(1 / self.n_relevant[query])

    def rows(self, chosen: NDArray[np.bool_]) -> CachedScores:
        """Return the same of some queries."""
        entries = np.repeat(chosen, np.diff(self.pairs.indptr))
        return CachedScores(
            self.pairs[np.flatnonzero(chosen)],
            self.scores[entries],
            self.present[entries],
            self.relevant[entries],
            self.n_relevant[chosen],
            None if self.targets is None else self.targets[entries],
        )

    def _mean(self, gains: Float64) -> float:
        judged = int((self.n_relevant > 0).sum())
        return float(gains.sum() / judged) if judged else 0.0

    def _error(self, weights: Float64, *, squared: bool) -> float:
        assert self.targets is not None
        here = np.einsum("pm,m->p", self.present, weights)
        fused = np.einsum("pm,m->p", self.scores, weights) * weights.sum()
        known = here > 0
        errors = fused[known] / here[known] - self.targets[known]
        return float((errors**2 if squared else np.abs(errors)).mean()) if len(errors) else 0.0

    def _hits(self, weights: Float64, k: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return query and rank (from 0) of every relevant pair that is among the k best.

        A rank is counted, not sorted out: there are few relevant pairs.
        """
        layout = self._layout
        # Not `@`: BLAS starts its threads for these few rows, and they cost more than the sums.
        fused = np.einsum("m,mqc->qc", weights, layout.scores)
        here = layout.combinations @ weights
        if len(here) > 1 or not here.all():
            factors = np.divide(weights.sum(), here, out=np.zeros_like(here), where=here > 0)
            fused *= np.take(factors, layout.combination, mode="clip")
            fused.ravel()[layout.nothing] = -np.inf
            if np.count_nonzero(here <= 0) > (len(layout.nothing) > 0):
                fused[(here <= 0)[layout.combination]] = -np.inf
        own = fused[layout.row, layout.place]
        hit = np.flatnonzero(np.isfinite(own))
        n_candidates = fused.shape[1]
        if n_candidates > k:
            # Below the k-th best of a query there is no hit; few are left to be counted.
            worst = np.partition(fused, n_candidates - k, axis=1)[:, n_candidates - k]
            hit = hit[own[hit] >= worst[layout.row[hit]]]
        rivals, own = fused[layout.row[hit]], own[hit, None]
        rank = np.count_nonzero(rivals > own, axis=1)
        # Of equal scores, the lower id is first.
        equal = rivals == own
        if np.count_nonzero(equal) > len(hit):
            before = np.arange(n_candidates) < layout.place[hit, None]
            rank += np.count_nonzero(equal & before, axis=1)
        within = rank < k
        return layout.query[hit[within]], rank[within]

    @cached_property
    def _layout(self) -> _Layout:
        counts = np.diff(self.pairs.indptr)
        entry_query = np.repeat(np.arange(len(counts)), counts)
        queries = np.unique(entry_query[self.relevant])
        row_of = np.full(len(counts), -1)
        row_of[queries] = np.arange(len(queries))
        used = np.flatnonzero(row_of[entry_query] >= 0)
        # By id, so that of equal scores the place tells which is first.
        used = used[np.lexsort((self.pairs.indices[used], entry_query[used]))]
        row = row_of[entry_query[used]]
        kept = counts[queries]
        place = np.arange(len(used)) - np.repeat(np.cumsum(kept) - kept, kept)
        shape = (len(queries), int(kept.max(initial=0)))
        scores = np.zeros((self.scores.shape[1], *shape))
        scores[:, row, place] = self.scores[used].T
        present = np.zeros((*shape, self.scores.shape[1]), bool)
        present[row, place] = self.present[used]
        combinations, which = _combinations(present)
        empty = np.asarray(~combinations.any(axis=1))
        judged = self.relevant[used]
        return _Layout(
            scores,
            which,
            np.flatnonzero(empty[which]),
            combinations.astype(np.float64),
            row[judged],
            place[judged],
            queries[row[judged]],
        )


def _combinations(present: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
    """Return the different rows of the last axis, in order, and which of them stands where.

    `numpy.unique` sorts the rows, which takes longer than hundreds of weights.
    """
    which = np.zeros(present.shape[:-1], np.intp)
    rows = np.zeros((1, 0), bool)
    for column in np.moveaxis(present, -1, 0):
        which = 2 * which + column
        used = np.bincount(which.ravel(), minlength=2 * len(rows)) > 0
        old, last = np.divmod(np.flatnonzero(used), 2)
        rows = np.column_stack([rows[old], last.astype(bool)])
        which = (np.cumsum(used) - 1)[which]
    return rows, which


def best_weights(
    cached: CachedScores, metric: str, k: int, rng: np.random.Generator
) -> tuple[Float64, float, int]:
    """Return non-negative weights that sum to 1, their value of the metric, and how many tried."""
    sign = -1.0 if metric in ("mse", "mae") else 1.0
    weights, best, tried = search_simplex(
        lambda w: sign * cached.value(w, metric, k), cached.scores.shape[1], rng
    )
    return weights, sign * best, tried


def search_simplex(
    value: Callable[[Float64], float], n_modalities: int, rng: np.random.Generator
) -> tuple[Float64, float, int]:
    """Return the weights of the largest value that was found, the value, and how many were tried.

    Every modality alone, equal weights and random points of the simplex, then coordinate ascent
    from the best: a metric of ranks is piecewise constant, so there is no gradient to follow.
    """
    starts = [np.eye(n_modalities), np.full((1, n_modalities), 1 / n_modalities)]
    if n_modalities > 1:
        starts.append(rng.dirichlet(np.full(n_modalities, 0.7), _N_RANDOM))
    best_w, best, tried = np.eye(n_modalities)[0], -np.inf, 0
    for weights in np.concatenate(starts):
        got = value(weights)
        tried += 1
        if got > best:
            best_w, best = weights, got
    improved = n_modalities > 1
    while improved:
        improved = False
        for m in range(n_modalities):
            for step in _STEPS:
                weights = best_w.copy()
                weights[m] *= step
                if weights.sum() <= 0:
                    continue
                weights /= weights.sum()
                got = value(weights)
                tried += 1
                # A gain below this is the luck of a few users.
                if got > best + 1e-6 * abs(best):
                    best_w, best, improved = weights, got, True
    return best_w, best, tried
