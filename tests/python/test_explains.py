"""Explanations that add up, importance of modalities, and lists that are not all alike."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import scipy.sparse as sp

import recfuse
from helpers import assert_same_bytes, normal
from recfuse.errors import NotFittedError
from recfuse.evaluation import ranking_metrics
from recfuse.rerank import mmr

N_USERS, N_ITEMS = 60, 90
WEIGHTS = {"als": 0.3, "neighbours": 0.25, "text": 0.2, "image": 0.15, "popularity": 0.1}


@pytest.fixture
def likes(rng) -> sp.csr_array:
    taste = np.arange(N_USERS)[:, None] % 2 == np.arange(N_ITEMS)[None, :] % 2
    dense = rng.random((N_USERS, N_ITEMS)) < np.where(taste, 0.3, 0.05)
    dense[:, 80:] = False
    dense[0] = False
    return sp.csr_array(dense.astype(np.float32) * rng.integers(1, 4, dense.shape))


@pytest.fixture
def content(rng) -> dict[str, np.ndarray]:
    text = normal(rng, N_ITEMS, 6)
    text[:, 0] += np.where(np.arange(N_ITEMS) % 2, 2, -2)
    image = normal(rng, N_ITEMS, 4)
    image[::5] = 0
    return {"text": text, "image": image}


def new_model(weights=None, **als):
    options = {"factors": 4, "iterations": 3, "random_state": 1, **als}
    behaviour = {
        "als": recfuse.AlternatingLeastSquares(**options),
        "neighbours": recfuse.ItemNeighbours(k=8),
    }
    return recfuse.MultimodalRecommender(behaviour, weights=weights or WEIGHTS)


@pytest.mark.parametrize("als", [{}, {"objective": "explicit", "biases": True}])
def test_shares_of_the_past_add_up(likes, content, als):
    model = new_model(**als).fit(likes, content)
    users = np.arange(N_USERS)
    # Factors that are exact for the items of the fit: then nothing is left over.
    model.models_["als"].partial_fit_users(users, likes)
    model._built_index = None
    ids, scores = model.recommend([7, 12], k=4)
    pairs = [(7, int(ids[0, 0])), (12, int(ids[1, 3])), (7, int(likes[[7]].indices[0]))]
    for user, item in [*pairs, (9, 85), (9, 80)]:
        why = model.explain(user, item)
        assert sum(why.contributions.values()) == pytest.approx(why.score, abs=1e-6)
        for name in why.past:
            shares = [share for _, share in why.past[name]]
            assert shares == sorted(shares, reverse=True)
            assert {i for i, _ in why.past[name]} == set(likes[[user]].indices.tolist())
            if name != "als" or not als:  # the bias of an item is of no user's history
                assert why.rest[name] == pytest.approx(0, abs=2e-4)
        assert why.rest["popularity"] == why.contributions["popularity"]
        whole = sum(s for _, s in why.by_item()) + sum(why.rest.values())
        assert whole == pytest.approx(why.score, abs=1e-6)
    assert model.explain(7, pairs[0][1]).score == scores[0, 0]


def test_a_share_is_what_one_item_brings(likes, content):
    """Every modality by its own formula, dense, in float64."""
    model = new_model({"neighbours": 0.6, "text": 0.4}).fit(likes, content)
    user, item = 11, 33
    history = likes[[user]].toarray()[0].astype(np.float64)
    touched = likes.toarray().any(axis=0)
    similarity = model.models_["neighbours"].similarity_.toarray().astype(np.float64)
    text = content["text"].astype(np.float64)
    x = text - text.mean(axis=0)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    why = model.explain(user, item)
    for name, given, inside, weight in (
        ("neighbours", history[:, None] * similarity, touched, 0.6),
        ("text", history[:, None] * (x @ x.T), np.ones(N_ITEMS, bool), 0.4),
    ):
        deviation = given.sum(axis=0)[inside].std()
        shares = weight * (given[:, item] - given[:, inside].mean(axis=1)) / deviation
        assert len(why.past[name]) == (history > 0).sum()
        for j, share in why.past[name]:
            assert share == pytest.approx(shares[j], abs=2e-5)


def test_what_has_no_history_has_no_past(likes, content):
    given = new_model({"text": 1.0}).fit(likes, content, {"text": np.ones((N_USERS, 6))})
    why = given.explain(5, 3)
    assert why.past == {} and why.by_item() == []
    assert sum(why.rest.values()) == pytest.approx(why.score, abs=1e-6)
    nobody = new_model().fit(likes, content).explain(0, 3)
    assert nobody.by_item() == []


def test_an_explanation_prints_what_adds_most():
    past = {"als": [(7, 1.25), (3, 0.5), (9, 0.25), (1, -0.001)], "text": []}
    why = recfuse.fusion.Explanation(2.25, {"als": 2.0, "popularity": 0.25, "text": 0}, {}, past)
    assert str(why).splitlines() == [
        "score 2.250",
        "  als         +2.000  item 7 +1.250, item 3 +0.500, item 9 +0.250",
        "  popularity  +0.250",
        "  text        +0.000",
    ]


@pytest.fixture
def held_out(likes, rng):
    later = likes.copy()
    later.data = np.where(rng.random(likes.nnz) < 0.3, later.data, 0)
    later.eliminate_zeros()
    train = sp.csr_array(likes - later)
    train.eliminate_zeros()
    return train, later


def test_importance_is_the_ndcg_that_is_lost(held_out, content):
    train, later = held_out
    model = new_model().fit(train, content)
    users = np.flatnonzero(np.diff(later.indptr))

    def mean(weights):
        lists, _ = model.recommend(users, k=10, weights=weights)
        return ranking_metrics(lists, later[users], k=10)["ndcg@10"]

    found = model.modality_importance(later, k=10)
    assert [one.modality for one in found] != list(WEIGHTS)
    assert sorted(one.modality for one in found) == sorted(WEIGHTS)
    assert [one.loss for one in found] == sorted((one.loss for one in found), reverse=True)
    for one in found:
        rest = {name: w for name, w in WEIGHTS.items() if name != one.modality}
        assert one.ndcg == pytest.approx(mean(rest))
        assert one.loss == pytest.approx(mean(WEIGHTS) - mean(rest))
        per_user = [
            [
                ranking_metrics(row[None], later[[u]], k=10)["ndcg@10"]
                for u, row in zip(users, lists, strict=True)
            ]
            for lists in (model.recommend(users, k=10, weights=w)[0] for w in (WEIGHTS, rest))
        ]
        differences = np.subtract(*per_user)
        error = np.std(differences, ddof=1) / np.sqrt(len(users))
        assert one.standard_error == pytest.approx(error)


def test_elimination_leaves_what_tells_most(held_out, content, rng):
    train, later = held_out
    content = {"text": content["text"], "noise": normal(rng, N_ITEMS, 5)}
    weights = {"text": 0.5, "noise": 1.0, "popularity": 0.1}
    model = new_model(weights).fit(train, content)
    steps = model.recursive_modality_elimination(later, k=10)
    assert [len(step.kept) for step in steps] == [3, 2, 1]
    assert steps[0].kept == ("text", "noise", "popularity") and steps[0].removed is None
    assert steps[2].kept == ("text",)
    users = np.flatnonzero(np.diff(later.indptr))
    for before, after in pairwise(steps):
        tried = {}
        for name in before.kept:
            rest = {other: weights[other] for other in before.kept if other != name}
            lists, _ = model.recommend(users, k=10, weights=rest)
            tried[name] = ranking_metrics(lists, later[users], k=10)["ndcg@10"]
        assert after.removed == max(tried, key=tried.get)
        assert after.ndcg == pytest.approx(tried[after.removed])
        assert set(before.kept) - set(after.kept) == {after.removed}
    losses = {one.modality: one for one in model.modality_importance(later, k=10)}
    assert losses["text"].loss > 2 * losses["text"].standard_error
    assert losses["noise"].loss < losses["text"].loss


def test_importance_needs_new_events(likes, content):
    model = new_model().fit(likes, content)
    for method in (model.modality_importance, model.recursive_modality_elimination):
        with pytest.raises(ValueError, match="test must have at least 1 event that is new; got 0"):
            method(likes)
        with pytest.raises(ValueError, match=r"test must have shape \(60, 90\)"):
            method(likes[:5])
    with pytest.raises(NotFittedError):
        new_model().modality_importance(likes)


def test_diverse_lists_are_mmr_on_the_longer_ones(likes, content):
    model = new_model().fit(likes, content)
    users = np.arange(5, 30)
    ids, scores, parts = model.recommend(users, k=40, contributions=True)
    x = {}
    for name, vectors in content.items():
        here = vectors.any(axis=1)
        x[name] = np.where(here[:, None], vectors - vectors[here].mean(axis=0), 0)
    weights = {name: WEIGHTS[name] for name in content}
    expected = mmr(ids, scores, x, 10, trade_off=0.6, weights=weights)
    got = model.recommend(users, k=10, diversity=0.4, depth=40, contributions=True)
    assert_same_bytes(got[:2], expected)
    assert not np.array_equal(got[0], ids[:, :10])
    for row in range(len(users)):
        at = [ids[row].tolist().index(i) for i in got[0][row]]
        np.testing.assert_array_equal(got[2][row], parts[row, at])
    with pytest.raises(ValueError, match=r"recommend: diversity must be in \[0, 1\]; got 2"):
        model.recommend(users, diversity=2)
    behaviour = new_model({"als": 1.0}).fit(likes)  # no content: by factors
    ids, scores = behaviour.recommend(users, k=40)
    factors = behaviour.models_["als"].item_factors_
    expected = mmr(ids, scores, factors, 10, trade_off=0.6)
    np.testing.assert_array_equal(
        behaviour.recommend(users, k=10, diversity=0.4, depth=40)[0], expected[0]
    )
