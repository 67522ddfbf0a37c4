from __future__ import annotations

import numpy as np
import pytest

from tiny_onnx import (
    LINEAR,
    TEXTS,
    TWO_OUTPUTS,
    linear,
    model,
    on_cpu,
    onnx,
    table,
    tokenizer,
    tokens,
)


@pytest.fixture
def rng():
    return np.random.default_rng(20240)


@pytest.fixture
def x(rng):
    return rng.standard_normal((11, 3)).astype(np.float32)


@pytest.mark.parametrize("batch_size", [1, 2, 4, 10, 11, 12, 1000])
def test_every_batch_size_gives_every_row(x, batch_size):
    encoder = on_cpu(linear(), batch_size=batch_size)
    vectors = encoder.encode(x)
    assert (vectors.dtype, vectors.shape) == (np.float32, (11, 2))
    np.testing.assert_allclose(vectors, x @ LINEAR, rtol=1e-6)


def test_what_an_encoder_tells_about_itself():
    encoder = on_cpu(linear())
    assert encoder.input_names == ("x",)
    assert encoder.output_name == "y"
    assert encoder.dim == 2
    assert encoder.device == "cpu"
    assert encoder.providers == ("CPUExecutionProvider",)
    assert repr(encoder) == "OnnxEncoder(x -> y, dim=2, device='cpu')"


@pytest.mark.parametrize("rows", [0, 1])
def test_no_row_and_one_row(x, rows):
    assert on_cpu(linear()).encode(x[:rows]).shape == (rows, 2)


def test_a_model_may_come_as_path_text_or_bytes(tmp_path, x):
    path = tmp_path / "模型.onnx"
    path.write_bytes(linear())
    expected = on_cpu(linear()).encode(x)
    for source in (path, str(path), bytearray(linear()), memoryview(linear())):
        np.testing.assert_array_equal(on_cpu(source).encode(x), expected)


@pytest.mark.parametrize("n", [1, 3, 4, 5, 11])
def test_a_static_batch_axis_is_filled_and_cut(x, n):
    encoder = on_cpu(linear(batch="4"), batch_size=256)
    np.testing.assert_allclose(encoder.encode(x[:n]), x[:n] @ LINEAR, rtol=1e-6)


def test_containers_and_layouts_give_the_same(x, tmp_path):
    x = np.round(x * 8)
    np.save(tmp_path / "x.npy", x)
    read_only = x.copy()
    read_only.flags.writeable = False
    same = {
        "list": x.tolist(),
        "mapping": {"x": x},
        "float64": x.astype(np.float64),
        "float16": x.astype(np.float16),
        "int8": x.astype(np.int8),
        "big-endian": x.astype(">f4"),
        "fortran": np.asfortranarray(x),
        "reversed": x[::-1].copy()[::-1],
        "strided": np.repeat(x, 2, axis=1)[:, ::2],
        "read-only": read_only,
        "memory-mapped": np.load(tmp_path / "x.npy", mmap_mode="r"),
    }
    encoder = on_cpu(linear(), batch_size=4)
    expected = encoder.encode(x)
    for name, inputs in same.items():
        np.testing.assert_array_equal(encoder.encode(inputs), expected, err_msg=name)


def test_inputs_are_left_alone(x):
    before = x.copy()
    on_cpu(linear(), normalise=True, batch_size=4).encode(x)
    np.testing.assert_array_equal(x, before)


def test_images_of_any_size_in_nhwc(rng):
    graph = """
        pooled (uint8[n, h, w, 3] image) => (float[n, 1, 1, 3] y) {
            wide = Cast<to = 1>(image)
            y = ReduceMean<axes = [1, 2], keepdims = 1>(wide)
        }"""
    encoder = on_cpu(model(graph), batch_size=2)
    assert encoder.dim == 3
    for size in [(5, 6, 4, 3), (3, 2, 9, 3)]:
        images = rng.integers(0, 256, size, dtype=np.uint8)
        expected = images.mean(axis=(1, 2))
        np.testing.assert_allclose(encoder.encode(images), expected, rtol=1e-6)


def test_a_convolution_on_images_of_fixed_size(rng):
    graph = """
        cnn (float[n, 3, 8, 8] image) => (float[n, 5, 1, 1] y) <float[5, 3, 3, 3] w> {
            maps = Conv<strides = [2, 2]>(image, w)
            y = GlobalAveragePool(maps)
        }"""
    made = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]>{graph}')
    w = rng.standard_normal((5, 3, 3, 3)).astype(np.float32)
    made.graph.initializer.append(onnx.numpy_helper.from_array(w, "w"))
    encoder = on_cpu(made.SerializeToString(), batch_size=2)
    images = rng.standard_normal((3, 3, 8, 8)).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(images, (3, 3), axis=(2, 3))[:, :, ::2, ::2]
    expected = np.einsum("nchwij,dcij->ndhw", windows, w).mean(axis=(2, 3))
    np.testing.assert_allclose(encoder.encode(images), expected, rtol=1e-4, atol=1e-5)


def test_several_named_inputs(x):
    graph = """
        sum (float[n, 3] a, double[n, 3] b) => (double[n, 3] y) {
            c = Cast<to = 11>(a)
            y = Add(c, b)
        }"""
    encoder = on_cpu(model(graph), batch_size=4)
    expected = (x + 2 * x.astype(np.float64)).astype(np.float32)
    np.testing.assert_allclose(encoder.encode({"b": 2 * x, "a": x}), expected, rtol=1e-6)


def test_one_of_two_outputs(x):
    encoder = on_cpu(model(TWO_OUTPUTS), output="z")
    assert encoder.output_name == "z"
    np.testing.assert_array_equal(encoder.encode(x), np.abs(x))
    for wrong in (None, "w"):
        with pytest.raises(ValueError, match=r"output must be one of \['y', 'z'\]; got"):
            on_cpu(model(TWO_OUTPUTS), output=wrong)


def test_types_of_output_become_float32(x):
    for code in (1, 10, 11, 7):  # float, float16, double, int64
        graph = f"cast (float[n, 3] x) => ({_TYPES[code]}[n, 3] y) {{ y = Cast<to = {code}>(x) }}"
        vectors = on_cpu(model(graph)).encode(np.round(x))
        assert vectors.dtype == np.float32
        np.testing.assert_array_equal(vectors, np.round(x))


_TYPES = {1: "float", 10: "float16", 11: "double", 7: "int64"}


def test_float16_results_are_rounded_once(x):
    vectors = on_cpu(linear(), dtype="float16").encode(x)
    assert vectors.dtype == np.float16
    np.testing.assert_array_equal(vectors, on_cpu(linear()).encode(x).astype(np.float16))


def test_normalised_rows_have_length_one_and_zero_stays_zero(x):
    x[3] = 0
    x[4] = 1e30  # its square is no float32
    graph = "same (float[n, 3] x) => (float[n, 3] y) { y = Identity(x) }"
    vectors = on_cpu(model(graph), normalise=True).encode(x)
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    np.testing.assert_allclose(lengths, np.where(np.arange(11) == 3, 0, 1), atol=1e-6)


def test_an_open_dimension_is_learned_from_the_first_batch(x):
    graph = "same (float[n, m] x) => (float[n, m] y) { y = Identity(x) }"
    encoder = on_cpu(model(graph))
    assert encoder.dim is None
    assert encoder.encode(np.empty((0, 3))).shape == (0, 3)
    assert encoder.dim == 3
    np.testing.assert_array_equal(on_cpu(model(graph), batch_size=4).encode(x), x)


def test_an_open_dimension_may_change_from_call_to_call_but_not_within_one(x):
    graph = "same (float[n, m] x) => (float[n, m] y) { y = Identity(x) }"
    encoder = on_cpu(model(graph))
    for columns in (3, 1, 2):
        np.testing.assert_array_equal(encoder.encode(x[:, :columns]), x[:, :columns])
        assert encoder.dim == columns
    ragged = """
        same (float[n, 3] x) => (float[n, m] y) {
            axes = Constant<value_ints = [1]>()
            shape = Shape(x)
            one = Constant<value_ints = [1]>()
            zero = Constant<value_ints = [0]>()
            rows = Slice(shape, zero, one)
            y = Slice(x, zero, rows, axes)
        }"""  # a batch of r rows has r columns
    with pytest.raises(ValueError, match="'y' must have 2 columns in every batch; got 1"):
        on_cpu(model(ragged), batch_size=2).encode(x[:3])


def test_a_vector_of_one_number(x):
    graph = "sum (float[n, 3] x) => (float[n] y) { y = ReduceMean<axes = [1], keepdims = 0>(x) }"
    encoder = on_cpu(model(graph))
    assert encoder.dim == 1
    np.testing.assert_allclose(encoder.encode(x), x.mean(axis=1, keepdims=True), rtol=1e-5)


def test_a_model_that_takes_strings():
    graph = "equal (string[n, 1] x) => (float[n, 1] y) { z = Equal(x, x) y = Cast<to = 1>(z) }"
    made = model(graph, opset=19)
    vectors = on_cpu(made, batch_size=2).encode([["a"], ["怪"], [""]])
    np.testing.assert_array_equal(vectors, np.ones((3, 1)))
    with pytest.raises(TypeError, match="inputs must hold strings; got dtype int64"):
        on_cpu(made).encode([[1]])


def test_pooling_of_arrays_counts_only_what_the_mask_says(rng):
    hidden = rng.standard_normal((5, 4, 3)).astype(np.float32)
    mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 1, 1], [0, 1, 0, 0], [0, 0, 0, 0]])
    graph = "same (float[n, t, 3] x) => (float[n, t, 3] y) { y = Identity(x) }"
    poisoned = np.where(mask[:, :, None] == 1, hidden, np.float32(np.nan))
    chosen = [h[m == 1] for h, m in zip(hidden.astype(np.float64), mask, strict=True)]
    expected = {
        "mean": [h.mean(axis=0) if len(h) else np.zeros(3) for h in chosen],
        "max": [h.max(axis=0) if len(h) else np.zeros(3) for h in chosen],
        "cls": [h[0] if len(h) else np.zeros(3) for h in chosen],
    }
    for pooling, rows in expected.items():
        encoder = on_cpu(model(graph), pooling=pooling, batch_size=2)
        for kind in (np.int64, np.bool_, np.float32):
            vectors = encoder.encode({"x": poisoned, "attention_mask": mask.astype(kind)})
            np.testing.assert_allclose(vectors, np.array(rows), rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(
            encoder.encode(hidden),
            {"mean": hidden.mean(axis=1), "max": hidden.max(axis=1), "cls": hidden[:, 0]}[pooling],
            rtol=1e-6,
            atol=1e-7,
        )


def test_float16_states_are_summed_in_float32():
    hidden = np.full((1, 3000, 2), 100, np.float16)  # the sum is no float16
    graph = "same (float16[n, t, 2] x) => (float16[n, t, 2] y) { y = Identity(x) }"
    np.testing.assert_array_equal(on_cpu(model(graph), pooling="mean").encode(hidden), [[100, 100]])


def test_pooling_must_suit_the_output(rng):
    with pytest.raises(
        ValueError, match=r"pooling must be None for output 'y' of shape \(any, 2\)"
    ):
        on_cpu(linear(), pooling="mean")
    with pytest.raises(ValueError, match="pooling must be 'mean', 'max' or 'cls' for output"):
        on_cpu(tokens(table(rng)))
    graph = "same (float[n, t, 3] x) => (float[n, t, 3] y) { y = Identity(x) }"
    with pytest.raises(ValueError, match=r"attention_mask'\] must have shape \(2, 4\) like output"):
        on_cpu(model(graph), pooling="mean").encode(
            {"x": np.zeros((2, 4, 3)), "attention_mask": np.ones((2, 5))}
        )


def expected_vectors(vectors, texts, pooling, words=None):
    words = words or tokenizer()
    rows = [vectors[words.encode(text).ids].astype(np.float64) for text in texts]
    pool = {"mean": lambda h: h.mean(axis=0), "max": lambda h: h.max(axis=0), "cls": lambda h: h[0]}
    return np.array([pool[pooling](row) for row in rows])


@pytest.mark.parametrize("pooling", ["mean", "max", "cls"])
@pytest.mark.parametrize("batch_size", [1, 2, 5, 256])
@pytest.mark.parametrize("mask", [True, False])
def test_texts_come_back_in_their_order_and_padding_never_counts(rng, pooling, batch_size, mask):
    vectors = table(rng)
    encoder = on_cpu(
        tokens(vectors, mask=mask), tokenizer=tokenizer(), pooling=pooling, batch_size=batch_size
    )
    expected = expected_vectors(vectors, TEXTS, pooling)
    np.testing.assert_allclose(encoder.encode(TEXTS), expected, rtol=1e-5, atol=1e-6)


def test_containers_of_texts(rng):
    pandas = pytest.importorskip("pandas")
    polars = pytest.importorskip("polars")
    encoder = on_cpu(tokens(table(rng)), tokenizer=tokenizer(), pooling="mean")
    expected = encoder.encode(TEXTS)
    series = [pandas.Series(TEXTS), polars.Series(TEXTS), np.array(TEXTS), tuple(TEXTS)]
    for texts in [*series, np.array(TEXTS, object), (text for text in TEXTS)]:
        np.testing.assert_array_equal(encoder.encode(texts), expected)


def test_no_texts(rng):
    encoder = on_cpu(tokens(table(rng)), tokenizer=tokenizer(), pooling="mean")
    assert encoder.encode([]).shape == (0, 4)


def test_without_a_mask_only_equal_lengths_share_a_batch():
    # The model itself takes the mean over all tokens that it is given, padding too.
    graph = """
        mean (int64[n, t] ids) => (float[n, 1] y) {
            x = Cast<to = 1>(ids)
            y = ReduceMean<axes = [1], keepdims = 1>(x)
        }"""
    encoder = on_cpu(model(graph), tokenizer=tokenizer())
    expected = [[np.mean(tokenizer().encode(text).ids)] for text in TEXTS]
    np.testing.assert_allclose(encoder.encode(TEXTS), expected, rtol=1e-6)


def test_texts_are_cut_where_the_caller_the_file_or_the_model_says(rng):
    vectors = table(rng)
    text = ["alien a bug life story"]
    for options, limit in [
        ({"tokenizer": tokenizer(max_length=4)}, 4),
        ({"tokenizer": tokenizer(max_length=4), "max_length": 5}, 5),
        ({"tokenizer": tokenizer(), "max_length": 3}, 3),
        ({"tokenizer": tokenizer()}, 1000),
    ]:
        encoder = on_cpu(tokens(vectors), pooling="mean", **options)
        words = tokenizer(max_length=limit)
        expected = expected_vectors(vectors, text, "mean", words)
        np.testing.assert_allclose(encoder.encode(text), expected, rtol=1e-5)


def test_static_axes_of_a_token_model(rng):
    vectors = table(rng)
    encoder = on_cpu(
        tokens(vectors, axes="4, 5"), tokenizer=tokenizer(), pooling="mean", max_length=100
    )
    expected = expected_vectors(vectors, TEXTS, "mean", tokenizer(max_length=5))
    np.testing.assert_allclose(encoder.encode(TEXTS), expected, rtol=1e-5)


def test_a_tokenizer_may_be_a_path_bytes_or_an_object_which_stays_as_it_was(rng, tmp_path):
    words = tokenizer(max_length=7)
    words.enable_padding(length=9, pad_id=0)
    before = words.to_str()
    path = tmp_path / "tokenizer.json"
    path.write_text(before, encoding="utf-8")
    results = [
        on_cpu(tokens(table(np.random.default_rng(1))), tokenizer=source, pooling="mean").encode(
            TEXTS
        )
        for source in (words, path, str(path), path.read_bytes())
    ]
    for vectors in results[1:]:
        np.testing.assert_array_equal(vectors, results[0])
    assert words.to_str() == before


def test_token_arrays_may_be_given_instead_of_texts(rng):
    vectors = table(rng)
    encoder = on_cpu(tokens(vectors), tokenizer=tokenizer(), pooling="mean")
    ids, mask = np.array([[2, 4, 3, 0], [2, 5, 6, 3]]), np.array([[1, 1, 1, 0], [1, 1, 1, 1]])
    np.testing.assert_allclose(
        encoder.encode({"input_ids": ids.astype(np.int16), "attention_mask": mask}),
        encoder.encode(["alien", "toy story"]),
        rtol=1e-6,
    )
