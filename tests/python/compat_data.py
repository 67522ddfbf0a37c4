"""Data and oracles of the tests of recfuse.compat.implicit."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

LEAST = -np.finfo(np.float32).max


def random_plays(rng, shape=(40, 30), density=0.2, low=1.0, high=5.0):
    """Return interactions of float32 between two values."""
    dense = np.where(rng.random(shape) < density, rng.uniform(low, high, shape), 0)
    return sp.csr_matrix(dense.astype(np.float32))


def exact_half_step(confidences, others, regularization):
    """Solve each row's normal equations, c being 1 where nothing is stored."""
    c = confidences.toarray().astype(np.float64)
    stored = np.zeros(c.shape, bool)
    stored[confidences.nonzero()] = True
    y = np.asarray(others, np.float64)
    out = np.zeros((len(c), y.shape[1]))
    for u in np.flatnonzero(stored.any(axis=1)):
        weight = np.where(stored[u], np.abs(c[u]), 1.0)
        target = np.where(c[u] > 0, c[u], 0.0)
        system = (y * weight[:, None]).T @ y + regularization * np.eye(y.shape[1])
        out[u] = np.linalg.solve(system, target @ y)
    return out


def exact_loss(confidences, users, items, regularization):
    """Return implicit's objective by its sum of confidences, a dense matrix at a time."""
    c = confidences.toarray().astype(np.float64)
    weight = np.ones(c.shape)
    stored = confidences.nonzero()
    weight[stored] = np.abs(c[stored])
    scores = users.astype(np.float64) @ items.astype(np.float64).T
    penalty = (users.astype(np.float64) ** 2).sum() + (items.astype(np.float64) ** 2).sum()
    return ((weight * ((c > 0) - scores) ** 2).sum() + regularization * penalty) / weight.sum()


def ranked(scores, filtered, k):
    """Return implicit's list: score, then id, both downwards, what is filtered at the end."""
    scores = np.array(scores, np.float64)
    scores[list(filtered)] = LEAST
    order = np.lexsort((-np.arange(len(scores)), -scores))[:k]
    return order, scores[order]
