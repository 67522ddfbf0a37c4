"""recfuse.compat.implicit: item-item models and weights, against dense products in float64."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import scipy.sparse as sp

from compat_data import random_plays
from recfuse.compat.implicit.nearest_neighbours import (
    BM25Recommender,
    CosineRecommender,
    ItemItemRecommender,
    TFIDFRecommender,
    all_pairs_knn,
    bm25_weight,
    normalize,
    tfidf_weight,
)
from recfuse.errors import FormatError, NotFittedError

MODELS = [ItemItemRecommender, CosineRecommender, TFIDFRecommender, BM25Recommender]
PADDING = -np.finfo(np.float32).max


def dense_tfidf(items):
    n_terms = (items != 0).sum(axis=0)
    return np.sqrt(items) * (np.log(len(items)) - np.log1p(n_terms))


def dense_bm25(items, k1, b):
    length = items.sum(axis=1, keepdims=True)
    held_back = k1 * (1 - b + b * length / length.mean())
    idf = np.log(len(items)) - np.log1p((items != 0).sum(axis=0))
    return np.where(items > 0, items * (k1 + 1) / (held_back + items) * idf, 0)


def unit(rows):
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)


def dense_columns(kind, plays):
    """Return the vectors of items whose products are the similarity of a model."""
    items = plays.T.toarray().astype(np.float64)
    return {
        ItemItemRecommender: lambda: items,
        CosineRecommender: lambda: unit(items),
        TFIDFRecommender: lambda: unit(dense_tfidf(items)),
        BM25Recommender: lambda: dense_bm25(items, 1.2, 0.75),
    }[kind]()


@pytest.fixture(params=MODELS)
def fitted(request, rng):
    plays = random_plays(rng, (50, 35), density=0.15)
    model = request.param(K=6)
    model.fit(plays, show_progress=False)
    return model, plays


def test_weights_are_the_formulas(rng):
    items = random_plays(rng, (20, 15))
    dense = items.toarray().astype(np.float64)
    np.testing.assert_allclose(tfidf_weight(items).toarray(), dense_tfidf(dense), rtol=1e-6)
    np.testing.assert_allclose(bm25_weight(items).toarray(), dense_bm25(dense, 100, 0.8), rtol=1e-6)
    np.testing.assert_allclose(normalize(items).toarray(), unit(dense), rtol=1e-6)
    assert all(f(items).format == "coo" for f in (tfidf_weight, bm25_weight, normalize))
    zeros = sp.csr_matrix((np.zeros(2), ([0, 1], [1, 0])), shape=(2, 2))
    assert not normalize(zeros).toarray().any() and not bm25_weight(zeros).toarray().any()


def test_the_similarity_is_the_k_largest_products_itself_among_them(fitted):
    model, plays = fitted
    columns = dense_columns(type(model), plays)
    products = columns @ columns.T
    assert isinstance(model.similarity, sp.csr_matrix) and model.similarity.dtype == np.float64
    shared = (plays.T @ plays).toarray() != 0
    for item in range(35):
        row = model.similarity[item]
        best = -np.sort(-products[item][shared[item]])[:6]
        np.testing.assert_allclose(-np.sort(-row.data), best, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(row.data, products[item, row.indices], rtol=1e-6, atol=1e-7)


def test_recommend_scores_histories_by_the_similarity(fitted):
    model, plays = fitted
    scores = (plays @ model.similarity).toarray()
    spoken = ((plays != 0).astype(int) @ (model.similarity != 0).astype(int)).toarray() > 0
    ids, got = model.recommend(np.arange(50), plays, N=8)
    assert ids.dtype == np.int32 and got.dtype == np.float64 and ids.shape == (50, 8)
    for user in range(50):
        open_ = np.flatnonzero(spoken[user] & (plays[user].toarray()[0] == 0))
        n = min(8, len(open_))
        best = -np.sort(-scores[user, open_])[:n]
        np.testing.assert_allclose(got[user, :n], best, rtol=1e-5)
        np.testing.assert_allclose(scores[user, ids[user, :n]], got[user, :n], rtol=1e-5)
        assert set(ids[user, :n]) <= set(open_)
        assert (ids[user, n:] == -1).all() and (got[user, n:] == PADDING).all()
        one = model.recommend(user, plays[user], N=8)
        np.testing.assert_array_equal(one[0], ids[user, :n])  # short, not padded
        np.testing.assert_array_equal(one[1], got[user, :n])


def test_filters_leave_out_and_return_no_more_than_n(fitted):
    model, plays = fitted
    out = np.array([0, 3, 4, 7, 99])
    everything = model.recommend(2, plays[2], N=35)[0]
    ids, _ = model.recommend(2, plays[2], N=5, filter_items=out)
    np.testing.assert_array_equal(ids, everything[~np.isin(everything, out)][:5])
    liked, _ = model.recommend(2, plays[2], N=35, filter_already_liked_items=False)
    assert set(plays[2].indices) & set(liked)
    chosen = [5, 1, 30, 2, 8]
    ids, scores = model.recommend(2, plays[2], N=20, items=chosen)
    assert sorted(ids) == sorted(chosen)
    known = np.isin(ids, everything)
    np.testing.assert_array_equal(ids[known], everything[np.isin(everything, chosen)])
    assert (np.diff(scores) <= 0).all() and known[: known.sum()].all()
    assert len(model.recommend(2, plays[2], N=2, items=chosen)[0]) == 2
    both, _ = model.recommend([2, 3], plays[[2, 3]], N=7, items=chosen)
    assert both.shape == (2, 7) and (both[:, 5:] == -1).all()
    with pytest.raises(ValueError, match="Can't specify both"):
        model.recommend(2, plays[2], items=[1], filter_items=[2])
    for wrong in (-1, 35):
        with pytest.raises(IndexError, match="items must be in"):
            model.recommend(2, plays[2], items=[1, wrong])
    with pytest.raises(ValueError, match="CSR"):
        model.recommend(2, plays[2].tocoo())


def test_single_histories_in_any_form(fitted):
    """Of other types, out of order, twice, too wide, and with what no list can be made of."""
    model, plays = fitted
    row = plays[4].tocsr()
    row.data = np.ceil(row.data)  # whole numbers, in any type
    expected = model.recommend(4, row, N=9)
    halves = np.repeat(row.data[::-1], 2) / 2, np.repeat(row.indices[::-1], 2)
    forms = [row.astype(dtype) for dtype in (np.float32, np.float64, np.int64, np.uint8)]
    forms += [sp.csr_array(row), sp.csr_matrix((*halves, [0, 2 * row.nnz]), shape=(1, 35))]
    forms += [sp.csr_matrix((row.data, row.indices, row.indptr), shape=(1, 99))]
    forms[3].indices = forms[3].indices.astype(np.int64)
    for form in forms:
        before = [x.copy() for x in (form.data, form.indices, form.indptr)]
        got = model.recommend(4, form, N=9)
        for kept, given in zip(before, (form.data, form.indices, form.indptr), strict=True):
            np.testing.assert_array_equal(kept, given)
        np.testing.assert_array_equal(got[0], expected[0])
        np.testing.assert_array_equal(got[1], expected[1])
    beyond = sp.csr_matrix(([1.0], ([0], [40])), shape=(1, 99))
    with pytest.raises(IndexError, match="user_items must have items of the model, below 35"):
        model.recommend(4, beyond)
    with pytest.raises(ValueError, match="1 row"):
        model.recommend(4, plays[[4, 5]])
    with pytest.raises(ValueError, match="finite"):
        model.recommend(4, row * np.nan)
    for users, rows in ((4, row), ([4, 5], plays[[4, 5]])):
        with pytest.raises(ValueError, match=r"^N must be at least 1; got 0"):
            model.recommend(users, rows, N=0)
    with pytest.raises(ValueError, match=r"^K must be at least 1; got -1"):
        model.scorer.recommend(row.indptr, row.indices, row.data, K=-1)
    assert [len(x) for x in model.recommend(4, sp.csr_matrix((1, 35)))] == [0, 0]


def test_similar_items_are_rows_of_the_similarity(fitted):
    model, _ = fitted
    ids, scores = model.similar_items([4, 9], N=8)
    assert ids.shape == (2, 8) and scores.dtype == np.float64
    for row, item in enumerate([4, 9]):
        near = model.similarity[item]
        order = np.lexsort((-near.indices, -near.data))
        n = near.nnz
        np.testing.assert_array_equal(ids[row, :n], near.indices[order])
        assert (ids[row, n:] == -1).all() and (scores[row, n:] == PADDING).all()
        np.testing.assert_array_equal(model.similar_items(item, N=8)[0], ids[row, :n])
    near = model.similar_items(4, N=3)[0]
    assert near[1] not in model.similar_items(4, filter_items=[near[1]])[0]
    among, how = model.similar_items(4, items=[near[1], 20, 21])
    assert sorted(among) == sorted({near[1], 20, 21}) and (np.diff(how) <= 0).all()
    assert model.similar_items(1000)[0].size == 0
    with pytest.raises(IndexError):
        model.similar_items(-1)
    for call in (lambda: model.similar_users(0), lambda: model.similar_items(0, 5, True)):
        with pytest.raises(NotImplementedError):
            call()


def test_models_survive_files_and_pickles(fitted, tmp_path):
    model, plays = fitted
    model.save(str(tmp_path / "model"))
    loaded = type(model).load(str(tmp_path / "model"))
    for other in (loaded, pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert type(other) is type(model) and other.K == 6
        np.testing.assert_array_equal(other.recommend(0, plays[0]), model.recommend(0, plays[0]))
    np.savez(tmp_path / "bad.npz", K=3, data=[1.0], indices=[7], indptr=[0, 1], shape=(1, 1))
    with pytest.raises(FormatError, match="must hold a similarity"):
        type(model).load(tmp_path / "bad.npz")
    with pytest.raises(NotFittedError):
        type(model)().recommend(0, plays[0])
    with pytest.raises(NotImplementedError):
        model.fit(plays, callback=print)


def test_all_pairs_of_any_dtype(rng):
    plays = random_plays(rng, (9, 6), density=0.5)
    for dtype in (np.float32, np.float64, np.int64):
        counts = sp.csr_matrix(np.floor(plays.toarray()).astype(dtype))
        every = all_pairs_knn(counts, K=100).toarray()
        np.testing.assert_allclose(every, (counts.T @ counts).toarray())
    assert all_pairs_knn(sp.csr_matrix((4, 3)), K=2).nnz == 0


def test_the_scorer_scores_a_history_in_parts(fitted):
    model, plays = fitted
    row = plays[7]
    got = model.scorer.recommend(row.indptr, row.indices, row.data, K=5, remove_own_likes=True)
    np.testing.assert_array_equal(got, model.recommend(7, row, N=5))
