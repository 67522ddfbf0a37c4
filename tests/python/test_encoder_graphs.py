"""Buffers that stay from run to run: on the CPU, where nothing is captured, and on CUDA."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from helpers import normal
from recfuse.serving import OnnxEncoder, _captured, _session
from recfuse.serving._captured import Captured
from recfuse.serving._on_device import Placed
from test_encoder_session import NO_CUDA, LyingRuntime
from tiny_onnx import LINEAR, TEXTS, linear, on_cpu, onnxruntime, table, tokenizer, tokens


class Noting:
    """A session that notes under which numbers it is run, and with which buffers."""

    def __init__(self, session):
        self.session, self.runs = session, []

    def __getattr__(self, name):
        return getattr(self.session, name)

    def run_with_iobinding(self, binding, options=None):
        graph = options.get_run_config_entry("gpu_graph_id")
        self.runs.append((graph, binding.get_outputs()[0].data_ptr() if graph != "-1" else None))
        self.session.run_with_iobinding(binding, options)


@pytest.fixture
def session():
    return Noting(_session.open_session(linear(), "cpu", 1))


def test_every_shape_has_its_graph_and_its_buffers(rng, session):
    captured = Captured(session, "y")
    for n in (1, 3, 1, 3, 3, 1):
        x = normal(rng, n, 3)
        with captured.run({"x": x}) as value:
            np.testing.assert_array_equal(value.numpy(), x @ LINEAR)
    graphs = [graph for graph, _ in session.runs]
    assert graphs == ["-1", "-1", "1", "2", "2", "1"]  # the first of each shape tells the output's
    places = [place for _, place in session.runs[2:]]
    assert places[0] == places[3] != places[1] == places[2]


def test_more_shapes_than_graphs_are_answered_all_the_same(rng, session, monkeypatch):
    monkeypatch.setattr(_captured, "_MOST_GRAPHS", 2)
    captured = Captured(session, "y")
    for n in (1, 2, 3, 3, 1, 2):
        x = normal(rng, n, 3)
        with captured.run({"x": x}) as value:
            np.testing.assert_array_equal(value.numpy(), x @ LINEAR)
    assert [graph for graph, _ in session.runs] == ["-1", "-1", "-1", "-1", "1", "2"]


def test_threads_take_turns(rng, session):
    captured = Captured(session, "y")
    batches = [normal(rng, 4, 3) for _ in range(40)]

    def run(x):
        with captured.run({"x": x}) as value:
            return np.array(value.numpy())

    with ThreadPoolExecutor(8) as pool:
        for x, y in zip(batches, pool.map(run, batches), strict=True):
            np.testing.assert_array_equal(y, x @ LINEAR)


def test_vectors_that_stay_are_no_buffer_of_a_graph(rng, session):
    encoder = on_cpu(linear())
    placed = Placed(session, 1, Captured(session, "y"))
    results = []
    for _ in range(3):
        x = normal(rng, 5, 3)
        batches = encoder._batches(x)
        results.append((x, placed.vectors(batches, encoder._output, None, False)))
    for x, value in results:  # none has been written over
        np.testing.assert_array_equal(value.numpy(), x @ LINEAR)


def test_a_refused_batch_is_told(session):
    captured = Captured(session, "y")
    with (
        pytest.raises(ValueError, match=r"inputs must suit the model; got a batch of x \(2, 4\)"),
        captured.run({"x": np.ones((2, 4), np.float32)}),
    ):
        pass


def test_graphs_want_cuda():
    with pytest.raises(ValueError, match="cuda_graph must be False on device 'cpu'; got True"):
        OnnxEncoder(linear(), device="cpu", cuda_graph=True)


def test_the_provider_is_asked_for_graphs(monkeypatch, tmp_path):
    asked = []

    class Runtime(LyingRuntime):
        def InferenceSession(self, model, options, *, providers, enable_fallback):
            asked.append(providers[0])
            return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(_session, "load_runtime", lambda *_: Runtime(tmp_path))
    _session.open_session(linear(), "auto", 1, cuda_graph=True)
    _session.open_session(linear(), "auto", 1)
    cuda = "CUDAExecutionProvider"
    assert asked[::2] == [(cuda, {"enable_cuda_graph": "1"}), cuda]


@pytest.mark.skipif(NO_CUDA is not None, reason=f"no CUDA: {NO_CUDA}")
def test_graphs_on_cuda_answer_as_without(rng):
    options = {"tokenizer": tokenizer(), "pooling": "mean", "device": "cuda"}
    source = tokens(table(rng))
    plain, graphs = OnnxEncoder(source, **options), OnnxEncoder(source, cuda_graph=True, **options)
    for _ in range(3):
        for texts in (TEXTS[:1], TEXTS[:5], TEXTS):
            np.testing.assert_allclose(graphs.encode(texts), plain.encode(texts), rtol=1e-5)
            value = graphs.encode_on_device(texts)
            np.testing.assert_allclose(value.numpy(), plain.encode(texts), rtol=1e-5, atol=1e-6)
