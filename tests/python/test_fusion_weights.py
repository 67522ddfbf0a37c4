"""Weights fitted on cached scores, against metrics that are computed by sorting."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import recfuse
from recfuse.evaluation import ranking_metrics
from recfuse.fusion import fit_weights
from recfuse.fusion.weights import CachedScores, best_weights


def fused(scores, present, weights) -> np.ndarray:
    """(n_queries, n_candidates): the average over the modalities there are, -inf without any."""
    total = np.einsum("qcm,m->qc", np.where(present, scores, 0), weights)
    here = np.einsum("qcm,m->qc", present, weights)
    return np.divide(total, here, out=np.full(here.shape, -np.inf), where=here > 0)


@given(st.integers(0, 10**6), st.integers(1, 9), st.booleans())
@settings(max_examples=60, deadline=None)
def test_metrics_are_those_of_the_evaluation(seed, k, ties):
    rng = np.random.default_rng(seed)
    shape = (6, 8, 3)
    scores = rng.integers(0, 2, shape).astype(float) if ties else rng.standard_normal(shape)
    present, relevant = rng.random(shape) < 0.7, rng.random(shape[:2]) < 0.3
    weights = rng.permutation([0.0, 0.25, 0.75])
    cached = CachedScores(
        sp.csr_array(np.ones(shape[:2], np.float32)),
        np.where(present, scores, 0).reshape(-1, 3),
        present.reshape(-1, 3),
        relevant.ravel(),
        relevant.sum(axis=1),
    )
    ranked = fused(scores, present, weights)
    order = np.argsort(-ranked, axis=1, kind="stable").astype(np.int32)
    order[np.isneginf(np.take_along_axis(ranked, order, 1))] = -1
    # NumPy sorts; lists of one length are what the evaluation takes.
    expected = ranking_metrics(order[:, :k], sp.csr_array(relevant.astype(np.float32)), k=k)
    for metric in ("ndcg", "recall"):
        want = expected[f"{metric}@{k}"] if relevant.any() else 0.0
        assert cached.value(weights, metric, k) == pytest.approx(want, abs=1e-12)
    chosen = np.arange(6) % 2 == 0
    assert cached.rows(chosen).ndcg(weights, k) == pytest.approx(
        ranking_metrics(order[chosen, :k], sp.csr_array(relevant[chosen] * 1.0), k=k)[f"ndcg@{k}"]
        if relevant[chosen].any()
        else 0.0
    )


@pytest.fixture
def two_tastes(rng):
    """Queries of segment "b" follow the image, the others the text; "noise" tells nothing."""
    labels = np.repeat(np.array(["a", "b"]), 150)
    relevant = rng.random((300, 25)) < 0.12
    scores = {name: rng.standard_normal((300, 25)) for name in ("text", "image", "noise")}
    scores["text"][:150] += 1.5 * relevant[:150]
    scores["image"][150:] += 1.5 * relevant[150:]
    return scores, relevant, labels


@pytest.mark.parametrize("metric", ["ndcg", "recall"])
def test_segments_get_their_own_weights_where_they_do_better(two_tastes, metric):
    scores, relevant, labels = two_tastes
    fitted = fit_weights(scores, relevant, metric=metric, k=5, segments=labels, folds=3)
    assert set(fitted.segments) == {"a", "b"}
    assert fitted.segments["a"]["text"] > 0.7 > 0.2 > fitted.segments["a"]["image"]
    assert fitted.segments["b"]["image"] > 0.7
    assert all(own > shared for shared, own in fitted.segment_values.values())
    assert sum(fitted.weights.values()) == pytest.approx(1)
    assert fitted.value >= max(*fitted.alone.values(), fitted.equal)
    assert fitted.cross_validated > max(fitted.alone.values())
    rows = fitted.per_query(["b", "unheard of"])
    assert rows["image"].tolist() == [fitted.segments["b"]["image"], fitted.weights["image"]]


def test_chance_makes_no_segments(two_tastes, rng):
    scores, relevant, _ = two_tastes
    halves = {name: x[:150] for name, x in scores.items()}
    labels = rng.permutation(np.repeat([0, 1, 2], [100, 30, 20]))
    fitted = fit_weights(halves, relevant[:150], k=5, segments=labels, min_segment=31)
    assert set(fitted.segment_values) == {0}
    shared, own = fitted.segment_values[0]
    assert (0 in fitted.segments) == (own > shared)


@pytest.mark.parametrize("metric", ["mse", "mae"])
def test_errors_are_minimised(rng, metric):
    truth = rng.normal(3, 1, (60, 10))
    scores = {f"m{i}": truth + rng.normal(0, s, truth.shape) for i, s in enumerate((0.3, 0.6, 2))}
    scores["m1"][rng.random(truth.shape) < 0.2] = np.nan
    truth[rng.random(truth.shape) < 0.3] = np.nan
    fitted = fit_weights(scores, truth, metric=metric)
    table = np.stack(list(scores.values()), axis=2)
    w = np.array(list(fitted.weights.values()))

    def error(weights):
        difference = (fused(table, ~np.isnan(table), weights) - truth)[~np.isnan(truth)]
        difference = difference[np.isfinite(difference)]
        return (difference**2 if metric == "mse" else abs(difference)).mean()

    assert fitted.value == pytest.approx(error(w), rel=1e-12)
    assert fitted.alone["m1"] == pytest.approx(error(np.array([0, 1, 0])), rel=1e-12)
    # A grid finds nothing that is more than a little better.
    grid = [
        np.array([a, b, 1 - a - b])
        for a in np.arange(0, 1.01, 0.05)
        for b in np.arange(0, 1.01 - a, 0.05)
    ]
    assert fitted.value <= min(error(np.abs(g)) for g in grid) * 1.002
    assert fitted.weights["m0"] > fitted.weights["m1"] > fitted.weights["m2"]


def test_cross_validation_tells_luck(rng):
    # Modalities that all say nothing: the best of many on few queries is luck.
    gaps = []
    for _ in range(5):
        relevant = rng.random((30, 20)) < 0.1
        relevant[:, 0] = True
        scores = {str(i): rng.standard_normal((30, 20)) for i in range(6)}
        fitted = fit_weights(scores, relevant, k=5, folds=3)
        gaps.append(fitted.value - fitted.cross_validated)
    assert np.mean(gaps) > 0.03


def test_weights_of_the_fit_go_into_a_search(two_tastes, rng):
    scores, relevant, labels = two_tastes
    fitted = fit_weights(scores, relevant, k=5, segments=labels, folds=2)
    items = {name: np.eye(25) for name in scores}
    index = recfuse.FusedIndex(items, metric="dot")
    queries = {name: x[:3] for name, x in scores.items()}
    ids, _ = index.topk(queries, 5, weights=fitted.per_query(labels[:3]))
    table = np.stack([scores[name][:3] for name in fitted.weights], axis=2)
    w = np.array(list(fitted.segments["a"].values()))
    assert ids.tolist() == np.argsort(-(table @ w), axis=1)[:, :5].tolist()


def test_wrong_requests_of_fit_weights():
    ones = np.ones((2, 2))
    with pytest.raises(ValueError, match=r"fit_weights: metric must be one of .* got 'auc'"):
        fit_weights({"a": ones}, ones, metric="auc")
    with pytest.raises(ValueError, match=r"scores\['a'\] must have shape \(2, 2\) like targets"):
        fit_weights({"a": np.ones(2)}, ones)
    with pytest.raises(TypeError, match="fit_weights: targets must be a dense array; got csr_arr"):
        fit_weights({"a": np.zeros((2, 3))}, sp.csr_array(np.eye(2, 3)))
    with pytest.raises(ValueError, match="targets must have something relevant; got none"):
        fit_weights({"a": ones}, 0 * ones)
    with pytest.raises(ValueError, match="targets must have a known value; got none"):
        fit_weights({"a": ones}, np.nan * ones, metric="mse")
    with pytest.raises(ValueError, match=r"segments must have shape \(2,\); got \(3,\)"):
        fit_weights({"a": ones}, ones, segments=[1, 2, 3])
    with pytest.raises(ValueError, match="folds must be at least 2; got 1"):
        fit_weights({"a": ones}, ones, folds=1)


def test_the_best_of_one_modality_is_that_modality(rng):
    relevant = rng.random((4, 5)) < 0.5
    cached = CachedScores(
        sp.csr_array(np.ones((4, 5), np.float32)),
        rng.random((20, 1)),
        np.ones((20, 1), bool),
        relevant.ravel(),
        relevant.sum(axis=1),
    )
    weights, _, tried = best_weights(cached, "ndcg", 3, rng)
    assert (weights.tolist(), tried) == ([1.0], 2)
