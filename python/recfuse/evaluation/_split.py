"""A split, and what the ways to make one share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recfuse._inputs import as_rng
from recfuse.evaluation._checks import check_interactions
from recfuse.interactions import Interactions

RandomState = int | np.random.Generator | None


@dataclass(frozen=True, eq=False)
class Split:
    """Two parts of one set of interactions.

    Attributes
    ----------
    train, test : Interactions
        Every event is in exactly one of them, in its original order. The id spaces are those of the
        whole, also for users and items that have events on one side only.
    name : str
        The whole protocol in words, with the number of users that have events on one side only.
        Results of different splits do not compare, so every table carries it.

    Notes
    -----
    Events are split, not user-item pairs. Where a pair has several events, call
    `Interactions.deduplicate` first, or one of them may be in `train` and another in `test`.
    """

    train: Interactions
    test: Interactions
    name: str

    def __repr__(self) -> str:
        """Show the name and the sizes."""
        return f"Split({self.name!r}, train {len(self.train)}, test {len(self.test)} events)"


def cut(interactions: Interactions, mask: NDArray[np.bool_], name: str, op: str) -> Split:
    """Put the events in `mask` into the test part; the name counts one-sided users."""
    if mask.all() or not mask.any():
        raise ValueError(one_sided(op, int(mask.sum()), len(mask)))
    split = Split(interactions.select(~mask), interactions.select(mask), name)
    train, test = events_per_user(split.train) > 0, events_per_user(split.test) > 0
    for n, side in ((train & ~test).sum(), "test"), ((test & ~train).sum(), "training"):
        if n:
            name += f", {n} {'user' if n == 1 else 'users'} without {side} events"
    return Split(split.train, split.test, name)


def one_sided(op: str, n_test: int, n_events: int) -> str:
    return (
        f"{op}: interactions must leave at least one event for training and one for the test; "
        f"got {n_test} test events of {n_events}"
    )


def random_of_each_user(
    interactions: Interactions, k: int, random_state: RandomState, op: str
) -> NDArray[np.bool_]:
    check_interactions(interactions, op)
    n_events = events_per_user(interactions)
    order = as_rng(random_state).permutation(len(interactions))
    return last_of_each_user(interactions, order, np.where(n_events > k, k, 0))


def last_of_each_user(
    interactions: Interactions, key: NDArray[Any], take: NDArray[Any]
) -> NDArray[np.bool_]:
    order = np.lexsort((key, interactions.user_index))  # stable: equal keys keep their positions
    users = interactions.user_index[order]
    ends = np.cumsum(events_per_user(interactions))
    mask = np.zeros(len(interactions), bool)
    mask[order] = np.arange(len(users)) >= (ends - take)[users]
    return mask


def events_per_user(interactions: Interactions) -> NDArray[np.intp]:
    return np.bincount(interactions.user_index, minlength=interactions.n_users)


def times_of(interactions: Interactions, op: str) -> NDArray[np.int64]:
    check_interactions(interactions, op)
    if interactions.timestamps is None:
        raise ValueError(f"{op}: interactions must have timestamps; got none")
    return interactions.timestamps


def rounded(fraction: float, n: int) -> int:
    return int(fraction * n + 0.5)


def share_of(fraction: float, n_test: int, n_events: int) -> str:
    return f"{100 * fraction:g} % of events ({n_test} of {n_events})"


def seed_name(random_state: RandomState) -> str:
    if random_state is None:
        return "random_state=None (not repeatable)"
    if isinstance(random_state, np.random.Generator):
        return "random_state=Generator"
    return f"random_state={random_state}"
