"""The screens of rounded numbers: the same bytes as float32 in every case."""

from __future__ import annotations

import contextlib
import functools

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

import recfuse
from helpers import assert_same_bytes
from recfuse import _core


@pytest.fixture(params=["avx2", "avx512_vnni"], autouse=True)
def rounding_isa(request):
    """Run every test on the instruction sets that have these screens."""
    if request.param not in _core.available_isas():
        pytest.skip(f"this CPU has no {request.param}")
    before = _core.active_isa()
    _core.set_isa(request.param)
    yield request.param
    _core.set_isa(before)


def under(screen, search):
    """What `search` returns with a screen."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECFUSE_SCREEN", screen)
        return search()


@contextlib.contextmanager
def ordered_by(order):
    """Have the rounded items in an order."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECFUSE_SCREEN_ORDER", order)
        yield


def assert_all_equal(search):
    expected = under("float32", search)
    for screen in ("auto", "int8", "int16"):
        assert_same_bytes(under(screen, search), expected)
    with ordered_by("norms"):
        for screen in ("int8", "int16"):
            assert_same_bytes(under(screen, search), expected)


def vectors(rng, kind, n, dim):
    """Rows that are hard to round, each in its own way."""
    x = rng.standard_normal((n, dim))
    if kind == "positive":
        x = np.abs(x) + 1
    elif kind == "skewed norms":
        x *= np.exp(2 * rng.standard_normal((n, 1)))
    elif kind == "one huge coordinate":
        x[n // 2, dim // 2] = 1e6
    elif kind == "heavy tails":
        x = rng.standard_t(1.5, (n, dim)).clip(-1e9, 1e9)
    elif kind == "tiny":
        x *= 1e-12
    elif kind == "equal rows":
        x[:] = x[0]
    elif kind == "near ties":
        x = x[:1] + 1e-6 * x
    elif kind == "few values":
        x = np.round(x)
    elif kind == "signs":  # the largest products of integers that there are
        x = np.sign(x)
    elif kind == "signs of pairs":  # which meet in one sum of 16 bits
        x = np.sign(x) * (np.arange(dim) % 4 < 2)
    elif kind == "zero rows":
        x[rng.random(n) < 0.5] = 0
    return x.astype(np.float32)


KINDS = [
    "normal",
    "positive",
    "skewed norms",
    "one huge coordinate",
    "heavy tails",
    "tiny",
    "equal rows",
    "near ties",
    "few values",
    "signs",
    "signs of pairs",
    "zero rows",
]


@pytest.mark.parametrize("metric", ["dot", "cosine"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_vector(rng, kind, metric, num_threads):
    items = vectors(rng, kind, 3000, 48)
    queries = np.concatenate([vectors(rng, kind, 40, 48), items[:40]])
    for k in (1, 10, 300):
        assert_all_equal(
            lambda k=k: recfuse.topk(queries, items, k, metric=metric, num_threads=num_threads)
        )


@pytest.mark.parametrize("dim", [32, 64, 96, 128])
@pytest.mark.parametrize("kind", ["normal", "positive", "signs", "signs of pairs", "few values"])
def test_whole_chunks(rng, kind, dim):
    """Of one modality: sums that a kernel of their own adds, in panels of every height."""
    items = vectors(rng, kind, 1200, dim)
    queries = np.concatenate([vectors(rng, kind, 20, dim), items[:5]])
    for n in (1, 2, 3, 5, 25):
        assert_all_equal(lambda n=n: recfuse.topk(queries[:n], items, 20))


@given(
    n_queries=st.integers(1, 67),
    n_items=st.integers(1, 67),
    dims=st.lists(st.integers(1, 67), min_size=1, max_size=3),
    k=st.integers(1, 67),
    seed=st.integers(0, 99),
)
def test_every_shape(n_queries, n_items, dims, k, seed):
    rng = np.random.default_rng(seed)
    items = {str(m): vectors(rng, KINDS[seed % len(KINDS)], n_items, d) for m, d in enumerate(dims)}
    queries = {m: rng.standard_normal((n_queries, x.shape[1])) for m, x in items.items()}
    present = {m: rng.random(n_items) < 0.7 for m in items}
    weights = {m: rng.standard_normal(n_queries) for m in items}
    seen = sp.csr_array((rng.random((n_queries, n_items)) < 0.2).astype(np.float32))

    def search():
        index = recfuse.FusedIndex(items, present=present, num_threads=1 + seed % 2)
        return index.topk(queries, k, weights=weights, exclude=seen, contributions=True)

    assert_all_equal(search)


def test_weights_of_very_different_sizes(rng):
    """The sum of one modality is counted on in another's units: factors from 1 to 2^30."""
    items = {m: vectors(rng, "normal", 2500, d) for m, d in {"a": 9, "b": 160, "c": 33}.items()}
    queries = {m: rng.standard_normal((90, x.shape[1])) for m, x in items.items()}
    weights = {m: 10 ** rng.uniform(-9, 9, 90) * (rng.random(90) < 0.8) for m in items}
    weights["a"][sum(weights.values()) == 0] = 1  # not all of a query may be 0
    for metric in ("dot", "cosine"):
        assert_all_equal(
            lambda metric=metric: recfuse.FusedIndex(items, metric=metric).topk(
                queries, 5, weights=weights
            )
        )


def test_more_queries_and_tiles_than_go_together(rng, num_threads):
    """Items with other modalities are other tiles: 127 of them, in several chunks."""
    names = [f"m{i}" for i in range(7)]
    items = {m: vectors(rng, "normal", 1100, 3) for m in names}
    present = {m: rng.random(1100) < 0.5 for m in names}
    queries = {m: rng.standard_normal((1500, 3)) for m in names}

    def search(part=slice(None)):
        index = recfuse.FusedIndex(items, present=present, num_threads=num_threads)
        return index.topk({m: q[part] for m, q in queries.items()}, 1000)

    assert_all_equal(search)
    for row in (0, 700, 1499):
        one = slice(row, row + 1)
        assert_same_bytes(search(one), tuple(a[one] for a in search()))


@pytest.mark.parametrize("share", [0.1, 0.6])
def test_lists_of_allowed_items(rng, share):
    items, queries = vectors(rng, "normal", 4000, 32), vectors(rng, "normal", 70, 32)
    allowed = np.flatnonzero(rng.random(4000) < share)
    assert_all_equal(lambda: recfuse.topk(queries, items, 20, allow=allowed))
    rows = sp.csr_array((rng.random((70, 4000)) < share).astype(np.float32))
    assert_all_equal(lambda: recfuse.topk(queries, items, 20, allow=rows))


@pytest.mark.parametrize("n_queries", [1, 5, 20])
@pytest.mark.parametrize("kind", ["normal", "skewed norms"])  # one class of sizes, and several
def test_one_list_for_few_queries(rng, kind, n_queries):
    """Gathered or marked, in any order, in whole panels or across their ends."""
    items, queries = vectors(rng, kind, 5000, 32), vectors(rng, "normal", n_queries, 32)
    items[40], items[3000] = np.inf, np.nan  # these are in no tile
    lists = [np.flatnonzero(rng.random(5000) < share) for share in (0.02, 0.1, 0.5)]
    lists += [np.arange(first, last) for first, last in ((31, 33), (100, 1700), (4967, 5000))]
    lists += [rng.permutation(5000)[:900], np.repeat(np.arange(500), 3), np.arange(0)]
    every_row = np.arange(5000)
    for allowed in lists:
        search = functools.partial(recfuse.topk, queries, items, 20)
        assert_all_equal(lambda search=search, allowed=allowed: search(allow=allowed))
        others = np.broadcast_to(~np.isin(every_row, allowed), (n_queries, 5000))
        expected = search(exclude=sp.csr_array(others.astype(np.float32)))
        assert_same_bytes(search(allow=allowed), expected)


@pytest.mark.parametrize("metric", ["dot", "cosine"])
@pytest.mark.parametrize("order", ["ids", "norms"])
@pytest.mark.parametrize("kind, dim", [("normal", 5), ("skewed norms", 64), ("positive", 70)])
def test_an_index_that_answers_from_lists(rng, kind, dim, order, metric):
    """Single queries, time and again: their items come to lie one by one; nobody sees."""
    items, queries = vectors(rng, kind, 5000, dim), vectors(rng, "normal", 24, dim)
    items[40], items[3000] = np.inf, np.nan  # these are in no tile
    seen = sp.csr_array((rng.random((24, 5000)) < 0.1).astype(np.float32))
    plain = under("float32", lambda: recfuse.FusedIndex({"x": items}, metric=metric))
    with ordered_by(order):
        index = under("int8", lambda: recfuse.FusedIndex({"x": items}, metric=metric))
    for q in range(24):
        one, share = {"x": queries[q : q + 1]}, (0.002, 0.05, 0.2, 0.5)[q % 4]
        allowed = rng.permutation(np.flatnonzero(rng.random(5000) < share))
        for exclude in (None, seen[q : q + 1]):
            expected = plain.topk(one, 20, allow=allowed, exclude=exclude)
            assert_same_bytes(index.topk(one, 20, allow=allowed, exclude=exclude), expected)
        if q == 3:
            bytes_of_panels = index.plan()["rounded_bytes"]
    row_bytes = -(-dim // 64) * 64
    assert index.plan()["rounded_bytes"] >= bytes_of_panels + 4998 * row_bytes


def test_an_index_that_is_asked_again_and_again(rng):
    """Its items are rounded, then kept so, then rounded more finely; nobody sees."""
    items, queries = vectors(rng, "normal", 20_000, 300), vectors(rng, "normal", 300, 300)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECFUSE_SCREEN", "float32")
        plain = recfuse.FusedIndex({"x": items})
    assert plain.plan()["reason"] == "RECFUSE_SCREEN asks for it"
    index = recfuse.FusedIndex({"x": items})
    assert (index.plan()["screen"], index.plan()["reason"]) == ("int8", "not tried yet")
    kept = 0
    for k, n, screen in ((1, 300, "int8"), (5, 70, "int8"), (400, 300, "int16"), (5, 300, "int16")):
        expected = plain.topk({"x": queries[:n]}, k)
        assert_same_bytes(index.topk({"x": queries[:n]}, k), expected)
        plan = index.plan()
        assert plan["screen"] == screen and plan["item_bytes"] == items.nbytes
        assert plan["scored_per_query"] >= 1
        assert (
            plan["rounded_bytes"] == kept or items.size <= plan["rounded_bytes"] < 1.1 * items.size
        )
        for q in range(3):
            one = index.topk({"x": queries[q : q + 1]}, k)
            assert_same_bytes(one, tuple(a[q : q + 1] for a in expected))
        kept = index.plan()["rounded_bytes"]
    assert kept >= items.size


def test_another_instruction_set_later(rng, isa, rounding_isa):
    items, queries = vectors(rng, "normal", 2000, 40), vectors(rng, "normal", 70, 40)
    index = recfuse.FusedIndex({"x": items})
    first = index.topk({"x": queries}, 7)
    _core.set_isa(rounding_isa)
    assert_same_bytes(index.topk({"x": queries}, 7), first)
    _core.set_isa(isa)
    assert_same_bytes(index.topk({"x": queries}, 7), first)


def test_the_name_of_the_screen_is_checked(monkeypatch):
    monkeypatch.setenv("RECFUSE_SCREEN", "int4")
    with pytest.raises(ValueError, match="RECFUSE_SCREEN must be auto, float32, int8 or int16"):
        recfuse.FusedIndex({"x": np.eye(3)})


@pytest.mark.parametrize("isa", ["baseline"], indirect=True)
def test_the_plan_names_the_instruction_set(isa, rng):
    index = recfuse.FusedIndex({"x": vectors(rng, "normal", 2000, 8)})
    index.topk({"x": np.ones((100, 8))}, 3)
    assert index.plan() == {
        "screen": "float32",
        "reason": "the instruction set baseline has no integer screen",
        "item_bytes": 2000 * 8 * 4,
        "rounded_bytes": 0,
        "unit_classes": 0,
        "scored_per_query": None,
        "order": "ids",
        "order_reason": "",
        "skipped_by_norm": None,
    }
