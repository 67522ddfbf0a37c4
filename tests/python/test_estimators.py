"""What every estimator promises, checked on all of them."""

from __future__ import annotations

import copy
import inspect
import pickle

import numpy as np
import pytest
import scipy.sparse as sp

import recfuse
from helpers import assert_same_bytes
from recfuse.errors import NotFittedError

ESTIMATORS = {
    "als": lambda **p: recfuse.AlternatingLeastSquares(
        **{"factors": 4, "iterations": 2, "random_state": 0, **p}
    ),
    "explicit als": lambda **p: recfuse.AlternatingLeastSquares(
        **{"factors": 3, "iterations": 2, "random_state": 0, "objective": "explicit", **p}
    ),
    "item neighbours": lambda **p: recfuse.ItemNeighbours(**{"k": 5, **p}),
    "user neighbours": lambda **p: recfuse.UserNeighbours(**{"k": 5, **p}),
    "asymmetric neighbours": lambda **p: recfuse.ItemNeighbours(**{"k": 5, "asymmetry": 0.8, **p}),
    "popularity": lambda **p: recfuse.Popularity(**p),
    "multimodal": lambda **p: recfuse.MultimodalRecommender(
        **{"behaviour": {"near": recfuse.ItemNeighbours(k=4)}, "weights": {"near": 1.0}, **p}
    ),
}


@pytest.fixture(params=ESTIMATORS)
def make(request):
    return ESTIMATORS[request.param]


@pytest.fixture
def likes(rng) -> sp.csr_array:
    dense = (rng.random((25, 30)) < 0.25) * rng.integers(1, 5, (25, 30))
    return sp.csr_array(dense.astype(np.float32))


def recommend(model, likes, users=(0, 7, 7, 3), k=6):
    if "user_items" in inspect.signature(model.recommend).parameters:
        return model.recommend(np.array(users), k=k, user_items=likes[np.array(users)])
    return model.recommend(np.array(users), k=k)


def test_parameters_are_stored_untouched(make):
    model = make()
    params = model.get_params(deep=False)
    assert set(params) == set(inspect.signature(type(model).__init__).parameters) - {"self"}
    again = type(model)(**params)
    assert all(again.get_params(deep=False)[name] is value for name, value in params.items())


def test_set_params(make):
    model = make()
    assert model.set_params(num_threads=1) is model
    assert model.get_params()["num_threads"] == 1
    with pytest.raises(ValueError, match=r"parameter must be one of .*; got 'nonsense'"):
        model.set_params(nonsense=1)


def test_repr_shows_what_differs(make):
    text = repr(make(num_threads=2))
    assert "num_threads=2" in text and "device" not in text


def test_fit_returns_self_and_learns_underscored_attributes(make, likes):
    model = make()
    assert model.fit(likes) is model
    assert any(name.endswith("_") for name in vars(model))


def test_before_fit(make, likes):
    with pytest.raises(NotFittedError, match="fit must be called before"):
        recommend(make(), likes)


def test_lists(make, likes):
    ids, scores = recommend(make().fit(likes), likes)
    assert (ids.dtype, scores.dtype, ids.shape) == (np.int32, np.float32, (4, 6))
    assert (np.diff(scores, axis=1) <= 0).all()
    seen = likes.toarray()[[0, 7, 7, 3]] > 0
    assert not (seen[np.arange(4)[:, None], ids] & (ids >= 0)).any()
    assert (np.isneginf(scores) == (ids < 0)).all()
    assert_same_bytes((ids[1], scores[1]), (ids[2], scores[2]))


def test_prefix(make, likes):
    model = make().fit(likes)
    longer, shorter = recommend(model, likes, k=9), recommend(model, likes, k=4)
    assert_same_bytes(shorter, tuple(np.ascontiguousarray(a[:, :4]) for a in longer))


def test_refit_forgets(make, likes):
    other = sp.csr_array(likes[:10, :12])
    model = make().fit(other).fit(likes)
    assert_same_bytes(recommend(model, likes), recommend(make().fit(likes), likes))


def test_threads_do_not_matter(make, likes):
    one, two = (make(num_threads=n).fit(likes) for n in (1, 2))
    assert_same_bytes(recommend(one, likes), recommend(two, likes))


def test_copies_and_files(make, likes, tmp_path):
    model = make().fit(likes)
    expected = recommend(model, likes)
    model.save(tmp_path / "model")
    others = [
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        recfuse.load(tmp_path / "model"),
    ]
    for other in others:
        assert type(other) is type(model)
        assert_same_bytes(recommend(other, likes), expected)


def test_a_loaded_model_can_be_fitted_again(make, likes, tmp_path):
    model = make().fit(likes)
    model.save(tmp_path / "model")
    again = recfuse.load(tmp_path / "model").fit(likes)
    assert_same_bytes(recommend(again, likes), recommend(model, likes))


@pytest.mark.parametrize(
    "container", [sp.csr_matrix, sp.csc_matrix, sp.coo_matrix, sp.csc_array, sp.lil_matrix]
)
def test_containers(make, likes, container):
    expected = recommend(make().fit(likes), likes)
    assert_same_bytes(recommend(make().fit(container(likes)), likes), expected)


@pytest.mark.parametrize("dtype", ["i1", "i8", "u2", "f8"])
def test_dtypes(make, likes, dtype):
    expected = recommend(make().fit(likes), likes)
    assert_same_bytes(recommend(make().fit(likes.astype(dtype)), likes), expected)


def test_inputs_are_left_alone(make, likes):
    frozen = likes.copy()
    for part in (frozen.data, frozen.indices, frozen.indptr):
        part.flags.writeable = False
    recommend(make().fit(frozen), frozen)
    np.testing.assert_array_equal(frozen.toarray(), likes.toarray())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_must_be_finite(make, likes, value):
    bad = likes.copy()
    bad.data[17] = value
    with pytest.raises(ValueError, match="finite"):
        make().fit(bad)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (1, 1)])
def test_degenerate_shapes(make, shape):
    """Nothing to learn from is no crash: it fits and pads, or says why not."""
    empty = sp.csr_array(shape, dtype=np.float32)
    model = make().fit(empty)
    if shape[0]:
        ids, scores = recommend(model, empty, users=(0,), k=3)
        assert ids.shape == scores.shape == (1, 3)


def test_wrong_users(make, likes):
    model = make().fit(likes)
    for users in ([25], [-1]):
        with pytest.raises(IndexError, match=r"user_ids.* must be in \[0, 25\); got"):
            model.recommend(users, k=3)
    with pytest.raises(TypeError, match="user_ids must be integers"):
        model.recommend([0.5], k=3)
    with pytest.raises(ValueError, match="k must be at least 1; got 0"):
        model.recommend([0], k=0)


def test_dense_input_is_refused(make):
    with pytest.raises(TypeError, match="user_items must be a SciPy sparse"):
        make().fit(np.ones((3, 3)))


def test_errors_show_the_way_to_those_who_bring_what_they_have() -> None:
    pd = pytest.importorskip("pandas")
    likes = sp.csr_array(np.eye(3, dtype=np.float32))
    model = recfuse.ItemNeighbours(k=2)
    with pytest.raises(TypeError, match=r"got ndarray \(scipy.sparse.csr_array makes one\)"):
        model.fit(likes.toarray())
    with pytest.raises(TypeError, match=r"got DataFrame \(recfuse.Interactions.from_frame"):
        model.fit(pd.DataFrame({"user": [0], "item": [1]}))
    model.fit(likes)
    with pytest.raises(TypeError, match=r"got dtype <U3 \(recfuse.LabelledModel takes other ids"):
        model.recommend(["ann"])
    with pytest.raises(TypeError, match=r"got dtype float64$"):
        model.recommend([0.5])


@pytest.mark.parametrize("model", [recfuse.ItemNeighbours(), recfuse.UserNeighbours()])
def test_a_value_that_is_not_finite_is_named_where_it_stands(model) -> None:
    likes = sp.csr_array(np.array([[1, 0, 2], [0, 0, np.nan]], np.float32))
    with pytest.raises(ValueError, match=r"^fit: user_items must be finite; got nan at \[1, 2\]$"):
        model.fit(likes)
