"""The multimodal recommender against a dense oracle, and its promises to users."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import scipy.sparse as sp

import recfuse
from helpers import assert_same_bytes, normal
from recfuse.errors import NotFittedError
from recfuse.fusion._patterns import merge_lists, pattern, union, values_at, without
from recfuse.fusion.weights import CachedScores, best_weights

N_USERS, N_ITEMS = 60, 90


@pytest.fixture
def likes(rng) -> sp.csr_array:
    """Two tastes; items from 80 on are untouched, user 0 has no history."""
    taste = np.arange(N_USERS)[:, None] % 2 == np.arange(N_ITEMS)[None, :] % 2
    dense = rng.random((N_USERS, N_ITEMS)) < np.where(taste, 0.3, 0.05)
    dense[:, 80:] = False
    dense[0] = False
    return sp.csr_array(dense.astype(np.float32) * rng.integers(1, 4, dense.shape))


@pytest.fixture
def content(rng) -> dict[str, np.ndarray]:
    """Text tells the tastes apart; some images are missing."""
    text = normal(rng, N_ITEMS, 6)
    text[:, 0] += np.where(np.arange(N_ITEMS) % 2, 2, -2)
    image = normal(rng, N_ITEMS, 4)
    image[::5] = 0
    return {"text": text, "image": image}


def new_model(**options):
    behaviour = {
        "als": recfuse.AlternatingLeastSquares(factors=4, iterations=3, random_state=1),
        "neighbours": recfuse.ItemNeighbours(k=8),
    }
    return recfuse.MultimodalRecommender(behaviour, **options)


WEIGHTS = {"als": 0.3, "neighbours": 0.25, "text": 0.2, "image": 0.15, "popularity": 0.1}


def zscore(scores: np.ndarray, present: np.ndarray) -> np.ndarray:
    inside = scores[:, present]
    std = inside.std(axis=1, keepdims=True)
    return np.divide(
        scores - inside.mean(axis=1, keepdims=True),
        std,
        out=np.zeros_like(scores),
        where=std > 1e-9,
    )


def dense_parts(model, likes, content, weights) -> np.ndarray:
    """Every contribution (n_users, n_items, n_modalities), NaN where an item is not ranked."""
    history = likes.toarray().astype(np.float64)
    touched = history.any(axis=0)
    similarity = model.models_["neighbours"].similarity_.toarray().astype(np.float64)
    als = model.models_["als"]
    scores = {
        "als": als.user_factors_.astype(np.float64) @ als.item_factors_.T.astype(np.float64),
        "neighbours": history @ similarity,
    }
    present = {"als": touched, "neighbours": touched, "popularity": touched}
    for name, vectors in content.items():
        here = vectors.any(axis=1)
        x = np.where(here[:, None], vectors - vectors[here].mean(axis=0), 0).astype(np.float64)
        norms = np.linalg.norm(x, axis=1, keepdims=True)
        x = np.divide(x, norms, out=np.zeros_like(x), where=norms > 0)
        scores[name], present[name] = history @ x @ x.T, here
    scores["popularity"] = np.log1p((history > 0).sum(axis=0))[None] * np.ones((N_USERS, 1))
    parts, here = [], []
    for name in model.modalities_:
        parts.append(weights[name] * zscore(scores[name], present[name]) * present[name])
        here.append(weights[name] * present[name])
    share = np.sum(here, axis=0)
    factor = np.divide(sum(weights.values()), share, out=np.full(N_ITEMS, np.nan), where=share > 0)
    return np.stack(parts, axis=2) * factor[None, :, None]


@pytest.mark.parametrize(
    "weights",
    [
        WEIGHTS,
        {"neighbours": 1.0},
        {"als": 1.0},
        {"text": 0.5, "image": 0.5},
        {"neighbours": 0.5, "image": 0.5},
    ],
)
def test_matches_a_dense_oracle(likes, content, weights):
    weights = {name: weights.get(name, 0.0) for name in WEIGHTS}
    model = new_model(weights=weights).fit(likes, content)
    users = np.arange(1, N_USERS)  # user 0 has no history
    ids, scores, parts = model.recommend(users, k=25, contributions=True)
    expected = dense_parts(model, likes, content, weights)
    total = expected.sum(axis=2)
    total[likes.toarray() > 0] = np.nan
    for row, user in enumerate(users):
        listed = ids[row][ids[row] >= 0]
        np.testing.assert_allclose(scores[row][: len(listed)], total[user, listed], atol=2e-5)
        np.testing.assert_allclose(parts[row][: len(listed)], expected[user, listed], atol=2e-5)
        others = np.setdiff1d(np.flatnonzero(~np.isnan(total[user])), listed)
        if len(listed) == 25 and len(others):
            assert total[user, others].max() <= scores[row, 24] + 2e-5
        else:
            assert len(others) == 0


@pytest.mark.parametrize("normalise", [False, True])
def test_user_neighbours_match_a_dense_oracle(likes, content, normalise):
    weights = {"users": 0.7, "text": 0.3, "image": 0.0, "popularity": 0.0}
    behaviour = {"users": recfuse.UserNeighbours(k=7, normalise=normalise)}
    model = recfuse.MultimodalRecommender(behaviour, weights=weights).fit(likes, content)
    history = likes.toarray().astype(np.float64)
    near = model.models_["users"].similarity_.toarray().astype(np.float64)
    expected = near @ history
    if normalise:
        having = near @ (history > 0)
        expected = np.divide(expected, having, out=np.zeros_like(expected), where=having > 0)
    touched = history.any(axis=0)
    expected = 0.7 * zscore(expected, touched)
    users = np.arange(1, N_USERS)
    ids, _, parts = model.recommend(users, k=20, contributions=True)
    only_touched = touched[ids] & (ids >= 0)
    at = model.modalities_.index("users")
    np.testing.assert_allclose(
        parts[:, :, at][only_touched], expected[users[:, None], ids][only_touched], atol=2e-5
    )
    assert only_touched.any()


def test_user_neighbours_say_nothing_of_new_users_and_are_saved(likes, content, tmp_path):
    behaviour = {"users": recfuse.UserNeighbours(k=7)}
    model = recfuse.MultimodalRecommender(behaviour, weights={"users": 1, "text": 1})
    model.fit(likes, content)
    at = model.modalities_.index("users")
    parts = model.recommend_new_users(likes[[3]], k=5, contributions=True)[2]
    assert (parts[:, :, at] == 0).all()
    model.save(tmp_path / "model")
    users = np.arange(N_USERS)
    assert_same_bytes(
        recfuse.load(tmp_path / "model").recommend(users, k=9), model.recommend(users, k=9)
    )
    why = model.explain(3, int(model.recommend(3, k=1)[0][0, 0]))
    assert "users" not in why.past


def test_parts_add_up_and_lists_are_ordered(likes, content):
    model = new_model(weights=WEIGHTS).fit(likes, content)
    ids, scores, parts = model.recommend(np.arange(N_USERS), k=30, contributions=True)
    total = np.zeros(ids.shape)
    for m in range(parts.shape[2]):
        total += parts[:, :, m]
    listed = ids >= 0
    np.testing.assert_array_equal(total.astype(np.float32)[listed], scores[listed])
    assert (np.diff(scores, axis=1) <= 0).all()
    assert not (likes.toarray()[np.arange(N_USERS)[:, None], ids] * listed).any()


def test_prefix_batches_and_threads(likes, content):
    whole = new_model(weights=WEIGHTS).fit(likes, content).recommend(np.arange(N_USERS), k=20)
    one_thread = new_model(weights=WEIGHTS, num_threads=1).fit(likes, content)
    short = one_thread.recommend(np.arange(N_USERS), k=7)
    assert_same_bytes(short, tuple(np.ascontiguousarray(a[:, :7]) for a in whole))
    alone = [one_thread.recommend(u, k=20) for u in range(N_USERS)]
    assert_same_bytes(tuple(np.concatenate(a) for a in zip(*alone, strict=True)), whole)


def test_untouched_items_are_recommended_by_their_content(likes, content):
    model = new_model(weights=WEIGHTS).fit(likes, content)
    cold = np.arange(80, N_ITEMS)
    ids, _, parts = model.recommend([3, 4], k=10, allow=cold, contributions=True)
    assert (np.sort(ids) == cold).all()
    behaviour = [model.modalities_.index(m) for m in ("als", "neighbours", "popularity")]
    assert (parts[:, :, behaviour] == 0).all()
    assert (ids[0, :3] % 2 == 1).all() and (ids[1, :3] % 2 == 0).all()


def test_a_user_without_history_gets_what_is_popular(likes, content):
    weights = {**WEIGHTS, "popularity": 0.0}
    ids, _ = new_model(weights=weights).fit(likes, content).recommend(0, k=5)
    counts = np.bincount(likes.indices, minlength=N_ITEMS)
    assert ids[0].tolist() == np.argsort(-counts, kind="stable")[:5].tolist()


def test_filters(likes, content, rng):
    model = new_model(weights=WEIGHTS).fit(likes, content)
    users = np.array([5, 9, 9, 2])
    everything, _ = model.recommend(users, k=N_ITEMS, exclude_seen=False)
    assert (np.sort(everything, axis=1)[:, -N_ITEMS:] == np.arange(N_ITEMS)).all()
    dense = rng.random((4, N_ITEMS)) < 0.5
    ids, _ = model.recommend(users, k=20, exclude=sp.csr_array(dense))
    assert not (dense[np.arange(4)[:, None], ids] & (ids >= 0)).any()
    ids, _ = model.recommend(users, k=20, allow=sp.csr_array(dense))
    assert (dense[np.arange(4)[:, None], ids] | (ids < 0)).all()


def test_fitted_weights_beat_every_modality_on_the_validation(likes, content):
    model = new_model(k=5).fit(likes, content)
    assert sum(model.weights_.values()) == pytest.approx(1)
    assert min(model.weights_.values()) >= 0
    again = new_model(k=5).fit(likes, content)
    assert again.weights_ == model.weights_
    assert 0 < model.validation_ndcg_ <= 1
    np.testing.assert_array_equal(model.user_items_.toarray(), likes.toarray())


def test_validation_events_join_the_history(likes, content):
    later = likes.copy()
    later.data = np.where(np.arange(likes.nnz) % 4 == 0, later.data, 0)
    later.eliminate_zeros()
    train = sp.csr_array(likes - later)
    train.eliminate_zeros()
    model = new_model().fit(train, content, validation=later)
    np.testing.assert_array_equal(model.user_items_.toarray(), likes.toarray())


def test_explain_is_the_score(likes, content):
    model = new_model(weights=WEIGHTS).fit(likes, content)
    ids, scores, parts = model.recommend(7, k=4, contributions=True)
    for rank in range(4):
        explanation = model.explain(7, int(ids[0, rank]))
        assert explanation.score == scores[0, rank]
        assert list(explanation.contributions.values()) == parts[0, rank].tolist()
        for similar in explanation.because.values():
            assert all(likes[7, item] != 0 for item, _ in similar)
    seen = int(likes[[7]].indices[0])
    assert np.isfinite(model.explain(7, seen).score)


def test_new_items_rank_as_they_would_inside_the_catalogue(likes, content):
    """A new item that equals one of the catalogue gets its score by content."""
    model = new_model(weights=WEIGHTS).fit(likes, content)
    copies = {name: vectors[[80, 85, 83]] for name, vectors in content.items()}
    ids, scores = model.recommend_new_items([3, 4], copies, k=3)
    known, expected = model.recommend([3, 4], k=3, allow=[80, 85, 83])
    original = np.array([80, 85, 83])
    np.testing.assert_array_equal(original[ids], known)
    # Those of the catalogue have the weights of the modalities that they lack as well.
    content_share = (WEIGHTS["text"] + WEIGHTS["image"]) / sum(WEIGHTS.values())
    np.testing.assert_allclose(scores, expected * content_share, rtol=1e-5)


def test_save_and_load(likes, content, tmp_path):
    model = new_model().fit(likes, content)
    users = np.arange(N_USERS)
    expected = model.recommend(users, k=10)
    model.save(tmp_path / "modèle.recfuse")
    loaded = recfuse.load(tmp_path / "modèle.recfuse")
    assert loaded.weights_ == model.weights_
    assert repr(loaded.get_params()) == repr(model.get_params())
    assert_same_bytes(loaded.recommend(users, k=10), expected)
    assert loaded.explain(3, 4) == model.explain(3, 4)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert_same_bytes(other.recommend(users, k=10), expected)


def test_saving_needs_a_fitted_model_and_data(likes, tmp_path):
    with pytest.raises(NotFittedError, match="must be fitted"):
        new_model().save(tmp_path / "x")
    odd = recfuse.Popularity().fit(likes)
    odd.extra_ = object()
    with pytest.raises(TypeError, match="must be data; got object"):
        odd.save(tmp_path / "x")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"items": {"text": np.ones((3, 2))}}, ValueError, r"one row per column .* \(90\); got 3"),
        ({"items": {"als": np.ones((N_ITEMS, 2))}}, ValueError, "must name different modalities"),
        ({"users": {"audio": np.ones((N_USERS, 2))}}, ValueError, "users must name modalities"),
        ({"users": {"text": np.ones((3, 6))}}, ValueError, r"users\['text'\] must have shape"),
        ({"present": {"audio": [True]}}, ValueError, "present must name modalities"),
        ({"present": {"text": np.ones(3, bool)}}, ValueError, r"present\['text'\] must have shape"),
        ({"present": {"text": np.ones(N_ITEMS)}}, TypeError, r"present\['text'\] must be boolean"),
        ({"items": [np.ones((N_ITEMS, 2))]}, TypeError, "items must be a mapping .* got list"),
        ({"items": np.ones((N_ITEMS, 2))}, TypeError, "items must be a mapping .* got ndarray"),
        ({"weights": {"als": 0.0}}, ValueError, "weights must not all be 0"),
        ({"weights": {"als": np.nan}}, ValueError, r"weights\['als'\] must be finite; got nan"),
        ({"weights": {"als": "a"}}, TypeError, r"weights\['als'\] must be a number; got 'a'"),
        ({"validation": sp.csr_array((3, 3))}, ValueError, "validation must have shape"),
        (
            {"weights": {"audio": 1.0}},
            ValueError,
            r"weights must name modalities .* got \['audio'\]",
        ),
        ({"weights": "equal"}, ValueError, "weights must be 'fit' or a mapping; got 'equal'"),
        ({"user_items": np.ones((3, 3))}, TypeError, "user_items must be a SciPy sparse"),
    ],
)
def test_bad_arguments_are_named(likes, content, change, error, message):
    arguments = {"user_items": likes, "items": content, **change}
    model = new_model(weights=arguments.pop("weights", WEIGHTS))
    with pytest.raises(error, match=message):
        model.fit(**arguments)
    with pytest.raises(NotFittedError):
        model.recommend(0)


def test_bad_requests_are_named(likes, content):
    model = new_model(weights=WEIGHTS).fit(likes, content)
    with pytest.raises(IndexError, match=r"user_ids must be in \[0, 60\); got 60"):
        model.recommend([0, 60])
    with pytest.raises(IndexError, match=r"allow must be in \[0, 90\); got 90"):
        model.recommend(0, allow=[90])
    with pytest.raises(ValueError, match=r"exclude must have shape \(1, 90\)"):
        model.recommend(0, exclude=sp.csr_array((2, 90)))
    with pytest.raises(ValueError, match="weights must name modalities"):
        model.recommend(0, weights={"txt": 1.0})
    with pytest.raises(IndexError, match="item_id must be in"):
        model.explain(0, 90)
    with pytest.raises(ValueError, match="explain: item_id must be one id; got 2"):
        model.explain(0, [1, 2])
    with pytest.raises(ValueError, match="weights must not all be 0"):
        model.recommend(0, weights={"als": 0})
    with pytest.raises(ValueError, match="items must name modalities"):
        model.recommend_new_items(0, {"als": np.ones((1, 4))})
    with pytest.raises(ValueError, match=r"items\['text'\] must have 6 columns; got 5"):
        model.recommend_new_items(0, {"text": np.ones((1, 5))})


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"k": 0}, ValueError, "k must be at least 1; got 0"),
        ({"k": 2.5}, TypeError, "k must be an integer; got 2.5"),
        ({"behaviour": [recfuse.ItemNeighbours()]}, TypeError, "behaviour must be a mapping"),
        (
            {"behaviour": {"popular": recfuse.Popularity()}},
            TypeError,
            r"behaviour\['popular'\] must have item factors or neighbours.*got Popularity",
        ),
    ],
)
def test_bad_options_are_named(likes, content, options, error, message):
    with pytest.raises(error, match=message):
        recfuse.MultimodalRecommender(**options).fit(likes, content)


def test_interactions_are_an_allow_list(likes, content):
    rows, columns = np.nonzero(np.add.outer(np.arange(N_USERS), np.arange(N_ITEMS)) % 7 == 0)
    admitted = recfuse.Interactions.from_arrays(rows, columns)
    model = new_model(weights=WEIGHTS).fit(likes, content)
    users = np.arange(N_USERS)
    expected = model.recommend(users, k=5, allow=admitted.to_csr())
    assert_same_bytes(model.recommend(users, k=5, allow=admitted), expected)


def test_validation_of_other_items_is_refused(rng, content):
    users, items = rng.integers(0, N_USERS, 4000), rng.integers(0, N_ITEMS, 4000)
    train = recfuse.Interactions.from_arrays(users, items)
    other = recfuse.Interactions.from_arrays(users, 1000 - items)
    assert train.to_csr().shape == other.to_csr().shape == (N_USERS, N_ITEMS)
    with pytest.raises(ValueError, match="validation must have the items of user_items"):
        recfuse.MultimodalRecommender().fit(train, content, validation=other)


def test_item_biases_take_part(rng, likes):
    ratings = likes.copy()
    ratings.data = rng.integers(1, 6, ratings.nnz).astype(np.float32)
    als = recfuse.AlternatingLeastSquares(
        4, objective="explicit", biases=True, regularization=1.0, random_state=0
    )
    model = recfuse.MultimodalRecommender({"als": als}, weights={"als": 1.0}, popularity=False)
    ids, scores = model.fit(ratings).recommend(np.arange(10), k=20)
    touched = np.flatnonzero(np.diff(sp.csc_array(ratings).indptr))
    for user in range(10):
        predicted = als.predict(np.full(len(touched), user), touched).astype(np.float64)
        z = dict(zip(touched, (predicted - predicted.mean()) / predicted.std(), strict=True))
        listed = ids[user][ids[user] >= 0]
        np.testing.assert_allclose(scores[user][: len(listed)], [z[i] for i in listed], atol=1e-4)


def test_patterns(rng):
    a, b = (rng.random((2, 6, 9)) < 0.4).astype(np.float32)
    first, second = sp.csr_array(a), sp.csr_array(b)
    np.testing.assert_array_equal(union(first, second).toarray(), np.maximum(a, b))
    np.testing.assert_array_equal(without(pattern(first), second).toarray(), a * (1 - b))
    values = sp.csr_array(b * 3)
    np.testing.assert_array_equal(values_at(values, pattern(first)), (b * 3)[a > 0])


def test_merging_lists_keeps_the_total_order():
    ids = np.array([[4, 2, -1]], np.int32)
    parts = np.array([[[0.5, 0.5], [0.25, 0.0], [0.0, 0.0]]])
    pairs = pattern(sp.csr_array(np.array([[1.0, 0, 0, 1, 0, 1]])))
    pair_parts = np.array([[1.0, 0.0], [2.0, 0.0], [np.nan, 0.0]])
    got, scores, merged = merge_lists(ids, parts, pairs, pair_parts)
    assert got.tolist() == [[3, 0, 4]]
    assert scores.tolist() == [[2.0, 1.0, 1.0]]
    assert merged[0].tolist() == [[2.0, 0.0], [1.0, 0.0], [0.5, 0.5]]


@pytest.mark.parametrize("n_pairs", [0, 3, 400])
def test_merging_lists_is_sorting_everything(rng, n_pairs):
    """Scores of few values, so that most are equal; infinite ones, and ones that are no number."""
    n, k, n_items = 7, 5, 300
    values = np.array([-np.inf, -1.5, -0.0, 0.0, 0.25, 3.0, np.inf, np.nan])
    items = np.array([rng.permutation(n_items) for _ in range(n)])
    ids = np.where(rng.random((n, k)) < 0.8, items[:, :k], -1).astype(np.int32)
    parts = np.where((ids < 0)[..., None], 0, rng.choice(values[1:6], (n, k, 2)))
    rest = rng.permutation(np.argwhere(np.ones((n, n_items - k), bool)))[:n_pairs]
    columns = items[rest[:, 0], k + rest[:, 1]]
    pairs = pattern(sp.csr_array((np.ones(len(rest)), (rest[:, 0], columns)), shape=(n, n_items)))
    pair_parts = np.column_stack([rng.choice(values, n_pairs), rng.choice([0.0, 1.0], n_pairs)])

    got, scores, merged = merge_lists(ids, parts, pairs, pair_parts)
    for row in range(n):
        here = slice(pairs.indptr[row], pairs.indptr[row + 1])
        entries = [
            *zip(ids[row].tolist(), parts[row].tolist(), strict=True),
            *zip(pairs.indices[here].tolist(), pair_parts[here].tolist(), strict=True),
        ]
        ranked = sorted(
            (-sum(terms), item, terms)
            for item, terms in entries
            if item >= 0 and not np.isnan(sum(terms))
        )[:k]
        n_found = len(ranked)
        assert got[row].tolist() == [item for _, item, _ in ranked] + [-1] * (k - n_found)
        assert scores[row].tolist() == [-s for s, _, _ in ranked] + [-np.inf] * (k - n_found)
        assert merged[row, :n_found].tolist() == [terms for _, _, terms in ranked]
        assert (merged[row, n_found:] == 0).all()


def test_a_modality_without_weight_is_not_asked(likes, content, monkeypatch):
    model = new_model(weights=WEIGHTS).fit(likes, content)
    before = model.recommend(np.arange(20), weights={"als": 1.0}, contributions=True)
    for name in ("neighbours", "text", "image"):
        monkeypatch.setattr(model._index.blocks[name], "queries", _not_asked)
    assert_same_bytes(
        model.recommend(np.arange(20), weights={"als": 1.0}, contributions=True), before
    )


def test_what_a_users_own_weights_leave_out_stays_out_beside_others(likes, content):
    """An image is all that user 2 asks for; the neighbours that user 1 asks reach items without."""
    model = new_model(weights=WEIGHTS).fit(likes, content)
    weights = {"neighbours": [1.0, 0.0], "image": [0.0, 1.0]}
    got = model.recommend([1, 2], N_ITEMS, exclude_seen=False, weights=weights, contributions=True)
    alone = model.recommend(
        2, N_ITEMS, exclude_seen=False, weights={"image": 1.0}, contributions=True
    )
    assert_same_bytes([part[1:] for part in got], alone)
    assert (alone[0] < 0).sum() == N_ITEMS // 5


@pytest.mark.parametrize("weights", [WEIGHTS, {"image": 1.0}, {"als": 0.5, "text": 0.5}])
def test_scores_of_all_items_are_those_of_the_lists(likes, content, weights):
    model = new_model(weights=WEIGHTS).fit(likes, content)
    users = np.array([0, 3, 7])
    weights = {name: np.full(3, weights.get(name, 0.0)) for name in model.modalities_}
    weights["text"][1] = 0.7
    ids, scores = model.recommend(users, N_ITEMS, exclude_seen=False, weights=weights)
    expected = np.full((3, N_ITEMS), np.nan, np.float32)
    for row in range(3):
        listed = ids[row] >= 0
        expected[row, ids[row, listed]] = scores[row, listed]
    got = model._index.scores(users, model.user_items_[users], weights)
    np.testing.assert_array_equal(got, expected, strict=True)


def _not_asked(*_):
    raise AssertionError("a modality of weight 0 was asked")


def cached(scores, relevant, present=None):
    n_users, n_items, n_modalities = scores.shape
    return CachedScores(
        pairs=pattern(sp.csr_array(np.ones((n_users, n_items)))),
        scores=scores.reshape(-1, n_modalities),
        present=np.ones((n_users * n_items, n_modalities), bool) if present is None else present,
        relevant=relevant.ravel(),
        n_relevant=relevant.sum(axis=1),
    )


def test_ndcg_of_weights_is_that_of_the_evaluation(rng):
    from recfuse.evaluation import ranking_metrics

    scores = rng.standard_normal((20, 30, 3))
    relevant = rng.random((20, 30)) < 0.15
    weights = np.array([0.2, 0.5, 0.3])
    order = np.argsort(-(scores @ weights), axis=1)[:, :10].astype(np.int32)
    expected = ranking_metrics(order, sp.csr_array(relevant.astype(np.float32)), k=10)
    assert cached(scores, relevant).ndcg(weights, 10) == pytest.approx(expected["ndcg@10"])


def test_weights_find_the_modality_that_tells(rng):
    relevant = rng.random((40, 50)) < 0.1
    scores = rng.standard_normal((40, 50, 3))
    scores[:, :, 1] += 4 * relevant
    weights, ndcg, _ = best_weights(cached(scores, relevant), "ndcg", 10, rng)
    assert weights.argmax() == 1
    assert ndcg >= max(cached(scores, relevant).ndcg(w, 10) for w in np.eye(3))


def test_weights_per_user_are_those_users_alone(likes, content):
    model = new_model(weights=WEIGHTS).fit(likes, content)
    users, other = np.array([3, 0, 8]), {"text": 1.0, "neighbours": 0.5}
    mixed = {
        "text": np.array([0.2, 1.0, 1.0]),
        "neighbours": np.array([0.25, 0.5, 0.5]),
        "als": np.array([0.3, 0, 0]),
        "image": np.array([0.15, 0, 0]),
        "popularity": np.array([0.1, 0, 0]),
    }
    got = model.recommend(users, k=6, weights=mixed, contributions=True)
    first = model.recommend(users[:1], k=6, weights=WEIGHTS, contributions=True)
    rest = model.recommend(users[1:], k=6, weights=other, contributions=True)
    joined = tuple(np.concatenate(pair) for pair in zip(first, rest, strict=True))
    assert_same_bytes(got, joined)
    with pytest.raises(ValueError, match=r"recommend: weights\['text'\] must be .* per user \(3\)"):
        model.recommend(users, weights={"text": [1.0, 2.0]})
    with pytest.raises(ValueError, match="recommend: weights must not all be 0"):
        model.recommend(users, weights={"text": [1.0, 0.0, 1.0]})


@pytest.fixture
def segmented(rng):
    """Half of the users go by the text, half by the image."""
    n_users, n_items = 240, 60
    vectors = {name: normal(rng, n_items, 4) for name in ("text", "image")}
    labels = np.where(np.arange(n_users) % 2, "by image", "by text")
    chance = np.empty((n_users, n_items))
    for user, label in enumerate(labels):
        x = vectors[label.removeprefix("by ")]
        chance[user] = np.argsort(np.argsort(-(x @ normal(rng, 4)))) < 14
    return (
        sp.csr_array((chance * (rng.random(chance.shape) < 0.7)).astype(np.float32)),
        vectors,
        labels,
    )


def test_segments_of_users_have_their_own_weights(segmented, tmp_path):
    likes, vectors, labels = segmented
    model = recfuse.MultimodalRecommender({}, metric="recall", k=5, popularity=False)
    model.fit(likes, vectors, segments=labels)
    assert set(model.segment_weights_) == {"by text", "by image"}
    for label, weights in model.segment_weights_.items():
        assert max(weights, key=weights.get) == label.removeprefix("by ")
    assert model.validation_["cross_validated"] <= 1 and model.validation_ndcg_ is None
    assert set(model.validation_["alone"]) == {"text", "image"}
    users = np.array([1, 0])
    got = model.recommend(users, k=4)
    for row, user in enumerate(users):
        alone = model.recommend(user, k=4, weights=model.segment_weights_[labels[user]])
        assert_same_bytes(tuple(x[row : row + 1] for x in got), alone)
    assert model.explain(1, int(got[0][0, 0])).score == got[1][0, 0]
    model.save(tmp_path / "model")
    assert_same_bytes(recfuse.load(tmp_path / "model").recommend(users, k=4), got)


def test_a_forgotten_user_is_in_no_segment(segmented):
    likes, vectors, labels = segmented
    model = recfuse.MultimodalRecommender({}, k=5, popularity=False)
    model.fit(likes, vectors, segments=labels)
    without = recfuse.privacy.forget_users(model, [1])
    for name, weights in without.user_weights_.items():
        assert weights[1] == model.weights_[name] != model.user_weights_[name][1]
        np.testing.assert_array_equal(
            np.delete(weights, 1), np.delete(model.user_weights_[name], 1)
        )
    others = np.array([0, 3])
    assert_same_bytes(without.recommend(others, k=4), model.recommend(others, k=4))


def test_wrong_segments_and_metrics(likes, content):
    with pytest.raises(ValueError, match=r"fit: segments must have shape \(60,\); got \(2,\)"):
        new_model().fit(likes, content, segments=[1, 2])
    with pytest.raises(ValueError, match="fit: segments must be None unless weights='fit'"):
        new_model(weights=WEIGHTS).fit(likes, content, segments=np.zeros(N_USERS))
    with pytest.raises(ValueError, match="fit: metric must be 'ndcg' or 'recall'; got 'mse'"):
        new_model(metric="mse").fit(likes, content)
