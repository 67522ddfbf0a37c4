"""AlternatingLeastSquares: what it learns, recommends, predicts, and what ends a fit."""

from __future__ import annotations

import os
import pickle
import signal
import threading

import numpy as np
import pytest
import scipy.sparse as sp

import reference_als
from helpers import assert_same_bytes
from recfuse import AlternatingLeastSquares, Interactions
from recfuse.errors import DeviceError, NotFittedError


@pytest.fixture
def likes(rng) -> sp.csr_array:
    dense = (rng.random((50, 40)) < 0.2) * rng.integers(1, 6, (50, 40))
    return sp.csr_array(dense.astype(np.float32))


def model(**parameters) -> AlternatingLeastSquares:
    return AlternatingLeastSquares(
        **{"factors": 8, "iterations": 3, "random_state": 0, "regularization": 0.1, **parameters}
    )


EXPLICIT = {"objective": "explicit", "biases": True}


def dense_scores(fitted) -> np.ndarray:
    scores = fitted.user_factors_.astype(np.float64) @ fitted.item_factors_.T.astype(np.float64)
    biases = fitted.user_biases_[:, None] + fitted.item_biases_[None, :].astype(np.float64)
    return scores + biases + fitted.global_mean_


def test_learned_attributes(likes):
    fitted = model(compute_loss=True).fit(likes)
    assert (fitted.user_factors_.shape, fitted.user_factors_.dtype) == ((50, 8), np.float32)
    assert (fitted.item_factors_.shape, fitted.item_factors_.dtype) == ((40, 8), np.float32)
    assert fitted.n_iter_ == 3
    assert fitted.float64_rows_ == 0
    assert fitted.global_mean_ == 0.0 and not fitted.user_biases_.any()
    assert len(fitted.loss_) == 3
    expected = reference_als.Objective(regularization=0.1).loss(
        likes, fitted.user_factors_, fitted.item_factors_, np.zeros(50), np.zeros(40), 0.0
    )
    assert fitted.loss_[-1] == pytest.approx(expected, rel=1e-6)


def test_items_are_solved_for_the_users_of_the_same_iteration(likes):
    fitted = model(**EXPLICIT, frequency_scaling=1.0).fit(likes)
    convention = reference_als.Objective(
        "explicit", regularization=0.1, frequency_scaling=1.0, biases=True
    )
    assert fitted.global_mean_ == pytest.approx(likes.data.mean())
    factors, biases = convention.half_step(
        reference_als.transposed(likes), fitted.user_factors_, fitted.user_biases_,
        fitted.global_mean_,
    )  # fmt: skip
    np.testing.assert_allclose(fitted.item_factors_, factors, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(fitted.item_biases_, biases, rtol=1e-3, atol=1e-4)


def regular(rng, n_rows: int, n_columns: int, per_row: int) -> sp.csr_array:
    columns = np.argsort(rng.random((n_rows, n_columns)), axis=1)[:, :per_row]
    return sp.csr_array(
        (rng.integers(1, 6, columns.size).astype(np.float32), columns.ravel(),
         np.arange(n_rows + 1) * per_row), shape=(n_rows, n_columns),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("per_row", "parameters", "solver"),
    [
        (40, {"factors": 16}, "cholesky"),  # systems so small that steps save nothing
        (60, {"factors": 64}, "cg"),
        (60, {"factors": 64, "cg_steps": 12}, "cg"),  # as a last step is half a pass
        (200, {"factors": 64, "cg_steps": 40, "alpha": 40.0}, "cholesky"),
        (60, {"factors": 64, **EXPLICIT}, "cg"),
        (4, {"factors": 256}, "cg"),  # in coordinates that need no eigenvectors
        (4, {"factors": 256, "frequency_scaling": 0.5}, "cholesky"),  # by systems of 4 unknowns
        (200, {"factors": 192, "cg_steps": 40, "alpha": 10.0}, "block"),
    ],
)
def test_auto_takes_the_solver_that_gets_there_soonest(rng, per_row, parameters, solver):
    """As measured, docs/performance.md; what the rows of both sides have decides."""
    matrix = regular(rng, 600, 500, per_row)
    fits = {
        name: model(iterations=1, **{"solver": name, **parameters}).fit(matrix)
        for name in ("auto", "cholesky", "cg", "block")
    }
    assert {name: fitted.solver_ for name, fitted in fits.items()} == {
        "auto": solver, "cholesky": "cholesky", "cg": "cg", "block": "block"
    }  # fmt: skip
    for name in ("cholesky", "cg", "block"):
        same = (fits[name].item_factors_ == fits["auto"].item_factors_).all()
        assert same == (name == solver)


def test_random_state(likes):
    def factors(state):
        return model(random_state=state).fit(likes).item_factors_

    assert (factors(0) == factors(0)).all()
    assert (factors(0) == factors(np.random.default_rng(0))).all()
    assert (factors(0) != factors(1)).any()
    assert (factors(None) != factors(None)).any()
    with pytest.raises(TypeError, match="random_state must be an integer, a numpy Generator or"):
        factors("a")
    with pytest.raises(ValueError, match="random_state must be at least 0; got -1"):
        factors(-1)


def test_refit_starts_anew(likes):
    once, twice = model().fit(likes), model().fit(likes).fit(likes)
    assert_same_bytes((once.user_factors_,), (twice.user_factors_,))


def test_interactions_and_duplicates(rng):
    users, items = rng.integers(0, 20, 300), rng.integers(0, 15, 300)
    values = rng.integers(1, 4, 300).astype(np.float32)
    events = Interactions.from_arrays(users, items, values)
    summed = np.zeros((events.n_users, events.n_items), np.float32)
    np.add.at(summed, (events.user_index, events.item_index), values)
    twice = sp.coo_array((events.values, (events.user_index, events.item_index)))
    expected = model().fit(sp.csr_array(summed)).user_factors_
    assert_same_bytes((model().fit(events).user_factors_,), (expected,))
    assert_same_bytes((model().fit(twice).user_factors_,), (expected,))


@pytest.mark.parametrize("options", [{}, {"objective": "explicit"}, EXPLICIT], ids=str)
def test_lists_are_the_best_of_all_scores(likes, options):
    fitted = model(**options).fit(likes)
    users = np.array([7, 0, 49, 7])
    ids, scores = fitted.recommend(users, k=5, user_items=likes[users])
    expected = dense_scores(fitted)[users]
    expected[likes.toarray()[users] != 0] = -np.inf
    order = np.argsort(-expected, axis=1, kind="stable")[:, :5]
    np.testing.assert_array_equal(ids, order)
    best = np.take_along_axis(expected, order, axis=1)
    np.testing.assert_allclose(scores, best, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", [{}, EXPLICIT], ids=str)
def test_a_predicted_score_is_the_recommended_one(likes, options, monkeypatch):
    monkeypatch.setattr("recfuse.models.als._PAIRS", 7)
    fitted = model(**options).fit(likes)
    users = np.arange(50)
    ids, scores = fitted.recommend(users, k=4)
    predicted = fitted.predict(np.repeat(users, 4), ids.ravel())
    assert_same_bytes((predicted,), (scores.ravel(),))
    assert fitted.predict(3, 2).shape == (1,)
    assert fitted.predict([], []).shape == (0,)


def test_what_is_left_out(likes):
    fitted = model().fit(likes)
    users, history = [1, 2], sp.csr_array(likes[[1, 2]])
    history.data[:] = 0  # seen is what is stored, whatever its value
    exclude = sp.csr_array(([1.0, 1.0], ([0, 1], [39, 0])), shape=(2, 40))
    ids, scores = fitted.recommend(users, k=40, user_items=history, exclude=exclude)
    for row, user in enumerate(users):
        out = set(likes[[user]].indices) | set(exclude[[row]].indices)
        assert set(ids[row][ids[row] >= 0]) == set(range(40)) - out
        assert (ids[row][40 - len(out) :] == -1).all()
        assert np.isneginf(scores[row][40 - len(out) :]).all()
    ids, _ = fitted.recommend(users, k=3, allow=[5, 9])
    assert all(set(row) == {5, 9, -1} for row in ids)


def test_similar_items_and_users(likes):
    fitted = model().fit(likes)
    for find, factors in (
        (fitted.similar_items, fitted.item_factors_),
        (fitted.similar_users, fitted.user_factors_),
    ):
        ids, scores = find([3, 0], k=6)
        unit = factors.astype(np.float64)
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        cosines = unit[[3, 0]] @ unit.T
        cosines[[0, 1], [3, 0]] = -np.inf  # not itself
        order = np.argsort(-cosines, axis=1, kind="stable")[:, :6]
        np.testing.assert_array_equal(ids, order)
        best = np.take_along_axis(cosines, order, axis=1)
        np.testing.assert_allclose(scores, best, rtol=1e-5)
    assert fitted.similar_items(3, k=40)[0][0, -1] == -1


@pytest.mark.parametrize(
    ("options", "convention"),
    [
        ({"alpha": 3.0}, {"alpha": 3.0}),
        ({"frequency_scaling": 1.0}, {"frequency_scaling": 1.0}),
        (EXPLICIT, EXPLICIT),
        ({"solver": "cg"}, {}),
    ],
    ids=str,
)
def test_fold_in_solves_for_the_items_of_the_fit(likes, options, convention):
    fitted = model(**options).fit(likes)
    unseen = sp.csr_array(likes[[4, 9, 30]])
    unseen = sp.csr_array(sp.vstack([unseen, sp.csr_array((1, 40), dtype=np.float32)]))
    expected, biases = reference_als.Objective(**{"regularization": 0.1, **convention}).half_step(
        unseen, fitted.item_factors_, fitted.item_biases_, fitted.global_mean_
    )
    factors = fitted.fold_in(unseen)
    assert (factors.dtype, factors.shape) == (np.float32, (4, 8))
    np.testing.assert_allclose(factors, expected, rtol=1e-3, atol=1e-4)
    assert not factors[3].any()
    # The bias shows in the scores of a recalculated user.
    ids, scores = fitted.recommend([0, 0, 0, 0], k=1, user_items=unseen, recalculate_user=True)
    items = ids[:, 0]
    best = (expected * fitted.item_factors_[items]).sum(axis=1) + biases
    best += fitted.item_biases_[items] + fitted.global_mean_
    np.testing.assert_allclose(scores[:, 0], best, rtol=1e-3, atol=1e-4)
    assert not (unseen.toarray()[np.arange(4), items] != 0).any()


def test_what_was_made_from_factors_is_made_anew_with_them(likes):
    fitted = model().fit(likes)
    before = fitted.recommend(0), fitted.fold_in(likes[[0]])
    fitted.item_factors_ = fitted.item_factors_ * np.float32(2)
    assert (fitted.recommend(0)[1] == before[0][1] * 2).all()
    assert (fitted.fold_in(likes[[0]]) != before[1]).any()
    folded = fitted.fold_in(likes[[0]])
    fitted.set_params(regularization=100.0)
    assert (fitted.fold_in(likes[[0]]) != folded).any()
    again = pickle.loads(pickle.dumps(fitted))
    assert_same_bytes((again.fold_in(likes[[0]]),), (fitted.fold_in(likes[[0]]),))


def test_ratings_of_a_planted_model_are_recovered(rng):
    """Biases and 3 factors, a third of the ratings seen: the others come out to 5 % of their
    spread."""
    users, items = rng.standard_normal((300, 3)), rng.standard_normal((200, 3))
    ratings = 3 + rng.standard_normal((300, 1)) + rng.standard_normal(200) + users @ items.T
    seen = rng.random(ratings.shape) < 0.35
    train = sp.csr_array(np.where(seen, ratings, 0).astype(np.float32))
    fitted = model(factors=3, iterations=30, **EXPLICIT, regularization=1e-3).fit(train)
    hidden_users, hidden_items = np.nonzero(~seen)
    error = fitted.predict(hidden_users, hidden_items) - ratings[~seen]
    assert np.sqrt((error**2).mean()) < 0.05 * ratings.std()


def test_tastes_of_planted_groups_are_found(rng):
    likes = sp.csr_array(np.kron(np.eye(4), rng.random((30, 25)) < 0.3).astype(np.float32))
    fitted = model(factors=4, alpha=10.0, iterations=10).fit(likes)
    ids, _ = fitted.recommend(np.arange(120), k=5, user_items=likes)
    assert (ids // 25 == np.arange(120)[:, None] // 30).mean() > 0.95


def test_callback_is_told_of_every_iteration(likes):
    calls = []
    model(compute_loss=True).fit(likes, callback=lambda *args: calls.append(args))
    assert [c[0] for c in calls] == [1, 2, 3]
    assert all(c[1] > 0 for c in calls)
    assert calls[2][2] <= calls[1][2] <= calls[0][2]
    calls.clear()
    model().fit(likes, callback=lambda *args: calls.append(args))
    assert [c[2] for c in calls] == [None] * 3


@pytest.mark.parametrize("objective", ["implicit", "explicit"])
def test_in_the_callback_the_model_answers_with_the_factors_so_far(likes, objective):
    fitting, seen = model(objective=objective, iterations=3), []

    def look(iteration, seconds, loss):
        seen.append((fitting.item_factors_, fitting.recommend([0, 1], user_items=likes[[0, 1]])))

    fitting.fit(likes, callback=look)
    for n, (factors, lists) in enumerate(seen, 1):
        then = model(objective=objective, iterations=n).fit(likes)
        assert_same_bytes((factors,), (then.item_factors_,))
        assert_same_bytes(lists, then.recommend([0, 1], user_items=likes[[0, 1]]))


def test_stop_iteration_ends_a_fit_as_if_it_were_complete(likes):
    def stop(iteration, seconds, loss):
        if iteration == 2:
            raise StopIteration

    stopped = model(iterations=50)
    assert stopped.fit(likes, callback=stop) is stopped
    assert stopped.n_iter_ == 2
    assert_same_bytes(stopped.recommend([0]), model(iterations=2).fit(likes).recommend([0]))


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_exception_of_the_callback_keeps_the_finished_iterations(likes, error):
    def stop(iteration, seconds, loss):
        if iteration == 2:
            raise error

    stopped = model(iterations=50)
    with pytest.raises(error):
        stopped.fit(likes, callback=stop)
    assert stopped.n_iter_ == 2
    two = model(iterations=2).fit(likes)
    assert_same_bytes(stopped.recommend([0, 1]), two.recommend([0, 1]))
    assert_same_bytes((stopped.item_factors_,), (two.item_factors_,))


def test_ctrl_c_ends_a_fit_and_leaves_a_usable_model(likes):
    endless = model(iterations=10**9)
    started = threading.Event()

    def interrupt():
        started.wait(30)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    # A shell starts what runs in the background with SIGINT ignored, and this fit would not end.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            endless.fit(likes, callback=lambda *_: started.set())
        thread.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert 1 <= endless.n_iter_ < 10**9
    ids, _ = endless.recommend([0], k=3, user_items=likes[[0]])
    assert (ids >= 0).all()


def test_an_unsolvable_fit_leaves_no_model():
    unsolvable = model(objective="explicit", regularization=0.0, factors=3)
    with pytest.raises(ValueError, match=r"als: the system of user 1 is singular; .*Raise it"):
        unsolvable.fit(sp.csr_array(np.float32([[0, 0], [1, 1]])))
    with pytest.raises(NotFittedError):
        unsolvable.recommend([0])


def test_bad_parameters(likes):
    for bad, error, message in (
        ({"iterations": 0}, ValueError, "als: iterations must be at least 1; got 0"),
        ({"iterations": 1.5}, TypeError, r"iterations must be an integer; got 1\.5"),
        ({"factors": 2.0}, TypeError, r"factors must be an integer; got 2\.0"),
        ({"factors": True}, TypeError, "factors must be an integer; got True"),
        ({"regularization": "0.1"}, TypeError, r"regularization must be a number; got '0\.1'"),
        ({"alpha": None}, TypeError, "alpha must be a number; got None"),
        ({"num_threads": -1}, ValueError, "als: num_threads must be at least 0; got -1"),
        (
            {"solver": "qr"},
            ValueError,
            "als: solver must be one of 'auto', 'cholesky', 'cg', 'block'",
        ),
        ({"device": "tpu"}, ValueError, "device must be 'auto', 'cpu', 'cuda', .*; got 'tpu'"),
    ):
        wrong = model(**bad)
        with pytest.raises(error, match=message):
            wrong.fit(likes)
        assert not hasattr(wrong, "item_factors_")


def test_a_device_that_is_not_there_is_no_other_one(likes):
    try:
        from recfuse import _cuda  # noqa: F401
    except ImportError:
        with pytest.raises(DeviceError, match="device 'cuda' cannot be used"):
            model(device="cuda").fit(likes)


def test_bad_requests(likes):
    fitted = model().fit(likes)
    for call, error, message in (
        (lambda: fitted.recommend([50]), IndexError, r"user_ids must be in \[0, 50\); got 50"),
        (lambda: fitted.recommend([0.0]), TypeError, "user_ids must be integers"),
        (lambda: fitted.recommend([0], k=0), ValueError, "k must be at least 1; got 0"),
        (lambda: fitted.recommend([0], k=2.0), TypeError, r"k must be an integer; got 2\.0"),
        (
            lambda: fitted.recommend([0, 1], user_items=likes),
            ValueError,
            r"user_items must have shape \(2, 40\) \(queries, items\); got \(50, 40\)",
        ),
        (
            lambda: fitted.recommend([0], recalculate_user=True),
            ValueError,
            "user_items must be given where recalculate_user is True; got None",
        ),
        (lambda: fitted.recommend([0], allow=[40]), IndexError, r"allow.*\[0, 40\); got 40"),
        (lambda: fitted.similar_items([-1]), IndexError, r"item_ids must be in \[0, 40\); got -1"),
        (lambda: fitted.similar_users(50), IndexError, r"user_ids must be in \[0, 50\); got 50"),
        (lambda: fitted.predict([0], [40]), IndexError, r"item_ids must be in \[0, 40\); got 40"),
        (
            lambda: fitted.predict([0, 1], [1]),
            ValueError,
            r"item_ids must have one id per user \(2\); got 1",
        ),
        (
            lambda: fitted.fold_in(sp.csr_array((1, 39), dtype=np.float32)),
            ValueError,
            "fold_in: user_items must have 40 columns like the fitted one; got 39",
        ),
        (lambda: fitted.fold_in(np.ones((1, 40))), TypeError, "user_items must be a SciPy sparse"),
    ):
        with pytest.raises(error, match=message):
            call()
