"""From the raw log and catalogue of a shop to what models take."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

import recfuse
from recfuse.features import AttributeEncoder, TfidfEncoder, cyclic_time
from recfuse.preprocess import Cleaner, EventReader, Pipeline, Report
from recfuse.sessions import session_rows

CYCLES = ("day", "week")
WEIGHTS = {"view": 1, "cart": 3, "purchase": 8}


@dataclass(frozen=True)
class Log:
    """The log cut in time, in the ids of what is known before the second cut."""

    early: recfuse.Interactions  # before the first cut
    chosen_on: recfuse.Interactions  # purchases between the cuts
    known: recfuse.Interactions  # before the second cut
    test: recfuse.Interactions  # purchases after it


def reader(half_life: float | None) -> Pipeline:
    """Return what makes one strength per customer and article of a raw log."""
    return Pipeline(
        [
            EventReader(
                user="visitor",
                item="item",
                event="did",
                weights=WEIGHTS,
                timestamp="time",
                half_life=half_life,
                dwell="seconds",
                amount="price",
                amount_unit=50,
                clip={"seconds": (0, 600)},
                missing="drop",
                unknown_events="drop",
                unknown_ids="drop",
            ),
            Cleaner(above=0, duplicates="sum"),
        ]
    )


def read(
    log: dict[str, np.ndarray],
    cuts: list[int],
    half_life: float | None = None,
    report: Report | None = None,
) -> Log:
    """Cut the log in time and read its parts."""
    first, second = cuts
    when, bought = log["time"], log["did"] == "purchase"
    pipeline = reader(half_life)
    known = pipeline.fit_transform(rows(log, when < second), report=report)
    between = bought & (when >= first) & (when < second)
    parts = [when < first, between, bought & (when >= second)]
    early, chosen_on, test = (pipeline.transform(rows(log, mask)) for mask in parts)
    return Log(early, chosen_on, known, test)


def rows(log: dict[str, np.ndarray], mask: np.ndarray) -> dict[str, np.ndarray]:
    return {name: column[mask] for name, column in log.items()}


def describe(goods: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the vectors of all goods."""
    attributes = AttributeEncoder({"category": "categorical", "brand": "categorical"})
    return {
        "text": TfidfEncoder(dim=32).fit_transform(goods["title"].tolist()),
        "attributes": attributes.fit_transform(goods),
        "price": price_vectors(goods["price"], goods["category"]),
    }


def price_vectors(price: np.ndarray, category: np.ndarray) -> np.ndarray:
    """Return soft bins of how dear an article is among those of its category.

    A number alone is a poor vector: the cosine of 5 and 500 is 1. In soft bins goods of a level
    are alike, and the mean over a history says what somebody is used to pay.
    """
    logs = np.log(price)
    for name in np.unique(category):
        own = category == name
        logs[own] = (logs[own] - logs[own].mean()) / logs[own].std()
    return np.exp(-0.5 * ((logs[:, None] - np.linspace(-2, 2, 9)) / 0.5) ** 2)


def anonymous(
    log: dict[str, np.ndarray], since: int, known: recfuse.Interactions
) -> tuple[list[list[int]], sp.csr_array, np.ndarray]:
    """Return the first half of every session without a name, what follows in it, and its begin."""
    nameless = np.array([visitor is None for visitor in log["visitor"]])
    there = (
        nameless
        & (log["time"] >= since)
        & np.isin(log["item"].astype(str), known.items.astype(str))
    )
    session, item = log["session"][there], known.item_ids(log["item"][there])
    numbers, first = np.unique(session, return_index=True)
    visits = [list(dict.fromkeys(item[session == s].tolist())) for s in numbers]
    long = [len(visit) >= 4 for visit in visits]
    begins = log["time"][there][first[long]]
    visits = [visit for visit in visits if len(visit) >= 4]
    pasts = [visit[: len(visit) // 2] for visit in visits]
    futures = [visit[len(visit) // 2 :] for visit in visits]
    return pasts, session_rows(futures, known.n_items, half_life=np.inf), begins


def clock_vectors(known: recfuse.Interactions) -> np.ndarray:
    """Return for every article the mean hour and weekday at which people turned to it."""
    moments = cyclic_time(known.timestamps, CYCLES).astype(np.float64)
    means = np.zeros((known.n_items, moments.shape[1]))
    np.add.at(means, known.item_index, moments)
    return means / np.maximum(np.bincount(known.item_index, minlength=known.n_items), 1)[:, None]
