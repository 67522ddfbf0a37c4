"""What is done to ranked lists: against obvious loops, and on lists that are degenerate."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recfuse.rerank import boost, cap, distance_decay, mmr


def slow_mmr(ids, scores, similarity, k, trade_off):
    """The definition: all pairs looked at again at every step."""
    listed = [(int(i), float(s)) for i, s in zip(ids, scores, strict=True) if i >= 0]
    low, high = min(s for _, s in listed), max(s for _, s in listed)
    relevance = {i: (s - low) / (high - low) if high > low else 1.0 for i, s in listed}
    chosen: list[int] = []
    while len(chosen) < min(k, len(listed)):
        value = {
            i: trade_off * relevance[i]
            - (max((1 - trade_off) * similarity[i, j] for j in chosen) if chosen else 0.0)
            for i in relevance
            if i not in chosen
        }
        best = max(value.values())
        # What rounding tells apart is a tie here, too.
        chosen.append(min(i for i in value if value[i] >= best - 1e-12))
    return chosen


def unit(x):
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    return np.divide(x, norms, out=np.zeros_like(x), where=norms > 0)


@pytest.mark.parametrize("trade_off", [0.0, 0.3, 0.7, 1.0])
def test_mmr_is_the_greedy_definition(rng, trade_off):
    text, image = rng.standard_normal((50, 5)), rng.standard_normal((50, 3))
    image[::4] = 0
    weights = {"text": 3.0, "image": 1.0}
    similarity = 0.75 * unit(text) @ unit(text).T + 0.25 * unit(image) @ unit(image).T
    ids = np.stack([rng.permutation(50)[:30] for _ in range(12)])
    ids[3, 20:] = -1
    ids[4] = -1
    scores = np.where(ids >= 0, -np.sort(-rng.standard_normal(ids.shape), axis=1), -np.inf)
    # float32 vectors are what the function sees
    text, image = text.astype(np.float32), image.astype(np.float32)
    similarity = 0.75 * unit(text.astype(float)) @ unit(text.astype(float)).T
    similarity += 0.25 * unit(image.astype(float)) @ unit(image.astype(float)).T
    got, kept = mmr(
        ids, scores, {"text": text, "image": image}, 25, trade_off=trade_off, weights=weights
    )
    assert (got.dtype, kept.dtype, got.shape) == (np.int32, np.float32, (12, 25))
    for row in range(12):
        if row == 4:
            assert (got[row] == -1).all() and np.isneginf(kept[row]).all()
            continue
        expected = slow_mmr(ids[row], scores[row], similarity, 25, trade_off)
        assert got[row][got[row] >= 0].tolist() == expected
        of = dict(zip(ids[row].tolist(), scores[row].astype(np.float32), strict=True))
        assert kept[row][: len(expected)].tolist() == [of[i] for i in expected]


def test_mmr_with_all_relevance_keeps_the_order_and_with_none_spreads(rng):
    vectors = np.repeat(np.eye(3), 4, axis=0)  # three groups of four alike
    ids, scores = np.arange(12)[None], np.linspace(2, 1, 12)[None]
    assert mmr(ids, scores, vectors, 12, trade_off=1.0)[0].tolist() == ids.tolist()
    assert mmr(ids, scores, vectors, 3, trade_off=0.0)[0].tolist() == [[0, 4, 8]]


def test_mmr_ties_go_to_the_smaller_id():
    ids, scores = [[5, 2, 9, 4]], [[1.0, 1.0, 1.0, 1.0]]
    assert mmr(ids, scores, np.eye(10), 4)[0].tolist() == [[2, 4, 5, 9]]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 15))
def test_mmr_is_a_prefix_and_a_permutation(seed, length, k):
    rng = np.random.default_rng(seed)
    ids, vectors = rng.permutation(20)[:length][None], rng.integers(-1, 2, (20, 2))
    scores = rng.integers(0, 4, (1, length)).astype(float)
    whole, _ = mmr(ids, scores, vectors, length)
    assert sorted(whole[0]) == sorted(ids[0])
    part, _ = mmr(ids, scores, vectors, k)
    assert part[0][: min(k, length)].tolist() == whole[0][:k].tolist()
    assert (part[0][length:] == -1).all()


def test_cap_counts_a_category(rng):
    categories = rng.integers(-1, 4, 60)
    ids = np.stack([rng.permutation(60)[:40] for _ in range(9)])
    scores = -np.sort(-rng.random(ids.shape), axis=1)
    got, kept = cap(ids, scores, categories, 15, at_most=3)
    for row in range(9):
        counts: dict[int, int] = {}
        expected = []
        for item, score in zip(ids[row], scores[row], strict=True):
            kind = int(categories[item])
            counts[kind] = counts.get(kind, 0) + 1
            if kind < 0 or counts[kind] <= 3:
                expected.append((int(item), float(np.float32(score))))
        expected = (expected + [(-1, -np.inf)] * 15)[:15]
        assert list(zip(got[row].tolist(), kept[row].tolist(), strict=True)) == expected


@pytest.mark.parametrize("how", ["multiply", "add"])
@pytest.mark.parametrize("shape", ["items", "queries and items", "entries"])
def test_boost_is_the_formula(rng, how, shape):
    ids = np.stack([rng.permutation(30)[:12] for _ in range(5)])
    ids[2, 7:] = -1
    scores = np.where(ids >= 0, rng.random(ids.shape), -np.inf)
    every = rng.random((5, 30))
    if shape == "items":
        every[:] = every[0]
    given_factors = {
        "items": every[0],
        "queries and items": every,
        "entries": np.take_along_axis(every, np.maximum(ids, 0), 1),
    }[shape]
    got, new = boost(ids, scores, given_factors, 8, how=how, weight=0.5)
    for row in range(5):
        pairs = []
        for item, score in zip(ids[row], scores[row], strict=True):
            if item >= 0:
                f = every[row, item]
                value = score * f**0.5 if how == "multiply" else score + 0.5 * f
                pairs.append((-float(np.float32(value)), int(item)))
        expected = (sorted(pairs) + [(np.inf, -1)] * 8)[:8]
        assert got[row].tolist() == [i for _, i in expected]
        np.testing.assert_array_equal(-new[row], [v for v, _ in expected])


def test_distance_decay():
    np.testing.assert_allclose(distance_decay([0, 2, 4, np.inf], 2.0), [1, 0.5, 0.25, 0])
    np.testing.assert_array_equal(distance_decay([0, 2, np.inf], np.inf), [1, 1, 1])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: mmr([[0]], [[1.0]], np.eye(2), trade_off=1.5), ValueError, r"mmr: trade_off must"),
        (lambda: mmr([[0]], [[1.0]], np.eye(2), k=0), ValueError, "k must be at least 1; got 0"),
        (lambda: mmr([[2]], [[1.0]], np.eye(2)), IndexError, r"ids must be rows of vectors \(2\)"),
        (lambda: mmr([[-2]], [[1.0]], np.eye(2)), IndexError, "ids must be items, or -1; got -2"),
        (lambda: mmr([[0, 0]], [[1.0, 1]], np.eye(2)), ValueError, "ids must not repeat"),
        (lambda: mmr([0], [1.0], np.eye(2)), ValueError, "ids must have shape"),
        (lambda: mmr([[0.5]], [[1.0]], np.eye(2)), TypeError, "ids must be integers"),
        (lambda: mmr([[0]], [[np.nan]], np.eye(2)), ValueError, "scores must be finite"),
        (lambda: mmr([[0]], [[1.0]], [[np.nan]]), ValueError, "vectors must be finite"),
        (lambda: mmr([[0]], [[1.0]], {}), ValueError, "vectors must have at least 1 modality"),
        (
            lambda: mmr([[0]], [[1.0]], {"a": np.eye(2)}, weights={"b": 1.0}),
            ValueError,
            r"weights must name the modalities \['a'\]",
        ),
        (
            lambda: mmr([[0]], [[1.0]], {"a": np.eye(2)}, weights={"a": 0.0}),
            ValueError,
            "weights must be finite, at least 0 and not all 0",
        ),
        (lambda: cap([[0]], [[1.0]], [0], at_most=0), ValueError, "at_most must be at least 1"),
        (lambda: cap([[1]], [[1.0]], [0]), IndexError, "ids must be rows of categories"),
        (lambda: cap([[0]], [[1.0]], [0.5]), TypeError, "categories must be integers"),
        (lambda: boost([[0]], [[-1.0]], [1.0]), ValueError, "scores must be at least 0"),
        (lambda: boost([[0]], [[1.0]], [-1.0]), ValueError, "factors must be at least 0"),
        (lambda: boost([[0]], [[1.0]], [1.0], how="x"), ValueError, "how must be"),
        (lambda: boost([[3]], [[1.0]], [1.0, 2]), IndexError, r"ids must be in \[0, 2\)"),
        (lambda: boost([[0]], [[1.0]], np.ones((2, 3))), ValueError, "factors must have shape"),
        (lambda: boost([[0]], [[1.0]], [np.nan]), ValueError, "factors must be finite"),
        (lambda: distance_decay([-1.0], 1.0), ValueError, "distances must be at least 0"),
        (lambda: distance_decay([np.nan], 1.0), ValueError, "distances must be known; got NaN"),
        (lambda: distance_decay([1.0], 0.0), ValueError, "half_distance must be above 0"),
    ],
)
def test_bad_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
