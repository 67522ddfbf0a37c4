"""MovieLens (small, 100k): the next films of everybody, of newcomers, and films without a past."""

from __future__ import annotations

import csv
import gzip
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from contenders import contenders
from newcomers import People, Variant, newcomers
from search import Budget, Notes, OutOfTime, search
from study import (
    FUSION,
    METRICS,
    K,
    Parts,
    difference,
    fused,
    interval,
    judge,
    rows,
    tune_all,
)

import recfuse
from recfuse.evaluation import RankingMetrics, Trial, cold_items, evaluate, user_time_split
from recfuse.features import AttributeEncoder
from recfuse.fusion import similar_profiles
from recfuse.interactions import Interactions

__all__ = ["run"]

LIKED = 4.0
EVERYTHING = "ALS + neighbours + content, fused"
BUDGET = Budget()
FIRST, KNOWN = 10, (0, 1, 5, 10)
POSTER_DIMS = 128


@dataclass(frozen=True)
class Films:
    """Ratings, what is known of films, and of people (where it is)."""

    events: Interactions
    content: dict[str, Any]
    profiles: Any


def run(
    folder: Path,
    notes: Notes,
    tuned: dict[str, Any] | None,
    *,
    name: str,
    partial: bool = False,
) -> dict[str, Any]:
    """Tune where nothing is tuned yet, and look at the tests."""
    films = _small(folder) if name == "movielens-small" else _hundred_thousand(folder)
    outer = user_time_split(films.events, test_fraction=0.2)
    inner = user_time_split(outer.train, test_fraction=0.2)
    parts = Parts(
        strength(inner.train), liked(inner.test), strength(outer.train), liked(outer.test)
    )
    field = contenders(sizes=(16, 32, 64), dense=True)
    chosen = (tuned or {}).get("everybody") or tune_all(
        field, parts, notes, budget=BUDGET, graded=True
    )
    results, weights = {}, {}
    for title, content in ((FUSION, {}), (EVERYTHING, films.content)):
        results[title], weights[title] = fused(title, field, chosen, parts, notes, content)
    results |= judge(field, chosen, parts, notes)
    found_cold = (tuned or {}).get("cold items")
    cold = _cold(films, chosen, notes, found_cold)
    found = {
        "split": f"{outer.name}; relevant: {LIKED:g} stars or more",
        "sizes": {
            "users": films.events.n_users,
            "items": films.events.n_items,
            "events": len(films.events),
            **{m: int(np.any(x, axis=1).sum()) for m, x in films.content.items()},
        },
        "budget": BUDGET.trials,
        "tuned": {"everybody": chosen, "cold items": cold["tuned"]},
        "fusion": weights,
        "results": rows(results, against=EVERYTHING),
        "cold items": cold["results"],
    }
    ready = (tuned or {}).get("newcomers")
    if tuned is not None and ready is None:
        return found  # those results were written before newcomers were tuned
    try:
        fresh = newcomers(_people(films, chosen), _variants(films), notes, ready)
        found["tuned"]["newcomers"], found["newcomers"] = fresh["tuned"], fresh["results"]
    except OutOfTime:
        if not partial:
            raise
    return found


def strength(events: Interactions) -> sp.csr_array:
    """Return 2 ** (stars - 4): a star more counts double."""
    matrix = events.to_csr()
    matrix.data = np.exp2(matrix.data - LIKED)
    return matrix


def liked(events: Interactions) -> sp.csr_array:
    """Return what got 4 stars or more."""
    return events.at_least(LIKED).to_csr()


def _variants(films: Films) -> dict[str, Variant]:
    content = tuple(films.content)
    found = {"behaviour": Variant(), "+ text": Variant(("text",)), "+ content": Variant(content)}
    if films.profiles is not None:
        del found["+ text"]
        found["+ profile"] = Variant((), ("profile",))
        found["+ content and profile"] = Variant(content, ("profile",))
    return found


def _people(films: Films, chosen: dict[str, Any]) -> People:
    """Return everybody as a newcomer: known by their first films, asked for those after ten."""
    events = films.events
    order = np.lexsort((np.arange(len(events)), events.timestamps, events.user_index))
    counts = np.bincount(events.user_index, minlength=events.n_users)
    rank = np.empty(len(events), np.int64)
    rank[order] = np.arange(len(events)) - np.repeat(np.cumsum(counts) - counts, counts)

    # Of somebody without films or profile, every variant knows nothing.
    known = KNOWN if films.profiles is not None else KNOWN[1:]

    def sources(users: Any, warm: Any) -> dict[str, sp.csr_array]:
        if films.profiles is None:
            return {}
        return {"profile": similar_profiles(films.profiles[users], films.profiles[warm], 50)}

    return People(
        history=strength(events),
        known={n: strength(events.select(rank < n)) for n in known},
        hidden=strength(events.select(rank < FIRST)),
        truth=liked(events.select(rank >= FIRST)),
        content=lambda warm: films.content,
        sources=sources,
        als=als_of_newcomers(chosen),
        neighbours=_without_values(chosen["recfuse: item neighbours"]),
    )


def als_of_newcomers(chosen: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    """Return what newcomers choose among: the tuned ALS, and with fewer factors."""
    tuned = _without_values(chosen["recfuse: ALS"]) | {"frequency_scaling": 1}
    return tuned, tuned | {"factors": 8}


def _without_values(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found["params"].items() if name != "values"}


def _cold(
    films: Films, chosen: dict[str, Any], notes: Notes, tuned: dict[str, Any] | None
) -> dict[str, Any]:
    """Rank films that nobody had among each other, for people who liked some of them."""
    outer = cold_items(films.events, 0.2, random_state=0)
    now = _ColdFilms(films, chosen, outer)
    before = _ColdFilms(films, chosen, cold_items(outer.train, 0.2, random_state=1))
    content = tuple(films.content)
    variants = {m: (m,) for m in content}
    variants |= {"all content": content, "ALS by content": ("als",), "both": ("als", *content)}
    params: dict[str, Any] = {} if tuned is None else tuned
    results = {"behaviour (chance)": notes.result("cold chance", {}, now.chance)}
    for name, names in variants.items():

        def suggest(trial: Trial, names: tuple[str, ...] = names) -> dict[str, Any]:
            trial.suggest_categorical("map", [0.5, 2.0, 10.0])
            for m in names:
                trial.suggest_float(m, 0, 1)
            return trial.params

        def objective(found: dict[str, Any], names: tuple[str, ...] = names) -> float:
            return before.metrics(names, found)["ndcg@20"]

        def compute(name: str = name, names: tuple[str, ...] = names) -> RankingMetrics:
            return now.metrics(names, params[name])

        if tuned is None:
            tried = search(f"cold {name}", suggest, objective, notes, budget=BUDGET)
            params[name] = tried["params"]
        results[name] = notes.result(f"cold {name}", params[name], compute)
    first = results["behaviour (chance)"]
    found = {
        name: {m: interval(result, m) for m in METRICS}
        | {"n_users": result.n_users, "n_items": len(now.cold)}
        | {"gain": {m: difference(result, first, m) for m in METRICS}}
        for name, result in results.items()
    }
    return {"tuned": params, "results": found}


class _ColdFilms:
    def __init__(self, films: Films, chosen: dict[str, Any], split: Any) -> None:
        self.train, self.truth = strength(split.train), liked(split.test)
        self.cold = np.unique(split.test.item_index)
        self.films, self.models = films, {}
        self.als = als_of_newcomers(chosen)[0]

    def metrics(self, names: tuple[str, ...], params: dict[str, Any]) -> RankingMetrics:
        model = self._model(params["map"])
        weights = {m: params[m] + 1e-9 for m in names}

        def recommend(users: Any, k: int, *, user_items: Any) -> Any:
            return model.recommend(users, k, allow=self.cold, weights=weights)

        return evaluate(recommend, self.train, self.truth, k=K)

    def chance(self) -> RankingMetrics:
        rng = np.random.default_rng(0)

        def recommend(users: Any, k: int, *, user_items: Any) -> Any:
            ids = np.stack([rng.permutation(self.cold)[:k] for _ in users])
            return ids, np.zeros(ids.shape, np.float32)

        return evaluate(recommend, self.train, self.truth, k=K)

    def _model(self, strength_of_map: float) -> Any:
        if strength_of_map not in self.models:
            behaviour = {"als": recfuse.AlternatingLeastSquares(random_state=0, **self.als)}
            model = recfuse.MultimodalRecommender(
                behaviour,
                weights=dict.fromkeys(["als", *self.films.content], 1.0),
                cold_items=strength_of_map,
            )
            self.models[strength_of_map] = model.fit(self.train, self.films.content)
        return self.models[strength_of_map]


def _small(folder: Path) -> Films:
    table = _csv(folder / "movielens-latest-small" / "ratings.csv.gz")
    columns = list(zip(*table, strict=True))
    events = Interactions.from_arrays(
        np.array(columns[0], np.int64),
        np.array(columns[1], np.int64),
        np.array(columns[2], np.float32),
        np.array(columns[3], np.int64),
    )
    movies = {int(row[0]): row for row in _csv(folder / "movielens-latest-small/movies.csv.gz")}
    listed = [movies[int(i)] for i in events.items]
    attributes = {
        "genres": [row[2].split("|") for row in listed],
        "decade": [_year(row[1])[:3] or None for row in listed],
    }
    encoded = AttributeEncoder(list(attributes), min_count=2).fit_transform(attributes)
    return Films(events, _features(folder, events.items) | {"attributes": encoded}, None)


def _hundred_thousand(folder: Path) -> Films:
    from recfuse.datasets import movielens_100k

    data = movielens_100k()
    films = data.items
    small = {
        _key(row[1].rpartition(" (")[0], _year(row[1])): int(row[0])
        for row in _csv(folder / "movielens-latest-small" / "movies.csv.gz")
    }
    titles = zip(films.title, films.year.tolist(), strict=True)
    ids = np.array([small.get(_key(title, str(year)), -1) for title, year in titles])
    attributes = {
        "genres": list(films.genres),
        "director": list(films.director),
        "cast": list(films.cast),
        "country": list(films.country),
        "decade": [str(year)[:3] if year else None for year in films.year.tolist()],
    }
    encoder = AttributeEncoder(list(attributes), dim=64, min_count=2)
    content = _features(folder, ids) | {"attributes": encoder.fit_transform(attributes)}
    who = {
        "age": data.users.age.tolist(),
        "gender": list(data.users.gender),
        "occupation": list(data.users.occupation),
    }
    kinds: Any = {"age": "numeric", "gender": "categorical", "occupation": "categorical"}
    return Films(data.interactions, content, AttributeEncoder(kinds).fit_transform(who))


def _features(folder: Path, ids: Any) -> dict[str, Any]:
    """Return text and poster of films by their ids; zeros where there is none."""
    found = {}
    for modality, file in (("text", "text_minilm"), ("poster", "poster_mobilenetv2")):
        with np.load(folder / "movielens-content-features" / f"{file}.npz") as data:
            row = {int(i): n for n, i in enumerate(data["movie_id"])}
            vectors = data["embedding"].astype(np.float32)
        if modality == "poster":
            vectors = _principal(vectors)
        at = np.array([row.get(int(i), -1) for i in ids])
        found[modality] = np.where((at >= 0)[:, None], vectors[at], 0)
    return found


def _principal(vectors: Any) -> Any:
    """Return the leading principal components."""
    centred = vectors - vectors.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    return centred @ axes[:, -POSTER_DIMS:]


def _csv(path: Path) -> list[list[str]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
        return list(csv.reader(lines))[1:]


def _year(title: str) -> str:
    found = re.search(r"\((\d{4})\)\s*$", title)
    return found[1] if found else ""


def _key(title: str, year: str) -> str:
    """Return words in alphabetical order and year: "Piano, The" is "The Piano"."""
    return " ".join([*sorted(re.findall(r"[a-z0-9]+", title.lower())), year])
