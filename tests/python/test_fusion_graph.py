"""Graphs of fusion rules: on scores against NumPy, as searches against the graph on scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import recfuse
from helpers import assert_same_bytes, normal, random_pattern
from recfuse.fusion import Average, Max, Min, Product, Sum

NAMES = ("cnn", "lstm", "text", "audio")
LINEAR = Sum({"cnn": 0.5, Average({"lstm": 1, "text": 3}): 0.25, Sum({"text": 2, "cnn": -1}): 0.5})
MIXED = Sum({"cnn": 0.5, Max({"lstm": 1, Product(["text", "audio"]): 2}): 0.25})


@pytest.fixture
def scores(rng):
    return {name: rng.standard_normal((5, 7)) for name in NAMES}


def test_the_article_adds_an_average_and_a_sum(scores):
    fused = Sum([Average({"cnn": 0.7}), Sum({"lstm": 0.3})])
    np.testing.assert_allclose(fused(scores), scores["cnn"] + 0.3 * scores["lstm"], rtol=1e-12)


def test_a_graph_is_what_it_says(scores):
    want = 0.5 * scores["cnn"] + 0.25 * np.maximum(
        scores["lstm"], 2 * scores["text"] * scores["audio"]
    )
    np.testing.assert_allclose(MIXED(scores), want, rtol=1e-12)
    assert MIXED.modalities == list(NAMES)
    assert MIXED.linear_weights() is None
    low = Min({"cnn": 2.0, "text": -1.0, "audio": 0.0})
    np.testing.assert_array_equal(low(scores), np.minimum(2 * scores["cnn"], -scores["text"]))


def test_flattened_weights_are_the_graph(scores):
    weights = LINEAR.linear_weights()
    assert weights == {"cnn": 0.0, "lstm": 0.0625, "text": 1.1875}
    flat = sum(w * scores[name] for name, w in weights.items())
    np.testing.assert_allclose(LINEAR(scores), flat, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("missing", ["renormalise", "zero"])
@pytest.mark.parametrize("node", [Sum, Average, Product, Max, Min])
def test_one_rule_is_the_rule_of_the_index(rng, node, missing):
    dims = dict.fromkeys(NAMES, 1)
    items = {name: normal(rng, 30, d) for name, d in dims.items()}
    queries = {name: normal(rng, 3, d) for name, d in dims.items()}
    present = {name: rng.random(30) < 0.6 for name in NAMES}
    index = recfuse.FusedIndex(items, metric="dot", present=present)
    weights = {"cnn": 0.5, "lstm": 2.0, "text": -1.0, "audio": 0.25}
    got = node(weights).topk(index, queries, 30, missing=missing)
    want = index.topk(queries, 30, weights=weights, fusion=node.rule, missing=missing)
    assert_same_bytes(got, want)
    products = {name: queries[name].astype(float) @ items[name].T.astype(float) for name in NAMES}
    given_scores = {name: np.where(present[name], s, np.nan) for name, s in products.items()}
    table = node(weights)(given_scores, missing=missing)
    for row in range(3):
        ranked = want[0][row][want[0][row] >= 0]
        np.testing.assert_allclose(want[1][row][: len(ranked)], table[row, ranked], rtol=1e-5)
        assert np.isnan(table[row, np.setdiff1d(np.arange(30), ranked)]).all()


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_a_linear_graph_is_one_search(data):
    # Eighths of small whole numbers: no sum is rounded, so the bytes are the same.
    def block(n):
        rows = st.lists(st.integers(-3, 3), min_size=2, max_size=2)
        return {
            name: np.array(data.draw(st.lists(rows, min_size=n, max_size=n)), np.float32)
            for name in NAMES
        }

    queries, items = block(2), block(9)
    index = recfuse.FusedIndex(items, metric="dot")
    table = LINEAR({name: queries[name] @ items[name].T for name in NAMES})
    order = np.argsort(-table, axis=1, kind="stable")
    ids, found = LINEAR.topk(index, queries, 9)
    np.testing.assert_array_equal(ids, order)
    np.testing.assert_array_equal(found, np.take_along_axis(table, order, 1))


@pytest.mark.parametrize("graph", [LINEAR, MIXED], ids=["linear", "mixed"])
@pytest.mark.parametrize("missing", ["renormalise", "zero"])
def test_any_graph_ranks_exactly(rng, graph, missing, monkeypatch):
    monkeypatch.setattr("recfuse.fusion.graph._PAIRS", 100)  # blocks of 2 queries
    dims = {"cnn": 3, "lstm": 5, "text": 2, "audio": 4}
    items = {name: normal(rng, 40, d) for name, d in dims.items()}
    queries = {name: normal(rng, 5, d) for name, d in dims.items()}
    present = {name: rng.random(40) < 0.5 for name in NAMES}
    index = recfuse.FusedIndex(items, metric="dot", present=present)
    exclude, left_out = random_pattern(rng, 5, 40, 0.2)
    allow = np.arange(0, 40, 3)
    ids, found = graph.topk(index, queries, 6, missing=missing, exclude=exclude, allow=allow)
    table = graph(
        {
            name: np.where(
                present[name], queries[name].astype(float) @ items[name].T.astype(float), np.nan
            )
            for name in NAMES
        },
        missing=missing,
    )
    table[left_out | ~np.isin(np.arange(40), allow)] = np.nan
    for row in range(5):
        ranked = np.argsort(-table[row], kind="stable")
        order = [i for i in ranked if not np.isnan(table[row, i])][:6]
        assert ids[row, : len(order)].tolist() == order
        np.testing.assert_allclose(
            found[row, : len(order)], table[row, order], rtol=1e-5, atol=1e-6
        )
        assert (ids[row, len(order) :] == -1).all()


@pytest.mark.parametrize("graph", [LINEAR, MIXED, Max(["text", "cnn"])], ids=["one", "any", "flat"])
def test_a_nan_never_ranks(rng, graph):
    items = {name: normal(rng, 12, 2) for name in NAMES}
    items["text"][4] = np.nan
    index = recfuse.FusedIndex(items)
    ids, _ = graph.topk(index, {name: normal(rng, 3, 2) for name in NAMES}, 12)
    assert all(set(row) == {-1, *range(4), *range(5, 12)} for row in ids.tolist())


def test_wrong_graphs_are_refused(scores, rng):
    with pytest.raises(TypeError, match="Sum: children must be a mapping or a list; got 'cnn'"):
        Sum("cnn")
    with pytest.raises(TypeError, match="Max: children must be names or fusion nodes; got 3"):
        Max([3])
    with pytest.raises(ValueError, match="Sum: weight of 'cnn' must be finite; got nan"):
        Sum({"cnn": np.nan})
    with pytest.raises(ValueError, match="Sum: children must have a weight other than 0"):
        Sum({"cnn": 0})
    with pytest.raises(ValueError, match=r"scores must have the modalities .* got no \['audio'\]"):
        MIXED({name: scores[name] for name in NAMES[:3]})
    index = recfuse.FusedIndex({name: normal(rng, 3, 2) for name in NAMES})
    queries = {name: normal(rng, 1, 2) for name in NAMES}
    with pytest.raises(ValueError, match="topk: normalise must be None for a graph"):
        MIXED.topk(index, queries, 2, normalise="zscore")
    with pytest.raises(ValueError, match=r"topk: index must have the modalities .* \['image'\]"):
        Sum({"image": 1}).topk(index, queries, 2)
    assert repr(Sum({"cnn": 0.5, Max(["text"]): 1})) == "Sum({'cnn': 0.5, Max({'text': 1}): 1})"
