"""`recfuse.compat.faiss`, against NumPy in float64 and against FAISS itself."""

from __future__ import annotations

import copy
import pickle
from itertools import pairwise

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import assert_same_bytes, normal
from recfuse.compat import faiss as ours
from recfuse.compat.faiss import METRIC_INNER_PRODUCT, METRIC_L2
from recfuse.compat.faiss._search import ByDistance

METRICS = [METRIC_L2, METRIC_INNER_PRODUCT]
KINDS = {
    "normal": lambda rng, n, d: normal(rng, n, d),
    "whole": lambda rng, n, d: rng.integers(-1, 2, (n, d)).astype(np.float32),
    "equal": lambda rng, n, d: np.ones((n, d), np.float32),
    # Far from the origin, products are large and distances small: the screen sees little of them.
    "far away": lambda rng, n, d: 1000 + normal(rng, n, d),
    "very far": lambda rng, n, d: 100_000 + normal(rng, n, d),
    "of all sizes": lambda rng, n, d: normal(rng, n, d) * 10.0 ** rng.uniform(-12, 12, (n, 1)),
}


def values(queries, items, metric):
    """All distances or products, in float64 and rounded once."""
    a, b = queries.astype(np.float64), items.astype(np.float64)
    if metric == METRIC_L2:
        return np.square(a[:, None] - b[None]).sum(axis=2).astype(np.float32)
    return np.array([[float(sum(x * y)) for y in b] for x in a]).astype(np.float32)


def search(queries, items, metric, k):
    """The definition: best first, equal ones by id, padded."""
    sign = 1 if metric == METRIC_L2 else -1
    found = values(queries, items, metric)
    ids = np.lexsort((np.tile(np.arange(len(items)), (len(queries), 1)), sign * found), axis=1)
    distances = np.full((len(queries), k), sign * np.finfo(np.float32).max, np.float32)
    labels = np.full((len(queries), k), -1, np.int64)
    n = min(k, len(items))
    distances[:, :n] = np.take_along_axis(found, ids, axis=1)[:, :n]
    labels[:, :n] = ids[:, :n]
    return distances, labels


def made(metric, items):
    index = ours.IndexFlat(items.shape[1], metric)
    index.add(items)
    return index


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [1, 7, 200])
def test_distances_are_the_definition(rng, kind, k):
    items = KINDS[kind](rng, 150, 9).astype(np.float32)
    queries = np.vstack([KINDS[kind](rng, 5, 9), items[[3, 3, 149]]]).astype(np.float32)
    want = search(queries, items, METRIC_L2, k)
    assert_same_bytes(made(METRIC_L2, items).search(queries, k), want)
    assert_same_bytes(ours.knn(queries, items, k), want)
    assert (want[0] >= 0).all()


@given(st.integers(0, 2**32), st.sampled_from(sorted(KINDS)), st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_distances_are_the_definition_for_any_data(seed, kind, k):
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(1, 60)), int(rng.integers(1, 20))
    items = KINDS[kind](rng, n, d).astype(np.float32)
    queries = (KINDS[kind](rng, 3, d) if seed % 2 else items[:3]).astype(np.float32)
    assert_same_bytes(
        made(METRIC_L2, items).search(queries, k), search(queries, items, METRIC_L2, k)
    )


@pytest.mark.parametrize("k", [1, 7, 200])
def test_products_are_the_definition(rng, k):
    items, queries = KINDS["whole"](rng, 150, 9), KINDS["whole"](rng, 6, 9)
    want = search(queries, items, METRIC_INNER_PRODUCT, k)
    assert_same_bytes(made(METRIC_INNER_PRODUCT, items).search(queries, k), want)
    assert_same_bytes(ours.knn(queries, items, k, METRIC_INNER_PRODUCT), want)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", METRICS)
def test_ranges_hold_what_a_search_of_all_finds(rng, kind, metric):
    items = KINDS[kind](rng, 90, 9).astype(np.float32)
    queries = np.vstack([KINDS[kind](rng, 5, 9), items[[4, 4]]]).astype(np.float32)
    index = made(metric, items)
    distances, ids = index.search(queries, 90)
    for radius in [float(np.median(distances)), float(distances.max()), 0.0]:
        lims, near, found = index.range_search(queries, radius)
        assert (lims.dtype, near.dtype, found.dtype) == (np.uint64, np.float32, np.int64)
        for i, (first, end) in enumerate(pairwise(lims)):
            inside = distances[i] < np.float32(radius)
            if metric == METRIC_INNER_PRODUCT:
                inside = distances[i] > np.float32(radius)
            order = np.argsort(ids[i][inside])
            np.testing.assert_array_equal(found[first:end], ids[i][inside][order])
            np.testing.assert_array_equal(near[first:end], distances[i][inside][order])


@pytest.mark.parametrize("size", [1e19, 1e25, 3e38, np.inf, np.nan])
@pytest.mark.parametrize("n_far", [1, 40])
def test_rows_that_are_too_long_for_the_screen_cost_no_other(rng, size, n_far):
    items = normal(rng, 40, 9)
    items[3 : 3 + n_far, 2] = size
    queries = np.vstack([normal(rng, 3, 9), items[[3, 39, 39]]])
    queries[5, 0] += 1
    with np.errstate(invalid="ignore", over="ignore"):
        squares = np.square(queries[:, None].astype(np.float64) - items[None]).sum(axis=2)
        squares = squares.astype(np.float32)
    excluded = rng.random(squares.shape) < 0.3
    allowed = np.flatnonzero(rng.random(40) < 0.7)
    for exclude, allow in ((None, None), (excluded, None), (excluded, allowed)):
        want = squares.copy()
        if exclude is not None:
            want[exclude] = np.inf
        if allow is not None:
            want[:, np.setdiff1d(np.arange(40), allow)] = np.inf
        want[np.isnan(want)] = np.inf
        ids = np.argsort(want, axis=1, kind="stable")[:, :20]
        want = np.take_along_axis(want, ids, axis=1)
        filters = {"exclude": None if exclude is None else sp.csr_array(exclude * np.float32(1))}
        distances, found = ByDistance(items).search(queries, 20, allow=allow, **filters)
        assert_same_bytes((distances, found), (want, np.where(want == np.inf, -1, ids)))


def test_equal_rows_have_no_distance_and_blocks_do_not_matter(rng, monkeypatch):
    items = normal(rng, 300, 16) + np.float32(1000)
    index = made(METRIC_L2, items)
    distances, ids = index.search(items, 5)
    np.testing.assert_array_equal(ids[:, 0], np.arange(300))
    assert (distances[:, 0] == 0).all() and (distances >= 0).all()
    monkeypatch.setattr("recfuse.compat.faiss._search._BLOCK", 100)
    assert_same_bytes(index.search(items, 5), (distances, ids))


@pytest.mark.parametrize("metric", METRICS)
def test_an_index_changes(rng, metric):
    items, queries = normal(rng, 30, 4), normal(rng, 3, 4)
    index = ours.IndexFlat(4, metric)
    assert (index.d, index.ntotal, index.is_trained, index.metric_type) == (4, 0, True, metric)
    index.train(items)
    index.add(items[:10])
    index.search(queries, 2)
    part = items[10:].copy()
    index.add(part)
    part[:] = 0  # what was added stays
    assert index.ntotal == 30
    assert_same_bytes(index.search(queries, 4), made(metric, items).search(queries, 4))
    assert index.remove_ids([3, 29, 77, 3]) == 2
    kept = np.delete(items, [3, 29], axis=0)
    assert_same_bytes(index.search(queries, 4), made(metric, kept).search(queries, 4))
    np.testing.assert_array_equal(index.reconstruct(5), kept[5])
    np.testing.assert_array_equal(index.reconstruct_n(5, 3), kept[5:8])
    np.testing.assert_array_equal(index.reconstruct_n(5), kept[5:])
    np.testing.assert_array_equal(index.reconstruct_batch([5, 0, 5]), kept[[5, 0, 5]])
    for other in (copy.deepcopy(index), pickle.loads(pickle.dumps(index))):
        assert_same_bytes(other.search(queries, 4), index.search(queries, 4))
    index.reset()
    distances, ids = index.search(queries, 2)
    assert index.ntotal == 0 and (ids == -1).all()
    assert (abs(distances) == np.finfo(np.float32).max).all()
    assert index.range_search(queries, 1.0)[0].tolist() == [0, 0, 0, 0]


def test_vectors_are_copied():
    class Wrapped:
        def __init__(self, held):
            self.held = held

        def __array__(self, *args, **kwargs):
            return self.held

    for source in (np.ones((2, 3), np.float32), np.ones((2, 3)), np.ones((4, 3), np.float32)[::2]):
        for x in (source, source[:], Wrapped(source)):
            source[:] = 1
            index = ours.IndexFlatL2(3)
            index.add(x)
            source[:] = 7
            assert (index.reconstruct_n() == 1).all()


def test_vectors_come_along(rng):
    items = normal(rng, 5, 3)
    index = made(METRIC_L2, items)
    _, ids, vectors = index.search_and_reconstruct(items[:2], 7)
    np.testing.assert_array_equal(vectors[:, :5], items[ids[:, :5]])
    assert np.isnan(vectors[:, 5:]).all()
    np.testing.assert_array_equal(index.assign(items, 1)[:, 0], np.arange(5))


def test_results_go_where_they_are_asked_for(rng):
    index = made(METRIC_L2, normal(rng, 5, 3))
    queries = normal(rng, 2, 3)
    distances, ids = np.empty((2, 4), np.float32), np.empty((2, 4), np.int64)
    got = index.search(queries, 4, D=distances, I=ids)
    assert got[0] is distances and got[1] is ids
    assert_same_bytes(got, index.search(queries, 4))
    assert index.search(queries[:0], 4)[0].shape == (0, 4)


@pytest.mark.parametrize("metric", METRICS)
def test_ids_of_the_callers(rng, metric):
    items, queries = normal(rng, 30, 4), normal(rng, 3, 4)
    labels = rng.permutation(np.arange(30) * 2**40 - 7)
    flat, index = made(metric, items), ours.IndexIDMap(ours.IndexFlat(4, metric))
    index.add_with_ids(items[:20], labels[:20])
    index.add_with_ids(items[20:], labels[20:])
    distances, rows = flat.search(queries, 35)
    want = distances, np.where(rows < 0, -1, labels[rows])
    assert_same_bytes(index.search(queries, 35), want)
    lims, near, found = index.range_search(queries, 1.5)
    wanted = flat.range_search(queries, 1.5)
    assert_same_bytes((lims, near, found), (*wanted[:2], labels[wanted[2]]))
    np.testing.assert_array_equal(index.reconstruct(int(labels[4])), items[4])
    assert index.remove_ids(labels[[2, 4]]) == 2 and index.ntotal == 28
    np.testing.assert_array_equal(index.id_map, np.delete(labels, [2, 4]))
    with pytest.raises(IndexError, match="key must be an id that was added"):
        index.reconstruct(int(labels[4]))
    index.reset()
    assert index.ntotal == 0 and len(index.id_map) == 0


def test_nan_is_never_found(rng):
    items, queries = normal(rng, 6, 3), normal(rng, 2, 3)
    items[2, 1] = queries[1, 0] = np.nan
    for metric in METRICS:
        _, ids = made(metric, items).search(queries, 6)
        assert set(ids[0]) == {0, 1, 3, 4, 5, -1} and set(ids[1]) == {-1}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda i: i.search(np.ones((1, 4)), 1), ValueError, "search: x must have 3 columns"),
        (lambda i: i.search(np.ones(3), 1), ValueError, "search: x must have 2 dimensions"),
        (lambda i: i.search(np.ones((1, 3)), 0), ValueError, "search: k must be at least 1"),
        (lambda i: i.search(np.ones((1, 3)), 1.0), TypeError, "search: k must be an integer"),
        (lambda i: i.search(np.ones((1, 3)), 1, params=1), ValueError, "params must be None"),
        (
            lambda i: i.search(np.ones((1, 3)), 1, D=np.empty((2, 1), "f")),
            ValueError,
            r"D must be an array of shape \(1, 1\) and dtype float32; got \(2, 1\), float32",
        ),
        (lambda i: i.range_search(np.ones((1, 3)), np.nan), ValueError, "thresh must be a number"),
        (lambda i: i.add([["a", "b", "c"]]), TypeError, "add: x must hold real numbers"),
        (lambda i: i.add_with_ids(np.ones((1, 3)), [1]), RuntimeError, "put IndexIDMap around it"),
        (lambda i: i.reconstruct(5), IndexError, r"key must be in \[0, 5\); got 5"),
        (lambda i: i.reconstruct_n(3, 3), IndexError, r"n0 must be in \[0, 5\]"),
        (lambda i: i.remove_ids([0.5]), TypeError, "x must be integers"),
        (lambda i: ours.IndexFlat(0), ValueError, "IndexFlat: d must be at least 1; got 0"),
        (lambda i: ours.IndexFlat(3, 23), ValueError, "metric must be METRIC_L2 or"),
        (lambda i: ours.IndexIDMap(i), ValueError, "index must be empty; got 5 vectors"),
        (lambda i: ours.IndexIDMap(3), TypeError, "index must be an IndexFlat; got int"),
        (
            lambda i: ours.IndexIDMap(ours.IndexFlatL2(3)).add_with_ids(np.ones((2, 3)), [1]),
            ValueError,
            "ids must be 2, one a vector; got 1",
        ),
        (
            lambda i: ours.IndexIDMap(ours.IndexFlatL2(3)).add(np.ones((2, 3))),
            RuntimeError,
            "call add_with_ids",
        ),
        (lambda i: ours.knn(np.ones((1, 2)), np.ones((2, 3)), 1), ValueError, "xq must have 3"),
    ],
)
def test_errors(rng, call, error, message):
    with pytest.raises(error, match=message):
        call(made(METRIC_L2, normal(rng, 5, 3)))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("n", "d", "k"), [(2000, 32, 10), (50, 5, 70), (3000, 8, 150)])
def test_equals_the_library(rng, metric, n, d, k):
    library = pytest.importorskip("faiss", reason="faiss-cpu is not installed")
    items, queries = normal(rng, n, d), normal(rng, 30, d)
    theirs, index = library.IndexFlat(d, metric), made(metric, items)
    theirs.add(items)
    want, got = theirs.search(queries, k), index.search(queries, k)
    assert [a.dtype for a in got] == [a.dtype for a in want]
    np.testing.assert_array_equal(got[1], want[1])
    np.testing.assert_allclose(got[0], want[0], rtol=1e-4, atol=1e-5)
    radius = float(np.median(want[0][:, 5]))
    want, got = theirs.range_search(queries, radius), index.range_search(queries, radius)
    assert [a.dtype for a in got] == [a.dtype for a in want]
    np.testing.assert_array_equal(got[0], want[0])
    np.testing.assert_array_equal(got[2], want[2])


def test_settings():
    before = ours.omp_get_max_threads()
    try:
        ours.omp_set_num_threads(1)
        assert ours.omp_get_max_threads() == 1
    finally:
        ours.omp_set_num_threads(before)
    for wrong, error in ((0, ValueError), (1.5, TypeError)):
        with pytest.raises(error, match="omp_set_num_threads: num_threads must be"):
            ours.omp_set_num_threads(wrong)
    index = ours.IndexIDMap(ours.IndexFlatL2(2))
    index.add_with_ids(np.array([[0, 0], [1, 0], [0, 2]], np.float32), np.array([10, 20, 30]))
    query = np.zeros((1, 2), np.float32)
    for told in (None, ours.SearchParameters()):
        assert index.range_search(query, 3.0, params=told)[2].tolist() == [10, 20]
    with pytest.raises(ValueError, match="params must be None"):
        index.search(query, 1, params=ours.SearchParameters(sel=object()))
