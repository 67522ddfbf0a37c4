"""Re-ranking by a network in an ONNX file, against the same arithmetic in NumPy."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from helpers import assert_same_bytes
from recfuse.errors import FormatError
from recfuse.serving import OnnxRanker
from tiny_onnx import TWO_OUTPUTS, model

N_USERS, N_ITEMS = 7, 13

# score = relu(user @ item) + bias[item] + 0.5 * age
DEEP = """deep (float[n, 4] user, float[n, 4] item, int64[n] age) => (float[n] y)
 <int64[1] axis = {1}, float half = {0.5}> {
    products = Mul(user, item)
    summed = ReduceSum<keepdims = 0>(products, axis)
    active = Relu(summed)
    years = Cast<to = 1>(age)
    halved = Mul(years, half)
    y = Add(active, halved)
}"""
WITH_SCORES = """late (float[n, 1] item, float[n, 2] parts) => (float[n, 1] y)
 <int64[1] axis = {1}> {
    summed = ReduceSum<keepdims = 1>(parts, axis)
    y = Sub(summed, item)
}"""


@pytest.fixture
def users(rng):
    return {
        "user": rng.integers(-3, 4, (N_USERS, 4)).astype(np.float32),
        "age": rng.integers(1, 60, N_USERS),
    }


@pytest.fixture
def items(rng):
    return {"item": rng.integers(-3, 4, (N_ITEMS, 4)).astype(np.float32)}


def ranker(users, items, graph=DEEP, **options):
    return OnnxRanker(model(graph), users=users, items=items, device="cpu", **options)


def expected(users, items) -> np.ndarray:
    products = users["user"].astype(np.float64) @ items["item"].astype(np.float64).T
    return np.maximum(products, 0) + 0.5 * users["age"][:, None]


@pytest.mark.parametrize("batch_size", [1, 5, 4096])
def test_pairs_have_the_score_of_the_network(rng, users, items, batch_size):
    u, i = rng.integers(0, N_USERS, 23), rng.integers(0, N_ITEMS, 23)
    scores = ranker(users, items, batch_size=batch_size).score(u, i)
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(scores, expected(users, items)[u, i])


def test_one_user_goes_with_all_items(users, items):
    deep = ranker(users, items)
    np.testing.assert_array_equal(deep.score(2, range(N_ITEMS)), expected(users, items)[2])
    assert deep.score([], []).shape == (0,)
    assert (deep.n_users, deep.n_items) == (N_USERS, N_ITEMS)
    assert repr(deep) == "OnnxRanker(user, item, age -> y, device='cpu')"


@pytest.mark.parametrize("k", [1, 4, 9])
def test_candidates_are_in_the_one_order(rng, users, items, k):
    ids = np.stack([rng.permutation(N_ITEMS)[:6] for _ in range(4)]).astype(np.int32)
    ids[1, 3] = ids[3, :] = -1
    of = np.array([4, 0, 4, 2])
    got, scores = ranker(users, items).rerank(ids, k=k, users=of)
    table = expected(users, items)
    for row in range(4):
        pairs = sorted((-table[of[row], i], i) for i in ids[row] if i >= 0)[:k]
        n = len(pairs)
        assert got[row, :n].tolist() == [i for _, i in pairs]
        assert scores[row, :n].tolist() == [-s for s, _ in pairs]
        assert (got[row, n:] == -1).all() and np.isneginf(scores[row, n:]).all()
    assert (got.dtype, scores.dtype) == (np.int32, np.float32)


def test_candidates_in_another_order_give_the_same_bytes(rng, users, items):
    deep, ids = ranker(users, items), np.tile(np.arange(N_ITEMS), (N_USERS, 1))
    shuffled = rng.permuted(ids, axis=1)
    assert_same_bytes(deep.rerank(ids, k=5), deep.rerank(shuffled, k=5))


def test_the_network_sees_what_the_search_says(rng, items):
    column = {"item": items["item"][:, :1]}
    late = OnnxRanker(model(WITH_SCORES), items=column, scores_input="parts", device="cpu")
    ids = np.array([[3, 0, 5], [2, -1, -1]])
    parts = rng.integers(-4, 5, (2, 3, 2)).astype(np.float32)
    got, scores = late.rerank(ids, parts, k=3)
    want = parts.sum(axis=2) - column["item"][ids][:, :, 0]
    want[1, 1:] = -np.inf
    order = np.lexsort((ids.astype(np.uint32), -want))
    np.testing.assert_array_equal(scores, np.take_along_axis(want, order, 1))
    np.testing.assert_array_equal(got, np.take_along_axis(ids, order, 1))
    with pytest.raises(ValueError, match="rerank: scores must be given, for the input 'parts'"):
        late.rerank(ids, k=3)


def test_a_weight_blends_network_and_search(users, items):
    deep, ids = ranker(users, items), np.array([[0, 1, 2, -1]])
    found = np.array([[3.0, 8.0, 5.0, -np.inf]], np.float32)
    got, scores = deep.rerank(ids, found, k=3, users=[1], weight=0.25)
    want = 0.25 * expected(users, items)[1, :3] + 0.75 * found[0, :3]
    assert got[0].tolist() == sorted(range(3), key=lambda i: (-want[i], i))
    np.testing.assert_array_equal(scores[0], np.sort(want)[::-1].astype(np.float32))
    assert_same_bytes(deep.rerank(ids, found, 3, users=[1]), deep.rerank(ids, k=3, users=[1]))


def test_copies_rank_alike(users, items):
    deep, ids = ranker(users, items), np.tile(np.arange(N_ITEMS), (N_USERS, 1))
    assert_same_bytes(pickle.loads(pickle.dumps(deep)).rerank(ids), deep.rerank(ids))


def test_inputs_are_named_once(users, items):
    with pytest.raises(ValueError, match=r"must name every input of \['user', 'item', 'age'\]"):
        ranker({"user": users["user"]}, items)
    with pytest.raises(ValueError, match="once; got"):
        ranker(users, {**items, "age": np.arange(N_ITEMS)})
    with pytest.raises(TypeError, match="items must be a mapping input -> array; got list"):
        ranker(users, [1])


def test_features_suit_the_inputs(users, items):
    with pytest.raises(ValueError, match=r"users\['user'\] must have shape \(any, 4\); got \(7, 3"):
        ranker({**users, "user": users["user"][:, :3]}, items)
    with pytest.raises(ValueError, match=r"users must have one number of rows .* 'age': 6"):
        ranker({**users, "age": users["age"][:6]}, items)
    with pytest.raises(ValueError, match=r"output must be one number per row; got 'y' with 3"):
        OnnxRanker(model(TWO_OUTPUTS), users={"x": np.eye(3)}, output="y", device="cpu")


def test_wrong_requests_are_refused(users, items):
    deep = ranker(users, items)
    with pytest.raises(IndexError, match=r"score: users must be in \[0, 7\); got 7"):
        deep.score(7, 0)
    with pytest.raises(IndexError, match=r"score: items must be in \[0, 13\); got 13"):
        deep.rerank([[13]], users=[0])
    with pytest.raises(IndexError, match=r"rerank: ids must be item ids, or -1 .* got -2"):
        deep.rerank([[-2]], users=[0])
    with pytest.raises(ValueError, match=r"rerank: users must be given .* 7 users; got 1 rows"):
        deep.rerank([[0]])
    with pytest.raises(ValueError, match="score: scores must be None without scores_input"):
        deep.score([0], [0], [1.0])
    with pytest.raises(ValueError, match="rerank: scores must be given with a weight below 1"):
        deep.rerank([[0]], users=[0], weight=0.5)
    with pytest.raises(ValueError, match=r"rerank: scores must have shape \(1, 2\) like ids"):
        deep.rerank([[0, 1]], [[1.0]], users=[0])
    with pytest.raises(ValueError, match="rerank: k must be at least 1; got 0"):
        deep.rerank([[0]], k=0, users=[0])
    with pytest.raises(ValueError, match="score: items must be as many as users"):
        deep.score([0, 1], [0, 1, 2])


@pytest.mark.parametrize(
    ("source", "options", "error", "message"),
    [
        ("absent.onnx", {}, FileNotFoundError, "path_or_bytes must be an existing file"),
        (b"no model", {}, FormatError, "path_or_bytes must be a model that onnxruntime"),
        (None, {"batch_size": 0}, ValueError, "batch_size must be at least 1; got 0"),
        (None, {"output": "x"}, ValueError, "output must be one of"),
        (None, {"device": "tpu"}, ValueError, "device must be one of"),
    ],
)
def test_errors_name_the_ranker(users, items, source, options, error, message):
    with pytest.raises(error, match=f"^OnnxRanker: {message}"):
        OnnxRanker(model(DEEP) if source is None else source, users=users, items=items, **options)


def test_a_number_that_is_none_is_an_error(users, items):
    users["user"][2] = np.nan
    with pytest.raises(ValueError, match="must be finite"):
        ranker(users, items).score([1, 2], [0, 0])
