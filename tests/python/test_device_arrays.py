"""Arrays of other libraries, on the host and on a GPU: in place, and results where they are."""

from __future__ import annotations

import ctypes
import gc
import pickle
import weakref

import numpy as np
import pytest
import scipy.sparse as sp

import recfuse
from conftest import CUDA_MODULES, run_on_cuda
from helpers import assert_same_bytes, normal, random_modalities, random_pattern
from recfuse import FusedIndex, backend
from recfuse._inputs import as_matrix


class SpeaksDlpack:
    """An array of a library that knows DLPack and nothing else."""

    def __init__(self, array, device=(1, 0)):
        self.array, self.device, self.streams = array, device, []

    def __dlpack_device__(self):
        return self.device

    def __dlpack__(self, *, stream=None, max_version=None, dl_device=None, copy=None):
        self.streams.append(stream)
        if self.array is None:
            raise BufferError("no")
        return self.array.__dlpack__()


class SpeaksCuda:
    """An array of a library that knows the CUDA array interface and nothing else."""

    def __init__(self, array, stream=None):
        self.array = array
        self.__cuda_array_interface__ = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (array.ctypes.data, False),
            "strides": None if array.flags.c_contiguous else array.strides,
            "version": 3,
            "stream": stream,
        }


def host_of(x):
    """Return what a result holds, through either protocol."""
    facts = x.__cuda_array_interface__
    assert facts["version"] == 3 and facts["stream"] is None and facts["strides"] is None
    assert (facts["shape"], np.dtype(facts["typestr"])) == (x.shape, x.dtype)
    return np.asarray(x)


def _cuda_tensors(torch):
    if not torch.cuda.is_available():
        pytest.skip("no PyTorch with CUDA")
    return lambda array: torch.as_tensor(np.ascontiguousarray(array), device="cuda")


@pytest.fixture(params=["emulator", "cuda"])
def gpu(request, monkeypatch):
    """Return what puts an array of NumPy into the memory of the GPU."""
    for _ in run_on_cuda(CUDA_MODULES[request.param], monkeypatch):
        if request.param == "emulator":
            yield SpeaksCuda
            continue
        yield _cuda_tensors(pytest.importorskip("torch"))


# On the host.


@pytest.mark.parametrize("make", ["dlpack", "torch", "OrtValue"])
def test_host_memory_is_used_in_place(rng, make):
    array = normal(rng, 30, 4)
    if make == "dlpack":
        x = SpeaksDlpack(array)
    elif make == "torch":
        x = pytest.importorskip("torch").from_numpy(array)
    else:
        library = pytest.importorskip("onnxruntime")
        x = library.OrtValue.ortvalue_from_numpy(array)
        array = np.from_dlpack(x)  # its own memory, whether or not that is the array's
    assert np.shares_memory(as_matrix(x, "x"), array)
    assert as_matrix(x, "x").ctypes.data == array.ctypes.data
    expected = recfuse.topk(array[:5], array, 3)
    assert_same_bytes(tuple(y[:5] for y in recfuse.topk(x, x, 3)), expected)
    items, weights = {"a": x, "b": array}, {"a": 0.5, "b": 2.0}
    assert_same_bytes(
        recfuse.fuse_topk(items, items, weights, 4),
        recfuse.fuse_topk({"a": array, "b": array}, {"a": array, "b": array}, weights, 4),
    )
    assert_same_bytes(
        FusedIndex({"a": x}).topk({"a": x}, 2), FusedIndex({"a": array}).topk({"a": array}, 2)
    )


def test_what_numpy_cannot_read_is_said():
    torch = pytest.importorskip("torch")
    items = np.eye(2, dtype=np.float32)
    with pytest.raises(TypeError, match=r"topk: queries must be an array that NumPy can read; .*"):
        recfuse.topk(torch.ones((1, 2), dtype=torch.bfloat16), items, 1)
    with pytest.raises(TypeError, match=r"items must be an array .* got Tensor: .*grad.*detach"):
        recfuse.topk(items, torch.ones((1, 2), requires_grad=True), 1)
    ids, _ = recfuse.topk(torch.eye(2, dtype=torch.float64), torch.eye(2).T, 1)  # these it can
    assert ids.ravel().tolist() == [0, 1]


@pytest.mark.parametrize("make", [SpeaksCuda, lambda x: SpeaksDlpack(x, (2, 0))])
def test_the_cpu_does_not_read_the_memory_of_a_gpu(rng, make):
    x = make(normal(rng, 3, 2))
    message = "must be in host memory on device 'cpu'; got a Speaks.* on a GPU. Pass device='cuda'"
    with pytest.raises(TypeError, match=f"topk: queries {message}"):
        recfuse.topk(x, np.eye(2), 1, device="cpu")
    with pytest.raises(TypeError, match=rf"fuse_topk: items\['a'\] {message}"):
        FusedIndex({"a": x}, device="cpu")
    with pytest.raises(TypeError, match=rf"fuse_topk: queries\['a'\] {message}"):
        FusedIndex({"a": np.eye(2)}, device="cpu").topk({"a": x}, 1)
    assert FusedIndex({"a": np.eye(2)}, device="cpu").device == "cpu"


# On the GPU.


RULES = [
    {},
    {"fusion": "average", "missing": "zero"},
    {"fusion": "product"},
    {"fusion": "max"},
    {"fusion": "rrf", "depth": 20},
    {"normalise": "zscore"},
]


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("where", ["queries", "items", "both", "some queries"])
def test_the_bytes_of_the_cpu_wherever_arrays_are(rng, gpu, rule, where):
    queries, items, weights = random_modalities(rng, (5, 8), 70, 500)
    present = {"m0": rng.random(500) < 0.8}
    exclude, _ = random_pattern(rng, 70, 500, 0.05)
    options = {"weights": weights, "exclude": exclude, "contributions": True, **rule}
    expected = FusedIndex(items, present=present, device="cpu").topk(queries, 7, **options)
    if where in ("items", "both"):
        items = {name: gpu(x) for name, x in items.items()}
    if where in ("queries", "both"):
        queries = {name: gpu(x) for name, x in queries.items()}
    if where == "some queries":
        queries["m1"] = gpu(queries["m1"])
    index = FusedIndex(items, present=present, device="cuda")
    assert index.device == "cuda"
    got = index.topk(queries, 7, **options)
    on_gpu = where in ("queries", "both")
    assert all(isinstance(x, np.ndarray) is not on_gpu for x in got)
    if on_gpu:
        assert len(got[0]) == 70
        got = tuple(map(host_of, got))
    assert_same_bytes(got, expected)


def test_functions_take_them_too(rng, gpu):
    x, y = normal(rng, 9, 6), normal(rng, 300, 6)
    for queries, items in ((gpu(x), gpu(y)), (gpu(x), y)):
        got = recfuse.topk(queries, items, 5, metric="cosine", device="cuda")
        expected = recfuse.topk(x, y, 5, metric="cosine", device="cpu")
        assert_same_bytes(tuple(map(host_of, got)), expected)
    got = recfuse.fuse_topk({"a": gpu(x)}, {"a": gpu(y)}, {"a": 2.0}, 5, device="cuda")
    expected = recfuse.fuse_topk({"a": x}, {"a": y}, {"a": 2.0}, 5, device="cpu")
    assert_same_bytes(tuple(map(host_of, got)), expected)


def test_pairs_are_scored_from_either_place(rng, gpu):
    queries, items, weights = random_modalities(rng, (5, 8), 6, 50)
    pairs = sp.csr_array(random_pattern(rng, 6, 50, 0.3)[0])
    expected = FusedIndex(items, device="cpu").score_pairs(queries, pairs, weights=weights)
    index = FusedIndex({name: gpu(x) for name, x in items.items()}, device="cuda")
    there = {name: gpu(x) for name, x in queries.items()}
    assert_same_bytes(index.score_pairs(there, pairs, weights=weights), expected)


def test_results_live_on_without_the_index(rng, gpu):
    x = normal(rng, 40, 3)
    ids, scores = FusedIndex({"a": gpu(x)}, device="cuda").topk({"a": gpu(x)}, 2)
    gc.collect()
    expected = recfuse.topk(x, x, 2, metric="cosine", device="cpu")
    assert_same_bytes((host_of(ids), host_of(scores)), expected)


def test_items_on_the_gpu_are_kept_and_queries_let_go(rng, gpu):
    class Kept(SpeaksCuda):
        pass

    if gpu is not SpeaksCuda:
        pytest.skip("PyTorch frees its tensors later, where it likes")
    items, queries = Kept(normal(rng, 40, 3)), Kept(normal(rng, 4, 3))
    kept, gone = weakref.ref(items), weakref.ref(queries)
    index = FusedIndex({"a": items}, device="cuda")
    index.topk({"a": queries}, 2)
    del items, queries
    gc.collect()
    assert kept() is not None
    assert gone() is None
    del index
    gc.collect()
    assert kept() is None


def test_who_made_a_capsule_is_kept_with_it(rng, monkeypatch):
    """ONNX Runtime's values must live as long as their capsules."""
    for _ in run_on_cuda(CUDA_MODULES["emulator"], monkeypatch):
        items = SpeaksDlpack(normal(rng, 40, 3), (2, 0))
        kept = weakref.ref(items)
        index = FusedIndex({"a": items}, device="cuda")
        del items
        gc.collect()
        assert kept() is not None
        assert index.n_items == 40


def test_an_index_on_the_gpu_changes_and_travels(rng, gpu):
    x, y = normal(rng, 30, 3), normal(rng, 4, 3)
    index = FusedIndex({"a": gpu(x)}, device="cuda")
    same = FusedIndex({"a": x}, device="cpu")
    for change in (
        lambda i, new: i.add({"a": new}),
        lambda i, new: i.update([3, 1, 5, 9], {"a": new}),
        lambda i, _: i.remove([0, 7]),
    ):
        change(index, gpu(y))
        change(same, y)
        assert_same_bytes(index.topk({"a": y}, 5), same.topk({"a": y}, 5))
    index = FusedIndex({"a": gpu(x)}, device="cuda")
    copy = pickle.loads(pickle.dumps(index))
    assert_same_bytes(copy.topk({"a": y}, 5), index.topk({"a": y}, 5))


# What only the emulator can show: its memory is the host's.


@pytest.fixture
def emulated(monkeypatch):
    yield from run_on_cuda(CUDA_MODULES["emulator"], monkeypatch)


def test_arrays_are_read_in_place(rng, emulated):
    x, y = normal(rng, 3, 4), normal(rng, 50, 4)
    index = FusedIndex({"a": SpeaksCuda(y)}, metric="dot", device="cuda")
    before = index.topk({"a": x}, 50)
    # Not to be done: but only who reads the items where they are sees it.
    y[:] = 0
    after = index.topk({"a": x}, 50, fusion="max")
    assert not np.array_equal(before[1], after[1])
    assert not after[1].any()


def test_rows_that_lie_apart(rng, emulated):
    wide_x, wide_y = normal(rng, 9, 10), normal(rng, 300, 10)
    x, y = wide_x[:, 2:7], wide_y[:, 3:8]
    got = recfuse.topk(SpeaksCuda(x), SpeaksCuda(y), 5, device="cuda")
    assert_same_bytes(tuple(map(np.asarray, got)), recfuse.topk(x, y, 5, device="cpu"))
    got = recfuse.topk(SpeaksCuda(x[::2]), SpeaksCuda(y[::3]), 5, device="cuda")
    assert_same_bytes(tuple(map(np.asarray, got)), recfuse.topk(x[::2], y[::3], 5, device="cpu"))
    host = pickle.loads(pickle.dumps(as_matrix(SpeaksCuda(x), "x", "cuda")))
    np.testing.assert_array_equal(host, x)


def test_dlpack_comes_in_and_goes_out(rng, emulated):
    x, y = normal(rng, 9, 5), normal(rng, 300, 5)
    there = SpeaksDlpack(y, (2, 0))
    ids, scores = recfuse.topk(SpeaksDlpack(x, (13, 0)), there, 5, device="cuda")
    # The producer makes the legacy stream wait for its own, and the search waits for that one.
    assert there.streams == [1]
    assert ids.__dlpack_device__() == (1, 0)
    with pytest.raises(BufferError, match="results are given as they are, not copied"):
        ids.__dlpack__(copy=True)
    out = np.from_dlpack(ids), np.from_dlpack(scores)
    assert out[0].ctypes.data == ids.__cuda_array_interface__["data"][0]
    del ids, scores
    gc.collect()
    assert_same_bytes(out, recfuse.topk(x, y, 5, device="cpu"))
    torch = pytest.importorskip("torch")
    ids, _ = recfuse.topk(SpeaksCuda(x), SpeaksCuda(y), 5, device="cuda")
    np.testing.assert_array_equal(torch.from_dlpack(ids).numpy(), out[0])


def test_a_capsule_that_nobody_takes_is_freed(rng, emulated):
    ids, _ = recfuse.topk(SpeaksCuda(normal(rng, 2, 2)), np.eye(2), 1, device="cuda")
    capsule = ids.__dlpack__()
    free = ctypes.pythonapi.PyCapsule_IsValid
    free.argtypes = [ctypes.py_object, ctypes.c_char_p]
    assert free(capsule, b"dltensor") == 1
    del ids, capsule  # the sanitizers of `make sanitize` see what is not


@pytest.mark.parametrize(("stream", "waited_for"), [(None, 0), (1, 1), (2, 2), (12345, 12345)])
def test_the_stream_of_an_array_is_passed_on(rng, emulated, stream, waited_for):
    matrix = as_matrix(SpeaksCuda(normal(rng, 2, 3), stream), "x", "cuda")
    assert matrix.parts[1:5] == (2, 3, 3, waited_for)


def test_wrong_arrays_on_the_gpu(rng, emulated):
    y = np.eye(3, dtype=np.float32)
    far = SpeaksCuda(y.copy())
    far.__cuda_array_interface__["strides"] = (12, 8)
    odd = SpeaksCuda(y.copy())
    odd.__cuda_array_interface__["strides"] = (14, 4)
    for wrong, error, message in (
        (
            SpeaksCuda(y.astype("f2")),
            TypeError,
            "be float32 on a GPU, where nothing .* got float16",
        ),
        (SpeaksDlpack(y.astype("f8"), (2, 0)), TypeError, "be float32 on a GPU, .* got float64"),
        (SpeaksDlpack(y.astype("i4"), (2, 0)), TypeError, "be float32 on .* got type 0 of 32 bits"),
        (SpeaksCuda(y[0]), ValueError, r"have 2 dimensions; got shape \(3,\)"),
        (SpeaksCuda(y.T), ValueError, r"have adjacent elements .* got strides \(1, 3\)"),
        (far, ValueError, r"have adjacent elements .* got strides \(3, 2\)"),
        (odd, ValueError, r"have strides of whole elements; got \(14, 4\) bytes"),
    ):
        with pytest.raises(error, match=f"topk: queries must {message}"):
            recfuse.topk(wrong, y, 1, device="cuda")
    masked, refusing = SpeaksCuda(y), SpeaksDlpack(y, (2, 0))
    masked.__cuda_array_interface__["mask"] = SpeaksCuda(y > 0)
    with pytest.raises(TypeError, match="topk: queries must not be masked; got SpeaksCuda"):
        recfuse.topk(masked, y, 1, device="cuda")
    shifted = np.frombuffer(bytes(61), np.uint8)[1:].view(np.float32).reshape(5, 3)
    assert shifted.ctypes.data % 4
    with pytest.raises(ValueError, match="topk: queries must lie at a multiple of 4 bytes; got 0x"):
        recfuse.topk(SpeaksCuda(shifted), y, 1, device="cuda")
    refusing.array = None  # as PyTorch refuses what wants a gradient
    with pytest.raises(TypeError, match="topk: items must be an array that DLPack can pass on"):
        recfuse.topk(y, refusing, 1, device="cuda")
    with pytest.raises(ValueError, match="topk: queries must have 3 columns like items; got 2"):
        recfuse.topk(SpeaksCuda(y[:, :2].copy()), SpeaksCuda(y), 1, device="cuda")


def test_degenerate_arrays_on_the_gpu(emulated):
    y = np.eye(3, dtype=np.float32)
    ids, scores = recfuse.topk(SpeaksCuda(y[:0]), SpeaksCuda(y), 2, device="cuda")
    assert ids.shape == scores.shape == (0, 2)
    ids, _ = recfuse.topk(SpeaksCuda(y), SpeaksCuda(y[:0]), 2, device="cuda")
    assert (np.asarray(ids) == -1).all()
    ids, _ = recfuse.topk(SpeaksCuda(y[:, :1]), SpeaksCuda(y[:, :1].copy()), 1, device="cuda")
    assert np.asarray(ids).ravel().tolist() == [0, 0, 0]


# What only a GPU can show.


@pytest.fixture
def torch(monkeypatch):
    library = pytest.importorskip("torch")
    for _ in run_on_cuda(CUDA_MODULES["cuda"], monkeypatch):
        if not library.cuda.is_available():
            pytest.skip("no PyTorch with CUDA")
        yield library


def test_two_streams(rng, torch):
    """Queries that a busy stream still has to write; results that another one reads at once."""
    y = normal(rng, 20_000, 64)
    index = FusedIndex({"a": torch.as_tensor(y, device="cuda")}, device="cuda")
    writer, reader = torch.cuda.Stream(), torch.cuda.Stream()
    big = torch.randn(8192, 8192, device="cuda")
    for seed in range(5):
        x = normal(np.random.default_rng(seed), 100, 64)
        expected = recfuse.topk(x, y, 10, metric="cosine", device="cpu")
        with torch.cuda.stream(writer):
            source = torch.as_tensor(x, device="cuda")
            queries = torch.full((100, 64), torch.nan, device="cuda")
            for _ in range(20):
                big = (big @ big).clamp(-1, 1)
            queries.copy_(source)
            ids, scores = index.topk({"a": queries}, 10)
            queries.fill_(torch.nan)  # allowed: the call has returned
        with torch.cuda.stream(reader):
            got = torch.from_dlpack(ids).cpu().numpy(), torch.from_dlpack(scores).cpu().numpy()
        assert_same_bytes(got, expected)


def test_arrays_of_cupy(rng, monkeypatch):
    cupy = pytest.importorskip("cupy")
    for _ in run_on_cuda(CUDA_MODULES["cuda"], monkeypatch):
        x, y = normal(rng, 20, 8), normal(rng, 3000, 8)
        stream = cupy.cuda.Stream(non_blocking=True)
        with stream:
            got = recfuse.topk(cupy.asarray(x) + 0, cupy.asarray(y) + 0, 5, device="cuda")
            got = tuple(cupy.asnumpy(cupy.asarray(array)) for array in got)
        assert_same_bytes(got, recfuse.topk(x, y, 5, device="cpu"))


def test_the_device_of_the_caller_stays(rng, torch):
    if torch.cuda.device_count() < 2:
        pytest.skip("one GPU only")
    with torch.cuda.device(1):
        recfuse.topk(np.eye(2), np.eye(2), 1, device="cuda")
        assert torch.cuda.current_device() == 1
    with pytest.raises(ValueError, match="must be on cuda:0; got an array on cuda:1"):
        recfuse.topk(torch.eye(2, device="cuda:1"), np.eye(2), 1, device="cuda")


def test_memory_info(emulated):
    assert len(backend.resolve_backend("cuda").ops.memory_info()) == 2
