"""Fusion weights that maximise NDCG on held-out events."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

__all__ = ["CachedScores", "fit_weights"]

Float64 = NDArray[np.float64]
_N_RANDOM = 200
_STEPS = (0.0, 0.5, 0.8, 1.25, 2.0)


@dataclass(frozen=True)
class CachedScores:
    """Scores of every modality for candidate pairs, so that weights are tried without a search.

    `pairs` is a pattern (n_users, n_items); `scores` and `present` are (pairs.nnz, n_modalities),
    in the order of its entries; `relevant` marks the entries that are held-out events.
    """

    pairs: sp.csr_array
    scores: Float64
    present: NDArray[np.bool_]
    relevant: NDArray[np.bool_]
    n_relevant: NDArray[np.int64]  # (n_users,), held-out events, candidates or not

    def ndcg(self, weights: Float64, k: int) -> float:
        """Return the mean NDCG@k of the users with held-out events, by the fused ranking.

        Reference: K. Jarvelin, J. Kekalainen, "Cumulated gain-based evaluation of IR techniques",
        ACM TOIS 20(4), 2002; gains are 0 or 1.
        """
        # Not `@`: BLAS starts its threads for these few columns, and they cost more than the sums.
        here = np.einsum("pm,m->p", self.present, weights)
        fused = np.full(len(here), -np.inf)
        total = np.einsum("pm,m->p", self.scores, weights) * weights.sum()
        np.divide(total, here, out=fused, where=here > 0)
        n_users = self.pairs.shape[0]
        users = np.repeat(np.arange(n_users), np.diff(self.pairs.indptr))
        # Only what reaches the k-th best score of its user is sorted: that is most of the time.
        kept = np.flatnonzero(fused >= self._kth_best(fused, k)[users])
        order = kept[np.lexsort((self.pairs.indices[kept], -fused[kept], users[kept]))]
        counts = np.bincount(users[kept], minlength=n_users)
        rank = np.arange(len(order)) - (np.cumsum(counts) - counts)[users[order]]
        hit = self.relevant[order] & (rank < k) & np.isfinite(fused[order])
        discounts = 1 / np.log2(np.arange(2, k + 2))
        gains = np.bincount(users[order][hit], discounts[rank[hit]], minlength=n_users)
        ideal = np.concatenate([[0.0], np.cumsum(discounts)])[np.minimum(self.n_relevant, k)]
        judged = self.n_relevant > 0
        return float((gains[judged] / ideal[judged]).mean()) if judged.any() else 0.0

    def _kth_best(self, fused: Float64, k: int) -> Float64:
        """Return the k-th best score of every user, -inf where there are fewer."""
        counts = np.diff(self.pairs.indptr)
        width = int(counts.max(initial=0))
        if width < k:
            return np.full(len(counts), -np.inf)
        table = np.full((len(counts), width), -np.inf)
        table[np.arange(width) < counts[:, None]] = fused
        result: Float64 = np.partition(table, width - k, axis=1)[:, width - k]
        return result


def fit_weights(cached: CachedScores, k: int, rng: np.random.Generator) -> tuple[Float64, float]:
    """Return non-negative weights that sum to 1, and their NDCG@k.

    Every modality alone, equal weights and random points of the simplex, then coordinate ascent
    from the best: NDCG is piecewise constant, so there is no gradient to follow.
    """
    n_modalities = cached.scores.shape[1]
    starts = [np.eye(n_modalities), np.full((1, n_modalities), 1 / n_modalities)]
    if n_modalities > 1:
        starts.append(rng.dirichlet(np.full(n_modalities, 0.7), _N_RANDOM))
    best_weights, best = np.eye(n_modalities)[0], -1.0
    for weights in np.concatenate(starts):
        value = cached.ndcg(weights, k)
        if value > best:
            best_weights, best = weights, value
    improved = n_modalities > 1
    while improved:
        improved = False
        for m in range(n_modalities):
            for step in _STEPS:
                weights = best_weights.copy()
                weights[m] *= step
                if weights.sum() <= 0:
                    continue
                weights /= weights.sum()
                value = cached.ndcg(weights, k)
                # A gain below this is the luck of a few users.
                if value > best + 1e-6:
                    best_weights, best, improved = weights, value, True
    return best_weights, best
