"""The routes of the service, held to the models that answer them."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import scipy.sparse as sp

import recfuse
import service_models as models
from recfuse.service.opening import served
from recfuse.serving import Retriever

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("httpx", reason="httpx is not installed")


@pytest.fixture
def ask(tmp_path):
    return functools.partial(models.ask, tmp_path)


def listed(answer):
    status, body = answer
    assert status == 200, body
    return [entry["item"] for entry in body["items"]], [entry["score"] for entry in body["items"]]


def test_recommend_is_what_the_model_says(ask):
    model = models.als()
    users = ["u0", "u7", "u29"]
    answers = ask(model, *[("/recommend", {"user": user, "k": 5}) for user in users])
    items, scores = model.recommend(users, k=5)
    for answer, ids, values in zip(answers, items.tolist(), scores.tolist(), strict=True):
        assert listed(answer) == (ids, values)


def test_lists_end_where_items_do(ask):
    model = models.als()
    (answer,) = ask(model, ("/recommend", {"user": "u0", "k": 1000}))
    items, _ = listed(answer)
    row = model.users_.tolist().index("u0")
    assert len(items) == 40 - len(model.interactions_[[row]].indices)


def test_filters(ask):
    model = models.als()
    (best, *_), _ = listed(ask(model, ("/recommend", {"user": "u3", "k": 3}))[0])
    answers = ask(
        model,
        ("/recommend", {"user": "u3", "k": 3, "exclude": [best]}),
        ("/recommend", {"user": "u3", "k": 3, "allow": [best, best]}),
        ("/recommend", {"user": "u3", "k": 3, "allow": []}),
        ("/recommend", {"user": "u3", "k": 40, "exclude_seen": False}),
        ("/recommend", {"user": "u3", "allow": ["nothing"]}),
    )
    assert best not in listed(answers[0])[0] and len(listed(answers[0])[0]) == 3
    assert listed(answers[1])[0] == [best]
    assert listed(answers[2])[0] == []
    assert len(listed(answers[3])[0]) == 40
    assert answers[4][0] == 404


def test_feedback_is_a_fold_in(ask):
    """The list after feedback is that of the whole history, folded in."""
    model = models.als()
    history = model.interactions_[[model.users_.tolist().index("u3")]].toarray()[0]
    items = model.items_.tolist()
    new = [i for i in items if history[items.index(i)] == 0][:2]
    answers = ask(
        model,
        ("/feedback", {"user": "u3", "events": [{"item": new[0]}, {"item": new[1], "value": 3}]}),
        ("/recommend", {"user": "u3", "k": 4}),
        ("/feedback", {"user": "new one", "events": [{"item": new[0]}]}),
        ("/recommend", {"user": "new one", "k": 4}),
        ("/feedback", {"user": "u3", "events": [{"item": i, "value": 0} for i in new]}),
        ("/recommend", {"user": "u3", "k": 4}),
    )
    assert answers[0] == (200, {"kept": 2}) and answers[2] == (200, {"kept": 1})
    history[items.index(new[0])], history[items.index(new[1])] = 1, 3
    expected = model.model.recommend(
        0, 4, user_items=sp.csr_array(history[None]), recalculate_user=True
    )
    assert listed(answers[1]) == ([items[i] for i in expected[0][0]], expected[1][0].tolist())
    alone = np.zeros((1, 40), np.float32)
    alone[0, items.index(new[0])] = 1
    expected = model.model.recommend(0, 4, user_items=sp.csr_array(alone), recalculate_user=True)
    assert listed(answers[3])[0] == [items[i] for i in expected[0][0]]
    history[items.index(new[0])] = history[items.index(new[1])] = 0
    expected = model.model.recommend(
        0, 4, user_items=sp.csr_array(history[None]), recalculate_user=True
    )
    assert listed(answers[5])[0] == [items[i] for i in expected[0][0]]


def test_an_item_of_the_fit_can_be_taken_back(ask):
    model = models.als()
    history = model.interactions_[[model.users_.tolist().index("u3")]]
    item = model.items_.tolist()[history.indices[0]]
    before, _, after = ask(
        model,
        ("/recommend", {"user": "u3", "k": 40}),
        ("/feedback", {"user": "u3", "events": [{"item": item, "value": 0}]}),
        ("/recommend", {"user": "u3", "k": 40}),
    )
    assert item not in listed(before)[0]
    assert item in listed(after)[0] and len(listed(after)[0]) == len(listed(before)[0]) + 1


def test_fuse_with_weights_is_recommend_with_weights(ask):
    model = models.fused()
    weights = {"als": 0.2, "text": 2.0}
    answers = ask(
        model,
        ("/fuse", {"user": "u5", "k": 6, "weights": weights}),
        ("/fuse", {"user": "u5", "k": 6}),
        ("/model", None),
    )
    row = model.users_.tolist().index("u5")
    for answer, chosen in zip(answers, (weights, None), strict=False):
        ids, scores, parts = model.model.recommend(row, 6, weights=chosen, contributions=True)
        items, values = listed(answer)
        assert items == [model.items_[i] for i in ids[0]]
        np.testing.assert_allclose(values, scores[0], rtol=1e-5)
        of_modalities = [list(e["contributions"].values()) for e in answer[1]["items"]]
        np.testing.assert_allclose(of_modalities, parts[0], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(np.sum(of_modalities, axis=1), values, rtol=1e-5)
    assert answers[2][1]["dims"] == {"als": 4, "text": 6}


def test_fuse_by_items_and_by_vectors(ask):
    model = models.fused()
    profile = {"text": np.arange(6.0).tolist()}
    answers = ask(
        model,
        ("/fuse", {"items": ["i3", "i5"], "k": 6}),
        ("/fuse", {"vectors": profile, "weights": {"text": 1}, "k": 6}),
        ("/fuse", {"vectors": {"text": [1.0]}}),
        ("/fuse", {"vectors": {"smell": [1.0]}}),
        ("/fuse", {"k": 3}),
    )
    items = model.items_.tolist()
    history = np.zeros((1, 40), np.float32)
    history[0, [items.index("i3"), items.index("i5")]] = 1
    ids, scores = model.model.recommend_new_users(sp.csr_array(history), 6)
    assert listed(answers[0])[0] == [items[i] for i in ids[0]]
    np.testing.assert_allclose(listed(answers[0])[1], scores[0], rtol=1e-4)
    vectors = {"text": np.array([profile["text"]], np.float32)}
    ids, scores = model.model.recommend_new_users(None, 6, vectors=vectors, weights={"text": 1})
    assert listed(answers[1])[0] == [items[i] for i in ids[0]]
    assert [status for status, _ in answers[2:]] == [422] * 3


def test_similar(ask):
    model = models.als()
    items, scores = Retriever.from_model(model).similar(["i3"], 4)
    answers = ask(model, ("/similar", {"item": "i3", "k": 4}), ("/similar", {"item": "none"}))
    assert listed(answers[0]) == (items[0].tolist(), scores[0].tolist())
    assert answers[1][0] == 404


def test_explain_adds_up(ask):
    model = models.als()
    (items, scores), *_ = [listed(a) for a in ask(model, ("/recommend", {"user": "u3", "k": 2}))]
    ((status, told),) = ask(model, ("/explain", {"user": "u3", "item": items[0]}))
    assert status == 200 and told["score"] == scores[0]
    assert sum(told["contributions"].values()) == pytest.approx(scores[0])
    history = model.interactions_[[model.users_.tolist().index("u3")]]
    _, shares = model.model.explain(history, model.items_.tolist().index(items[0]))
    assert told["history"]["factors"] == [
        {"item": model.items_[i], "adds": share} for i, share in shares
    ]


@pytest.mark.parametrize("make", [models.fused, models.with_neighbours])
def test_explain_of_a_fused_model(ask, make):
    model = make()
    ((status, told),) = ask(model, ("/explain", {"user": "u3", "item": "i7"}))
    user, item = (x.tolist().index(y) for x, y in ((model.users_, "u3"), (model.items_, "i7")))
    expected = model.model.explain(user, item)
    assert status == 200 and told["score"] == pytest.approx(expected.score, rel=1e-5)
    for name, share in told["contributions"].items():
        assert share == pytest.approx(expected.contributions[name], rel=1e-4, abs=1e-6)
    assert set(told["history"]) == set(expected.past)


def test_neighbours_are_fused_too(ask):
    model = models.with_neighbours()
    answers = ask(
        model,
        ("/recommend", {"user": "u4", "k": 5, "contributions": True}),
        ("/fuse", {"user": "u4", "k": 5, "weights": {"neighbours": 1.0}}),
        ("/feedback", {"user": "u4", "events": [{"item": "i1", "value": 2}]}),
        ("/recommend", {"user": "u4", "k": 5}),
    )
    items, row = model.items_, model.users_.tolist().index("u4")
    ids, scores = model.model.recommend(row, 5)
    assert listed(answers[0]) == ([items[i] for i in ids[0]], scores[0].tolist())
    ids, _ = model.model.recommend(row, 5, weights={"neighbours": 1.0})
    assert listed(answers[1])[0] == [items[i] for i in ids[0] if i >= 0]
    history = model.model.user_items_[[row]].tolil()
    history[0, items.tolist().index("i1")] = 2
    ids, scores = model.model.recommend_new_users(sp.csr_array(history), 5)
    assert listed(answers[3]) == ([items[i] for i in ids[0]], scores[0].tolist())


@pytest.mark.parametrize(
    "inner",
    [recfuse.ItemNeighbours(k=4), recfuse.UserNeighbours(k=4), recfuse.Popularity()],
    ids=lambda inner: type(inner).__name__,
)
def test_models_without_vectors(ask, inner):
    model = recfuse.LabelledModel(inner).fit(models.small())
    answers = ask(
        model,
        ("/recommend", {"user": "u4", "k": 3}),
        ("/recommend", {"user": "u4", "k": 3, "contributions": True}),
        ("/fuse", {"user": "u4", "weights": {"text": 1}}),
        ("/feedback", {"user": "u4", "events": [{"item": "i1"}]}),
        ("/recommend", {"user": "u4", "k": 40}),
        ("/explain", {"user": "u4", "item": "i2"}),
        ("/similar", {"item": "i2"}),
    )
    items, _ = model.recommend(["u4"], k=3)
    assert listed(answers[0])[0] == [item for item in items[0] if item is not None]
    assert answers[2][0] == 422
    assert "i1" not in listed(answers[4])[0]
    assert all(status in (200, 422) for status, _ in answers)


def test_a_search_without_users(ask):
    """A file of an index alone: vectors and histories, by the mean of their items."""
    rng = np.random.default_rng(5)
    items = rng.standard_normal((20, 3)).astype(np.float32)
    model = Retriever.from_model(recfuse.FusedIndex({"text": items}))
    answers = ask(
        model,
        ("/fuse", {"vectors": {"text": [1, 2, 3]}, "k": 3}),
        ("/fuse", {"items": [4, 7], "k": 3}),
        ("/recommend", {"user": 0}),
        ("/feedback", {"user": 0, "events": [{"item": 4}]}),
        ("/recommend", {"user": 0, "k": 3}),
    )
    index = recfuse.FusedIndex({"text": items})
    assert listed(answers[0])[0] == index.topk({"text": [[1, 2, 3]]}, 3)[0][0].tolist()
    mean = items[[4, 7]].mean(axis=0)[None]
    exclude = sp.csr_array(np.isin(np.arange(20), [4, 7])[None].astype(np.float32))
    assert listed(answers[1])[0] == index.topk({"text": mean}, 3, exclude=exclude)[0][0].tolist()
    assert answers[2][0] == 404
    assert 4 not in listed(answers[4])[0]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'{"user": "u1", "k": 0}',
        b'{"user": "u1", "k": 1001}',
        b'{"user": "u1", "k": 1e3}',
        b'{"user": "u1", "k": true}',
        b'{"user": true}',
        b'{"user": 1.0}',
        b'{"user": null}',
        b'{"user": ["u1"]}',
        b'{"user": "u1", "more": 1}',
        b'{"user": "\\ud800"}',
        b'{"user": "u1", "exclude": "i1"}',
        b'{"user": 1' + b"0" * 400 + b"}",
        b"[" * 100_000,
        b"\xff\xfe",
        b'{"user": "' + b"u" * 2000 + b'"}',
    ],
    ids=range(19),
)
def test_malformed_bodies_are_told(ask, body):
    ((status, told),) = ask(models.als(), ("/recommend", body))
    assert status == 422 and told["error"]


@pytest.mark.parametrize(
    "weights", ['{"factors": 0}', '{"other": 1}', '{"factors": NaN}', '{"factors": 1e300}', "[]"]
)
def test_wrong_weights_are_told(ask, weights):
    body = f'{{"user": "u1", "weights": {weights}}}'.encode()
    ((status, _),) = ask(models.als(), ("/fuse", body))
    assert status == 422


@pytest.mark.parametrize(
    "make",
    [
        models.als,
        models.fused,
        models.with_neighbours,
        lambda: recfuse.LabelledModel(recfuse.ItemNeighbours(k=5)).fit(models.small()),
    ],
)
def test_a_model_of_a_gpu_is_served_where_the_service_runs(ask, make, tmp_path):
    """With its number of threads, the models within a recommender, too."""
    requests = [
        ("/recommend", {"user": "u1", "k": 3}),
        ("/feedback", {"user": "u1", "events": [{"item": "i1"}]}),
        ("/recommend", {"user": "u1", "k": 3}),
        ("/fuse", {"items": ["i1"], "k": 3}),
    ]
    model = make()
    parts = [model.model, *getattr(model.model, "models_", {}).values()]
    want = ask(model, *requests)
    for part in parts:
        there = {"device": "cuda", "device_bytes": 1 << 30, "num_threads": 64}
        part.set_params(**{name: there[name] for name in there if hasattr(part, name)})
    assert ask(model, *requests, journal=tmp_path / "another") == want
    served(model, threads=1)
    assert {part.num_threads for part in parts if hasattr(part, "num_threads")} == {1}
