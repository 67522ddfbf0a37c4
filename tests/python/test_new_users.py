"""Users and items that the fit has not seen: the stated blends by hand, and what they gain."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

import recfuse
from helpers import assert_same_bytes, normal
from recfuse.datasets import synthetic
from recfuse.evaluation import ranking_metrics
from recfuse.fusion import FactorMap, similar_profiles

N_USERS, N_ITEMS = 60, 90
WEIGHTS = {"als": 0.4, "neighbours": 0.3, "text": 0.2, "popularity": 0.1}


@pytest.fixture
def likes(rng) -> sp.csr_array:
    taste = np.arange(N_USERS)[:, None] % 2 == np.arange(N_ITEMS)[None, :] % 2
    dense = rng.random((N_USERS, N_ITEMS)) < np.where(taste, 0.3, 0.05)
    dense[:, 80:] = False
    return sp.csr_array(dense.astype(np.float32) * rng.integers(1, 4, dense.shape))


@pytest.fixture
def text(rng) -> np.ndarray:
    vectors = normal(rng, N_ITEMS, 6)
    vectors[:, 0] += np.where(np.arange(N_ITEMS) % 2, 2, -2)
    return vectors


def new_model(weights=None, **options):
    behaviour = {
        "als": recfuse.AlternatingLeastSquares(factors=4, iterations=4, random_state=1),
        "neighbours": recfuse.ItemNeighbours(k=8),
    }
    chosen = WEIGHTS if weights is None else weights
    return recfuse.MultimodalRecommender(behaviour, weights=chosen, **options)


def unit(x):
    norms = np.linalg.norm(x, axis=-1, keepdims=True)
    return np.divide(x, norms, out=np.zeros_like(x), where=norms > 0)


def zscore(scores, present):
    inside = scores[:, present]
    std = inside.std(axis=1, keepdims=True)
    centred = scores - inside.mean(axis=1, keepdims=True)
    return np.divide(centred, std, out=np.zeros_like(scores), where=std > 1e-9) * present


def by_hand(model, likes, text, factors, history, weights):
    """Dense scores of the fusion for given user factors and histories; weights (n, modalities)."""
    touched = likes.toarray().any(axis=0)
    x = unit(text.astype(np.float64) - text.astype(np.float64).mean(axis=0))
    counts = (likes.toarray() > 0).sum(axis=0)
    raw = {
        "als": factors @ model.models_["als"].item_factors_.astype(np.float64).T,
        "neighbours": history @ model.models_["neighbours"].similarity_.toarray(),
        "text": history @ x @ x.T,
        "popularity": np.log1p(counts)[None] * np.ones((len(history), 1)),
    }
    total, here = np.zeros((len(history), N_ITEMS)), np.zeros((len(history), N_ITEMS))
    for name in model.modalities_:
        present = np.ones(N_ITEMS, bool) if name == "text" else touched
        total += weights[name][:, None] * zscore(raw[name], present)
        here += weights[name][:, None] * present
    whole = sum(weights.values())[:, None]
    return np.divide(total * whole, here, out=np.full_like(total, np.nan), where=here > 0)


@pytest.mark.parametrize("popularity", [0.0, 3.0])
def test_the_blend_is_the_stated_one(likes, text, rng, popularity):
    model = new_model().fit(likes, {"text": text})
    own = likes[[1, 2, 3, 4]].toarray()
    own[1] = 0  # nothing of their own
    own[3] = 0  # nothing at all
    friends = (rng.random((4, N_USERS)) < 0.1) * rng.uniform(0.5, 2, (4, N_USERS))
    friends[2:] = 0
    profile = (rng.random((4, N_USERS)) < 0.1).astype(float)
    profile[0] = profile[2:] = 0  # user 2 knows nobody
    like = {"friends": sp.csr_array(friends), "profile": sp.csr_array(profile)}
    c = 5.0
    others = np.zeros((4, N_USERS))
    for row in range(4):
        known = [m[row] / m[row].sum() for m in (friends, profile) if m[row].any()]
        if known:
            others[row] = np.mean(known, axis=0)
    n_own, n_like = (own > 0).sum(axis=1), (others > 0).sum(axis=1)
    g = np.where(n_like == 0, 1.0, np.where(n_own == 0, 0.0, n_own / (n_own + c)))[:, None]
    als = model.models_["als"]
    folded = als.fold_in(sp.csr_array(own.astype(np.float32))).astype(np.float64)
    lent = others @ als.user_factors_.astype(np.float64)
    factors = g * unit(folded) + (1 - g) * unit(lent)

    def of_sum_1(x):
        return np.divide(x, x.sum(1, keepdims=True), out=np.zeros_like(x), where=x.any(1)[:, None])

    rows = g * of_sum_1(own.astype(np.float64)) + (1 - g) * of_sum_1(others @ likes.toarray())
    m = (n_own + n_like).astype(float)
    share = m / (m + popularity) if popularity else np.ones(4)
    weights = {name: share * w for name, w in WEIGHTS.items()}
    weights["popularity"] = weights["popularity"] + (1 - share) * sum(WEIGHTS.values())
    expected = by_hand(model, likes, text, factors, rows, weights)
    ids, scores, parts = model.recommend_new_users(
        sp.csr_array(own), N_ITEMS, like=like, popularity=popularity, contributions=True
    )
    np.testing.assert_allclose(parts.sum(axis=2).astype(np.float32), np.where(ids >= 0, scores, 0))
    for row in range(4):
        listed = ids[row][ids[row] >= 0]
        rankable = (own[row] == 0) & np.isfinite(expected[row])
        assert sorted(listed) == np.flatnonzero(rankable).tolist()
        np.testing.assert_allclose(scores[row][: len(listed)], expected[row, listed], atol=3e-5)


def test_nobody_gets_what_is_popular(likes, text):
    model = new_model({"als": 1.0, "text": 1.0}).fit(likes, {"text": text})
    ids, _ = model.recommend_new_users(sp.csr_array((2, N_ITEMS), dtype=np.float32), k=5)
    counts = np.bincount(likes.indices, minlength=N_ITEMS)
    expected = np.argsort(-counts, kind="stable")[:5].tolist()
    assert ids.tolist() == [expected, expected]


def test_a_profile_is_a_query(likes, text):
    """Asked with the profiles of known users, they get their own lists, to the byte."""
    model = new_model({"als": 0.6, "text": 0.4}).fit(likes, {"text": text})
    users = np.array([3, 8, 8, 41])
    profile = model.profile(users)
    assert {name: x.shape for name, x in profile.items()} == {"als": (4, 4), "text": (4, 6)}
    x = unit(text.astype(np.float64) - text.astype(np.float64).mean(axis=0))
    np.testing.assert_allclose(profile["text"], unit(likes[users].toarray() @ x), atol=1e-6)
    asked = model.recommend_new_users(vectors=profile, k=9, exclude=likes[users])
    assert_same_bytes(asked, model.recommend(users, k=9))
    given = new_model({"text": 1.0}).fit(likes, {"text": text}, {"text": np.ones((N_USERS, 6))})
    np.testing.assert_array_equal(given.profile(3)["text"], np.ones((1, 6)))


def test_friends_and_profiles_beat_popularity(rng):
    """Users who are left out of the fit: their friends share their topics."""
    data = synthetic(400, 300, 12000, random_state=3, item_exponent=0.2)
    matrix = data.interactions.to_csr()
    cold, warm = np.arange(0, 400, 5), np.setdiff1d(np.arange(400), np.arange(0, 400, 5))
    model = recfuse.MultimodalRecommender(
        {"als": recfuse.AlternatingLeastSquares(factors=16, random_state=0)},
        weights={"als": 1.0, "popularity": 0.2},
    ).fit(matrix[warm])
    noisy = data.user_topics + 0.1 * rng.standard_normal(data.user_topics.shape)
    like = similar_profiles(noisy[cold], noisy[warm], k=30)
    ids, _ = model.recommend_new_users(like=like, k=20)
    nobody, _ = model.recommend_new_users(sp.csr_array((len(cold), 300)), k=20)
    borrowed, popular = (
        ranking_metrics(lists, matrix[cold], k=20)["ndcg@20"] for lists in (ids, nobody)
    )
    assert borrowed > 1.25 * popular
    few = sp.csr_array(matrix[cold])
    few.data = np.where(np.arange(few.nnz) - np.repeat(few.indptr[:-1], np.diff(few.indptr)) < 3,
                        few.data, 0)  # fmt: skip
    few.eliminate_zeros()
    rest = sp.csr_array(matrix[cold] - few)
    rest.eliminate_zeros()
    scores = {
        name: ranking_metrics(model.recommend_new_users(few, 20, **how)[0], rest, k=20)["ndcg@20"]
        for name, how in {"own": {}, "both": {"like": like}}.items()
    }
    assert scores["both"] > 1.1 * scores["own"]


def test_similar_profiles(rng):
    known, asked = rng.standard_normal((30, 4)), rng.standard_normal((5, 4))
    got = similar_profiles(asked, known, k=6).toarray()
    cosine = unit(asked) @ unit(known).T
    for row in range(5):
        best = np.argsort(-cosine[row])[:6]
        best = best[cosine[row, best] > 0]
        assert sorted(np.flatnonzero(got[row])) == sorted(best)
        np.testing.assert_allclose(got[row, best], cosine[row, best], rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, ValueError, "user_items must be given, or like, or vectors"),
        ({"user_items": sp.csr_array((2, 5))}, ValueError, "user_items must have shape"),
        ({"like": sp.csr_array((2, 5))}, ValueError, r"like\['like'\] must have shape"),
        ({"like": sp.csr_array(-np.ones((1, 60)))}, ValueError, "must be finite and at least 0"),
        ({"vectors": {"text": np.ones((1, 5))}}, ValueError, r"vectors\['text'\] must have shape"),
        ({"vectors": {"x": np.ones((1, 5))}}, ValueError, "must name modalities with vectors"),
        (
            {"user_items": sp.csr_array((1, 90)), "own": -1.0},
            ValueError,
            "recommend_new_users: own must be at least 0",
        ),
        ({"user_items": sp.csr_array((1, 90)), "k": 0}, ValueError, "k must be at least 1"),
    ],
)
def test_bad_requests_are_named(likes, text, options, error, message):
    model = new_model().fit(likes, {"text": text})
    with pytest.raises(error, match=message):
        model.recommend_new_users(**options)


def test_popularity_needs_its_modality(likes):
    model = new_model({"als": 1.0}, popularity=False).fit(likes)
    with pytest.raises(ValueError, match="popularity must be 0"):
        model.recommend_new_users(likes[[0]], popularity=1.0)


# Items ------------------------------------------------------------------------------------------


def left_out_errors(x, y, penalty):
    """Fit as many times as there are items, each time without one."""
    errors = []
    for i in range(len(x)):
        keep = np.arange(len(x)) != i
        x_mean, y_mean = x[keep].mean(axis=0), y[keep].mean(axis=0)
        a = (x[keep] - x_mean).T @ (x[keep] - x_mean) + penalty * np.eye(x.shape[1])
        b = np.linalg.solve(a, (x[keep] - x_mean).T @ (y[keep] - y_mean))
        errors.append(np.sum((y[i] - y_mean - (x[i] - x_mean) @ b) ** 2))
    return sum(errors)


@pytest.mark.parametrize("noise", [0.1, 3.0])
def test_the_map_is_ridge_with_the_best_penalty(rng, noise):
    x, z = rng.standard_normal((40, 5)), rng.standard_normal((40, 3))
    x, z = x.astype(np.float32), z.astype(np.float32)
    z[::4] = 0
    y = (x @ rng.standard_normal((5, 2)) + noise * rng.standard_normal((40, 2))).astype(np.float32)
    grid = [0.01, 1.0, 100.0, 1000.0]
    fitted = FactorMap(grid).fit({"x": x, "z": z}, y)
    columns = np.hstack([x, z, z.any(axis=1)[:, None]]).astype(np.float64)
    errors = [left_out_errors(columns, y.astype(np.float64), penalty) for penalty in grid]
    assert fitted.regularization_ == grid[int(np.argmin(errors))]
    spread = left_out_errors(np.zeros((40, 1)), y.astype(np.float64), 1.0)
    assert fitted.r2_ == pytest.approx(1 - min(errors) / spread)
    linear = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is not installed")
    oracle = linear.Ridge(fitted.regularization_).fit(columns, y.astype(np.float64))
    np.testing.assert_allclose(
        fitted.predict({"x": x, "z": z}), oracle.predict(columns), rtol=1e-4, atol=1e-5
    )
    alone = np.hstack([x, np.zeros((40, 4))])
    np.testing.assert_allclose(
        fitted.predict({"x": x}), oracle.predict(alone), rtol=1e-4, atol=1e-5
    )


def test_the_map_survives_a_file_and_degenerate_input(rng, tmp_path):
    fitted = FactorMap().fit({"x": normal(rng, 20, 3)}, normal(rng, 20, 2))
    fitted.save(tmp_path / "map")
    asked = {"x": normal(rng, 4, 3)}
    np.testing.assert_array_equal(
        recfuse.load(tmp_path / "map").predict(asked), fitted.predict(asked)
    )
    wide = FactorMap().fit({"x": normal(rng, 4, 50)}, normal(rng, 4, 2))
    assert np.isfinite(wide.predict({"x": normal(rng, 3, 50)})).all()
    alike = FactorMap().fit({"x": np.ones((9, 2))}, np.ones((9, 3)))
    np.testing.assert_allclose(alike.predict({"x": np.zeros((1, 2))}), np.ones((1, 3)))
    with pytest.raises(ValueError, match="fit: regularizations must be above 0"):
        FactorMap([0.0]).fit({"x": np.ones((9, 2))}, np.ones((9, 3)))
    with pytest.raises(ValueError, match="vectors must have one row per item"):
        FactorMap().fit({"x": np.ones((8, 2))}, np.ones((9, 3)))
    with pytest.raises(ValueError, match="vectors must name modalities"):
        fitted.predict({"y": np.ones((8, 2))})
    with pytest.raises(ValueError, match=r"vectors\['x'\] must have shape"):
        fitted.predict({"x": np.ones((8, 2))})


def test_items_earn_their_own_factors(likes, text):
    c = 4.0
    model = new_model({"als": 1.0}, cold_items=c, popularity=False).fit(likes, {"text": text})
    block = model._index.blocks["als"]
    counts = np.bincount(likes.indices, minlength=N_ITEMS)
    x = unit(text.astype(np.float64) - text.astype(np.float64).mean(axis=0)).astype(np.float32)
    learned = model.models_["als"].item_factors_
    predicted = FactorMap().fit({"text": x[counts >= 5]}, learned[counts >= 5])
    share = (counts / (counts + c))[:, None]
    expected = share * learned + (1 - share) * predicted.predict({"text": x})
    np.testing.assert_allclose(block.item_vectors[:, :-1], expected, atol=1e-5)
    assert block.present.all()
    ids, _ = model.recommend([3, 4], k=10, allow=np.arange(80, 90))
    assert (np.sort(ids) == np.arange(80, 90)).all()
    assert (ids[0, :3] % 2 == 1).all() and (ids[1, :3] % 2 == 0).all()
    # What is not in the catalogue gets what an untouched item of this content has.
    new, _ = model.recommend_new_items([3, 4], {"text": text[80:]}, k=10)
    np.testing.assert_array_equal(new + 80, ids)
    with pytest.raises(ValueError, match="fit: cold_items must be above 0; got 0"):
        new_model(cold_items=0).fit(likes)


def test_the_map_beats_chance_and_popularity_on_cold_items():
    data = synthetic(600, 400, 20000, random_state=5)
    matrix = data.interactions.to_csr()
    cold = np.arange(0, 400, 4)
    is_cold = np.isin(np.arange(400), cold)
    warm = sp.csr_array(matrix @ sp.diags_array((~is_cold).astype(np.float32)))
    warm.eliminate_zeros()
    test = sp.csr_array(matrix @ sp.diags_array(is_cold.astype(np.float32)))
    test.eliminate_zeros()
    users = np.flatnonzero(np.diff(test.indptr))
    model = recfuse.MultimodalRecommender(
        {"als": recfuse.AlternatingLeastSquares(factors=16, random_state=0)},
        weights={"als": 1.0},
        cold_items=5.0,
    ).fit(warm, data.items)
    assert model._index.blocks["als"].map.r2_ > 0.1
    ids, _ = model.recommend(users, k=10, allow=cold)
    rng = np.random.default_rng(0)
    chance = np.stack([rng.permutation(cold)[:10] for _ in users])
    found, by_chance = (
        ranking_metrics(lists, test[users], k=10)["ndcg@10"] for lists in (ids, chance)
    )
    assert found > 1.8 * by_chance
