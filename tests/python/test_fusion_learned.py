"""Fitted fusion: least squares by three solvers, and stacking without leakage."""

from __future__ import annotations

import warnings
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recfuse.errors import NotFittedError
from recfuse.fusion import LinearFusion, StackingFusion


@pytest.fixture
def problem(rng):
    x = rng.standard_normal((120, 4)) * [1, 2, 0.5, 1] + [0, 1, 0, -1]
    return x, x @ [0.5, -1, 2, 0] + 3 + 0.1 * rng.standard_normal(120)


def closed_form(x, y, l2=0.0) -> np.ndarray:
    return np.linalg.solve(x.T @ x / len(y) + l2 * np.eye(x.shape[1]), x.T @ y / len(y))


@pytest.mark.parametrize("solver", ["exact", "gd", "sgd"])
@pytest.mark.parametrize("l2", [0.0, 0.3])
def test_every_solver_reaches_the_closed_form(problem, solver, l2):
    x, y = problem
    model = LinearFusion(solver, l2=l2).fit(x, y)
    np.testing.assert_allclose(model.coef_, closed_form(x, y, l2), rtol=1e-8, atol=1e-9)
    assert model.converged_ and model.intercept_ == 0
    residuals = y - x @ model.coef_
    loss = (residuals**2).sum() / (2 * len(y)) + l2 / 2 * (model.coef_**2).sum()
    assert model.losses_[-1] == pytest.approx(loss, rel=1e-12)
    np.testing.assert_allclose(model.predict(x), x @ model.coef_, rtol=1e-12)


@pytest.mark.parametrize("solver", ["exact", "gd", "sgd"])
def test_the_intercept_is_not_penalised(problem, solver):
    linear_model = pytest.importorskip("sklearn.linear_model", reason="the oracle is scikit-learn")
    x, y = problem
    model = LinearFusion(solver, l2=0.2, fit_intercept=True).fit(x, y)
    oracle = linear_model.Ridge(alpha=0.2 * len(y)).fit(x, y)
    np.testing.assert_allclose(model.coef_, oracle.coef_, rtol=1e-7)
    np.testing.assert_allclose(model.intercept_, oracle.intercept_, rtol=1e-7)


@pytest.mark.parametrize("solver", ["exact", "gd", "sgd"])
def test_weights_that_are_not_negative(problem, solver):
    optimize = pytest.importorskip("scipy.optimize")
    x, y = problem
    model = LinearFusion(solver, nonnegative=True).fit(x, y)
    oracle = optimize.lsq_linear(x, y, (0, np.inf), tol=1e-14).x
    np.testing.assert_allclose(model.coef_, oracle, atol=1e-6)
    assert (model.coef_ >= 0).all() and (model.coef_ == 0).any()


@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 12))
@settings(max_examples=25, deadline=None)
def test_gradient_descent_goes_down(seed, n_columns, n_rows):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((n_rows, n_columns)) * 100, rng.standard_normal(n_rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        losses = LinearFusion("gd", epochs=30).fit(x, y).losses_
    assert all(b <= a * (1 + 1e-12) for a, b in pairwise(losses))


def test_the_article_by_gradient_descent():
    # 100 updates with 0.01 come nearer to the minimum, which three weights on two rows reach.
    features, y = np.array([[1.0, 0, 0.5], [0, 1, 0.25]]), np.array([1.0, 2])
    with pytest.warns(RuntimeWarning, match="100 epochs were not enough"):
        model = LinearFusion("gd", learning_rate=0.01, epochs=100).fit(features, y)
    w = np.zeros(3)
    for _ in range(100):
        w -= 0.01 * features.T @ (features @ w - y) / 2
    np.testing.assert_allclose(model.coef_, w, rtol=1e-12)
    assert len(model.losses_) == 101 and model.losses_[-1] < model.losses_[0]
    assert LinearFusion().fit(features, y).losses_[0] < 1e-30


def test_early_stopping_keeps_the_best(problem, rng):
    x, y = problem
    noise = rng.standard_normal((len(y), 60))
    wide = np.hstack([x, noise])
    model = LinearFusion("gd", patience=3).fit(wide[:40], y[:40], validation=(wide[40:], y[40:]))
    held = model.validation_losses_
    best = int(np.argmin(held))
    assert len(held) == best + 4
    residuals = y[40:] - wide[40:] @ model.coef_
    assert (residuals**2).mean() / 2 == pytest.approx(held[best], rel=1e-12)


def test_wrong_requests_of_linear_fusion(problem):
    x, y = problem
    with pytest.raises(ValueError, match="fit: learning_rate must be small enough"):
        LinearFusion("gd", learning_rate=100.0).fit(x, y)
    with pytest.raises(ValueError, match="fit: solver must be 'exact', 'gd' or 'sgd'; got 'adam'"):
        LinearFusion("adam").fit(x, y)
    with pytest.raises(ValueError, match="fit: predictions must be finite; got nan"):
        LinearFusion().fit([[np.nan]], [1])
    with pytest.raises(ValueError, match=r"fit: targets must have shape \(120,\); got \(3,\)"):
        LinearFusion().fit(x, [1, 2, 3])
    with pytest.raises(NotFittedError):
        LinearFusion().predict(x)
    by_name = LinearFusion().fit({"a": x[:, 0], "b": x[:, 1]}, y)
    swapped = {"b": x[:, 1], "a": x[:, 0]}
    np.testing.assert_array_equal(by_name.predict(swapped), x[:, :2] @ by_name.coef_)
    with pytest.raises(ValueError, match=r"predictions must have the columns \['a', 'b'\]"):
        by_name.predict({"a": x[:, 0]})


class Memory:
    """Remembers what it was taught, and knows nothing of other rows."""

    def fit(self, x, y):
        self.known_ = {tuple(row): value for row, value in zip(x, y, strict=True)}
        return self

    def predict(self, x):
        return np.array([self.known_.get(tuple(row), 0.0) for row in x])


def test_no_row_is_predicted_by_a_model_that_has_seen_it(rng):
    x, y = rng.standard_normal((50, 3)), rng.standard_normal(50) + 5
    stack = StackingFusion({"memory": Memory(), "honest": LinearFusion(fit_intercept=True)})
    stack.fit({"memory": x, "honest": x}, y)
    assert not stack.out_of_fold_[:, 0].any()
    assert stack.meta_model_.weights_["0"] == 0
    np.testing.assert_array_equal(stack.base_predictions({"memory": x, "honest": x})[:, 0], y)
    assert stack.errors_["memory"] == pytest.approx((y**2).mean())


def test_a_group_is_never_in_two_folds(rng):
    groups = rng.integers(0, 8, 60)
    x = groups[:, None].astype(float)
    stack = StackingFusion(Memory(), folds=4).fit({"m": x}, rng.random(60), groups=groups)
    assert not stack.out_of_fold_.any()


def test_out_of_fold_predictions_are_those_of_the_other_folds(rng):
    x, y = rng.standard_normal((30, 2)), rng.standard_normal(30)
    stack = StackingFusion(LinearFusion(l2=0.1), "ridge", folds=3, random_state=4)
    stack.fit({"m": x}, y)
    fold_of = np.random.default_rng(4).permutation(30) % 3
    for fold in range(3):
        w = closed_form(x[fold_of != fold], y[fold_of != fold], 0.1)
        held = fold_of == fold
        np.testing.assert_allclose(stack.out_of_fold_[held, 0], x[held] @ w, rtol=1e-10)


def test_the_article_with_forests_and_a_support_vector_machine():
    ensemble = pytest.importorskip("sklearn.ensemble", reason="needs scikit-learn")
    svm = pytest.importorskip("sklearn.svm")
    behaviour, feature = np.array([[1, 2, 3], [4, 5, 6]]), np.array([[7, 8, 9], [10, 11, 12]])
    forest = ensemble.RandomForestRegressor(n_estimators=10, random_state=0)
    stack = StackingFusion({"behaviour": forest, "feature": forest}, svm.SVR(), folds=2)
    blocks = {"behaviour": behaviour, "feature": feature}
    predicted = stack.fit(blocks, [1, 2]).predict(blocks)
    by_hand = np.column_stack(
        [
            ensemble.RandomForestRegressor(n_estimators=10, random_state=0)
            .fit(x, [1, 2])
            .predict(x)
            for x in (behaviour, feature)
        ]
    )
    np.testing.assert_array_equal(stack.base_predictions(blocks), by_hand)
    np.testing.assert_array_equal(
        predicted, svm.SVR().fit(stack.out_of_fold_, [1, 2]).predict(by_hand)
    )
    assert not hasattr(forest, "estimators_")


def test_wrong_requests_of_stacking(rng):
    x, y = rng.standard_normal((4, 2)), np.arange(4.0)
    with pytest.raises(ValueError, match=r"fit: folds must be at most .* \(4\); got 5"):
        StackingFusion(Memory()).fit({"m": x}, y)
    with pytest.raises(ValueError, match=r"fit: base must have the modalities \['m'\]"):
        StackingFusion({"n": Memory()}).fit({"m": x}, y)
    with pytest.raises(TypeError, match="base and meta must have fit and predict"):
        StackingFusion(object(), folds=2).fit({"m": x}, y)
    with pytest.raises(ValueError, match="fit: meta must be 'nonnegative', 'ridge' or a regressor"):
        StackingFusion(Memory(), "svr", folds=2).fit({"m": x}, y)
    with pytest.raises(NotFittedError):
        StackingFusion(Memory()).predict({"m": x})
