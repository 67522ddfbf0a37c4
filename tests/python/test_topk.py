"""Retrieval of one modality against its specification: same ids, same bits."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import recfuse
import reference
from helpers import assert_same_bytes, normal, random_pattern
from recfuse import _core


@pytest.mark.parametrize("metric", ["dot", "cosine"])
@pytest.mark.parametrize(
    ("n_queries", "n_items", "dim", "k"),
    [
        (1, 1, 1, 1),
        (1, 700, 33, 10),  # single query: rows, not panels
        (7, 64, 8, 64),
        (20, 300, 17, 5),
        (33, 1500, 64, 100),
        (15, 50, 3, 60),  # k > n_items: padding
        (600, 90, 5, 3),  # more queries than one block
    ],
)
def test_matches_the_reference(screen, num_threads, rng, metric, n_queries, n_items, dim, k):
    queries, items = normal(rng, n_queries, dim), normal(rng, n_items, dim)
    got = recfuse.topk(queries, items, k, metric=metric, num_threads=num_threads)
    assert_same_bytes(got, reference.topk(queries, items, k, metric=metric))


@pytest.mark.parametrize("n_queries", [1, 40])
def test_equal_items_rank_by_id(screen, num_threads, rng, n_queries):
    queries, items = normal(rng, n_queries, 16), np.repeat(normal(rng, 3, 16), 400, axis=0)
    got = recfuse.topk(queries, items, 25, num_threads=num_threads)
    assert_same_bytes(got, reference.topk(queries, items, 25))


def test_scores_closer_than_the_screen_can_tell(screen, rng):
    """Items that differ in the last bit of one element only: the order is that of float64."""
    base = normal(rng, 1, 48)
    items = np.repeat(base, 900, axis=0)
    columns = rng.integers(0, 48, 900)
    rows = np.arange(900)
    items[rows, columns] = np.nextafter(
        items[rows, columns], rng.choice([-9, 9], 900).astype(np.float32)
    )
    queries = normal(rng, 20, 48)
    assert_same_bytes(recfuse.topk(queries, items, 30), reference.topk(queries, items, 30))


@pytest.mark.parametrize("metric", ["dot", "cosine"])
def test_queries_of_zeros(screen, num_threads, rng, metric):
    """All items tie; those with a NaN or an infinity still do not rank."""
    items = normal(rng, 700, 6)
    items[3, 1], items[5, 2] = np.nan, np.inf
    queries = normal(rng, 30, 6)
    queries[::2] = 0
    exclude, dense = random_pattern(rng, 30, 700, 0.4)
    for k, allow in ((9, None), (500, None), (9, np.arange(1, 700, 3)[::-1]), (9, np.arange(690))):
        admitted = ~dense
        if allow is not None:
            admitted &= np.isin(np.arange(700), allow)
        got = recfuse.topk(
            queries, items, k, metric=metric, exclude=exclude, allow=allow, num_threads=num_threads
        )
        assert_same_bytes(got, reference.topk(queries, items, k, metric=metric, admitted=admitted))


@pytest.mark.parametrize("order", ["ascending", "descending"])
def test_sorted_scores(screen, rng, order):
    """Ascending scores make every item a new best one."""
    items = normal(rng, 3000, 4) * 1e-3
    items[:, 0] = np.linspace(0, 1, 3000) if order == "ascending" else np.linspace(1, 0, 3000)
    queries = np.abs(normal(rng, 12, 4))
    assert_same_bytes(recfuse.topk(queries, items, 7), reference.topk(queries, items, 7))


@pytest.mark.parametrize("n_queries", [2, 30])
def test_exclude(screen, num_threads, rng, n_queries):
    queries, items = normal(rng, n_queries, 12), normal(rng, 800, 12)
    exclude, dense = random_pattern(rng, n_queries, 800, 0.5)
    got = recfuse.topk(queries, items, 20, exclude=exclude, num_threads=num_threads)
    assert_same_bytes(got, reference.topk(queries, items, 20, admitted=~dense))
    assert not dense[np.arange(n_queries)[:, None], got[0]].any()


def test_two_excluded_items_among_many(screen, num_threads, rng):
    queries, items = normal(rng, 20, 12), normal(rng, 4000, 12)
    best, _ = reference.topk(queries, items, 3)
    excluded = np.zeros((20, 4000), bool)
    excluded[np.arange(20), (best[:, 0] + 2048) % 4000] = True
    excluded[np.arange(20), best[:, 1]] = True
    got = recfuse.topk(
        queries,
        items,
        30,
        exclude=sp.csr_array(excluded, dtype=np.float32),
        num_threads=num_threads,
    )
    assert_same_bytes(got, reference.topk(queries, items, 30, admitted=~excluded))


@pytest.mark.parametrize("n_items", [31, 32, 33, 33_000])
def test_excluded_at_the_edges_of_panels(screen, num_threads, rng, n_items):
    """The best of every query, around multiples of 32; 33,000 are more than are marked at once."""
    queries, items = normal(rng, 17, 5), normal(rng, n_items, 5)
    edges = np.unique(np.arange(0, n_items + 32, 32)[:, None] + [-1, 0, 1])
    edges = edges[(edges >= 0) & (edges < n_items)]
    items[edges] *= 8
    excluded = np.zeros((17, n_items), bool)
    excluded[:, edges] = rng.random((17, len(edges))) < 0.7
    excluded[3], excluded[4] = True, False
    exclude = sp.csr_array(excluded.astype(np.float32))
    for allowed in (None, np.arange(0, n_items, 2)):
        admitted = ~excluded
        if allowed is not None:
            admitted[:, 1::2] = False
        got = recfuse.topk(
            queries, items, 9, exclude=exclude, allow=allowed, num_threads=num_threads
        )
        assert_same_bytes(got, reference.topk(queries, items, 9, admitted=admitted))


def test_excluded_out_of_order_and_twice(screen, num_threads, rng):
    queries, items = normal(rng, 30, 6), normal(rng, 700, 6)
    columns = rng.integers(0, 700, (30, 90))
    exclude = sp.csr_array(
        (np.ones(columns.size, np.float32), columns.ravel(), np.arange(0, columns.size + 1, 90)),
        shape=(30, 700),
    )
    excluded = np.zeros((30, 700), bool)
    np.put_along_axis(excluded, columns, True, 1)
    got = recfuse.topk(queries, items, 20, exclude=exclude, num_threads=num_threads)
    assert_same_bytes(got, reference.topk(queries, items, 20, admitted=~excluded))


def test_excluding_everything_leaves_padding(rng):
    exclude = sp.csr_array(np.ones((2, 5), np.float32))
    ids, scores = recfuse.topk(normal(rng, 2, 3), normal(rng, 5, 3), 4, exclude=exclude)
    assert (ids == -1).all()
    assert np.isneginf(scores).all()


def test_a_stored_zero_excludes(rng):
    exclude = sp.csr_array((np.zeros(1, np.float32), [0], [0, 1]), shape=(1, 2))
    ids, _ = recfuse.topk([[1.0]], [[2.0], [1.0]], 2, exclude=exclude)
    assert ids.tolist() == [[1, -1]]


@pytest.mark.parametrize("density", [0.003, 0.05, 0.6])
def test_allow_per_query(screen, num_threads, rng, density):
    queries, items = normal(rng, 25, 12), normal(rng, 900, 12)
    allow, dense = random_pattern(rng, 25, 900, density)
    exclude, excluded = random_pattern(rng, 25, 900, 0.3)
    got = recfuse.topk(queries, items, 20, allow=allow, exclude=exclude, num_threads=num_threads)
    assert_same_bytes(got, reference.topk(queries, items, 20, admitted=dense & ~excluded))


@pytest.mark.parametrize("n_allowed", [0, 1, 37, 500])
def test_allow_for_all(screen, num_threads, rng, n_allowed):
    queries, items = normal(rng, 25, 12), normal(rng, 500, 12)
    allow = rng.permutation(500)[:n_allowed]
    admitted = np.zeros((25, 500), bool)
    admitted[:, allow] = True
    repeated = np.concatenate([allow, allow[:3]])
    got = recfuse.topk(queries, items, 20, allow=repeated, num_threads=num_threads)
    assert_same_bytes(got, reference.topk(queries, items, 20, admitted=admitted))


SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, 1e-38, 1e-20, 1e30, 3.4e38, -3.4e38]


@pytest.mark.parametrize("metric", ["dot", "cosine"])
@pytest.mark.parametrize("n_queries", [3, 16])
def test_values_outside_the_range_of_the_screen(screen, num_threads, rng, metric, n_queries):
    items = normal(rng, 400, 9)
    rows = rng.choice(400, 150, replace=False)
    items[rows, rng.integers(0, 9, 150)] = rng.choice(SPECIAL, 150)
    items[rows[:20]] = 0
    items[rows[20:40]] *= np.float32(1e-35)
    queries = normal(rng, n_queries, 9)
    queries[0] = 0
    queries[1, 0] = np.nan
    queries[2] *= np.float32(1e30)
    got = recfuse.topk(queries, items, 50, metric=metric, num_threads=num_threads)
    assert_same_bytes(got, reference.topk(queries, items, 50, metric=metric))
    assert not np.isnan(got[1]).any()


def test_norms_of_very_different_size(screen, rng):
    items = normal(rng, 2000, 24) * np.exp(rng.uniform(-25, 25, (2000, 1))).astype(np.float32)
    queries = normal(rng, 17, 24) * np.exp(rng.uniform(-25, 25, (17, 1))).astype(np.float32)
    assert_same_bytes(recfuse.topk(queries, items, 40), reference.topk(queries, items, 40))


def test_many_dimensions(screen, rng):
    queries, items = normal(rng, 9, 5000), normal(rng, 130, 5000)
    assert_same_bytes(recfuse.topk(queries, items, 5), reference.topk(queries, items, 5))


def test_same_bytes_for_every_thread_count_and_isa(rng):
    queries, items = normal(rng, 300, 40), normal(rng, 5000, 40)
    exclude, _ = random_pattern(rng, 300, 5000, 0.02)
    before = _core.active_isa()
    results = []
    for isa in _core.available_isas():
        _core.set_isa(isa)
        for num_threads in (1, 2, 7):
            results.append(
                recfuse.topk(queries, items, 50, exclude=exclude, num_threads=num_threads)
            )
    _core.set_isa(before)
    for result in results[1:]:
        assert_same_bytes(result, results[0])


small_floats = st.floats(-8, 8, width=16)


@given(
    queries=hnp.arrays(np.float32, (3, 4), elements=small_floats),
    items=hnp.arrays(np.float32, (40, 4), elements=small_floats),
    k=st.integers(1, 45),
)
def test_prefix_and_permutation(queries, items, k):
    """The first k of a longer list are the list of k; permuted items give permuted ids."""
    ids, scores = recfuse.topk(queries, items, 45)
    assert_same_bytes(
        recfuse.topk(queries, items, k),
        (np.ascontiguousarray(ids[:, :k]), np.ascontiguousarray(scores[:, :k])),
    )
    order = np.arange(40)[::-1]
    _, permuted_scores = recfuse.topk(queries, items[order], 45)
    np.testing.assert_array_equal(permuted_scores, scores)


@given(batch=st.integers(1, 30))
def test_batches_give_the_same_bytes(batch):
    rng = np.random.default_rng(5)
    queries, items = normal(rng, 30, 10), normal(rng, 200, 10)
    whole = recfuse.topk(queries, items, 9)
    parts = [recfuse.topk(queries[i : i + batch], items, 9) for i in range(0, 30, batch)]
    assert_same_bytes(tuple(np.concatenate(p) for p in zip(*parts, strict=True)), whole)


def test_shards_merge_to_the_whole(rng):
    queries, items = normal(rng, 11, 10), np.round(normal(rng, 600, 10))
    whole = recfuse.topk(queries, items, 15)
    merged = []
    for begin in range(0, 600, 200):
        ids, scores = recfuse.topk(queries, items[begin : begin + 200], 15)
        merged.append((ids + begin, scores))
    ids = np.concatenate([m[0] for m in merged], axis=1)
    scores = np.concatenate([m[1] for m in merged], axis=1)
    order = np.lexsort((ids, -scores), axis=1)[:, :15]
    got = tuple(np.ascontiguousarray(np.take_along_axis(a, order, 1)) for a in (ids, scores))
    assert_same_bytes(got, whole)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i1", "u2", "i8", "?", ">f4", "g"])
def test_every_real_dtype(rng, dtype):
    items = rng.integers(0, 2, (50, 6)).astype(dtype)
    expected = recfuse.topk(np.eye(6, dtype=np.float32), items.astype(np.float32), 5)
    assert_same_bytes(recfuse.topk(np.eye(6), items, 5), expected)


def test_every_layout(rng, tmp_path):
    items = normal(rng, 60, 8)
    queries = normal(rng, 4, 8)
    expected = recfuse.topk(queries, items, 5)
    read_only = items.copy()
    read_only.flags.writeable = False
    np.save(tmp_path / "items.npy", items)
    wide = np.zeros((120, 16), np.float32)
    wide[::2, ::2] = items
    bytes_off = np.empty(items.nbytes + 1, np.uint8)[1:].view(np.float32)
    misaligned = bytes_off.reshape(items.shape)
    misaligned[:] = items
    layouts = {
        "fortran": np.asfortranarray(items),
        "strided": wide[::2, ::2],
        "reversed": items[::-1][::-1],
        "read-only": read_only,
        "memory-mapped": np.load(tmp_path / "items.npy", mmap_mode="r"),
        "misaligned": misaligned,
        "list": items.tolist(),
    }
    for name, layout in layouts.items():
        assert_same_bytes(recfuse.topk(queries, layout, 5), expected), name


@pytest.mark.parametrize("container", [sp.csr_matrix, sp.csr_array, sp.csc_array, sp.coo_matrix])
def test_every_sparse_container(rng, container):
    queries, items = normal(rng, 6, 8), normal(rng, 60, 8)
    exclude, dense = random_pattern(rng, 6, 60, 0.4)
    expected = reference.topk(queries, items, 10, admitted=~dense)
    assert_same_bytes(recfuse.topk(queries, items, 10, exclude=container(exclude)), expected)


def test_inputs_are_left_alone(rng):
    queries, items = normal(rng, 6, 8), normal(rng, 60, 8)
    exclude = sp.csr_array(
        (np.ones(3, np.float32), np.array([5, 2, 2]), np.array([0, 3, 3, 3, 3, 3, 3])),
        shape=(6, 60),
    )
    before = [a.copy() for a in (queries, items, exclude.indices, exclude.indptr, exclude.data)]
    recfuse.topk(queries, items, 3, exclude=exclude)
    after = [queries, items, exclude.indices, exclude.indptr, exclude.data]
    for b, a in zip(before, after, strict=True):
        np.testing.assert_array_equal(b, a)


def test_no_items_and_no_queries():
    ids, scores = recfuse.topk(np.zeros((2, 3)), np.zeros((0, 3)), 2)
    assert (ids == -1).all() and np.isneginf(scores).all()
    ids, scores = recfuse.topk(np.zeros((0, 3)), np.zeros((5, 3)), 2)
    assert ids.shape == scores.shape == (0, 2)


ITEMS = np.ones((4, 3), np.float32)
QUERIES = np.ones((2, 3), np.float32)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"k": 0}, ValueError, "topk: k must be at least 1; got 0"),
        ({"k": -1}, ValueError, "k must be at least 1; got -1"),
        ({"k": 2.0}, TypeError, "k must be an integer; got 2.0"),
        ({"k": 2**70}, ValueError, "k must be at most 2147483647"),
        (
            {"items": np.full((4, 3), 1e300)},
            ValueError,
            r"items must fit into float32; got 1e\+300",
        ),
        ({"k": True}, TypeError, "k must be an integer; got True"),
        ({"metric": "l2"}, ValueError, "^topk: metric must be one of 'dot', 'cosine'; got 'l2'"),
        ({"metric": None}, TypeError, "metric must be a string; got None"),
        ({"k": 2**31}, ValueError, "k must be at most 2147483647; got 2147483648"),
        ({"k": 2**70}, ValueError, "k must be at most 2147483647; got 1180591620717411303424"),
        ({"num_threads": -1}, ValueError, "num_threads must be at least 0; got -1"),
        ({"queries": np.ones((2, 4))}, ValueError, "queries must have 3 columns like items; got 4"),
        ({"queries": np.ones(3)}, ValueError, r"queries must have 2 dimensions; got shape \(3,\)"),
        ({"items": np.ones((4, 3), complex)}, TypeError, "items must hold real numbers"),
        ({"items": [["a"] * 3]}, TypeError, "items must hold real numbers"),
        ({"items": np.ones((4, 3), object)}, TypeError, "items must hold real numbers"),
        ({"items": sp.csr_array(ITEMS)}, TypeError, "items must be a dense array; got csr_array"),
        ({"items": np.ones((4, 0)), "queries": np.ones((2, 0))}, ValueError, "at least 1 column"),
        (
            {"exclude": sp.csr_array((3, 4), dtype="f4")},
            ValueError,
            r"exclude must have shape \(2, 4\) \(queries, items\); got \(3, 4\)",
        ),
        ({"exclude": np.ones((2, 4))}, TypeError, "exclude must be a SciPy sparse"),
        ({"exclude": [1]}, TypeError, "exclude must be a SciPy sparse"),
        ({"allow": [4]}, IndexError, r"allow\[0\] must be in \[0, 4\); got 4"),
        ({"allow": [-1]}, IndexError, "allow must hold item ids; got -1"),
        ({"allow": [2**40]}, IndexError, "allow must hold item ids"),
        ({"allow": [0.5]}, TypeError, "allow must be integers; got dtype float64"),
        ({"allow": [[1]]}, ValueError, "allow must have at most 1 dimension"),
        ({"device": "gpu"}, ValueError, "device must be 'auto', 'cpu', 'cuda', .*; got 'gpu'"),
    ],
)
def test_bad_arguments_are_named(change, error, message):
    arguments = {"queries": QUERIES, "items": ITEMS, "k": 2, **change}
    with pytest.raises(error, match=message):
        recfuse.topk(
            arguments.pop("queries"), arguments.pop("items"), arguments.pop("k"), **arguments
        )


@pytest.mark.parametrize(
    ("indptr", "indices", "message"),
    [
        ([0, 2, 1], [0, 1], "indptr"),
        ([1, 1, 2], [0, 1], "indptr"),
        ([0, 1, 2], [0, 9], r"column indices in \[0, 4\); got 9"),
        ([0, 1, 2], [0, -1], r"column indices in \[0, 4\); got -1"),
    ],
)
def test_a_broken_csr_is_refused(indptr, indices, message):
    broken = sp.csr_array((2, 4), dtype=np.float32)
    broken.indptr, broken.indices = np.array(indptr), np.array(indices)
    broken.data = np.ones(len(indices), np.float32)
    with pytest.raises(ValueError, match=message):
        recfuse.topk(QUERIES, ITEMS, 2, exclude=broken)
