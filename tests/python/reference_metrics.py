"""The metrics of one ranked list and of many, slow and obvious, in float64."""

from __future__ import annotations

from math import log2, nan, sqrt


def of_user(ranking, relevant, k):
    """Metrics of one user: `ranking` item ids (-1: nothing there), `relevant` a non-empty set."""
    hits = [item != -1 and item in relevant for item in ranking[:k]]
    n_hits = sum(hits)
    precision = n_hits / k
    recall = n_hits / len(relevant)
    f1 = 0.0 if precision == recall == 0 else 2 * precision * recall / (precision + recall)
    average_precision = dcg = reciprocal_rank = 0.0
    for rank, hit in enumerate(hits, start=1):
        if hit:
            average_precision += sum(hits[:rank]) / rank
            dcg += 1 / log2(rank + 1)
            reciprocal_rank = max(reciprocal_rank, 1 / rank)
    best = min(k, len(relevant))
    return {
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "hit_rate": float(n_hits > 0),
        "map": average_precision / best,
        "ndcg": dcg / sum(1 / log2(rank + 1) for rank in range(1, best + 1)),
        "mrr": reciprocal_rank,
    }


def novelty_of_user(ranking, popularity, k):
    items = [item for item in ranking[:k] if item != -1]
    least = min(count for count in popularity if count > 0)
    surprises = [-log2(max(popularity[item], least) / sum(popularity)) for item in items]
    return sum(surprises) / len(items) if items else nan


def of_users(rankings, relevant, k, popularity, n_items):
    """Means and standard errors over the users that have relevant items, by name of the metric."""
    users = [u for u in range(len(rankings)) if relevant[u]]
    values: dict[str, list[float]] = {}
    for u in users:
        of_one = of_user(rankings[u], relevant[u], k)
        of_one["novelty"] = novelty_of_user(rankings[u], popularity, k)
        for name, value in of_one.items():
            values.setdefault(name, []).append(value)
    means, errors = {}, {}
    for name, column in values.items():
        column = [x for x in column if x == x]
        n = len(column)
        means[name] = sum(column) / n if n else nan
        variance = sum((x - means[name]) ** 2 for x in column) / (n - 1) if n > 1 else nan
        errors[name] = sqrt(variance / n) if n > 1 else nan
    recommended = {item for u in users for item in rankings[u][:k]} - {-1}
    means["coverage"] = len(recommended) / n_items
    return means, errors
