"""Films by what people rated, and by title, poster, genres and year: from files to lists.

MovieLens (small), as far as it lies in RECFUSE_DATA; else MovieLens 100k, fetched by pip, without
posters. Needs recfuse[frames] for the files, recfuse[onnx] for texts that are not encoded yet.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import shared
from shared import BEHAVIOUR, EVERYTHING

import recfuse
from recfuse import Interactions, datasets, features
from recfuse.evaluation import (
    Comparison,
    Split,
    compare,
    evaluate,
    ranking_objective,
    tune,
    user_time_split,
)
from recfuse.preprocess import Cleaner, Report, check, read_table

K = 20
METRIC = f"ndcg@{K}"
SAID = {"helps": "adds", "harms": "takes away", "chance": "adds no more than chance"}
LIKED = 1.0  # the strength of four stars
FEW = 30  # ratings of a person
RARE = 5  # ratings of a film
Vectors = dict[str, np.ndarray]


@dataclass(frozen=True)
class Films:
    """Ratings, and what is known of the films; row = position in ``ratings.items``."""

    name: str
    ratings: Interactions
    titles: list[str]
    content: Vectors


def load(small: bool) -> Films:
    folder = shared.find_data("movielens-latest-small")
    films = _hundred_thousand() if folder is None else _latest(folder)
    if small:
        films = _of_few(films)
    if "poster" in films.content:
        films.content["poster"] = _narrow(films.content["poster"])
    return films


def _of_few(films: Films, n_people: int = 80) -> Films:
    few = films.ratings.select(films.ratings.user_index < n_people).compact()
    rows = films.ratings.item_ids(few.items)
    return Films(
        f"{films.name}, {n_people} people of them",
        few,
        [films.titles[row] for row in rows],
        {name: vectors[rows] for name, vectors in films.content.items()},
    )


def _latest(folder: Path) -> Films:
    movies = read_table(folder / "movies.csv.gz")
    table = read_table(folder / "ratings.csv.gz")
    roles = {"user": "userId", "item": "movieId", "value": "rating", "timestamp": "timestamp"}
    ratings = Interactions.from_frame(table, **roles, item_labels=movies["movieId"])
    titles = movies["title"].tolist()
    years = [int(y[1]) if (y := re.search(r"\((\d{4})\)", title)) else None for title in titles]
    content = {"attributes": _attributes(movies["genres"].tolist(), years)}
    encoded = shared.find_data("movielens-content-features")
    if encoded is not None:
        for name, file in (("text", "text_minilm.npz"), ("poster", "poster_mobilenetv2.npz")):
            with np.load(encoded / file) as arrays:
                content[name] = _aligned(ratings, arrays["movie_id"], arrays["embedding"])
    return Films("MovieLens (small, 2016)", ratings, titles, content)


def _aligned(ratings: Interactions, ids: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Return a row per film of the ratings; zeros, which count as missing, where there is none."""
    known = np.isin(ids, ratings.items.astype(np.int64))
    rows = np.zeros((ratings.n_items, vectors.shape[1]), np.float32)
    rows[ratings.item_ids(ids[known])] = vectors[known]
    return rows


def _narrow(vectors: np.ndarray, dim: int = 64) -> np.ndarray:
    """Return the principal components: 1,280 columns for 3,160 posters are mostly noise."""
    from sklearn.decomposition import PCA

    here = vectors.any(axis=1)
    narrow = np.zeros((len(vectors), dim), np.float32)
    narrow[here] = PCA(dim, random_state=0).fit_transform(vectors[here])
    return narrow


def _hundred_thousand() -> Films:
    data = datasets.movielens_100k()
    films, files = data.items, datasets.minilm()
    years = [int(year) or None for year in films.year]
    content = {
        "attributes": _attributes(list(films.genres), years),
        "text": features.minilm(files.model, files.tokenizer).encode(films.sentences(n_cast=3)),
    }
    titles = [f"{title} ({year})" for title, year in zip(films.title, films.year, strict=True)]
    return Films("MovieLens 100k", data.interactions, titles, content)


def _attributes(genres: list[Any], years: list[int | None]) -> np.ndarray:
    encoder = features.AttributeEncoder(
        {"genres": "categorical", "year": "numeric"}, separator="|", weights={"year": 0.5}
    )
    return encoder.fit_transform({"genres": genres, "year": years})


def clean(films: Films) -> Films:
    report = Report()
    ratings = Cleaner(minimum=0.5, duplicates="last").transform(films.ratings, report=report)
    print(report)
    found = check(ratings, films.content)
    assert found.ok, found
    for finding in found.findings:
        if finding.check.endswith("covered"):
            print(f"   {finding.subject}: {finding.count:,} of {finding.of:,} {finding.check}")
    # A star more says twice as much of a taste: strengths of 1/11 to 2.
    strengths = np.exp2(ratings.values - 4)
    return replace(films, ratings=replace(ratings, values=strengths))


def split(events: Interactions) -> shared.Protocol:
    established, newcomers = shared.newcomers(events)
    outer = user_time_split(established, test_fraction=0.2)
    inner = user_time_split(outer.train, test_fraction=0.2)
    return shared.Protocol(
        train=inner.train,
        validation=inner.test.at_least(LIKED),
        test=replace(outer, test=outer.test.at_least(LIKED)),
        newcomers=replace(newcomers, test=newcomers.test.at_least(LIKED)),
    )


MODELS = {
    "als": (
        lambda **parameters: recfuse.AlternatingLeastSquares(
            64, iterations=10, random_state=0, **parameters
        ),
        {"regularization": [10.0, 30.0], "alpha": [3.0, 10.0]},
    ),
    "neighbours": (recfuse.ItemNeighbours, {"k": [20, 50], "weighting": [None, "bm25"]}),
}


def choose_behaviour(protocol: shared.Protocol) -> dict[str, Any]:
    """Return the behaviour models that rank best what people liked next."""
    part = Split(protocol.train, protocol.validation, "validation")
    chosen = {}
    for name, (make, grid) in MODELS.items():

        def candidate(trial: Any, make: Any = make, grid: Any = grid) -> Any:
            return make(**{key: trial.suggest_categorical(key, grid[key]) for key in grid})

        found = tune(ranking_objective(candidate, part, metric=METRIC), grid=grid)
        chosen[name] = make(**found.best_params)
        print(f"   {name}: {found.best_params}, {METRIC} {found.best_value:.4f}")
    return chosen


def choose_cold(protocol: shared.Protocol, behaviour: Mapping[str, Any], content: Vectors) -> float:
    """Return after how many ratings a film is to be half what was learned of it, half its content.

    A ridge map from content to factors gives films a place beside the others before anybody has
    rated them. Judged on the films of the validation part that have few ratings.
    """
    ratings = np.bincount(protocol.train.item_index, minlength=protocol.train.n_items)
    scarce = np.flatnonzero((ratings > 0) & (ratings < RARE))
    part = shared.only_among(Split(protocol.train, protocol.validation, "validation"), scarce)
    weights, worth = dict.fromkeys(behaviour, 0.5), {}
    for c in (0.2, 1.0, 5.0):
        model = recfuse.MultimodalRecommender(
            copy.deepcopy(behaviour), weights=weights, cold_items=c
        )
        model.fit(protocol.train, content)
        among = partial(model.recommend, allow=scarce)
        worth[c] = evaluate(among, part.train, part.test, k=K)[METRIC]
    print("   " + ", ".join(f"after {c} ratings {value:.4f}" for c, value in worth.items()))
    return max(worth, key=worth.__getitem__)


def explain(
    films: Films, protocol: shared.Protocol, model: recfuse.MultimodalRecommender
) -> dict[str, recfuse.Explanation]:
    """Print the list of the person in the middle, and why; return the explanations by title."""
    history = protocol.test.train
    sizes = np.bincount(history.user_index, minlength=history.n_users)
    people = np.unique(protocol.test.test.user_index)
    person = int(people[np.argsort(sizes[people], kind="stable")[len(people) // 2]])
    theirs = history.select(history.user_index == person)
    best = theirs.item_index[np.argsort(-theirs.values, kind="stable")[:4]]
    print(f"   person {history.users[person]}, {len(theirs)} ratings, liked")
    print("   " + "; ".join(films.titles[film] for film in best))
    seen = history.to_csr()[[person]]
    ids, _ = model.recommend([person], k=6, user_items=seen)
    reasons = {films.titles[film]: model.explain(person, film) for film in ids[0].tolist()}
    for title in list(reasons)[:2]:
        print("\n" + shared.explained(title, reasons[title], films.titles))
    return reasons


def reason(protocol: shared.Protocol, groups: Mapping[str, Comparison]) -> str:
    """Say from the numbers why content helps where it does."""
    train, found = protocol.test.train, shared.gains(groups, BEHAVIOUR, METRIC)
    known, unknown = found["all people"][EVERYTHING], found["new films"][EVERYTHING]
    per_person = np.bincount(train.user_index, minlength=train.n_users)
    n_new = train.n_items - len(np.unique(train.item_index))
    return (
        f"Why: half of the people have {np.median(per_person[per_person > 0]):.0f} ratings or "
        f"more, which say most of what they like: content {SAID[shared.verdict(known)]} "
        f"({known.mean:+.4f}). Of {n_new:,} films nobody has said anything, so content is all "
        f"that is known of them: it {SAID[shared.verdict(unknown)]} ({unknown.mean:+.4f})."
    )


def main(arguments: list[str] | None = None) -> dict[str, Comparison]:
    options = shared.options(__doc__.splitlines()[0]).parse_args(arguments)
    steps = shared.Steps()
    steps("Load events and films")
    films = load(options.small)
    print(f"   {films.name}: {films.ratings}; " + ", ".join(films.content))
    steps("Clean, and see what there is")
    films = clean(films)
    steps("Split by time")
    protocol = split(films.ratings)
    print(f"   {protocol.test}\n   {protocol.newcomers}")
    steps("Choose the models of behaviour on the validation part")
    behaviour = choose_behaviour(protocol)
    steps("Choose when a film is half what people did with it, half its content")
    cold_items = choose_cold(protocol, behaviour, films.content)
    steps("Fuse behaviour with each modality, weights fitted on the validation part")
    models = shared.fuse_each(protocol, behaviour, films.content, k=K, cold_items=cold_items)
    steps("Test every modality alone, all together, and lists that are not all alike")
    kinds = films.content["attributes"]
    contenders = shared.alone(models[EVERYTHING])
    contenders["fused, diversity 0.3"] = partial(models[EVERYTHING].recommend, diversity=0.3)
    table = compare(contenders, protocol.test, k=K, item_vectors=kinds)
    print(table.to_text(["recall", "ndcg", "coverage", "diversity"]))
    steps("Explain a list")
    reasons = explain(films, protocol, models[EVERYTHING])
    if options.plot:
        recfuse.plots.contribution_bars(reasons).savefig(options.plot)
    steps("What is each modality worth, and to whom?")
    groups = shared.by_group(
        models, protocol, k=K, few=FEW, rare=RARE, item="films", event="ratings"
    )
    print(shared.gain_table(groups, BEHAVIOUR, METRIC))
    print(shared.in_words(groups, BEHAVIOUR, METRIC, combined=EVERYTHING))
    print(reason(protocol, groups))
    steps.done()
    return groups


if __name__ == "__main__":
    main()
