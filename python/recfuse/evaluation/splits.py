"""Ways to cut interactions into a training and a test part; each names itself completely."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from recfuse._inputs import as_rng
from recfuse.evaluation._checks import check_fraction, check_interactions, positive_int
from recfuse.evaluation._split import (
    RandomState,
    Split,
    cut,
    events_per_user,
    last_of_each_user,
    one_sided,
    random_of_each_user,
    rounded,
    seed_name,
    share_of,
    times_of,
)
from recfuse.interactions import Interactions

__all__ = [
    "Split",
    "cold_items",
    "k_fold",
    "leave_k_out",
    "leave_one_out",
    "random_split",
    "time_split",
    "user_time_split",
]


def random_split(
    interactions: Interactions, test_fraction: float = 0.2, *, random_state: RandomState = None
) -> Split:
    """Hold out events drawn at random without replacement.

    Parameters
    ----------
    interactions : Interactions
    test_fraction : float, default=0.2
        Share of the events for the test, in (0, 1); the number is rounded, halves up.
    random_state : int, numpy.random.Generator or None
        The same seed gives the same split.

    Returns
    -------
    Split

    Raises
    ------
    TypeError
        If `interactions` is no Interactions or `test_fraction` no number.
    ValueError
        If `test_fraction` is outside (0, 1), or one side would have no event.

    Examples
    --------
    >>> from recfuse.evaluation import random_split
    >>> from recfuse.interactions import Interactions
    >>> events = Interactions.from_arrays(["a"] * 10, list(range(10)))
    >>> random_split(events, 0.3, random_state=0)
    Split('random, 30 % of events (3 of 10), random_state=0', train 7, test 3 events)
    """
    check_interactions(interactions, "random_split")
    test_fraction = check_fraction(test_fraction, "random_split")
    n_events = len(interactions)
    n_test = rounded(test_fraction, n_events)
    mask = np.zeros(n_events, bool)
    mask[as_rng(random_state).permutation(n_events)[:n_test]] = True
    name = f"random, {share_of(test_fraction, n_test, n_events)}, {seed_name(random_state)}"
    return cut(interactions, mask, name, "random_split")


def leave_one_out(interactions: Interactions, *, random_state: RandomState = None) -> Split:
    """Hold out one event of each user, drawn at random.

    A user with a single event keeps it in training and has no test event. `user_time_split` with
    ``n_test=1`` holds out the last one instead, which does not predict the past from the future.

    Parameters
    ----------
    interactions : Interactions
    random_state : int, numpy.random.Generator or None
        The same seed gives the same split.

    Returns
    -------
    Split

    Raises
    ------
    TypeError
        If `interactions` is no Interactions.
    ValueError
        If no user has two events.

    Examples
    --------
    >>> from recfuse.evaluation import leave_one_out
    >>> from recfuse.interactions import Interactions
    >>> leave_one_out(Interactions.from_arrays([1, 1, 2], [5, 6, 5]), random_state=0).name
    'leave-one-out, random event of each user, random_state=0, 1 user without test events'
    """
    mask = random_of_each_user(interactions, 1, random_state, "leave_one_out")
    name = f"leave-one-out, random event of each user, {seed_name(random_state)}"
    return cut(interactions, mask, name, "leave_one_out")


def leave_k_out(interactions: Interactions, k: int, *, random_state: RandomState = None) -> Split:
    """Hold out `k` events of each user, drawn at random.

    Users with `k` or fewer events keep them all in training.

    Parameters
    ----------
    interactions : Interactions
    k : int
        Test events per user, at least 1.
    random_state : int, numpy.random.Generator or None
        The same seed gives the same split.

    Returns
    -------
    Split

    Raises
    ------
    TypeError
        If `interactions` is no Interactions or `k` no integer.
    ValueError
        If `k` is below 1, or no user has more than `k` events.

    Examples
    --------
    >>> from recfuse.evaluation import leave_k_out
    >>> from recfuse.interactions import Interactions
    >>> leave_k_out(Interactions.from_arrays([1, 1, 1], [5, 6, 7]), 2, random_state=0).name
    'leave-2-out, random events of each user, random_state=0'
    """
    k = positive_int(k, "k", "leave_k_out")
    mask = random_of_each_user(interactions, k, random_state, "leave_k_out")
    name = f"leave-{k}-out, random events of each user, {seed_name(random_state)}"
    return cut(interactions, mask, name, "leave_k_out")


def k_fold(
    interactions: Interactions,
    n_folds: int = 5,
    *,
    by: str = "events",
    random_state: RandomState = None,
) -> Iterator[Split]:
    """Cut the events at random into folds of equal size; each is the test part once.

    Parameters
    ----------
    interactions : Interactions
    n_folds : int, default=5
        At least 2, at most one per event (user, item). Sizes differ by one at most.
    by : {'events', 'users', 'items'}, default='events'
        What is dealt to the folds. 'users' keeps all events of a user together, so that test users
        are unknown to the training; 'items' does so with items, as `cold_items`. Only users and
        items with events are dealt.
    random_state : int, numpy.random.Generator or None
        The same seed gives the same folds.

    Returns
    -------
    iterator of Split
        `n_folds` of them; arguments are checked at the call, not at the first step.

    Raises
    ------
    TypeError
        If `interactions` is no Interactions or `n_folds` no integer.
    ValueError
        If `n_folds` is below 2 or above the number of events (users, items), or `by` is unknown.

    Examples
    --------
    >>> from recfuse.evaluation import k_fold
    >>> from recfuse.interactions import Interactions
    >>> folds = k_fold(Interactions.from_arrays([1, 1, 2, 2], [5, 6, 5, 6]), 2, random_state=0)
    >>> [(len(split.train), len(split.test)) for split in folds]
    [(2, 2), (2, 2)]
    """
    check_interactions(interactions, "k_fold")
    n_folds = positive_int(n_folds, "n_folds", "k_fold")
    dealt = {
        "events": np.arange(len(interactions)),
        "users": interactions.user_index,
        "items": interactions.item_index,
    }
    if by not in dealt:
        raise ValueError(f"k_fold: by must be one of {', '.join(dealt)}; got {by!r}")
    of_event = dealt[by]
    pool = np.unique(of_event)
    if not 2 <= n_folds <= len(pool):
        raise ValueError(
            f"k_fold: n_folds must be at least 2 and at most the number of {by}, {len(pool)}; "
            f"got {n_folds}"
        )
    order = as_rng(random_state).permutation(pool)

    def folds() -> Iterator[Split]:
        for i, fold in enumerate(np.array_split(order, n_folds), start=1):
            name = f"k-fold, fold {i} of {n_folds}, random {by}, {seed_name(random_state)}"
            yield cut(interactions, np.isin(of_event, fold), name, "k_fold")

    return folds()


def time_split(interactions: Interactions, test_fraction: float = 0.2) -> Split:
    """Hold out the last events of all: train on the past, test on the future of everybody.

    Let ``T`` be the time of the first of the last ``round(test_fraction * n_events)`` events. All
    events at ``T`` or later are the test part, so events of one time never straddle the cut, and
    the test part is at least as large as asked for.

    Parameters
    ----------
    interactions : Interactions
        With timestamps.
    test_fraction : float, default=0.2
        Share of the events for the test, in (0, 1); the number is rounded, halves up.

    Returns
    -------
    Split
        Its name tells ``T`` and the true number of test events.

    Raises
    ------
    TypeError
        If `interactions` is no Interactions or `test_fraction` no number.
    ValueError
        If there are no timestamps, `test_fraction` is outside (0, 1), or no event is earlier than
        ``T`` (all have one time, say).

    Examples
    --------
    >>> from recfuse.evaluation import time_split
    >>> from recfuse.interactions import Interactions
    >>> events = Interactions.from_arrays([1, 2, 1, 2], [5, 5, 6, 6], timestamps=[10, 20, 30, 40])
    >>> time_split(events, 0.25).name
    'by time (global), last 25 % of events (1 of 4, from time 40), 1 user without test events'
    """
    times = times_of(interactions, "time_split")
    test_fraction = check_fraction(test_fraction, "time_split")
    n_events = len(interactions)
    n_test = rounded(test_fraction, n_events)
    if not 0 < n_test < n_events:
        raise ValueError(one_sided("time_split", n_test, n_events))
    first = np.partition(times, n_events - n_test)[n_events - n_test]
    mask = times >= first
    if mask.all():
        raise ValueError(
            f"time_split: timestamps must have events before the cut at time {first}; got none. "
            "Events of one time are never separated."
        )
    share = f"{100 * test_fraction:g} % of events ({mask.sum()} of {n_events}, from time {first})"
    return cut(interactions, mask, f"by time (global), last {share}", "time_split")


def user_time_split(
    interactions: Interactions, n_test: int | None = None, *, test_fraction: float | None = None
) -> Split:
    """Hold out the last events of each user: train on the past of everyone, test on their next.

    A user's events are ordered by time; events of one time by their position in `interactions`.
    Since each user has a cut of their own, a training event of one user may be later than a test
    event of another; `time_split` excludes that.

    Parameters
    ----------
    interactions : Interactions
        With timestamps.
    n_test : int, optional
        Number of test events per user, at least 1. Users with `n_test` or fewer events keep them
        all in training.
    test_fraction : float, optional
        Instead of `n_test`: share of each user's events, in (0, 1); the number is rounded, halves
        up, and at least one event of each user stays in training.

    Returns
    -------
    Split

    Raises
    ------
    TypeError
        If `interactions` is no Interactions, `n_test` no integer or `test_fraction` no number.
    ValueError
        If there are no timestamps, not exactly one of `n_test` and `test_fraction` is given, one is
        out of range, or no user has a test event.

    Examples
    --------
    >>> from recfuse.evaluation import user_time_split
    >>> from recfuse.interactions import Interactions
    >>> events = Interactions.from_arrays([1, 1, 2, 2], [5, 6, 5, 6], timestamps=[40, 30, 10, 20])
    >>> split = user_time_split(events, n_test=1)
    >>> split.name
    'by time (per user), last event of each user'
    >>> split.test.timestamps
    array([40, 20])
    """
    times = times_of(interactions, "user_time_split")
    if (n_test is None) == (test_fraction is None):
        raise ValueError(
            "user_time_split: n_test or test_fraction must be given, not both; "
            f"got n_test={n_test}, test_fraction={test_fraction}"
        )
    n_events = events_per_user(interactions)
    if test_fraction is None:
        last = positive_int(n_test, "n_test", "user_time_split")
        take = np.where(n_events > last, last, 0)
        name = f"by time (per user), last {'event' if last == 1 else f'{last} events'} of each user"
    else:
        test_fraction = check_fraction(test_fraction, "user_time_split")
        rounded = (test_fraction * n_events + 0.5).astype(np.intp)
        take = np.minimum(rounded, np.maximum(n_events - 1, 0))
        name = f"by time (per user), last {100 * test_fraction:g} % of each user's events"
    mask = last_of_each_user(interactions, times, take)
    return cut(interactions, mask, name, "user_time_split")


def cold_items(
    interactions: Interactions, test_fraction: float = 0.2, *, random_state: RandomState = None
) -> Split:
    """Hold out items entirely: none of their events is in training.

    Only a model that knows more about an item than its events (text, image) can rank these.

    Parameters
    ----------
    interactions : Interactions
    test_fraction : float, default=0.2
        Share of the items with events, in (0, 1), drawn at random; the number is rounded, halves
        up.
    random_state : int, numpy.random.Generator or None
        The same seed gives the same split.

    Returns
    -------
    Split

    Raises
    ------
    TypeError
        If `interactions` is no Interactions or `test_fraction` no number.
    ValueError
        If `test_fraction` is outside (0, 1), or one side would have no item.

    Examples
    --------
    >>> from recfuse.evaluation import cold_items
    >>> from recfuse.interactions import Interactions
    >>> cold_items(Interactions.from_arrays([1, 1, 2, 2], [5, 6, 5, 6]), 0.5, random_state=0).name
    'cold items, 50 % of items (1 of 2), random_state=0'
    """
    check_interactions(interactions, "cold_items")
    test_fraction = check_fraction(test_fraction, "cold_items")
    with_events = np.unique(interactions.item_index)
    n_test = rounded(test_fraction, len(with_events))
    cold = np.zeros(interactions.n_items, bool)
    cold[as_rng(random_state).permutation(with_events)[:n_test]] = True
    share = f"{100 * test_fraction:g} % of items ({n_test} of {len(with_events)})"
    name = f"cold items, {share}, {seed_name(random_state)}"
    return cut(interactions, cold[interactions.item_index], name, "cold_items")
