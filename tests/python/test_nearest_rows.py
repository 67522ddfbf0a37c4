"""Squared distances of candidates, and rows in range, against the definition."""

from __future__ import annotations

import numpy as np
import pytest

from recfuse import _core

KINDS = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "whole": lambda rng, shape: rng.integers(-1, 2, shape),
    "far away": lambda rng, shape: 1e5 + rng.standard_normal(shape),
    "tiny": lambda rng, shape: rng.standard_normal(shape) * 1e-22,
    "huge": lambda rng, shape: rng.standard_normal(shape) * 1e19,
    "not finite": lambda rng, shape: rng.choice([1, 2, np.nan, np.inf, -np.inf, 3e38], shape),
}


def rows_of(rng, kind, n, dim):
    return KINDS[kind](rng, (n, dim)).astype(np.float32)


def canonical(terms):
    """The sum of the terms of a row in eight lanes."""
    lanes = np.zeros(8)
    for i, term in enumerate(terms):
        lanes[i % 8] += term
    a, b, c, d = lanes[:4] + lanes[4:]
    return np.float32((a + c) + (b + d))


@np.errstate(invalid="ignore", over="ignore")
def defined(queries, items, products):
    a, b = queries.astype(np.float64), items.astype(np.float64)
    terms = a[:, None] * b[None] if products else np.square(a[:, None] - b[None])
    return np.array([[canonical(pair) for pair in row] for row in terms], np.float32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", [1, 7, 16, 41])
@pytest.mark.parametrize("products", [False, True])
def test_ranges_are_the_definition(isa, rng, num_threads, kind, dim, products):
    items = rows_of(rng, kind, 131, dim)
    queries = np.vstack([rows_of(rng, kind, 6, dim), items[[3, 130]]])
    values = defined(queries, items, products)
    # What some pairs have exactly is left out; what they have a little less or more of is not.
    finite = values[np.isfinite(values)]
    limits = np.quantile(finite, [0.1, 0.5, 1], method="nearest") if len(finite) else finite
    nearly = np.nextafter(limits, np.float32(-np.inf if products else np.inf))
    for limit in (*limits.tolist(), *nearly.tolist(), 0.0, -1.0, 2.5e38, np.inf, -np.inf):
        inside = values > np.float32(limit) if products else values < np.float32(limit)
        lims, ids, found = _core.rows_in_range(
            queries, items, limit, products=products, num_threads=num_threads
        )
        np.testing.assert_array_equal(lims, np.append(0, np.cumsum(inside.sum(axis=1))))
        np.testing.assert_array_equal(ids, np.nonzero(inside)[1])
        np.testing.assert_array_equal(found, values[inside])
        assert (lims.dtype, ids.dtype, found.dtype) == (np.int64, np.int32, np.float32)


def test_ranges_of_many_queries_and_items(rng, num_threads):
    items, queries = rows_of(rng, "normal", 5000, 20), rows_of(rng, "normal", 150, 20)
    values = np.square(queries[:, None].astype(float) - items[None]).sum(axis=2)
    for limit in (10.0, 200.0):  # a few, and nearly all
        lims, ids, _ = _core.rows_in_range(
            queries, items, limit, products=False, num_threads=num_threads
        )
        np.testing.assert_array_equal(ids, np.nonzero(values < limit)[1])
        np.testing.assert_array_equal(np.diff(lims), (values < limit).sum(axis=1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", [1, 16, 41])
def test_the_nearest_candidates_are_the_definition(isa, rng, num_threads, kind, dim):
    items = rows_of(rng, kind, 90, dim)
    queries = np.vstack([rows_of(rng, kind, 30, dim), items[[3, 89]]])
    values = defined(queries, items, products=False)
    candidates = np.array([rng.permutation(90)[:40] for _ in queries], np.int32)
    candidates[rng.random(candidates.shape) < 0.1] = -1
    for k in (1, 7, 45):
        ids, distances = _core.nearest_candidates(
            queries, items, candidates, k, num_threads=num_threads
        )
        for q, row in enumerate(candidates):
            own = np.sort(row[row >= 0])
            own = own[values[q, own] < np.inf]
            own = own[np.argsort(values[q, own], kind="stable")][:k]
            pad = k - len(own)
            np.testing.assert_array_equal(ids[q], np.append(own, np.full(pad, -1)))
            wanted = np.append(values[q, own], np.full(pad, np.inf))
            np.testing.assert_array_equal(distances[q], wanted)
    assert not np.signbit(distances).any()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda q, x: _core.rows_in_range(q[:, :2].copy(), x, 1, products=False, num_threads=1),
            ValueError,
            "rows_in_range: items must have 2 columns like queries; got 3",
        ),
        (
            lambda q, x: _core.rows_in_range(q, x, np.nan, products=False, num_threads=1),
            ValueError,
            "rows_in_range: limit must be a number; got nan",
        ),
        (
            lambda q, x: _core.rows_in_range(q, x, 1, products=True, num_threads=-1),
            ValueError,
            "rows_in_range: num_threads must be at least 0; got -1",
        ),
        (
            lambda q, x: _core.nearest_candidates(q, x, np.full((2, 2), 5, "i4"), 1, num_threads=1),
            IndexError,
            r"nearest_candidates: candidates must be in \[-1, 5\); got 5",
        ),
        (
            lambda q, x: _core.nearest_candidates(q, x, np.zeros((3, 2), "i4"), 1, num_threads=1),
            ValueError,
            "nearest_candidates: candidates must have 2 rows like queries; got 3",
        ),
        (
            lambda q, x: _core.nearest_candidates(q, x, np.zeros((2, 2), "i4"), 0, num_threads=1),
            ValueError,
            "nearest_candidates: k must be at least 1; got 0",
        ),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=f"^{message}"):
        call(np.ones((2, 3), np.float32), np.ones((5, 3), np.float32))
