"""Several GPUs in one process: the bytes of one, however the items are divided among them.

Run on emulated GPUs, each with memory of its own, and on a real one that holds several ranges.
"""

from __future__ import annotations

import pickle

import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings

import recfuse
from conftest import CUDA_MODULES, run_on_cuda
from helpers import assert_same_bytes, normal
from recfuse import FusedIndex, backend
from recfuse.errors import DeviceError
from test_device_arrays import SpeaksCuda, SpeaksDlpack, host_of

N_ITEMS, N_QUERIES, DIMS = 601, 9, {"text": 8, "image": 5}
ONE_GPU = ["cuda:0", "cuda:0,0", "cuda:0,0,0", "cuda:" + ",".join("0" * 7)]
MORE_GPUS = ["cuda:1", "cuda:0,1", "cuda:2,0,1", "cuda:1,1,0", "cuda:0,1,2,3,4,5,6"]


def emulated_module(monkeypatch):
    for _ in run_on_cuda(CUDA_MODULES["emulator"], monkeypatch):
        module = backend.resolve_backend("cuda").ops
        module.set_devices(7)
        yield module
        for device in range(7):
            module.set_launches(device)
            module.set_memory(device=device)
        module.set_limits()
        module.set_devices()


@pytest.fixture
def emulated(monkeypatch):
    """Return the module of seven emulated GPUs."""
    yield from emulated_module(monkeypatch)


@pytest.fixture(
    params=[*(("cuda", x) for x in ONE_GPU), *(("emulator", x) for x in (*ONE_GPU, *MORE_GPUS))],
    ids=":".join,
)
def device(request, monkeypatch):
    """Return GPUs by number, those of an emulator or one that is there."""
    where, name = request.param
    if where == "cuda":
        for _ in run_on_cuda(CUDA_MODULES["cuda"], monkeypatch):
            yield name
        return
    for _ in emulated_module(monkeypatch):
        yield name


@pytest.fixture
def items(rng):
    """Return items of which many tie, across all borders, and some are too long for the screen."""
    items = {name: normal(rng, N_ITEMS, dim) for name, dim in DIMS.items()}
    for name in items:
        items[name][50:590:2] = items[name][0]
        items[name][[5, 300, 600]] *= np.float32(1e30)
    return items


@pytest.fixture
def queries(rng):
    return {name: normal(rng, N_QUERIES, dim) for name, dim in DIMS.items()}


@pytest.fixture
def present(rng):
    present = {"text": rng.random(N_ITEMS) < 0.7, "image": rng.random(N_ITEMS) < 0.6}
    present["text"][200:] |= True  # so that ranges do not have the same combinations
    return present


def both(items, queries, k, device, *, metric="dot", present=None, **how):
    """Return the answers of these GPUs and of the CPU."""
    index = FusedIndex(items, metric=metric, present=present, device=device)
    on_cpu = FusedIndex(items, metric=metric, present=present, device="cpu")
    return index.topk(queries, k, **how), on_cpu.topk(queries, k, **how)


# Every search, on every choice of devices.


@pytest.mark.parametrize("k", [1, 20, 300, N_ITEMS + 5])  # more than a range has, and than all
def test_ties_across_borders_and_lists_longer_than_a_range(device, items, queries, k):
    assert_same_bytes(*both(items, queries, k, device, contributions=True))


@pytest.mark.parametrize("fusion", ["average", "product", "max", "rrf"])
def test_every_rule(device, items, queries, present, fusion):
    how = {"metric": "cosine", "present": present, "contributions": True, "fusion": fusion}
    assert_same_bytes(*both(items, queries, 7, device, **how))


@pytest.mark.parametrize("normalise", ["zscore", "minmax"])
@pytest.mark.parametrize("missing", ["renormalise", "zero"])
def test_scales_are_those_of_all_items(device, items, queries, present, normalise, missing):
    how = {"present": present, "normalise": normalise, "missing": missing, "contributions": True}
    assert_same_bytes(*both(items, queries, 12, device, **how))


@pytest.mark.parametrize("name", ["exclude", "allow", "list", "none of the first half", "nothing"])
def test_filters(rng, device, items, queries, name):
    some = sp.random(N_QUERIES, N_ITEMS, 0.3, "csr", random_state=1)
    how = {
        "exclude": {"exclude": some},
        "allow": {"allow": some},
        "list": {"allow": rng.choice(N_ITEMS, 170, replace=False)},
        "none of the first half": {
            "exclude": sp.csr_array(np.tile(np.arange(N_ITEMS) < N_ITEMS // 2, (N_QUERIES, 1)))
        },
        "nothing": {"allow": []},
    }[name]
    assert_same_bytes(*both(items, queries, 30, device, contributions=True, **how))


def test_many_queries_and_few_of_them_twice(rng, device, items):
    many = {name: normal(rng, 150, dim) for name, dim in DIMS.items()}
    index, on_cpu = FusedIndex(items, device=device), FusedIndex(items, device="cpu")
    for queries in (
        many,
        {n: x[:1] for n, x in many.items()},
        {n: x[1:2] for n, x in many.items()},
    ):
        assert_same_bytes(index.topk(queries, 10), on_cpu.topk(queries, 10))


def test_pairs(device, items, queries):
    pairs = sp.random(N_QUERIES, N_ITEMS, 0.05, "csr", random_state=2)
    index, on_cpu = FusedIndex(items, device=device), FusedIndex(items, device="cpu")
    assert_same_bytes(index.score_pairs(queries, pairs), on_cpu.score_pairs(queries, pairs))
    empty = sp.csr_array((N_QUERIES, N_ITEMS), dtype=np.float32)
    assert index.score_pairs(queries, empty)[0].shape == (0,)


def test_changes(rng, device, items, queries):
    index, on_cpu = FusedIndex(items, device=device), FusedIndex(items, device="cpu")
    new = {name: normal(rng, 3, dim) for name, dim in DIMS.items()}
    for one in (index, on_cpu):
        one.update([0, 300, 600], new)
        one.add(new)
        one.remove([1, 301])
    assert_same_bytes(index.topk(queries, 25), on_cpu.topk(queries, 25))
    again = pickle.loads(pickle.dumps(index))
    assert again.device == index.device
    assert_same_bytes(again.topk(queries, 25), on_cpu.topk(queries, 25))


@pytest.mark.parametrize("n_items", [0, 1, 3])
def test_fewer_items_than_devices(rng, device, queries, n_items):
    few = {name: normal(rng, n_items, dim) for name, dim in DIMS.items()}
    assert_same_bytes(*both(few, queries, 4, device, contributions=True))


def test_ops(device, items, queries):
    x, y = queries["text"], items["text"]
    assert_same_bytes(recfuse.topk(x, y, 9, device=device), recfuse.topk(x, y, 9, device="cpu"))
    weights = {"text": 0.3, "image": 0.7}
    assert_same_bytes(
        recfuse.fuse_topk(queries, items, weights, 9, device=device),
        recfuse.fuse_topk(queries, items, weights, 9, device="cpu"),
    )


@given(data=st.data())
@settings(max_examples=30)
def test_any_division(data):
    """Whatever the items, ties among them, the devices and k."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        for _ in emulated_module(monkeypatch):
            n_items = data.draw(st.integers(1, 40))
            numbers = st.integers(-2, 2).map(np.float32)
            items = np.array(
                data.draw(st.lists(st.tuples(numbers, numbers), min_size=n_items, max_size=n_items))
            )
            queries = np.array(
                data.draw(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=3))
            )
            devices = data.draw(st.lists(st.integers(0, 6), min_size=1, max_size=9))
            k = data.draw(st.integers(1, 45))
            left_out = np.array(
                data.draw(st.lists(st.booleans(), min_size=n_items, max_size=n_items))
            )
            exclude = sp.csr_array(np.tile(left_out, (len(queries), 1)))
            name = "cuda:" + ",".join(map(str, devices))
            how = {"metric": "dot", "exclude": exclude, "contributions": True}
            assert_same_bytes(*both({"": items}, {"": queries}, k, name, **how))


# Memory: of each device its own.


def test_blocks_on_devices_of_different_room(rng, emulated):
    """One holds its items, one takes them in blocks, one has two ranges of which each does."""
    n_items = 4000
    items, queries = {"": normal(rng, n_items, 12)}, {"": normal(rng, 20, 12)}
    items[""][::3] = items[""][0]
    emulated.set_limits(capacity=64, least_block=128)
    for device, free in ((1, 150_000), (2, 200_000)):
        emulated.set_memory(
            emulated.memory_info(device)[1] - emulated.memory_info(device)[0] + free, device
        )
    index = FusedIndex(items, metric="dot", device="cuda:0,1,2,2")
    reasons = index.plan()["reason"].split("; cuda:")
    assert ["streamed in" in reason for reason in reasons] == [False, True, True, True]
    on_cpu = FusedIndex(items, metric="dot", device="cpu")
    for k in (1, 30, 1100):
        assert_same_bytes(
            index.topk(queries, k, contributions=True), on_cpu.topk(queries, k, contributions=True)
        )
    pairs = sp.random(20, n_items, 0.05, "csr", random_state=2)
    assert_same_bytes(index.score_pairs(queries, pairs), on_cpu.score_pairs(queries, pairs))
    allow = rng.choice(n_items, 700, replace=False)
    assert_same_bytes(index.topk(queries, 9, allow=allow), on_cpu.topk(queries, 9, allow=allow))


def test_each_device_has_its_share_alone(rng, emulated):
    free, _ = emulated.memory_info(0)
    x = {"": normal(rng, 6000, 32)}
    one = FusedIndex(x, device="cuda:0")
    of_one = free - emulated.memory_info(0)[0]
    three = FusedIndex(x, device="cuda:1,2,3")
    shares = [free - emulated.memory_info(i)[0] for i in (1, 2, 3)]
    assert 0.9 * of_one / 3 < min(shares) <= max(shares) < 1.1 * of_one / 3
    del one, three
    assert [emulated.memory_info(i)[0] for i in range(4)] == [free] * 4


def test_memory_that_ends_on_one_device(rng, emulated, items, queries):
    index = FusedIndex(items, device="cuda:0,1")
    expected = FusedIndex(items, device="cpu").topk(queries, 5)
    emulated.set_memory(100, 1)
    with pytest.raises(MemoryError, match=r"bytes asked on cuda:1, \d+ of 100 free"):
        FusedIndex(items, device="cuda:0,1")
    with pytest.raises(MemoryError, match=r"bytes asked on cuda:1, "):
        index.topk(queries, 5)
    emulated.set_memory(device=1)
    assert_same_bytes(index.topk(queries, 5), expected)


# What fails.


def test_a_device_that_fails_is_named_and_the_others_go_on(emulated, items, queries):
    expected = FusedIndex(items, device="cpu").topk(queries, 5)
    index, others = FusedIndex(items, device="cuda:0,1,2"), FusedIndex(items, device="cuda:2,0")
    emulated.set_launches(1, 0)
    with pytest.raises(DeviceError, match=r"^cuda:1: a kernel has failed"):
        index.topk(queries, 5)
    with pytest.raises(DeviceError, match=r"^cuda:1: a kernel has failed"):
        FusedIndex(items, device="cuda:0,1")
    with pytest.raises(DeviceError, match=r"^cuda:1: a kernel has failed"):
        index.score_pairs(queries, sp.csr_array(np.ones((N_QUERIES, N_ITEMS), np.float32)))
    assert_same_bytes(others.topk(queries, 5), expected)
    assert_same_bytes(FusedIndex(items, device="cuda:2").topk(queries, 5), expected)
    emulated.set_launches(1)
    assert_same_bytes(index.topk(queries, 5), expected)


@pytest.mark.parametrize(
    "name",
    [
        "cuda:",
        "cuda:a",
        "cuda:0,",
        "cuda:,1",
        "cuda:-1",
        "cuda:0, 1",
        "cuda0",
        "cuda:0:1",
        "CUDA:0",
        "cpu:0",
        "cuda:١",
        "",
        3,
        None,
        ["cuda:0"],
    ],
)
def test_what_names_no_device(emulated, name):
    message = (
        r"topk: device must be 'auto', 'cpu', 'cuda', or 'cuda:' and numbers of GPUs as in "
        r"'cuda:0,1'; got "
    )
    with pytest.raises(ValueError, match=message):
        recfuse.topk(np.eye(2), np.eye(2), 1, device=name)


def test_a_plan_is_of_one_device():
    sizes = {"n_queries": 1, "n_items": 9, "dims": 2, "k": 1}
    with pytest.raises(ValueError, match=r"got 'cuda:0,1'\. Of several GPUs plan one, with its"):
        recfuse.plan_memory("FusedIndex", **sizes, device="cuda:0,1")


def test_devices_that_are_not_there(emulated):
    message = r"device 'cuda:0,7' cannot be used: numbers of GPUs must be below 7, .*; got 7"
    with pytest.raises(DeviceError, match=message):
        recfuse.topk(np.eye(2), np.eye(2), 1, device="cuda:0,7")


def test_ops_of_one_device_refuse_others(emulated):
    x = sp.csr_array(np.eye(3, dtype=np.float32))
    recfuse.cosine_knn(x, 1, device="cuda:0")
    message = "cosine_knn runs on the first GPU alone so far: .*; got 'cuda:0,1'"
    with pytest.raises(NotImplementedError, match=message):
        recfuse.cosine_knn(x, 1, device="cuda:0,1")


def test_the_variable(emulated, monkeypatch):
    monkeypatch.setenv("RECFUSE_DEVICE", "cuda:1,0")
    index = FusedIndex({"": np.eye(3)})
    assert index.device == "cuda:1,0"
    assert index.topk({"": np.eye(3)}, 1)[0].ravel().tolist() == [0, 1, 2]
    monkeypatch.setenv("RECFUSE_DEVICE", "cuda:9")
    with pytest.raises(DeviceError, match="device 'cuda:9' cannot be used"):
        recfuse.topk(np.eye(2), np.eye(2), 1)


def test_doctor_lists_them(emulated):
    found = recfuse.doctor()["cuda"]
    assert (found["usable"], found["reason"]) == (True, None)
    assert [gpu["name"] for gpu in found["devices"]] == [f"cuda:{i}" for i in range(7)]
    emulated.set_memory(1000, 3)
    gpu = recfuse.doctor()["cuda"]["devices"][3]
    assert gpu == {
        "name": "cuda:3",
        "usable": True,
        "reason": None,
        "model": "the emulator",
        "free_bytes": 1000,
        "total_bytes": 1000,
    }


# Arrays that are on one of the devices.


class Placed:
    """An array in the memory of an emulated GPU."""

    def __init__(self, module, array, device, make=SpeaksCuda):
        self.module, self.array = module, np.array(array)
        if make is SpeaksCuda:
            self.speaks = SpeaksCuda(self.array)
        else:
            self.speaks = SpeaksDlpack(self.array, (2, device))
        module.place(self.array.ctypes.data, self.array.nbytes, device)

    def __del__(self):
        self.module.place(self.array.ctypes.data, 0, -1)


@pytest.fixture
def placed(emulated):
    """Return what puts matrices on a GPU, for as long as the test runs."""
    kept = []

    def place(matrices, device, rows=slice(None)):
        made = {}
        for name, matrix in matrices.items():
            kept.append(Placed(emulated, matrix, device))
            made[name] = SpeaksCuda(kept[-1].array[rows])
        return made

    return place


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("n_queries", [2, 80])
def test_queries_on_one_of_them(rng, placed, items, at, n_queries):
    queries = {name: normal(rng, n_queries, dim) for name, dim in DIMS.items()}
    index, on_cpu = FusedIndex(items, device="cuda:1,0,2"), FusedIndex(items, device="cpu")
    expected = on_cpu.topk(queries, 8, contributions=True)
    for _ in range(2):  # the second time by a recording
        found = index.topk(placed(queries, at), 8, contributions=True)
        assert_same_bytes(tuple(map(host_of, found)), expected)
    rows = placed(
        {name: np.repeat(x, 2, axis=0) for name, x in queries.items()}, at, slice(None, None, 2)
    )
    assert_same_bytes(tuple(map(host_of, index.topk(rows, 8, contributions=True))), expected)
    scaled = index.topk(placed(queries, at), 8, normalise="minmax")
    assert_same_bytes(tuple(map(host_of, scaled)), on_cpu.topk(queries, 8, normalise="minmax"))


@pytest.mark.parametrize("at", [0, 1])
def test_items_on_one_of_them(rng, placed, items, queries, at):
    mixed = {**placed({"text": items["text"]}, at), "image": items["image"]}
    index = FusedIndex(mixed, device="cuda:0,1")
    assert_same_bytes(index.topk(queries, 8), FusedIndex(items, device="cpu").topk(queries, 8))


def test_items_that_have_no_room_on_another(rng, emulated, placed):
    emulated.set_limits(least_block=128)
    emulated.set_memory(150_000, 1)
    items = placed({"": normal(rng, 4000, 12)}, 0)
    message = r"fuse_topk: items must be in host memory, or on cuda:1, which has no room for 2000"
    with pytest.raises(ValueError, match=message):
        FusedIndex(items, device="cuda:0,1")


def test_arrays_on_none_of_them(placed, items):
    with pytest.raises(
        ValueError, match=r"items\['text'\] must be on cuda:0 or cuda:1; got an array on cuda:2"
    ):
        FusedIndex(placed(items, 2), device="cuda:0,1")
    with pytest.raises(
        ValueError, match=r"items\['text'\] must be on cuda:1; got an array on cuda:0"
    ):
        FusedIndex(placed(items, 0), device="cuda:1")


def test_results_are_on_the_first(emulated, placed, items, queries):
    ids, _ = FusedIndex(items, device="cuda:2,1").topk(placed(queries, 1), 3)
    assert emulated.device_of(ids.__cuda_array_interface__["data"][0]) == 2
    again, _ = FusedIndex(items, device="cuda:2,1").topk(placed(queries, 1), 3, fusion="rrf")
    assert emulated.device_of(again.__cuda_array_interface__["data"][0]) == 2


@pytest.mark.parametrize("fusion", ["sum", "min"])
def test_ranks_of_pairs(device, rng, fusion):
    items = {name: normal(rng, N_ITEMS, dim) for name, dim in DIMS.items()}
    for name in items:
        items[name][200:] = np.concatenate([items[name][:200]] * 3)[: N_ITEMS - 200]  # ties across
        items[name][[7, 300]] = np.nan
    queries = {name: normal(rng, N_QUERIES, dim) for name, dim in DIMS.items()}
    pairs = sp.random(N_QUERIES, N_ITEMS, 0.05, "csr", random_state=1)
    how = {"fusion": fusion, "exclude": sp.random(N_QUERIES, N_ITEMS, 0.2, "csr", random_state=2)}
    expected = FusedIndex(items, device="cpu").rank_pairs(queries, pairs, **how)
    found = FusedIndex(items, device=device).rank_pairs(queries, pairs, **how)
    assert_same_bytes(found, expected)
