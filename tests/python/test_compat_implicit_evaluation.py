"""recfuse.compat.implicit: splits, and metrics by their definitions, a user at a time."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from compat_data import random_plays
from recfuse.compat.implicit import evaluation
from recfuse.compat.implicit.evaluation import (
    AUC_at_k,
    leave_k_out_split,
    mean_average_precision_at_k,
    ndcg_at_k,
    precision_at_k,
    ranking_metrics_at_k,
    train_test_split,
)


class Fixed:
    """Recommends given lists, and looks at what it is asked."""

    def __init__(self, ids):
        self.ids = ids

    def recommend(self, userid, user_items, N=10):
        assert user_items.shape[0] == len(userid)
        return self.ids[userid, :N], None


def metrics_of(ids, test, k):
    """One user after the other, one place after the other."""
    hits = possible = 0.0
    precisions, gains, areas = [], [], []
    for user in range(test.shape[0]):
        liked = set(test[[user]].indices)
        if not liked:
            continue
        possible += min(k, len(liked))
        found = precision = gain = area = 0.0
        misses = 0
        for place, item in enumerate(ids[user, :k]):
            if item in liked:
                found += 1
                precision += found / (place + 1)
                gain += 1 / math.log2(place + 2)
            else:
                misses += 1
                area += found
        others = test.shape[1] - len(liked)
        area += (found + len(liked)) / 2 * (others - misses)
        hits += found
        precisions.append(precision / min(k, len(liked)))
        gains.append(gain / sum(1 / math.log2(r + 2) for r in range(min(k, len(liked)))))
        areas.append(area / (len(liked) * others) if others else 1.0)
    return {
        "precision": hits / possible,
        "map": np.mean(precisions),
        "ndcg": np.mean(gains),
        "auc": np.mean(areas),
    }


@pytest.mark.parametrize("k", [1, 5, 20])
@pytest.mark.parametrize("batch", [7, 1000])
def test_metrics_are_their_definitions(rng, k, batch, monkeypatch):
    monkeypatch.setattr(evaluation, "_BATCH", batch)
    test = random_plays(rng, (30, 25), density=0.1)
    train = random_plays(rng, (30, 25))
    ids = np.array([rng.permutation(25)[:20] for _ in range(30)], np.int32)
    ids[3, 4:] = -1  # a short list
    model, expected = Fixed(ids), metrics_of(ids, test, k)
    got = ranking_metrics_at_k(model, train, test, K=k, show_progress=False)
    assert got == pytest.approx(expected, rel=1e-12)
    for name, metric in {
        "precision": precision_at_k,
        "map": mean_average_precision_at_k,
        "ndcg": ndcg_at_k,
        "auc": AUC_at_k,
    }.items():
        assert metric(model, train, test.tocoo(), K=k, show_progress=False) == got[name]


def test_metrics_of_the_extremes():
    test = sp.csr_matrix(np.eye(3)[:, [0, 1, 2, 0]] > 1)  # nothing
    train = sp.csr_matrix((3, 4))
    with pytest.raises(ValueError, match="test_user_items must have an entry"):
        ranking_metrics_at_k(Fixed(np.zeros((3, 2), int)), train, test, show_progress=False)
    everything = sp.csr_matrix(np.ones((2, 3)))
    best = ranking_metrics_at_k(
        Fixed(np.array([[0, 1, 2]] * 2)), sp.csr_matrix((2, 3)), everything, 3, False
    )
    assert best == {"precision": 1.0, "map": 1.0, "ndcg": 1.0, "auc": 1.0}


def test_train_test_split_divides_and_repeats(rng):
    ratings = random_plays(rng, (60, 50), low=-2.0)
    train, test = train_test_split(ratings, 0.7, random_state=4)
    assert isinstance(train, sp.csr_matrix) and train.dtype == test.dtype == ratings.dtype
    assert test.data.min() > 0 and not train.multiply(test).nnz
    positive = ratings.maximum(0)
    assert abs(train.maximum(0) + test - positive).nnz == 0
    assert 0.6 < train.nnz / ratings.nnz < 0.8
    again = train_test_split(ratings.tocoo(), 0.7, random_state=4)
    assert abs(again[0] - train).nnz == 0
    drawn = np.random.default_rng(4).random(ratings.nnz)  # what implicit draws
    kept = ratings.tocoo()
    assert train.nnz == (drawn < 0.7).sum()
    assert abs(train[kept.row[0], kept.col[0]] - (kept.data[0] if drawn[0] < 0.7 else 0)) == 0


@pytest.mark.parametrize("k", [1, 3])
def test_leave_k_out_takes_k_of_everybody_who_has_more(rng, k):
    ratings = random_plays(rng, (60, 30), density=0.1)
    train, test = leave_k_out_split(ratings, K=k, random_state=1)
    assert abs(train + test - ratings).nnz == 0  # each as it was, users without enough among them
    assert train.nnz + test.nnz == ratings.nnz
    counts = np.diff(ratings.indptr)
    np.testing.assert_array_equal(np.diff(test.indptr), np.where(counts > k + 1, k, 0))
    again = leave_k_out_split(ratings, K=k, random_state=1)
    assert abs(again[1] - test).nnz == 0  # the seed decides
    assert abs(leave_k_out_split(ratings, K=k, random_state=2)[1] - test).nnz > 0


def test_leave_k_out_takes_every_entry_alike():
    ratings = sp.csr_matrix(np.ones((1, 5)))
    drawn = np.zeros(5)
    for seed in range(500):
        drawn += leave_k_out_split(ratings, K=2, random_state=seed)[1].toarray()[0]
    # 200 each; the deviation of a binomial is 11
    np.testing.assert_allclose(drawn, 200, atol=5 * 11)


def test_leave_k_out_keeps_some_users_for_training(rng):
    ratings = random_plays(rng, (80, 30), density=0.5)
    _, test = leave_k_out_split(ratings, K=1, train_only_size=0.75, random_state=0)
    assert (np.diff(test.indptr) == 0).sum() == 60
    for wrong in ({"K": 0}, {"train_only_size": 1.0}, {"train_only_size": -0.1}):
        with pytest.raises(ValueError, match="must be"):
            leave_k_out_split(ratings, **wrong)


def test_the_page_has_the_table_of_the_measurements():
    path = Path(__file__).parents[2] / "benchmarks" / "compat_implicit.py"
    spec = importlib.util.spec_from_file_location("compat_implicit", path)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    made = benchmark.table(json.loads(benchmark.RESULT.read_text("utf-8")))
    assert made in benchmark.DOCUMENT.read_text("utf-8")
