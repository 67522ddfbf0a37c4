"""Session rows and vectors, and fading interactions, against sums by hand."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

import recfuse
from recfuse.sessions import decayed, session_rows, session_vectors


def by_hand(session, times, n_items, half_life):
    row = np.zeros(n_items)
    for place, item in enumerate(session):
        age = len(session) - 1 - place if times is None else max(times) - times[place]
        row[item] += 0.5 ** (age / half_life)
    return row / row.sum() if len(session) else row


@pytest.mark.parametrize("half_life", [0.5, 3.0, np.inf])
@pytest.mark.parametrize("timed", [False, True])
def test_rows_and_vectors_are_the_formula(rng, half_life, timed):
    sessions = [rng.integers(0, 12, n) for n in (1, 7, 0, 30)]
    times = [rng.uniform(0, 9, len(s)).tolist() for s in sessions] if timed else None
    expected = np.array(
        [by_hand(s, times[i] if timed else None, 12, half_life) for i, s in enumerate(sessions)]
    )
    rows = session_rows(sessions, 12, half_life=half_life, times=times)
    assert isinstance(rows, sp.csr_array) and rows.dtype == np.float32
    np.testing.assert_allclose(rows.toarray(), expected, rtol=1e-6, atol=1e-7)
    vectors = {"a": rng.standard_normal((12, 4)), "b": rng.standard_normal((12, 2))}
    got = session_vectors(sessions, vectors, half_life=half_life, times=times)
    for name, x in vectors.items():
        np.testing.assert_allclose(got[name], expected @ x, rtol=1e-5, atol=1e-6)
        assert not got[name][2].any()


def test_what_was_just_seen_leads(rng):
    """Two tastes in one session: the newer one decides, unless nothing fades."""
    items = np.eye(2)[[0, 0, 0, 0, 1, 1]]
    session = [[0, 1, 2, 4]]
    index = recfuse.FusedIndex({"text": items})
    near, far = (
        index.topk(session_vectors(session, {"text": items}, half_life=h), k=1)[0][0, 0]
        for h in (0.5, np.inf)
    )
    assert (near, far) == (4, 0)


def test_a_fading_matrix(rng):
    n = 200
    users, items = rng.integers(0, 9, n), rng.integers(0, 7, n)
    values, times = rng.uniform(0, 5, n), rng.integers(0, 1000, n)
    events = recfuse.Interactions.from_arrays(users, items, values, times)
    for now in (None, 5000.0):
        expected = np.zeros((9, 7))
        for u, i, v, t in zip(users, items, values.astype(np.float32), times, strict=True):
            at = events.users.tolist().index(u), events.items.tolist().index(i)
            expected[at] += v * 0.5 ** (((now or times.max()) - t) / 300)
        np.testing.assert_allclose(
            decayed(events, 300, now=now).toarray(), expected, rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: session_rows([[3]], 3), IndexError, r"session_rows: sessions must be in \[0, 3\)"),
        (lambda: session_rows([[0]], 3, half_life=0), ValueError, "half_life must be above 0"),
        (lambda: session_rows([[0]], 3, times=[]), ValueError, "times must have one row per"),
        (lambda: session_rows([[0]], 3, times=[[1, 2]]), ValueError, "times must have one per"),
        (lambda: session_rows([[0]], 3, times=[[np.nan]]), ValueError, "times must be finite"),
        (lambda: session_rows([[0.5]], 3), TypeError, "sessions must be integers"),
        (lambda: decayed(sp.csr_array((2, 2)), 1.0), TypeError, "must be Interactions"),
        (
            lambda: decayed(recfuse.Interactions.from_arrays([0], [0]), 1.0),
            ValueError,
            "decayed: interactions must have timestamps; got none",
        ),
        (
            lambda: decayed(recfuse.Interactions.from_arrays([0], [0], timestamps=[9]), 1.0, now=8),
            ValueError,
            "now must be at or after every event",
        ),
        (
            lambda: decayed(recfuse.Interactions.from_arrays([0], [0], timestamps=[9]), -1.0),
            ValueError,
            "half_life must be above 0",
        ),
    ],
)
def test_bad_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
