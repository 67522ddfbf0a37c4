from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from recfuse.errors import DeviceError, FormatError
from recfuse.serving import OnnxEncoder, _session
from tiny_onnx import (
    LINEAR,
    TEXTS,
    TWO_OUTPUTS,
    linear,
    model,
    on_cpu,
    onnx,
    onnxruntime,
    table,
    tokenizer,
    tokens,
)


def _why_no_cuda():
    try:
        OnnxEncoder(linear(), device="cuda")
    except DeviceError as error:
        return str(error)
    return None


NO_CUDA = _why_no_cuda()


@pytest.fixture
def rng():
    return np.random.default_rng(20240)


@pytest.fixture
def x(rng):
    return rng.standard_normal((11, 3)).astype(np.float32)


@pytest.mark.skipif(NO_CUDA is None, reason="this machine has CUDA")
def test_cuda_refuses_with_the_reason_and_prints_nothing(capfd):
    rule = r"OnnxEncoder: device must be 'cpu' or 'auto' on this machine; got 'cuda': .+"
    with pytest.raises(DeviceError, match=rule + r"\. (Put onnxruntime-gpu|Install) .+"):
        OnnxEncoder(linear(), device="cuda")
    assert OnnxEncoder(linear(), device="auto").device == "cpu"
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(NO_CUDA is not None, reason=f"no CUDA: {NO_CUDA}")
def test_cuda_gives_what_the_cpu_gives(x):
    encoder = OnnxEncoder(linear(), device="cuda", batch_size=4)
    assert encoder.providers[0] == "CUDAExecutionProvider"
    np.testing.assert_allclose(encoder.encode(x), x @ LINEAR, rtol=1e-3, atol=1e-3)
    assert OnnxEncoder(linear(), device="auto").device == "cuda"


class LyingRuntime:
    """ONNX Runtime that claims CUDA and gives sessions on the CPU, as a broken install does."""

    def __init__(self, folder, failure=None):
        self.failure = failure
        self.capi = SimpleNamespace(
            __file__=str(folder / "__init__.py"),
            onnxruntime_pybind11_state=onnxruntime.capi.onnxruntime_pybind11_state,
        )

    def __getattr__(self, name):
        return getattr(onnxruntime, name)

    def get_available_providers(self):
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def InferenceSession(self, model, options, *, providers, enable_fallback):
        assert enable_fallback == 0
        if self.failure and providers[0] == "CUDAExecutionProvider":
            raise RuntimeError(self.failure)
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (None, "the session runs on CPUExecutionProvider. Install the CUDA libraries"),
        (
            "/x.cc:1 f() CUDA failure 35: CUDA driver version is insufficient ; GPU=-1 ; host",
            "CUDA failure 35: CUDA driver version is insufficient. Install an NVIDIA driver",
        ),
    ],
    ids=["silent", "raising"],
)
def test_a_session_that_does_not_run_on_cuda_is_found_out(
    monkeypatch, tmp_path, x, failure, reason
):
    monkeypatch.setattr(_session, "load_runtime", lambda *_: LyingRuntime(tmp_path, failure))
    with pytest.raises(DeviceError, match=f"got 'cuda': {reason}"):
        OnnxEncoder(linear(), device="cuda")
    encoder = OnnxEncoder(linear(), device="auto")
    assert encoder.device == "cpu"
    np.testing.assert_allclose(encoder.encode(x), x @ LINEAR, rtol=1e-6)


def test_a_library_that_does_not_load_is_the_reason(tmp_path):
    library = tmp_path / "libonnxruntime_providers_cuda.so"
    library.write_bytes(b"no library")
    assert "libonnxruntime_providers_cuda.so" in _session._load_error(library)


def test_cuda_libraries_from_wheels_are_loaded_first_and_silently(monkeypatch, tmp_path, capsys):
    class Runtime(LyingRuntime):
        loaded = False

        def preload_dlls(self):
            print("Failed to load libcudnn.so.9")
            self.loaded = True

    (tmp_path / "libonnxruntime_providers_cuda.so").touch()
    runtime = Runtime(tmp_path)
    monkeypatch.setattr(
        _session, "_load_error", lambda _: None if runtime.loaded else "libcublas.so: not found"
    )
    assert _session.cuda_obstacle(runtime) is None
    assert capsys.readouterr().out == ""


def test_the_environment_fills_in_auto_only(monkeypatch, x):
    monkeypatch.setenv("RECFUSE_DEVICE", "cuda")
    if NO_CUDA is not None:
        with pytest.raises(DeviceError):
            OnnxEncoder(linear())
    assert OnnxEncoder(linear(), device="cpu").device == "cpu"
    monkeypatch.setenv("RECFUSE_DEVICE", "tpu")
    with pytest.raises(ValueError, match="RECFUSE_DEVICE must be one of"):
        OnnxEncoder(linear())


def test_the_bound_path_gives_what_the_plain_one_gives(x):
    session = _session.open_session(linear(), "cpu", 1)
    plain = _session.run(session, "y", {"x": x})
    np.testing.assert_array_equal(_session.run_bound(session, "y", {"x": x}, "cpu"), plain)
    both = _session.open_session(model(TWO_OUTPUTS), "cpu", 1)
    np.testing.assert_array_equal(_session.run_bound(both, "z", {"x": x}, "cpu"), np.abs(x))


def test_threads_of_a_session(monkeypatch):
    monkeypatch.delenv("RECFUSE_NUM_THREADS", raising=False)
    assert _session.thread_count(3) == 3
    assert _session.thread_count(0) == len(os.sched_getaffinity(0))
    monkeypatch.setenv("RECFUSE_NUM_THREADS", "5")
    assert _session.thread_count(0) == 5
    assert _session.thread_count(2) == 2
    session = _session.open_session(linear(), "cpu", 0)
    assert session.get_session_options().intra_op_num_threads == 5
    monkeypatch.setenv("RECFUSE_NUM_THREADS", "many")
    with pytest.raises(ValueError, match="RECFUSE_NUM_THREADS must be a positive integer; got"):
        _session.thread_count(0)


def test_several_threads_may_encode_at_once(rng):
    vectors = table(rng)
    encoder = on_cpu(tokens(vectors), tokenizer=tokenizer(), pooling="mean", batch_size=2)
    expected = encoder.encode(TEXTS)
    with ThreadPoolExecutor(8) as pool:
        for result in pool.map(lambda _: encoder.encode(TEXTS), range(40)):
            np.testing.assert_array_equal(result, expected)


def test_copies_and_pickles_encode_the_same(rng, tmp_path):
    encoder = on_cpu(tokens(table(rng)), tokenizer=tokenizer(), pooling="mean", cache=tmp_path)
    expected = encoder.encode(TEXTS)
    for other in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
        np.testing.assert_array_equal(other.encode(TEXTS), expected)
        np.testing.assert_array_equal(other.encode(TEXTS[:4]), expected[:4])


def _encode_in_child(encoder, x, queue):
    queue.put(encoder.encode(x))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_an_encoder_works_in_a_forked_child(rng):
    w = rng.standard_normal((256, 256)).astype(np.float32)
    made = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]>'
        "big (float[n, 256] x) => (float[n, 256] y) <float[256, 256] w> { y = MatMul(x, w) }"
    )
    made.graph.initializer.append(onnx.numpy_helper.from_array(w, "w"))
    encoder = on_cpu(made.SerializeToString())
    x = rng.standard_normal((512, 256)).astype(np.float32)
    expected = encoder.encode(
        x
    )  # the session's threads now exist in this process, not in the child
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_encode_in_child, args=(encoder, x, queue))
    child.start()
    try:
        np.testing.assert_array_equal(queue.get(timeout=60), expected)
        child.join(30)
        assert child.exitcode == 0
    finally:
        child.kill()
    np.testing.assert_array_equal(encoder.encode(x), expected)


def test_progress_goes_to_standard_error(x, capsys):
    pytest.importorskip("tqdm")
    on_cpu(linear(), batch_size=4).encode(x, show_progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "encode" in err
    assert "3/3" in err


def test_the_cache_answers_without_running_the_model(tmp_path, x, monkeypatch):
    folder = tmp_path / "a" / "cache"
    expected = on_cpu(linear(), cache=folder).encode(x)
    assert [path.suffix for path in folder.iterdir()] == [".npy"]
    encoder = on_cpu(linear(), cache=str(folder), batch_size=3)
    monkeypatch.setattr("recfuse.serving.encoder.run", None)  # may not be called
    np.testing.assert_array_equal(encoder.encode(x.copy()), expected)


def test_the_cache_tells_models_options_and_inputs_apart(tmp_path, x):
    identity = model("same (float[n, 3] x) => (float[n, 3] y) { y = Identity(x) }")
    for source, options in [
        (linear(), {}),
        (identity, {}),
        (linear(), {"normalise": True}),
        (linear(), {"dtype": "float16"}),
    ]:
        for inputs in (x, x + 1, x[:-1], np.ascontiguousarray(x[:, [1, 0, 2]])):
            cached = on_cpu(source, cache=tmp_path, **options).encode(inputs)
            plain = on_cpu(source, **options).encode(inputs)
            np.testing.assert_array_equal(cached, plain)
    assert len(list(tmp_path.iterdir())) == 16


def test_the_cache_tells_texts_apart(tmp_path, rng):
    options = {"tokenizer": tokenizer(), "pooling": "mean"}
    source = tokens(table(rng))
    for texts in (["toy story", "alien"], ["toy", "story alien"], ["alien", "toy story"]):
        cached = on_cpu(source, cache=tmp_path, **options).encode(texts)
        np.testing.assert_array_equal(cached, on_cpu(source, **options).encode(texts))
    assert len(list(tmp_path.iterdir())) == 3


def test_a_damaged_cache_file_is_a_format_error(tmp_path, x):
    encoder = on_cpu(linear(), cache=tmp_path)
    encoder.encode(x)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for damaged in (b"", whole[:20], whole[:-1], pickle.dumps([1])):
        path.write_bytes(damaged)
        with pytest.raises(FormatError, match=r"must hold whole \.npy files; got .* Delete it"):
            encoder.encode(x)


def test_a_cached_nan_is_still_refused(tmp_path):
    graph = "log (float[n, 3] x) => (float[n, 3] y) { y = Log(x) }"
    x = -np.ones((2, 3))
    on_cpu(model(graph), cache=tmp_path, nan_policy="propagate").encode(x)
    with pytest.raises(ValueError, match="finite"):
        on_cpu(model(graph), cache=tmp_path).encode(x)


def test_a_failed_encode_leaves_nothing_in_the_cache(tmp_path):
    graph = "log (float[n, 3] x) => (float[n, 3] y) { y = Log(x) }"
    with pytest.raises(ValueError, match="finite"):
        on_cpu(model(graph), cache=tmp_path).encode(-np.ones((2, 3)))
    assert list(tmp_path.iterdir()) == []
