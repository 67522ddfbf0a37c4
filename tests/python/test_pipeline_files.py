"""Pipelines that come back from files with the same answers."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

import recfuse
from helpers import assert_same_bytes, normal
from recfuse import FusedIndex, storage
from recfuse.errors import FormatError
from recfuse.features import AttributeEncoder
from recfuse.serving import OnnxEncoder, Pipeline, Retriever
from tiny_onnx import TEXTS, linear, model, on_cpu, table, tokenizer, tokens

TABLE = {"genre": ["a", "b", "a", "c"] * 5, "year": [1990, 2000, 2010, 2020] * 5}


def doubled(x):
    return 2 * np.asarray(x, np.float32)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "shop.recfuse"


def test_everything_comes_back(rng, path):
    text = on_cpu(
        tokens(table(rng)), tokenizer=tokenizer(max_length=5), pooling="mean", normalise=True
    )
    about = AttributeEncoder({"genre": "categorical", "year": "numeric"}).fit(TABLE)
    items = {
        "text": normal(rng, 20, 4),
        "about": about.transform(TABLE),
        "free": normal(rng, 20, 3),
    }
    present = {"text": rng.random(20) < 0.7}
    pipeline = Pipeline(
        items,
        {"text": text, "about": about},
        present=present,
        metric="dot",
        k=7,
        weights={"text": 0.5, "about": 0.3, "free": 0.2},
        missing="zero",
        exclude=[3, 5],
        num_threads=2,
    )
    pipeline.save(path)
    again = Pipeline.load(path, device="cpu", num_threads=1)
    requests = {"text": [*TEXTS[:3], None], "about": {k: v[:4] for k, v in TABLE.items()}}
    requests["free"] = normal(rng, 4, 3)
    assert_same_bytes(again.topk(requests), pipeline.topk(requests))
    assert again.encoders["text"].fingerprint == text.fingerprint
    assert repr(again) == repr(pipeline)
    assert again.index._items["text"].base is not None  # mapped


def test_tokens_and_their_padding_come_back(rng, path):
    """A model of a fixed length that takes no mask sees padding: with the id of the tokenizer."""
    source = model("ids (int64[n, 6] input_ids) => (float[n, 6] y) { y = Cast<to = 1>(input_ids) }")
    words = tokenizer()
    words.enable_padding(pad_id=4, pad_token="alien")
    encoder = OnnxEncoder(source, tokenizer=words, device="cpu", max_length=4)
    expected = encoder.encode(TEXTS)
    assert (expected == 4).sum() > len(TEXTS)
    Pipeline({"text": normal(rng, 9, 6)}, {"text": encoder}).save(path)
    again = Pipeline.load(path).encoders["text"]
    np.testing.assert_array_equal(again.encode(TEXTS), expected)


@pytest.mark.parametrize(
    "options", [{}, {"fusion": "max"}, {"fusion": "rrf"}, {"normalise": "zscore"}], ids=str
)
def test_options_come_back(rng, path, options):
    items = {"a": normal(rng, 9, 2), "b": normal(rng, 9, 3)}
    pipeline = Pipeline(items, **options)
    pipeline.save(path)
    requests = {"a": normal(rng, 2, 2), "b": normal(rng, 2, 3)}
    assert_same_bytes(Pipeline.load(path).topk(requests), pipeline.topk(requests))


def test_what_a_file_cannot_hold_is_given_anew(rng, path):
    pipeline = Pipeline({"a": normal(rng, 9, 2), "b": normal(rng, 9, 2)}, {"a": doubled})
    pipeline.save(path)
    with pytest.raises(ValueError, match=r"load: encoders must have .* {'a': 'function'}; got"):
        Pipeline.load(path)
    again = Pipeline.load(path, encoders={"a": doubled})
    x = normal(rng, 2, 2)
    assert_same_bytes(again.topk({"a": x}), pipeline.topk({"a": x}))
    with pytest.raises(ValueError, match=r"load: encoders must have modalities of \['a'"):
        Pipeline.load(path, encoders={"a": doubled, "c": doubled})


def test_an_encoder_that_is_given_takes_the_place_of_that_of_the_file(rng, path):
    items, x = normal(rng, 9, 2), normal(rng, 3, 3)
    Pipeline({"a": items}, {"a": on_cpu(linear())}).save(path)
    again = Pipeline.load(path, encoders={"a": lambda x: -np.asarray(x)[:, :2]})
    assert_same_bytes(again.topk({"a": x}), FusedIndex({"a": items}).topk({"a": -x[:, :2]}, 10))


def test_a_model_in_two_files_is_refused(rng, path, tmp_path):
    external = tmp_path / "model.onnx"
    external.write_bytes(linear() + b"\n\x08location\x12\x04data")
    encoder = on_cpu(linear())
    encoder._model = str(external)
    with pytest.raises(ValueError, match="encoders must be left to load for a model with external"):
        Pipeline({"a": normal(rng, 9, 2)}, {"a": encoder}).save(path)
    assert not path.exists()


def test_other_files_are_refused(rng, path):
    storage.write(path, {}, {"pipeline": 3}, kind="pipeline")
    with pytest.raises(FormatError, match=r"load: .* must describe a pipeline"):
        Pipeline.load(path)
    storage.write(path, {}, {"pipeline": {"dict": {"encoders": {"dict": {}}}}}, kind="pipeline")
    with pytest.raises(FormatError, match=r"load: .* must describe a pipeline"):
        Pipeline.load(path)
    recfuse.Popularity().fit(sp.csr_array(np.eye(3))).save(path)
    with pytest.raises(FormatError):
        Pipeline.load(path)
    Pipeline({"a": normal(rng, 9, 2)}, {"a": on_cpu(model(
        "f (float[n, 2] x) => (float[n, 2] y) { y = Abs(x) }"))}).save(path)  # fmt: skip
    assert isinstance(recfuse.load(path), Pipeline)
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    with pytest.raises(FormatError):
        Pipeline.load(path)


def test_recfuse_loads_it(rng, path):
    items, x = {"a": normal(rng, 9, 2), "b": normal(rng, 9, 3)}, normal(rng, 4, 3)
    pipeline = Pipeline(items, {"a": on_cpu(linear())}, weights={"a": 0.25, "b": 0.75}, k=4)
    pipeline.save(path)
    requests = {"a": x, "b": [*normal(rng, 3, 3), None]}
    assert_same_bytes(recfuse.load(path).topk(requests), pipeline.topk(requests))
    Pipeline(items, {"a": doubled}).save(path)
    with pytest.raises(ValueError, match=r"encoders must have .* {'a': 'function'}; got \[\]"):
        recfuse.load(path)


def test_the_search_is_there_for_those_without_encoders(rng, path):
    items = {"a": normal(rng, 9, 2), "b": normal(rng, 9, 3)}
    requests = {"a": normal(rng, 4, 2), "b": normal(rng, 4, 3)}
    options = {"weights": {"a": 0.25, "b": 0.75}, "missing": "zero", "metric": "dot"}
    pipeline = Pipeline(items, present={"b": np.arange(9) != 3}, k=5, **options)
    pipeline.save(path)
    file = storage.open_file(path)
    assert [name for name in file.arrays if "retrieval" in name] == ["retrieval.present"]
    for retriever in (Retriever.load(path), Retriever.from_model(pipeline)):
        assert_same_bytes(retriever.search(requests, 5), pipeline.topk(requests))
    for wrong in ({"fusion": "max"}, {"normalise": "zscore"}, {"exclude": [3]}):
        pipeline = Pipeline(items, **wrong)
        pipeline.save(path)
        assert "retrieval" not in storage.open_file(path).metadata
        with pytest.raises(ValueError, match="model must fuse by 'sum', without normalise and"):
            Retriever.load(path)


def test_a_file_sets_nothing_but_what_save_writes(rng, path, tmp_path):
    """Options that would let a file write into folders of its reader are not looked at."""
    Pipeline({"a": normal(rng, 9, 2)}, {"a": on_cpu(linear())}).save(path)
    arrays, metadata = storage.read(path, mmap=False)
    encoder = metadata["pipeline"]["dict"]["encoders"]["dict"]["a"]["dict"]
    encoder["options"]["dict"]["cache"] = str(tmp_path / "cache")
    storage.write(path, arrays, metadata, kind="pipeline")
    recfuse.load(path).topk({"a": normal(rng, 2, 3)})
    assert not (tmp_path / "cache").exists()
    del encoder["options"]["dict"]["dtype"]
    storage.write(path, arrays, metadata, kind="pipeline")
    with pytest.raises(FormatError, match="must describe a pipeline; 'dtype'"):
        recfuse.load(path)
