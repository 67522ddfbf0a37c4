"""The specification of retrieval and fusion: slow, obvious NumPy in float64."""

from __future__ import annotations

import numpy as np


def canonical_dot(a: np.ndarray, b: np.ndarray) -> float:
    """Eight interleaved partial sums in index order, added pairwise."""
    lanes = [0.0] * 8
    for j, (x, y) in enumerate(zip(a, b, strict=True)):
        lanes[j % 8] += float(x) * float(y)
    s = lanes
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]))


def canonical_dots(queries: np.ndarray, items: np.ndarray) -> np.ndarray:
    """`canonical_dot` of every pair, vectorised over the pairs only."""
    q, x = queries.astype(np.float64), items.astype(np.float64)
    lanes = [np.zeros((len(q), len(x))) for _ in range(8)]
    with np.errstate(all="ignore"):
        for j in range(q.shape[1]):
            lanes[j % 8] += q[:, j : j + 1] * x[None, :, j]
        s = lanes
        return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]))


def inverse_norms(x: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        squared = np.array([canonical_dots(row[None], row[None])[0, 0] for row in x])
        return np.where(squared == 0, 0.0, 1 / np.sqrt(squared))


def similarities(queries: np.ndarray, items: np.ndarray, metric: str) -> np.ndarray:
    dots = canonical_dots(queries, items)
    if metric == "dot":
        return dots
    with np.errstate(all="ignore"):
        return dots * (inverse_norms(queries)[:, None] * inverse_norms(items)[None, :])


def fused_scores(
    queries: dict[str, np.ndarray],
    items: dict[str, np.ndarray],
    weights: dict[str, object],
    *,
    metric: str = "cosine",
    fusion: str = "sum",
    missing: str = "renormalise",
    present: dict[str, np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Scores (n_queries, n_items), NaN where not ranked, and terms (n_queries, n_items, M)."""
    names = list(items)
    n_queries = len(next(iter(queries.values())))
    n_items = len(next(iter(items.values())))
    sims = [similarities(queries[m], items[m], metric) for m in names]
    has = [
        np.ones(n_items, bool) if present is None or m not in present else present[m] for m in names
    ]
    scores = np.full((n_queries, n_items), np.nan)
    terms = np.zeros((n_queries, n_items, len(names)))
    linear = fusion in ("sum", "average")
    for q in range(n_queries):
        w = [float(np.broadcast_to(np.asarray(weights[m], float), (n_queries,))[q]) for m in names]
        for i in range(n_items):
            total = here = 0.0
            for m in range(len(names)):
                total += abs(w[m])
                here += abs(w[m]) if has[m][i] else 0.0
            if not linear:
                terms[q, i] = np.nan
            if missing == "renormalise" and here == 0:
                continue
            base = here if missing == "renormalise" else total
            factor = 1.0
            if fusion == "average":
                factor = 1 / base
            elif fusion == "sum" and base != total:
                factor = total / base
            used = []
            for m in range(len(names)):
                if w[m] == 0 or not (has[m][i] or missing == "zero"):
                    continue
                terms[q, i, m] = w[m] * factor * sims[m][q, i] if has[m][i] else 0.0
                used.append(terms[q, i, m])
            with np.errstate(all="ignore"):
                if linear:
                    score = 0.0
                    for term in used:
                        score += term
                elif fusion == "product":
                    score = used[0]
                    for term in used[1:]:
                        score *= term
                else:
                    score = np.max(used) if fusion == "max" else np.min(used)
            scores[q, i] = score
    return scores, terms


def rank(
    scores: np.ndarray, k: int, admitted: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Best k by the score rounded to float32 descending, then id ascending; NaN never ranks."""
    ids = np.full((len(scores), k), -1, np.int32)
    best = np.full((len(scores), k), -np.inf, np.float32)
    with np.errstate(over="ignore"):
        rounded = scores.astype(np.float32) + np.float32(0)  # -0 ranks as +0
    for q, row in enumerate(rounded):
        usable = ~np.isnan(row)
        if admitted is not None:
            usable &= admitted[q]
        candidates = np.flatnonzero(usable)
        order = candidates[np.argsort(-row[candidates], kind="stable")][:k]
        ids[q, : len(order)] = order
        best[q, : len(order)] = row[order]
    return ids, best


def topk(
    queries: np.ndarray,
    items: np.ndarray,
    k: int,
    *,
    metric: str = "dot",
    admitted: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    return rank(similarities(queries, items, metric), k, admitted)
