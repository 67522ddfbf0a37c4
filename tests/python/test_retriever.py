"""A `Retriever` answers with the bytes of the model it was made of, loaded or not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import recfuse
from helpers import assert_same_bytes, normal
from recfuse import storage
from recfuse.errors import FormatError, NotFittedError
from recfuse.serving import Retriever

N_USERS, N_ITEMS = 40, 70


@pytest.fixture
def likes(rng) -> sp.csr_array:
    dense = rng.random((N_USERS, N_ITEMS)) < 0.15
    dense[:, 60:] = False
    dense[0] = False
    return sp.csr_array(dense.astype(np.float32))


def als(**options: Any) -> recfuse.AlternatingLeastSquares:
    return recfuse.AlternatingLeastSquares(factors=5, iterations=3, random_state=1, **options)


def multimodal(rng, likes, **options) -> recfuse.MultimodalRecommender:
    text, image = normal(rng, N_ITEMS, 6), normal(rng, N_ITEMS, 4)
    image[::3] = 0
    model = recfuse.MultimodalRecommender({"als": als()}, **options)
    return model.fit(likes, {"text": text, "image": image})


WEIGHTS = {"als": 0.4, "text": 0.3, "image": 0.2, "popularity": 0.1}


def loaded(retriever: Retriever, tmp_path) -> Retriever:
    retriever.save(tmp_path / "retriever")
    return Retriever.load(tmp_path / "retriever")


def labelled(likes: sp.csr_array, model: Any, kind: str) -> recfuse.LabelledModel:
    rows, columns = likes.nonzero()
    users: Any = [f"用户{r}" for r in rows]
    items: Any = [1000 - int(c) for c in columns]
    if kind == "label":
        items = [("shop", int(c)) for c in columns]
    return recfuse.LabelledModel(model).fit(recfuse.Interactions.from_arrays(users, items))


@pytest.mark.parametrize("biases", [False, True])
def test_factors_answer_as_the_model(likes, tmp_path, biases):
    model = als(objective="explicit", biases=True) if biases else als()
    model.fit(likes).save(tmp_path / "model")
    of_file = Retriever.load(tmp_path / "model")
    for retriever in (Retriever.from_model(model), of_file, loaded(of_file, tmp_path)):
        users = np.arange(N_USERS)
        assert_same_bytes(retriever.recommend(users, 7), model.recommend(users, 7))
        assert_same_bytes(
            retriever.recommend([3, 5], 7, exclude=likes[[3, 5]]),
            model.recommend([3, 5], 7, user_items=likes[[3, 5]]),
        )
        zeros = sp.csr_array(likes[[3, 5]] * 0)
        assert zeros.nnz > 0
        assert_same_bytes(
            retriever.recommend([3, 5], 7, exclude=zeros),
            model.recommend([3, 5], 7, user_items=likes[[3, 5]]),
        )
        assert_same_bytes(
            retriever.recommend(4, 7, allow=[3, 9, 11]), model.recommend(4, 7, allow=[3, 9, 11])
        )
        assert_same_bytes(retriever.similar([0, 8], 5), model.similar_items([0, 8], 5))


def test_a_file_of_factors_has_them_once(likes, tmp_path):
    model = als().fit(likes)
    model.save(tmp_path / "model")
    file = storage.open_file(tmp_path / "model")
    assert not [name for name in file.arrays if "retrieval" in name]
    labels = labelled(likes, als(), "label")
    labels.save(tmp_path / "model")
    added = [n for n in storage.open_file(tmp_path / "model").arrays if "retrieval" in n]
    assert added == ["retrieval.user_ids.order", "retrieval.item_ids.order"]


@pytest.mark.parametrize("kind", ["integer", "label"])
def test_ids_are_those_of_the_model(likes, tmp_path, kind):
    model = labelled(likes, als(), kind)
    model.save(tmp_path / "model")
    for retriever in (Retriever.from_model(model), Retriever.load(tmp_path / "model")):
        users = model.users_.tolist()
        got, expected = retriever.recommend(users, 6), model.recommend(users, 6)
        assert got[0].tolist() == expected[0].tolist()
        np.testing.assert_array_equal(got[1], expected[1])
        item = got[0][0, 0]
        again = retriever.recommend([users[0]], 6, exclude=[item])[0]
        assert item not in again[0].tolist()
        assert retriever.recommend(users[0], 6, allow=[item])[0][0].tolist() == [item] + [None] * 5
        # Entries of a filter count, also those that are 0, and beside what has been seen.
        zeros = sp.csr_array((np.zeros(len(users)), (range(len(users)), [0] * len(users))))
        zeros.resize((len(users), len(model.items_)))
        assert (
            model.items_[0] not in retriever.recommend(users, 6, exclude=zeros)[0].ravel().tolist()
        )
        assert model.items_[0] in retriever.recommend(users, 6)[0].ravel().tolist()
        seen = retriever.recommend(users, N_ITEMS, exclude_seen=False)[0]
        assert None not in seen[:, : len(model.items_)].ravel().tolist()
        with pytest.raises(KeyError, match="user_ids must be known; got 'nobody'"):
            retriever.recommend(["nobody"])
        for unknown in (-1, 10**30, None, "x", 3.5, ("shop",), "\ud800"):
            with pytest.raises(KeyError):
                retriever.recommend(users[0], exclude=[unknown])


@pytest.mark.parametrize("options", [{"weights": WEIGHTS}, {"weights": WEIGHTS, "cold_items": 3.0}])
def test_modalities_answer_as_the_recommender(rng, likes, tmp_path, options):
    model = multimodal(rng, likes, **options)
    retriever = Retriever.from_model(model)
    for each in (retriever, loaded(retriever, tmp_path)):
        users = np.arange(N_USERS)
        assert_same_bytes(
            each.recommend(users, 9, contributions=True),
            model.recommend(users, 9, contributions=True),
        )
        assert_same_bytes(
            each.recommend(users, 9, weights={"text": 1.0}, exclude_seen=False),
            model.recommend(users, 9, weights={"text": 1.0}, exclude_seen=False),
        )
        own = {"als": np.linspace(0, 1, N_USERS), "popularity": 0.5}
        assert_same_bytes(
            each.recommend(users, 9, weights=own), model.recommend(users, 9, weights=own)
        )


def test_weights_of_segments_are_kept(rng, likes, tmp_path):
    model = multimodal(rng, likes, weights=WEIGHTS)
    model.user_weights_ = {name: rng.random(N_USERS) for name in model.modalities_}
    retriever = loaded(Retriever.from_model(model), tmp_path)
    users = np.arange(N_USERS)
    assert_same_bytes(retriever.recommend(users, 9), model.recommend(users, 9))


def test_similar_items_are_alike_by_content(rng, likes):
    model = multimodal(rng, likes, weights=WEIGHTS)
    ids, scores = Retriever.from_model(model).similar([4, 6], 3)
    present = {name: block.present for name, block in model.content_.items()}
    index = recfuse.FusedIndex(
        {name: block.items for name, block in model.content_.items()}, present=present
    )
    for item, row, values in zip([4, 6], ids, scores, strict=True):
        weights = {n: WEIGHTS[n] * bool(present[n][item]) for n in model.content_}
        queries = {name: block.items[[item]] for name, block in model.content_.items()}
        expected, similarity = index.topk(queries, 4, weights=weights)
        assert expected[0, 0] == item
        assert row.tolist() == expected[0, 1:].tolist()
        np.testing.assert_array_equal(values, similarity[0, 1:])


def test_nothing_is_like_an_item_without_vectors(rng, tmp_path):
    present = {"text": np.array([True, False, True])}
    index = recfuse.FusedIndex({"text": normal(rng, 3, 2)}, present=present)
    retriever = loaded(Retriever.from_model(index), tmp_path)
    ids, scores = retriever.similar([1, 0], 2)
    assert ids.tolist() == [[-1, -1], [2, -1]]
    assert np.isneginf(scores[0]).all()


def test_an_index_is_saved_and_searched(rng, tmp_path):
    items = {"text": normal(rng, 50, 8), "image": normal(rng, 50, 4)}
    present = {"image": rng.random(50) < 0.5}
    index = recfuse.FusedIndex(items, present=present)
    Retriever.from_model(index).save(tmp_path / "index")
    retriever = recfuse.load(tmp_path / "index")
    assert (retriever.modalities, retriever.dims) == (["text", "image"], {"text": 8, "image": 4})
    assert (retriever.n_users, retriever.n_items) == (None, 50)
    queries = {"text": normal(rng, 3, 8), "image": normal(rng, 3, 4)}
    weights = {"text": 0.3, "image": 0.7}
    assert_same_bytes(
        retriever.search(queries, 6, weights=weights), index.topk(queries, 6, weights=weights)
    )
    alone = {"text": queries["text"], "image": np.zeros((3, 4))}
    assert_same_bytes(
        retriever.search({"text": queries["text"]}, 6),
        index.topk(alone, 6, weights={"text": 1, "image": 0}),
    )
    assert_same_bytes(
        retriever.search({"text": queries["text"][0]}, 6),
        index.topk({n: q[:1] for n, q in alone.items()}, 6, weights={"text": 1, "image": 0}),
    )
    with pytest.raises(ValueError, match="recommend: model must have vectors of users"):
        retriever.recommend([0])
    with pytest.raises(ValueError, match="search: vectors must name modalities of"):
        retriever.search({"sound": [[1.0]]})
    with pytest.raises(ValueError, match="weights must name modalities of"):
        retriever.search(queries, weights={"sound": 1.0})


def test_sparse_modalities_are_named(rng, likes):
    behaviour = {"als": als(), "near": recfuse.ItemNeighbours(k=5)}
    model = recfuse.MultimodalRecommender(behaviour, weights={"als": 0.5, "near": 0.5})
    with pytest.raises(ValueError, match=r"from_model: model must have .*; got \['near'\]"):
        Retriever.from_model(model.fit(likes))
    unweighted = recfuse.MultimodalRecommender(behaviour, weights={"als": 0.5, "near": 0.0})
    unweighted.fit(likes)
    users = np.arange(N_USERS)
    assert_same_bytes(
        Retriever.from_model(unweighted).recommend(users, 5), unweighted.recommend(users, 5)
    )


def test_models_without_dense_search_say_so(likes, tmp_path):
    with pytest.raises(TypeError, match="from_model: model must answer by dense search"):
        Retriever.from_model(recfuse.ItemNeighbours().fit(likes))
    with pytest.raises(NotFittedError):
        Retriever.from_model(als())
    with pytest.raises(TypeError, match="from_model: model must be a model of recfuse; got int"):
        Retriever.from_model(3)
    recfuse.LabelledModel(recfuse.ItemNeighbours()).fit(
        recfuse.Interactions.from_arrays([1, 2], [3, 4])
    ).save(tmp_path / "model")
    with pytest.raises(TypeError, match="model must answer by dense search"):
        Retriever.load(tmp_path / "model")


@pytest.mark.parametrize("by", ["users", "values"])
def test_popularity_is_a_search_too(rng, likes, tmp_path, by):
    """Also of numbers below 0; what nobody has is in no list."""
    strengths = likes.copy()
    strengths.data = rng.integers(-3, 4, len(likes.data)).astype(np.float32)
    model = recfuse.Popularity(by).fit(strengths)
    model.save(tmp_path / "model")
    assert "retrieval" in storage.open_file(tmp_path / "model").metadata
    users = np.arange(N_USERS)
    for retriever in (Retriever.from_model(model), Retriever.load(tmp_path / "model")):
        assert_same_bytes(retriever.recommend(users, N_ITEMS), model.recommend(users, N_ITEMS))
        assert (retriever.recommend([0], N_ITEMS)[0][0, 60:] == -1).all()
        with pytest.raises(ValueError, match="similar: model must have a modality by which items"):
            retriever.similar([0])
    ids = labelled(likes, recfuse.Popularity(by), "integer")
    ids.save(tmp_path / "model")
    got = Retriever.load(tmp_path / "model").recommend(ids.users_.tolist(), 9)
    expected = ids.recommend(ids.users_, 9)
    assert got[0].tolist() == expected[0].tolist()
    assert got[1].tolist() == expected[1].tolist()


def test_rows_of_seen_items_are_checked_where_they_are_used(likes, tmp_path):
    model = labelled(likes, als(), "integer")
    model.save(tmp_path / "model")
    arrays, metadata = storage.read(tmp_path / "model", mmap=False)
    indices = arrays["LabelledModel.interactions_.indices"]
    row = int(np.flatnonzero(np.diff(arrays["LabelledModel.interactions_.indptr"]))[0])
    for wrong in (-1, N_ITEMS, 2**31 - 1):
        indices[arrays["LabelledModel.interactions_.indptr"][row]] = wrong
        storage.write(tmp_path / "wrong", arrays, metadata, kind="estimator")
        retriever = Retriever.load(tmp_path / "wrong")
        retriever.recommend(model.users_[row + 1])
        with pytest.raises(FormatError, match="seen items must be in"):
            retriever.recommend(model.users_[row])
    arrays["LabelledModel.interactions_.indptr"][row + 1] = 2**31 - 1
    storage.write(tmp_path / "wrong", arrays, metadata, kind="estimator")
    with pytest.raises(FormatError, match="row starts"):
        Retriever.load(tmp_path / "wrong").recommend(model.users_[row])
