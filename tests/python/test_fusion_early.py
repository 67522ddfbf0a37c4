"""Feature-level fusion against NumPy in float64, and against fusion of scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import recfuse
from helpers import assert_same_bytes, normal
from recfuse.fusion import (
    CommonSpace,
    LinearFusion,
    StackingFusion,
    concatenate,
    product,
    weighted_average,
    weighted_sum,
)

BEHAVIOUR, FEATURE = np.array([[1, 2, 3], [4, 5, 6]]), np.array([[7, 8, 9], [10, 11, 12]])


def test_weights_belong_to_modalities_not_to_users():
    blocks, halves = (
        {"behaviour": BEHAVIOUR, "feature": FEATURE},
        dict.fromkeys(("behaviour", "feature"), 0.5),
    )
    assert weighted_sum(blocks, halves).tolist() == [[4, 5, 6], [7, 8, 9]]


def test_a_sum_and_an_average_differ():
    blocks, weights = {"behaviour": BEHAVIOUR, "feature": FEATURE}, {"behaviour": 1, "feature": 3}
    total = BEHAVIOUR + 3 * FEATURE
    assert weighted_sum(blocks, weights).tolist() == total.tolist()
    assert weighted_average(blocks, weights).tolist() == (total / 4).tolist()
    assert product(blocks).tolist() == (BEHAVIOUR * FEATURE).tolist()


def test_an_average_is_over_the_modalities_of_a_row(rng):
    blocks = {name: normal(rng, 9, 4) for name in "abc"}
    present = {name: rng.random(9) < 0.6 for name in "abc"}
    for name, flags in present.items():
        blocks[name][~flags] = np.nan  # must not be looked at
    present["a"][0] = present["b"][0] = present["c"][0] = False
    weights = {"a": 0.5, "b": -2.0, "c": 1.5}
    total, size = np.zeros((9, 4)), np.zeros(9)
    factors = np.ones((9, 4))
    for name, x in blocks.items():
        for row in np.flatnonzero(present[name]):
            total[row] += weights[name] * x[row].astype(np.float64)
            factors[row] *= x[row].astype(np.float64)
            size[row] += abs(weights[name])
    factors[size == 0] = 0
    with np.errstate(invalid="ignore"):
        average = np.where(size[:, None] > 0, total / size[:, None], 0)
    rounded = [x.astype(np.float32) for x in (total, average, factors)]
    got = [rule(blocks, weights, present=present) for rule in (weighted_sum, weighted_average)]
    assert_same_bytes((*got, product(blocks, present=present)), tuple(rounded))


@pytest.mark.parametrize("metric", ["dot", "cosine"])
def test_concatenation_ranks_like_the_sum_of_scores(rng, metric):
    widths = {"text": 7, "image": 3, "audio": 12}
    queries = {name: normal(rng, 5, d) for name, d in widths.items()}
    items = {name: normal(rng, 60, d) for name, d in widths.items()}
    weights = {"text": 0.5, "image": 2.0, "audio": 0.0}
    unit = {"normalise": metric == "cosine"}
    early = recfuse.topk(
        concatenate(queries, weights, **unit), concatenate(items, weights, **unit), 60
    )
    index = recfuse.FusedIndex(items, metric=metric)
    late = index.topk(queries, 60, weights=weights)
    np.testing.assert_array_equal(early[0], late[0])
    np.testing.assert_allclose(early[1], late[1], rtol=1e-5, atol=1e-5)


whole = st.integers(-4, 4)


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_concatenation_of_whole_numbers_is_exact(data):
    # Squares as weights: nothing is rounded, so early and late fusion are the same bytes.
    weights = {name: float(data.draw(st.integers(0, 3)) ** 2) for name in "ab"}
    weights["b"] += not any(weights.values())
    draw = lambda n: {  # noqa: E731
        name: np.array(
            data.draw(st.lists(st.lists(whole, min_size=d, max_size=d), min_size=n, max_size=n)),
            np.float32,
        )
        for name, d in (("a", 2), ("b", 3))
    }
    queries, items = draw(2), draw(6)
    early = recfuse.topk(concatenate(queries, weights), concatenate(items, weights), 6)
    late = recfuse.FusedIndex(items, metric="dot").topk(queries, 6, weights=weights)
    assert_same_bytes(early, late)


def test_errors_name_both_blocks_and_both_shapes():
    # The article's addition of embeddings of shapes (2, 2) and (3,).
    blocks = {"text": np.zeros((2, 2)), "image": np.zeros(3)}
    text = r"must have shape \(2, 2\) like blocks\['text'\]; got \(3,\)"
    for rule in (weighted_sum, weighted_average, product):
        with pytest.raises(ValueError, match=rf"{rule.__name__}: blocks\['image'\] {text}"):
            rule(blocks)
    with pytest.raises(ValueError, match=r"must have 2 rows like blocks\['text'\]; got \(3,\)"):
        concatenate(blocks)
    with pytest.raises(ValueError, match=r"weights\['text'\] must be at least 0; got -1"):
        concatenate({"text": np.ones((1, 1))}, {"text": -1})
    with pytest.raises(ValueError, match=r"weights must name modalities of \['text'\]"):
        weighted_sum({"text": np.ones((1, 1))}, {"image": 1})
    with pytest.raises(ValueError, match="weights must not all be 0"):
        weighted_average({"text": np.ones((1, 1))}, {"text": 0})
    with pytest.raises(ValueError, match=r"present\['text'\] must be 1 booleans"):
        weighted_sum({"text": np.ones((1, 1))}, present={"text": [1]})


def test_no_rows_are_no_rows():
    assert weighted_sum({"a": np.zeros((0, 3)), "b": np.zeros((0, 3))}).shape == (0, 3)


def test_pca_projections_add_up_to_the_joint_one(rng):
    decomposition = pytest.importorskip("sklearn.decomposition", reason="needs scikit-learn")
    blocks = {"a": normal(rng, 40, 5), "b": 3 * normal(rng, 40, 4)}
    projected = CommonSpace(3, "pca").fit(blocks).transform(blocks)
    joint = decomposition.PCA(3, svd_solver="full").fit_transform(
        np.hstack([x.astype(np.float64) for x in blocks.values()])
    )
    np.testing.assert_allclose(weighted_sum(projected), joint, atol=1e-5)


def test_cca_finds_the_canonical_correlations(rng):
    cross = pytest.importorskip("sklearn.cross_decomposition", reason="needs scikit-learn")
    shared = rng.standard_normal((200, 2))
    a = np.hstack([shared + 0.3 * rng.standard_normal((200, 2)), rng.standard_normal((200, 3))])
    b = 50 * np.hstack([rng.standard_normal((200, 2)), shared + rng.standard_normal((200, 2))])
    got = CommonSpace(2).fit({"a": a, "b": b}).transform({"a": a, "b": b})
    ours = [np.corrcoef(got["a"][:, i], got["b"][:, i])[0, 1] for i in range(2)]
    x, y = cross.CCA(2, scale=False, max_iter=5000, tol=1e-12).fit_transform(a, b)
    theirs = [np.corrcoef(x[:, i], y[:, i])[0, 1] for i in range(2)]
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)


def test_missing_rows_stay_zero_and_teach_nothing(rng):
    pytest.importorskip("sklearn", reason="needs scikit-learn")
    blocks = {"a": normal(rng, 20, 3), "b": normal(rng, 20, 2)}
    whole_space = CommonSpace(2).fit({name: x[1:] for name, x in blocks.items()})
    blocks["b"][0] = 0
    space = CommonSpace(2).fit(blocks)
    np.testing.assert_array_equal(space.projections_["a"], whole_space.projections_["a"])
    assert not space.transform({"b": blocks["b"]})["b"][0].any()
    with pytest.raises(ValueError, match=r"dim must be in \[1, 5\]"):
        CommonSpace(6).fit(blocks)
    with pytest.raises(ValueError, match=r"blocks\['a'\] must have 3 columns; got 2"):
        space.transform({"a": blocks["b"]})


def test_spaces_and_fusions_are_saved_as_data(rng, tmp_path):
    pytest.importorskip("sklearn", reason="needs scikit-learn")
    blocks, y = {"a": normal(rng, 30, 3), "b": normal(rng, 30, 2)}, rng.standard_normal(30)
    space = CommonSpace(2).fit(blocks)
    stack = StackingFusion(LinearFusion(l2=0.1)).fit(blocks, y)
    space.save(tmp_path / "space")
    stack.save(tmp_path / "stack")
    again = recfuse.load(tmp_path / "space").transform(blocks)
    assert_same_bytes(tuple(again.values()), tuple(space.transform(blocks).values()))
    loaded = recfuse.load(tmp_path / "stack")
    np.testing.assert_array_equal(loaded.predict(blocks), stack.predict(blocks))
