"""The metrics of one ranked list and of many, slow and obvious, in float64."""

from __future__ import annotations

from itertools import combinations
from math import log, log2, nan, sqrt


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


def values_of_user(ranking, relevant, values, k):
    """Metrics that count a hit by the value of its item."""
    gains = [values[item] if item in relevant else 0.0 for item in ranking[:k]]
    ideal = sorted((values[item] for item in relevant), reverse=True)
    dcg, best = (
        sum(gain / log2(rank + 1) for rank, gain in enumerate(gains_of[:k], start=1))
        for gains_of in (gains, ideal)
    )
    return {
        "value": sum(gains),
        "value_recall": sum(gains) / sum(ideal) if sum(ideal) else nan,
        "value_ndcg": dcg / best if best else nan,
    }


def diversity_of_user(ranking, vectors, k):
    shown = [vectors[item] for item in ranking[:k] if item != -1 and any(vectors[item])]
    distances = []
    for x, y in combinations(shown, 2):
        dot = sum(a * b for a, b in zip(x, y, strict=True))
        distances.append(1 - dot / sqrt(sum(a * a for a in x)) / sqrt(sum(b * b for b in y)))
    return sum(distances) / len(distances) if distances else nan


def auc_of_user(scores, relevant, candidates):
    """Pairs of a relevant and another candidate in the right order; `scores` one per item."""
    negatives = [item for item in candidates if item not in relevant]
    won = [
        1.0 if scores[good] > scores[bad] else 0.5 if scores[good] == scores[bad] else 0.0
        for good in relevant
        for bad in negatives
    ]
    return sum(won) / len(won) if won else nan


def gini(rankings, k, n_items):
    """Half the mean difference between any two items, in units of the mean, times n / (n - 1)."""
    counts = [0] * n_items
    for ranking in rankings:
        for item in ranking[:k]:
            if item != -1:
                counts[item] += 1
    if not sum(counts):
        return nan
    apart = sum(abs(a - b) for a in counts for b in counts)
    return apart / (2 * n_items * sum(counts)) * n_items / (n_items - 1)


def log_loss(predicted, actual):
    each = [a * log(p) + (1 - a) * log(1 - p) for p, a in zip(predicted, actual, strict=True)]
    return -sum(each) / len(each)


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
    means["gini"] = gini([rankings[u] for u in users], k, n_items)
    return means, errors
