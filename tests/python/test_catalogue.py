"""Users and items that come, change and go between fits."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

import recfuse
from helpers import assert_same_bytes, normal
from recfuse.errors import NotFittedError
from recfuse.fusion._zscores import ZScores

N_USERS, N_ITEMS = 40, 60
WEIGHTS = {"als": 0.3, "neighbours": 0.3, "text": 0.2, "image": 0.1, "popularity": 0.1}


@pytest.fixture
def likes(rng) -> sp.csr_array:
    dense = (rng.random((N_USERS, N_ITEMS)) < 0.2) * rng.integers(1, 4, (N_USERS, N_ITEMS))
    dense[:, 55:] = 0
    return sp.csr_array(dense.astype(np.float32))


@pytest.fixture
def content(rng) -> dict[str, np.ndarray]:
    image = normal(rng, N_ITEMS, 4)
    image[::5] = 0
    return {"text": normal(rng, N_ITEMS, 6), "image": image}


def new_model(**options):
    behaviour = {
        "als": recfuse.AlternatingLeastSquares(factors=4, iterations=3, random_state=1),
        "neighbours": recfuse.ItemNeighbours(k=8),
    }
    return recfuse.MultimodalRecommender(behaviour, weights=WEIGHTS, **options)


def lists(model):
    return model.recommend(np.arange(model.user_items_.shape[0]), k=20, contributions=True)


@pytest.mark.parametrize("cold_items", [None, 3.0])
def test_items_that_leave_and_come_back(likes, content, cold_items, tmp_path):
    """Untouched items at the end are the same ones again, to the byte."""
    model = new_model(cold_items=cold_items).fit(likes, content)
    before = lists(model)
    assert model.remove_items([57, 55, 56, 58, 59]) is model
    assert model.user_items_.shape == (N_USERS, 55)
    gone = lists(model)
    assert gone[0].max() < 55
    ids = model.add_items({name: x[55:] for name, x in content.items()})
    assert ids.tolist() == [55, 56, 57, 58, 59]
    assert_same_bytes(lists(model), before)
    model.save(tmp_path / "m")
    assert_same_bytes(lists(recfuse.load(tmp_path / "m")), before)


def test_a_removed_item_is_gone_everywhere(likes, content):
    model = new_model().fit(likes, content)
    keep = np.delete(np.arange(N_ITEMS), [3, 20])
    als, near = model.models_["als"], model.models_["neighbours"]
    similarity = near.similarity_.toarray()
    model.remove_items([20, 3])
    np.testing.assert_array_equal(model.user_items_.toarray(), likes.toarray()[:, keep])
    other = model.models_["neighbours"]
    np.testing.assert_array_equal(other.similarity_.toarray(), similarity[np.ix_(keep, keep)])
    np.testing.assert_array_equal(model.models_["als"].item_factors_, als.item_factors_[keep])
    # Neighbours stay in their order, best first.
    ids, scores = other.similar_items(np.arange(len(keep)), k=8)
    assert (np.diff(np.where(ids >= 0, scores, -1), axis=1) <= 0).all()
    # The estimators that the fit was given are as they were.
    assert als.item_factors_.shape == (N_ITEMS, 4) and near.similarity_.shape == (60, 60)
    assert ids.max() < 58
    assert np.isfinite(model.explain(3, 4).score)


def test_new_content_counts(likes, content):
    """An item with the content of another is, for content, the other."""
    model = new_model().fit(likes, content)
    model.update_items([56], {name: x[[58]] for name, x in content.items()})
    parts = [model.explain(4, item).contributions for item in (56, 58)]
    assert parts[0] == parts[1]
    model.update_items(56, {"image": np.zeros((1, 4))})
    assert model.explain(4, 56).contributions["image"] == 0
    assert model.explain(4, 56).contributions["text"] != 0
    alone = model.add_items({"image": content["image"][[58]]})
    assert alone.tolist() == [60]
    why = model.explain(4, 60).contributions
    assert why["text"] == 0 and why["image"] != 0


def test_users_with_new_events(likes, content, tmp_path):
    model = new_model().fit(likes, content)
    before = model.models_["als"].user_factors_
    rows = sp.csr_array(likes[[9, 2]])
    model.partial_fit_users([N_USERS, 5], rows)
    np.testing.assert_array_equal(model.user_items_.toarray()[[40, 5]], rows.toarray())
    assert model.user_items_.shape == (41, N_ITEMS)
    als = model.models_["als"]
    assert_same_bytes((als.user_factors_[[40, 5]],), (als.fold_in(rows),))
    assert_same_bytes((als.user_factors_[:5],), (before[:5],))
    # As a user whom the model does not know: the same queries, but for the length of factors.
    known = model.recommend([40, 5], k=N_ITEMS)
    new = model.recommend_new_users(rows, k=N_ITEMS)
    by_id = [
        np.where(i >= 0, np.take_along_axis(s, np.argsort(i, axis=1), 1), 0)
        for i, s in ((known[0], known[1]), (new[0], new[1]))
    ]
    finite = np.isfinite(by_id[0])
    np.testing.assert_allclose(by_id[0][finite], by_id[1][finite], atol=1e-4)
    model.save(tmp_path / "m")
    assert_same_bytes(recfuse.load(tmp_path / "m").recommend([40, 5], k=N_ITEMS), known)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: m.remove_items(60), IndexError, r"remove_items: item_ids must be in \[0, 60\)"),
        (lambda m: m.remove_items([1, 1]), ValueError, "item_ids must not repeat"),
        (lambda m: m.remove_items(np.arange(60)), ValueError, "must leave at least 1 item"),
        (lambda m: m.add_items({}), ValueError, "items must name modalities of"),
        (lambda m: m.add_items({"x": np.ones((1, 2))}), ValueError, "items must name modalities"),
        (lambda m: m.add_items({"text": np.ones((1, 2))}), ValueError, r"must have shape \(1, 6\)"),
        (
            lambda m: m.add_items({"text": np.ones((1, 6)), "image": np.ones((2, 4))}),
            ValueError,
            r"items\['image'\] must have shape \(1, 4\)",
        ),
        (
            lambda m: m.update_items([1, 2], {"text": np.ones((1, 6))}),
            ValueError,
            "items must have one row per id",
        ),
        (lambda m: m.partial_fit_users(42, sp.csr_array((1, 60))), IndexError, "without a gap"),
        (lambda m: m.partial_fit_users(0, sp.csr_array((1, 6))), ValueError, "60 columns"),
    ],
)
def test_a_refused_change_changes_nothing(likes, content, call, error, message):
    model = new_model().fit(likes, content)
    before = lists(model)
    with pytest.raises(error, match=message):
        call(model)
    assert_same_bytes(lists(model), before)


def test_users_with_vectors_cannot_be_appended(likes, content):
    model = new_model().fit(likes, content, {"text": np.ones((N_USERS, 6))})
    model.partial_fit_users(3, likes[[4]])
    with pytest.raises(ValueError, match="user_ids must be known where fit was given vectors"):
        model.partial_fit_users(N_USERS, likes[[4]])


def test_before_fit():
    for name in ("add_items", "remove_items"):
        with pytest.raises(NotFittedError):
            getattr(recfuse.MultimodalRecommender(), name)({})


@pytest.mark.parametrize("cold_items", [None, 3.0])
def test_what_a_change_leaves_has_the_bytes_of_a_fresh_start(
    likes, content, cold_items, monkeypatch, rng, tmp_path
):
    """Moments of rows that stay are taken over; a loaded model computes all of them."""
    monkeypatch.setattr("recfuse.fusion._zscores._ROWS", 8)
    model = new_model(cold_items=cold_items).fit(likes, content)
    row = sp.csr_array((rng.random((1, N_ITEMS)) < 0.2).astype(np.float32))
    changes = [
        lambda: model.partial_fit_users([3], row),
        lambda: model.update_items([17, 5], {"text": normal(rng, 2, 6)}),
        lambda: model.add_items({"image": normal(rng, 11, 4)}),
        lambda: model.remove_items([20, 41]),
        lambda: model.update_items([0], {"image": np.zeros((1, 4))}),
    ]
    for number, change in enumerate(changes):
        change()
        if number != 2:  # two changes at once are one for the index
            model.save(tmp_path / "m")
            assert_same_bytes(lists(model), lists(recfuse.load(tmp_path / "m")))


def test_a_change_of_few_items_computes_the_moments_of_few(likes, content, monkeypatch, rng):
    monkeypatch.setattr("recfuse.fusion._zscores._ROWS", 8)
    model = new_model().fit(likes, content)
    before = model._index.blocks["text"]._zscores._moments
    model.update_items([17], {"text": normal(rng, 1, 6)})
    after = model._index.blocks["text"]._zscores._moments
    assert [a is b for a, b in zip(after, before, strict=True)] == [i != 2 for i in range(8)]
    als = model._index.blocks["als"]._zscores._moments
    model.partial_fit_users([3], likes[[3]])
    assert all(
        a is b for a, b in zip(model._index.blocks["als"]._zscores._moments, als, strict=True)
    )


@pytest.mark.parametrize("n_items", [0, 1, 8, 37])
def test_moments_of_parts_are_those_of_the_whole(rng, monkeypatch, n_items):
    monkeypatch.setattr("recfuse.fusion._zscores._ROWS", 8)
    items = normal(rng, n_items, 3) + np.arange(n_items, dtype=np.float32)[:, None]
    present = rng.random(n_items) < 0.7
    got = ZScores(items, present)
    rows = items[present].astype(np.float64)
    mean = rows.mean(axis=0) if len(rows) else np.zeros(3)
    np.testing.assert_allclose(got.mean, mean, rtol=1e-13)
    covariance = (rows - mean).T @ (rows - mean) / max(len(rows), 1)
    np.testing.assert_allclose(got.covariance, covariance, rtol=1e-12)
