"""Models of behaviour, with and without content: tuned on the validation, then tested."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

import recfuse
from choices.data import Data, Vectors
from recfuse.evaluation import Split, compare, evaluate, rmse, user_time_split
from recfuse.rerank import mmr

K = 20
Factory = Callable[[], Any]


def als(factors: int, regularization: float, **options: Any) -> recfuse.AlternatingLeastSquares:
    return recfuse.AlternatingLeastSquares(
        factors, regularization=regularization, random_state=0, **options
    )


def _grids() -> dict[str, list[tuple[str, Factory]]]:
    """Return by kind of model what is tried, and how to say it."""
    neighbours = list(product((20, 50, 200), (None, "tfidf", "bm25")))
    return {
        "Popularity": [("", recfuse.Popularity)],
        "ItemNeighbours": [
            (f"k={k}, weighting={w!r}", lambda k=k, w=w: recfuse.ItemNeighbours(k, weighting=w))
            for k, w in neighbours
        ],
        "UserNeighbours": [
            (f"k={k}, weighting={w!r}", lambda k=k, w=w: recfuse.UserNeighbours(k, weighting=w))
            for k, w in neighbours
        ],
        "ALS, implicit": [
            (f"factors={f}, regularization={r}", lambda f=f, r=r: als(f, r))
            for f, r in product((16, 32, 64, 128), (3, 10, 30, 100))
        ],
    }


def quality(model: Any, split: Split) -> float:
    return float(evaluate(model, split.train, split.test, k=K)[f"ndcg@{K}"])


def best(candidates: list[tuple[str, Factory]], split: Split) -> tuple[str, Factory]:
    if len(candidates) == 1:
        return candidates[0]
    return max(candidates, key=lambda c: quality(c[1]().fit(split.train), split))


def tuned(data: Data) -> dict[str, tuple[str, Factory]]:
    return {kind: best(grid, data.validation) for kind, grid in _grids().items()}


def measured(data: Data, chosen: dict[str, tuple[str, Factory]]) -> list[dict[str, Any]]:
    """Fit every tuned model on training and validation, and measure it on the test."""
    make = {kind: factory for kind, (_, factory) in chosen.items()}
    models = {kind: factory() for kind, factory in make.items()}

    def behaviour() -> dict[str, Any]:
        return {"als": make["ALS, implicit"](), "neighbours": make["ItemNeighbours"]()}

    models["both, fused"] = FittedOnValidation(data, behaviour(), {})
    models["both and content, fused"] = FittedOnValidation(data, behaviour(), data.content)
    table = compare(models, data.split, k=K, fit=True, costs=True)
    rows = []
    for name in models:
        result, costs = table.results[name], table.costs[name]
        rows.append(
            {
                "model": name,
                "chosen": chosen[name][0] if name in chosen else "",
                "ndcg": result.means[f"ndcg@{K}"],
                "coverage": result.means[f"coverage@{K}"],
                "fit_seconds": costs.fit_seconds,
                "milliseconds": 1e3 * costs.latency_p50,
                "bytes": file_bytes(models[name]),
            }
        )
    return rows


class FittedOnValidation:
    """A hybrid whose weights are chosen on the validation, by time where the data have times."""

    def __init__(self, data: Data, behaviour: dict[str, Any], items: Vectors) -> None:
        self._data, self._items = data, items
        self._model = recfuse.MultimodalRecommender(behaviour)
        self.recommend, self.save = self._model.recommend, self._model.save

    def fit(self, train: Any) -> FittedOnValidation:
        """Fit on the training part; `train`, which has the validation inside, is not looked at."""
        inner = self._data.validation
        self._model.fit(inner.train, self._items, validation=inner.test)
        return self


def file_bytes(model: Any) -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.recfuse")
        model.save(path)
        return path.stat().st_size


def explicit(data: Data) -> list[dict[str, Any]]:
    """Compare the objectives of ALS on stars: the error of ratings, the ranking of likes."""
    if data.ratings is None:
        return []
    train, test = data.ratings.train, data.ratings.test
    stars: dict[str, Any] = {"objective": "explicit"}
    best = _best_for_stars(user_time_split(train, test_fraction=0.2), biases=True, **stars)
    chosen = {
        "ALS, explicit, as it comes": als(64, 0.01, **stars),
        "the same, biases": als(64, 0.01, biases=True, **stars),
        f"the same, biases, regularization={best:g}": als(64, best, biases=True, **stars),
        "the same, biases, frequency_scaling=1, regularization=0.1": als(
            64, 0.1, biases=True, frequency_scaling=1, **stars
        ),
        "ALS, implicit": als(64, 30.0),
    }
    rows = []
    for name, model in chosen.items():
        is_explicit = model.objective == "explicit"
        model.fit(train if is_explicit else data.split.train)
        predicted = model.predict(test.user_index, test.item_index)
        rows.append(
            {
                "model": name,
                "rmse": rmse(predicted, test.values) if is_explicit else None,
                "ndcg": quality(model, data.split),
            }
        )
    mean = np.full(len(test), train.values.mean())
    rows.append({"model": "the mean of all ratings", "rmse": rmse(mean, test.values), "ndcg": None})
    return rows


def _best_for_stars(validation: Split, **options: Any) -> float:
    """Return the regularization with the least error on the validation."""

    def error(regularization: float) -> float:
        model = als(64, regularization, **options).fit(validation.train)
        asked = validation.test
        return rmse(model.predict(asked.user_index, asked.item_index), asked.values)

    return min((1.0, 2.0, 5.0, 10.0, 20.0, 50.0), key=error)


def diversity(data: Data, chosen: dict[str, tuple[str, Factory]]) -> list[dict[str, Any]]:
    """Measure what unlike lists cost: ALS with MMR at several trade-offs."""
    name, vectors = next(iter(data.content.items()))
    model = chosen["ALS, implicit"][1]().fit(data.split.train)
    rows = []
    for trade_off in (1.0, 0.9, 0.7, 0.5, 0.3):

        def ask(users: Any, k: int, *, user_items: Any, trade_off: float = trade_off) -> Any:
            lists = model.recommend(users, 100, user_items=user_items)
            return mmr(*lists, vectors, k, trade_off=trade_off)

        got = evaluate(ask, data.split.train, data.split.test, k=K, item_vectors=vectors)
        values = {of: float(got[f"{of}@{K}"]) for of in ("ndcg", "diversity", "coverage")}
        rows.append({"trade_off": trade_off, "by": name, **values})
    return rows
