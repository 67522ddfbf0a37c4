"""The film credits that the package itself carries."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from importlib import resources

import numpy as np

from recfuse.datasets.films import Films, table
from recfuse.interactions import Interactions

__all__ = ["Credits", "credits"]

_ROLES = ("director", "writer", "cast")


@dataclass(frozen=True, eq=False)
class Credits:
    """Who worked on which film.

    Attributes
    ----------
    interactions : Interactions
        Its "users" are people credited, not people who watch. An event is a person and a film;
        value = number of roles (director, writer, cast); timestamp = 1 January of the film's year;
        item labels are IMDb ids.
    items : Films
        Row = position in ``interactions.items``; countries and languages are unknown.
    """

    interactions: Interactions
    items: Films


def credits() -> Credits:
    """Return 3,000 films and the people credited in them; needs no network.

    Real text and a real sparse graph: structured data of Wikidata (CC0-1.0), cut as
    ``tools/make_credits_table.py`` says. Directors and writers are complete; the cast has those
    with at least two films in the larger table, in alphabetical order.

    Returns
    -------
    Credits

    Examples
    --------
    >>> from recfuse.datasets import credits
    >>> data = credits()
    >>> data.items
    Films(3000 films, 3000 with a director)
    >>> data.interactions.at_least(2)
    Interactions(1672 events, 20265 users, 3000 items, with timestamps)
    """
    packed = resources.files("recfuse").joinpath("data", "credits.tsv.gz").read_bytes()
    lines = gzip.decompress(packed).decode("utf-8").splitlines()
    header, *rows = (line.split("\t") for line in lines)
    columns = dict(zip(header, zip(*rows, strict=True), strict=True))
    names = {
        column: tuple(tuple(text.split("|")) if text else () for text in columns[column])
        for column in ("genres", *_ROLES)
    }
    films = table(columns["title"], [int(year) for year in columns["year"]], names)
    return Credits(_interactions(columns["imdb"], films), films)


def _interactions(ids: tuple[str, ...], films: Films) -> Interactions:
    events = [
        (name, row)
        for row in range(len(films))
        for role in _ROLES
        for name in getattr(films, role)[row]
    ]
    people, rows = zip(*events, strict=True)
    january = (films.year.astype(np.int64) - 1970).astype("datetime64[Y]")
    return Interactions.from_arrays(
        people,
        [ids[row] for row in rows],
        timestamps=january[list(rows)],
        item_labels=ids,
    ).deduplicate("sum")
