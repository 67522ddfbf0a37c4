"""An evaluation by ranks: the numbers of the one by lists, on every screen and device."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

import recfuse
from recfuse.evaluation import evaluate, evaluate_ranks
from recfuse.evaluation._lists import auc_of_ranks

oracle = pytest.importorskip("sklearn.metrics")

N_USERS, N_ITEMS = 60, 90
HITS = ("precision", "recall", "f1", "hit_rate", "map", "ndcg", "mrr")


def matrices(rng):
    train = sp.csr_array((rng.random((N_USERS, N_ITEMS)) < 0.15).astype(np.float32))
    test = sp.csr_array((rng.random((N_USERS, N_ITEMS)) < 0.08).astype(np.float32))
    test = test.tolil()
    test[3] = 0  # a user without test items
    test[4] = train[[4]].toarray()  # one who has seen them all
    return train, sp.csr_array(test)


def fitted(train, rng, *, biases=False):
    """Factors of few whole numbers: ties everywhere; a user of zeros; items that are not ranked."""
    objective = "explicit" if biases else "implicit"
    model = recfuse.AlternatingLeastSquares(
        4, objective=objective, biases=biases, iterations=1, random_state=0
    )
    model.fit(train)
    model.user_factors_ = rng.integers(-1, 2, (N_USERS, 4)).astype(np.float32)
    model.item_factors_ = rng.integers(-1, 2, (N_ITEMS, 4)).astype(np.float32)
    model.user_factors_[7] = 0
    model.item_factors_[::17] = np.nan
    return model


class Lists:
    """The same model, of which only lists can be had."""

    def __init__(self, model):
        self.model = model

    def recommend(self, user_ids, k, *, user_items):
        return self.model.recommend(user_ids, k, user_items=user_items)


def assert_same(got, expected):
    assert list(got) == list(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(got[name], values, err_msg=name)


@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize("exclude_seen", [True, False])
def test_ranks_give_the_numbers_of_lists(screen, rng, exclude_seen, biases):
    train, test = matrices(rng)
    model = fitted(train, rng, biases=biases)
    options = {"k": [1, 5, 20, 1000], "exclude_seen": exclude_seen}
    lists = evaluate(Lists(model), train, test, auc=True, **options)
    assert_same(evaluate(model, train, test, auc=True, **options).means, lists.means)
    ranks = evaluate_ranks(model, train, test, batch_size=17, **options)
    names = [*(f"{name}@{k}" for name in HITS for k in options["k"]), "auc"]
    assert_same(ranks.per_user, {name: lists.per_user[name] for name in names})
    np.testing.assert_array_equal(ranks.user_ids, lists.user_ids)
    assert (ranks.n_skipped, ranks.n_seen_left_out) == (lists.n_skipped, lists.n_seen_left_out)
    assert not ranks.coverage and not ranks.gini and "auc" in repr(ranks)


def test_auc_matches_scikit_learn(screen, rng):
    train, test = matrices(rng)
    model = fitted(train, rng)
    model.item_factors_[::17] = 1
    result = evaluate_ranks(model, train, test)
    scores = model.user_factors_ @ model.item_factors_.T
    for user, value in zip(result.user_ids, result.per_user["auc"], strict=True):
        rows = [matrix[[user]].toarray()[0] > 0 for matrix in (train, test)]
        others = ~rows[0]
        expected = oracle.roc_auc_score(rows[1][others], scores[user, others])
        assert value == pytest.approx(expected, rel=1e-12)


def test_the_auc_of_ranks_by_hand():
    # Scores 3, 2, 2, 1 of items 0 ... 3, and 4 without one; the first user's test: 1, 3 and 4.
    index = recfuse.FusedIndex({"x": [[3.0], [2], [2], [1], [np.nan]]}, metric="dot")
    truth = sp.csr_array([[0.0, 1, 0, 1, 1], [1, 0, 0, 0, 0]])
    ranks = index.rank_pairs({"x": [[1.0], [1.0]]}, truth)
    # Of the negatives 0 and 2, item 1 loses to one and ties with the other; 3 and 4 lose to both.
    assert auc_of_ranks(ranks, truth, np.array([5, 5])).tolist() == [0.5 / 6, 1.0]


def test_the_result_does_not_depend_on_batches(monkeypatch, rng):
    train, test = matrices(rng)
    model = fitted(train, rng)
    whole = evaluate_ranks(model, train, test, k=7).to_dict()
    monkeypatch.setattr("recfuse.evaluation._ranking._SCORES_PER_REQUEST", 50)
    assert evaluate_ranks(model, train, test, k=7).to_dict() == whole


def test_some_users_and_wrong_arguments(rng):
    train, test = matrices(rng)
    model = fitted(train, rng)
    some = evaluate_ranks(model, train, test, user_ids=[9, 3, 5])
    assert some.user_ids.tolist() == [9, 5]
    assert some.n_skipped == 1
    with pytest.raises(TypeError, match=r"^evaluate_ranks: model must have a method rank_items"):
        evaluate_ranks(recfuse.Popularity().fit(train), train, test)
    with pytest.raises(ValueError, match=r"^evaluate_ranks: batch_size must be at least 1"):
        evaluate_ranks(model, train, test, batch_size=0)
    with pytest.raises(ValueError, match=r"at least one user; got none"):
        evaluate_ranks(model, train, sp.csr_array(test.shape))
    with pytest.raises(ValueError, match=r"^rank_items: items must have shape \(1, 90\)"):
        model.rank_items(0, test)
    with pytest.raises(IndexError, match="user_ids must be in"):
        model.rank_items(N_USERS, test[[0]])
