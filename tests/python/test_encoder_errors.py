from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse as sp

from recfuse.errors import FormatError
from recfuse.serving import OnnxEncoder
from tiny_onnx import LINEAR, linear, model, on_cpu, onnx, table, tokenizer, tokens


@pytest.fixture
def rng():
    return np.random.default_rng(20240)


@pytest.fixture
def x(rng):
    return rng.standard_normal((11, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ({"y": np.ones((2, 3))}, ValueError, r"names \['x'\]; got \['y'\]"),
        ({"x": np.ones((2, 3)), "y": 1}, ValueError, r"names \['x'\]; got \['x', 'y'\]"),
        ({}, ValueError, r"names \['x'\]; got \[\]"),
        (np.ones(3), ValueError, r"inputs must have 2 dimensions \(any, 3\); got shape \(3,\)"),
        (np.ones((2, 3, 1)), ValueError, r"2 dimensions \(any, 3\); got shape \(2, 3, 1\)"),
        (np.float32(1), ValueError, "one row per item; got a scalar"),
        (np.ones((2, 4)), ValueError, r"inputs must have shape \(any, 3\); got \(2, 4\)"),
        ([[1, 2, 3], [1]], ValueError, "inputs must be a rectangular array"),
        (np.ones((2, 3), complex), TypeError, "convertible to float32 .* got dtype complex128"),
        (np.ones((2, 3), object), TypeError, "convertible to float32 .* got dtype object"),
        (np.zeros((2, 3), "M8[s]"), TypeError, "convertible to float32 .* got dtype datetime64"),
        (sp.csr_array(np.ones((2, 3))), TypeError, "must be a dense array; got csr_array"),
        (["toy story"], TypeError, "without a tokenizer; got texts. Pass tokenizer="),
        ("toy story", TypeError, "without a tokenizer; got texts. Pass tokenizer="),
        (np.array(["toy"]), TypeError, "without a tokenizer; got texts. Pass tokenizer="),
        (None, TypeError, "convertible to float32"),
    ],
)
def test_wrong_inputs(inputs, error, message):
    if inputs is None:
        error, message = ValueError, "one row per item; got a scalar"
    with pytest.raises(error, match=message) as caught:
        on_cpu(linear()).encode(inputs)
    assert str(caught.value).startswith("encode: inputs")


def test_wrong_inputs_of_a_model_with_several():
    graph = """
        sum (float[n, 3] a, int32[n, 3] b) => (float[n, 3] y) {
            c = Cast<to = 1>(b)
            y = Add(a, c)
        }"""
    encoder = on_cpu(model(graph))
    a = np.ones((2, 3))
    with pytest.raises(ValueError, match=r"mapping with the names \['a', 'b'\]; got one ndarray"):
        encoder.encode(a)
    with pytest.raises(
        ValueError, match=r"inputs\['b'\] must have 2 rows like inputs\['a'\]; got 1"
    ):
        encoder.encode({"a": a, "b": np.ones((1, 3), np.int32)})
    with pytest.raises(TypeError, match=r"inputs\['b'\] must be convertible to int32 .* float64"):
        encoder.encode({"a": a, "b": a})
    with pytest.raises(ValueError, match=r"inputs\['b'\] must fit int32; got 2147483648"):
        encoder.encode({"a": a, "b": np.full((2, 3), 2**31)})
    np.testing.assert_array_equal(encoder.encode({"a": a, "b": np.full((2, 3), 7)}), a + 7)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ("toy story", "must be a list of texts; got one str. Put it into a list"),
        (["toy", None], "must be texts; got NoneType in row 1"),
        (["toy", float("nan")], "must be texts; got float in row 1"),
        ([["toy"]], "must be texts; got list in row 0"),
        ([b"toy"], "must be texts; got bytes in row 0"),
    ],
)
def test_wrong_texts(rng, inputs, message):
    encoder = on_cpu(tokens(table(rng)), tokenizer=tokenizer(), pooling="mean")
    with pytest.raises(TypeError, match=message):
        encoder.encode(inputs)


def test_what_the_model_itself_refuses_is_told(rng):
    encoder = on_cpu(tokens(table(rng), mask=False), pooling="mean")
    with pytest.raises(ValueError, match=r"must suit the model; got a batch of input_ids \(1, 2\)"):
        encoder.encode(np.array([[1, 99]]))
    np.testing.assert_array_equal(encoder.encode(np.array([[0, 0]])), np.full((1, 4), 1e6))


def test_an_output_that_mixes_rows_is_refused(x):
    graph = "sum (float[n, 3] x) => (float[m, 3] y) { y = ReduceMax<axes = [0], keepdims = 1>(x) }"
    with pytest.raises(ValueError, match="output 'y' must have one row per row of the inputs"):
        on_cpu(model(graph)).encode(x)


def test_nan_and_infinity_are_refused_with_their_row_unless_wanted(x):
    graph = "log (float[n, 3] x) => (float[n, 3] y) { y = Log(x) }"
    x = np.abs(x) + 1
    x[6, 1] = -1
    with pytest.raises(ValueError, match=r"must be finite in float32; got .* in row 6"):
        on_cpu(model(graph), batch_size=4).encode(x)
    for normalise in (False, True):
        vectors = on_cpu(model(graph), nan_policy="propagate", normalise=normalise).encode(x)
        assert np.flatnonzero(np.isnan(vectors).any(axis=1)).tolist() == [6]


def test_the_row_of_a_nan_among_texts_is_the_callers(rng):
    vectors = table(rng)
    vectors[4] = np.nan  # alien
    encoder = on_cpu(tokens(vectors, mask=False), tokenizer=tokenizer(), pooling="mean")
    with pytest.raises(ValueError, match="in row 2"):
        encoder.encode(["toy", "a story", "alien"])


def test_what_float16_cannot_hold_is_refused(x):
    x[2] = 1e6
    with pytest.raises(ValueError, match="must be finite in float16; got NaN or infinity in row 2"):
        on_cpu(linear(), dtype="float16").encode(x)


@pytest.mark.parametrize("content", [b"", b"\0", b"not a model", b"PK\x03\x04" * 9, linear()[:60]])
def test_what_is_no_model_is_a_format_error(tmp_path, content):
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    for source in (content, path):
        with pytest.raises(FormatError, match="path_or_bytes must be a model that onnxruntime"):
            on_cpu(source)


def test_every_truncation_is_a_format_error_or_a_working_model():
    whole = linear()
    for length in range(0, len(whole), 7):
        try:
            encoder = on_cpu(whole[:length])
        except (FormatError, ValueError):
            continue
        assert encoder.input_names


def test_a_newer_opset_is_a_format_error():
    made = onnx.load_from_string(linear())
    made.opset_import[0].version = 999
    with pytest.raises(FormatError, match=r"[Oo]pset 999"):
        on_cpu(made.SerializeToString())


def test_an_unknown_operator_is_a_format_error():
    graph = "odd (float[n, 3] x) => (float[n, 3] y) { y = Frobnicate(x) }"
    with pytest.raises(FormatError, match="Frobnicate"):
        on_cpu(model(graph))


def external(location):
    made = onnx.load_from_string(linear())
    weights = made.graph.initializer[0]
    raw = onnx.numpy_helper.to_array(weights).tobytes()
    weights.ClearField("float_data")
    weights.raw_data = raw
    onnx.external_data_helper.set_external_data(weights, location, 0, len(raw))
    weights.ClearField("raw_data")
    return made.SerializeToString(), raw


def test_external_data_is_read_beside_the_model_only(tmp_path, x):
    folder = tmp_path / "model"
    folder.mkdir()
    made, raw = external("weights.bin")
    path = folder / "m.onnx"
    path.write_bytes(made)
    with pytest.raises(FormatError, match=r"weights\.bin"):
        on_cpu(path)
    (folder / "weights.bin").write_bytes(raw)
    np.testing.assert_allclose(on_cpu(path).encode(x), x @ LINEAR, rtol=1e-6)
    with pytest.raises(ValueError, match="cache must be None for a model with external data"):
        on_cpu(path, cache=tmp_path)
    with pytest.raises(FormatError, match="must be a path for a model with external data; got byt"):
        on_cpu(made)


@pytest.mark.parametrize(
    "location", ["../secret.bin", "a/../../secret.bin", "/etc/hostname", "../" + "x" * 200]
)
def test_external_data_outside_the_folder_is_refused(tmp_path, location):
    folder = tmp_path / "model"
    folder.mkdir()
    made, raw = external(location)
    (tmp_path / "secret.bin").write_bytes(raw)
    (folder / "m.onnx").write_bytes(made)
    with pytest.raises(FormatError, match="must have its external data in its own folder; got"):
        on_cpu(folder / "m.onnx")
    (folder / "m.onnx").write_bytes(external("")[0])
    with pytest.raises(FormatError, match="must be a model that onnxruntime"):
        on_cpu(folder / "m.onnx")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"device": "gpu"}, ValueError, "device must be one of 'auto', 'cpu', 'cuda'; got 'gpu'"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1; got 0"),
        ({"batch_size": 2.0}, TypeError, "batch_size must be an integer; got float"),
        ({"batch_size": True}, TypeError, "batch_size must be an integer; got bool"),
        ({"num_threads": -1}, ValueError, "num_threads must be at least 0; got -1"),
        ({"max_length": 0}, ValueError, "max_length must be at least 1; got 0"),
        ({"dtype": "float64"}, ValueError, "dtype must be one of 'float32', 'float16'"),
        ({"pooling": "sum"}, ValueError, "pooling must be one of 'mean', 'max', 'cls', None"),
        ({"nan_policy": "omit"}, ValueError, "nan_policy must be one of 'raise', 'propagate'"),
        ({"tokenizer": 3}, TypeError, "tokenizer must be a path, bytes or tokenizers.Tokenizer"),
        ({"tokenizer": "/no/such.json"}, FileNotFoundError, "tokenizer must be an existing file"),
        ({"tokenizer": b"{}"}, FormatError, "tokenizer must be a tokenizer.json; got"),
    ],
)
def test_wrong_options(rng, options, error, message):
    with pytest.raises(error, match=message):
        OnnxEncoder(tokens(table(rng)), **({"device": "cpu", "pooling": "mean"} | options))


def test_wrong_sources(tmp_path):
    with pytest.raises(FileNotFoundError, match="path_or_bytes must be an existing file; got"):
        on_cpu(tmp_path / "none.onnx")
    with pytest.raises(FileNotFoundError, match="path_or_bytes must be an existing file; got"):
        on_cpu(tmp_path)
    with pytest.raises(TypeError, match="path_or_bytes must be a path or bytes; got int"):
        on_cpu(3)


def test_a_model_of_sequences():
    graph = "split (float[n, 3] x) => (seq(float[n, 3]) y) { y = SequenceConstruct(x) }"
    with pytest.raises(
        TypeError, match=r"tensors that NumPy can hold; got 'y' of type seq\(tensor"
    ):
        on_cpu(model(graph))


def test_a_model_whose_output_is_no_number():
    graph = "names (string[n, 3] x) => (string[n, 3] y) { y = Identity(x) }"
    with pytest.raises(TypeError, match="output must hold real numbers; got 'y' of object"):
        on_cpu(model(graph))


def test_a_tokenizer_for_a_model_that_takes_no_tokens():
    with pytest.raises(
        ValueError, match=r"tokenizer must be None .* input 'x' is not \(n, tokens\)"
    ):
        on_cpu(
            model("i (float[n, 3, 2] x) => (float[n, 3, 2] y) { y = Identity(x) }"),
            pooling="mean",
            tokenizer=tokenizer(),
        )
    graph = "sum (float[n, 3] a, float[n, 3] b) => (float[n, 3] y) { y = Add(a, b) }"
    with pytest.raises(
        ValueError, match=r"tokenizer must be None for a model with the inputs \['a'"
    ):
        on_cpu(model(graph), tokenizer=tokenizer())


@pytest.mark.parametrize("package", ["onnxruntime", "tokenizers"])
def test_a_missing_package_names_the_extra(rng, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"needs {package}: pip install 'recfuse\[onnx\]'"):
        on_cpu(tokens(table(rng)), pooling="mean", tokenizer=b"{}")


def test_importing_loads_no_runtime():
    code = (
        "import recfuse.serving, recfuse.features, sys;"
        "print([m for m in ('onnxruntime', 'tokenizers', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_masked_arrays_are_refused():
    encoder = on_cpu(linear())
    with pytest.raises(TypeError, match=r"encode: inputs must not be masked; got MaskedArray"):
        encoder.encode(np.ma.masked_array(np.ones((2, 3)), [[True, False, False]] * 2))
