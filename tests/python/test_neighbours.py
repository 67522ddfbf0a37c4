"""Neighbour models, popularity and weights: against their formulas and against implicit."""

from __future__ import annotations

import importlib
import pickle
import warnings

import numpy as np
import pytest
import scipy.sparse as sp

import recfuse
import reference_cosine as reference
from conftest import CUDA_MODULES, run_on_cuda
from helpers import assert_same_bytes, random_pattern
from recfuse.models import bm25_weight, tfidf_weight

N_USERS, N_ITEMS = 30, 22


@pytest.fixture
def likes(rng) -> sp.csr_array:
    dense = (rng.random((N_USERS, N_ITEMS)) < 0.25) * rng.integers(1, 6, (N_USERS, N_ITEMS))
    return sp.csr_array(dense.astype(np.float32))


@pytest.fixture
def nearest():
    """The module of implicit that has neighbour models."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("implicit")
        yield importlib.import_module("implicit.nearest_neighbours")


def weights_by_loops(likes, kind, k1=1.2, b=0.75) -> np.ndarray:
    """The formulas with one entry at a time; items are documents, users are terms."""
    r = likes.toarray().astype(np.float64)
    lengths = r.sum(axis=0)
    out = np.zeros_like(r)
    for u in range(N_USERS):
        idf = np.log(N_ITEMS) - np.log(1 + np.count_nonzero(r[u]))
        for i in np.flatnonzero(r[u]):
            if kind == "tfidf":
                out[u, i] = np.sqrt(r[u, i]) * idf
            else:
                held_back = k1 * (1 - b + b * lengths[i] / lengths.mean())
                out[u, i] = r[u, i] * (k1 + 1) / (held_back + r[u, i]) * idf
    return out


def test_weights_are_their_formulas(likes):
    np.testing.assert_allclose(
        tfidf_weight(likes).toarray(), weights_by_loops(likes, "tfidf"), rtol=1e-6
    )
    for options in ({}, {"k1": 100.0, "b": 0.8}, {"k1": 0.0}, {"b": 0.0}, {"b": 1.0}):
        got = bm25_weight(likes, **options).toarray()
        np.testing.assert_allclose(got, weights_by_loops(likes, "bm25", **options), rtol=1e-6)


def test_weights_are_those_of_implicit(likes, nearest):
    item_users = sp.csr_matrix(likes.T.astype(np.float64))
    np.testing.assert_allclose(
        tfidf_weight(likes).toarray(), nearest.tfidf_weight(item_users).T.toarray(), rtol=1e-5
    )
    expected = nearest.bm25_weight(item_users, K1=1.2, B=0.75).T.toarray()
    np.testing.assert_allclose(bm25_weight(likes).toarray(), expected, rtol=1e-5)


def test_a_user_of_everything_weighs_less_than_nothing():
    likes = sp.csr_array(np.array([[1, 1, 1], [1, 0, 0]], np.float32))
    got = tfidf_weight(likes).toarray()
    np.testing.assert_allclose(got[0], np.log(3) - np.log(4), rtol=1e-6)
    assert got[1, 0] > 0


def test_stored_zeros_weigh_nothing():
    zeros = sp.csr_array((np.zeros(3, np.float32), ([0, 0, 1], [0, 1, 0])), shape=(2, 2))
    for weighted in (tfidf_weight(zeros), bm25_weight(zeros), bm25_weight(zeros, k1=0)):
        assert weighted.nnz == 3
        np.testing.assert_array_equal(weighted.data, 0)


@pytest.mark.parametrize("weight", [tfidf_weight, bm25_weight])
@pytest.mark.parametrize("value", [-1, np.nan, np.inf])
def test_counts_must_be_counts(likes, weight, value):
    likes.data[3] = value
    with pytest.raises(ValueError, match=f"user_items must be finite and at least 0 .* {value}"):
        weight(likes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k1": -0.1}, "k1 must be at least 0; got -0.1"),
        ({"k1": np.nan}, "k1 must be at least 0; got nan"),
        ({"b": 1.5}, r"b must be in \[0, 1\]; got 1.5"),
        ({"b": -0.5}, r"b must be in \[0, 1\]; got -0.5"),
    ],
)
def test_bm25_constants(likes, options, message):
    with pytest.raises(ValueError, match=message):
        bm25_weight(likes, **options)


def unit_rows(likes) -> sp.csr_array:
    dense = likes.toarray().astype(np.float64)
    norms = np.linalg.norm(dense, axis=1, keepdims=True)
    return sp.csr_array((dense / np.where(norms > 0, norms, 1)).astype(np.float32))


WEIGH = {None: lambda x: x, "tfidf": tfidf_weight, "bm25": bm25_weight, "l2": unit_rows}


@pytest.mark.parametrize("weighting", WEIGH)
@pytest.mark.parametrize("norm", ["full", "corated"])
def test_items_are_scored_by_their_neighbours(likes, weighting, norm):
    model = recfuse.ItemNeighbours(5, weighting=weighting, norm=norm, shrinkage=0.5).fit(likes)
    similarity = reference.cosine_knn(WEIGH[weighting](likes).T, 5, norm=norm, shrinkage=0.5)
    assert reference.from_csr(model.similarity_) == similarity

    users = np.array([4, 0, 4, 29])
    got = model.recommend(users, 6, user_items=likes[users])
    unseen = likes.toarray()[users] == 0
    expected = reference.neighbour_topk(likes[users], model.similarity_, 6, admitted=unseen)
    assert reference.from_lists(*got) == expected
    everything = reference.neighbour_topk(likes[users], model.similarity_, 30)
    assert reference.from_lists(*model.recommend(users, 30)) == everything


def asymmetric(rows, a) -> list[dict[int, float]]:
    """The formula in float64, one pair at a time, for the pairs that share an entry."""
    dense = rows.toarray().astype(np.float64)
    norms = np.linalg.norm(dense, axis=1)
    found: list[dict[int, float]] = [{} for _ in dense]
    for u, v in np.ndindex(len(dense), len(dense)):
        if u != v and ((dense[u] != 0) & (dense[v] != 0)).any():
            found[u][v] = dense[u] @ dense[v] / (norms[u] ** (2 * a) * norms[v] ** (2 - 2 * a))
    return found


@pytest.mark.parametrize("weighting", WEIGH)
@pytest.mark.parametrize("a", [0.0, 0.25, 0.5 + 1e-9, 1.0])
def test_an_asymmetric_similarity_is_its_formula(likes, weighting, a):
    values = sp.csr_array(WEIGH[weighting](likes))
    options = {"weighting": weighting, "asymmetry": a}
    for model, rows in (
        (recfuse.ItemNeighbours(4, **options), sp.csr_array(values.T)),
        (recfuse.UserNeighbours(90, **options), values),  # more than there are
    ):
        kept = reference.from_csr(model.fit(likes).similarity_)
        for row, all_of_it in zip(kept, asymmetric(rows, a), strict=True):
            nearest = sorted(all_of_it.values(), reverse=True)[: model.k]
            np.testing.assert_allclose([sim for _, sim in row], nearest, rtol=1e-6)
            np.testing.assert_allclose([all_of_it[v] for v, _ in row], nearest, rtol=1e-6)


def test_half_an_asymmetry_is_the_cosine(likes):
    even, nearly = (recfuse.ItemNeighbours(21, asymmetry=a).fit(likes) for a in (0.5, 0.5 + 1e-9))
    np.testing.assert_allclose(nearly.similarity_.toarray(), even.similarity_.toarray(), rtol=1e-6)


def test_an_asymmetry_of_1_is_the_confidence_of_a_rule():
    likes = sp.csr_array(np.array([[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 0, 0]], np.float32))
    model = recfuse.ItemNeighbours(2, asymmetry=1.0).fit(likes)
    expected = [[0, 1 / 2, 1 / 4], [1, 0, 1 / 2], [1, 1, 0]]
    np.testing.assert_allclose(model.similarity_.toarray(), expected, rtol=1e-6)


@pytest.mark.parametrize("model", [recfuse.ItemNeighbours, recfuse.UserNeighbours])
@pytest.mark.parametrize("value", [0.2, 1.0])
def test_an_asymmetric_similarity_of_nobody(model, value):
    zeros = sp.csr_array((np.zeros(3, np.float32), ([0, 0, 1], [0, 1, 0])), shape=(4, 3))
    found = model(2, asymmetry=value).fit(zeros)
    assert (found.similarity_.data == 0).all()
    assert model(2, asymmetry=value).fit(sp.csr_array((1, 1))).similarity_.nnz == 0


@pytest.mark.parametrize("normalise", [False, True])
def test_users_are_served_by_their_neighbours(likes, normalise):
    model = recfuse.UserNeighbours(4, norm="corated", normalise=normalise).fit(likes)
    assert reference.from_csr(model.similarity_) == reference.cosine_knn(likes, 4, norm="corated")
    users = np.array([7, 7, 1])
    unseen = likes.toarray()[users] == 0
    got = model.recommend(users, 9, user_items=likes[users])
    expected = reference.neighbour_topk(
        model.similarity_[users], likes, 9, normalise=normalise, admitted=unseen
    )
    assert reference.from_lists(*got) == expected


def test_a_normalised_score_is_a_rating():
    """Users 1 and 2 have item 2 at 4 and 2 stars; user 3 does not, and has no say about it."""
    ratings = sp.csr_array(np.array([[5, 3, 0], [5, 3, 4], [1, 3, 2], [5, 2, 0]], np.float32))
    model = recfuse.UserNeighbours(3, normalise=True).fit(ratings)
    near, far = (model.similarity_[0, v] for v in (1, 2))
    ids, scores = model.recommend(0, 1, user_items=ratings[[0]])
    assert ids[0, 0] == 2
    assert scores[0, 0] == pytest.approx((near * 4 + far * 2) / (near + far), rel=1e-6)


def test_histories_of_new_users(likes):
    model = recfuse.ItemNeighbours(5).fit(likes[5:])
    got = model.recommend([1000, 1001], 4, user_items=likes[:2])
    unseen = likes.toarray()[:2] == 0
    expected = reference.neighbour_topk(likes[:2], model.similarity_, 4, admitted=unseen)
    assert reference.from_lists(*got) == expected


def test_filters(rng, likes):
    exclude, excluded = random_pattern(rng, 3, N_ITEMS, 0.3)
    users, allow = np.array([2, 9, 11]), [1, 4, 5, 6, 20]
    for model in (recfuse.ItemNeighbours(6), recfuse.UserNeighbours(6), recfuse.Popularity()):
        model.fit(likes)
        ids, scores = model.recommend(
            users, 9, user_items=likes[users], exclude=exclude, allow=allow
        )
        everything, all_scores = model.recommend(users, N_ITEMS)
        refused = excluded | (likes.toarray()[users] > 0)
        for q in range(3):
            kept = [
                (i, s)
                for i, s in zip(everything[q], all_scores[q], strict=True)
                if i >= 0 and i in allow and not refused[q, i]
            ]
            assert list(zip(ids[q], scores[q], strict=True))[: len(kept)] == kept[:9]
            assert (ids[q, len(kept) :] == -1).all()
        only = sp.csr_array((np.ones(3), ([0, 1, 2], [1, 4, 5])), shape=(3, N_ITEMS))
        ids, _ = model.recommend(users, 2, allow=only)
        assert (ids[:, 1] == -1).all()


@pytest.mark.parametrize("weighting", [None, "tfidf"])
def test_implicit_recommends_the_same(likes, nearest, weighting):
    theirs = nearest.TFIDFRecommender if weighting else nearest.CosineRecommender
    model = theirs(K=6, num_threads=1)  # one of them is the item itself
    model.fit(sp.csr_matrix(likes.astype(np.float64)), show_progress=False)
    ours = recfuse.ItemNeighbours(5, weighting=weighting).fit(likes)
    users = np.arange(N_USERS)
    ids, scores = ours.recommend(users, 5, user_items=likes)
    their_ids, their_scores = model.recommend(users, sp.csr_matrix(likes.astype(np.float64)), N=5)
    filled = ids >= 0
    np.testing.assert_allclose(scores[filled], their_scores[filled], rtol=1e-5)
    # Ids may differ where scores are equal.
    assert (ids == their_ids)[filled].mean() > 0.95


@pytest.mark.parametrize("k", [1, 3, 40])
def test_similar_items_are_the_rows_of_the_similarity(likes, k):
    model = recfuse.ItemNeighbours(5).fit(likes)
    rows = reference.from_csr(model.similarity_)
    ids, scores = model.similar_items([3, 0, 3], k)
    assert (ids.dtype, scores.dtype, ids.shape) == (np.int32, np.float32, (3, k))
    assert reference.from_lists(ids, scores) == [rows[i][:k] for i in (3, 0, 3)]
    assert_same_bytes(model.similar_items(3, k), (ids[:1], scores[:1]))


def test_similar_users(likes):
    model = recfuse.UserNeighbours(5).fit(likes)
    rows = reference.from_csr(model.similarity_)
    assert reference.from_lists(*model.similar_users([8, 2], 4)) == [rows[8][:4], rows[2][:4]]


def test_similar_items_of_nobody():
    model = recfuse.ItemNeighbours(5).fit(sp.csr_array((3, 4), dtype=np.float32))
    ids, scores = model.similar_items([0, 3], 2)
    assert (ids == -1).all() and np.isneginf(scores).all()
    assert model.similar_items([], 2)[0].shape == (0, 2)


def test_wrong_items(likes):
    model = recfuse.ItemNeighbours(5).fit(likes)
    with pytest.raises(IndexError, match=r"item_ids must be in \[0, 22\); got 22"):
        model.similar_items([0, 22])
    with pytest.raises(ValueError, match="k must be at least 1; got 0"):
        model.similar_items([0], 0)
    with pytest.raises(TypeError, match=r"k must be an integer; got 2\.0"):
        model.similar_items([0], 2.0)
    with pytest.raises(TypeError, match="item_ids must be integers"):
        model.similar_items([0.5])
    with pytest.raises(IndexError, match=r"allow\[0\] must be in \[0, 22\); got 22"):
        model.recommend([0], allow=[22])


def test_score_is_the_product(likes):
    model = recfuse.ItemNeighbours(5).fit(likes)
    scores = model.score(likes)
    assert isinstance(scores, sp.csr_array) and scores.has_sorted_indices
    ids, best = model.recommend(np.arange(N_USERS), N_ITEMS)
    rounded = scores.astype(np.float32).toarray()
    for user in range(N_USERS):
        here = ids[user] >= 0
        np.testing.assert_array_equal(rounded[user, ids[user, here]], best[user, here])
        assert here.sum() == scores.indptr[user + 1] - scores.indptr[user]


@pytest.mark.parametrize("model", [recfuse.ItemNeighbours, recfuse.UserNeighbours])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k must be at least 1; got 0"),
        ({"weighting": "idf"}, "weighting must be None, 'tfidf', 'bm25' or 'l2'; got 'idf'"),
        ({"norm": "both"}, "norm must be one of 'full', 'corated'; got 'both'"),
        ({"shrinkage": -1.0}, "shrinkage must be finite and at least 0; got -1"),
        ({"min_support": 0}, "min_support must be at least 1; got 0"),
        ({"k": 0, "asymmetry": 0.2}, "k must be at least 1; got 0"),
        ({"asymmetry": 1.1}, r"asymmetry must be in \[0, 1\]; got 1.1"),
        ({"asymmetry": np.nan}, r"asymmetry must be in \[0, 1\]; got nan"),
        (
            {"asymmetry": 0.2, "norm": "corated"},
            "norm must be 'full' where asymmetry is not 0.5; got 'corated'",
        ),
        (
            {"asymmetry": 0.2, "shrinkage": 1.0},
            "shrinkage must be 0 where asymmetry is not 0.5; got 1.0",
        ),
        (
            {"asymmetry": 0.2, "min_support": 2},
            "min_support must be 1 where asymmetry is not 0.5; got 2",
        ),
    ],
)
def test_parameters_are_checked_by_fit(likes, model, options, message):
    with pytest.raises(ValueError, match=message):
        model(**options).fit(likes)


@pytest.mark.parametrize("model", [recfuse.ItemNeighbours, recfuse.UserNeighbours])
@pytest.mark.parametrize("module", CUDA_MODULES)
def test_a_gpu_finds_the_same_neighbours_and_recommends_the_same(likes, monkeypatch, module, model):
    expected = model(k=5, weighting="tfidf", device="cpu").fit(likes)
    for _ in run_on_cuda(CUDA_MODULES[module], monkeypatch):
        fitted = model(k=5, weighting="tfidf", device="cuda").fit(likes)
        for part in ("indptr", "indices", "data"):
            ours, theirs = (getattr(m.similarity_, part) for m in (fitted, expected))
            np.testing.assert_array_equal(ours, theirs)
        assert_same_bytes(fitted.recommend([0, 1], k=3), expected.recommend([0, 1], k=3))


@pytest.mark.parametrize("by", ["users", "values"])
def test_popularity(likes, by):
    likes = sp.csr_array(sp.hstack([likes, sp.csr_array((N_USERS, 3))]))  # nobody has the last
    model = recfuse.Popularity(by).fit(likes)
    dense = likes.toarray()
    expected = dense.sum(axis=0) if by == "values" else (dense > 0).sum(axis=0)
    np.testing.assert_array_equal(model.item_scores_, expected)
    ids, scores = model.recommend([0, 5], 25)
    order = np.lexsort((np.arange(25), -expected))[:22]
    assert reference.from_lists(ids, scores) == [[(i, float(expected[i])) for i in order]] * 2
    ids, _ = model.recommend([5], 25, user_items=likes[[5]])
    assert not np.isin(likes.indices[likes.indptr[5] : likes.indptr[6]], ids).any()


def test_popularity_prepares_a_search_once_and_anew_after_a_fit(likes, monkeypatch):
    built = []
    build = recfuse.FusedIndex._build

    def counted(self, *args, **options):
        built.append(self)
        build(self, *args, **options)

    monkeypatch.setattr(recfuse.FusedIndex, "_build", counted)
    model = recfuse.Popularity().fit(likes)
    first = model.recommend(0, 5)
    np.testing.assert_array_equal(model.recommend(0, 5), first)
    assert len(built) == 1
    copied = pickle.loads(pickle.dumps(model))
    assert "_made" not in vars(copied)
    np.testing.assert_array_equal(copied.recommend(0, 5), first)
    other = sp.csr_array(likes[:, ::-1])
    np.testing.assert_array_equal(
        model.fit(other).recommend(0, 5), recfuse.Popularity().fit(other).recommend(0, 5)
    )


def test_popularity_by_values_may_fall_below_zero():
    values = sp.csr_array(np.array([[-3, 0, 2, -1], [-3, 0, 0, 1]], np.float32))
    ids, scores = recfuse.Popularity("values").fit(values).recommend(0, 4)
    assert reference.from_lists(ids, scores) == [[(2, 2.0), (3, 0.0), (0, -6.0)]]


def test_popularity_of_what():
    with pytest.raises(ValueError, match="by must be 'users' or 'values'; got 'clicks'"):
        recfuse.Popularity("clicks").fit(sp.csr_array((2, 2), dtype=np.float32))
