"""Errors say which op was called, whoever found them."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import scipy.sparse as sp

import recfuse
from recfuse._named import named
from recfuse.fusion import suggest_fusion
from recfuse.fusion.new_users import similar_profiles
from recfuse.ops import neighbour_topk

EYE = np.eye(4, dtype=np.float32)
LIKES = sp.csr_array(EYE)
ALS = recfuse.AlternatingLeastSquares(factors=2, iterations=1).fit(LIKES)
NEIGHBOURS = recfuse.ItemNeighbours(k=2).fit(LIKES)
POPULARITY = recfuse.Popularity().fit(LIKES)
LABELLED = recfuse.LabelledModel(recfuse.ItemNeighbours(k=2)).fit(
    recfuse.Interactions.from_arrays(["a", "b", "b"], [1, 1, 2])
)
FUSED = recfuse.MultimodalRecommender(weights={"als": 1.0}).fit(LIKES, {"text": EYE})


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: recfuse.topk("x", EYE, 1), TypeError, "topk: queries must hold real numbers"),
        (lambda: recfuse.topk(EYE, EYE, 0), ValueError, "topk: k must be at least 1"),
        (lambda: recfuse.topk(EYE, EYE, 1.5), TypeError, "topk: k must be an integer"),
        (lambda: recfuse.topk(EYE, EYE, 1, allow=[-1]), IndexError, "topk: allow must hold"),
        (lambda: recfuse.topk(EYE, EYE, 1, metric=1), TypeError, "topk: metric must be a string"),
        (lambda: recfuse.topk(EYE, EYE, 1, device="x"), ValueError, "topk: device must be"),
        (lambda: recfuse.fuse_topk({}, 1, {}, 1), TypeError, "fuse_topk: items must be a mapping"),
        (
            lambda: recfuse.FusedIndex({"a": EYE}).topk({"a": EYE}, 1, weights={"a": "x"}),
            TypeError,
            "fuse_topk: weights['a'] must be real",
        ),
        (
            lambda: recfuse.FusedIndex({"a": EYE}, present={"b": [True]}),
            ValueError,
            "fuse_topk: present must name modalities",
        ),
        (lambda: recfuse.cosine_knn(EYE, 1), TypeError, "cosine_knn: matrix must be a SciPy"),
        (lambda: recfuse.cosine_knn(LIKES, 1, shrinkage="x"), TypeError, "cosine_knn: shrinkage"),
        (lambda: neighbour_topk(EYE, LIKES, 1), TypeError, "neighbour_topk: user_items must be"),
        (lambda: recfuse.AlternatingLeastSquares().fit(EYE), TypeError, "als: user_items must be"),
        (lambda: ALS.recommend([9]), IndexError, "recommend: user_ids must be in [0, 4)"),
        (lambda: ALS.recommend(0, 0), ValueError, "recommend: k must be at least 1; got 0"),
        (lambda: ALS.recommend(0, -1), ValueError, "recommend: k must be at least 1; got -1"),
        (lambda: ALS.recommend(0, allow=[9]), IndexError, "recommend: allow[0] must be in [0, 4)"),
        (lambda: ALS.similar_items(0, 0), ValueError, "similar_items: k must be at least 1"),
        (lambda: ALS.similar_users(0, 1.5), TypeError, "similar_users: k must be an integer"),
        (lambda: ALS.fold_in(LIKES[:, :3]), ValueError, "fold_in: user_items must have 4 columns"),
        (lambda: NEIGHBOURS.recommend(0, 0), ValueError, "recommend: k must be at least 1"),
        (
            lambda: NEIGHBOURS.score(LIKES[:, :3]),
            ValueError,
            "score: user_items must have 4 columns; got 3",
        ),
        (lambda: POPULARITY.recommend(0, 0), ValueError, "recommend: k must be at least 1"),
        (lambda: LABELLED.recommend(["a"], 0), ValueError, "recommend: k must be at least 1"),
        (lambda: LABELLED.recommend("ann"), TypeError, "recommend: users must be a sequence of"),
        (lambda: LABELLED.fit(LIKES), TypeError, "fit: interactions must be Interactions"),
        (lambda: FUSED.recommend(0, 0), ValueError, "recommend: k must be at least 1"),
        (
            lambda: FUSED.recommend(0, depth=0, diversity=0.5),
            ValueError,
            "recommend: depth must be at least 1; got 0",
        ),
        (lambda: FUSED.recommend_new_users(LIKES, 0), ValueError, "recommend_new_users: k must"),
        (
            lambda: FUSED.recommend_new_users(LIKES, allow=[9]),
            IndexError,
            "recommend_new_users: allow[0] must be in [0, 4)",
        ),
        (
            lambda: FUSED.recommend_new_users(),
            ValueError,
            "recommend_new_users: user_items must be given, or like, or vectors; got none",
        ),
        (
            lambda: FUSED.recommend_new_items(0, {"text": EYE}, 0),
            ValueError,
            "recommend_new_items: k must be at least 1",
        ),
        (lambda: FUSED.explain(9, 0), IndexError, "explain: user_id must be in [0, 4); got 9"),
        (lambda: FUSED.explain("ann", 0), TypeError, "explain: user_id must be integers"),
        (
            lambda: FUSED.explain(0, 0, n_because=-1),
            ValueError,
            "explain: n_because must be at least 0; got -1",
        ),
        (
            lambda: FUSED.modality_importance(LIKES, 0),
            ValueError,
            "modality_importance: k must be at least 1; got 0",
        ),
        (
            lambda: recfuse.MultimodalRecommender().fit(sp.csr_array(EYE * np.nan)),
            ValueError,
            "fit: user_items must be finite",
        ),
        (
            lambda: similar_profiles(EYE, EYE[:, :2]),
            ValueError,
            "similar_profiles: profiles must have 2 columns like known; got 4",
        ),
        (
            lambda: recfuse.FusedIndex({"a": EYE}).topk({"a": EYE}, 1, fusion="x"),
            ValueError,
            "fuse_topk: fusion must be one of 'sum', 'average', 'product', 'max', 'min', 'rrf'",
        ),
        (
            lambda: recfuse.FusedIndex({"a": EYE}).topk({"a": EYE}, 1, fusion="rrf", missing="x"),
            ValueError,
            "fuse_topk: missing must be one of 'renormalise', 'zero'; got 'x'",
        ),
        (
            lambda: suggest_fusion({"a": EYE}, {"a": EYE}, LIKES, similarity="x"),
            ValueError,
            "suggest_fusion: similarity must be 'cosine' or 'dot'; got 'x'",
        ),
        (lambda: ALS.recommend(4), IndexError, "recommend: user_ids must be in [0, 4)"),
        (lambda: ALS.recommend(-1), IndexError, "recommend: user_ids must be in [0, 4)"),
        (lambda: ALS.recommend(True), TypeError, "recommend: user_ids must be integers"),
        (
            lambda: ALS.recommend([0], user_items=LIKES),
            ValueError,
            "recommend: user_items must have shape (1, 4)",
        ),
        (lambda: ALS.predict([0], [0, 1]), ValueError, "predict: item_ids must have one id"),
        (lambda: ALS.fold_in(EYE), TypeError, "fold_in: user_items must be a SciPy"),
        (lambda: ALS.similar_items("x"), TypeError, "similar_items: item_ids must be integers"),
        (lambda: NEIGHBOURS.recommend([9]), IndexError, "recommend: user_ids must be in [0, 4)"),
        (lambda: POPULARITY.recommend([9]), IndexError, "recommend: user_ids must be in [0, 4)"),
        (lambda: recfuse.ItemNeighbours().fit(EYE), TypeError, "fit: user_items must be a SciPy"),
        (lambda: FUSED.recommend([9]), IndexError, "recommend: user_ids must be in [0, 4)"),
        (lambda: FUSED.explain(0, 9), IndexError, "explain: item_id must be in [0, 4)"),
        (
            lambda: FUSED.recommend_new_items([0], {"x": EYE}),
            ValueError,
            "recommend_new_items: items must name modalities",
        ),
    ],
)
def test_the_op_comes_first_and_once(call, kind, message):
    with pytest.raises(kind) as caught:
        call()
    assert str(caught.value).startswith(message)


def test_what_names_its_op_or_no_argument_is_left_alone():
    def fail(error: Exception) -> None:
        raise error

    call = named("outer")(named("inner")(fail))
    for message in (
        "k must be 1; got 2",
        "items['a b'] must fit",
        "allow[3] must be",
        "m.indptr must be",
    ):
        with pytest.raises(ValueError) as caught:
            call(ValueError(message))
        assert str(caught.value) == f"inner: {message}"
    for args in (
        ("other: k must be 1",),
        ("other: error_of_mine must be 1",),
        ("RECFUSE_X must be 1",),
        ("singular",),
        (),
        (3, "k must be 1"),
    ):
        with pytest.raises(IndexError) as index_error:
            call(IndexError(*args))
        assert index_error.value.args == args


def test_the_outermost_that_has_the_argument_is_named():
    @named("search")
    def search(k, metric, queries):
        raise ValueError(f"engine: {queries} must be 1; got {k}")

    @named("model")
    def recommend(users, *, k, metric=None):
        search(k, metric, users)

    @named("compare")
    def compare(model, metric):
        recommend(model, k=1)

    for argument, op in {
        "k": "model",
        "metric": "compare",
        "queries['a']": "search",
        "metric[0].x": "compare",
        "users": "model",
        "others": "engine",
    }.items():
        with pytest.raises(ValueError) as caught:
            compare(argument, "cosine")
        assert str(caught.value) == f"{op}: {argument} must be 1; got 1"


def test_signatures_and_names_stay():
    assert "exclude" in inspect.signature(recfuse.topk).parameters
    assert recfuse.topk.__name__ == "topk"
    assert ALS.recommend.__doc__.startswith("Recommend items")
