"""MovieLens 100k, and the credits of its films."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recfuse.datasets import wheels
from recfuse.datasets.films import Films, pick_rows, table, wikidata_films
from recfuse.interactions import Interactions

__all__ = ["MovieLens", "Users", "movielens_100k"]

TERMS = """\
MovieLens 100k, by GroupLens Research, University of Minnesota. You may use it for research.
Do not state or imply that the university or GroupLens endorses you; cite the data set in
publications (below); do not redistribute it without separate permission; no commercial use
without permission of GroupLens. It comes without any warranty. It was fetched by your own pip
out of the recbole 1.2.1 wheel; recfuse does not contain it. Terms in full:
https://files.grouplens.org/datasets/movielens/ml-100k-README.txt
Names of directors, writers and cast: Wikidata contributors, CC0-1.0, out of the bokeh_sampledata
2026.1 wheel.
F. M. Harper, J. A. Konstan, "The MovieLens Datasets: History and Context", ACM Transactions on
Interactive Intelligent Systems 5(4), article 19, 2015. https://doi.org/10.1145/2827872"""

_FOLDER = "recbole/dataset_example/ml-100k/ml-100k"
_SHORTEST_PART = 6  # letters: a shorter part of a title ("The Movie") says too little


@dataclass(frozen=True, eq=False)
class Users:
    """Columns of equal length, a person per row.

    Attributes
    ----------
    age : ndarray of shape (n_users,), int32
    gender, occupation : ndarray of shape (n_users,), object
        'F' or 'M'; one of 21 words.
    """

    age: NDArray[np.int32]
    gender: NDArray[np.object_]
    occupation: NDArray[np.object_]

    def __len__(self) -> int:
        return len(self.age)


@dataclass(frozen=True, eq=False)
class MovieLens:
    """Ratings with what is known of films and people.

    Attributes
    ----------
    interactions : Interactions
        100,000 ratings from 1 to 5 with timestamps; labels are MovieLens' numbers, in their order.
    items : Films
        Row = position in ``interactions.items``. Genres are those of MovieLens.
    users : Users
        Row = position in ``interactions.users``.
    terms : str
        Under which terms GroupLens gives the data, and whom to cite; show it beside results.
    """

    interactions: Interactions
    items: Films
    users: Users
    terms: str


def movielens_100k(*, timeout: float = 15.0, retries: int = 1) -> MovieLens:
    """Return the 100,000 ratings of 943 people for 1,682 films [1]_, from 1997 and 1998.

    pip fetches two pinned wheels on first use (15 MB, into ``RECFUSE_CACHE``). Director, writer,
    cast, country and language come from a table of Wikidata, joined by title and year; 1,407 films
    with 95,646 of the ratings are found there. The others have only title, year and genres.

    Parameters
    ----------
    timeout, retries : float and int
        Of pip: seconds for one answer of the registry, and how often it asks again.

    Returns
    -------
    MovieLens

    Raises
    ------
    DatasetError
        If the wheels are neither in the cache nor in reach.

    References
    ----------
    .. [1] F. M. Harper, J. A. Konstan, "The MovieLens Datasets: History and Context", ACM TiiS
       5(4), article 19, 2015.
    """
    items = _table("item", timeout, retries)
    people = _table("user", timeout, retries)
    ratings = _table("inter", timeout, retries)
    user, item, rating, time = (ratings[:, column] for column in range(4))
    interactions = Interactions.from_arrays(
        user.astype(np.int64),
        item.astype(np.int64),
        rating.astype(np.float32),
        time.astype(np.int64),
        user_labels=people[:, 0].astype(np.int64),
        item_labels=items[:, 0].astype(np.int64),
    )
    users = Users(people[:, 1].astype(np.int32), people[:, 2], people[:, 3])
    films = _films(items, *wikidata_films(timeout=timeout, retries=retries))
    return MovieLens(interactions, films, users, TERMS)


def _table(part: str, timeout: float, retries: int) -> NDArray[np.object_]:
    data = wheels.read(
        wheels.PINNED["movielens"], f"{_FOLDER}.{part}", timeout=timeout, retries=retries
    )
    lines = data.decode("utf-8").splitlines()[1:]  # the first names the columns
    return np.array([line.split("\t") for line in lines], object)


def _films(items: NDArray[np.object_], ids: list[str], known: Films) -> Films:
    titles, years = zip(*(_title_year(row[1], row[2]) for row in items), strict=True)
    columns = pick_rows(known, _join(titles, years, known))
    columns["genres"] = tuple(tuple(row[3].split()) for row in items)
    display = [_natural(title) for title in titles]
    return table(display, years, columns)


def _title_year(title: str, year: str) -> tuple[str, int]:
    # One title keeps its year (and loses part of itself to the year's column); one is unknown.
    inside = re.fullmatch(r"(.*) \((\d{4})\)", title)
    if inside:
        return inside[1], int(inside[2])
    return title, int(year) if year.isdigit() else 0


def _natural(title: str) -> str:
    """Put the article back to the front: 'Empire Strikes Back, The'."""
    moved = re.fullmatch(r"(.*), ([A-Z][a-z]{0,2}|L')((?: \(.*\))?)", title)
    if not moved:
        return title
    gap = "" if moved[2].endswith("'") else " "
    return f"{moved[2]}{gap}{moved[1]}{moved[3]}"


def _join(titles: tuple[str, ...], years: tuple[int, ...], known: Films) -> list[int | None]:
    """Return the row of each film in `known`: same title within a year, else same part of a title.

    A part ("Star Wars" of "Star Wars: Episode IV") counts only in the very year, and only if one
    film has it.
    """
    by_title, by_part = defaultdict(list), defaultdict(set)
    for row, title in enumerate(known.title):
        for key in _keys(title):
            by_title[key].append(row)
        for key in _part_keys(title):
            by_part[key].add(row)
    rows: list[int | None] = []
    for title, year in zip(titles, years, strict=True):
        whole = [
            (abs(int(known.year[row]) - year), row)
            for key in _keys(title)
            for row in by_title[key]
            if abs(int(known.year[row]) - year) <= 1
        ]
        parts = {
            row
            for key in {*_keys(title), *_part_keys(title)}
            for row in by_part[key]
            if known.year[row] == year
        }
        rows.append(min(whole)[1] if whole else parts.pop() if len(parts) == 1 else None)
    return rows


def _keys(title: str) -> Iterator[str]:
    """Yield the title as compared, also without and only by what stands in brackets."""
    names = [title]
    bracket = re.fullmatch(r"(.*?)\s*\((.*)\)", title)
    if bracket:
        names += [bracket[1], bracket[2]]
    for name in names:
        key = _letters(_natural(name))
        if key:
            yield key


def _part_keys(title: str) -> Iterator[str]:
    for part in re.split(r"\s*:\s+|\s+[–—-]\s+", title):
        key = _letters(_natural(part))
        if len(key) >= _SHORTEST_PART:
            yield key


def _letters(title: str) -> str:
    """Fold case, accents, punctuation and a leading English article away."""
    plain = unicodedata.normalize("NFKD", title.lower().replace("&", " and "))
    words = re.sub(r"[^a-z0-9]+", " ", re.sub(r"[\u0300-\u036f]", "", plain)).strip()
    return re.sub(r"^(the|a|an) ", "", words).replace(" ", "")
