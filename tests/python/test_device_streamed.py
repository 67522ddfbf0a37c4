"""Items larger than the memory of a GPU: blocks of them give the bytes of all at once."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

import recfuse
from conftest import CUDA_MODULES, run_on_cuda
from helpers import assert_same_bytes, normal
from recfuse import FusedIndex, backend

N_ITEMS, N_QUERIES, DIMS = 3000, 40, {"text": 8, "image": 5}
FREE = 250_000  # less than half of what all items take


@pytest.fixture
def emulated(monkeypatch):
    """Return the emulator's module; its blocks may be small, its memory ends where a test says."""
    for _ in run_on_cuda(CUDA_MODULES["emulator"], monkeypatch):
        module = backend.resolve_backend("cuda").ops
        module.set_memory()
        module.set_limits(capacity=64, least_block=128)
        yield module
        module.set_limits()
        module.set_memory()


def shrink(module, free):
    now, total = module.memory_info()
    module.set_memory(total - now + free)


@pytest.fixture
def items(rng):
    """Return items, some of which tie across borders of blocks or are too long for the screen."""
    items = {name: normal(rng, N_ITEMS, dim) for name, dim in DIMS.items()}
    for name in items:
        items[name][700:2200:3] = items[name][0]
        items[name][[5, 1500, 2999]] *= np.float32(1e30)
    return items


@pytest.fixture
def queries(rng):
    return {name: normal(rng, N_QUERIES, dim) for name, dim in DIMS.items()}


def filters(rng, name):
    if name == "list":
        return {"allow": rng.choice(N_ITEMS, 1700, replace=False)}
    if name == "none":
        return {}
    some = sp.random(N_QUERIES, N_ITEMS, 0.3, "csr", random_state=1)
    return {name: some}


def both(items, queries, k, emulated, *, metric="dot", present=None, free=FREE, **how):
    """Return the answers of the CPU and of a device on which the items have no room."""
    on_cpu = FusedIndex(items, metric=metric, present=present, device="cpu")
    shrink(emulated, free)
    index = FusedIndex(items, metric=metric, present=present, device="cuda")
    assert "streamed in" in index.plan()["reason"]
    return on_cpu.topk(queries, k, **how), index.topk(queries, k, **how)


@pytest.mark.parametrize("fusion", ["sum", "average", "product", "max", "min", "rrf"])
@pytest.mark.parametrize("metric", ["dot", "cosine"])
def test_every_rule(emulated, items, queries, fusion, metric):
    expected, found = both(items, queries, 7, emulated, metric=metric, fusion=fusion)
    assert_same_bytes(found, expected)


@pytest.mark.parametrize("name", ["exclude", "allow", "list", "none"])
@pytest.mark.parametrize("k", [1, 30, 900, 1100])  # more than a block has, and than is screened
def test_filters_and_lists_longer_than_a_block(rng, emulated, items, queries, name, k):
    how = {"contributions": True, **filters(rng, name)}
    expected, found = both(items, queries, k, emulated, **how)
    assert_same_bytes(found, expected)


@pytest.mark.parametrize("missing", ["renormalise", "zero"])
@pytest.mark.parametrize("fusion", ["sum", "max"])
def test_items_without_some_modality(rng, emulated, items, queries, missing, fusion):
    present = {"text": rng.random(N_ITEMS) < 0.7, "image": rng.random(N_ITEMS) < 0.6}
    weights = {"text": rng.random(N_QUERIES), "image": -0.3}
    how = {"missing": missing, "fusion": fusion, "weights": weights, "contributions": True}
    expected, found = both(items, queries, 12, emulated, present=present, **how)
    assert_same_bytes(found, expected)


def test_pairs(rng, emulated, items, queries):
    pairs = sp.random(N_QUERIES, N_ITEMS, 0.05, "csr", random_state=2)
    on_cpu = FusedIndex(items, device="cpu")
    expected = on_cpu.score_pairs(queries, pairs)
    shrink(emulated, FREE)
    index = FusedIndex(items, device="cuda")
    assert "streamed in" in index.plan()["reason"]
    assert_same_bytes(index.score_pairs(queries, pairs), expected)


def test_a_file_is_read_block_by_block(tmp_path, emulated, items, queries):
    mapped = {}
    for name, matrix in items.items():
        np.save(tmp_path / name, matrix)
        mapped[name] = np.load(tmp_path / f"{name}.npy", mmap_mode="r")
    expected, found = both(mapped, queries, 9, emulated)
    assert_same_bytes(found, expected)


def test_what_fits_is_not_streamed_and_what_does_not_says_how(emulated, items):
    assert "streamed" not in FusedIndex(items, device="cuda").plan()["reason"]
    shrink(emulated, FREE)
    plan = FusedIndex(items, device="cuda").plan()
    n_blocks = int(plan["reason"].split("streamed in ")[1].split()[0])
    n_bytes = int(plan["reason"].split("blocks of ")[1].split()[0])
    assert n_blocks > 2
    assert (n_blocks - 1) * n_bytes < plan["item_bytes"] <= n_blocks * n_bytes
    assert plan["rounded_bytes"] == 0


@pytest.mark.parametrize("free", [3 << 20, 5 << 20])
def test_a_plan_is_what_streaming_takes(rng, emulated, free):
    emulated.set_limits()
    n_items, dim = 60_000, 12
    sizes = {"n_queries": 30, "n_items": n_items, "dims": dim, "k": 20, "device": "cuda"}
    shrink(emulated, free)
    plan = recfuse.plan_memory("FusedIndex", **sizes)
    assert plan == recfuse.plan_memory("FusedIndex", **sizes, device_bytes=free)
    assert plan.kept_bytes == 0
    assert plan.fits
    assert plan.blocks["blocks of items, streamed"] > 1
    index = FusedIndex({"": normal(rng, n_items, dim)}, device="cuda")
    assert f"in {plan.blocks['blocks of items, streamed']} blocks" in index.plan()["reason"]
    free_now, total = emulated.memory_info()
    emulated.set_memory(total)  # forgets the peak
    index.topk({"": normal(rng, 30, dim)}, 20)
    taken = emulated.set_memory(total) - (total - free_now)
    assert 0.8 * plan.bytes_of("screen") < taken <= plan.peak_bytes + 4096


@pytest.mark.parametrize("fusion", ["sum", "max"])
def test_ranks_of_pairs(emulated, items, queries, rng, fusion):
    # Blocks are counted one after the other; some queries have more open items than there is room.
    pairs = sp.random(N_QUERIES, N_ITEMS, 0.004, "csr", random_state=1)
    exclude = sp.random(N_QUERIES, N_ITEMS, 0.1, "csr", random_state=2)
    queries["text"][4] = queries["image"][4] = 0
    weights = {"text": 1.5, "image": rng.uniform(-1, 1, N_QUERIES)}
    present = {"image": np.arange(N_ITEMS) % 7 != 0}
    how = {"weights": weights, "fusion": fusion, "exclude": exclude}
    on_cpu = FusedIndex(items, metric="dot", present=present, device="cpu")
    shrink(emulated, FREE)
    index = FusedIndex(items, metric="dot", present=present)
    assert "streamed" in index.plan()["reason"]
    assert_same_bytes(
        index.rank_pairs(queries, pairs, **how), on_cpu.rank_pairs(queries, pairs, **how)
    )
    emulated.set_memory()
    index = FusedIndex(items, metric="dot", present=present)
    assert "streamed" not in index.plan()["reason"]
    assert_same_bytes(
        index.rank_pairs(queries, pairs, **how), on_cpu.rank_pairs(queries, pairs, **how)
    )
