"""Fused retrieval against its specification: same ids, same bits, and the laws of fusion."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

import recfuse
import reference
from helpers import assert_same_bytes, normal, random_modalities, random_pattern

FUSIONS = ["sum", "average", "product", "max", "min"]
DIMS = (6, 1, 19)


def expected(queries, items, weights, k, *, admitted=None, **options):
    scores, _ = reference.fused_scores(queries, items, weights, **options)
    return reference.rank(scores, k, admitted)


def random_presence(rng, items, share=0.6):
    n_items = len(next(iter(items.values())))
    return {name: rng.random(n_items) < share for name in items}


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("metric", ["cosine", "dot"])
@pytest.mark.parametrize("n_queries", [1, 23])
def test_matches_the_reference(screen, num_threads, rng, fusion, metric, n_queries):
    queries, items, weights = random_modalities(rng, DIMS, n_queries, 330)
    options = {"fusion": fusion, "metric": metric}
    got = recfuse.fuse_topk(queries, items, weights, 12, num_threads=num_threads, **options)
    assert_same_bytes(got, expected(queries, items, weights, 12, **options))


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("missing", ["renormalise", "zero"])
@pytest.mark.parametrize("n_queries", [2, 23])
def test_missing_modalities(screen, rng, fusion, missing, n_queries):
    queries, items, weights = random_modalities(rng, DIMS, n_queries, 330)
    weights["m1"] = -0.4
    present = random_presence(rng, items)
    for name, matrix in items.items():
        matrix[~present[name]] = np.nan  # what is missing is never looked at
    options = {"fusion": fusion, "missing": missing, "present": present}
    got = recfuse.fuse_topk(queries, items, weights, 25, **options)
    clean = {name: np.nan_to_num(matrix) for name, matrix in items.items()}
    assert_same_bytes(got, expected(queries, clean, weights, 25, **options))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_weights_per_query(screen, num_threads, rng, fusion):
    queries, items, _ = random_modalities(rng, DIMS, 30, 330)
    weights = {name: rng.choice([0.0, 0.5, 2.0, -1.0], 30) for name in items}
    weights["m0"][:] = 1.5  # not all zero
    present = random_presence(rng, items)
    present["m0"][:5] = False
    options = {"fusion": fusion, "present": present}
    got = recfuse.fuse_topk(queries, items, weights, 12, num_threads=num_threads, **options)
    assert_same_bytes(got, expected(queries, items, weights, 12, **options))


def test_an_item_without_any_modality_is_not_ranked(rng):
    queries, items, weights = random_modalities(rng, (3, 3), 2, 5)
    present = {name: np.array([True, False, True, True, True]) for name in items}
    ids, _ = recfuse.fuse_topk(queries, items, weights, 5, present=present)
    assert 1 not in ids
    assert (ids[:, -1] == -1).all()
    ids, _ = recfuse.fuse_topk(queries, items, weights, 5, present=present, missing="zero")
    assert (np.sort(ids) == np.arange(5)).all()


@pytest.mark.parametrize("fusion", FUSIONS)
def test_contributions(screen, rng, fusion):
    queries, items, weights = random_modalities(rng, DIMS, 9, 60)
    present = random_presence(rng, items)
    index = recfuse.FusedIndex(items, present=present)
    ids, scores, parts = index.topk(queries, 70, weights=weights, fusion=fusion, contributions=True)
    fused, terms = reference.fused_scores(queries, items, weights, fusion=fusion, present=present)
    assert_same_bytes((ids, scores), reference.rank(fused, 70))
    assert parts.shape == (9, 70, 3)
    assert (parts[ids < 0] == 0).all()
    rows = np.arange(9)[:, None]
    np.testing.assert_array_equal(parts[ids >= 0], terms[rows, ids][ids >= 0])
    if fusion in ("sum", "average"):
        total = parts[..., 0] + parts[..., 1] + parts[..., 2]
        np.testing.assert_array_equal(total.astype(np.float32)[ids >= 0], scores[ids >= 0])


@pytest.mark.parametrize("fusion", FUSIONS)
def test_pairs_have_the_scores_of_the_lists(screen, num_threads, rng, fusion):
    queries, items, weights = random_modalities(rng, DIMS, 9, 60)
    present = random_presence(rng, items, 0.4)
    index = recfuse.FusedIndex(items, present=present, num_threads=num_threads)
    pairs, dense = random_pattern(rng, 9, 60, 0.5)
    scores, parts = index.score_pairs(queries, pairs, weights=weights, fusion=fusion)
    fused, terms = reference.fused_scores(queries, items, weights, fusion=fusion, present=present)
    np.testing.assert_array_equal(scores, fused[dense].astype(np.float32))
    ranked = ~np.isnan(scores)
    np.testing.assert_array_equal(parts[ranked], terms[dense][ranked])


def test_filters(screen, num_threads, rng):
    queries, items, weights = random_modalities(rng, DIMS, 25, 400)
    exclude, excluded = random_pattern(rng, 25, 400, 0.3)
    allow, allowed = random_pattern(rng, 25, 400, 0.5)
    present = random_presence(rng, items)
    filters = {"exclude": exclude, "allow": allow}
    got = recfuse.fuse_topk(
        queries, items, weights, 20, present=present, num_threads=num_threads, **filters
    )
    admitted = allowed & ~excluded
    options = {"present": present, "admitted": admitted}
    assert_same_bytes(got, expected(queries, items, weights, 20, **options))
    some = np.flatnonzero(rng.random(400) < 0.3)
    got = recfuse.fuse_topk(queries, items, weights, 20, exclude=exclude, allow=some)
    admitted = np.zeros((25, 400), bool)
    admitted[:, some] = True
    assert_same_bytes(got, expected(queries, items, weights, 20, admitted=admitted & ~excluded))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_values_outside_the_range_of_the_screen(screen, rng, fusion):
    queries, items, weights = random_modalities(rng, (5, 7), 12, 200)
    items["m0"][::7] *= np.float32(1e-30)
    items["m1"][::5] *= np.float32(1e25)
    items["m0"][3, 2], items["m1"][8, 0], items["m0"][9] = np.nan, np.inf, 0
    queries["m0"][2, 1], queries["m1"][4] = np.nan, 0
    queries["m1"][5] *= np.float32(1e30)
    for metric in ("dot", "cosine"):
        options = {"fusion": fusion, "metric": metric}
        got = recfuse.fuse_topk(queries, items, weights, 40, **options)
        assert_same_bytes(got, expected(queries, items, weights, 40, **options))


def test_a_modality_of_weight_0_is_as_good_as_absent(screen, rng):
    queries, items, weights = random_modalities(rng, DIMS, 11, 150)
    items["m1"][:] = np.nan
    weights["m1"] = 0.0
    got = recfuse.fuse_topk(queries, items, weights, 10)
    rest = [{n: x[n] for n in ("m0", "m2")} for x in (queries, items, weights)]
    assert_same_bytes(got, recfuse.fuse_topk(*rest, 10))


def test_two_halves_of_a_weight_make_the_whole(rng):
    queries, items, _ = random_modalities(rng, (6,), 11, 150)
    twice = [{"a": x["m0"], "b": x["m0"]} for x in (queries, items)]
    got = recfuse.fuse_topk(*twice, {"a": 0.5, "b": 0.5}, 10)
    assert_same_bytes(got, recfuse.fuse_topk(queries, items, {"m0": 1.0}, 10))


@given(scale=st.sampled_from([0.25, 2.0, 1024.0]), seed=st.integers(0, 1000))
def test_scaling_all_weights_keeps_the_order(scale, seed):
    rng = np.random.default_rng(seed)
    queries, items, weights = random_modalities(rng, (3, 4), 8, 40)
    ids, scores = recfuse.fuse_topk(queries, items, weights, 10)
    scaled = {name: scale * w for name, w in weights.items()}
    got = recfuse.fuse_topk(queries, items, scaled, 10)
    assert_same_bytes(got, (ids, scores * np.float32(scale)))


def test_one_modality_of_weight_1_is_topk(screen, rng):
    queries, items, _ = random_modalities(rng, (21,), 14, 250)
    for metric in ("dot", "cosine"):
        got = recfuse.fuse_topk(queries, items, {"m0": 1.0}, 9, metric=metric)
        assert_same_bytes(got, recfuse.topk(queries["m0"], items["m0"], 9, metric=metric))


def test_many_modalities(screen, rng):
    queries, items, weights = random_modalities(rng, (2,) * 20, 9, 130)
    got = recfuse.fuse_topk(queries, items, weights, 9)
    assert_same_bytes(got, expected(queries, items, weights, 9))


def test_add_update_and_remove_equal_an_index_built_anew(rng):
    queries, items, weights = random_modalities(rng, DIMS, 9, 80)
    present = random_presence(rng, items)
    index = recfuse.FusedIndex(items, present=present)

    def check(current, mask):
        anew = recfuse.FusedIndex(current, present=mask)
        assert_same_bytes(
            index.topk(queries, 30, weights=weights), anew.topk(queries, 30, weights=weights)
        )

    _, more, _ = random_modalities(rng, DIMS, 1, 20)
    index.add(more)
    items = {n: np.concatenate([items[n], more[n]]) for n in items}
    present = {n: np.concatenate([present[n], np.ones(20, bool)]) for n in items}
    check(items, present)

    _, other, _ = random_modalities(rng, DIMS, 1, 3)
    mask = {"m2": np.array([False, True, False])}
    index.update([5, 90, 7], other, present=mask)
    for n in items:
        items[n][[5, 90, 7]] = other[n]
        present[n][[5, 90, 7]] = mask.get(n, True)
    check(items, present)

    index.update([8, 2], {"m1": other["m1"][:2]}, present={"m1": np.array([True, False])})
    items["m1"][[8, 2]] = other["m1"][:2]
    present["m1"][[8, 2]] = [True, False]
    check(items, present)

    index.remove([0, 99, 50, 50])
    items = {n: np.delete(x, [0, 99, 50], axis=0) for n, x in items.items()}
    present = {n: np.delete(x, [0, 99, 50]) for n, x in present.items()}
    check(items, present)
    assert index.n_items == 97


def test_updating_does_not_write_to_the_callers_arrays(rng):
    _, items, _ = random_modalities(rng, (4,), 1, 10)
    before = items["m0"].copy()
    index = recfuse.FusedIndex(items)
    index.update([0], {"m0": np.ones((1, 4))})
    np.testing.assert_array_equal(items["m0"], before)


def test_updating_uses_other_modalities_where_they_are(rng):
    queries, items, _ = random_modalities(rng, (4, 3), 2, 10)
    index = recfuse.FusedIndex(items)
    index.update([3], {"m1": np.ones((1, 3))})
    assert index._items["m0"] is items["m0"]
    changed = {"m0": items["m0"], "m1": items["m1"].copy()}
    changed["m1"][3] = 1
    assert_same_bytes(index.topk(queries, 9), recfuse.FusedIndex(changed).topk(queries, 9))


def test_a_failed_change_leaves_the_index_as_it_was(rng):
    queries, items, _ = random_modalities(rng, (4, 2), 3, 10)
    index = recfuse.FusedIndex(items)
    before = index.topk(queries, 5)
    wrong = {"m0": np.ones((2, 4)), "m1": np.ones((3, 2))}
    with pytest.raises(ValueError, match="m1"):
        index.add(wrong)
    with pytest.raises(IndexError, match=r"ids must be in \[0, 10\); got 10"):
        index.remove([10])
    with pytest.raises(ValueError, match="one row per id"):
        index.update([1], {"m0": np.ones((2, 4)), "m1": np.ones((2, 2))})
    with pytest.raises(ValueError, match=r"update: items must name modalities of \['m0', 'm1'\]"):
        index.update([1], {"text": np.ones((1, 4))})
    with pytest.raises(ValueError, match=r"update: present must name modalities of \['m0'\]"):
        index.update([1], {"m0": np.ones((1, 4))}, present={"m1": np.ones(1, bool)})
    assert_same_bytes(index.topk(queries, 5), before)


ITEMS = {"text": np.ones((4, 3)), "image": np.ones((4, 2))}
QUERIES = {"text": np.ones((2, 3)), "image": np.ones((2, 2))}
WEIGHTS = {"text": 1.0, "image": 1.0}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"items": {}}, ValueError, "items must have at least 1 modality; got 0"),
        ({"items": ITEMS["text"]}, TypeError, "items must be a mapping modality -> array"),
        (
            {"items": {**ITEMS, "image": np.ones((5, 2))}},
            ValueError,
            r"items\['image'\] must have 4 rows like items\['text'\]; got 5",
        ),
        (
            {"queries": {**QUERIES, "image": np.ones((2, 3))}},
            ValueError,
            r"queries\['image'\] must have 2 columns like items\['image'\]; got 3",
        ),
        (
            {"queries": {**QUERIES, "image": np.ones((3, 2))}},
            ValueError,
            r"queries\['image'\] must have 2 rows like queries\['text'\]; got 3",
        ),
        ({"queries": {"text": QUERIES["text"]}}, ValueError, "queries must have the modalities"),
        ({"weights": {"text": 1.0}}, ValueError, "weights must have the modalities"),
        ({"weights": {**WEIGHTS, "audio": 1.0}}, ValueError, "weights must have the modalities"),
        ({"weights": [1.0, 1.0]}, TypeError, "weights must be a mapping"),
        ({"weights": {"text": np.nan, "image": 1.0}}, ValueError, "must be finite; got nan"),
        ({"weights": {"text": 1.0, "image": np.inf}}, ValueError, r"weights\['image'\] must be"),
        ({"weights": {"text": 0, "image": 0.0}}, ValueError, "weights must not all be 0"),
        (
            {"weights": {"text": [1.0, 0.0], "image": 0.0}},
            ValueError,
            "got only zeros for query 1",
        ),
        ({"weights": {"text": [1.0] * 3, "image": 1.0}}, ValueError, r"have shape \(2,\)"),
        ({"weights": {"text": "1", "image": 1.0}}, TypeError, r"weights\['text'\] must be real"),
        ({"fusion": "mean"}, ValueError, "fusion must be one of 'sum', 'average', 'product'"),
        ({"missing": "skip"}, ValueError, "missing must be one of 'renormalise', 'zero'"),
        ({"present": {"audio": np.ones(4, bool)}}, ValueError, "present must name modalities"),
        ({"present": {"text": np.ones(4)}}, TypeError, r"present\['text'\] must be boolean"),
        (
            {"present": {"text": np.ones(3, bool)}},
            ValueError,
            r"must have shape \(4,\); got \(3,\)",
        ),
        ({"k": 0}, ValueError, "fuse_topk: k must be at least 1; got 0"),
        ({"exclude": sp.csr_array((2, 5))}, ValueError, r"exclude must have shape \(2, 4\)"),
    ],
)
def test_bad_arguments_are_named(change, error, message):
    arguments = {"queries": QUERIES, "items": ITEMS, "weights": WEIGHTS, "k": 2, **change}
    positional = [arguments.pop(name) for name in ("queries", "items", "weights", "k")]
    with pytest.raises(error, match=message):
        recfuse.fuse_topk(*positional, **arguments)


def test_the_index_keeps_its_arrays_alive(rng):
    queries, items, _ = random_modalities(rng, (400,), 8, 2000)
    index = recfuse.FusedIndex({"m0": items["m0"].astype(np.float64)})
    first = index.topk(queries, 5)
    clutter = [normal(rng, 2000, 400) for _ in range(4)]
    assert_same_bytes(index.topk(queries, 5), first)
    assert len(clutter) == 4
