from __future__ import annotations

import json
import math

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

import reference_metrics as reference
from recfuse.evaluation import (
    Split,
    compare,
    evaluate,
    mae,
    ranking_metrics,
    rmse,
    user_time_split,
)
from recfuse.interactions import Interactions

PER_USER = ("precision", "recall", "f1", "hit_rate", "map", "ndcg", "mrr")


def random_case(seed, n_users=30, n_items=15, n_ranks=15, density=0.2):
    """Rankings with padding at the end, a test matrix with empty rows, popularity with zeros."""
    rng = np.random.default_rng(seed)
    ids = np.array([rng.permutation(n_items)[:n_ranks] for _ in range(n_users)], np.int32)
    length = rng.integers(0, n_ranks + 1, n_users)
    ids[np.arange(n_ranks) >= length[:, None]] = -1
    test = sp.csr_array((rng.random((n_users, n_items)) < density).astype(np.float32))
    return ids, test, rng.integers(0, 5, n_items)


def relevant_sets(test):
    return [set(np.flatnonzero(row > 0).tolist()) for row in test.toarray()]


class Ranker:
    """A model with fixed scores; notes what it was asked."""

    def __init__(self, scores):
        self.scores = np.asarray(scores, np.float64)
        self.calls = []

    def recommend(self, user_ids, k=10, *, user_items=None, exclude=None, allow=None):
        self.calls.append((user_ids, k, user_items))
        scores = self.scores[user_ids].copy()
        if user_items is not None:
            scores[user_items.toarray() != 0] = -np.inf
        ids = np.argsort(-scores, axis=1, kind="stable")[:, :k].astype(np.int32)
        best = np.take_along_axis(scores, ids, axis=1).astype(np.float32)
        return np.where(np.isneginf(best), -1, ids), best


def random_matrices(seed, n_users=40, n_items=20):
    rng = np.random.default_rng(seed)
    draw = rng.random((n_users, n_items))
    train = sp.csr_array((draw < 0.2).astype(np.float32))
    test = sp.csr_array(((draw >= 0.2) & (draw < 0.3)).astype(np.float32))
    return train, test, rng.random((n_users, n_items))


# --- definitions


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("k", [1, 2, 7, 15, 40])  # 40: more than the catalogue
def test_metrics_match_the_loops(seed, k):
    ids, test, popularity = random_case(seed, density=0.1)
    result = ranking_metrics(ids, test, k=k, train_popularity=popularity)
    relevant = relevant_sets(test)
    means, errors = reference.of_users(ids.tolist(), relevant, k, popularity.tolist(), 15)
    assert set(result.names) == set(means)
    for name, value in means.items():
        np.testing.assert_allclose(result[f"{name}@{k}"], value, rtol=1e-12, err_msg=name)
    for name, value in errors.items():
        np.testing.assert_allclose(
            result.standard_errors[f"{name}@{k}"], value, rtol=1e-9, err_msg=name
        )
    assert result.n_users == sum(map(bool, relevant))
    assert result.n_skipped == 30 - result.n_users > 0
    for row, user in enumerate(result.user_ids):
        of_one = reference.of_user(ids[user].tolist(), relevant[user], k)
        for name in PER_USER:
            np.testing.assert_allclose(result.per_user[f"{name}@{k}"][row], of_one[name], 1e-12)


def test_one_user_by_hand():
    test = sp.csr_array(np.array([[1, 0, 1, 1, 0, 0]]))
    result = ranking_metrics([[4, 2, -1, 0, 5]], test, k=4)  # hits at ranks 2 and 4
    assert result["precision@4"] == 2 / 4
    assert result["recall@4"] == 2 / 3
    assert result["f1@4"] == pytest.approx(4 / 7)
    assert result["hit_rate@4"] == 1
    assert result["map@4"] == pytest.approx((1 / 2 + 2 / 4) / 3)
    assert result["mrr@4"] == 1 / 2
    dcg, ideal = 1 / math.log2(3) + 1 / math.log2(5), 1 + 1 / math.log2(3) + 1 / 2
    assert result["ndcg@4"] == pytest.approx(dcg / ideal)
    assert result["coverage@4"] == 3 / 6
    assert "novelty@4" not in result.means
    assert math.isnan(result.standard_errors["ndcg@4"])


def test_f1_without_hits_is_zero():
    assert ranking_metrics([[1]], sp.csr_array([[1.0, 0.0]]), k=1)["f1@1"] == 0


def test_ndcg_agrees_with_scikit_learn():
    rng = np.random.default_rng(3)
    scores = rng.permuted(np.tile(np.arange(25.0), (20, 1)), axis=1)  # no ties
    truth = (rng.random((20, 25)) < 0.2).astype(float)
    truth[:, 3] = 1
    ids = np.argsort(-scores, axis=1)
    result = ranking_metrics(ids, sp.csr_array(truth), k=[5, 10])
    for k in (5, 10):
        assert result[f"ndcg@{k}"] == pytest.approx(ndcg_score(truth, scores, k=k), rel=1e-12)


def test_novelty_of_unseen_items_is_that_of_the_least_popular():
    test = sp.csr_array(np.array([[1, 0, 0], [1, 0, 0], [1, 0, 0]]))
    ids = [[0, -1], [1, 2], [-1, -1]]
    result = ranking_metrics(ids, test, k=2, train_popularity=[6, 2, 0])
    np.testing.assert_allclose(
        result.per_user["novelty@2"], [-np.log2(6 / 8), -np.log2(2 / 8), np.nan]
    )
    assert result["novelty@2"] == pytest.approx((-np.log2(6 / 8) + 2) / 2)
    nobody = ranking_metrics([[-1]], sp.csr_array([[1.0]]), k=1, train_popularity=[1])
    assert math.isnan(nobody["novelty@1"])
    assert nobody.to_dict()["means"]["novelty@1"] is None


def test_only_values_above_zero_are_relevant():
    test = sp.csr_array((np.array([0.0, -1.0, 2.0]), ([0, 0, 0], [0, 1, 2])), shape=(1, 3))
    result = ranking_metrics([[0, 1, 2]], test, k=[2, 3])
    assert (result["recall@2"], result["recall@3"]) == (0, 1)


def test_the_catalogue_may_be_larger_or_smaller_than_the_columns():
    test = sp.csr_array(np.array([[1, 0, 0, 0]]))
    assert ranking_metrics([[0, 1]], test, k=2, n_items=100)["coverage@2"] == 0.02
    assert ranking_metrics([[0, 1]], test, k=2, n_items=2)["coverage@2"] == 1
    with pytest.raises(
        ValueError, match="n_items must be at least the number of items recommended, 2; got 1"
    ):
        ranking_metrics([[0, 1]], test, k=2, n_items=1)


# --- laws

cases = st.builds(
    random_case,
    st.integers(0, 2**32),
    n_users=st.integers(1, 12),
    n_items=st.just(8),
    n_ranks=st.integers(1, 8),
    density=st.sampled_from([0.1, 0.5, 1.0]),
).filter(lambda case: case[1].nnz > 0)


@given(cases)
@settings(deadline=None)
def test_metrics_are_shares(case):
    ids, test, popularity = case
    ks = range(1, ids.shape[1] + 1)
    result = ranking_metrics(ids, test, k=ks, train_popularity=popularity + 1)
    for name, mean in result.means.items():
        if "novelty" in name:
            assert mean >= 0 or math.isnan(mean)
        elif "gini" in name:
            assert 0 <= mean <= 1 or math.isnan(mean)  # nothing was recommended
        else:
            assert 0 <= mean <= 1, name
    for name in ("recall", "hit_rate", "mrr", "coverage"):  # these never fall with k
        by_k = [result[f"{name}@{k}"] for k in ks]
        assert by_k == sorted(by_k)


@given(cases)
@settings(deadline=None)
def test_several_cutoffs_are_the_metrics_of_each_and_of_the_cut_lists(case):
    ids, test, popularity = case
    ks = range(1, ids.shape[1] + 1)
    together = ranking_metrics(ids, test, k=ks, train_popularity=popularity + 1)
    for k in ks:
        alone = ranking_metrics(ids, test, k=k, train_popularity=popularity + 1)
        ids_after = ids.copy()
        ids_after[:, k:] = -1
        cut = ranking_metrics(ids_after, test, k=ks, train_popularity=popularity + 1)
        for name, values in alone.per_user.items():
            np.testing.assert_array_equal(values, together.per_user[name])
            np.testing.assert_array_equal(values, cut.per_user[name])
        assert alone[f"coverage@{k}"] == together[f"coverage@{k}"] == cut[f"coverage@{k}"]


@given(cases, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_the_order_of_users_and_the_names_of_items_do_not_matter(case, random):
    ids, test, popularity = case
    result = ranking_metrics(ids, test, k=ids.shape[1], train_popularity=popularity + 1)
    users = random.sample(range(len(ids)), len(ids))
    items = np.array(random.sample(range(8), 8))  # the new name of each item
    renamed = np.where(ids[users] < 0, -1, items[ids[users]])
    moved = sp.csr_array(test.toarray()[users][:, np.argsort(items)])
    again = ranking_metrics(
        renamed, moved, k=ids.shape[1], train_popularity=(popularity + 1)[np.argsort(items)]
    )
    back = np.argsort(np.array(users)[again.user_ids])
    for name, values in result.per_user.items():
        np.testing.assert_array_equal(values, again.per_user[name][back], err_msg=name)
    assert result.coverage == again.coverage


@given(cases)
@settings(deadline=None)
def test_a_perfect_ranking_gives_one(case):
    _, test, _ = case
    ideal = np.argsort(-test.toarray(), axis=1, kind="stable")
    result = ranking_metrics(ideal, test, k=range(1, 9))
    for name in ("map", "ndcg", "mrr", "hit_rate"):
        for k in range(1, 9):
            assert (result.per_user[f"{name}@{k}"] == 1).all(), (name, k)
    assert result["recall@8"] == 1
    n_test = np.diff(test.indptr)[result.user_ids]
    np.testing.assert_array_equal(result.per_user["precision@1"], 1)
    np.testing.assert_array_equal(result.per_user["precision@8"], n_test / 8)


def test_the_size_of_a_step_does_not_change_a_bit(monkeypatch):
    ids, test, popularity = random_case(1)
    expected = ranking_metrics(ids, test, k=5, train_popularity=popularity).to_dict()
    monkeypatch.setattr("recfuse.evaluation.metrics._ROWS_PER_STEP", 7)
    assert ranking_metrics(ids, test, k=5, train_popularity=popularity).to_dict() == expected


def test_every_container_gives_the_same():
    ids, test, popularity = random_case(0)
    expected = ranking_metrics(ids, test, k=5, train_popularity=popularity).to_dict()
    ids.flags.writeable = False
    test.data.flags.writeable = test.indices.flags.writeable = False
    doubled = sp.coo_array(
        (np.ones(2 * test.nnz), (np.tile(test.nonzero()[0], 2), np.tile(test.nonzero()[1], 2))),
        shape=test.shape,
    )
    for same_ids in (ids, ids.tolist(), np.asfortranarray(ids), ids.astype(np.int64)):
        assert (
            ranking_metrics(same_ids, test, k=5, train_popularity=popularity).to_dict() == expected
        )
    for same_test in (test.tocsc(), test.tocoo(), sp.csr_matrix(test), test.astype(bool), doubled):
        assert (
            ranking_metrics(ids, same_test, k=5, train_popularity=popularity).to_dict() == expected
        )


# --- evaluate


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_evaluate_asks_the_model_and_matches_the_loops(exclude_seen):
    train, test, scores = random_matrices(1)
    model = Ranker(scores)
    result = evaluate(model, train, test, k=[3, 6], exclude_seen=exclude_seen, batch_size=7)
    allowed = scores - (2 * (train.toarray() > 0) if exclude_seen else 0)
    rankings = np.argsort(-allowed, axis=1, kind="stable").tolist()
    popularity = (train.toarray() > 0).sum(axis=0).tolist()
    for k in (3, 6):
        means, errors = reference.of_users(rankings, relevant_sets(test), k, popularity, 20)
        for name, value in means.items():
            np.testing.assert_allclose(result[f"{name}@{k}"], value, rtol=1e-12, err_msg=name)
        for name, value in errors.items():
            np.testing.assert_allclose(result.standard_errors[f"{name}@{k}"], value, rtol=1e-9)
    with_items = np.flatnonzero(np.diff(test.indptr))
    np.testing.assert_array_equal(np.concatenate([c[0] for c in model.calls]), with_items)
    assert {c[1] for c in model.calls} == {6}
    assert max(len(c[0]) for c in model.calls) == 7
    for user_ids, _, rows in model.calls:
        if exclude_seen:
            np.testing.assert_array_equal(rows.toarray(), train.toarray()[user_ids])
        else:
            assert rows is None


def test_batches_do_not_change_a_bit():
    train, test, scores = random_matrices(2)
    results = [
        evaluate(Ranker(scores), train, test, k=5, batch_size=b).to_dict() for b in (1, 3, 1000)
    ]
    assert results[0] == results[1] == results[2]


def test_a_function_and_a_bound_method_are_models():
    train, test, scores = random_matrices(2)
    model = Ranker(scores)
    expected = evaluate(model, train, test, k=5).to_dict()
    assert evaluate(model.recommend, train, test, k=5).to_dict() == expected
    assert (
        evaluate(
            lambda user_ids, k, user_items: model.recommend(user_ids, k, user_items=user_items),
            train,
            test,
            k=5,
        ).to_dict()
        == expected
    )


def test_interactions_and_matrices_give_the_same():
    train, test, scores = random_matrices(4)
    parts = [
        Interactions.from_arrays(*m.nonzero(), user_labels=np.arange(40), item_labels=np.arange(20))
        for m in (train, test)
    ]
    expected = evaluate(Ranker(scores), train, test, k=5).to_dict()
    assert evaluate(Ranker(scores), *parts, k=5).to_dict() == expected


def test_chosen_users_only():
    train, test, scores = random_matrices(5)
    everyone = evaluate(Ranker(scores), train, test, k=4)
    chosen = [int(everyone.user_ids[3]), int(everyone.user_ids[0])]
    some = evaluate(Ranker(scores), train, test, k=4, user_ids=chosen)
    assert some.user_ids.tolist() == chosen
    without_items = int(np.setdiff1d(np.arange(40), everyone.user_ids)[0])
    one_skipped = evaluate(Ranker(scores), train, test, k=4, user_ids=[*chosen, without_items])
    assert (some.n_skipped, one_skipped.n_skipped, one_skipped.n_users) == (0, 1, 2)
    for name, values in everyone.per_user.items():
        np.testing.assert_array_equal(some.per_user[name], values[[3, 0]])


def test_users_without_test_items_are_skipped_and_counted():
    train = sp.csr_array(np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0]]))
    test = sp.csr_array(np.array([[0, 1, 0], [0, 0, 0], [0, 0, 1]]))
    model = Ranker(np.tile([0.1, 0.3, 0.2], (3, 1)))
    result = evaluate(model, train, test, k=1)
    assert (result.n_users, result.n_skipped) == (2, 1)
    assert result.user_ids.tolist() == [0, 2]
    assert result["recall@1"] == 0.5


def test_users_without_training_items_are_evaluated():
    train = sp.csr_array(np.array([[0, 0], [1, 0]]))
    test = sp.csr_array(np.array([[1, 0], [0, 1]]))
    result = evaluate(Ranker([[0.9, 0.1], [0.9, 0.1]]), train, test, k=1)
    assert result.per_user["recall@1"].tolist() == [1, 1]


def test_without_any_training_there_is_no_novelty():
    test = sp.csr_array(np.array([[1, 0], [0, 1]]))
    result = evaluate(Ranker(np.eye(2)), sp.csr_array((2, 2)), test, k=1)
    assert result["recall@1"] == 1
    assert "novelty@1" not in result.means


def test_test_items_seen_in_training_are_left_out_and_counted():
    train = sp.csr_array(np.array([[1, 0, 0], [1, 1, 0]]))
    test = sp.csr_array(np.array([[1, 1, 0], [1, 1, 0]]))  # user 1 has seen all of them
    model = Ranker([[0.9, 0.5, 0.1], [0.9, 0.5, 0.1]])
    result = evaluate(model, train, test, k=1)
    assert (result.n_users, result.n_skipped, result.n_seen_left_out) == (1, 1, 3)
    assert result["recall@1"] == 1
    assert "3 test items seen in training left out" in repr(result)
    kept = evaluate(model, train, test, k=1, exclude_seen=False)
    assert (kept.n_users, kept.n_skipped, kept.n_seen_left_out) == (2, 0, 0)
    assert kept["recall@1"] == 0.5


@pytest.mark.parametrize("k", [20, 21, 1000, 2**31, 2**63])
def test_k_beyond_the_catalogue_asks_for_the_catalogue(k):
    train, test, scores = random_matrices(6)
    model = Ranker(scores)
    result = evaluate(model, train, test, k=k, exclude_seen=False)
    assert {c[1] for c in model.calls} == {20}
    assert result[f"recall@{k}"] == result[f"coverage@{k}"] == 1
    n_test = np.diff(test.indptr)[result.user_ids]
    np.testing.assert_allclose(result.per_user[f"precision@{k}"], n_test / k)


def test_progress_goes_to_standard_error(capsys):
    train, test, scores = random_matrices(6)
    evaluate(Ranker(scores), train, test, k=2, show_progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "evaluate" in err


# --- tables


def test_every_table_names_the_split():
    train, test, scores = random_matrices(7)
    named = repr(evaluate(Ranker(scores), train, test, k=[2, 5], split="by hand"))
    assert named.splitlines()[0] == "split: by hand"
    assert "@2" in named and "@5" in named
    assert "not named" in repr(evaluate(Ranker(scores), train, test, k=2)).splitlines()[0]
    assert "not named" in repr(ranking_metrics([[0]], sp.csr_array([[1.0]]), k=1)).splitlines()[0]


def small_split():
    events = Interactions.from_arrays(
        [1, 1, 1, 2, 2, 2, 3], [7, 8, 9, 8, 7, 9, 7], timestamps=[1, 2, 3, 1, 2, 3, 1]
    )
    return user_time_split(events, n_test=1)


def test_compare_shows_models_side_by_side():
    split = small_split()
    good, bad = (
        Ranker(np.tile([0.1, 0.2, 0.3], (3, 1))),
        Ranker(np.tile([0.3, 0.2, -np.inf], (3, 1))),
    )
    table = compare({"good": good, "bad": bad}, split, k=iter([2, 1]))
    lines = repr(table).splitlines()
    assert lines[0] == f"split: {split.name}"
    assert lines[1] == "2 users, 1 without test items skipped"
    assert lines[2].split() == ["model", "k", *PER_USER, "novelty", "coverage", "gini"]
    assert lines[3].split()[:4] == ["good", "1", "1.0000", "1.0000"]
    assert len({len(line) for line in lines[2:]}) == 1  # aligned
    rows = table.rows
    assert [(row["model"], row["k"]) for row in rows] == [
        ("good", 1), ("good", 2), ("bad", 1), ("bad", 2),
    ]  # fmt: skip
    assert rows[0]["ndcg"] == 1 and rows[2]["ndcg"] == 0
    assert json.loads(json.dumps(table.to_dict()))["models"]["good"]["means"]["recall@1"] == 1
    assert table.to_dict()["split"] == split.name == table.results["bad"].split
    narrow = table.to_text(["recall", "coverage"], standard_errors=True).splitlines()
    assert narrow[2].split() == ["model", "k", "recall", "coverage"]
    assert narrow[3].split() == ["good", "1", "1.0000", "±", "0.0000", "0.3333"]
    with pytest.raises(ValueError, match=r"metrics must be among .* got 'auc'"):
        table.to_text(["auc"])


def test_a_metric_that_does_not_exist():
    result = ranking_metrics([[0]], sp.csr_array([[1.0]]), k=1)
    with pytest.raises(KeyError, match=r"name must be one of .*ndcg@1.* got 'ndcg@2'"):
        result["ndcg@2"]


# --- wrong arguments of the rankings

TEST = sp.csr_array(np.array([[1.0, 0, 0], [0, 1, 1]]))
IDS = [[0, 1], [2, 0]]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"k": 0}, ValueError, "k must be at least 1; got 0"),
        ({"k": -1}, ValueError, "k must be at least 1; got -1"),
        ({"k": 1.0}, TypeError, "k must be an integer; got float"),
        ({"k": True}, TypeError, "k must be an integer; got bool"),
        ({"k": "2"}, TypeError, "k must be an integer; got str"),
        ({"k": None}, TypeError, "k must be an integer; got NoneType"),
        ({"k": []}, ValueError, r"k must be one or several different numbers; got \[\]"),
        ({"k": [1, 2, 1]}, ValueError, r"several different numbers; got \[1, 2, 1\]"),
        ({"k": 3}, ValueError, r"ids must have shape \(2, >= 3\).*got \(2, 2\)"),
        ({"ids": [[0, 1]]}, ValueError, r"one row per row of test, 2; got \(1, 2\)"),
        ({"ids": [0, 1]}, ValueError, r"ids must have shape \(n_users, >= k\).*got \(2,\)"),
        ({"ids": [[0.0, 1.0], [2.0, 0.0]]}, TypeError, "ids must be integers; got dtype float64"),
        ({"ids": [["a", "b"], ["c", "d"]]}, TypeError, "ids must be integers; got dtype <U1"),
        ({"ids": [[0, 3], [2, 0]]}, IndexError, r"ids must be in \[-1, 3\); got 3"),
        ({"ids": [[0, -2], [2, 0]]}, IndexError, r"ids must be in \[-1, 3\); got -2"),
        ({"ids": [[0, 1], [2, 2]]}, ValueError, "no item twice in a row; got 2"),
        ({"test": TEST.toarray()}, TypeError, "test must be a SciPy sparse matrix"),
        ({"test": TEST * np.inf}, ValueError, "test must hold finite values; got inf"),
        ({"test": sp.csr_array((2, 3))}, ValueError, "test must have a relevant item"),
        ({"test": -TEST}, ValueError, "test must have a relevant item"),
        ({"n_items": 0}, ValueError, "n_items must be at least 1; got 0"),
        ({"n_items": 3.0}, TypeError, "n_items must be an integer; got float"),
        ({"train_popularity": [1, 2]}, ValueError, r"shape \(3,\).*got \(2,\)"),
        ({"train_popularity": [1, -2, 1]}, ValueError, "at least 0; got -2.0"),
        ({"train_popularity": [1, np.nan, 1]}, ValueError, "finite and at least 0; got nan"),
        ({"train_popularity": [0, 0, 0]}, ValueError, "above 0 somewhere; got zeros only"),
        ({"train_popularity": ["a", "b", "c"]}, TypeError, "must hold numbers; got dtype <U1"),
    ],
)
def test_wrong_rankings(change, error, message):
    arguments = {"ids": IDS, "test": TEST, "k": 2, **change}
    with pytest.raises(error, match=f"^ranking_metrics: .*{message}"):
        ranking_metrics(arguments.pop("ids"), arguments.pop("test"), **arguments)


def answer(ids, scores=None):
    return lambda user_ids, k, user_items: (np.array(ids), scores)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"model": 7}, TypeError, "model must have a method recommend or be callable; got int"),
        ({"model": lambda *a, **k: 1}, TypeError, r"must return \(ids, scores\); got int"),
        (
            {"model": lambda *a, **k: (1, 2, 3)},
            TypeError,
            r"must return \(ids, scores\); got tuple",
        ),
        ({"model": answer([[1.0], [0.0]])}, TypeError, "ids from recommend must be integers"),
        ({"model": answer([[1]])}, ValueError, r"must have shape \(2, >= 1\).*got \(1, 1\)"),
        ({"model": answer([1, 0])}, ValueError, r"must have shape \(2, >= 1\).*got \(2,\)"),
        ({"model": answer([[1], [3]])}, IndexError, r"recommend must be in \[-1, 3\); got 3"),
        ({"model": answer([[0, 1], [1, 1]]), "k": 2}, ValueError, "item twice in a row; got 1"),
        ({"train": np.eye(2, 3)}, TypeError, "train must be a SciPy sparse matrix"),
        ({"train": sp.csr_array((2, 4))}, ValueError, r"shape of train, \(2, 4\); got \(2, 3\)"),
        ({"train": sp.csr_array((3, 3))}, ValueError, r"shape of train, \(3, 3\); got \(2, 3\)"),
        ({"test": TEST * np.nan}, ValueError, "test must hold finite values; got nan"),
        ({"test": sp.csr_array((2, 3))}, ValueError, "relevant item for at least one user"),
        ({"train": TEST}, ValueError, "relevant item for at least one user"),
        ({"k": 0}, ValueError, "k must be at least 1; got 0"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1; got 0"),
        ({"batch_size": 2.5}, TypeError, "batch_size must be an integer; got float"),
        ({"user_ids": [2]}, IndexError, r"user_ids must be in \[0, 2\); got 2"),
        ({"user_ids": [-1]}, IndexError, r"user_ids must be in \[0, 2\); got -1"),
        ({"user_ids": [True, False]}, TypeError, "user_ids must be integers; got dtype bool"),
        ({"user_ids": [0.0]}, TypeError, "user_ids must be integers; got dtype float64"),
        ({"user_ids": [1, 0, 1]}, ValueError, "user_ids must not repeat; got 1 twice"),
        ({"user_ids": []}, ValueError, "relevant item for at least one user"),
    ],
)
def test_wrong_evaluations(change, error, message):
    model = Ranker(np.ones((2, 3)))
    arguments = {"model": model, "train": sp.csr_array((2, 3)), "test": TEST, "k": 1, **change}
    positional = [arguments.pop(name) for name in ("model", "train", "test")]
    with pytest.raises(error, match=f"^evaluate: .*{message}"):
        evaluate(*positional, **arguments)


def test_train_and_test_with_other_labels():
    a = Interactions.from_arrays([1, 2], [5, 6])
    b = Interactions.from_arrays([1, 3], [5, 6])
    c = Interactions.from_arrays([1, 2], [6, 5])
    for other, space in ((b, "users"), (c, "items")):
        with pytest.raises(ValueError, match=f"^evaluate: .*same {space} in the same order"):
            evaluate(Ranker(np.eye(2)), a, other, k=1)


def test_wrong_comparisons():
    split = small_split()
    with pytest.raises(
        TypeError, match=r"compare: models must be a mapping name -> model, or a sequence.*got int"
    ):
        compare(7, split)
    with pytest.raises(ValueError, match="compare: models must not be empty"):
        compare({}, split)
    with pytest.raises(TypeError, match="compare: split must be a Split; got tuple"):
        compare({"a": Ranker(np.eye(3))}, (split.train, split.test))
    with pytest.raises(ValueError, match="compare: k must be at least 1; got 0"):
        compare({"a": Ranker(np.eye(3))}, split, k=0)
    assert isinstance(split, Split)


# --- errors of predictions


def test_rmse_and_mae_by_loops():
    rng = np.random.default_rng(0)
    p, a = rng.normal(size=(2, 40)).astype(np.float32)
    errors = [float(x) - float(y) for x, y in zip(p, a, strict=True)]
    assert rmse(p, a) == pytest.approx(math.sqrt(sum(e * e for e in errors) / 40), rel=1e-12)
    assert mae(p, a) == pytest.approx(sum(abs(e) for e in errors) / 40, rel=1e-12)
    assert rmse(p.reshape(5, 8), a.reshape(5, 8)) == pytest.approx(rmse(p, a), rel=1e-12)
    assert rmse(a, a) == mae(a, a) == 0
    assert type(rmse(p, a)) is type(mae(p, a)) is float


def test_unsigned_ratings_do_not_wrap_around():
    assert mae(np.array([1], np.uint8), np.array([5], np.uint8)) == 4


@pytest.mark.parametrize("metric", [rmse, mae])
@pytest.mark.parametrize(
    ("predicted", "actual", "error", "message"),
    [
        ([], [], ValueError, "predicted must not be empty"),
        ([1, 2], [1], ValueError, r"predicted must have the shape of actual, \(1,\); got \(2,\)"),
        ([[1], [2]], [1, 2], ValueError, r"shape of actual, \(2,\); got \(2, 1\)"),
        ([np.nan], [1], ValueError, "predicted must be finite; got nan"),
        ([1], [-np.inf], ValueError, "actual must be finite; got -inf"),
        (["1"], [1], TypeError, "predicted must hold real numbers; got dtype <U1"),
        ([1j], [1], TypeError, "predicted must hold real numbers; got dtype complex128"),
        ([1], [None], TypeError, "actual must hold real numbers; got dtype object"),
        (np.ma.array([1.0], mask=[1]), [1], TypeError, "real numbers; got a masked array"),
    ],
)
def test_wrong_predictions(metric, predicted, actual, error, message):
    with pytest.raises(error, match=f"^{metric.__name__}: .*{message}"):
        metric(predicted, actual)
