"""Costs in a comparison, and the search for hyper-parameters."""

from __future__ import annotations

import json
import math
import sys
import time

import numpy as np
import pytest
from scipy import stats

import recfuse
from recfuse.datasets import synthetic
from recfuse.evaluation import (
    Trial,
    compare,
    evaluate,
    random_split,
    ranking_objective,
    tune,
)


def split(seed=0):
    events = synthetic(60, 40, 900, random_state=0).interactions
    return random_split(events, random_state=seed)


class Slow:
    """A model that takes a known time and memory, and notes its requests."""

    def __init__(self, seconds=0.0, n_bytes=0):
        self.seconds, self.n_bytes = seconds, n_bytes
        self.requests = []
        self.extra = None

    def fit(self, train, *, extra=None):
        self.extra = extra
        self.n_items = train.n_items
        np.ones(self.n_bytes, np.uint8)
        time.sleep(self.seconds)

    def recommend(self, user_ids, k, *, user_items):
        self.requests.append((len(user_ids), k, user_items is not None))
        time.sleep(self.seconds)
        return np.tile(np.arange(k), (len(user_ids), 1)), np.ones((len(user_ids), k))


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are Linux's")
def test_costs_are_what_the_model_takes():
    model = Slow(seconds=0.02, n_bytes=64 << 20)
    table = compare(
        {"slow": model}, split(), k=5, fit=True, costs=True, n_requests=10, batch_size=20
    )
    costs = table.costs["slow"]
    n_users = table.results["slow"].n_users
    n_batches = math.ceil(n_users / 20)
    assert model.requests[n_batches:] == [(1, 5, True)] * 11  # one to warm up
    assert 0.02 <= costs.fit_seconds < 2
    assert n_batches * 0.02 <= costs.recommend_seconds < n_batches * 2
    assert costs.users_per_second == pytest.approx(n_users / costs.recommend_seconds)
    assert 0.02 <= costs.latency_p50 <= costs.latency_p99 < 2
    if costs.fit_peak_bytes is not None:
        assert 63 << 20 < costs.fit_peak_bytes < 96 << 20
        assert costs.recommend_peak_bytes < 32 << 20
    assert json.loads(json.dumps(table.to_dict()))["models"]["slow"]["costs"]["latency_p50"] > 0
    assert "p99 ms" in repr(table) and "fit MiB" in repr(table)


def test_fit_with_arguments_and_without_costs():
    model, other = Slow(), Slow()
    part = split()
    table = compare({"a": model, "b": other}, part, k=5, fit=True, fit_params={"a": {"extra": 7}})
    assert (model.extra, other.extra) == (7, None)
    assert table.costs == {} and "p99" not in repr(table)
    assert "costs" not in table.to_dict()["models"]["a"]


def test_fitted_models_have_no_costs_of_the_fit():
    part = split()
    model = recfuse.Popularity().fit(part.train)
    costs = compare({"p": model}, part, k=5, costs=True, n_requests=3).costs["p"]
    assert costs.fit_seconds is None and costs.fit_peak_bytes is None
    assert costs.cells()[:2] == ["-", "-"]


def test_a_sequence_of_models_fits_and_names_itself():
    part = split()
    models = [recfuse.Popularity(), recfuse.ItemNeighbours(k=5), recfuse.ItemNeighbours(k=5)]
    table = compare(models, part, k=5, fit=True)
    assert list(table.results) == [
        "Popularity()", "ItemNeighbours(k=5)", "ItemNeighbours(k=5) (2)",
    ]  # fmt: skip
    alone = evaluate(recfuse.Popularity().fit(part.train), part.train, part.test, k=5)
    assert table.results["Popularity()"]["ndcg@5"] == alone["ndcg@5"]
    found = table.difference("ItemNeighbours(k=5)", "Popularity()", "ndcg@5", n_resamples=50)
    assert found.mean == pytest.approx(
        table.results["ItemNeighbours(k=5)"]["ndcg@5"] - alone["ndcg@5"]
    )
    with pytest.raises(KeyError, match=r"model must be one of .* got 'x'"):
        table.difference("x", "Popularity()", "ndcg@5")


def test_wrong_fits():
    with pytest.raises(TypeError, match=r"^compare: models\['a'\] must have a method fit; got fun"):
        compare({"a": lambda *_, **__: None}, split(), fit=True)
    with pytest.raises(ValueError, match=r"^compare: fit_params must name models, .* got 'b'"):
        compare({"a": Slow()}, split(), fit=True, fit_params={"b": {}})
    with pytest.raises(ValueError, match=r"^compare: n_requests must be at least 1; got 0"):
        compare({"a": Slow()}, split(), n_requests=0)


# --- tuning


def objective(trial):
    x = trial.suggest_float("x", -2, 3)
    n = trial.suggest_int("n", 1, 4)
    kind = trial.suggest_categorical("kind", ["a", "b"])
    return -((x - 1) ** 2) - n + (kind == "b")


def test_a_grid_tries_every_combination():
    grid = {"x": [0, 1], "n": [2, 3], "kind": ["a", "b"]}
    found = tune(objective, grid=grid)
    assert [tuple(t.params.values()) for t in found.trials] == [
        (x, n, kind) for x in (0, 1) for n in (2, 3) for kind in ("a", "b")
    ]
    assert found.best_params == {"x": 1, "n": 2, "kind": "b"} and found.best_value == -1
    assert tune(objective, grid=grid, direction="minimize").best_params["n"] == 3
    assert len(tune(objective, grid=grid, n_trials=3).trials) == 3
    with pytest.raises(ValueError, match=r"^Trial: 'n' must be in the grid"):
        tune(objective, grid={"x": [0]})


def test_random_trials_repeat_and_more_of_them_begin_alike():
    short, long = (tune(objective, n_trials=n, random_state=5).trials for n in (4, 9))
    assert [t.params for t in short] == [t.params for t in long][:4]
    other = tune(objective, n_trials=4, random_state=6).trials
    assert [t.params for t in short] != [t.params for t in other]
    assert len({t.params["x"] for t in long}) == 9
    assert len(tune(objective).trials) == 20


def test_draws_are_uniform_where_they_say_so():
    trials = [Trial(n, np.random.default_rng([0, n])) for n in range(4000)]
    assert stats.kstest([t.suggest_float("x", -1, 3) for t in trials], "uniform", (-1, 4))[1] > 1e-3
    logs = [math.log10(t.suggest_float("l", 1e-3, 10, log=True)) for t in trials]
    assert stats.kstest(logs, "uniform", (-3, 4))[1] > 1e-3
    for name, low, high, step in [("n", 2, 6, 1), ("s", 0, 9, 3)]:
        drawn = np.array([t.suggest_int(name, low, high, step=step) for t in trials])
        values, counts = np.unique(drawn, return_counts=True)
        assert values.tolist() == list(range(low, high + 1, step))
        assert stats.chisquare(counts).pvalue > 1e-3
    drawn = np.array([t.suggest_int("g", 1, 3, log=True) for t in trials])
    edges = np.log(np.array([0.5, 1.5, 2.5, 3.5]))
    expected = np.diff(edges) / (edges[-1] - edges[0]) * 4000
    assert stats.chisquare(np.bincount(drawn)[1:], expected).pvalue > 1e-3
    stepped = {round(t.suggest_float("f", 0, 0.3, step=0.1), 9) for t in trials[:200]}
    assert stepped == {0, 0.1, 0.2, 0.3}
    assert trials[0].suggest_float("x", -1, 3) == trials[0].params["x"]  # asked again


def test_the_curve_the_table_and_what_is_not_a_number():
    values = iter([0.2, math.nan, 0.5, 0.4])
    seen = []
    found = tune(lambda trial: next(values), n_trials=4, callback=seen.append)
    assert found.curve() == [0.2, 0.2, 0.5, 0.5]
    assert found.best.number == 2 and seen == found.trials
    assert "2 *" in repr(found)


def test_an_objective_of_a_ranking_is_the_evaluation():
    part = split()

    def make_model(trial):
        return recfuse.ItemNeighbours(k=trial.suggest_int("k", 1, 20))

    for metric in ("recall@7", "auc"):
        found = tune(ranking_objective(make_model, part, metric=metric), n_trials=2)
        model = recfuse.ItemNeighbours(k=found.best_params["k"]).fit(part.train)
        expected = evaluate(model, part.train, part.test, k=7, auc=True)[metric]
        assert found.best_value == expected


def test_optuna_takes_the_same_objective():
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize")
    study.optimize(objective, n_trials=5)
    assert set(study.best_params) == {"x", "n", "kind"}


def test_every_metric_of_an_evaluation_can_be_searched_by():
    part = split()
    model = recfuse.Popularity().fit(part.train)
    for metric, mean in evaluate(model, part.train, part.test, k=5, auc=True).means.items():
        found = ranking_objective(lambda trial: recfuse.Popularity(), part, metric=metric)(None)
        assert found == mean


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: tune(3), TypeError, "tune: objective must be callable; got int"),
        (lambda: tune(objective, n_trials=0), ValueError, "tune: n_trials must be at least 1"),
        (lambda: tune(objective, grid={}), ValueError, "tune: grid must have values for every"),
        (lambda: tune(objective, grid={"x": []}), ValueError, "tune: grid must have values for"),
        (lambda: tune(objective, direction="up"), ValueError, "tune: direction must be 'maximize'"),
        (lambda: tune(lambda t: "a"), TypeError, "tune: objective must return a number; got str"),
        (
            lambda: tune(lambda t: t.suggest_float("x", 2, 1)),
            ValueError,
            "Trial: 'x' must have low <= high",
        ),
        (
            lambda: tune(lambda t: t.suggest_float("x", 0, 1, log=True)),
            ValueError,
            "Trial: 'x' must have low > 0 and no step with log",
        ),
        (
            lambda: tune(lambda t: t.suggest_int("x", 0, 4, step=0)),
            ValueError,
            "Trial: 'x' must have a step above 0",
        ),
        (
            lambda: tune(lambda t: t.suggest_categorical("x", [])),
            ValueError,
            "Trial: choices of 'x' must not be empty",
        ),
        (lambda: ranking_objective(1, split()), TypeError, "ranking_objective: make_model must be"),
        (lambda: ranking_objective(Slow, 1), TypeError, "ranking_objective: split must be a Split"),
        (
            lambda: ranking_objective(Slow, split(), metric="ndcg"),
            ValueError,
            "ranking_objective: metric must be 'auc' or like 'ndcg@20'; got 'ndcg'",
        ),
        (
            lambda: ranking_objective(Slow, split(), metric="ndgc@20"),
            ValueError,
            "ranking_objective: metric must be one of .*'ndcg@k'.*; got 'ndgc@20'",
        ),
    ],
)
def test_wrong_searches(call, error, message):
    with pytest.raises(error, match=f"^{message}"):
        call()
