"""Two real data sets, each cut into training, validation and test."""

from __future__ import annotations

import csv
import gzip
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

import recfuse
from recfuse.evaluation import Split, leave_k_out, user_time_split
from recfuse.features import TfidfEncoder, history_profiles

Float32 = NDArray[np.float32]
Vectors = dict[str, Float32]


@dataclass(frozen=True)
class Data:
    """What people liked, cut twice: the validation is cut from the training.

    `content` are vectors of the items, `friends` ties between people; either may be empty.
    """

    name: str
    split: Split
    validation: Split
    content: Vectors
    friends: sp.csr_array | None
    ratings: Split | None


@dataclass(frozen=True)
class Modalities:
    """Vectors of everybody and everything after one fit, for inner products."""

    queries: Vectors
    items: Vectors
    present: dict[str, NDArray[np.bool_]]
    history: sp.csr_array
    wanted: sp.csr_array


def folder() -> Path:
    return Path(os.environ.get("RECFUSE_DATA", Path(__file__).parents[3] / "shared/data"))


def unit(x: Float32) -> Float32:
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    return np.asarray(x / np.where(norms > 0, norms, 1), np.float32)


def everybody(data: Data, split: Split, als: recfuse.AlternatingLeastSquares) -> Modalities:
    """Fit on the training part and ask for what its people liked later."""
    history = split.train.to_csr()
    als.fit(history)
    people = {"als": als.user_factors_}
    if data.friends is not None:
        degree = np.maximum(np.asarray(data.friends.sum(axis=1)), 1)[:, None]
        people["friends"] = np.asarray((data.friends @ als.user_factors_) / degree, np.float32)
    return _modalities(data, als, history, history, people, split.test.to_csr())


def newcomers(
    data: Data, als: recfuse.AlternatingLeastSquares, *, part: int, known: int = 3
) -> Modalities:
    """Fit on half of the people; of another quarter, the first likes are known and the rest asked.

    `part` is the quarter: 0 to learn on, 1 to measure on.
    """
    train, test = data.split.train, data.split.test
    of_all = sp.csr_array(train.to_csr() + test.to_csr())
    people = np.random.default_rng(0).permutation(train.n_users)
    half, quarter = len(people) // 2, len(people) // 4
    users = people[half + part * quarter : half + (part + 1) * quarter]
    fitted = of_all[people[:half]]
    als.fit(fitted)
    column = np.concatenate([train.item_index, test.item_index])
    row = np.concatenate([train.user_index, test.user_index])
    times = np.concatenate([train.timestamps, test.timestamps])
    first = [column[at][np.argsort(times[at], kind="stable")[:known]] for at in _rows(row, users)]
    where = np.repeat(np.arange(len(users)), [len(items) for items in first])
    history = sp.csr_array(
        (np.ones(len(where), np.float32), (where, np.concatenate(first))),
        shape=(len(users), train.n_items),
    )
    return _modalities(data, als, fitted, history, {"als": als.fold_in(history)}, of_all[users])


def _rows(row: NDArray[np.intp], users: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    return [np.flatnonzero(row == user) for user in users]


def _modalities(
    data: Data,
    als: recfuse.AlternatingLeastSquares,
    fitted: sp.csr_array,
    history: sp.csr_array,
    people: Vectors,
    wanted: sp.csr_array,
) -> Modalities:
    """Add content, by the mean of the history, and popularity.

    An item without events has factors of 0, a score like any other; one without a poster lacks it.
    """
    profiles = history_profiles(history, data.content)
    counts = np.log1p(np.bincount(fitted.indices, minlength=fitted.shape[1]))
    items = dict.fromkeys(people, als.item_factors_) | data.content
    queries = people | {name: unit(x) for name, x in profiles.items()}
    items["popularity"] = np.asarray(counts[:, None] / counts.max(), np.float32)
    queries["popularity"] = np.ones((history.shape[0], 1), np.float32)
    present = {name: x.any(axis=1) for name, x in data.content.items() if not x.any(axis=1).all()}
    left = sp.csr_array(wanted - wanted.multiply(history > 0))
    left.eliminate_zeros()
    return Modalities(queries, items, present, history, left)


def _aligned(path: Path, films: NDArray[np.int64]) -> Float32:
    """Return rows of stored vectors by number of the film; zeros where there is none."""
    with np.load(path) as stored:
        row = {int(number): i for i, number in enumerate(stored["movie_id"])}
        vectors = stored["embedding"].astype(np.float32)
    out = np.zeros((len(films), vectors.shape[1]), np.float32)
    for i, film in enumerate(films.tolist()):
        if film in row:
            out[i] = vectors[row[film]]
    return out


def movielens() -> Data:
    """MovieLens latest-small; likes are 4 stars or more; by time, per person."""
    with gzip.open(folder() / "movielens-latest-small/ratings.csv.gz", "rt") as lines:
        columns = np.array(list(csv.reader(lines))[1:], np.float64).T
    events = recfuse.Interactions.from_arrays(
        columns[0].astype(np.int64),
        columns[1].astype(np.int64),
        columns[2],
        columns[3].astype(np.int64),
    )
    ratings = user_time_split(events, test_fraction=0.2)
    inner = user_time_split(ratings.train, test_fraction=0.2)
    films = np.asarray(events.items, np.int64)
    features = folder() / "movielens-content-features"
    poster = _aligned(features / "poster_mobilenetv2.npz", films)
    seen = poster.any(axis=1)
    poster[seen] -= poster[seen].mean(axis=0)  # what all posters have in common says nothing
    directions = np.linalg.eigh(poster.T.astype(np.float64) @ poster)[1][:, :-129:-1]
    poster = np.asarray(poster @ directions, np.float32)  # 128 of 1,280 dimensions
    content = {
        "text": unit(_aligned(features / "text_minilm.npz", films)),
        "poster": unit(poster),
    }
    return Data("MovieLens", _liked(ratings), _liked(inner), content, None, ratings)


def _liked(split: Split) -> Split:
    train, test = (
        replace(part, values=np.ones(len(part), np.float32))
        for part in (split.train.at_least(4), split.test.at_least(4))
    )
    return Split(train, test, f"{split.name}; likes are 4 stars or more")


def lastfm() -> Data:
    """last.fm 2011; what counts is the logarithm of the plays; at random: it has no times."""
    source = folder() / "lastfm-hetrec2011"
    with np.load(source / "lastfm.npz") as stored:
        columns = {name: stored[name] for name in stored.files}
    plays = np.log1p(columns["listen_count"])
    events = recfuse.Interactions.from_arrays(
        columns["listen_user"], columns["listen_artist"], plays
    )
    split = leave_k_out(events, 10, random_state=0)
    inner = leave_k_out(split.train, 8, random_state=1)
    people = np.asarray(events.users)
    order = np.argsort(people)
    tie = [
        order[np.searchsorted(people, columns[f"friend_{end}"], sorter=order)] for end in ("a", "b")
    ]
    friends = sp.csr_array((np.ones(len(tie[0]), np.float32), tuple(tie)), shape=(len(people),) * 2)
    content = {"tags": _tags(columns, split.train, inner.train)}
    return Data("last.fm", split, inner, content, friends, None)


def _tags(columns: dict[str, NDArray[np.int32]], *training: recfuse.Interactions) -> Float32:
    """Return artists by the words people gave them; not by those whose plays are held out."""
    known = training[-1]
    artist_of = {int(label): i for i, label in enumerate(np.asarray(known.items))}
    user_of = {int(label): i for i, label in enumerate(np.asarray(known.users))}
    allowed = set(zip(known.user_index.tolist(), known.item_index.tolist(), strict=True))
    words: list[list[str]] = [[] for _ in artist_of]
    for user, artist, tag in zip(
        columns["tag_user"].tolist(),
        columns["tag_artist"].tolist(),
        columns["tag_id"].tolist(),
        strict=True,
    ):
        pair = user_of.get(user, -1), artist_of.get(artist, -1)
        if pair in allowed:
            words[pair[1]].append(f"t{tag}")
    return unit(TfidfEncoder(dim=64).fit_transform([" ".join(w) for w in words]))


DATA: dict[str, Callable[[], Data]] = {"MovieLens": movielens, "last.fm": lastfm}
