"""Tables of films: titles, years and the names credited."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recfuse.datasets import wheels

__all__ = ["COLUMNS", "Films", "Names", "pick_rows", "split_names", "table", "wikidata_films"]

Names = tuple[tuple[str, ...], ...]

_SUFFIX = re.compile(r"(?:Jr|Sr)\.?|I{2,3}|IV")
COLUMNS = ("genres", "director", "writer", "cast", "country", "language")


@dataclass(frozen=True, eq=False, repr=False)
class Films:
    """Columns of equal length, a film per row.

    Attributes
    ----------
    title : ndarray of shape (n_films,), object
    year : ndarray of shape (n_films,), int32
        0 where unknown.
    genres, director, writer, cast, country, language : tuple of length n_films
        Of each film, a tuple of names; empty where unknown.
    """

    title: NDArray[Any]
    year: NDArray[np.int32]
    genres: Names
    director: Names
    writer: Names
    cast: Names
    country: Names
    language: Names

    def __len__(self) -> int:
        return len(self.title)

    def __repr__(self) -> str:
        credited = sum(bool(names) for names in self.director)
        return f"Films({len(self)} films, {credited} with a director)"

    def sentences(self, *, n_cast: int = 8) -> list[str]:
        """Return a short English text for each film, for a sentence encoder.

        Parameters
        ----------
        n_cast : int, default=8
            How many of the cast are named: encoders cut long texts.

        Returns
        -------
        list of str
            Title and year, then what is known of genre, director, writer, cast and country.
        """
        return [self._sentence(row, n_cast) for row in range(len(self))]

    def _sentence(self, row: int, n_cast: int) -> str:
        year = f" ({self.year[row]})" if self.year[row] else ""
        parts = [f"{self.title[row]}{year}"]
        for words, names in (
            ("", self.genres[row]),
            ("directed by ", self.director[row]),
            ("written by ", self.writer[row]),
            ("with ", self.cast[row][:n_cast]),
            ("from ", self.country[row]),
        ):
            if names:
                parts.append(words + ", ".join(names))
        return ". ".join(parts) + "."


def wikidata_films(*, timeout: float = 15.0, retries: int = 1) -> tuple[list[str], Films]:
    """Return IMDb ids and films of the CC0 table in the bokeh_sampledata wheel, in order of ids.

    17,470 films from 1940 to 2014, by the Wikidata contributors; of two cuts of a film, the first.
    """
    data = wheels.read(
        wheels.PINNED["films"],
        "bokeh_sampledata/_data/movies.db",
        timeout=timeout,
        retries=retries,
    )
    query = (
        'SELECT imdbID, Title, Year, Genre, Director, Writer, "Cast", Country, Language '
        "FROM omdb WHERE ID IN (SELECT min(ID) FROM omdb GROUP BY imdbID) ORDER BY imdbID"
    )
    # sqlite3 opens bytes only from Python 3.11 on.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "movies.db"
        path.write_bytes(data)
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
            rows = database.execute(query).fetchall()
    ids, titles, years, *texts = zip(*rows, strict=True)
    columns = {
        name: tuple(split_names(text) for text in column)
        for name, column in zip(COLUMNS, texts, strict=True)
    }
    return list(ids), table(titles, [year or 0 for year in years], columns)


def table(
    titles: Sequence[str], years: Sequence[int], columns: Mapping[str, Iterable[tuple[str, ...]]]
) -> Films:
    """Make Films of columns; those not given are unknown for all."""
    n = len(titles)
    names: dict[str, Names] = {
        name: tuple(columns[name]) if name in columns else ((),) * n for name in COLUMNS
    }
    return Films(np.fromiter(titles, object, n), np.array(years, np.int32), **names)


def split_names(text: str | None) -> tuple[str, ...]:
    """Split at commas, except before what belongs to the name: 'Ed Begley, Jr.'."""
    names: list[str] = []
    for part in (text or "").split(", "):
        part = part.strip()
        if names and _SUFFIX.fullmatch(part):
            names[-1] += f", {part}"
        elif part:
            names.append(part)
    return tuple(dict.fromkeys(names))


def pick_rows(films: Films, rows: Sequence[int | None]) -> dict[str, Names]:
    """Return the name columns of the given rows; None gives no names."""
    columns = {name: getattr(films, name) for name in COLUMNS}
    return {
        name: tuple(() if row is None else column[row] for row in rows)
        for name, column in columns.items()
    }
