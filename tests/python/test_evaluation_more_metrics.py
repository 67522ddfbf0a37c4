"""Values, diversity, AUC, concentration, losses and intervals against loops and scikit-learn."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as oracle

import reference_metrics as reference
from recfuse.evaluation import (
    compare,
    evaluate,
    log_loss,
    mse,
    paired_bootstrap,
    ranking_metrics,
    user_time_split,
)
from recfuse.interactions import Interactions
from test_evaluation_metrics import random_case, random_matrices, relevant_sets


class Scored:
    """A model with fixed scores, which ties by id and lists only finite scores."""

    def __init__(self, scores):
        self.scores = np.asarray(scores, np.float64)
        self.rows = []

    def recommend(self, user_ids, k, *, user_items=None):
        self.rows.append(len(user_ids))
        scores = self.scores[user_ids].copy()
        if user_items is not None:
            scores[user_items.toarray() != 0] = -np.inf
        ids = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        best = np.take_along_axis(scores, ids, axis=1)
        return np.where(np.isneginf(best), -1, ids), best


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("k", [1, 2, 7, 15, 40])
def test_values_and_diversity_match_the_loops(seed, k):
    ids, test, _ = random_case(seed, density=0.15)
    rng = np.random.default_rng(seed)
    values = rng.choice([0.0, 0.0, 1.5, 20.0, 7.25], 15)
    vectors = rng.normal(size=(15, 4))
    vectors[rng.random(15) < 0.3] = 0
    result = ranking_metrics(ids, test, k=[k], item_values=values, item_vectors=vectors)
    for row, user in enumerate(result.user_ids):
        relevant = relevant_sets(test)[user]
        expected = reference.values_of_user(ids[user].tolist(), relevant, values.tolist(), k)
        expected["diversity"] = reference.diversity_of_user(ids[user].tolist(), vectors.tolist(), k)
        for name, value in expected.items():
            np.testing.assert_allclose(
                result.per_user[f"{name}@{k}"][row], value, rtol=1e-12, atol=1e-12, err_msg=name
            )


def test_values_by_hand():
    test = sp.csr_array(np.array([[1, 1, 1, 0]]))
    result = ranking_metrics([[3, 1, 0]], test, k=3, item_values=[10, 30, 60, 99])
    assert result["value@3"] == 40
    assert result["value_recall@3"] == 0.4
    ideal = 60 + 30 / math.log2(3) + 10 / 2
    assert result["value_ndcg@3"] == pytest.approx((30 / math.log2(3) + 10 / 2) / ideal)


def test_value_ndcg_agrees_with_scikit_learn():
    rng = np.random.default_rng(5)
    scores = rng.permuted(np.tile(np.arange(25.0), (20, 1)), axis=1)
    truth, values = rng.random((20, 25)) < 0.3, rng.integers(1, 50, 25).astype(float)
    truth[:, 3] = True
    ids = np.argsort(-scores, axis=1)
    result = ranking_metrics(ids, sp.csr_array(truth), k=10, item_values=values)
    assert result["value_ndcg@10"] == pytest.approx(
        oracle.ndcg_score(truth * values, scores, k=10), rel=1e-12
    )


@given(st.integers(0, 2**32), st.sampled_from([0.5, 3.0]))
def test_equal_values_give_the_plain_metrics(seed, value):
    ids, test, _ = random_case(seed, density=0.5)
    result = ranking_metrics(ids, test, k=[2, 9], item_values=np.full(15, value))
    for k in (2, 9):
        for plain in ("recall", "ndcg"):
            np.testing.assert_allclose(
                result.per_user[f"value_{plain}@{k}"], result.per_user[f"{plain}@{k}"], rtol=1e-12
            )


def test_what_is_worth_nothing_is_undefined_and_left_out():
    test = sp.csr_array(np.array([[1, 0], [0, 1]]))
    result = ranking_metrics([[0], [1]], test, k=1, item_values=[0, 2])
    np.testing.assert_array_equal(result.per_user["value_recall@1"], [np.nan, 1])
    assert (result["value_recall@1"], result["value@1"]) == (1, 1)


def test_one_item_for_all_is_as_unequal_as_can_be_and_all_alike_is_equal():
    test = sp.csr_array(np.ones((4, 4)))
    assert ranking_metrics([[2]] * 4, test, k=1)["gini@1"] == 1
    assert ranking_metrics([[0], [1], [2], [3]], test, k=1)["gini@1"] == 0
    assert ranking_metrics([[0, 1]] * 4, test, k=2, n_items=4)["gini@2"] == pytest.approx(2 / 3)
    assert ranking_metrics([[0]], sp.csr_array([[1.0]]), k=1)["gini@1"] == 0
    assert math.isnan(ranking_metrics([[-1]], sp.csr_array([[1.0]]), k=1)["gini@1"])


# --- AUC


@pytest.mark.parametrize("exclude_seen", [True, False])
@pytest.mark.parametrize("n_levels", [3, 1000])  # 3: ties everywhere
def test_auc_matches_the_loops_and_scikit_learn(exclude_seen, n_levels):
    train, test, scores = random_matrices(3)
    scores = np.floor(scores * n_levels)
    result = evaluate(
        Scored(scores), train, test, k=3, auc=True, exclude_seen=exclude_seen, batch_size=7
    )
    plain = evaluate(Scored(scores), train, test, k=3, exclude_seen=exclude_seen)
    for row, user in enumerate(result.user_ids):
        seen = train.toarray()[user] > 0
        candidates = np.flatnonzero(~seen if exclude_seen else np.full(20, True))
        relevant = relevant_sets(test)[user]
        value = result.per_user["auc"][row]
        expected = reference.auc_of_user(scores[user].tolist(), relevant, candidates.tolist())
        assert value == pytest.approx(expected, rel=1e-12)
        truth = test.toarray()[user, candidates] > 0
        assert value == pytest.approx(
            oracle.roc_auc_score(truth, scores[user, candidates]), rel=1e-12
        )
    for name, values in plain.per_user.items():  # the lists are the same ones
        np.testing.assert_array_equal(values, result.per_user[name])
    assert plain.coverage == result.coverage and plain.gini == result.gini
    assert "auc" in repr(result) and "auc" not in plain.means


def test_items_that_are_not_listed_tie_below_all_others():
    # Of four items the model knows two; one test item is among them, one is not.
    scores = [[2.0, 1.0, -np.inf, -np.inf]]
    test = sp.csr_array(np.array([[1, 0, 1, 0]]))
    result = evaluate(Scored(scores), sp.csr_array((1, 4)), test, k=1, auc=True)
    assert result["auc"] == reference.auc_of_user(scores[0], {0, 2}, range(4)) == (2 + 0 + 0.5) / 4


def test_without_a_negative_item_auc_is_undefined():
    test = sp.csr_array(np.array([[1, 1], [1, 0]]))
    result = evaluate(Scored(np.eye(2)), sp.csr_array((2, 2)), test, k=1, auc=True)
    np.testing.assert_array_equal(result.per_user["auc"], [np.nan, 0])


def test_whole_rankings_come_in_blocks(monkeypatch):
    train, test, scores = random_matrices(3)
    whole = evaluate(Scored(scores), train, test, k=3, auc=True).to_dict()
    monkeypatch.setattr("recfuse.evaluation._ranking._SCORES_PER_REQUEST", 100)
    model = Scored(scores)
    assert evaluate(model, train, test, k=3, auc=True).to_dict() == whole
    assert max(model.rows) == 5  # 20 items each


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (([[0, 1]], None), TypeError, "scores from recommend must be numbers, for the AUC"),
        (([[0, 1]], [[1.0]]), ValueError, r"must have the shape of ids, \(1, 2\); got \(1, 1\)"),
        (([[0, 1]], [[1.0, 2.0]]), ValueError, "must fall along each list; got a rise"),
        (([[0, 1]], [[np.nan, 2.0]]), ValueError, "must fall along each list; got a rise, or NaN"),
        (([[0]], [[1.0]]), ValueError, r"ids from recommend must have shape \(1, >= 2\)"),
    ],
)
def test_wrong_whole_rankings(answer, error, message):
    ids = np.array(answer[0])
    with pytest.raises(error, match=f"^evaluate: .*{message}"):
        evaluate(
            lambda user_ids, k, user_items: (ids, answer[1]),
            sp.csr_array((1, 2)),
            sp.csr_array([[1.0, 0]]),
            k=1,
            auc=True,
        )


def test_a_model_that_lists_what_was_seen_has_no_auc():
    with pytest.raises(ValueError, match="must leave out what user_items has"):
        evaluate(
            lambda user_ids, k, user_items: (np.array([[1, 0]]), np.ones((1, 2))),
            sp.csr_array([[0.0, 1]]),
            sp.csr_array([[1.0, 0]]),
            k=1,
            auc=True,
        )


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"item_values": [1, 2]}, ValueError, r"item_values must have shape \(3,\).*got \(2,\)"),
        ({"item_values": [1, 2, -1]}, ValueError, "item_values must be finite and at least 0"),
        ({"item_values": list("abc")}, TypeError, "item_values must hold numbers; got dtype <U1"),
        ({"item_vectors": [1, 2, 3]}, ValueError, r"item_vectors must have shape \(3, dim\)"),
        ({"item_vectors": np.full((3, 2), np.nan)}, ValueError, "item_vectors must be finite"),
        ({"item_vectors": [["a"]] * 3}, TypeError, "item_vectors must hold numbers"),
    ],
)
def test_wrong_items(change, error, message):
    with pytest.raises(error, match=f"^ranking_metrics: {message}"):
        ranking_metrics([[0]], sp.csr_array([[1.0, 0, 0]]), k=1, **change)


# --- losses


def test_losses_match_loops_and_scikit_learn():
    rng = np.random.default_rng(0)
    p, a = rng.random(50), rng.integers(0, 2, 50)
    assert mse(p, a) == pytest.approx(oracle.mean_squared_error(a, p), rel=1e-12)
    assert log_loss(p, a) == pytest.approx(reference.log_loss(p, a), rel=1e-12)
    assert log_loss(p, a) == pytest.approx(oracle.log_loss(a, p), rel=1e-12)
    certain = [0.0, 1.0, 1.0]
    assert log_loss(certain, [1, 0, 1]) == pytest.approx(oracle.log_loss([1, 0, 1], certain))
    assert log_loss(p, p) == pytest.approx(reference.log_loss(p, p))  # the entropy


@pytest.mark.parametrize("change", [([1.5], [1]), ([-0.1], [1]), ([0.5], [2])])
def test_log_loss_is_of_probabilities(change):
    with pytest.raises(ValueError, match=r"^log_loss: .* must be in \[0, 1\]; got"):
        log_loss(*change)


# --- intervals


def results(a, b):
    """Two evaluations whose recall@1 per user are the given zeros and ones."""
    test = sp.csr_array(np.tile([1, 0], (len(a), 1)))
    return [ranking_metrics(1 - np.array(x)[:, None], test, k=1) for x in (a, b)]


def test_the_interval_is_that_of_all_possible_samples():
    a, b = results([1, 1, 0, 1], [0, 1, 1, 0])
    differences = np.array([1, 0, -1, 1])
    everything = [np.mean(draw) for draw in itertools.product(differences, repeat=4)]
    found = paired_bootstrap(a, b, "recall@1", confidence=0.8, n_resamples=20_000)
    assert found.mean == 0.25
    assert (found.low, found.high) == tuple(np.quantile(everything, [0.1, 0.9]))
    assert "recall@1: +0.2500, 80 % interval" in str(found)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    held = 0
    for seed in range(200):
        a, b = results(rng.random(60) < 0.6, rng.random(60) < 0.4)  # the true difference is 0.2
        found = paired_bootstrap(a, b, "recall@1", n_resamples=200, random_state=seed)
        held += found.low <= 0.2 <= found.high
    assert 180 <= held <= 198  # 190 expected; beyond 3 standard deviations otherwise


def test_a_model_does_not_differ_from_itself_and_the_sign_turns():
    a, b = results([1, 1, 0, 1], [0, 1, 1, 0])
    same = paired_bootstrap(a, a, "recall@1")
    assert (same.mean, same.low, same.high) == (0, 0, 0)
    ab, ba = paired_bootstrap(a, b, "recall@1"), paired_bootstrap(b, a, "recall@1")
    assert (ab.mean, ab.low, ab.high) == (-ba.mean, -ba.high, -ba.low)


def test_steps_do_not_change_the_interval(monkeypatch):
    a, b = results([1, 1, 0, 1] * 5, [0, 1, 1, 0] * 5)
    expected = paired_bootstrap(a, b, "recall@1")
    monkeypatch.setattr("recfuse.evaluation.bootstrap._DRAWS_PER_STEP", 33)
    assert paired_bootstrap(a, b, "recall@1") == expected


def test_wrong_bootstraps():
    a, b = results([1, 0], [0, 0])
    other, _ = results([1, 0, 1], [0, 0, 0])
    for change, error, message in [
        ({"a": 1}, TypeError, "a must be RankingMetrics; got int"),
        ({"metric": "coverage@1"}, ValueError, "metric must be one of .* got 'coverage@1'"),
        ({"b": other}, ValueError, "b must be over the same users as a"),
        ({"confidence": 1}, ValueError, r"confidence must be in \(0, 1\); got 1"),
        ({"n_resamples": 0}, ValueError, "n_resamples must be at least 1; got 0"),
    ]:
        arguments = {"a": a, "b": b, "metric": "recall@1", **change}
        with pytest.raises(error, match=f"^paired_bootstrap: {message}"):
            paired_bootstrap(**arguments)


def test_a_comparison_shows_every_metric():
    events = Interactions.from_arrays([1, 1, 2, 2, 3], [7, 8, 8, 7, 9], timestamps=[1, 2, 3, 4, 5])
    split = user_time_split(events, n_test=1)
    table = compare({"a": Scored(np.eye(3))}, split, k=1, auc=True, item_values=[3, 4, 5])
    header = table.to_text().splitlines()[2].split()
    assert {"auc", "gini", "value", "value_recall", "value_ndcg"} <= set(header)
    assert table.rows[0]["auc"] == table.results["a"]["auc"]
