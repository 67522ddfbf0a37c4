"""Items from the longest down: the same bytes, sooner."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

import recfuse
from helpers import assert_same_bytes, normal, random_pattern
from recfuse import _core
from reference import topk


@pytest.fixture(params=["auto", "norms"])
def order(request, monkeypatch):
    """Let a sample choose the order, or force it."""
    monkeypatch.setenv("RECFUSE_SCREEN_ORDER", request.param)
    return request.param


def directions(rng, n, dim):
    x = rng.standard_normal((n, dim))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def sizes(rng, kind, n):
    """Norms that are easy or hard to stop at."""
    if kind == "the same":
        return np.ones(n)
    if kind == "one huge":
        return np.where(np.arange(n) == n - 3, 1e6, 1.0)
    if kind == "rising":
        return np.geomspace(1e-3, 1e3, n)
    if kind == "falling":
        return np.geomspace(1e3, 1e-3, n)
    if kind == "mostly zero":
        return (rng.random(n) < 0.01) * rng.random(n)
    if kind == "few":
        return 2.0 ** rng.integers(-4, 5, n)
    if kind == "tiny":
        return 2e-15 * np.exp(rng.standard_normal(n))
    return np.exp(2 * rng.standard_normal(n))


KINDS = ["the same", "one huge", "rising", "falling", "mostly zero", "few", "tiny", "skewed"]


def some_items(rng, kind, n, dim):
    return (directions(rng, n, dim) * sizes(rng, kind, n)[:, None]).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_norm(rng, screen, order, kind, num_threads):
    items = some_items(rng, kind, 2500, 12)
    queries = np.concatenate([normal(rng, 40, 12), items[-9:], np.zeros((1, 12), np.float32)])
    for k in (1, 40):
        got = recfuse.topk(queries, items, k, metric="dot", num_threads=num_threads)
        assert_same_bytes(got, topk(queries, items, k))


def test_scores_that_reach_just_what_norms_allow(rng, screen, order):
    """Items in the direction of the query, of a few sizes: every score is its bound, and tied."""
    query = normal(rng, 1, 16)
    items = (query * 2.0 ** -rng.integers(0, 3, (3000, 1))).astype(np.float32)
    queries = np.concatenate([query, -query, 3 * query])
    for k in (1, 300, 1500):
        got = recfuse.topk(queries, items, k, metric="dot")
        assert_same_bytes(got, topk(queries, items, k))


def test_a_tie_of_the_least_norm_that_reaches_it(rng, screen, order, num_threads):
    """All items score the same; the shortest, which come last, have the smallest ids."""
    items = 5 * normal(rng, 3000, 16)
    items[:100] = 0
    items[:, 3] = 1
    queries = np.zeros((60, 16), np.float32)
    queries[:, 3] = 1 + rng.random(60)
    for k in (1, 20):
        got = recfuse.topk(queries, items, k, metric="dot", num_threads=num_threads)
        assert_same_bytes(got, topk(queries, items, k))


def test_what_a_query_may_not_get(rng, screen, order, num_threads):
    """Without the longest items, which set thresholds, and with nothing but short ones."""
    items, queries = some_items(rng, "skewed", 2600, 12), normal(rng, 60, 12)
    longest = np.argsort(-np.linalg.norm(items, axis=1))
    seen, refused = random_pattern(rng, 60, 2600, 0.3)
    refused[:20, longest[:500]] = True
    seen = sp.csr_array(refused.astype(np.float32))
    for allowed in (None, longest[::2], longest[900:]):
        admitted = ~refused
        if allowed is not None:
            admitted &= np.isin(np.arange(2600), allowed)
        for k in (3, 50):
            got = recfuse.topk(
                queries,
                items,
                k,
                metric="dot",
                exclude=seen,
                allow=allowed,
                num_threads=num_threads,
            )
            assert_same_bytes(got, topk(queries, items, k, admitted=admitted))


@given(
    n_queries=st.integers(1, 67),
    n_items=st.integers(1, 700),
    dims=st.lists(st.integers(1, 20), min_size=1, max_size=3),
    k=st.integers(1, 67),
    seed=st.integers(0, 99),
)
def test_every_shape_and_weight(n_queries, n_items, dims, k, seed):
    """Against float32, which knows no such order; weights of the queries, missing modalities."""
    rng = np.random.default_rng(seed)
    items = {
        str(m): some_items(rng, KINDS[(seed + m) % len(KINDS)], n_items, d)
        for m, d in enumerate(dims)
    }
    queries = {m: rng.standard_normal((n_queries, x.shape[1])) for m, x in items.items()}
    present = {m: rng.random(n_items) < 0.7 for m in items}
    weights = {m: rng.standard_normal(n_queries) for m in items}
    seen = sp.csr_array((rng.random((n_queries, n_items)) < 0.2).astype(np.float32))

    def search(screen, order):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RECFUSE_SCREEN", screen)
            patch.setenv("RECFUSE_SCREEN_ORDER", order)
            index = recfuse.FusedIndex(
                items, metric="dot", present=present, num_threads=1 + seed % 2
            )
        rule = {
            "fusion": ("sum", "average")[seed % 2],
            "missing": ("renormalise", "zero")[seed % 2],
        }
        return index.topk(queries, k, weights=weights, exclude=seen, **rule)

    expected = search("float32", "ids")
    assert_same_bytes(search("int8", "norms"), expected)
    assert_same_bytes(search("int16", "norms"), expected)


def test_more_tiles_than_go_together(rng, screen, num_threads):
    """Tiles are skipped before they are rounded, and queries leave in the middle of them."""
    items, queries = some_items(rng, "skewed", 30_000, 40), normal(rng, 700, 40)
    index = recfuse.FusedIndex({"x": items}, metric="dot", num_threads=num_threads)
    expected = topk(queries[:50], items, 10)
    for _ in range(3):
        ids, scores = index.topk({"x": queries}, 10)
        assert_same_bytes((ids[:50], scores[:50]), expected)
        one = index.topk({"x": queries[:1]}, 10)
        assert_same_bytes(one, (ids[:1], scores[:1]))


@pytest.fixture
def rounding():
    """An instruction set that has these screens."""
    if not {"avx2", "avx512_vnni"} & set(_core.available_isas()):
        pytest.skip("this CPU has no screen of rounded numbers")


@pytest.mark.parametrize("kind", ["skewed", "the same"])
def test_a_sample_chooses(rng, rounding, kind):
    items, queries = some_items(rng, kind, 5000, 32), normal(rng, 300, 32)
    index = recfuse.FusedIndex({"x": items}, metric="dot")
    assert index.plan()["order_reason"] == "not tried yet"
    index.topk({"x": queries}, 10)
    plan = index.plan()
    if kind == "skewed":
        assert plan["order"] == "norms" and 0.5 < plan["skipped_by_norm"] <= 1
        assert plan["order_reason"] == "norms keep most items from the lists"
    else:
        assert plan["order"] == "ids" and plan["skipped_by_norm"] == 0
        assert plan["order_reason"] == "norms keep too few items from the lists"


def test_why_nothing_is_sampled(rng, rounding, monkeypatch):
    items, queries = some_items(rng, "skewed", 5000, 32), normal(rng, 300, 32)

    def why(k, **how):
        index = recfuse.FusedIndex({"x": items}, **how)
        index.topk({"x": queries}, k)
        assert index.plan()["order"] == "ids" and index.plan()["skipped_by_norm"] is None
        return index.plan()["order_reason"]

    assert why(10, metric="cosine") == "the cosine knows no norms"
    assert why(3000, metric="dot") == "the lists are too long for a sample"
    monkeypatch.setattr("recfuse.index._SMALL_BYTES", 0)
    monkeypatch.setattr("recfuse.index.available_bytes", lambda: 4)
    assert why(10, metric="dot") == "items that are too large to be kept are read as they lie"


def test_the_name_of_the_order_is_checked(monkeypatch):
    monkeypatch.setenv("RECFUSE_SCREEN_ORDER", "size")
    with pytest.raises(ValueError, match="RECFUSE_SCREEN_ORDER must be auto, ids or norms"):
        recfuse.FusedIndex({"x": np.eye(3)})
