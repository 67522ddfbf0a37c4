"""Factors between fits: rows solved again or appended, and the explanation of a score."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

import reference_als
from helpers import assert_same_bytes
from recfuse import AlternatingLeastSquares, load
from recfuse.errors import NotFittedError

CONVENTIONS = {
    "implicit": {"alpha": 2.0, "frequency_scaling": 0.5},
    "explicit": {"objective": "explicit"},
    "biases": {"objective": "explicit", "biases": True, "frequency_scaling": 1.0},
}


@pytest.fixture
def likes(rng) -> sp.csr_array:
    dense = (rng.random((50, 40)) < 0.2) * rng.integers(1, 6, (50, 40))
    return sp.csr_array(dense.astype(np.float32))


@pytest.fixture(params=CONVENTIONS)
def fitted(request, likes) -> AlternatingLeastSquares:
    options = {"factors": 6, "iterations": 3, "random_state": 0, "regularization": 0.2}
    return AlternatingLeastSquares(**options, **CONVENTIONS[request.param]).fit(likes)


def convention(model) -> reference_als.Objective:
    return reference_als.Objective(
        model.objective, model.regularization, model.alpha, model.frequency_scaling, model.biases
    )


def test_users_are_the_rows_of_fold_in(fitted, likes):
    before = fitted.user_factors_
    fitted.recommend(0, k=3)  # what is kept for searches must not be used again
    rows = sp.csr_array(likes[[7, 3, 9]] * 2)
    expected = fitted.fold_in(rows)
    assert fitted.partial_fit_users([51, 4, 50], rows) is fitted
    assert fitted.user_factors_.shape == (52, 6) and fitted.user_biases_.shape == (52,)
    assert_same_bytes((fitted.user_factors_[[51, 4, 50]],), (expected,))
    others = np.delete(np.arange(50), 4)
    assert_same_bytes((fitted.user_factors_[others],), (before[others],))
    everything = fitted.recommend([51], k=40)
    order = np.argsort(everything[0][0])
    vectors = fitted.item_factors_ @ expected[0] + fitted.item_biases_
    scores = vectors + fitted.global_mean_ + fitted.user_biases_[51]
    np.testing.assert_allclose(everything[1][0][order], scores, rtol=1e-4, atol=1e-4)
    reference, _ = convention(fitted).half_step(
        rows, fitted.item_factors_, fitted.item_biases_, fitted.global_mean_
    )
    np.testing.assert_allclose(expected, reference, rtol=1e-3, atol=1e-4)


def test_items_are_solved_against_the_users(fitted, likes, rng):
    rows = sp.csr_array(
        ((rng.random((3, 50)) < 0.4) * rng.integers(1, 6, (3, 50))).astype(np.float32)
    )
    before = fitted.item_factors_
    fitted.similar_items(0), fitted.recommend(0)
    fitted.partial_fit_items([40, 2, 41], rows)
    factors, biases = convention(fitted).half_step(
        rows, fitted.user_factors_, fitted.user_biases_, fitted.global_mean_
    )
    np.testing.assert_allclose(fitted.item_factors_[[40, 2, 41]], factors, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(fitted.item_biases_[[40, 2, 41]], biases, rtol=1e-3, atol=1e-4)
    others = np.delete(np.arange(40), 2)
    assert_same_bytes((fitted.item_factors_[others],), (before[others],))
    ids, _ = fitted.recommend(0, k=42)
    assert sorted(ids[0]) == list(range(42))


def test_a_user_folded_in_knows_what_is_new(likes, tmp_path):
    model = AlternatingLeastSquares(factors=6, random_state=0).fit(likes)
    model.partial_fit_users(50, likes[[11]])
    model.save(tmp_path / "m")
    loaded = load(tmp_path / "m").partial_fit_users(51, likes[[11]])
    assert_same_bytes((loaded.user_factors_[50],), (loaded.user_factors_[51],))


def test_shares_are_the_definition_and_sum_to_the_score(fitted, likes):
    user, item = 5, 17
    history = likes[[user]]
    score, shares = fitted.explain(history, item)
    # One item of the history at a time on the right-hand side, against the same system.
    rule = convention(fitted)
    ids, values = history.indices, history.data.astype(np.float64)
    matrix, right, _ = rule.system(
        ids, values, fitted.item_factors_, fitted.item_biases_, fitted.global_mean_
    )
    target = fitted.item_factors_[item].astype(np.float64)
    base = 0.0
    if fitted.biases:
        target = np.append(target, 1.0)
        base = fitted.global_mean_ + float(fitted.item_biases_[item])
    assert score == pytest.approx(base + target @ np.linalg.solve(matrix, right))
    assert base + sum(share for _, share in shares) == pytest.approx(score)
    assert sorted(i for i, _ in shares) == sorted(ids)
    assert [s for _, s in shares] == sorted((s for _, s in shares), reverse=True)
    for j, share in shares:
        at = int(np.flatnonzero(ids == j)[0])
        y = fitted.item_factors_[j].astype(np.float64)
        if fitted.objective == "implicit":
            alone = (1 + fitted.alpha * values[at]) * y
        else:
            y = np.append(y, 1.0) if fitted.biases else y
            alone = (values[at] - fitted.global_mean_ - float(fitted.item_biases_[j])) * y
        assert share == pytest.approx(target @ np.linalg.solve(matrix, alone), abs=1e-9)
    folded = fitted.partial_fit_users(50, history).predict([50], [item])
    assert folded[0] == pytest.approx(score, rel=1e-3)


def test_an_empty_history_explains_nothing(fitted):
    score, shares = fitted.explain(sp.csr_array((1, 40), dtype=np.float32), 3)
    assert shares == []
    base = fitted.global_mean_ + fitted.item_biases_[3] if fitted.biases else 0.0
    assert score == pytest.approx(base)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m, x: m.partial_fit_users([52], x[[0]]), IndexError, "continue at 50 without"),
        (lambda m, x: m.partial_fit_users([-1], x[[0]]), IndexError, "user_ids must be in"),
        (lambda m, x: m.partial_fit_users([3, 3], x[[0, 1]]), ValueError, "must not repeat"),
        (lambda m, x: m.partial_fit_users([3], x[[0, 1]]), ValueError, "one row per id"),
        (lambda m, x: m.partial_fit_users([3], x[[0]][:, :5]), ValueError, "columns"),
        (lambda m, x: m.partial_fit_items([3], x[[0]]), ValueError, "item_users must have 50 col"),
        (lambda m, x: m.partial_fit_items([43], x[[0]]), IndexError, "continue at 40 without"),
        (lambda m, x: m.explain(x, 0), ValueError, r"user_items must have shape \(1, 40\)"),
        (lambda m, x: m.explain(x[[0]], 40), IndexError, "item_id must be in"),
        (lambda m, x: m.explain(x[[0]], [1, 2]), ValueError, "item_id must be one id; got 2"),
    ],
)
def test_bad_requests_leave_the_model(fitted, likes, call, error, message):
    before = (fitted.user_factors_, fitted.item_factors_)
    with pytest.raises(error, match=message):
        call(fitted, likes)
    assert before[0] is fitted.user_factors_ and before[1] is fitted.item_factors_


def test_before_fit(likes):
    for call in ("partial_fit_users", "partial_fit_items"):
        with pytest.raises(NotFittedError):
            getattr(AlternatingLeastSquares(), call)(0, likes)
    with pytest.raises(NotFittedError):
        AlternatingLeastSquares().explain(likes[[0]], 0)
