"""recfuse.compat.implicit: lists of ALS and `cpu.topk`, against scores of NumPy sorted in full."""

from __future__ import annotations

import inspect
import tracemalloc

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from compat_data import LEAST, random_plays, ranked
from recfuse.compat.implicit.als import AlternatingLeastSquares
from recfuse.compat.implicit.cpu.matrix_factorization_base import _filter_items_from_sparse_matrix
from recfuse.compat.implicit.cpu.topk import topk


def small_model(rng, shape=(40, 30), factors=4, levels=None):
    """Return a model of given factors; with levels, of few numbers, so that scores tie."""
    model = AlternatingLeastSquares(factors=factors)
    draw = rng.standard_normal if levels is None else lambda s: rng.integers(0, levels, s)
    model.user_factors = np.asarray(draw((shape[0], factors)), np.float32)
    model.item_factors = np.asarray(draw((shape[1], factors)), np.float32)
    return model


def assert_list(got, expected, rtol=1e-5):
    np.testing.assert_array_equal(got[0], expected[0])
    np.testing.assert_allclose(got[1], expected[1], rtol=rtol, atol=1e-6)


@pytest.mark.parametrize("k", [1, 7, 30, 1000])
@pytest.mark.parametrize("filter_liked", [True, False])
def test_recommend_ranks_as_numpy_does_for_one_and_for_many(rng, k, filter_liked):
    model, plays = small_model(rng), random_plays(rng)
    users = [5, 3, 3, 39]
    scores = model.user_factors[users] @ model.item_factors.T
    ids, got = model.recommend(users, plays[users], k, filter_liked)
    assert ids.shape == got.shape == (4, min(k, 30))  # no item twice, none that is not there
    assert ids.dtype == np.int32 and got.dtype == np.float32
    for row, user in enumerate(users):
        liked = plays[user].indices if filter_liked else []
        assert_list((ids[row], got[row]), ranked(scores[row], liked, k))
        assert_list(model.recommend(user, plays[user], k, filter_liked), (ids[row], got[row]))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_recommend_with_any_filters_and_ties(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    n_items = data.draw(st.integers(1, 12))
    model = small_model(rng, (5, n_items), factors=2, levels=data.draw(st.sampled_from([2, 50])))
    plays = random_plays(rng, (5, n_items), density=0.4)
    some = st.lists(st.integers(0, n_items - 1), max_size=6)
    kind = data.draw(st.sampled_from(["none", "filter", "items"]))
    chosen, k = data.draw(some), data.draw(st.integers(1, 14))
    users = data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=7))
    if kind == "items" and not chosen:
        kind = "none"
    options = {"filter": {"filter_items": chosen}, "items": {"items": chosen}}.get(kind, {})
    ids, scores = model.recommend(users, plays[users], k, **options)
    among = sorted(set(chosen)) if kind == "items" else list(range(n_items))
    assert ids.shape == (len(users), min(k, len(among)))
    exact = model.user_factors[users].astype(np.float64) @ model.item_factors.astype(np.float64).T
    for row, user in enumerate(users):
        out = {*plays[user].indices, *(chosen if kind == "filter" else ())}
        values = np.array([LEAST if i in out else exact[row, i] for i in among])
        np.testing.assert_allclose(scores[row], -np.sort(-values)[:k], rtol=1e-6)
        np.testing.assert_allclose(values[np.searchsorted(among, ids[row])], scores[row], rtol=1e-6)
        assert len(set(ids[row])) == ids.shape[1]
        ties = scores[row, 1:] == scores[row, :-1]
        assert (ids[row, 1:] < ids[row, :-1])[ties].all()  # larger id first


def test_many_filtered_items_for_many_users(rng):
    model, plays = small_model(rng, (40, 300)), random_plays(rng, (40, 300))
    out = rng.choice(300, 120, replace=False)
    users = np.arange(40)
    ids, scores = model.recommend(users, plays, N=200, filter_items=out)
    every = model.user_factors @ model.item_factors.T
    for user in users:
        filtered = {*plays[user].indices, *out}
        n = 300 - len(filtered)
        assert_list((ids[user, :n], scores[user, :n]), ranked(every[user], filtered, n))
        assert set(ids[user, n:]) <= filtered and (scores[user, n:] == LEAST).all()


def test_ids_have_the_dtype_of_items(rng):
    model, plays = small_model(rng), random_plays(rng)
    chosen = [9, 4, 4, 20]
    ids, _ = model.recommend(0, plays[0], items=chosen)
    assert sorted(ids) == [4, 9, 20] and ids.dtype == np.int64
    assert model.recommend(0, plays[0], items=np.array(chosen, np.int32))[0].dtype == np.int32
    assert sorted(model.similar_items(2, items=chosen)[0]) == [4, 9, 20]


@pytest.mark.parametrize("side", ["user", "item"])
def test_similar_ones_by_cosine_with_themselves_first(rng, side):
    model = small_model(rng)
    factors = getattr(model, f"{side}_factors")
    factors[7] = 0
    similar = getattr(model, f"similar_{side}s")
    norms = np.linalg.norm(factors, axis=1)
    norms[7] = 1  # its cosines are 0
    cosine = factors @ factors.T / np.outer(norms, norms)
    ids, scores = similar([3, 4], N=6)
    assert ids[:, 0].tolist() == [3, 4]
    for row, query in enumerate([3, 4]):
        assert_list((ids[row], scores[row]), ranked(cosine[query], [], 6))
        assert_list(similar(query, N=6), (ids[row], scores[row]))
    out = {f"filter_{side}s": np.array([3, 5])}
    assert_list(similar(3, N=6, **out), ranked(cosine[3], [3, 5], 6))
    among = similar(3, N=6, **{f"{side}s": [8, 1, 3]})
    assert among[0].tolist()[0] == 3 and sorted(among[0]) == [1, 3, 8]
    with pytest.raises(ValueError, match="Can't set both"):
        similar(3, **out, **{f"{side}s": [1]})
    for wrong in (-1, len(factors)):
        with pytest.raises(IndexError, match=f"{side}id must be in"):
            similar(wrong)
        with pytest.raises(IndexError, match=f"{side}s must be in"):
            similar(3, **{f"{side}s": [1, wrong]})


def test_similar_items_of_recalculated_ones(rng):
    model, plays = small_model(rng), random_plays(rng)
    columns = plays.T.tocsr()
    factors = model.recalculate_item([2, 5], columns[[2, 5]])
    ids, scores = model.similar_items([2, 5], recalculate_item=True, item_users=columns[[2, 5]])
    norms = np.linalg.norm(model.item_factors, axis=1)
    for row in range(2):
        cosine = model.item_factors @ factors[row] / norms / np.linalg.norm(factors[row])
        assert_list((ids[row], scores[row]), ranked(cosine, [], 10))


def test_user_items_of_any_width_as_long_as_its_items_are_known(rng):
    model, plays = small_model(rng), random_plays(rng)
    expected = model.recommend(0, plays[0])
    wide = sp.csr_matrix((plays.data, plays.indices, plays.indptr), shape=(40, 50))
    assert_list(model.recommend(0, wide[0]), expected)
    shuffled = plays[0].copy()
    shuffled.indices, shuffled.data = shuffled.indices[::-1].copy(), shuffled.data[::-1].copy()
    shuffled.has_sorted_indices = False
    assert_list(model.recommend(0, shuffled), expected)
    zeros = plays[0].copy()
    zeros.data[:] = 0  # seen is what is stored
    assert_list(model.recommend(0, zeros), expected)
    assert_list(model.recommend(0, zeros, items=np.arange(30)), expected)
    assert_list(model.recommend(0, sp.csr_array(plays[[0]])), expected)
    unknown = sp.csr_matrix((np.ones(1), ([0], [40])), shape=(1, 50))
    with pytest.raises(IndexError, match="user_items must have items of the model, below 30"):
        model.recommend(0, unknown)


def test_wrong_arguments_of_recommend_are_told(rng):
    model, plays = small_model(rng), random_plays(rng)
    for wrong in (plays.tocsc(), plays.tocoo(), plays.toarray(), None):
        with pytest.raises(ValueError, match="CSR"):
            model.recommend(0, wrong)
    with pytest.raises(ValueError, match="1 row for every user"):
        model.recommend(0, plays)
    for user in (-1, 40):
        with pytest.raises(IndexError, match=r"userid must be in \[0, 40\)"):
            model.recommend(user, plays[0])
    with pytest.raises(TypeError, match="userid must be integers"):
        model.recommend("anna", plays[0])
    with pytest.raises(ValueError, match="Can't set both"):
        model.recommend(0, plays[0], items=np.array([1, 2]), filter_items=np.array([3, 4]))
    for wrong in ([30], [-1]):
        with pytest.raises(IndexError, match="items must be in"):
            model.recommend(0, plays[0], items=wrong)
        with pytest.raises(IndexError, match="filter_items must be in"):
            model.recommend(0, plays[0], filter_items=wrong)
    plain = model.recommend(0, plays[0])
    for nothing in ([], False, None):
        assert len(model.recommend(0, plays[0], items=[3, 4], filter_items=nothing)[0]) == 2
        assert_list(model.recommend(0, plays[0], filter_items=nothing), plain)
    with pytest.raises(ValueError, match="items must have at least one id"):
        model.recommend(0, plays[0], items=[])
    with pytest.raises(ValueError, match="N must be at least 1; got 0"):
        model.recommend(0, plays[0], N=0)
    assert len(model.recommend(0, None, filter_already_liked_items=False)[0]) == 10


def test_threads_change_nothing_and_minus_one_is_all_of_them(rng):
    model, plays = small_model(rng), random_plays(rng)
    expected = model.recommend(np.arange(40), plays)
    for num_threads in (-1, 1, 3):
        model.num_threads = num_threads
        np.testing.assert_array_equal(model.recommend(np.arange(40), plays), expected)


def test_deprecated_calls_still_answer(rng):
    model, plays = small_model(rng), random_plays(rng)
    with pytest.warns(DeprecationWarning):
        ids, _ = model.rank_items(3, plays[3], np.arange(20))
    assert sorted(ids) == list(range(20))
    with pytest.warns(DeprecationWarning):
        every = model.recommend_all(plays, N=4)
    np.testing.assert_array_equal(every, model.recommend(np.arange(40), plays, N=4)[0])
    with pytest.warns(DeprecationWarning):
        part = model.recommend_all(plays[10:], N=4, users_items_offset=10)
    np.testing.assert_array_equal(part, every[10:])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_topk_with_norms_and_filters(rng, dtype):
    items = rng.standard_normal((25, 6)).astype(dtype)
    queries = rng.standard_normal((130, 6)).astype(dtype)
    norms = np.linalg.norm(items, axis=1)
    seen = random_plays(rng, (130, 25))
    ids, scores = topk(items, queries, 8, norms, seen, np.array([0, 3]), num_threads=2)
    assert ids.dtype == np.int32 and scores.dtype == dtype
    exact = queries @ items.T / norms
    for row in range(130):
        filtered = {0, 3, *seen[row].indices}
        n = min(8, 25 - len(filtered))
        assert_list((ids[row, :n], scores[row, :n]), ranked(exact[row], filtered, n))
        assert (scores[row, n:] == -np.finfo(dtype).max).all()
    one = topk(items, queries[0], 3)
    assert one[0].shape == (1, 3)
    ids, scores = topk(items[:2], queries[0], 4)
    assert ids[0, 2:].tolist() == [-1, -1] and scores[0, 2:].max() == -np.finfo(dtype).max


def test_topk_takes_sparse_queries(rng, monkeypatch):
    import recfuse.compat.implicit.cpu.topk as module

    items = rng.standard_normal((25, 30)).astype(np.float32)
    queries, seen = random_plays(rng, (40, 30)), random_plays(rng, (40, 25))
    expected = topk(items, queries.toarray(), 6, None, seen, [3])
    monkeypatch.setattr(module, "_DENSE", 30 * 7)  # blocks of seven rows
    for ours, dense in zip(topk(items, queries, 6, None, seen, [3]), expected, strict=True):
        np.testing.assert_array_equal(ours, dense)


def test_filter_by_chosen_items_goes_by_the_pattern():
    seen = sp.csr_matrix(([0.0, 2.0, 1.0], ([0, 0, 1], [2, 5, 7])), shape=(2, 9))
    among = _filter_items_from_sparse_matrix(np.array([2, 5, 8]), seen)
    assert among.indptr.tolist() == [0, 2, 2] and among.indices.tolist() == [0, 1]


def test_one_request_makes_nothing_of_the_size_of_the_catalogue(rng):
    n_items = 50_000
    model = small_model(rng, (50, n_items))
    row = random_plays(rng, (1, n_items), density=0.001)
    requests = {
        "recommend": lambda: model.recommend(0, row, filter_items=[1, 2]),
        "recalculated": lambda: model.recommend(0, row, recalculate_user=True),
        "similar": lambda: model.similar_items(3),
    }
    for name, request in requests.items():
        request()  # makes what is kept
        tracemalloc.start()
        request()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < n_items, name  # bytes: not even flags


def test_signatures_are_those_of_implicit():
    expected = [
        "self", "userid", "user_items", "N", "filter_already_liked_items", "filter_items",
        "recalculate_user", "items",
    ]  # fmt: skip
    assert list(inspect.signature(AlternatingLeastSquares.recommend).parameters) == expected
    expected = ["items", "query", "k", "item_norms", "filter_query_items", "filter_items"]
    assert list(inspect.signature(topk).parameters) == [*expected, "num_threads"]
