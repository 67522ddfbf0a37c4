"""Fusions side by side on one's own data."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

import recfuse
from helpers import normal, random_pattern
from recfuse.evaluation import ranking_metrics
from recfuse.fusion import suggest_fusion
from recfuse.fusion.suggest import _zscores


@pytest.fixture
def problem(rng):
    """What is relevant goes by the text and a little by the image; the noise is louder."""
    items = {name: normal(rng, 80, 4) for name in ("text", "image", "noise")}
    items["noise"] *= 10
    queries = {name: normal(rng, 60, 4) for name in items}
    truth = 2 * queries["text"] @ items["text"].T + queries["image"] @ items["image"].T
    return queries, items, sp.csr_array((truth > 7).astype(np.float32))


@pytest.mark.parametrize("metric", ["ndcg", "recall"])
def test_qualities_are_those_of_the_evaluation(problem, rng, metric):
    queries, items, relevant = problem
    present = {"image": rng.random(80) < 0.8}
    exclude, _ = random_pattern(rng, 60, 80, 0.1)
    got = suggest_fusion(
        queries,
        items,
        relevant,
        k=5,
        metric=metric,
        similarity="dot",
        present=present,
        exclude=exclude,
        random_state=3,
    )
    wanted = relevant.multiply(1 - exclude.toarray()).tocsr()
    wanted.eliminate_zeros()
    judged = np.random.default_rng(3).permutation(np.flatnonzero(np.diff(wanted.indptr)))
    test = np.sort(judged[: round(0.5 * len(judged))])
    assert got.n_queries == len(test)
    index = recfuse.FusedIndex(items, metric="dot", present=present)
    assert len(got.options) == 13
    for option in got.options:
        if option.name != "concatenated":
            rows = {name: q[test] for name, q in queries.items()}
            ids = index.topk(rows, 5, exclude=exclude[test], **option.arguments)[0]
            expected = ranking_metrics(ids, sp.csr_array(wanted[test]), k=5)[f"{metric}@5"]
            assert option.quality == pytest.approx(expected, rel=1e-12), option.name
        assert option.milliseconds > 0
    by_name = {option.name: option for option in got.options}
    zero = index.topk(rows, 5, exclude=exclude[test], missing="zero")[0]
    expected = ranking_metrics(zero, sp.csr_array(wanted[test]), k=5)[f"{metric}@5"]
    assert by_name["concatenated"].quality == pytest.approx(expected, rel=1e-12)


def test_the_best_is_found_and_shown(problem):
    got = suggest_fusion(*problem, k=5, similarity="dot")
    by_name = {option.name: option for option in got.options}
    fitted = by_name["fitted sum of z-scores"]
    weights = fitted.arguments["weights"]
    assert weights["text"] > weights["image"] > weights["noise"]
    assert got.options[0] is fitted and fitted.behind == (0.0, 0.0)
    assert fitted.quality > by_name["text alone"].quality > by_name["sum"].quality
    assert got.suggested.behind[0] <= got.suggested.behind[1]
    lines = str(got).splitlines()
    assert len(lines) == 15 and lines[0].split()[:2] == ["fusion", "ndcg@5"]
    assert sum(line.startswith("* ") for line in lines) == 1


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_weights_are_fitted_on_zscores_over_all_items(problem, rng, similarity):
    queries, items, relevant = problem
    present = {"image": rng.random(80) < 0.7}
    index = recfuse.FusedIndex(items, metric=similarity, present=present)
    cached = _zscores(index, queries, relevant, None)
    row = np.repeat(np.arange(60), np.diff(cached.pairs.indptr))
    for column, name in enumerate(items):
        q, x = queries[name].astype(float), items[name].astype(float)
        if similarity == "cosine":
            q, x = (m / np.linalg.norm(m, axis=1, keepdims=True) for m in (q, x))
        here = present.get(name, np.ones(80, bool))
        table = q @ x.T
        mean, deviation = table[:, here].mean(axis=1), table[:, here].std(axis=1)
        z = np.where(here, (table - mean[:, None]) / deviation[:, None], 0)
        np.testing.assert_allclose(
            cached.scores[:, column], z[row, cached.pairs.indices], rtol=1e-5, atol=1e-5
        )
        np.testing.assert_array_equal(cached.present[:, column], here[cached.pairs.indices])
    hits = relevant.toarray()[row, cached.pairs.indices] > 0
    np.testing.assert_array_equal(cached.relevant, hits)


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_an_index_is_tried_as_it_is(problem, rng, similarity):
    queries, items, relevant = problem
    present = {"image": rng.random(80) < 0.7}
    index = recfuse.FusedIndex(items, metric=similarity, present=present)
    got = suggest_fusion(queries, index, relevant, k=5)
    vectors = suggest_fusion(queries, items, relevant, k=5, similarity=similarity, present=present)
    told = [{o.name: (o.quality, o.arguments) for o in s.options} for s in (got, vectors)]
    assert told[0] == told[1]
    other = recfuse.FusedIndex(items, metric="cosine" if similarity == "dot" else "dot")
    assert {o.name: o.quality for o in suggest_fusion(queries, other, relevant, k=5).options} != {
        name: quality for name, (quality, _) in told[0].items()
    }
    with pytest.raises(ValueError, match="similarity must be None where items is an index"):
        suggest_fusion(queries, index, relevant, similarity="dot")
    with pytest.raises(ValueError, match="present must be None where items is an index"):
        suggest_fusion(queries, index, relevant, present=present)


def test_one_modality_is_one_option(problem):
    queries, items, relevant = problem
    got = suggest_fusion({"text": queries["text"]}, {"text": items["text"]}, relevant)
    assert [option.name for option in got.options] == ["text alone"]
    assert got.suggested is got.options[0]


def test_wrong_requests_of_suggest_fusion(problem):
    queries, items, relevant = problem
    with pytest.raises(ValueError, match=r"suggest_fusion: relevant must have shape \(60, 80\)"):
        suggest_fusion(queries, items, relevant[:5])
    with pytest.raises(ValueError, match="relevant must have at least 2 queries with an entry"):
        suggest_fusion(queries, items, sp.csr_array((60, 80)))
    with pytest.raises(ValueError, match="metric must be 'ndcg' or 'recall'; got 'mse'"):
        suggest_fusion(*problem, metric="mse")
    with pytest.raises(ValueError, match="held_out must be between 0 and 1; got 1"):
        suggest_fusion(*problem, held_out=1)
