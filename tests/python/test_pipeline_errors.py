"""What a pipeline says about what is wrong, and who is named."""

from __future__ import annotations

import re

import numpy as np
import pytest
import scipy.sparse as sp

from recfuse import FusedIndex
from recfuse.serving import Pipeline

N = 60


def by_letters(texts):
    return np.array([[text.count(c) for c in "abc"] for text in texts], np.float32)


@pytest.fixture
def pipeline(rng):
    items = {"text": rng.random((N, 3)), "place": rng.random((N, 5))}
    return Pipeline(items, {"text": by_letters})


def refused(error, message):
    return pytest.raises(error, match=f"^{re.escape(message)}")


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ([1], TypeError, "inputs must be a mapping modality -> inputs; got list"),
        ({"photo": [1]}, ValueError, "inputs must have modalities of ['text', 'place']; got ['ph"),
        ({}, ValueError, "inputs must have a modality that is not None; got []"),
        ({"text": None}, ValueError, "inputs must have a modality that is not None; got ['text']"),
        ({"text": "a"}, TypeError, "inputs['text'] must be a list of inputs; got one str. Put it"),
        ({"text": 3}, TypeError, "inputs['text'] must have one row per request; got int"),
        ({"text": {}}, ValueError, "inputs['text'] must have a column; got an empty mapping"),
        (
            {"text": ["a"], "place": np.ones((2, 5))},
            ValueError,
            "inputs['place'] must have 1 rows like inputs['text']; got 2",
        ),
        (
            {"place": np.ones((2, 4))},
            ValueError,
            "inputs['place'] must have 5 columns like the items; got 4",
        ),
        (
            {"place": np.ones(5)},
            ValueError,
            "inputs['place'] must have 2 dimensions; got shape (5,)",
        ),
    ],
)
def test_inputs(pipeline, inputs, error, message):
    with refused(error, f"topk: {message}"):
        pipeline.topk(inputs)


@pytest.mark.parametrize(
    ("result", "error", "message"),
    [
        (np.ones((2, 2)), ValueError, "give 3 columns like the items; got 2"),
        (np.ones((1, 3)), ValueError, "give one vector per input (2); got shape (1, 3)"),
        (sp.csr_array((2, 3)), TypeError, "give dense vectors; got csr_array"),
        ([["a", "b", "c"]] * 2, TypeError, "hold real numbers; got dtype <U1"),
        (np.ones(3), ValueError, "have 2 dimensions; got shape (3,)"),
    ],
)
def test_results_of_an_encoder(rng, result, error, message):
    pipeline = Pipeline({"text": rng.random((N, 3))}, {"text": lambda texts: result})
    with refused(error, f"encode: encoders['text'] must {message}"):
        pipeline.topk({"text": ["a", "b"]})


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"encoders": 3}, TypeError, "encoders must be a mapping modality -> encoder; got int"),
        (
            {"encoders": {"text": 3}},
            TypeError,
            "encoders['text'] must have encode() or transform(), be a function, or None; got int",
        ),
        (
            {"encoders": {"photo": len}},
            ValueError,
            "encoders must have modalities of ['text', 'place']; got ['photo']",
        ),
        ({"k": 0}, ValueError, "k must be at least 1; got 0"),
        ({"exclude": [60]}, IndexError, "exclude must be in [0, 60); got 60"),
    ],
)
def test_arguments(pipeline, arguments, error, message):
    with refused(error, f"Pipeline: {message}"):
        Pipeline(pipeline.index, **arguments)


def test_weights_of_the_pipeline_are_looked_at_when_it_is_made(pipeline):
    with refused(ValueError, "Pipeline: weights must have the modalities ['text', 'place']"):
        Pipeline(pipeline.index, weights={"text": 1.0})


def test_an_index_that_is_given_has_its_own_options(pipeline):
    with refused(ValueError, "Pipeline: metric must be left to the index that is given; got 'dot'"):
        Pipeline(pipeline.index, metric="dot")
    with refused(TypeError, "fuse_topk: items must be a mapping modality -> array; got int"):
        Pipeline(3)
    assert repr(pipeline) == "Pipeline(text: function, place: None -> 60 items)"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"k": 0}, ValueError, "topk: k must be at least 1; got 0"),
        ({"exclude": [-1]}, IndexError, "topk: exclude must be in [0, 60); got -1"),
        (
            {"exclude": sp.csr_array((3, N))},
            ValueError,
            "topk: exclude must have shape (2, 60)",
        ),
        (
            {"present": {"text": [1, 0]}},
            TypeError,
            "topk: present['text'] must be boolean; got dtype int64",
        ),
        (
            {"present": {"text": [True]}},
            ValueError,
            "topk: present['text'] must have shape (2,); got (1,)",
        ),
        (
            {"present": {"place": [True, False]}},
            ValueError,
            "topk: present['place'] must be False where inputs have no 'place'; got True",
        ),
        (
            {"weights": {"text": 0.0, "place": 0.0}},
            ValueError,
            "topk: weights must not all be 0; got only zeros for query 0",
        ),
    ],
)
def test_arguments_of_a_call(pipeline, arguments, error, message):
    with refused(error, message):
        pipeline.topk({"text": ["a", None]}, **arguments)


def test_a_filter_beside_that_of_the_pipeline(pipeline):
    pipeline = Pipeline(pipeline.index, {"text": by_letters}, exclude=[0])
    with refused(
        ValueError, "topk: exclude must have shape (1, 60) (requests, items); got (3, 60)"
    ):
        pipeline.topk({"text": ["a"]}, exclude=sp.csr_array((3, N)))


def test_no_requests(pipeline):
    ids, scores = pipeline.topk({"text": []}, 3)
    assert ids.shape == scores.shape == (0, 3)
    assert isinstance(pipeline.index, FusedIndex)
