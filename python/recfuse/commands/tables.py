"""The commands on tables of events: fit, recommend, evaluate."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from recfuse._base import Estimator
from recfuse.evaluation import Split, compare, random_split, time_split, user_time_split
from recfuse.fusion import MultimodalRecommender
from recfuse.interactions import Interactions
from recfuse.models import (
    AlternatingLeastSquares,
    ItemNeighbours,
    LabelledModel,
    Popularity,
    UserNeighbours,
)
from recfuse.persistence import load
from recfuse.preprocess import read_table

__all__ = ["evaluate", "fit", "new_model", "read_interactions", "recommend"]


def new_model(name: str, *, factors: int, neighbours: int, seed: int, num_threads: int) -> Any:
    """Return an unfitted model by its name on the command line."""
    als = AlternatingLeastSquares(factors, random_state=seed, num_threads=num_threads)
    items = ItemNeighbours(neighbours, num_threads=num_threads)
    if name == "multimodal":
        return MultimodalRecommender(
            {"als": als, "neighbours": items}, random_state=seed, num_threads=num_threads
        )
    return {
        "als": als,
        "item-neighbours": items,
        "user-neighbours": UserNeighbours(neighbours, num_threads=num_threads),
        "popularity": Popularity(num_threads=num_threads),
    }[name]


def read_interactions(
    path: Path,
    *,
    user: str,
    item: str,
    value: str | None = None,
    time: str | None = None,
    at_least: float | None = None,
) -> Interactions:
    """Read events from a CSV or Parquet file, by the names of its columns.

    Raises
    ------
    ImportError
        If pandas is missing; it names the extra.
    ValueError
        If the file is of another kind or a column is missing.
    """
    frame = read_table(path)
    events = Interactions.from_frame(frame, user=user, item=item, value=value, timestamp=time)
    return events if at_least is None else events.at_least(at_least).compact()


def fit(
    interactions: Interactions,
    model: Any,
    output: Path,
    *,
    vectors: dict[str, Path],
    show_progress: bool,
) -> LabelledModel:
    """Fit a model and write it to a file, with the ids of users and items.

    `vectors` names modalities and .npy files of shape (n_items, dim), rows in the order in which
    the items first appear in the events.
    """
    options: dict[str, Any] = {"show_progress": show_progress}
    if vectors:
        if not isinstance(model, MultimodalRecommender):
            raise ValueError(f"vectors need the model 'multimodal'; got {type(model).__name__}")
        options["items"] = {name: np.load(path, mmap_mode="r") for name, path in vectors.items()}
    fitted = LabelledModel(model).fit(interactions, **options)
    fitted.save(output)
    return fitted


def recommend(path: Path, users: Sequence[str] | None, k: int, *, form: str) -> None:
    """Write the lists of `users` (all for None) of a model file as CSV or JSON lines."""
    model = load(path)
    if isinstance(model, Estimator):
        model = model._recommender()
    if not isinstance(model, LabelledModel):
        raise ValueError(f"model must be a file of 'recfuse fit'; got a {type(model).__name__}")
    known = model.users_.tolist()
    wanted = known if users is None else _as_labels(users, model.users_)
    lists = zip(wanted, *model.recommend(wanted, k), strict=True)
    rows = (
        (user, rank, item, float(score))
        for user, items, scores in lists
        for rank, (item, score) in enumerate(zip(items, scores, strict=True), start=1)
        if item is not None
    )
    _write_rows(rows, form, sys.stdout)


def _as_labels(users: Iterable[str], known: np.ndarray[Any, Any]) -> list[Any]:
    """Turn the words of the command line into ids of the kind that the model has."""
    if known.dtype.kind not in "iu":
        return list(users)
    try:
        return [int(user) for user in users]
    except ValueError as error:
        raise ValueError(f"users must be integers like those of the model; {error}") from error


def _write_rows(rows: Iterable[tuple[Any, int, Any, float]], form: str, out: TextIO) -> None:
    columns = ("user", "rank", "item", "score")
    if form == "csv":
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
    else:
        for row in rows:
            out.write(json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False) + "\n")


def evaluate(
    interactions: Interactions,
    models: dict[str, Any],
    *,
    split: str,
    share: float,
    k: int,
    seed: int,
    show_progress: bool,
) -> str:
    """Fit models on one part of the events, and return the table of how they find the other."""
    parts = split_by_name(interactions, split, share, seed)
    for model in models.values():
        model.fit(parts.train, show_progress=show_progress)
    return str(compare(models, parts, k=k))


def split_by_name(interactions: Interactions, name: str, share: float, seed: int) -> Split:
    """Return the split that the command line names."""
    if name == "time":
        return time_split(interactions, share)
    if name == "user-time":
        return user_time_split(interactions, test_fraction=share)
    return random_split(interactions, share, random_state=seed)
