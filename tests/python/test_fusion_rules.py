"""Normalised sums and rank fusion against the reference."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import recfuse
import reference
import reference_rules
from helpers import assert_same_bytes, normal, random_modalities, random_pattern
from recfuse._moments import Moments
from recfuse._normalised import _centres_and_spreads

N_QUERIES, N_ITEMS = 7, 300
ALL = N_ITEMS + 3  # with what is not ranked


class Problem:
    """Modalities with gaps, per-query weights with zeros, and what the reference needs of them."""

    def __init__(self, rng, metric, *, gaps=True, whole=False, n_items=N_ITEMS):
        dims = (5, 33, 8)
        self.metric, self.n_items = metric, n_items
        self.queries, self.items, _ = random_modalities(rng, dims, N_QUERIES, n_items)
        if whole:
            self.queries = {m: np.round(2 * x) for m, x in self.queries.items()}
            self.items = {m: np.round(2 * x) for m, x in self.items.items()}
        else:
            # Means far from 0: what is left after centring is small.
            self.items = {m: x + np.float32(i) for i, (m, x) in enumerate(self.items.items())}
        self.names = list(self.items)
        self.weights = {m: rng.integers(-1, 4, N_QUERIES) / 2 for m in self.names}
        self.weights["m1"][2] = 0  # so an item that has only that is not ranked
        self.weights["m0"][(self.weight_rows() == 0).all(axis=1)] = 1
        self.present = None
        if gaps:
            self.present = {"m0": rng.random(n_items) < 0.6, "m2": rng.random(n_items) < 0.8}
        self.index = recfuse.FusedIndex(self.items, metric=metric, present=self.present)

    def weight_rows(self):
        return np.stack([self.weights[m] for m in self.names], axis=1)

    def sims(self):
        pairs = ((self.queries[m], self.items[m]) for m in self.names)
        return [reference.similarities(q, x, self.metric) for q, x in pairs]

    def has(self):
        return [(self.present or {}).get(m, np.ones(self.n_items, bool)) for m in self.names]

    def scales(self, rule):
        """Of the reference: centres and spreads by modality."""
        pairs = zip(self.sims(), self.has(), strict=True)
        return zip(*(reference_rules.scale(s, h, rule) for s, h in pairs), strict=True)

    def expected(self, k, centres, spreads, admitted=None, **rule):
        scores = reference_rules.normalised_scores(
            self.sims(), self.has(), self.weight_rows(), centres, spreads, **rule
        )
        return reference.rank(scores, k, admitted)


RULES = [
    (metric, fusion, missing)
    for metric in ("cosine", "dot")
    for fusion in ("sum", "average")
    for missing in ("renormalise", "zero")
]


@pytest.mark.parametrize(("metric", "fusion", "missing"), RULES)
def test_minmax(rng, metric, fusion, missing):
    problem = Problem(rng, metric)
    rule = {"fusion": fusion, "missing": missing}
    got = problem.index.topk(
        problem.queries, ALL, weights=problem.weights, normalise="minmax", **rule
    )
    assert_same_bytes(got, problem.expected(ALL, *problem.scales("minmax"), **rule))


@pytest.mark.parametrize(("metric", "fusion", "missing"), RULES)
def test_zscore(rng, metric, fusion, missing):
    problem = Problem(rng, metric)
    rule = {"fusion": fusion, "missing": missing}
    got = problem.index.topk(
        problem.queries, ALL, weights=problem.weights, normalise="zscore", **rule
    )
    used = [x.T for x in _centres_and_spreads(problem.index, problem.queries, "zscore")]
    assert_same_bytes(got, problem.expected(ALL, *used, **rule))
    for ours, exact in zip(used, problem.scales("zscore"), strict=True):
        np.testing.assert_allclose(ours, exact, rtol=1e-11, atol=1e-12)


def test_zscore_of_whole_numbers(rng, screen):
    # Of 256 items, means and variances are exact, in any order.
    problem = Problem(rng, "dot", gaps=False, whole=True, n_items=256)
    got = problem.index.topk(problem.queries, 30, weights=problem.weights, normalise="zscore")
    assert_same_bytes(got, problem.expected(30, *problem.scales("zscore")))


@pytest.mark.parametrize("rule", ["zscore", "minmax"])
def test_screens_threads_batches_and_lengths_change_nothing(rng, screen, num_threads, rule):
    problem = Problem(rng, "cosine")
    whole = problem.index.topk(problem.queries, 40, weights=problem.weights, normalise=rule)
    index = recfuse.FusedIndex(problem.items, present=problem.present, num_threads=num_threads)
    for part in (slice(0, 1), slice(1, 4), slice(4, 7)):
        queries = {m: q[part] for m, q in problem.queries.items()}
        weights = {m: w[part] for m, w in problem.weights.items()}
        got = index.topk(queries, 11, weights=weights, normalise=rule)
        assert_same_bytes(got, tuple(x[part, :11] for x in whole))


def test_deviations_do_not_depend_on_the_batch(rng):
    items, queries = normal(rng, 400, 300) + 1, normal(rng, 70, 300)
    moments = Moments.of(items, None, "cosine")
    whole = moments.spread(queries, "cosine")
    for first in range(0, 70, 3):
        for n in (1, 2, 5, 13):
            part = slice(first, first + n)
            got = moments.spread(queries[part], "cosine")
            assert_same_bytes(got, tuple(x[part] for x in whole))


@pytest.mark.parametrize("rule", ["zscore", "minmax"])
def test_filters_leave_the_scale_alone(rng, rule):
    problem = Problem(rng, "cosine")
    used = [x.T for x in _centres_and_spreads(problem.index, problem.queries, rule)]
    exclude, excluded = random_pattern(rng, N_QUERIES, N_ITEMS, 0.3)
    allow, allowed = random_pattern(rng, N_QUERIES, N_ITEMS, 0.2)
    some = rng.choice(N_ITEMS, 90)
    listed = np.isin(np.arange(N_ITEMS), some) & np.ones((N_QUERIES, 1), bool)
    for filters, admitted in (
        ({"exclude": exclude}, ~excluded),
        ({"allow": allow}, allowed),
        ({"allow": some}, listed),
        ({"exclude": exclude, "allow": some}, listed & ~excluded),
        ({"allow": sp.csr_array((N_QUERIES, N_ITEMS))}, np.zeros((N_QUERIES, N_ITEMS), bool)),
    ):
        got = problem.index.topk(
            problem.queries, 15, weights=problem.weights, normalise=rule, **filters
        )
        assert_same_bytes(got, problem.expected(15, *used, admitted))


@pytest.mark.parametrize("rule", ["zscore", "minmax"])
@pytest.mark.parametrize("metric", ["cosine", "dot"])
def test_what_does_not_differ_counts_for_nothing(rng, rule, metric):
    items = {"same": np.full((50, 3), 0.1), "zero": np.zeros((50, 2)), "a": rng.random((50, 4))}
    queries = {"same": rng.random((2, 3)), "zero": rng.random((2, 2)), "a": rng.random((2, 4))}
    index = recfuse.FusedIndex(items, metric=metric)
    alone = recfuse.FusedIndex({"a": items["a"]}, metric=metric)
    got = index.topk(queries, 9, normalise=rule, contributions=True)
    assert_same_bytes(got[:2], alone.topk({"a": queries["a"]}, 9, normalise=rule))
    assert not got[2][:, :, :2].any()
    del items["a"], queries["a"]
    ids, scores = recfuse.FusedIndex(items, metric=metric).topk(queries, 3, normalise=rule)
    assert ids.tolist() == [[0, 1, 2]] * 2
    assert not scores.any()


@pytest.mark.parametrize("rule", ["zscore", "minmax"])
def test_what_is_not_finite(rng, rule):
    items = {"a": normal(rng, 40, 3), "b": normal(rng, 40, 2)}
    queries = {"a": normal(rng, 3, 3), "b": normal(rng, 3, 2)}
    items["a"][7], queries["a"][1, 0] = np.nan, np.nan
    ids, scores = recfuse.FusedIndex(items).topk(queries, 10, normalise=rule)
    assert (ids[1] == -1).all()
    sims = [reference.similarities(queries[m], items[m], "cosine")[[0, 2]] for m in items]
    counts = [np.arange(40) != 7, np.ones(40, bool)]
    pairs = [reference_rules.scale(*pair, rule) for pair in zip(sims, counts, strict=True)]
    expected = reference_rules.normalised_scores(
        sims, [np.ones(40, bool)] * 2, np.ones((2, 2)), *zip(*pairs, strict=True)
    )
    expected_ids, expected_scores = reference.rank(expected, 10)
    assert ids[[0, 2]].tolist() == expected_ids.tolist()
    np.testing.assert_allclose(scores[[0, 2]], expected_scores, rtol=1e-6)
    # Of weight 0, the modality is as good as absent.
    ids, scores = recfuse.FusedIndex(items).topk(
        queries, 3, weights={"a": [1, 0, 1], "b": 1}, normalise=rule
    )
    assert (ids[1] >= 0).all()
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("rule", ["zscore", "minmax"])
def test_terms_add_up_to_the_score(rng, rule):
    problem = Problem(rng, "dot")
    ids, scores, terms = problem.index.topk(
        problem.queries, 25, weights=problem.weights, normalise=rule, contributions=True
    )
    assert terms.shape == (N_QUERIES, 25, 3)
    found = ids >= 0
    np.testing.assert_allclose(terms.sum(axis=2)[found], scores[found], rtol=1e-6, atol=1e-6)
    assert not terms[~found].any()
    for m, has in enumerate(problem.has()):
        assert not terms[:, :, m][found & ~has[ids]].any()


@pytest.mark.parametrize("rule", ["zscore", "minmax"])
def test_a_changed_or_pickled_index_has_other_scales(rng, rule):
    problem = Problem(rng, "cosine")
    half = {m: x[:100] for m, x in problem.items.items()}
    rest = {m: x[100:] for m, x in problem.items.items()}
    grown = recfuse.FusedIndex(half)
    grown.topk(problem.queries, 5, normalise=rule)
    grown.add(rest)
    expected = recfuse.FusedIndex(problem.items).topk(problem.queries, 5, normalise=rule)
    assert_same_bytes(grown.topk(problem.queries, 5, normalise=rule), expected)
    copy = pickle.loads(pickle.dumps(grown))
    assert_same_bytes(copy.topk(problem.queries, 5, normalise=rule), expected)
    got = recfuse.fuse_topk(
        problem.queries, problem.items, dict.fromkeys(problem.names, 1), 5, normalise=rule
    )
    assert_same_bytes(got, expected)


def expected_rank_fusion(problem, k, depth, constant, admitted=None):
    pairs = zip(problem.sims(), problem.has(), strict=True)
    lists = [
        reference.rank(np.where(has, sims, np.nan), min(depth, problem.n_items), admitted)[0]
        for sims, has in pairs
    ]
    scores = reference_rules.rank_fusion_scores(
        lists, problem.weight_rows(), constant, problem.n_items
    )
    return reference.rank(scores, k)


@pytest.mark.parametrize("metric", ["cosine", "dot"])
@pytest.mark.parametrize(("k", "depth", "constant"), [(10, 20, 60), (100, 7, 0), (5, 9999, 1.5)])
def test_rank_fusion(rng, metric, k, depth, constant):
    problem = Problem(rng, metric)
    rule = {"fusion": "rrf", "depth": depth, "rank_constant": constant}
    got = problem.index.topk(problem.queries, k, weights=problem.weights, **rule)
    assert_same_bytes(got, expected_rank_fusion(problem, k, depth, constant))
    ids, scores, terms = problem.index.topk(
        problem.queries, k, weights=problem.weights, contributions=True, **rule
    )
    assert_same_bytes((ids, scores), got)
    total = (terms[:, :, 0] + terms[:, :, 1]) + terms[:, :, 2]
    assert_same_bytes((np.where(ids < 0, -np.inf, total).astype(np.float32),), (scores,))
    got = recfuse.fuse_topk(
        problem.queries,
        problem.items,
        problem.weights,
        k,
        metric=metric,
        present=problem.present,
        **rule,
    )
    assert_same_bytes(got, (ids, scores))


@given(st.data())
def test_rank_fusion_of_any_shape(data):
    n_items, n_modalities = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 4))
    names = [f"m{m}" for m in range(n_modalities)]
    values = st.integers(-2, 2).map(float)
    shapes = [((n_items, 2), "items"), ((2, 2), "queries")]
    items, queries = (
        {m: data.draw(npst.arrays(np.float64, shape, elements=values), label) for m in names}
        for shape, label in shapes
    )
    weights = data.draw(npst.arrays(np.float64, (2, n_modalities), elements=values))
    weights[(weights == 0).all(axis=1), 0] = 1
    k, depth = data.draw(st.integers(1, 25)), data.draw(st.integers(1, 25))
    by_name = {m: weights[:, i] for i, m in enumerate(names)}
    rule = {"weights": by_name, "fusion": "rrf", "depth": depth, "rank_constant": 2}
    ids, scores, terms = recfuse.FusedIndex(items).topk(queries, k, contributions=True, **rule)
    pairs = [(queries[m], items[m]) for m in names]
    lists = [
        reference.rank(reference.similarities(q, x, "cosine"), min(depth, n_items))[0]
        for q, x in pairs
    ]
    expected = reference_rules.rank_fusion_scores(lists, weights, 2.0, n_items)
    assert_same_bytes((ids, scores), reference.rank(expected, k))
    total = np.zeros(ids.shape)
    for m in range(n_modalities):
        total = total + terms[:, :, m]
    assert_same_bytes((np.where(ids < 0, -np.inf, total).astype(np.float32),), (scores,))


def test_rank_fusion_in_parts_with_ties_and_filters(rng, monkeypatch):
    from recfuse import _rank_fusion

    monkeypatch.setattr(_rank_fusion, "_ENTRIES", 2 * 3 * 30)
    problem = Problem(rng, "dot", whole=True)
    exclude, excluded = random_pattern(rng, N_QUERIES, N_ITEMS, 0.3)
    got = problem.index.topk(
        problem.queries, 12, weights=problem.weights, fusion="rrf", depth=30, exclude=exclude
    )
    assert_same_bytes(got, expected_rank_fusion(problem, 12, 30, 60, ~excluded))


QUERY = {"a": [[1.0]], "b": [[1.0]]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"normalise": "range"}, "fuse_topk: normalise must be one of .*; got 'range'"),
        ({"normalise": "zscore", "fusion": "max"}, "fusion must be 'sum' or 'average' where"),
        ({"normalise": "zscore", "fusion": "rrf"}, "fusion must be 'sum' or 'average' where"),
        ({"normalise": "zscore", "missing": "x"}, "fuse_topk: missing must be one of"),
        ({"normalise": "zscore", "k": 0}, "fuse_topk: k must be at least 1; got 0"),
        ({"fusion": "rrf", "k": 0}, "fuse_topk: k must be at least 1; got 0"),
        ({"fusion": "rrf", "depth": 0}, "fuse_topk: depth must be at least 1; got 0"),
        ({"fusion": "rrf", "rank_constant": -1}, "rank_constant must be finite and at least 0"),
        *(
            ({**rule, **wrong}, message)
            for rule in ({"fusion": "rrf"}, {"normalise": "minmax"}, {"normalise": "zscore"})
            for wrong, message in (
                ({"weights": {"a": 0, "b": 0}}, "weights must not all be 0; .* for query 0"),
                ({"weights": {"a": np.inf, "b": 0}}, r"weights\['a'\] must be finite; got inf"),
                (
                    {"queries": {"a": [[1.0]], "b": [[1.0], [2]]}},
                    r"queries\['b'\] must have 1 rows",
                ),
                ({"queries": {"a": [[1.0]], "b": [[1.0, 2]]}}, "must have 1 columns"),
            )
        ),
    ],
)
def test_wrong_arguments(arguments, message):
    index = recfuse.FusedIndex({"a": [[1.0], [2]], "b": [[1.0], [0]]})
    arguments = {"queries": QUERY, "k": 1, **arguments}
    with pytest.raises(ValueError, match=message):
        index.topk(arguments.pop("queries"), arguments.pop("k"), **arguments)


@pytest.mark.parametrize("rule", [{"fusion": "rrf"}, {"normalise": "zscore"}])
def test_nothing_to_search(rule):
    index = recfuse.FusedIndex({"a": [[1.0], [2]]})
    assert index.topk({"a": np.zeros((0, 1))}, 3, **rule)[0].shape == (0, 3)
    index = recfuse.FusedIndex({"a": np.zeros((0, 1))}, present={"a": np.zeros(0, bool)})
    ids, scores = index.topk({"a": [[1.0]]}, 2, **rule)
    assert ids.tolist() == [[-1, -1]]
    assert (scores == -np.inf).all()


@pytest.mark.parametrize("rule", ["zscore", "minmax"])
def test_gaps_are_looked_for_once_and_again_after_a_change(rng, rule, monkeypatch):
    problem = Problem(rng, "cosine")
    looked = []
    unique = np.unique
    monkeypatch.setattr(np, "unique", lambda x, **how: (looked.append(len(x)), unique(x, **how))[1])

    def ask(index):
        return index.topk(problem.queries, ALL, weights=problem.weights, normalise=rule)

    first = ask(problem.index)
    assert looked.count(problem.n_items) == 1
    assert_same_bytes(ask(problem.index), first)
    assert looked.count(problem.n_items) == 1
    added = {name: x[:3] for name, x in problem.items.items()}
    problem.index.add(added, present={"m1": np.zeros(3, bool)})
    whole = {name: np.concatenate([problem.items[name], added[name]]) for name in problem.items}
    flags = {name: np.concatenate([has, np.ones(3, bool)]) for name, has in problem.present.items()}
    flags["m1"] = np.arange(problem.n_items + 3) < problem.n_items
    assert_same_bytes(ask(problem.index), ask(recfuse.FusedIndex(whole, present=flags)))
