"""The kernels of a GPU, portable and of compute capability 9.0: the same bytes as the CPU's."""

from __future__ import annotations

import numpy as np
import pytest

import recfuse
from conftest import CUDA_MODULES, run_on_cuda
from helpers import assert_same_bytes, normal, random_modalities, random_pattern


@pytest.fixture(params=CUDA_MODULES)
def on_cuda(request, monkeypatch):
    """Run the test on a GPU, and on the emulator of one."""
    yield from run_on_cuda(CUDA_MODULES[request.param], monkeypatch)


@pytest.fixture(params=["sm_80", "sm_90a"])
def forced(request, on_cuda, monkeypatch):
    """Run the test once per kind of kernels that the device runs."""
    monkeypatch.setenv("RECFUSE_CUDA_ISA", request.param)
    try:
        recfuse.topk(np.ones((1, 2), np.float32), np.ones((3, 2), np.float32), 1)
    except ValueError as error:
        pytest.skip(str(error))
    return request.param


@pytest.mark.parametrize("dims", [(5, 8), (64, 40, 90), (200, 150)])
@pytest.mark.parametrize("fusion", ["sum", "average"])
def test_fusions_with_everything(rng, forced, dims, fusion):
    queries, items, _ = random_modalities(rng, dims, 90, 1400)
    names = list(items)
    weights = {m: rng.uniform(0, 1, 90) for m in names}
    present = {m: rng.random(1400) < 0.6 for m in names}
    exclude, _ = random_pattern(rng, 90, 1400, 0.2)
    allow = rng.permutation(1400)[:900].astype(np.int32)
    asked = {"present": present, "exclude": exclude, "allow": allow, "fusion": fusion}
    got = recfuse.fuse_topk(queries, items, weights, 20, **asked)
    assert_same_bytes(got, recfuse.fuse_topk(queries, items, weights, 20, **asked, device="cpu"))


@pytest.mark.parametrize("k", [1, 300])
def test_many_queries(rng, forced, k):
    items, queries = normal(rng, 2000, 48), normal(rng, 260, 48)
    assert f"by {forced}, " in recfuse.FusedIndex({"x": items[:300]}).plan()["reason"]
    items[700:900] = items[5]  # ties
    items[3, 4] = np.inf
    queries[7] = 0
    got = recfuse.topk(queries, items, k, metric="dot")
    assert_same_bytes(got, recfuse.topk(queries, items, k, metric="dot", device="cpu"))


def test_an_unknown_name_lists_those_there_are(on_cuda, monkeypatch):
    monkeypatch.setenv("RECFUSE_CUDA_ISA", "sm_75")
    with pytest.raises(ValueError, match=r"RECFUSE_CUDA_ISA must be one of .*sm_80\); got 'sm_75'"):
        recfuse.topk(np.ones((1, 2), np.float32), np.ones((3, 2), np.float32), 1)
