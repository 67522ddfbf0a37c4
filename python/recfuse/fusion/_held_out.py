"""Held-out events, and what every modality says about them: on what weights are fitted."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from recfuse._inputs import as_csr
from recfuse.fusion._patterns import pattern, pattern_of_lists, union, values_at, without
from recfuse.fusion.hybrid import HybridIndex
from recfuse.fusion.weights import CachedScores

__all__ = ["cached_scores", "hold_out"]

_CANDIDATES_PER_MODALITY = 100
_MOST_USERS_TO_FIT = 2000
_HELD_OUT = 0.2


def hold_out(history: sp.csr_array, rng: np.random.Generator) -> tuple[sp.csr_array, sp.csr_array]:
    """Split the entries at random into the larger part and the held-out one."""
    held = rng.random(history.nnz) < _HELD_OUT
    rows = np.repeat(np.arange(history.shape[0]), np.diff(history.indptr))
    parts = [
        as_csr(
            sp.csr_array((history.data[m], (rows[m], history.indices[m])), shape=history.shape),
            "user_items",
        )
        for m in (~held, held)
    ]
    return parts[0], parts[1]


def cached_scores(
    index: HybridIndex,
    history: sp.csr_array,
    held_out: sp.csr_array,
    rng: np.random.Generator,
) -> CachedScores:
    """Score the candidates of the held-out users: the best unseen items of every modality."""
    new = without(pattern(held_out), history)
    users = np.flatnonzero(np.diff(new.indptr))
    if len(users) == 0:
        raise ValueError("fit: validation must have at least 1 event that is new; got 0")
    if len(users) > _MOST_USERS_TO_FIT:
        users = np.sort(rng.choice(users, _MOST_USERS_TO_FIT, replace=False))
    seen, relevant = history[users], new[users]
    pairs = None
    for name in index.blocks:
        alone = {other: float(other == name) for other in index.blocks}
        ids, _, _ = index.topk(users, seen, _CANDIDATES_PER_MODALITY, alone, exclude=seen)
        pairs = union(pattern_of_lists(ids, history.shape[1]), pairs)
    assert pairs is not None
    scores, present = index.zscores(users, seen, pairs)
    return CachedScores(
        pairs=pairs,
        scores=scores,
        present=present,
        relevant=values_at(relevant, pairs) > 0,
        n_relevant=np.diff(relevant.indptr).astype(np.int64),
        users=users,
    )
