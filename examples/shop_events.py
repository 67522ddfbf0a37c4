"""A shop that never was: goods, and customers whose taste, budget and moods are planted.

Customers like a few categories and styles, have a budget, and a third of them change their mind
halfway. In a session they look at goods of one category; what suits them goes into the cart, what
suits their budget, too, is bought. Some are not logged in, and the log is as untidy as logs are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

DAY = 86_400
DAYS = 120
OPENED = 1_750_000_000  # a fixed second: the data must not depend on the clock
NOUNS = {
    "kitchen": ["kettle", "pan", "teapot", "grater", "toaster"],
    "garden": ["spade", "hose", "planter", "rake", "lantern"],
    "sport": ["ball", "racket", "yoga mat", "dumbbell", "helmet"],
    "desk": ["lamp", "notebook", "pen", "organiser", "stapler"],
    "travel": ["suitcase", "backpack", "pillow", "adapter", "bottle"],
    "bath": ["towel", "mirror", "soap dish", "scale", "robe"],
    "toys": ["puzzle", "train", "kite", "blocks", "robot"],
    "audio": ["speaker", "headphones", "turntable", "radio", "microphone"],
}
STYLES = {
    "rustic": ["oak", "hand-made", "linen"],
    "modern": ["steel", "slim", "matt black"],
    "playful": ["rainbow", "dotted", "neon"],
    "classic": ["brass", "ivory", "engraved"],
}
BRANDS = 24


@dataclass(frozen=True)
class Shop:
    """A log and a catalogue, as columns."""

    log: dict[str, np.ndarray]  # visitor, item, did, seconds, price, time, session
    goods: dict[str, np.ndarray]  # item, title, category, brand, price


def generate(n_customers: int = 2500, n_goods: int = 3000, seed: int = 0) -> Shop:
    rng = np.random.default_rng(seed)
    goods, traits = _goods(rng, n_goods)
    visits = _sessions(rng, n_customers)
    events = []
    for number, visit in enumerate(visits):
        events += _visit(rng, {**visit, "session": number}, goods, traits)
    return Shop(_untidy(rng, events), goods)


def _goods(rng: np.random.Generator, n: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    categories, styles = list(NOUNS), list(STYLES)
    category = rng.integers(len(categories), size=n)
    brand = rng.integers(BRANDS, size=n)
    # A brand has a style and a price level of its own; most of its goods keep to them.
    own = rng.integers(len(styles), size=BRANDS)[brand]
    style = np.where(rng.random(n) < 0.8, own, rng.integers(len(styles), size=n))
    level = 0.7 * rng.normal(size=BRANDS)[brand] + 0.7 * rng.normal(size=n)
    base = np.exp(rng.normal(3.0, 0.6, len(categories)))
    words = [rng.choice(STYLES[styles[number]], 2, replace=False) for number in style]
    nouns = [rng.choice(NOUNS[categories[number]]) for number in category]
    titles = [" ".join([*pair, noun]) for pair, noun in zip(words, nouns, strict=True)]
    goods = {
        "item": np.array([f"sku-{row:04d}" for row in range(n)]),
        "title": np.array(titles),
        "category": np.array(categories)[category],
        "brand": np.array([f"brand {number}" for number in brand]),
        "price": np.round(base[category] * np.exp(0.6 * level), 2),
    }
    traits = {
        "category": category,
        "style": style,
        "level": level,
        "popularity": rng.permutation(np.arange(1, n + 1) ** -0.7),
        # Half of the goods are there from the start, the others come in day by day.
        "since": np.where(rng.random(n) < 0.5, 0, rng.uniform(0, DAYS, n)),
    }
    return goods, traits


def _sessions(rng: np.random.Generator, n_customers: int) -> list[dict[str, Any]]:
    """Return who comes when, with what in mind."""
    tastes = rng.dirichlet(np.full(len(NOUNS), 0.25), (n_customers, 2))
    changed = rng.random(n_customers) < 1 / 3
    styles = rng.dirichlet(np.full(len(STYLES), 0.25), n_customers)
    budgets = rng.normal(size=n_customers)
    per_customer = rng.geometric(0.2, n_customers)
    visits = []
    for customer, n in enumerate(per_customer.tolist()):
        for day in np.sort(rng.uniform(0, DAYS, n)).tolist():
            late = int(changed[customer] and day > DAYS / 2)
            visits.append(
                {
                    "visitor": f"c{customer}" if rng.random() > 0.1 else None,
                    "time": OPENED + int(day * DAY),
                    "category": int(rng.choice(len(NOUNS), p=tastes[customer, late])),
                    "styles": styles[customer],
                    "budget": float(budgets[customer]),
                }
            )
    return sorted(visits, key=lambda visit: visit["time"])


def _visit(
    rng: np.random.Generator,
    visit: dict[str, Any],
    goods: dict[str, np.ndarray],
    traits: dict[str, np.ndarray],
) -> list[tuple[Any, ...]]:
    """Return the events of a session: views, and what follows from them."""
    there = OPENED + traits["since"] * DAY <= visit["time"]
    shelf = np.flatnonzero(there & (traits["category"] == visit["category"]))
    style = visit["styles"][traits["style"][shelf]]
    misfit = traits["level"][shelf] - visit["budget"]
    pull = traits["popularity"][shelf] * (0.05 + style) * np.exp(-0.5 * misfit**2)
    n = min(2 + int(rng.geometric(0.25)), np.count_nonzero(pull))
    chosen = rng.choice(len(shelf), n, replace=False, p=pull / pull.sum())
    events, time = [], visit["time"]
    for place in chosen.tolist():
        item = shelf[place]
        likes, affords = style[place], float(np.exp(-0.5 * misfit[place] ** 2))
        seconds = float(rng.lognormal(3 + likes, 0.7))
        row = (visit["visitor"], str(goods["item"][item]), visit["session"])
        events.append((*row, "view", seconds, np.nan, time))
        time += 1 + int(seconds)
        if rng.random() < 0.05 + 0.4 * likes:
            events.append((*row, "cart", np.nan, np.nan, time + 1))
            if rng.random() < 0.1 + 0.5 * affords:
                events.append((*row, "purchase", np.nan, goods["price"][item], time + 2))
    return events


def _untidy(rng: np.random.Generator, events: list[tuple[Any, ...]]) -> dict[str, np.ndarray]:
    """Return columns in the order of time, with what goes wrong in logs."""
    again = [events[row] for row in rng.integers(len(events), size=len(events) // 100)]
    robot = ("c0", "sku-0000", -1, "impression", 0.0, np.nan, OPENED + 1)
    rows = sorted([*events, *again, *[robot] * 200], key=lambda event: event[6])
    names = ("visitor", "item", "session", "did", "seconds", "price", "time")
    kinds = (object, object, np.int64, object, float, float, np.int64)
    log = {
        name: np.array([row[place] for row in rows], kind)
        for place, (name, kind) in enumerate(zip(names, kinds, strict=True))
    }
    asleep = rng.random(len(rows)) < 0.01  # a page that was left open over night
    log["seconds"][asleep] = 30_000.0
    return log
