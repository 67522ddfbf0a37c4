"""recfuse.compat.implicit beside implicit itself, call by call, where it is installed."""

from __future__ import annotations

import inspect
import warnings

import numpy as np
import pytest

import recfuse.compat.implicit as ours
from compat_data import LEAST, random_plays
from recfuse.compat.implicit import evaluation as our_evaluation
from recfuse.compat.implicit import nearest_neighbours as our_neighbours
from recfuse.compat.implicit.cpu.topk import topk as our_topk

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    theirs = pytest.importorskip("implicit", reason="implicit is not installed")
    from implicit import evaluation as their_evaluation
    from implicit import nearest_neighbours as their_neighbours
    from implicit.cpu import als as their_cpu_als
    from implicit.cpu.topk import topk as their_topk

# Of implicit itself: of the threads of BLAS, and of its own matrices not being CSR.
pytestmark = [
    pytest.mark.filterwarnings("ignore:OpenBLAS is configured"),
    pytest.mark.filterwarnings("ignore:Method expects CSR input"),
]


@pytest.fixture
def plays(rng):
    return random_plays(rng, (300, 200), density=0.08)


def both(**how):
    how["num_threads"] = 1  # threads of OpenMP that wait for one another take seconds
    return (
        ours.als.AlternatingLeastSquares(use_gpu=False, **how),
        theirs.als.AlternatingLeastSquares(use_gpu=False, **how),
    )


def same_factors(rng, shape=(300, 200), factors=8):
    """Return two models with the same factors, no two scores of which are close."""
    models = both(factors=factors)
    users, items = (rng.standard_normal((n, factors)).astype(np.float32) for n in shape)
    for model in models:
        model.user_factors, model.item_factors = users.copy(), items.copy()
    return models


def assert_lists(got, expected, rtol=1e-5):
    for a, b in zip(got, expected, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
    real = expected[1] > LEAST
    np.testing.assert_array_equal(got[1] > LEAST, real)
    np.testing.assert_array_equal(got[0][real], expected[0][real])
    np.testing.assert_allclose(got[1][real], expected[1][real], rtol=rtol, atol=1e-6)
    np.testing.assert_array_equal(np.sort(got[0], axis=-1), np.sort(expected[0], axis=-1))


@pytest.mark.parametrize("use_cg", [True, False])
@pytest.mark.parametrize("alpha", [1.0, 4.0])
@pytest.mark.parametrize("low", [1.0, 0.1])
def test_the_same_start_leads_to_the_same_objective(rng, use_cg, alpha, low):
    plays = random_plays(rng, (80, 60), low=low)
    losses = []
    for model in both(factors=8, alpha=alpha, use_cg=use_cg, iterations=30, random_state=5):
        model.fit(plays, show_progress=False)
        losses.append(
            their_cpu_als.calculate_loss(
                plays * np.float32(alpha), model.user_factors, model.item_factors, 0.01
            )
        )
    assert losses[0] == pytest.approx(losses[1], rel=2e-3)


def test_the_first_exact_iterations_are_the_same(plays):
    a, b = both(factors=6, regularization=0.2, use_cg=False, iterations=3, random_state=9)
    for model in (a, b):
        model.fit(plays, show_progress=False)
    np.testing.assert_allclose(a.user_factors, b.user_factors, rtol=1e-3, atol=2e-4)
    np.testing.assert_allclose(a.item_factors, b.item_factors, rtol=1e-3, atol=2e-4)


def test_losses_of_callbacks_are_the_same(plays):
    seen = {}
    for name, model in zip(
        "ab",
        both(factors=6, use_cg=False, calculate_training_loss=True, random_state=2),
        strict=True,
    ):
        seen[name] = []
        model.fit(plays, show_progress=False, callback=lambda *v, n=name: seen[n].append(v))
    assert [v[0] for v in seen["a"]] == [v[0] for v in seen["b"]]
    np.testing.assert_allclose(*[[v[2] for v in seen[n]] for n in "ab"], rtol=1e-4)


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"N": 200},
        {"filter_already_liked_items": False},
        {"filter_items": np.array([3, 7, 50])},
        {"items": [5, 9, 1, 60, 61, 62]},
        {"items": np.arange(20), "filter_already_liked_items": False, "N": 7},
        {"recalculate_user": True},
    ],
)
def test_recommend_returns_the_same(rng, plays, how):
    a, b = same_factors(rng)
    users = np.array([4, 0, 299, 17])
    assert_lists(
        a.recommend(users, plays[users], **how), b.recommend(users, plays[users], **how), 1e-3
    )
    for user in (0, np.int32(17)):
        assert_lists(
            a.recommend(user, plays[user], **how), b.recommend(user, plays[user], **how), 1e-3
        )


def test_equal_scores_come_in_the_same_order(plays):
    a, b = both(factors=1)
    for model in (a, b):
        model.user_factors = np.ones((300, 1), np.float32)
        model.item_factors = np.repeat(np.arange(50), 4)[:, None].astype(np.float32)
    assert_lists(
        a.recommend(3, plays[3], N=8, filter_already_liked_items=False),
        b.recommend(3, plays[3], N=8, filter_already_liked_items=False),
    )


@pytest.mark.parametrize("side", ["user", "item"])
def test_similar_ones_are_the_same(rng, side):
    a, b = (getattr(m, f"similar_{side}s") for m in same_factors(rng))
    assert_lists(a(5), b(5))
    assert_lists(a([5, 0, 9], N=4), b([5, 0, 9], N=4))
    chosen = {f"{side}s": [9, 2, 30, 5]}
    assert_lists(a(5, N=4, **chosen), b(5, N=4, **chosen))
    left_out = {f"filter_{side}s": [5, 6]}
    assert_lists(a(5, **left_out), b(5, **left_out))


def test_recalculation_and_partial_fits_are_the_same(rng, plays):
    a, b = same_factors(rng)
    columns = plays.T.tocsr()
    for model in (a, b):
        model.alpha = 3.0
    one = [m.recalculate_user(0, plays[0]) for m in (a, b)]
    np.testing.assert_allclose(*one, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(
        *[
            m.similar_items([2, 3], recalculate_item=True, item_users=columns[[2, 3]])[1]
            for m in (a, b)
        ],
        rtol=1e-3,
        atol=1e-4,
    )
    for model in (a, b):
        model.partial_fit_users([300, 2], plays[[5, 6]])
        model.partial_fit_items([4], columns[[4]])
    np.testing.assert_allclose(a.user_factors, b.user_factors, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(a.item_factors, b.item_factors, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(a.item_norms, b.item_norms, rtol=1e-3)


def test_explanations_are_the_same(rng, plays):
    a, b = ((m.explain(7, plays, 11)) for m in same_factors(rng))
    assert a[0] == pytest.approx(b[0], rel=1e-3)
    assert [i for i, _ in a[1]] == [i for i, _ in b[1]]
    np.testing.assert_allclose([s for _, s in a[1]], [s for _, s in b[1]], rtol=1e-3, atol=1e-5)


def test_files_go_both_ways(rng, plays, tmp_path):
    a, b = both(factors=4, iterations=2, alpha=2.0, random_state=1)
    for model, name in ((a, "a.npz"), (b, "b.npz")):
        model.fit(plays, show_progress=False)
        model.save(tmp_path / name)
    to_them = their_cpu_als.AlternatingLeastSquares.load(str(tmp_path / "a.npz"))
    assert_lists(to_them.recommend(0, plays[0]), a.recommend(0, plays[0]))
    to_us = ours.als.AlternatingLeastSquares.load(str(tmp_path / "b.npz"))
    assert_lists(to_us.recommend(0, plays[0]), b.recommend(0, plays[0]))
    for name in ("alpha", "factors", "dtype", "cg_steps", "random_state", "use_cg"):
        assert getattr(to_us, name) == getattr(to_them, name)
    a, b = (n.BM25Recommender(K=5, num_threads=1) for n in (our_neighbours, their_neighbours))
    for model, name in ((a, "c.npz"), (b, "d.npz")):
        model.fit(plays.astype(np.float64), show_progress=False)
        model.save(str(tmp_path / name))
    to_them = their_neighbours.BM25Recommender.load(str(tmp_path / "c.npz"))
    to_us = our_neighbours.BM25Recommender.load(str(tmp_path / "d.npz"))
    assert_lists(to_us.similar_items(3), to_them.similar_items(3))


@pytest.mark.parametrize("norms", [True, False])
@pytest.mark.parametrize("filtered", [True, False])
def test_topk_is_the_same(rng, plays, norms, filtered):
    items, queries = rng.standard_normal((200, 12)), rng.standard_normal((150, 12))
    items, queries = items.astype(np.float32), queries.astype(np.float32)
    how = {"item_norms": np.linalg.norm(items, axis=1) if norms else None}
    if filtered:
        how |= {"filter_query_items": plays[:150], "filter_items": np.array([3, 4])}
    assert_lists(our_topk(items, queries, 9, **how), their_topk(items, queries, 9, **how))
    assert_lists(our_topk(items, queries[0], 9), their_topk(items, queries[0], 9))


@pytest.mark.parametrize("name", ["tfidf_weight", "bm25_weight", "normalize"])
def test_weights_are_the_same(plays, name):
    a, b = (getattr(n, name)(plays.T) for n in (our_neighbours, their_neighbours))
    assert a.format == b.format
    np.testing.assert_allclose(a.toarray(), b.toarray(), rtol=1e-6)


@pytest.mark.parametrize(
    "name", ["ItemItemRecommender", "CosineRecommender", "TFIDFRecommender", "BM25Recommender"]
)
def test_neighbour_models_are_the_same(plays, name):
    plays = plays.astype(np.float64)
    a, b = (getattr(n, name)(K=12, num_threads=1) for n in (our_neighbours, their_neighbours))
    for model in (a, b):
        model.fit(plays, show_progress=False)
    np.testing.assert_allclose(a.similarity.toarray(), b.similarity.toarray(), rtol=1e-6, atol=1e-9)
    users = np.arange(40)
    for how in ({"N": 5}, {"N": 20, "filter_already_liked_items": False}):
        assert_lists(
            a.recommend(users, plays[users], **how), b.recommend(users, plays[users], **how)
        )
        assert_lists(a.recommend(3, plays[3], **how), b.recommend(3, plays[3], **how))
    chosen = {"items": [4, 9, 100], "N": 3}
    assert_lists(a.recommend(3, plays[3], **chosen), b.recommend(3, plays[3], **chosen))
    assert_lists(a.similar_items(9, N=6), b.similar_items(9, N=6))
    assert_lists(a.similar_items([9, 1], N=15), b.similar_items([9, 1], N=15))


@pytest.mark.parametrize("kind", ["als", "knn"])
def test_metrics_are_the_same(plays, kind):
    train, test = our_evaluation.train_test_split(plays, 0.8, random_state=3)
    again = their_evaluation.train_test_split(plays, 0.8, random_state=3)
    for one, other in zip((train, test), again, strict=True):
        assert abs(one - other).nnz == 0 and one.dtype == other.dtype
    if kind == "als":
        model = both(factors=8, random_state=0)[1]
        model.fit(train, show_progress=False)
    else:
        model = their_neighbours.CosineRecommender(K=4, num_threads=1)
        model.fit(train.astype(np.float64), show_progress=False)
        train = train.astype(np.float64)
    for name in ("precision_at_k", "mean_average_precision_at_k", "ndcg_at_k", "AUC_at_k"):
        for k in (1, 10, 40):
            a, b = (
                getattr(n, name)(model, train, test, K=k, show_progress=False)
                for n in (our_evaluation, their_evaluation)
            )
            assert a == pytest.approx(b, rel=1e-12)


def public(module):
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and (inspect.isfunction(value) or inspect.isclass(value))
    }


@pytest.mark.parametrize(
    "path",
    [
        "als.AlternatingLeastSquares",
        "cpu.als.AlternatingLeastSquares",
        "nearest_neighbours.ItemItemRecommender",
        "nearest_neighbours.BM25Recommender",
    ],
)
def test_arguments_and_defaults_are_the_same(path):
    def find(root):
        for part in path.split("."):
            root = getattr(root, part)
        return root

    a, b = find(ours), find(theirs)
    assert parameters(a) == parameters(b)
    cls = their_cpu_als.AlternatingLeastSquares if path.startswith("als") else b
    for name, method in inspect.getmembers(cls, callable):
        if not name.startswith("_"):
            assert parameters(getattr(a, name)) == parameters(method), name
    made = cls()
    for name in [*vars(made), *(n for n in dir(cls) if not n.startswith("_"))]:
        if name not in ("YtY", "XtX", "user_norms", "item_norms"):  # want a fit
            assert hasattr(a(), name), name


def parameters(function):
    kinds = inspect.signature(function).parameters.values()
    return [(p.name, p.default, p.kind) for p in kinds]


@pytest.mark.parametrize("name", ["nearest_neighbours", "evaluation", "utils", "recommender_base"])
def test_no_public_name_is_missing(name):
    module = __import__(f"implicit.{name}", fromlist=["_"])
    mine = __import__(f"recfuse.compat.implicit.{name}", fromlist=["_"])
    own = {n for n, v in public(module).items() if v.__module__ == module.__name__}
    assert own <= set(vars(mine))
    for public_name in own:
        theirs_, mine_ = getattr(module, public_name), getattr(mine, public_name)
        if inspect.isfunction(theirs_):
            assert parameters(mine_) == parameters(theirs_), public_name
