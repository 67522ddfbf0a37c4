"""Ranks of given pairs, on every screen and device: those that sorting all scores gives."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

import recfuse
import reference
from conftest import CUDA_MODULES, run_on_cuda
from helpers import assert_same_bytes, normal, random_modalities, random_pattern
from recfuse import backend

FUSIONS = ("sum", "average", "product", "max", "min")


def expected(scores, pairs, excluded):
    """Rank, first, last of the pairs and how many items are ranked, by comparing all with all."""
    with np.errstate(over="ignore"):
        rounded = scores.astype(np.float32)
    ids = np.arange(scores.shape[1])
    admitted = ~np.isnan(rounded) & ~excluded
    ranks = []
    for q, i in zip(*np.nonzero(pairs), strict=True):
        row, ok = rounded[q], admitted[q]
        better, tied = ok & (row > row[i]), ok & (row == row[i])
        rank = 1 + better.sum() + (tied & (ids < i)).sum()
        ranks.append((rank, 1 + better.sum(), better.sum() + tied.sum()) if ok[i] else (0, 0, 0))
    columns = np.array(ranks, np.int32).reshape(-1, 3).T
    return (*map(np.ascontiguousarray, columns), admitted.sum(axis=1).astype(np.int32))


def ranks_of(queries, items, pairs, exclude=None, **options):
    index = recfuse.FusedIndex({"x": items}, metric="dot", **options)
    return index.rank_pairs({"x": queries}, sp.csr_array(pairs.astype(np.float32)), exclude=exclude)


def check(queries, items, pairs, excluded, **options):
    got = ranks_of(queries, items, pairs, sp.csr_array(excluded.astype(np.float32)), **options)
    scores = reference.canonical_dots(queries, items)
    assert_same_bytes(got, expected(scores, pairs, excluded))


@pytest.mark.parametrize("n_queries", [3, 70])
def test_ranks_of_random_vectors(screen, num_threads, rng, n_queries):
    queries, items = normal(rng, n_queries, 19), normal(rng, 700, 19)
    pairs = rng.random((n_queries, 700)) < 0.03
    check(queries, items, pairs, rng.random((n_queries, 700)) < 0.1, num_threads=num_threads)


def test_ties(screen, num_threads, rng):
    # Whole numbers, so equal scores by the dozen; some items are the same, and some queries zero.
    queries = rng.integers(-2, 3, (33, 6)).astype(np.float32)
    items = rng.integers(-2, 3, (400, 6)).astype(np.float32)
    queries[4] = 0
    items[200:] = items[:200]
    pairs = rng.random((33, 400)) < 0.05
    check(queries, items, pairs, rng.random((33, 400)) < 0.2, num_threads=num_threads)


def test_scores_that_no_screen_can_part(screen, rng):
    # Next to one another in float32, and a hair apart in the bound of any screen.
    queries = normal(rng, 20, 8)
    items = normal(rng, 1, 8) + np.float32(1e-6) * normal(rng, 500, 8)
    check(queries, items, rng.random((20, 500)) < 0.04, rng.random((20, 500)) < 0.1)


def test_values_outside_the_range_of_the_screen(screen, rng):
    queries, items = normal(rng, 24, 7), normal(rng, 300, 7)
    items[3, 2], items[50], items[60, 0], items[70, 1] = np.nan, np.nan, np.inf, -np.inf
    items[::11] *= np.float32(1e-30)
    items[5::13] *= np.float32(1e25)
    queries[2] = np.nan
    queries[3, 0] = np.inf
    queries[7] *= np.float32(1e-30)
    queries[8] *= np.float32(1e25)
    queries[9] = 0
    pairs = rng.random((24, 300)) < 0.05
    pairs[:, [3, 50, 60, 70, 5, 11]] = True
    check(queries, items, pairs, rng.random((24, 300)) < 0.1)


def test_users_without_pairs_and_users_without_items(screen, rng):
    queries, items = normal(rng, 6, 5), normal(rng, 40, 5)
    pairs = rng.random((6, 40)) < 0.2
    excluded = rng.random((6, 40)) < 0.2
    pairs[0] = pairs[5] = False  # nothing is asked
    excluded[1] = True  # nothing is left
    excluded[2] = pairs[2]  # what is asked is excluded, and nothing else
    check(queries, items, pairs, excluded)
    check(queries, items, np.zeros((6, 40), bool), excluded)


@pytest.mark.parametrize("missing", ["renormalise", "zero"])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_several_modalities(screen, rng, fusion, missing):
    queries, items, weights = random_modalities(rng, (5, 3, 9), 17, 160)
    weights["m1"] = rng.uniform(0, 1, 17)
    present = {name: rng.random(160) < 0.6 for name in items}
    pattern, pairs = random_pattern(rng, 17, 160, 0.1)
    exclude, excluded = random_pattern(rng, 17, 160, 0.2)
    options = {"weights": weights, "fusion": fusion, "missing": missing}
    index = recfuse.FusedIndex(items, present=present)
    got = index.rank_pairs(queries, pattern, exclude=exclude, **options)
    scores, _ = reference.fused_scores(queries, items, present=present, **options)
    assert_same_bytes(got, expected(scores, pairs, excluded))


def test_ranks_are_the_places_in_lists(screen, num_threads, rng):
    queries, items = normal(rng, 9, 16), normal(rng, 120, 16)
    items[60:] = items[:60]
    _, pairs = random_pattern(rng, 9, 120, 0.2)
    exclude, _ = random_pattern(rng, 9, 120, 0.2)
    got = ranks_of(queries, items, pairs, exclude, num_threads=num_threads)
    ids, _ = recfuse.topk(queries, items, 120, exclude=exclude)
    for q, i, rank in zip(*np.nonzero(pairs), got.rank, strict=True):
        assert (np.flatnonzero(ids[q] == i) + 1).tolist() == ([rank] if rank else [])


@given(
    st.integers(1, 40),
    st.integers(1, 300),
    st.integers(1, 9),
    st.integers(0, 3),
    st.integers(0, 2**32 - 1),
)
def test_ranks_of_any_shape(n_queries, n_items, dim, largest, seed):
    rng = np.random.default_rng(seed)
    queries = rng.integers(-largest, largest + 1, (n_queries, dim)).astype(np.float32)
    items = (rng.integers(-largest, largest + 1, (n_items, dim)) / 8).astype(np.float32)
    pairs = rng.random((n_queries, n_items)) < rng.random() ** 3
    check(queries, items, pairs, rng.random((n_queries, n_items)) < rng.random())


def test_the_matrices_of_pairs_are_checked(screen, rng):
    index = recfuse.FusedIndex({"x": normal(rng, 5, 2)})
    queries = {"x": normal(rng, 3, 2)}
    with pytest.raises(ValueError, match=r"pairs must have shape \(3, 5\) .*; got \(3, 4\)"):
        index.rank_pairs(queries, sp.csr_array((3, 4)))
    with pytest.raises(ValueError, match=r"exclude must have shape \(3, 5\) .*; got \(2, 5\)"):
        index.rank_pairs(queries, sp.csr_array((3, 5)), exclude=sp.csr_array((2, 5)))
    with pytest.raises(TypeError, match=r"rank_pairs: pairs must be a SciPy sparse matrix"):
        index.rank_pairs(queries, np.ones((3, 5)))
    with pytest.raises(ValueError, match=r"fusion must be one of"):
        index.rank_pairs(queries, sp.csr_array((3, 5)), fusion="rrf")


@pytest.fixture
def emulated(monkeypatch):
    for _ in run_on_cuda(CUDA_MODULES["emulator"], monkeypatch):
        module = backend.resolve_backend("cuda").ops
        yield module
        module.set_limits()


@pytest.mark.parametrize("pairs_bytes", [0, 300, 2000, 10**6])
def test_pairs_are_ranked_some_at_a_time(emulated, rng, pairs_bytes):
    """With room for a pair, for parts of a query's pairs, for some queries, and for all."""
    emulated.set_limits(pairs_bytes=pairs_bytes)
    queries, items = normal(rng, 12, 7), normal(rng, 90, 7)
    items[40:60] = items[:20]
    pairs = rng.random((12, 90)) < 0.2
    pairs[3] = pairs[4] = pairs[11] = False
    pairs[7] = True
    excluded = rng.random((12, 90)) < 0.1
    excluded[5] = True
    check(queries, items, pairs, excluded)
    both, pattern = {"a": queries, "b": queries[:, :3]}, sp.csr_array(pairs.astype(np.float32))
    on_cpu, on_gpu = (
        recfuse.FusedIndex({"a": items, "b": items[:, :3]}, device=device).score_pairs(
            both, pattern
        )
        for device in ("cpu", "cuda")
    )
    assert_same_bytes(on_gpu, on_cpu)


def test_pairs_take_no_more_memory_than_they_may(emulated, rng):
    queries, items = normal(rng, 300, 16), normal(rng, 400, 16)
    pairs = sp.csr_array((rng.random((300, 400)) < 0.5).astype(np.float32))
    taken = {}
    for pairs_bytes in (1 << 28, 100_000):
        emulated.set_limits(pairs_bytes=pairs_bytes)
        index = recfuse.FusedIndex({"x": items}, device="cuda")
        kept = emulated.memory_info()[1] - emulated.memory_info()[0]
        emulated.set_memory()
        index.rank_pairs({"x": queries}, pairs)
        taken[pairs_bytes] = emulated.set_memory() - kept
    screens = 300 * 4096 * 12  # candidates of all queries, if these are counted together
    assert taken[1 << 28] > screens + 24 * pairs.nnz
    # 20 queries' pairs are 100,000 bytes.
    assert taken[100_000] < 21 * 4096 * 12 + 2 * 100_000 + 50_000
