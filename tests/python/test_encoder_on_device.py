"""Vectors that stay where the session runs: on the CPU, to compare them, and on CUDA."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import recfuse
from conftest import CUDA_MODULES, run_on_cuda
from helpers import assert_same_bytes, normal
from recfuse import FusedIndex
from recfuse.serving import OnnxEncoder, Pipeline, _session
from test_device_arrays import SpeaksCuda
from test_encoder_session import NO_CUDA
from tiny_onnx import LINEAR, TEXTS, linear, model, on_cpu, onnxruntime, table, tokenizer, tokens


@pytest.mark.parametrize("batch_size", [3, 11, 256])
def test_vectors_are_those_of_encode(rng, batch_size):
    x = normal(rng, 11, 3)
    encoder = on_cpu(linear(), batch_size=batch_size)
    value = encoder.encode_on_device(x)
    assert isinstance(value, onnxruntime.OrtValue)
    assert value.device_name() == "cpu"
    np.testing.assert_array_equal(value.numpy(), encoder.encode(x))
    assert not encoder.keeps_on_device
    assert encoder.encode_on_device(x[:0]).shape() == [0, 2]


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("pooling", ["mean", "max", "cls"])
@pytest.mark.parametrize("batch_size", [4, 64])
def test_texts_are_pooled_in_their_order(rng, pooling, normalise, batch_size):
    encoder = on_cpu(
        tokens(table(rng)),
        tokenizer=tokenizer(),
        pooling=pooling,
        normalise=normalise,
        batch_size=batch_size,
    )
    for source in (encoder, pickle.loads(pickle.dumps(encoder))):
        got = source.encode_on_device(TEXTS).numpy()
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, encoder.encode(TEXTS), rtol=1e-6, atol=1e-7)


def test_a_model_that_knows_no_padding_gets_texts_of_one_length_together(rng):
    encoder = on_cpu(tokens(table(rng), mask=False), tokenizer=tokenizer(), pooling="mean")
    got = encoder.encode_on_device(TEXTS).numpy()
    np.testing.assert_allclose(got, encoder.encode(TEXTS), rtol=1e-6, atol=1e-7)


def test_other_types_and_axes_become_a_float32_matrix(rng):
    x = normal(rng, 9, 3)
    half = "half (float[n, 3] x) => (float16[n, 3] y) { y = Cast<to = 10>(x) }"
    double = "double (float[n, 3] x) => (double[n, 3] y) { y = Cast<to = 11>(x) }"
    wide = """wide (float[n, 3] x) => (float[n, 3, 1, 1] y) <int64[4] s = {0, 3, 1, 1}>
        { y = Reshape(x, s) }"""
    for graph in (half, double, wide):
        for batch_size in (4, 9):
            encoder = on_cpu(model(graph), batch_size=batch_size)
            value = encoder.encode_on_device(x)
            assert value.data_type() == "tensor(float)"
            np.testing.assert_array_equal(value.numpy(), encoder.encode(x))
    whole = on_cpu(model("whole (float[n, 3] x) => (int64[n, 3] y) { y = Cast<to = 7>(x) }"))
    with pytest.raises(TypeError, match=r"output must hold floating point .* got tensor\(int64\)"):
        whole.encode_on_device(x)


def test_what_cannot_stay_is_said(rng, tmp_path):
    x = normal(rng, 5, 3)
    with pytest.raises(ValueError, match=r"encode_on_device: dtype must be 'float32' .* float16"):
        on_cpu(linear(), dtype="float16").encode_on_device(x)
    with pytest.raises(ValueError, match=r"encode_on_device: cache must be None .* got a folder"):
        on_cpu(linear(), cache=tmp_path).encode_on_device(x)
    static = on_cpu(linear(batch="2"))
    np.testing.assert_array_equal(static.encode_on_device(x[:4]).numpy(), static.encode(x[:4]))
    with pytest.raises(
        ValueError, match=r"inputs must fill the batches .* of 2 rows .* got 1 rows"
    ):
        static.encode_on_device(x)
    with pytest.raises(ValueError, match="inputs must suit the model; got a batch of x"):
        on_cpu(model("f (float[n, k] x) => (float[n, 2] y) <float[3, 2] w = {1, 0, 0, 2, 1, 1}>"
                     "{ y = MatMul(x, w) }")).encode_on_device(x[:, :2])  # fmt: skip
    two = model("two (float[n, 3] x) => (float[m, 3, 2] y) <int64[3] s = {-1, 3, 2}>"
                "{ y = Reshape(x, s) }")  # fmt: skip
    with pytest.raises(ValueError, match=r"output 'y' must have one row per row .* \(2, 3, 2\)"):
        on_cpu(two, pooling="mean").encode_on_device(x[:4])


def test_an_index_takes_them_as_they_are(rng):
    x, items = normal(rng, 6, 3), normal(rng, 40, 2)
    encoder = on_cpu(linear())
    index = FusedIndex({"a": items}, device="cpu")
    got = index.topk({"a": encoder.encode_on_device(x)}, 5)
    assert_same_bytes(got, index.topk({"a": encoder.encode(x)}, 5))


# A pipeline on CUDA, with an encoder that would notice if its vectors came to the host.


class StaysOnCuda:
    keeps_on_device = True

    def __init__(self):
        self.calls = []

    def encode_on_device(self, x):
        self.calls.append("there")
        return SpeaksCuda(np.ascontiguousarray(np.asarray(x, np.float32) @ LINEAR))

    def encode(self, x):
        self.calls.append("here")
        return np.asarray(x, np.float32) @ LINEAR


def test_a_pipeline_hands_vectors_over_on_the_gpu(rng, monkeypatch):
    x, items = normal(rng, 6, 3), {"a": normal(rng, 40, 2), "b": normal(rng, 40, 3)}
    inputs = {"a": list(x), "b": x}
    expected = Pipeline(items, {"a": StaysOnCuda()}, k=5, device="cpu").topk(inputs)
    for _ in run_on_cuda(CUDA_MODULES["emulator"], monkeypatch):
        encoder = StaysOnCuda()
        pipeline = Pipeline(items, {"a": encoder}, k=5, device="cuda")
        for given in (inputs, {"a": list(x), "b": SpeaksCuda(x)}):
            got = pipeline.topk(given)
            assert all(type(array) is np.ndarray for array in got)
            assert_same_bytes(got, expected)
        assert encoder.calls == ["there", "there"]
        alone = Pipeline({"a": items["a"]}, {"a": encoder}, k=5, device="cuda").topk({"a": x})
        assert all(type(array) is np.ndarray for array in alone)
        made = Pipeline.from_inputs({"a": list(x), "b": x}, {"a": encoder}, k=5, device="cuda")
        assert encoder.calls[-1] == "there"
        of_items = FusedIndex({"a": x @ LINEAR, "b": x}, device="cpu")
        assert_same_bytes(made.topk(inputs), of_items.topk({"a": x @ LINEAR, "b": x}, 5))
        # Rows that are missing are put between the others on the host.
        some = pipeline.topk({"a": [None, *x[1:]], "b": x})
        assert encoder.calls[-1] == "here"
        assert_same_bytes(tuple(y[1:] for y in some), tuple(y[1:] for y in expected))


@pytest.mark.skipif(NO_CUDA is not None, reason=f"no CUDA: {NO_CUDA}")
def test_vectors_stay_on_cuda(rng):
    options = {"tokenizer": tokenizer(), "pooling": "mean"}
    encoder = OnnxEncoder(tokens(table(rng)), device="cuda", **options)
    assert encoder.keeps_on_device
    value = encoder.encode_on_device(TEXTS)
    assert value.device_name() == "cuda"
    np.testing.assert_allclose(value.numpy(), encoder.encode(TEXTS), rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(NO_CUDA is not None, reason=f"no CUDA: {NO_CUDA}")
def test_from_text_to_list_on_cuda(rng, monkeypatch):
    items = normal(rng, 500, 4)
    options = {"tokenizer": tokenizer(), "pooling": "mean"}
    encoder = OnnxEncoder(tokens(table(rng)), device="cuda", **options)
    on_host = encoder.encode_on_device(TEXTS).numpy()
    monkeypatch.setattr(_session, "run_bound", None)  # what copies to the host is not called
    for _ in run_on_cuda(CUDA_MODULES["cuda"], monkeypatch):
        got = Pipeline({"text": items}, {"text": encoder}, k=10, device="cuda").topk(
            {"text": TEXTS}
        )
        expected = recfuse.topk(on_host, items, 10, metric="cosine", device="cpu")
        assert_same_bytes(got, expected)
