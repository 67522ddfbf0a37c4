"""Pooling as an ONNX graph against pooling in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from recfuse.serving._pooling import normalised, pooled
from recfuse.serving._tail import tail_model
from tiny_onnx import onnx, onnxruntime

CODES = ["f2", "f4", "f8"]


def run(code, pooling, hidden, mask, normalise):
    session = onnxruntime.InferenceSession(
        tail_model(code, hidden.ndim, pooling, normalise=normalise),
        providers=["CPUExecutionProvider"],
    )
    feeds = {"hidden": hidden.astype(code)}
    if pooling:
        feeds["mask"] = mask
    return session.run(["vectors"], feeds)[0]


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("pooling", [None, "mean", "max", "cls"])
@pytest.mark.parametrize("code", CODES)
def test_the_graph_is_valid(code, pooling, normalise):
    model = onnx.load_from_string(
        tail_model(code, 3 if pooling else 4, pooling, normalise=normalise)
    )
    onnx.checker.check_model(model, full_check=True)


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("pooling", ["mean", "max", "cls"])
@pytest.mark.parametrize("code", CODES)
def test_it_pools_as_numpy_does(rng, code, pooling, normalise):
    hidden = rng.standard_normal((40, 7, 5)).astype(code)
    mask = rng.random((40, 7)) < 0.6
    mask[0] = False  # no token at all
    mask[1] = True
    hidden[~mask] = np.nan  # as models give at padding
    hidden[2:4] = 0
    expected = pooled(hidden, mask, pooling, "y")
    got = run(code, pooling, hidden, mask, normalise)
    if normalise:
        expected = normalised(expected)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-7)
    assert not got[0].any()


@given(
    npst.arrays(
        np.float32,
        npst.array_shapes(min_dims=2, max_dims=2, max_side=6),
        elements=st.floats(-(2.0**100), 2.0**100, width=32),
    )
)
def test_length_one_for_any_vectors(vectors):
    with np.errstate(over="ignore"):
        got = run("f4", None, vectors, None, True)
    np.testing.assert_allclose(got, normalised(vectors), rtol=3e-7, atol=1e-30)


def test_axes_of_one_element_go(rng):
    hidden = rng.standard_normal((4, 3, 1, 1)).astype("f2")
    np.testing.assert_array_equal(
        run("f2", None, hidden, None, False), hidden.reshape(4, 3).astype("f4")
    )
