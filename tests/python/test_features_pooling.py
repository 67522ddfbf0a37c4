from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from recfuse.features import history_profiles, pool_sequences

KINDS = ["mean", "max", "sum", "std"]


def reference(vectors, lengths, kind, weights=None):
    """Pool sequence by sequence, in Python floats of float64."""
    weights = np.ones(len(vectors)) if weights is None else np.asarray(weights, np.float64)
    rows, start = [], 0
    for length in lengths:
        part = [(w, x) for w, x in zip(weights, vectors, strict=True)][start : start + length]
        part = [(w, np.asarray(x, np.float64)) for w, x in part if w > 0]
        start += length
        if not part:
            rows.append(np.zeros(np.shape(vectors)[1]))
            continue
        total, mass = sum(w * x for w, x in part), sum(w for w, _ in part)
        mean = total / mass
        rows.append(
            {
                "mean": mean,
                "sum": total,
                "max": np.max([x for _, x in part], axis=0),
                "std": np.sqrt(sum(w * (x - mean) ** 2 for w, x in part) / mass),
            }[kind]
        )
    return np.array(rows).reshape(len(lengths), np.shape(vectors)[1])


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_poolings_match_the_formulas(kind, data):
    lengths = data.draw(st.lists(st.integers(0, 4), min_size=0, max_size=6))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    vectors = rng.standard_normal((sum(lengths), 3)) - 1  # mostly negative: a zero is no maximum
    weights = data.draw(
        st.one_of(
            st.none(),
            st.lists(
                st.sampled_from([0.0, 0.25, 1.0, 3.0]), min_size=len(vectors), max_size=len(vectors)
            ),
        )
    )
    got = pool_sequences(vectors, lengths, pooling=kind, weights=weights)
    assert got.dtype == np.float32
    expected = reference(vectors, lengths, kind, weights)
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-12)


def test_the_mean_of_one_sequence_is_numpys(rng):
    image = rng.standard_normal((7, 5)).astype(np.float32)
    got = pool_sequences(image, [7])[0]
    np.testing.assert_allclose(got, np.mean(image, axis=0, dtype=np.float64), rtol=1e-6)


def test_several_poolings_stand_side_by_side(rng):
    vectors, lengths = rng.standard_normal((6, 2)), [4, 2]
    got = pool_sequences(vectors, lengths, pooling=["max", "mean"])
    parts = [pool_sequences(vectors, lengths, pooling=kind) for kind in ("max", "mean")]
    np.testing.assert_array_equal(got, np.hstack(parts))


def test_what_is_masked_may_be_nan():
    vectors = np.array([[1.0], [np.nan], [3.0]])
    mask = np.array([True, False, True])
    assert pool_sequences(vectors, [3], weights=mask) == 2
    with pytest.raises(ValueError, match="pool_sequences: vectors must be finite"):
        pool_sequences(vectors, [3])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lengths": [2, 2]}, "lengths must be at least 0 and add up to .* 3; got 4"),
        ({"lengths": [4, -1]}, "lengths must be at least 0 .*; got -1"),
        ({"weights": [1, 2]}, r"weights must have shape \(3,\); got \(2,\)"),
        ({"weights": [1, -2, 0]}, "weights must be finite and not negative"),
        ({"pooling": "median"}, "pooling must be of .*; got 'median'"),
        ({"pooling": []}, "pooling must name a pooling"),
        ({"vectors": [1, 2, 3]}, "vectors must have 2 dimensions"),
    ],
)
def test_wrong_sequences(change, message):
    arguments = {"vectors": np.ones((3, 2)), "lengths": [1, 2], **change}
    with pytest.raises(ValueError, match=f"pool_sequences: {message}"):
        pool_sequences(**arguments)


def test_profiles_are_weighted_means_of_the_history(rng):
    dense = (rng.random((6, 9)) < 0.4) * rng.integers(-2, 5, (6, 9))
    dense[2] = 0
    items = {"text": rng.standard_normal((9, 4)), "image": rng.standard_normal((9, 2))}
    present = {"image": rng.random(9) < 0.5}
    got = history_profiles(sp.csr_array(dense.astype(np.float32)), items, present=present)
    assert list(got) == ["text", "image"]
    for name, vectors in items.items():
        for user in range(6):
            total, mass = np.zeros(vectors.shape[1]), 0.0
            for item in range(9):
                if present.get(name, np.ones(9, bool))[item]:
                    total += dense[user, item] * vectors[item].astype(np.float32)
                    mass += abs(dense[user, item])
            expected = total / mass if mass else total
            np.testing.assert_allclose(got[name][user], expected, rtol=1e-5, atol=1e-7)


def test_absent_items_may_be_nan():
    items = {"image": np.array([[np.nan], [2.0]])}
    likes = sp.csr_array(np.ones((1, 2)))
    got = history_profiles(likes, items, present={"image": [False, True]})
    assert got["image"].tolist() == [[2]]
    with pytest.raises(ValueError, match=r"history_profiles: items\['image'\] must be finite"):
        history_profiles(likes, items)


def test_wrong_profiles():
    likes = sp.csr_array(np.ones((1, 2)))
    with pytest.raises(ValueError, match=r"items\['a'\] must have one row per column .* got 3"):
        history_profiles(likes, {"a": np.ones((3, 1))})
    with pytest.raises(ValueError, match=r"present must have modalities of \['a'\]; got \['b'\]"):
        history_profiles(likes, {"a": np.ones((2, 1))}, present={"b": [True, True]})
    with pytest.raises(ValueError, match=r"present\['a'\] must be booleans of shape \(2,\)"):
        history_profiles(likes, {"a": np.ones((2, 1))}, present={"a": [1, 0]})
