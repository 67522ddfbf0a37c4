from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recfuse.evaluation import (
    cold_items,
    k_fold,
    leave_k_out,
    leave_one_out,
    random_split,
    time_split,
    user_time_split,
)
from recfuse.interactions import Interactions


def log(n_events=60, n_users=8, n_items=10, n_times=25, seed=0):
    """Events with repeated pairs and times; one more user and item in the labels than have any."""
    rng = np.random.default_rng(seed)
    return Interactions.from_arrays(
        rng.integers(0, n_users, n_events),
        rng.integers(0, n_items, n_events),
        np.arange(n_events),  # the value tells which event it is
        rng.integers(0, n_times, n_events),
        user_labels=np.arange(n_users + 1),
        item_labels=np.arange(n_items + 1),
    )


def events_of(part):
    return part.values.astype(int).tolist()


RANDOM = {
    "random": lambda x, seed: random_split(x, 0.3, random_state=seed),
    "leave-one-out": lambda x, seed: leave_one_out(x, random_state=seed),
    "leave-2-out": lambda x, seed: leave_k_out(x, 2, random_state=seed),
    "k-fold": lambda x, seed: list(k_fold(x, 4, random_state=seed))[2],
    "cold items": lambda x, seed: cold_items(x, 0.3, random_state=seed),
}
TIMED = {
    "time": lambda x, seed: time_split(x, 0.3),
    "user time": lambda x, seed: user_time_split(x, 2),
    "user time share": lambda x, seed: user_time_split(x, test_fraction=0.3),
}
ALL = {**RANDOM, **TIMED}


@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
@given(seed=st.integers(0, 2**31), n_events=st.integers(40, 80))
@settings(max_examples=20, deadline=None)
def test_every_event_is_in_one_part_and_keeps_its_place(make, seed, n_events):
    whole = log(n_events, seed=seed)
    split = make(whole, seed)
    train, test = events_of(split.train), events_of(split.test)
    assert train == sorted(train) and test == sorted(test)
    assert sorted(train + test) == list(range(n_events))
    assert train and test
    for part in (split.train, split.test):
        np.testing.assert_array_equal(part.users, whole.users)
        np.testing.assert_array_equal(part.items, whole.items)
        chosen = events_of(part)
        np.testing.assert_array_equal(part.user_index, whole.user_index[chosen])
        np.testing.assert_array_equal(part.item_index, whole.item_index[chosen])
        np.testing.assert_array_equal(part.timestamps, whole.timestamps[chosen])


@pytest.mark.parametrize("make", RANDOM.values(), ids=RANDOM)
def test_a_seed_repeats_the_split(make):
    first = make(log(), 0)
    again = make(log(), np.random.default_rng(0))
    other = make(log(), 1)
    assert events_of(first.test) == events_of(again.test) == events_of(make(log(), 0).test)
    assert events_of(first.test) != events_of(other.test)
    assert "random_state=0" in first.name
    assert "random_state=Generator" in again.name
    assert "random_state=None (not repeatable)" in make(log(), None).name


def test_random_split_takes_its_share():
    for fraction, n_test in ((0.2, 12), (1 / 60, 1), (0.5, 30), (0.99, 59), (np.float32(0.25), 15)):
        split = random_split(log(), fraction, random_state=0)
        assert (len(split.train), len(split.test)) == (60 - n_test, n_test)
    assert random_split(log(), random_state=0).name.startswith("random, 20 % of events (12 of 60)")
    assert random_split(log(25), 0.1, random_state=0).name.startswith(
        "random, 10 % of events (3 of 25)"  # 2.5 is rounded up
    )


def test_the_name_counts_users_on_one_side_only():
    events = Interactions.from_arrays([1, 1, 2, 3], [5, 6, 5, 6], timestamps=[0, 0, 0, 9])
    assert time_split(events, 0.25).name == (
        "by time (global), last 25 % of events (1 of 4, from time 9), "
        "2 users without test events, 1 user without training events"
    )


@pytest.mark.parametrize("k", [1, 2, 4])
def test_leave_k_out_takes_k_of_each_user_with_more(k):
    whole = log(30, n_users=8, seed=3)
    split = leave_k_out(whole, k, random_state=0)
    n_events = np.bincount(whole.user_index, minlength=9)
    assert (n_events <= k).any()
    expected = np.where(n_events > k, k, 0)
    np.testing.assert_array_equal(np.bincount(split.test.user_index, minlength=9), expected)
    assert f"leave-{k}-out" in split.name


def test_leave_one_out_is_leave_k_out_of_one_and_keeps_single_events():
    events = Interactions.from_arrays(["a", "b", "b", "c"], [1, 1, 2, 2])
    split = leave_one_out(events, random_state=0)
    assert split.test.users[split.test.user_index].tolist() == ["b"]
    assert "2 users without test events" in split.name
    assert events_of(leave_one_out(log(), random_state=5).test) == events_of(
        leave_k_out(log(), 1, random_state=5).test
    )


def test_leave_one_out_draws_every_event_alike():
    events = Interactions.from_arrays([1] * 4, [5, 6, 7, 8])
    drawn = [int(leave_one_out(events, random_state=s).test.item_index[0]) for s in range(400)]
    assert np.bincount(drawn).min() > 60  # 100 expected, standard deviation 8.7


def test_folds_are_disjoint_equal_and_together_everything():
    folds = list(k_fold(log(62), 5, random_state=0))
    tests = [events_of(f.test) for f in folds]
    assert sorted(e for test in tests for e in test) == list(range(62))
    assert sorted(map(len, tests)) == [12, 12, 12, 13, 13]
    assert [f.name.split(",")[1] for f in folds] == [f" fold {i} of 5" for i in range(1, 6)]
    one_each = list(k_fold(log(6), 6, random_state=0))
    assert [len(f.test) for f in one_each] == [1] * 6


@pytest.mark.parametrize("by", ["users", "items"])
def test_folds_of_users_and_items_keep_them_together(by):
    events = log(62)
    column = f"{by[:-1]}_index"
    folds = list(k_fold(events, 4, by=by, random_state=0))
    tested = [set(getattr(split.test, column).tolist()) for split in folds]
    assert sorted(x for fold in tested for x in fold) == sorted(set(getattr(events, column)))
    assert max(map(len, tested)) - min(map(len, tested)) <= 1
    for split in folds:
        assert not np.isin(getattr(split.train, column), getattr(split.test, column)).any()
        assert len(split.train) + len(split.test) == 62
        assert f"random {by}" in split.name


def test_k_fold_deals_events_users_or_items():
    with pytest.raises(ValueError, match="by must be one of events, users, items; got 'days'"):
        k_fold(log(), 2, by="days")
    with pytest.raises(ValueError, match="at most the number of users, 8; got 9"):
        k_fold(log(), 9, by="users")


def test_k_fold_checks_at_the_call():
    with pytest.raises(ValueError, match="n_folds must be at least 2"):
        k_fold(log(), 1)


@given(seed=st.integers(0, 2**31), n_times=st.integers(2, 40), fraction=st.floats(0.05, 0.95))
@settings(deadline=None)
def test_global_time_has_one_cut_and_no_time_on_both_sides(seed, n_times, fraction):
    whole = log(n_times=n_times, seed=seed)
    times = sorted(whole.timestamps.tolist())
    first = times[60 - int(60 * fraction + 0.5)]
    if first == times[0]:
        with pytest.raises(ValueError, match="events before the cut"):
            time_split(whole, fraction)
        return
    split = time_split(whole, fraction)
    assert split.train.timestamps.max() < first == split.test.timestamps.min()
    assert len(split.test) == sum(t >= first for t in times) >= int(60 * fraction + 0.5)
    assert f"({len(split.test)} of 60, from time {first})" in split.name


def test_the_unit_and_the_sign_of_the_clock_do_not_matter():
    times = np.array([-50, 10, 2**62, -(2**62), 10])
    events = Interactions.from_arrays([1, 2, 1, 2, 1], [1, 2, 3, 1, 2], np.arange(5), times)
    split = time_split(events, 0.4)
    assert events_of(split.test) == [1, 2, 4]
    assert "(3 of 5, from time 10)" in split.name


@pytest.mark.parametrize(
    "arguments", [{"n_test": 1}, {"n_test": 3}, {"test_fraction": 0.4}, {"test_fraction": 0.9}]
)
@pytest.mark.parametrize("seed", range(3))
def test_user_time_matches_the_loop(arguments, seed):
    whole = log(40, n_times=6, seed=seed)
    expected = []
    for user in range(9):
        events = [e for e in range(40) if whole.user_index[e] == user]
        events.sort(key=lambda e: (whole.timestamps[e], e))
        if "n_test" in arguments:
            n = arguments["n_test"] if len(events) > arguments["n_test"] else 0
        else:
            n = int(arguments["test_fraction"] * len(events) + 0.5)
            n = min(n, max(len(events) - 1, 0))
        expected += events[len(events) - n :]
    assert events_of(user_time_split(whole, **arguments).test) == sorted(expected)


def test_user_time_names_itself():
    assert user_time_split(log(), 1).name == "by time (per user), last event of each user"
    assert user_time_split(log(), 3).name.startswith("by time (per user), last 3 events of each")
    assert user_time_split(log(), test_fraction=0.25).name.startswith(
        "by time (per user), last 25 % of each user's events"
    )


def test_cold_items_have_no_event_in_training():
    split = cold_items(log(), 0.3, random_state=0)
    cold = set(split.test.item_index.tolist())
    assert not cold & set(split.train.item_index.tolist())
    assert len(cold) == 3  # of the 10 with events
    assert split.name.startswith("cold items, 30 % of items (3 of 10), random_state=0")


# --- wrong arguments


@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
@pytest.mark.parametrize("wrong", [None, [(1, 2)], np.eye(3)])
def test_interactions_are_needed(make, wrong):
    kind = type(wrong).__name__
    with pytest.raises(TypeError, match=rf"^\w+: interactions must be Interactions; got {kind}"):
        make(wrong, 0)


@pytest.mark.parametrize("make", TIMED.values(), ids=TIMED)
def test_timestamps_are_needed(make):
    events = Interactions.from_arrays([1, 1], [1, 2])
    with pytest.raises(ValueError, match=r"_split: interactions must have timestamps; got none$"):
        make(events, 0)


@pytest.mark.parametrize("n_events", [0, 1])
@pytest.mark.parametrize("make", [m for n, m in ALL.items() if n != "k-fold"])
def test_too_few_events(make, n_events):
    events = Interactions.from_arrays([1] * n_events, [2] * n_events, timestamps=[3] * n_events)
    with pytest.raises(ValueError, match=f"at least one event for .* test events of {n_events}$"):
        make(events, 0)


@pytest.mark.parametrize(
    "make",
    [random_split, time_split, cold_items, lambda x, f: user_time_split(x, test_fraction=f)],
)
@pytest.mark.parametrize(
    ("fraction", "error", "message"),
    [
        (0, ValueError, r"must be in \(0, 1\); got 0"),
        (1.0, ValueError, r"must be in \(0, 1\); got 1.0"),
        (-0.2, ValueError, r"must be in \(0, 1\); got -0.2"),
        (20, ValueError, r"must be in \(0, 1\); got 20"),
        (np.nan, ValueError, r"must be in \(0, 1\); got nan"),
        ("0.2", TypeError, "must be a number; got str"),
        (True, TypeError, "must be a number; got bool"),
    ],
)
def test_wrong_fractions(make, fraction, error, message):
    with pytest.raises(error, match=rf"^\w+: test_fraction {message}$"):
        make(log(), fraction)


def test_a_share_too_small_for_one_event():
    for make in (random_split, time_split, cold_items):
        with pytest.raises(ValueError, match="got 0 test events of 60"):
            make(log(), 0.001)


def test_one_time_for_all():
    events = Interactions.from_arrays([1, 1, 2], [1, 2, 3], timestamps=[7, 7, 7])
    with pytest.raises(ValueError, match=r"time_split: .*before the cut at time 7; got none"):
        time_split(events, 0.5)
    split = user_time_split(events, 1)  # by position
    assert split.test.item_index.tolist() == [1]


@pytest.mark.parametrize(
    ("n_folds", "error", "message"),
    [
        (0, ValueError, "n_folds must be at least 1; got 0"),
        (1, ValueError, "n_folds must be at least 2 .* 60; got 1"),
        (61, ValueError, "at most the number of events, 60; got 61"),
        (2.0, TypeError, "n_folds must be an integer; got float"),
        (True, TypeError, "n_folds must be an integer; got bool"),
    ],
)
def test_wrong_folds(n_folds, error, message):
    with pytest.raises(error, match=f"^k_fold: .*{message}"):
        k_fold(log(), n_folds)


@pytest.mark.parametrize(("n", "error"), [(0, ValueError), (-1, ValueError), (1.0, TypeError)])
def test_wrong_numbers_of_test_events(n, error):
    with pytest.raises(error, match=r"^leave_k_out: k must be (at least 1|an integer); got "):
        leave_k_out(log(), n)
    with pytest.raises(
        error, match=r"^user_time_split: n_test must be (at least 1|an int.*); got "
    ):
        user_time_split(log(), n)


def test_nobody_has_enough_events():
    with pytest.raises(ValueError, match=r"leave_k_out: .*got 0 test events of 60"):
        leave_k_out(log(), 60)
    with pytest.raises(ValueError, match=r"user_time_split: .*got 0 test events of 60"):
        user_time_split(log(), 60)


@pytest.mark.parametrize("arguments", [{}, {"n_test": 1, "test_fraction": 0.2}])
def test_user_time_needs_one_size(arguments):
    with pytest.raises(ValueError, match="n_test or test_fraction must be given, not both; got"):
        user_time_split(log(), **arguments)
