"""The main job, stage by stage, with the public interface only."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

import recfuse
from recfuse.datasets import minilm as minilm_files
from recfuse.demo.data import DemoData
from recfuse.demo.race import Race, enlarged, race
from recfuse.evaluation import Comparison, Split, compare, evaluate, user_time_split
from recfuse.features import AttributeEncoder, minilm

__all__ = ["K", "Recommendation", "Result", "Stages", "run_pipeline"]

K = 20
_N_SHOWN = 6
_LARGE_CATALOGUE = 20_000

# Tried on the validation slice; what wins is used.
_ALS_GRID: dict[str, tuple[Any, ...]] = {"regularization": (10.0, 30.0), "alpha": (3.0, 10.0)}
_NEIGHBOURS_GRID: dict[str, tuple[Any, ...]] = {"k": (50, 200), "weighting": (None, "bm25")}


@dataclass
class Stages:
    """Names and seconds of the stages, printed as they end."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        print(f"[{len(self.seconds) + 1}/7] {name} ...", flush=True)
        yield
        self.seconds[name] = time.perf_counter() - started
        print(f"      {self.seconds[name]:.1f} s", flush=True)


@dataclass(frozen=True)
class Recommendation:
    """One film of a list: what each modality contributed, and whether it was liked later."""

    film: str
    score: float
    parts: list[float]
    liked_later: bool


@dataclass(frozen=True)
class Person:
    """A person's favourites so far, and the list for them."""

    label: str
    favourites: list[str]
    items: list[Recommendation]


@dataclass(frozen=True)
class Result:
    """Everything that the demo prints and draws."""

    data: DemoData
    split: str
    chosen: dict[str, str]
    comparison: Comparison
    modalities: list[str]
    weights: dict[str, float]
    validation_ndcg: float
    people: list[Person]
    cold: Person
    n_cold: int
    races: list[Race]
    stages: Stages


def run_pipeline(
    data: DemoData, stages: Stages, *, num_threads: int, show_progress: bool
) -> Result:
    """Run the stages after loading."""
    with stages.stage("split by time"):
        # The last events of every person are the test; of the rest, the last are the validation.
        outer = user_time_split(data.events, test_fraction=0.2)
        inner = user_time_split(outer.train, test_fraction=0.2)
        train, validation = data.strength(inner.train), data.liked(inner.test)
    with stages.stage("encode text and attributes"):
        content = encode(data, num_threads=num_threads, show_progress=show_progress)
    with stages.stage("fit implicit ALS and item neighbours"):
        behaviour, chosen = choose_behaviour(train, validation, num_threads)
    with stages.stage("fit the fusion weights on the validation slice"):
        model = recfuse.MultimodalRecommender(behaviour, k=K, num_threads=num_threads)
        model.fit(train, content, validation=validation, show_progress=show_progress)
    seen = outer.train.to_csr()
    with stages.stage(f"recommend top-{K} to every {data.person}, seen films left out"):
        everyone = np.arange(data.events.n_users)
        lists = model.recommend(everyone, K, user_items=seen, contributions=True)
    with stages.stage("evaluate"):
        test = Split(outer.train, data.liked(outer.test), outer.name)
        comparison = compare(_contenders(model), test, k=K)
    liked_later = test.test.to_csr().toarray() > 0
    touched = np.bincount(seen.indices, minlength=seen.shape[1]) > 0
    return Result(
        data=data,
        split=outer.name,
        chosen=chosen,
        comparison=comparison,
        modalities=model.modalities_,
        weights=model.weights_,
        validation_ndcg=float(model.validation_ndcg_ or 0.0),
        people=[
            _person(data, seen, user, lists, liked_later)
            for user in _three_people(seen, liked_later)
        ],
        cold=_cold_list(data, model, seen, ~touched, liked_later),
        n_cold=int((~touched).sum()),
        races=_races(content, behaviour["als"], model.weights_, model.user_items_, num_threads),
        stages=stages,
    )


def encode(
    data: DemoData, *, num_threads: int, show_progress: bool
) -> dict[str, NDArray[np.float32]]:
    """Return the content modalities of the films: text by MiniLM, and attributes."""
    content = {}
    if data.with_text:
        files = minilm_files()
        encoder = minilm(files.model, files.tokenizer, num_threads=num_threads)
        content["text"] = encoder.encode(
            data.films.sentences(n_cast=3), show_progress=show_progress
        )
    fields = list(data.attributes)
    encoder_of_fields = AttributeEncoder(fields, dim=data.attribute_dim, min_count=2)
    content["attributes"] = encoder_of_fields.fit_transform(data.attributes)
    return content


def choose_behaviour(
    train: Any, validation: Any, num_threads: int
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the behaviour models that win on the validation slice, and their parameters."""
    models: dict[str, Any] = {}
    chosen = {}
    for name, candidates in _candidates(num_threads).items():
        scores = [
            evaluate(model.fit(train), train, validation, k=K)[f"ndcg@{K}"]
            for model, _ in candidates
        ]
        best, parameters = candidates[int(np.argmax(scores))]
        models[name] = best
        chosen[name] = ", ".join(f"{key} {value}" for key, value in parameters.items())
    return models, chosen


def _candidates(num_threads: int) -> dict[str, list[tuple[Any, dict[str, Any]]]]:
    """Return per behaviour modality the models to choose from, with what tells them apart."""

    def points(grid: dict[str, tuple[Any, ...]]) -> list[dict[str, Any]]:
        return [
            dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())
        ]

    shared: dict[str, Any] = {"num_threads": num_threads}
    als: dict[str, Any] = {"factors": 64, "iterations": 10, "random_state": 0, **shared}
    return {
        "als": [(recfuse.AlternatingLeastSquares(**als, **p), p) for p in points(_ALS_GRID)],
        "neighbours": [
            (recfuse.ItemNeighbours(**shared, **p), p) for p in points(_NEIGHBOURS_GRID)
        ],
    }


def _contenders(model: recfuse.MultimodalRecommender) -> dict[str, Any]:
    """Return every modality alone, and the fusion, as callables."""

    def with_weights(weights: dict[str, float] | None) -> Any:
        return lambda users, k, *, user_items: model.recommend(
            users, k, user_items=user_items, weights=weights
        )

    alone = {name: with_weights({name: 1.0}) for name in model.modalities_}
    popularity = {"popularity": alone.pop("popularity")}
    return {**popularity, **alone, "fusion": with_weights(None)}


def _three_people(seen: Any, liked_later: NDArray[np.bool_]) -> list[int]:
    """Return people at the quartiles of the length of the history, among those with a test."""
    sizes = np.diff(seen.indptr)
    candidates = np.flatnonzero(liked_later.any(axis=1) & (sizes > 0))
    order = candidates[np.argsort(sizes[candidates], kind="stable")]
    return [int(order[len(order) * q // 4]) for q in (1, 2, 3)]


def _person(
    data: DemoData, seen: Any, user: int, lists: Any, liked_later: NDArray[np.bool_], row: int = -1
) -> Person:
    ids, scores, parts = (a[user if row < 0 else row] for a in lists)
    begin, end = seen.indptr[user], seen.indptr[user + 1]
    best = np.argsort(-seen.data[begin:end], kind="stable")[:5]
    return Person(
        label=f"{data.person} {data.events.users[user]}",
        favourites=[data.name(int(i)) for i in seen.indices[begin:end][best]],
        items=[
            Recommendation(
                data.name(int(i)), float(s), [float(x) for x in p], bool(liked_later[user, i])
            )
            for i, s, p in zip(ids[:_N_SHOWN], scores[:_N_SHOWN], parts[:_N_SHOWN], strict=True)
            if i >= 0
        ],
    )


def _cold_list(
    data: DemoData,
    model: recfuse.MultimodalRecommender,
    seen: Any,
    cold: NDArray[np.bool_],
    liked_later: NDArray[np.bool_],
) -> Person:
    """Return a list of untouched films, for the person who liked most of such later."""
    user = int(np.argmax((liked_later & cold).sum(axis=1)))
    # Where the fit gave content no weight at all, nothing would rank what has only content.
    decided = any(model.weights_[name] for name in model.content_)
    weights = None if decided else dict.fromkeys(model.content_, 1 / len(model.content_))
    lists = model.recommend(
        [user], K, allow=np.flatnonzero(cold), weights=weights, contributions=True
    )
    return _person(data, seen, user, lists, liked_later, row=0)


def _races(
    content: dict[str, NDArray[np.float32]],
    als: recfuse.AlternatingLeastSquares,
    weights: dict[str, float],
    history: Any,
    num_threads: int,
) -> list[Race]:
    """Race NumPy in the real catalogue and in a large one, over the modalities that are vectors."""
    items = {"als": als.item_factors_, **content}
    tastes = {name: np.asarray(history @ x, np.float32) for name, x in content.items()}
    queries = {"als": als.user_factors_, **tastes}
    # Of a fusion that ignores one of them, the search would be smaller than it looks.
    used = {name: weights[name] or 0.1 for name in items}
    races = []
    for n_items in sorted({history.shape[1], max(history.shape[1], _LARGE_CATALOGUE)}):
        catalogue, seen = enlarged(items, n_items), history.copy()
        seen.resize(history.shape[0], n_items)
        generated = n_items - history.shape[1]
        races.append(
            race(queries, catalogue, used, K, seen, n_generated=generated, num_threads=num_threads)
        )
    return races
