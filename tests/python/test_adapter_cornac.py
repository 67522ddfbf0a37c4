"""recfuse.adapters.cornac: in cornac's experiments, beside cornac's own models."""

from __future__ import annotations

import copy
import doctest
import pickle

import numpy as np
import pytest
import scipy.sparse as sp

pytest.importorskip("cornac", reason="cornac is not installed")

import cornac
from cornac.data import Dataset, FeatureModality, ImageModality, TextModality
from cornac.eval_methods import BaseMethod, RatioSplit
from cornac.exception import ScoreException
from cornac.hyperopt import Discrete, GridSearch
from cornac.metrics import AUC, MAE, NDCG, Recall
from cornac.models import MF, MostPop

import recfuse
import recfuse.adapters.cornac as adapter
from helpers import program
from recfuse.adapters.cornac import ALS, ItemNeighbours, Multimodal
from recfuse.fusion.hybrid import HybridIndex

pytestmark = pytest.mark.filterwarnings("ignore")  # cornac's own
N_USERS, N_ITEMS, GROUPS = 120, 60, 4
KINDS = ("horror", "comedy", "western", "musical")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Experiments write their log where they run."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def events():
    """Let people like the items of their group, most of all, and rate those higher."""
    rng = np.random.default_rng(8)
    users, items = np.nonzero(rng.random((N_USERS, N_ITEMS)) < 0.3)
    likes = users % GROUPS == items % GROUPS
    kept = likes | (rng.random(len(users)) < 0.3)
    stars = np.where(likes, 5, 2) - (rng.random(len(users)) < 0.3)
    return [
        (f"u{u}", f"i{i}", float(r))
        for u, i, r in zip(users[kept], items[kept], stars[kept], strict=True)
    ]


@pytest.fixture(scope="module")
def content():
    """Return ids of items in another order than the events, and what their groups look like."""
    rng = np.random.default_rng(9)
    numbers = rng.permutation(N_ITEMS)
    groups = np.eye(GROUPS)[numbers % GROUPS]
    # cornac drops digits from texts.
    texts = [f"{KINDS[n % GROUPS]} about {chr(97 + n // 8)}{chr(97 + n % 8)}x" for n in numbers]
    images = np.hstack([groups, 0.3 * rng.standard_normal((N_ITEMS, 8))])
    return [f"i{n}" for n in numbers], texts, images


def split(events, **modalities):
    how = {"test_size": 0.25, "rating_threshold": 4.0, "exclude_unknowns": True, "seed": 3}
    return RatioSplit(events, fmt="UIR", **how, **modalities)


MODELS = [
    ALS(factors=4, random_state=0),
    ALS(
        name="ratings",
        factors=4,
        objective="explicit",
        biases=True,
        regularization=3.0,
        random_state=0,
    ),
    ItemNeighbours(k=10, weighting="bm25"),
    Multimodal(behaviour={"als": recfuse.AlternatingLeastSquares(4, random_state=0)}),
]


def test_models_run_in_an_experiment_beside_cornacs_own(events, content):
    ids, _, images = content
    method = split(events, item_image=ImageModality(features=images, ids=list(ids)))
    content_only = Multimodal("content", behaviour={}, popularity=False, weights={"image": 1.0})
    models = [*MODELS, content_only, MF(k=4, max_iter=50, seed=1), MostPop()]
    run = cornac.Experiment(
        eval_method=method,
        models=models,
        metrics=[AUC(), NDCG(k=10), Recall(k=10), MAE()],
        user_based=True,
    )
    run.run()
    auc = {result.model_name: result.metric_avg_results["AUC"] for result in run.result}
    mae = {result.model_name: result.metric_avg_results["MAE"] for result in run.result}
    assert set(auc) == {model.name for model in models}
    assert all(auc[model.name] > max(0.6, auc["MostPop"] + 0.1) for model in models[:-2]), auc
    assert mae["ratings"] < 1.1 * mae["MF"], mae


@pytest.fixture(scope="module")
def data(events):
    return Dataset.from_uir(events, seed=1)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_scores_are_those_of_the_model_within(data, model):
    model = model.clone().fit(data)
    inner, matrix = model.model, data.csr_matrix
    for user in (0, 7, N_USERS - 1):
        scores = model.score(user)
        assert scores.shape == (data.num_items,) and scores.dtype == np.float32
        if isinstance(model, Multimodal):
            ids, expected = inner.recommend(user, 10, exclude_seen=False)
        else:
            ids, expected = inner.recommend([user], 10)
        ids, expected = ids[0][ids[0] >= 0], expected[0][ids[0] >= 0]
        np.testing.assert_allclose(scores[ids], expected, rtol=1e-5, atol=1e-5)
        assert model.score(user, int(ids[2])) == scores[ids[2]]
        ranked, all_scores = model.rank(user)
        np.testing.assert_allclose(all_scores, scores)
        np.testing.assert_allclose(scores[ranked[: len(ids)]], expected, rtol=1e-5, atol=1e-5)
        some = np.array([5, 3, 30, 11])
        ranked, chosen = model.rank(user, some, k=2)
        np.testing.assert_array_equal(chosen, scores[some])
        assert ranked[0] == some[np.argmax(chosen)]
        name = data.user_ids[user] if hasattr(data, "user_ids") else list(data.uid_map)[user]
        listed = model.recommend(name, k=5, remove_seen=True, train_set=data)
        seen = {list(data.iid_map)[item] for item in matrix[user].indices}
        assert len(listed) == 5 and not seen & set(listed)


def test_all_items_are_scored_and_not_ranked(events, content, monkeypatch):
    ids, _, images = content
    some = np.where(np.arange(N_ITEMS)[:, None] < 9, 0, images)
    method = split(events, item_image=ImageModality(features=some, ids=list(ids)))
    for weights in ("fit", {"image": 1.0}):
        model = Multimodal(weights=weights, random_state=0).fit(method.train_set)
        users = (0, 5, 44)
        lists = [model.model.recommend(user, N_ITEMS, exclude_seen=False) for user in users]
        with monkeypatch.context() as patch:
            patch.setattr(HybridIndex, "topk", None)  # which sorts
            scored = [model.score(user) for user in users]
        for got, (listed, scores) in zip(scored, lists, strict=True):
            n = (listed[0] >= 0).sum()
            assert (n < N_ITEMS) == (weights != "fit")
            np.testing.assert_array_equal(got[listed[0, :n]], scores[0, :n])
            assert (np.delete(got, listed[0, :n]) == scores[0, n - 1]).all()


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_models_are_cloned_copied_and_saved(data, model, tmp_path):
    other, same = vars(model.clone({"name": "other"})), vars(model.clone())
    assert str(other) == str({**same, "name": "other"})
    model = model.clone().fit(data)
    path = model.save(str(tmp_path))
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), model.load(path)):
        np.testing.assert_array_equal(other.score(3), model.score(3))
    loaded = model.load(path)  # not trainable: a fit leaves it as it was
    learned = loaded.model
    assert loaded.fit(data) is loaded and loaded.model is learned


def test_unknown_users_and_items(data):
    model = ALS(factors=4).fit(data)
    for user, item in ((N_USERS, None), (-1, None), (0, N_ITEMS), (0, -1)):
        with pytest.raises(ScoreException, match=r"ALS: (user|item)_idx must be known, below"):
            model.score(user, item)
    assert model.rate(N_USERS, 0) == data.global_mean


def test_grid_search_finds_the_better_factors(events):
    search = GridSearch(
        model=ALS(factors=1, random_state=0),
        space=[Discrete("factors", [1, 8])],
        metric=NDCG(k=10),
        eval_method=RatioSplit(
            events, test_size=0.2, val_size=0.2, rating_threshold=4.0, exclude_unknowns=True, seed=3
        ),
    )
    cornac.Experiment(
        eval_method=search.eval_method, models=[search], metrics=[NDCG(k=10)], user_based=True
    ).run()
    assert search.best_params == {"factors": 8}


def test_vectors_give_the_scores(data):
    for how in ({}, {"objective": "explicit", "biases": True, "regularization": 1.0}):
        model = ALS(factors=4, random_state=0, **how).fit(data)
        products = model.get_user_vectors() @ model.get_item_vectors().T
        np.testing.assert_allclose(products[5], model.score(5), rtol=1e-5, atol=1e-5)


def test_every_modality_reaches_the_model_in_the_order_of_its_items(events, content):
    ids, texts, images = content
    method = split(
        events,
        item_text=TextModality(corpus=list(texts), ids=list(ids), max_vocab=100),
        item_image=ImageModality(features=images, ids=list(ids)),
        item_feature=FeatureModality(features=sp.csr_matrix(images).toarray(), ids=list(ids)),
    )
    model = Multimodal(behaviour={}, popularity=False, text_dim=4).fit(method.train_set)
    assert model.model.modalities_ == ["text", "image", "feature"]
    where = {item: row for row, item in enumerate(ids)}
    given = images[[where[item] for item in model.item_ids]].astype(np.float32)
    held = model._content(method.train_set)
    np.testing.assert_array_equal(held["image"], given)
    np.testing.assert_array_equal(held["feature"], given)
    assert held["text"].shape == (N_ITEMS, 4)
    # Texts of one kind are closest to one another.
    unit = held["text"] / np.linalg.norm(held["text"], axis=1)[:, None]
    kinds = np.array([int(item[1:]) % GROUPS for item in model.item_ids])
    like = unit @ unit.T
    same = (kinds[:, None] == kinds) & ~np.eye(N_ITEMS, dtype=bool)
    assert like[same].mean() > like[kinds[:, None] != kinds].mean() + 0.3


def test_items_without_features_lack_the_modality(events):
    first = sorted({item for _, item, _ in events})
    features = np.random.default_rng(0).random((N_ITEMS, 5)).astype(np.float32)
    # The last ten have none; their rows in the matrix are of items that nobody knows.
    ids = [*first[:-10], *(f"unknown {n}" for n in range(10))]
    method = split(events, item_image=ImageModality(features=features, ids=list(ids)))
    model = Multimodal(behaviour={}, popularity=False, weights={"image": 1.0})
    model.fit(method.train_set)
    held = model._content(method.train_set)["image"]
    for row, item in enumerate(model.item_ids):
        expected = features[ids.index(item)] if item in ids else np.zeros(5)
        np.testing.assert_array_equal(held[row], expected)
    scores = model.score(0)
    missing = [row for row, item in enumerate(model.item_ids) if item not in ids]
    assert len(missing) == 10 and np.isfinite(scores).all()
    assert (scores[missing] == scores.min()).all()


def test_items_and_users_of_the_test_alone_are_ranked(events, content):
    ids, _, images = content
    train = [event for event in events if event[1] not in ("i3", "i8") and event[0] != "u5"]
    test = [event for event in events if event not in train]
    method = BaseMethod.from_splits(
        train_data=train,
        test_data=test,
        fmt="UIR",
        exclude_unknowns=False,
        item_image=ImageModality(features=images, ids=list(ids)),
    )
    model = Multimodal(popularity=True).fit(method.train_set)
    scores = model.score(method.global_uid_map["u0"])
    assert scores.shape == (method.total_items,) == (N_ITEMS,)
    cold = [method.global_iid_map[item] for item in ("i3", "i8")]
    assert (scores[cold[1]] > scores[cold[0]]) and (scores[cold[1]] > np.median(scores))
    assert method.global_uid_map["u5"] >= model.num_users
    stranger = model.score(method.global_uid_map["u5"])
    counts = np.bincount(method.train_set.csr_matrix.indices, minlength=N_ITEMS)
    assert counts[np.argmax(stranger)] == counts.max()


def test_examples_of_the_docstrings_run():
    failed, tried = doctest.testmod(adapter)
    assert tried >= 4 and failed == 0


def test_the_program_of_the_document_runs(events, content, capsys):
    exec(
        program("cornac"), {"ratings": events, "item_ids": content[0], "image_vectors": content[2]}
    )
    assert "recfuse multimodal" in capsys.readouterr().out
