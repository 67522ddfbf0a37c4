"""The specification of fusion rules that look at all items first: slow, obvious, in float64."""

from __future__ import annotations

import numpy as np


def scale(sims: np.ndarray, counts: np.ndarray, rule: str) -> tuple[np.ndarray, np.ndarray]:
    """Centre and spread of every query's similarities, over the items that count."""
    chosen = sims[:, counts]
    if rule == "zscore":
        return chosen.mean(axis=1), chosen.std(axis=1)
    rounded = chosen.astype(np.float32).astype(np.float64)
    return rounded.min(axis=1), rounded.max(axis=1) - rounded.min(axis=1)


def normalised_scores(
    sims: list[np.ndarray],
    has: list[np.ndarray],
    weights: np.ndarray,
    centres: list[np.ndarray],
    spreads: list[np.ndarray],
    *,
    fusion: str = "sum",
    missing: str = "renormalise",
) -> np.ndarray:
    """Scores (n_queries, n_items), NaN where not ranked; lists and weights' columns by modality."""
    n_queries, n_items = sims[0].shape
    scores = np.full((n_queries, n_items), np.nan)
    modalities = range(len(sims))
    for q in range(n_queries):
        w = [float(x) for x in weights[q]]
        for i in range(n_items):
            every = here = 0.0
            for m in modalities:
                every += abs(w[m])
                here += abs(w[m]) if has[m][i] else 0.0
            base = here if missing == "renormalise" else every
            if base == 0:
                continue
            factor = 1.0
            if fusion == "average":
                factor = 1 / base
            elif base != every:
                factor = every / base
            score = centre = 0.0
            for m in modalities:
                if w[m] == 0 or not has[m][i] or spreads[m][q] == 0:
                    continue
                folded = w[m] / spreads[m][q] * factor
                score += folded * sims[m][q, i]
                centre += folded * centres[m][q]
            scores[q, i] = score - centre
    return scores


def rank_fusion_scores(lists: list[np.ndarray], weights: np.ndarray, constant: float, n_items: int):
    """Scores (n_queries, n_items) of the lists of ids of every modality, NaN where on none."""
    scores = np.full((len(weights), n_items), np.nan)
    for q in range(len(weights)):
        for m, ids in enumerate(lists):
            for place, i in enumerate(ids[q], 1):
                if i < 0 or weights[q, m] == 0:
                    continue
                before = 0.0 if np.isnan(scores[q, i]) else scores[q, i]
                scores[q, i] = before + weights[q, m] / (constant + place)
    return scores
