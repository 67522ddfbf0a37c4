"""Fit fusion weights on a metric: cross-validated, and for segments of users."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from recfuse._inputs import as_int, as_rng
from recfuse._named import named
from recfuse.fusion.weights import METRICS, CachedScores, best_weights

__all__ = ["FusionWeights", "fit_cached", "fit_weights"]

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class FusionWeights:
    """Fitted weights, and what they are worth beside simpler ones.

    Attributes
    ----------
    weights : dict of str to float
        Not negative, they sum to 1.
    segments : dict of label to dict of str to float
        Weights of the segments that do better, on unseen queries, with their own.
    metric : {'ndcg', 'recall', 'mse', 'mae'}
    k : int
    value : float
        The metric on the queries that the weights were fitted on.
    cross_validated : float
        The mean over folds of queries, with weights fitted on the others: what to expect.
    alone : dict of str to float
        The metric of every modality alone.
    equal : float
        The metric of equal weights.
    segment_values : dict of label to tuple of float
        Cross-validated, for every segment that was tried: with everybody's weights, with its own.
    n_tried : int
        How many weight vectors.
    seconds : float
    """

    weights: dict[str, float]
    segments: dict[Any, dict[str, float]]
    metric: str
    k: int
    value: float
    cross_validated: float
    alone: dict[str, float]
    equal: float
    segment_values: dict[Any, tuple[float, float]]
    n_tried: int
    seconds: float

    def summary(self) -> dict[str, Any]:
        """Return what the weights are worth, as plain numbers."""
        return {
            "metric": self.metric,
            "value": self.value,
            "cross_validated": self.cross_validated,
            "equal": self.equal,
            "alone": dict(self.alone),
        }

    def per_query(self, labels: ArrayLike) -> dict[str, Float64]:
        """Return weights of queries by their segments, as `recfuse.FusedIndex.topk` takes them.

        Parameters
        ----------
        labels : array-like of shape (n_queries,)
            A label without weights of its own gets everybody's.

        Returns
        -------
        dict of str to ndarray of shape (n_queries,), float64
        """
        rows = [self.segments.get(label, self.weights) for label in np.asarray(labels).tolist()]
        return {name: np.array([row[name] for row in rows], np.float64) for name in self.weights}


@named("fit_weights")
def fit_weights(
    scores: Mapping[str, ArrayLike],
    targets: ArrayLike,
    *,
    metric: str = "ndcg",
    k: int = 20,
    folds: int = 5,
    segments: ArrayLike | None = None,
    min_segment: int = 50,
    random_state: int | np.random.Generator | None = 0,
) -> FusionWeights:
    r"""Fit the weights of a fusion on the scores of single modalities, which are computed once.

    The weights that are tried are the corners of the simplex (every modality alone), its centre
    and random points; coordinate ascent goes on from the best. Thousands are tried per second, as
    nothing is searched again. The fused score is :math:`\sum_P w_m s_m / \sum_P w_m` over the
    modalities :math:`P` that a pair has.

    Parameters
    ----------
    scores : mapping modality -> array-like of shape (n_queries, n_candidates)
        On one scale (z-scores, or predictions of one quantity); NaN where a modality is missing.
    targets : array-like of shape (n_queries, n_candidates)
        For rankings, above 0 where the candidate is relevant; for errors the true value, NaN where
        it is unknown.
    metric : {'ndcg', 'recall', 'mse', 'mae'}, default='ndcg'
        NDCG@k and recall@k are maximised, the mean squared and absolute errors minimised.
    k : int, default=20
    folds : int, default=5
        Of queries, for `FusionWeights.cross_validated`. The weights are then fitted on all.
    segments : array-like of shape (n_queries,), optional
        A label per query: weights are fitted for each segment, too, and kept where they do better
        than everybody's in its held-out folds.
    min_segment : int, default=50
        Smaller segments are not tried.
    random_state : int, Generator or None, default=0

    Returns
    -------
    FusionWeights

    Raises
    ------
    TypeError, ValueError
        If shapes differ, nothing is relevant or known, or a parameter is wrong.

    Examples
    --------
    >>> import numpy as np
    >>> from recfuse.fusion import fit_weights
    >>> rng = np.random.default_rng(0)
    >>> relevant = rng.random((40, 30)) < 0.1
    >>> scores = {"text": rng.normal(size=(40, 30)) + 2 * relevant, "noise": rng.random((40, 30))}
    >>> fitted = fit_weights(scores, relevant, k=5)
    >>> fitted.weights["text"] > fitted.weights["noise"]
    True
    """
    cached, names = _cached(scores, targets, metric)
    labels = None if segments is None else np.asarray(segments)
    if labels is not None and labels.shape != (cached.pairs.shape[0],):
        raise ValueError(f"segments must have shape ({cached.pairs.shape[0]},); got {labels.shape}")
    return fit_cached(
        cached,
        names,
        metric=metric,
        k=k,
        folds=folds,
        segments=labels,
        min_segment=min_segment,
        rng=as_rng(random_state),
    )


def fit_cached(
    cached: CachedScores,
    names: list[str],
    *,
    metric: str,
    k: int,
    folds: int,
    segments: NDArray[Any] | None,
    min_segment: int,
    rng: np.random.Generator,
) -> FusionWeights:
    """Fit weights on scores in the form in which they are tried."""
    start = time.perf_counter()
    for name, count, least in (("k", k, 1), ("folds", folds, 2), ("min_segment", min_segment, 1)):
        if as_int(count, name) < least:
            raise ValueError(f"{name} must be at least {least}; got {count}")
    weights, value, n_tried = best_weights(cached, metric, k, rng)
    # Queries without anything to judge would only thin out the folds.
    counted = _judged(cached, metric)
    fold_of = np.full(len(counted), -1)
    fold_of[counted] = rng.permutation(int(counted.sum())) % folds
    labels = _labels(segments, counted, min_segment)
    trials = _Folds(cached, fold_of, metric, k, rng)
    overall = trials.value(counted)
    own, values = {}, {}
    for label in labels:
        assert segments is not None
        inside = segments == label
        values[label] = trials.value(inside & counted), trials.value(inside & counted, inside)
        better = values[label][1] - values[label][0]
        if (-better if metric in ("mse", "mae") else better) > 0:
            best, _, tried = best_weights(cached.rows(inside), metric, k, rng)
            own[label] = dict(zip(names, best.tolist(), strict=True))
            n_tried += tried
    corners = [cached.value(corner, metric, k) for corner in np.eye(len(names))]
    return FusionWeights(
        weights=dict(zip(names, weights.tolist(), strict=True)),
        segments=own,
        metric=metric,
        k=k,
        value=value,
        cross_validated=overall,
        alone=dict(zip(names, corners, strict=True)),
        equal=cached.value(np.full(len(names), 1 / len(names)), metric, k),
        segment_values=values,
        n_tried=n_tried + trials.n_tried,
        seconds=time.perf_counter() - start,
    )


class _Folds:
    """Values of the metric on queries of a fold, with weights fitted on queries of the others."""

    def __init__(
        self,
        cached: CachedScores,
        fold_of: NDArray[np.int64],
        metric: str,
        k: int,
        rng: np.random.Generator,
    ) -> None:
        self.cached, self.fold_of, self.metric, self.k, self.rng = cached, fold_of, metric, k, rng
        self.n_tried = 0
        everybody = np.ones(len(fold_of), bool)
        self._overall = {fold: self._fit(everybody, fold) for fold in self._folds_of(everybody)}

    def value(self, judged: NDArray[np.bool_], taught: NDArray[np.bool_] | None = None) -> float:
        """Return the mean over queries `judged`, with weights of `taught`, or of everybody."""
        total, weight = 0.0, 0
        for fold in self._folds_of(judged):
            inside = judged & (self.fold_of == fold)
            weights = self._overall[fold] if taught is None else self._fit(taught, fold)
            value = self.cached.rows(inside).value(weights, self.metric, self.k)
            size = int(inside.sum())
            total, weight = total + value * size, weight + size
        return total / weight if weight else float("nan")

    def _folds_of(self, queries: NDArray[np.bool_]) -> list[int]:
        return [int(fold) for fold in np.unique(self.fold_of[queries]) if fold >= 0]

    def _fit(self, taught: NDArray[np.bool_], fold: int) -> Float64:
        others = taught & (self.fold_of >= 0) & (self.fold_of != fold)
        weights, _, tried = best_weights(self.cached.rows(others), self.metric, self.k, self.rng)
        self.n_tried += tried
        return weights


def _judged(cached: CachedScores, metric: str) -> NDArray[np.bool_]:
    if metric in ("mse", "mae"):
        return np.asarray(np.diff(cached.pairs.indptr) > 0)
    return cached.n_relevant > 0


def _labels(segments: NDArray[Any] | None, counted: NDArray[np.bool_], least: int) -> list[Any]:
    if segments is None:
        return []
    labels, sizes = np.unique(segments[counted], return_counts=True)
    return [label for label, size in zip(labels.tolist(), sizes, strict=True) if size >= least]


def _cached(
    scores: Mapping[str, ArrayLike], targets: ArrayLike, metric: str
) -> tuple[CachedScores, list[str]]:
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {list(METRICS)}; got {metric!r}")
    if not isinstance(scores, Mapping):
        raise TypeError(f"scores must be a mapping modality -> array; got {type(scores).__name__}")
    if not scores:
        raise ValueError("scores must have at least 1 modality; got none")
    if sp.issparse(targets):  # is what is not stored a 0, or not known?
        raise TypeError(f"targets must be a dense array; got {type(targets).__name__}")
    truth = np.asarray(targets, np.float64)
    if truth.ndim != 2:
        raise ValueError(f"targets must have 2 dimensions; got shape {truth.shape}")
    arrays = {name: np.asarray(given, np.float64) for name, given in scores.items()}
    for name, array in arrays.items():
        if array.shape != truth.shape:
            raise ValueError(
                f"scores[{name!r}] must have shape {truth.shape} like targets; got {array.shape}"
            )
        if np.isinf(array).any():
            raise ValueError(f"scores[{name!r}] must be finite, or NaN where missing; got inf")
    relevant = truth > 0
    errors = metric in ("mse", "mae")
    known = ~np.isnan(truth) if errors else np.ones(truth.shape, bool)
    if not (known if errors else relevant).any():
        what = "a known value" if errors else "something relevant"
        raise ValueError(f"targets must have {what}; got none")
    stacked = np.stack([array[known] for array in arrays.values()], axis=1)
    present = ~np.isnan(stacked)
    cached = CachedScores(
        pairs=sp.csr_array(known.astype(np.float32)),
        scores=np.where(present, stacked, 0),
        present=present,
        relevant=relevant[known],
        n_relevant=relevant.sum(axis=1),
        targets=truth[known],
    )
    return cached, list(arrays)
