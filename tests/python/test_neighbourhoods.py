"""Queries that look at their neighbourhoods first: the same bytes, sooner."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

import recfuse
from helpers import assert_same_bytes, normal
from recfuse import _core
from reference import topk

N_ITEMS, DIM = 4400, 20


@pytest.fixture(params=["avx2", "avx512_vnni"], autouse=True)
def rounding_isa(request, monkeypatch):
    """Run every test on the instruction sets that have a screen of int8, with that screen."""
    if request.param not in _core.available_isas():
        pytest.skip(f"this CPU has no {request.param}")
    monkeypatch.setenv("RECFUSE_SCREEN", "int8")
    before = _core.active_isa()
    _core.set_isa(request.param)
    yield request.param
    _core.set_isa(before)


def some_items(rng, kind, dim=DIM):
    """Items that point where others do."""
    if kind == "one line":  # a spectrum of one direction
        return normal(rng, N_ITEMS, 1) * normal(rng, 1, dim)
    if kind == "a plane":
        return normal(rng, N_ITEMS, 2) @ normal(rng, 2, dim)
    if kind == "few directions":  # hundreds of ties in every list
        return np.round(normal(rng, 12, dim) * 3)[rng.integers(0, 12, N_ITEMS)]
    if kind == "one direction":
        return np.ones((N_ITEMS, dim), np.float32)
    centres = normal(rng, 60, dim)[rng.integers(0, 60, N_ITEMS)]
    items = centres + np.float32(0.3) * normal(rng, N_ITEMS, dim)
    if kind == "half zeros":
        items[rng.random(N_ITEMS) < 0.5] = 0
    if kind == "all sizes":
        items *= np.exp(3 * rng.standard_normal((N_ITEMS, 1))).astype(np.float32)
    if kind == "one off":  # alone in its neighbourhood, which is shorter than the list
        items[7] = -100 * centres[0]
    if kind == "not finite":  # some have no direction
        items[300::97], items[301::97] = np.nan, 1e30
    return items


KINDS = [
    "clusters",
    "one line",
    "a plane",
    "few directions",
    "one direction",
    "half zeros",
    "all sizes",
    "one off",
    "not finite",
]


def asked_before(items, num_threads=0):
    """An index that knows its neighbourhoods: it keeps a rounded copy from the second call on."""
    index = recfuse.FusedIndex({"v": items}, num_threads=num_threads)
    for _ in range(2):
        index.topk({"v": np.concatenate([items[:280]])}, 3)
    return index


def without(items, queries, k, **rule):
    """Return what a scan in float32 finds, which knows no neighbourhoods."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECFUSE_SCREEN", "float32")
        index = recfuse.FusedIndex({"v": items})
    return index.topk({"v": queries}, k, **rule)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_neighbourhood(rng, kind, num_threads):
    items = some_items(rng, kind).astype(np.float32)
    index = asked_before(items, num_threads)
    assert index.plan()["order"] == "neighbourhoods"
    none, others = np.zeros((1, DIM), np.float32), normal(rng, 20, DIM)
    queries = np.concatenate([items[:40], -items[:9], others, none])
    for k in (1, 10, 32, 33, 600):
        assert_same_bytes(index.topk({"v": queries}, k), without(items, queries, k))
    for query in (items[7:8], others[:1], none):
        assert_same_bytes(index.topk({"v": query}, 10), without(items, query, 10))
    expected = topk(queries[::10], items, 10, metric="cosine")
    assert_same_bytes(index.topk({"v": queries[::10]}, 10), expected)


def test_lists_that_are_longer_than_the_nearest_neighbourhood(rng, num_threads):
    """Of 440 items in 14 panels, the last of them not full; all others point elsewhere.

    Nothing of that panel may count as an item: its score is that of the mean, which is above that
    of all others.
    """
    along, aside = np.eye(2, DIM, dtype=np.float32)
    items = np.tile(along, (4408, 1))
    items[np.sort(rng.permutation(4408)[:440])] = aside
    items[:2] = aside, along
    index = asked_before(items, num_threads)
    assert index.plan()["order"] == "neighbourhoods"
    n = int((items == aside).all(axis=1).sum())
    queries = np.stack([aside, along + 2 * aside, -along])
    for k in (1, 20, n - 1, n, n + 1, n + 8, n + 20):
        assert_same_bytes(index.topk({"v": queries}, k), without(items, queries, k))


def test_many_queries(rng, num_threads):
    """In blocks, against an index that is asked for the first time."""
    items = some_items(rng, "clusters")
    index = asked_before(items, num_threads)
    got = index.topk({"v": items[:2000]}, 10)
    assert_same_bytes(got, without(items, items[:2000], 10))
    assert index.plan()["order"] == "neighbourhoods"


@pytest.mark.parametrize("dim", [DIM, 32])
def test_queries_in_any_order(rng, num_threads, dim):
    """They are sorted by neighbourhood, some are not scanned, and answers go where they belong."""
    items = some_items(rng, "clusters", dim)
    index = asked_before(items, num_threads)
    queries = np.concatenate([items[:300], normal(rng, 100, dim)])
    queries[::7] = 0
    queries[3::50] *= np.float32(1e30)  # the screen cannot judge it
    queries = queries[rng.permutation(len(queries))]
    for n in (2, 15, 400):
        assert_same_bytes(index.topk({"v": queries[:n]}, 10), without(items, queries[:n], 10))
    parts = {"contributions": True}
    assert_same_bytes(index.topk({"v": queries}, 10, **parts), without(items, queries, 10, **parts))
    weights = {"weights": {"v": rng.standard_normal(len(queries))}}
    assert_same_bytes(
        index.topk({"v": queries}, 10, **weights), without(items, queries, 10, **weights)
    )


def test_a_negative_weight(rng):
    """The best items are those that point the other way."""
    items = some_items(rng, "clusters")
    index = asked_before(items)
    got = index.topk({"v": items[:50]}, 10, weights={"v": -2.0})
    assert_same_bytes(got, without(items, items[:50], 10, weights={"v": -2.0}))


def test_what_a_query_may_not_get(rng, num_threads):
    """Its neighbourhood, above all: what it reaches says nothing then."""
    items = some_items(rng, "clusters")
    index = asked_before(items, num_threads)
    queries = items[:30]
    unit = items / np.linalg.norm(items, axis=1, keepdims=True)
    refused = unit[:30] @ unit.T > 0.2
    allowed = np.flatnonzero(rng.random(N_ITEMS) < 0.4)
    for rule in ({"exclude": sp.csr_array(refused.astype(np.float32))}, {"allow": allowed}):
        for k in (5, 40):
            got = index.topk({"v": queries}, k, **rule)
            assert_same_bytes(got, without(items, queries, k, **rule))


@pytest.mark.parametrize("kind", ["everywhere", "missing", "two modalities", "dot"])
def test_where_there_are_none(rng, kind):
    """Vectors that point everywhere, and searches that are not a cosine of all items."""
    items = some_items(rng, "clusters")
    modalities, options = {"v": items}, {}
    if kind == "everywhere":
        modalities = {"v": normal(rng, N_ITEMS, 64)}
    elif kind == "missing":
        options["present"] = {"v": rng.random(N_ITEMS) < 0.9}
    elif kind == "two modalities":
        modalities["w"] = items[::-1].copy()
    else:
        options["metric"] = "dot"
    queries = {name: x[:300] for name, x in modalities.items()}
    index = recfuse.FusedIndex(modalities, **options)
    first = index.topk(queries, 10)
    for _ in range(2):
        assert_same_bytes(index.topk(queries, 10), first)
    assert index.plan()["order"] != "neighbourhoods"


def test_an_order_that_is_asked_for(rng, monkeypatch):
    monkeypatch.setenv("RECFUSE_SCREEN_ORDER", "ids")
    assert asked_before(some_items(rng, "clusters")).plan()["order"] == "ids"
