"""Which modalities a recommender needs: what is lost without each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

__all__ = ["Importance", "Judge", "Step", "eliminations", "importances", "ndcg_of_lists"]

Float64 = NDArray[np.float64]
Judge = Callable[[Mapping[str, float]], Float64]


@dataclass(frozen=True)
class Importance:
    """What a recommender loses without a modality.

    Attributes
    ----------
    modality : str
    loss : float
        Mean over users of NDCG with it minus NDCG without it; negative where it harms.
    standard_error : float
        Of that mean, from the differences per user. NaN for fewer than 2 users.
    ndcg : float
        Without it.
    """

    modality: str
    loss: float
    standard_error: float
    ndcg: float


@dataclass(frozen=True)
class Step:
    """A set of modalities on the way from all to one.

    Attributes
    ----------
    kept : tuple of str
    removed : str or None
        What the step before still had; None for the first.
    ndcg, standard_error : float
        Mean over users, and its standard error.
    """

    kept: tuple[str, ...]
    removed: str | None
    ndcg: float
    standard_error: float


def ndcg_of_lists(ids: NDArray[np.int32], relevant: sp.csr_array) -> Float64:
    """Return the NDCG of every list with binary gains; NaN where nothing is relevant.

    Reference: K. Jarvelin, J. Kekalainen, ACM TOIS 20(4), 2002.
    """
    k = ids.shape[1]
    discounts = 1 / np.log2(np.arange(2, k + 2))
    best = np.concatenate([[0.0], np.cumsum(discounts)])
    out = np.full(len(ids), np.nan)
    for row, items in enumerate(ids):
        wanted = relevant.indices[relevant.indptr[row] : relevant.indptr[row + 1]]
        if len(wanted):
            gains = discounts[np.isin(items, wanted)].sum()
            out[row] = gains / best[min(len(wanted), k)]
    return out


def importances(weights: Mapping[str, float], judge: Judge) -> list[Importance]:
    """Return the loss without each modality that has a weight, the largest first."""
    used = {name: w for name, w in weights.items() if w != 0}
    whole = judge(used)
    found = []
    for name in used:
        rest = {other: w for other, w in used.items() if other != name}
        alone = judge(rest) if rest else np.zeros_like(whole)
        mean, error = _mean_and_error(whole - alone)
        found.append(Importance(name, mean, error, float(alone.mean())))
    return sorted(found, key=lambda one: -one.loss)


def eliminations(weights: Mapping[str, float], judge: Judge) -> list[Step]:
    """Return the steps from all modalities to one, each without what is missed least."""
    kept = {name: w for name, w in weights.items() if w != 0}
    steps = [Step(tuple(kept), None, *_mean_and_error(judge(kept)))]
    while len(kept) > 1:
        tried = {
            name: judge({other: w for other, w in kept.items() if other != name}) for name in kept
        }
        removed = max(tried, key=lambda name: float(tried[name].mean()))
        kept = {name: w for name, w in kept.items() if name != removed}
        steps.append(Step(tuple(kept), removed, *_mean_and_error(tried[removed])))
    return steps


def _mean_and_error(values: Float64) -> tuple[float, float]:
    n = len(values)
    error = float(values.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
    return float(values.mean()), error
