"""The memory of a GPU: plans against what the emulator counts, and what happens where it ends."""

from __future__ import annotations

import gc
import re

import numpy as np
import pytest
import scipy.sparse as sp

import recfuse
from conftest import CUDA_MODULES, run_on_cuda
from helpers import assert_same_bytes, normal, random_modalities
from recfuse import FusedIndex, backend
from recfuse.errors import DeviceError


@pytest.fixture
def emulated(monkeypatch):
    """Return the emulator's module; its memory has no end, before and after."""
    for _ in run_on_cuda(CUDA_MODULES["emulator"], monkeypatch):
        module = backend.resolve_backend("cuda").ops
        module.set_memory()
        yield module
        module.set_memory()


def used(module):
    free, total = module.memory_info()
    return total - free


@pytest.mark.parametrize("alike", [False, True], ids=["screened", "every item scored"])
@pytest.mark.parametrize(
    ("n_queries", "n_items", "dims", "k"),
    [(1, 3000, (16,), 10), (70, 2000, (5, 8), 30), (300, 500, (64, 20), 7), (9, 1500, (8,), 1100)],
)
def test_a_plan_is_what_is_taken(rng, emulated, alike, n_queries, n_items, dims, k):
    queries, items, _ = random_modalities(rng, dims, n_queries, n_items)
    if alike:  # ties: more candidates than there is room for
        items = {name: np.ones_like(x) for name, x in items.items()}
        n_items = 6000
        items = {name: np.resize(x, (n_items, x.shape[1])) for name, x in items.items()}
    sizes = {"n_queries": n_queries, "n_items": n_items, "dims": dims, "k": k}
    plan = recfuse.plan_memory("FusedIndex", **sizes, device="cuda")
    assert plan.device == "cuda"
    before = used(emulated)
    emulated.set_memory()
    index = FusedIndex(items, device="cuda")
    kept, built = used(emulated) - before, emulated.set_memory() - before
    small = 4096  # pointers, units, presence
    assert plan.kept_bytes - small <= kept <= plan.kept_bytes + small
    built_by_plan = plan.kept_bytes + plan.bytes_of("build")
    assert built <= built_by_plan + small
    index.topk(queries, k)
    taken = emulated.set_memory() - before
    phase = "scoring of every item" if alike or k > 1024 else "screen"
    planned = plan.kept_bytes + plan.bytes_of(phase)
    assert taken <= planned + small
    if not alike:  # one row of weights stands for all
        assert taken >= planned - small - 8 * len(dims) * n_queries
    assert taken <= plan.peak_bytes + small
    del index
    assert used(emulated) == before


@pytest.mark.parametrize("n_excluded", [0, 7], ids=["all items", "some excluded"])
@pytest.mark.parametrize(
    ("n_queries", "n_items", "dims", "per_query"),
    [(1, 3000, (16,), 10), (70, 2000, (5, 8), 300), (300, 500, (64, 20), 7), (90, 400, (8,), 400)],
)
def test_a_plan_of_ranks_is_what_is_taken(
    rng, emulated, n_queries, n_items, dims, per_query, n_excluded
):
    queries, items, _ = random_modalities(rng, dims, n_queries, n_items)

    def pattern(n):
        columns = np.sort(rng.permuted(np.tile(np.arange(n_items), (n_queries, 1)), axis=1)[:, :n])
        parts = np.ones(columns.size, np.float32), columns.ravel(), np.arange(n_queries + 1) * n
        return sp.csr_array(parts, shape=(n_queries, n_items))

    sizes = {"n_queries": n_queries, "n_items": n_items, "dims": dims}
    plan = recfuse.plan_memory(
        "rank_pairs", **sizes, n_pairs=n_queries * per_query, n_excluded=n_queries * n_excluded,
        device="cuda",
    )  # fmt: skip
    before = used(emulated)
    index = FusedIndex(items, device="cuda")
    emulated.set_memory()
    exclude = pattern(n_excluded) if n_excluded else None
    index.rank_pairs(queries, pattern(per_query), exclude=exclude)
    taken = emulated.set_memory() - before
    small = 4096  # pointers, units, presence
    weights = 8 * len(dims) * n_queries  # one row of them stands for all
    assert plan.peak_bytes - small - weights <= taken <= plan.peak_bytes + small


def test_pairs_are_cut(emulated):
    sizes = {"n_queries": 138_000, "n_items": 27_000, "dims": 128, "device": "cuda"}
    some = recfuse.plan_memory("rank_pairs", **sizes, n_pairs=29 * 138_000)
    many = recfuse.plan_memory("rank_pairs", **sizes, n_pairs=2_900 * 138_000)
    assert some.blocks["queries"] == (256 << 20) // (4096 * 12)
    assert some.blocks["queries whose pairs are scored"] == 138_000
    assert many.blocks["queries"] == (256 << 20) // (2_900 * 24)
    for plan in (some, many):
        assert plan.bytes_of("scores of the pairs") <= 256 << 20
        assert plan.bytes_of("counts") < 768 << 20


def test_many_queries_are_cut(rng, emulated):
    plan = recfuse.plan_memory(
        "topk", n_queries=10**6, n_items=10**6, dims=128, k=100, device="cuda"
    )
    assert plan.blocks["queries"] == (256 << 20) // (4096 * 12)
    assert "on cuda" in repr(plan)
    assert plan.input_bytes == 0
    more = recfuse.plan_memory(
        "topk", n_queries=10**7, n_items=10**6, dims=128, k=100, device="cuda"
    )
    assert more.peak_bytes == plan.peak_bytes


def test_whether_a_plan_fits_is_asked_of_the_device(emulated):
    plan = recfuse.plan_memory("topk", n_queries=1, n_items=1000, dims=8, k=1, device="cuda")
    emulated.set_memory(used(emulated) + plan.peak_bytes)
    assert plan.fits
    emulated.set_memory(used(emulated) + plan.peak_bytes - 1)
    assert not plan.fits


def test_a_plan_needs_no_device(monkeypatch):
    sizes = {"n_queries": 1, "n_items": 1000, "dims": 8, "k": 1}
    plan = recfuse.plan_memory("fuse_topk", **sizes, device="cuda")
    monkeypatch.setenv("RECFUSE_DEVICE", "cuda")
    assert recfuse.plan_memory("fuse_topk", **sizes) == plan
    with pytest.raises(ValueError, match="plan_memory: device must be 'auto', 'cpu' or 'cuda'"):
        recfuse.plan_memory("topk", **sizes, device="tpu")
    monkeypatch.setitem(backend._MODULES, "cuda", "recfuse._no_such_module")
    backend._load.cache_clear()
    with pytest.raises(DeviceError, match="has no CUDA module"):
        assert plan.fits
    backend._load.cache_clear()


def test_the_end_of_the_memory_is_told_in_numbers_and_survived(rng, emulated):
    x, y = normal(rng, 4, 8), normal(rng, 5000, 8)
    index = FusedIndex({"a": y}, device="cuda")
    kept = used(emulated)
    emulated.set_memory(kept + 100_000)
    message = r"fuse_topk: (\d+) bytes asked on cuda:0, (\d+) of (\d+) free\. plan_memory"
    for refused in (
        lambda: index.topk({"a": x}, 5),
        lambda: index.add({"a": normal(rng, 100_000, 8)}),
        lambda: index.update([0], {"a": normal(rng, 1, 8)}),
        lambda: recfuse.topk(x, normal(rng, 50_000, 8), 5, device="cuda"),
    ):
        with pytest.raises(MemoryError, match=message) as raised:
            refused()
        asked, free, total = map(int, re.match(message, str(raised.value)).groups())
        assert asked > free
        assert free <= 100_000
        assert total == kept + 100_000
        assert used(emulated) == kept  # nothing is lost
    emulated.set_memory()
    assert index.n_items == 5000
    assert_same_bytes(index.topk({"a": x}, 5), FusedIndex({"a": y}, device="cpu").topk({"a": x}, 5))


def test_what_a_request_keeps_goes_with_its_index(rng, emulated):
    x, y = normal(rng, 4, 8), normal(rng, 5000, 8)
    gc.collect()  # of tests before, whose exceptions hold indexes
    before = used(emulated)
    index = FusedIndex({"a": y}, device="cuda")
    assert_same_bytes(index.topk({"a": x}, 5), FusedIndex({"a": y}, device="cpu").topk({"a": x}, 5))
    index.add({"a": 10 * x})
    ids, _ = index.topk({"a": x}, 5)
    on_cpu = FusedIndex({"a": np.vstack([y, 10 * x])}, device="cpu")
    assert_same_bytes(index.topk({"a": x}, 5), on_cpu.topk({"a": x}, 5))
    assert ids[0, 0] == 5000
    index.remove([5000])
    assert index.topk({"a": x}, 5)[0][0, 0] != 5000
    del index
    assert used(emulated) == before


@pytest.mark.parametrize("norm", ["full", "corated"])
@pytest.mark.parametrize("values", ["ones", "whole", "real"])
@pytest.mark.parametrize(
    ("n_rows", "k"), [(700, 9), (4000, 20), (4000, 3500)],
    ids=["few rows", "a whole strip", "candidates outside of shared memory"],
)  # fmt: skip
def test_a_plan_of_similar_rows_is_what_is_taken(rng, emulated, values, norm, n_rows, k):
    matrix = sp.random_array((n_rows, 50), density=0.005, rng=rng, dtype=np.float32, format="csr")
    matrix.data = {
        "ones": np.ones_like(matrix.data),
        "whole": np.ceil(5 * matrix.data),
        "real": matrix.data - np.float32(0.5),
    }[values]
    plan = recfuse.plan_memory(
        "cosine_knn", n_rows=n_rows, n_cols=50, nnz=matrix.nnz, k=k, values=values, norm=norm,
        device="cuda",
    )  # fmt: skip
    assert plan.device == "cuda"
    before = used(emulated)
    emulated.set_memory()
    recfuse.cosine_knn(matrix, k, norm=norm, device="cuda")
    assert emulated.set_memory() - before == plan.peak_bytes
    assert used(emulated) == before


def test_plans_of_a_gpu_are_large_where_the_work_is():
    als = recfuse.plan_memory(
        "als", n_users=138_000, n_items=27_000, nnz=20_000_000, factors=128, device="cuda"
    )
    assert als.bytes_of("kept") > 16 * 20_000_000
    assert als.peak_bytes < 2 << 30
    knn = recfuse.plan_memory(
        "cosine_knn", n_rows=27_000, n_cols=138_000, nnz=20_000_000, k=100, device="cuda"
    )
    assert 14 * 20_000_000 < knn.peak_bytes < 2 << 30
