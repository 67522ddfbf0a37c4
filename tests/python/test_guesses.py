"""Thresholds guessed from a sample of tiles: the bytes of float32, be the sample fair or not."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import recfuse
from helpers import assert_same_bytes
from recfuse import _core

DIMS = {"a": 70, "b": 960}  # of which tiles hold 192 items
N_ITEMS, N_QUERIES = 34 * 192 + 5, 60


@pytest.fixture(params=["avx2", "avx512_vnni"], autouse=True)
def rounding_isa(request):
    """Run every test on the instruction sets that guess."""
    if request.param not in _core.available_isas():
        pytest.skip(f"this CPU has no {request.param}")
    before = _core.active_isa()
    _core.set_isa(request.param)
    yield
    _core.set_isa(before)


def assert_screens_agree(search, screen="int8"):
    results = []
    for name in ("float32", screen):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RECFUSE_SCREEN", name)
            results.append(search())
    assert_same_bytes(results[1], results[0])


def clumps(rng, length, spread=0.3):
    """Items whose neighbours are like them: the best ones of a query stand side by side."""
    n = N_ITEMS // length + 1
    items, queries = {}, {}
    chosen = rng.integers(0, n, N_QUERIES)
    for m, d in DIMS.items():
        centres = rng.standard_normal((n, d), dtype=np.float32)
        noise = rng.standard_normal((N_ITEMS, d), dtype=np.float32)
        items[m] = centres.repeat(length, axis=0)[:N_ITEMS] + np.float32(spread) * noise
        queries[m] = centres[chosen] + rng.standard_normal((N_QUERIES, d), dtype=np.float32)
    return items, queries


@pytest.fixture(scope="module")
def noise():
    rng = np.random.default_rng(5)
    items = {m: rng.standard_normal((N_ITEMS, d), dtype=np.float32) for m, d in DIMS.items()}
    queries = {m: rng.standard_normal((N_QUERIES, d), dtype=np.float32) for m, d in DIMS.items()}
    return items, queries, {m: rng.uniform(-1, 1, N_QUERIES) for m in DIMS}


@pytest.mark.parametrize("k", [1, 100, 900])
def test_noise(noise, k):
    items, queries, weights = noise
    assert_screens_agree(lambda: recfuse.fuse_topk(queries, items, weights, k, metric="cosine"))


@pytest.mark.parametrize(
    ("length", "metric"), [(5, "dot"), (40, "cosine"), (200, "dot"), (1500, "cosine")]
)
def test_samples_that_mislead(rng, length, metric, num_threads):
    """Where a clump is sampled, the guess is too high for those who want it."""
    items, queries = clumps(rng, length)
    for k in (10, 100):
        assert_screens_agree(
            lambda k=k: recfuse.fuse_topk(
                queries, items, None, k, metric=metric, num_threads=num_threads
            )
        )


@pytest.mark.parametrize(
    "kind", ["rising", "falling", "equal rows", "nearly equal", "zeros", "classes"]
)
def test_orders_and_ties(rng, noise, kind):
    items, queries, weights = ({m: v.copy() for m, v in x.items()} for x in noise)
    for m in DIMS:
        if kind in ("rising", "falling"):
            queries[m][:] = queries[m][0] + 0.1 * queries[m]
            order = np.argsort(items[m] @ queries[m][0])
            items[m] = items[m][order if kind == "rising" else order[::-1]]
        elif kind == "equal rows":
            items[m][:] = items[m][:50].repeat(N_ITEMS // 50 + 1, axis=0)[:N_ITEMS]
        elif kind == "nearly equal":
            items[m][:] = items[m][0] + np.float32(1e-4) * items[m]
        elif kind == "zeros":
            items[m][rng.random(N_ITEMS) < 0.9] = 0
        else:  # units of their own for some
            items[m][:, 0] *= np.where(rng.random(N_ITEMS) < 0.1, 40, 1)
    assert_screens_agree(lambda: recfuse.fuse_topk(queries, items, weights, 60, metric="cosine"))


def test_filters_and_missing_modalities(rng):
    items, queries = clumps(rng, 150)
    present = {m: rng.random(N_ITEMS) < 0.6 for m in DIMS}
    seen = sp.csr_array((rng.random((N_QUERIES, N_ITEMS)) < 0.05).astype(np.float32))
    some = np.flatnonzero(rng.random(N_ITEMS) < 0.7)
    few = np.arange(
        2000, 4030
    )  # beside one another, so that no sample of all items tells their share
    for allow, k in ((None, 40), (some, 40), (few, 2030)):

        def search(allow=allow, k=k):
            index = recfuse.FusedIndex(items, metric="cosine", present=present)
            return index.topk(queries, k, exclude=seen, allow=allow)

        assert_screens_agree(search)


def test_an_index_that_learns_that_samples_mislead(rng):
    """The first queries tell, and so does every call."""
    items, queries = clumps(rng, 150)
    many = {m: np.concatenate([q + i for i in range(5)]) for m, q in queries.items()}

    def search():
        index = recfuse.FusedIndex(items)
        return [index.topk(many, 50) for _ in range(3)]

    results = []
    for name in ("float32", "auto"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RECFUSE_SCREEN", name)
            results.append(search())
    for expected, got in zip(*results, strict=True):
        assert_same_bytes(got, expected)


@settings(max_examples=8)
@given(
    length=st.integers(1, 700),
    spread=st.sampled_from([0.0, 0.01, 0.3, 1.0, 3.0]),
    k=st.integers(1, 300),
    seed=st.integers(0, 99),
)
def test_clumps_of_every_size(length, spread, k, seed):
    items, queries = clumps(np.random.default_rng(seed), length, spread)
    assert_screens_agree(
        lambda: recfuse.fuse_topk(
            queries, items, None, k, metric="cosine", num_threads=1 + seed % 2
        )
    )
