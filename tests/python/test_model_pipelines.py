"""From raw data to lists in one object and one file: what a pipeline does is what its parts do."""

from __future__ import annotations

import json

import numpy as np
import pytest

import recfuse
from helpers import normal
from recfuse import storage
from recfuse.cli import main
from recfuse.persistence import Arrays, encoded
from recfuse.preprocess import (
    Cleaner,
    EventReader,
    L2Normalizer,
    MissingValues,
    Pipeline,
    Standardizer,
)
from recfuse.serving import Retriever

WEIGHTS = {"view": 1, "cart": 3, "buy": 10}
N_GOODS = 12


def log(rng, people: list[str], n: int = 60) -> dict[str, list]:
    return {
        "who": rng.choice(people, n).tolist(),
        "what": rng.choice(N_GOODS, n).tolist(),
        "did": rng.choice(list(WEIGHTS), n).tolist(),
    }


def reader(**options) -> EventReader:
    options = {"item_labels": list(range(N_GOODS)), **options}
    return EventReader(user="who", item="what", event="did", weights=WEIGHTS, **options)


def als() -> recfuse.AlternatingLeastSquares:
    return recfuse.AlternatingLeastSquares(3, iterations=2, random_state=1)


def fused() -> recfuse.MultimodalRecommender:
    weights = {"als": 0.5, "size": 0.3, "text": 0.2}
    return recfuse.MultimodalRecommender({"als": als()}, weights=weights)


MODELS = {
    "als": als,
    "item neighbours": lambda: recfuse.ItemNeighbours(k=4),
    "popularity": recfuse.Popularity,
    "multimodal": lambda: recfuse.MultimodalRecommender({"als": als()}, weights={"als": 1.0}),
}


def pipeline_of(model, **options) -> Pipeline:
    steps = [reader(), Cleaner(duplicates="sum", clip=(None, 5)), recfuse.LabelledModel(model)]
    return Pipeline(steps, **options)


def saved(pipeline: Pipeline, tmp_path) -> Pipeline:
    pipeline.save(tmp_path / "all.recfuse")
    return recfuse.load(tmp_path / "all.recfuse")


def assert_same(got, expected) -> None:
    for a, b in zip(got, expected, strict=True):
        assert np.asarray(a).tolist() == np.asarray(b).tolist()


@pytest.mark.parametrize("name", MODELS)
def test_strangers_from_their_events(rng, tmp_path, name):
    """As if the model were asked by hand with the matrix of the strangers' events."""
    pipeline = pipeline_of(MODELS[name]()).fit(log(rng, ["ann", "bo", "cy", "di"]))
    visits = {"who": ["zoe", "ann", "zoe"], "what": [5, 3, 7], "did": ["buy", "cart", "view"]}
    history = np.zeros((2, N_GOODS), np.float32)
    history[[0, 1, 0], [5, 3, 7]] = [5, 3, 1]  # a purchase is cut down by the cleaner
    history = recfuse.interactions.sp.csr_array(history)
    model = pipeline.steps_[-1].model
    if name == "multimodal":
        expected = model.recommend_new_users(history, 4)
    else:
        solve = {"recalculate_user": True} if name == "als" else {}
        expected = model.recommend([0, 1], 4, user_items=history, **solve)
    for other in (pipeline, saved(pipeline, tmp_path)):
        users, items, scores = other.recommend_new_users(visits, 4)
        assert users.tolist() == ["zoe", "ann"]
        ids = [[None if i < 0 else i for i in row] for row in expected[0].tolist()]
        assert_same((items, scores), (ids, expected[1]))
        assert not {5, 7} & set(items[0])
    # In an id space of its own, which is in another order.
    events = recfuse.Interactions.from_arrays(visits["who"], visits["what"], [5, 3, 1])
    assert_same(pipeline.steps_[-1].recommend_new_users(events, 4), (ids, expected[1]))


def test_strangers_whom_nobody_can_speak_for(rng):
    table = log(rng, ["ann", "bo", "cy"])
    near = pipeline_of(recfuse.UserNeighbours(k=2)).fit(table)
    with pytest.raises(TypeError, match=r"model must speak of people .*; got UserNeighbours"):
        near.recommend_new_users(table)
    bare = Pipeline([reader(), als()])
    bare.steps_ = [reader().fit(table), als()]
    with pytest.raises(TypeError, match="end in a model that has recommend_new_users; got Altern"):
        bare.recommend_new_users(table)
    model = recfuse.LabelledModel(als())
    no_reader = Pipeline([Cleaner(), model]).fit(reader().fit_transform(table))
    with pytest.raises(TypeError, match="Pipeline: steps must begin with an EventReader; got Cle"):
        no_reader.recommend_new_users(table)
    pipeline = pipeline_of(als()).fit(table)
    with pytest.raises(ValueError, match="got 99"):
        pipeline.recommend_new_users({"who": ["x"], "what": [99], "did": ["buy"]})
    events = recfuse.Interactions.from_arrays(["x"], [99])
    with pytest.raises(KeyError, match="items must be known; got 99"):
        pipeline.steps_[-1].recommend_new_users(events)
    with pytest.raises(TypeError, match="recommend_new_users: events must be Interactions; got"):
        pipeline.steps_[-1].recommend_new_users(table)
    with pytest.raises(TypeError, match="recommend_new_items: model must fuse content; got Altern"):
        pipeline.recommend_new_items(["ann"], {})


def content(rng) -> dict[str, object]:
    size = normal(rng, N_GOODS, 2).astype(np.float64)
    size[3, 0] = np.nan
    text = [None if i % 5 == 0 else row for i, row in enumerate(normal(rng, N_GOODS, 4).tolist())]
    return {"size": size, "text": text}


def scales() -> dict[str, object]:
    return {"size": Pipeline([MissingValues(), Standardizer()]), "text": L2Normalizer()}


def test_content_goes_in_as_it_is(rng, tmp_path):
    table, raw = log(rng, ["ann", "bo", "cy", "di"]), content(rng)
    made = scales()
    pipeline = pipeline_of(fused(), encoders=made).fit(table, items=raw)
    assert not hasattr(made["size"], "steps_")  # copies are fitted

    there = [i for i, x in enumerate(raw["text"]) if x is not None]
    text = np.zeros((N_GOODS, 4))
    text[there] = L2Normalizer().transform([raw["text"][i] for i in there])
    size = scales()["size"].fit(raw["size"])
    by_hand = recfuse.LabelledModel(fused()).fit(
        Cleaner(duplicates="sum", clip=(None, 5)).transform(reader().fit_transform(table)),
        items={"size": size.transform(raw["size"]), "text": text},
    )
    new = {"size": [[1.0, np.nan], [0.5, 2.0]], "text": [None, [1.0, 2.0, 0.0, 1.0]]}
    vectors = {
        "size": size.transform(new["size"]),
        "text": np.stack([np.zeros(4), L2Normalizer().transform([new["text"][1]])[0]]),
    }
    for other in (pipeline, saved(pipeline, tmp_path)):
        assert_same(other.recommend(["bo", "di"], 5), by_hand.recommend(["bo", "di"], 5))
        got = other.recommend_new_items(["bo", "di"], new, 2)
        assert_same(got, by_hand.recommend_new_items(["bo", "di"], vectors, 2))
        assert_same(other.encode(new).values(), vectors.values())


@pytest.mark.parametrize(
    ("encoders", "items", "error", "message"),
    [
        ([Standardizer()], None, TypeError, "encoders must map modality to estimator; got list"),
        ({"size": len}, None, TypeError, r"encoders\['size'\] must be an estimator with transf"),
        ({"size": als()}, None, TypeError, r"encoders\['size'\] must be an estimator with transf"),
        ({"size": Standardizer()}, None, TypeError, "items must map modality to content; got None"),
        ({"size": Standardizer()}, {}, ValueError, r"items must have .*; got no \['size'\]"),
    ],
)
def test_what_is_no_encoder(rng, encoders, items, error, message):
    given = {} if items is None else {"items": items}
    with pytest.raises(error, match=message):
        pipeline_of(fused(), encoders=encoders).fit(log(rng, ["ann", "bo"]), **given)
    with pytest.raises(TypeError, match="must end in a model where there are encoders; got Stand"):
        Pipeline([Standardizer()], encoders={"a": Standardizer()}).fit([[1.0]])


def test_the_file_is_that_of_its_model_too(rng, tmp_path):
    pipeline = pipeline_of(als()).fit(log(rng, ["ann", "bo", "cy", "di"]))
    pipeline.save(tmp_path / "all")
    expected = pipeline.recommend(["bo", "ann"], 4)
    for retriever in (Retriever.load(tmp_path / "all"), Retriever.from_model(pipeline)):
        assert_same(retriever.recommend(["bo", "ann"], 4), expected)
    file = storage.open_file(tmp_path / "all")
    assert "retrieval" in file.metadata
    assert not [n for n in file.arrays if "retrieval" in n and "order" not in n]
    # Ids of the reader are those of the model: once.
    assert [n for n in file.arrays if n.endswith("users_")] == ["Pipeline.steps_.0.users_"]
    with_content = pipeline_of(fused(), encoders=scales())
    with_content.fit(log(rng, ["ann", "bo", "cy"]), items=content(rng)).save(tmp_path / "all")
    assert "retrieval" not in storage.open_file(tmp_path / "all").metadata
    expected = Retriever.from_model(with_content.steps_[-1]).recommend(["bo"], 4)
    assert_same(Retriever.load(tmp_path / "all").recommend(["bo"], 4), expected)
    Pipeline([Standardizer()]).fit([[1.0], [2.0]]).save(tmp_path / "all")
    with pytest.raises(TypeError, match="Pipeline: steps must end in a model; got Standardizer"):
        Retriever.load(tmp_path / "all")


def test_the_service_and_the_command_line_take_it(rng, tmp_path, capsys):
    pytest.importorskip("fastapi")
    from recfuse.service.options import Options
    from service_models import with_client

    for model in (als(), recfuse.ItemNeighbours(k=4)):
        pipeline = pipeline_of(model).fit(log(rng, ["ann", "bo", "cy", "di"]))
        pipeline.save(tmp_path / "all")
        expected = pipeline.recommend(["bo"], 3)[0][0].tolist()

        async def ask(client, _):
            body = {"user": "bo", "k": 3}
            return (await client.post("/recommend", json=body)).json()["items"]

        options = Options(model=tmp_path / "all", feedback=False)
        got = [entry["item"] for entry in with_client(options, ask)]
        assert got == [item for item in expected if item is not None]
        assert main(["recommend", str(tmp_path / "all"), "bo", "-k", "3", "--format", "jsonl"]) == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [line["item"] for line in lines] == got


def test_long_lists_are_no_header(tmp_path):
    """A catalogue in the parameters: the header of a file is for what is small."""
    goods = [f"article {i}" for i in range(2000)]
    numbers = list(range(2000))
    for labels in (goods, numbers):
        read = EventReader(user="u", item="i", item_labels=labels)
        read.fit({"u": ["a"], "i": [labels[7]]}).save(tmp_path / "r")
        file = storage.open_file(tmp_path / "r")
        assert len(json.dumps(file.metadata)) < 2000
        again = recfuse.load(tmp_path / "r")
        assert again.item_labels == labels
        assert type(again.item_labels) is list
        assert again.items_.tolist() == labels
    mixed = [True, *range(400)]  # no column of one type: as it was
    Pipeline([Standardizer()]).fit([[1.0]])
    model = EventReader(user="u", item="i", item_labels=[2**70, *range(400)])
    model.users_ = model.items_ = np.arange(2)
    model.now = mixed
    model.save(tmp_path / "r")
    again = recfuse.load(tmp_path / "r")
    assert again.item_labels == model.item_labels
    assert again.now == mixed
    assert again.now[0] is True


def test_names_are_of_what_is_alive():
    """Ids of types of events are an array that only the writer has: its place is not used again."""
    arrays = Arrays()
    encoded({1: 0.5, 2: 10.0}, "weights", arrays)
    for key in arrays.names:
        assert any(key == id(value) for value in arrays._noted)
    assert list(arrays) == ["weights.keys"]
