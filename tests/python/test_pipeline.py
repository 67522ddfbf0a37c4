"""Encode, fuse, top-k as one object: the bytes of the steps by hand."""

from __future__ import annotations

import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from helpers import assert_same_bytes, normal, random_pattern
from recfuse import FusedIndex
from recfuse.features import AttributeEncoder
from recfuse.serving import Pipeline

N, DIM = 60, 5


def by_letters(texts):
    """One row per text, whatever comes with it."""
    return np.array([[text.count(c) for c in "abc"] for text in texts], np.float32)


def texts_of(rng, n):
    return ["".join(rng.choice(list("abcd"), rng.integers(1, 9))) for _ in range(n)]


@pytest.fixture
def items(rng):
    return {"text": by_letters(texts_of(rng, N)), "place": normal(rng, N, DIM)}


@pytest.fixture
def requests(rng):
    return {"text": texts_of(rng, 7), "place": normal(rng, 7, DIM)}


def vectors_of(requests):
    return {"text": by_letters(requests["text"]), "place": requests["place"]}


@pytest.mark.parametrize("n_requests", [1, 7])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weights": {"text": 0.25, "place": 0.75}, "missing": "zero"},
        {"fusion": "max"},
        {"fusion": "rrf"},
        {"normalise": "zscore"},
    ],
    ids=str,
)
def test_a_call_is_the_steps_by_hand(items, requests, options, n_requests, num_threads, rng):
    index = FusedIndex(items, num_threads=num_threads)
    requests = {name: rows[:n_requests] for name, rows in requests.items()}
    exclude, _ = random_pattern(rng, n_requests, N, 0.1)
    filters = {"exclude": exclude, "allow": np.arange(3, N)}
    got = Pipeline(index, {"text": by_letters}, k=6, **options).topk(
        requests, **filters, contributions=True
    )
    expected = index.topk(vectors_of(requests), 6, **options, **filters, contributions=True)
    assert_same_bytes(got, expected)


def test_alone_or_together_a_request_gets_the_same_list(items, requests):
    pipeline = Pipeline(items, {"text": by_letters}, metric="dot", num_threads=2)
    together = pipeline.topk(requests, 4)
    for row in range(7):
        one = {name: rows[row : row + 1] for name, rows in requests.items()}
        assert_same_bytes(pipeline.topk(one, 4), tuple(x[row : row + 1] for x in together))


def test_defaults_are_those_of_the_pipeline_and_a_call_may_differ(items, requests):
    vectors, index = vectors_of(requests), FusedIndex(items, metric="dot")
    pipeline = Pipeline(index, {"text": by_letters}, k=3, weights={"text": 2.0, "place": 0.5})
    assert pipeline.index is index
    expected = index.topk(vectors, 3, weights={"text": 2.0, "place": 0.5})
    assert_same_bytes(pipeline.topk(requests), expected)
    per_request = {"text": np.arange(7.0), "place": 1.0}
    assert_same_bytes(
        pipeline.topk(requests, 5, weights=per_request), index.topk(vectors, 5, weights=per_request)
    )


# What is missing.


def fused_by_hand(sims, weights, has_item, has_request, fusion, missing):
    """Score one pair in Python's floats: a modality counts where both sides have it."""
    both = [a and b and w != 0 for a, b, w in zip(has_item, has_request, weights, strict=True)]
    whole = math.fsum(abs(w) for w in weights)
    if missing == "zero":
        terms = [w * s if b else 0.0 for w, s, b in zip(weights, sims, both, strict=True)]
        return math.fsum(terms) / (whole if fusion == "average" else 1)
    left = math.fsum(abs(w) for w, b in zip(weights, both, strict=True) if b)
    if left == 0:
        return -math.inf
    total = math.fsum(w * s for w, s, b in zip(weights, sims, both, strict=True) if b)
    return total / left * (whole if fusion == "sum" else 1)


@pytest.mark.parametrize("missing", ["renormalise", "zero"])
@pytest.mark.parametrize("fusion", ["sum", "average"])
@pytest.mark.parametrize("per_request", [False, True])
def test_what_either_side_lacks_is_left_out(rng, fusion, missing, per_request):
    n, items = 6, {m: normal(rng, 20, 4) for m in "abc"}
    has_items = {m: rng.random(20) < 0.7 for m in "abc"}
    queries = {m: normal(rng, n, 4) for m in "abc"}
    has = {m: rng.random(n) < 0.6 for m in "abc"}
    for flags in has.values():
        flags[0] = False  # a request that has nothing at all
        flags[1] = True
    weights = {
        m: rng.uniform(-1, 1, n) if per_request else w
        for m, w in zip("abc", (1, -2, 0.5), strict=True)
    }
    index = FusedIndex(items, metric="dot", present=has_items)
    pipeline = Pipeline(index, k=20, fusion=fusion, missing=missing, weights=None)
    inputs = {
        m: [row if flag else None for row, flag in zip(queries[m], has[m], strict=True)]
        for m in "abc"
    }
    ids, scores = pipeline.topk(inputs, weights=weights)
    for r in range(n):
        expected = {}
        for i in range(20):
            expected[i] = fused_by_hand(
                [float(np.dot(np.float64(queries[m][r]), np.float64(items[m][i]))) for m in "abc"],
                [float(np.broadcast_to(weights[m], n)[r]) for m in "abc"],
                [has_items[m][i] for m in "abc"],
                [has[m][r] for m in "abc"],
                fusion,
                missing,
            )
        ranked = sorted(
            (i for i in expected if expected[i] > -math.inf), key=lambda i: (-expected[i], i)
        )
        assert ids[r].tolist() == ranked + [-1] * (20 - len(ranked))
        np.testing.assert_allclose(
            scores[r][: len(ranked)], [expected[i] for i in ranked], rtol=1e-6, atol=1e-9
        )
    if missing == "renormalise":
        assert (ids[0] == -1).all() and np.isneginf(scores[0]).all()
        parts = pipeline.topk(inputs, contributions=True)[2]
        assert (parts[0] == 0).all()


@pytest.mark.parametrize(
    ("fusion", "missing"),
    [(rule, "renormalise") for rule in ("product", "max", "min", "rrf")] + [("rrf", "zero")],
)
def test_other_rules_see_only_what_a_request_has(items, requests, fusion, missing):
    options = {"fusion": fusion, "missing": missing}
    pipeline = Pipeline(items, {"text": by_letters}, metric="dot", k=5, **options)
    texts = [None, *requests["text"][1:]]
    got = pipeline.topk({"text": texts, "place": requests["place"]})
    whole = pipeline.topk(requests)
    assert_same_bytes(tuple(x[1:] for x in got), tuple(x[1:] for x in whole))
    alone = FusedIndex({"place": items["place"]}, metric="dot").topk(
        {"place": requests["place"][:1]}, 5, fusion=fusion
    )
    assert_same_bytes(tuple(x[:1] for x in got), alone)


@pytest.mark.parametrize("absent", ["left out", "None", "rows", "present"])
def test_the_ways_to_say_that_something_is_missing(items, requests, absent):
    pipeline = Pipeline(items, {"text": by_letters}, k=5, metric="dot")
    inputs, present = dict(requests), None
    if absent == "left out":
        del inputs["text"]
    elif absent == "present":
        present = {"text": np.zeros(7, bool)}
    else:
        inputs["text"] = None if absent == "None" else [None] * 7
    got = pipeline.topk(inputs, present=present)
    index = FusedIndex(items, metric="dot")
    weights = {"text": 0.0, "place": 2.0}  # (1 + 1) / 1
    queries = {"text": np.zeros((7, 3)), "place": requests["place"]}
    assert_same_bytes(got, index.topk(queries, 5, weights=weights))


def test_an_encoder_sees_only_what_is_there(items, requests):
    seen = []

    def noting(texts):
        seen.append(list(texts))
        return by_letters(texts)

    pipeline = Pipeline(items, {"text": noting})
    texts = list(requests["text"])
    texts[2] = texts[5] = None
    for inputs in (texts, tuple(texts), np.array(texts, object)):
        encoded = pipeline.encode({"text": inputs})
        assert encoded.present["text"].tolist() == [x is not None for x in texts]
        assert not encoded.present["place"].any()
        assert not encoded.vectors["text"][[2, 5]].any()
    assert seen == [[x for x in texts if x is not None]] * 3
    pipeline.topk({"text": [None], "place": requests["place"][:1]})
    assert len(seen) == 3


def test_tables_and_columns_of_pandas(items, requests):
    pd = pytest.importorskip("pandas")
    table = pd.DataFrame({"genre": ["a", "b", "a", "c"], "year": [1990, 2000, 2010, 2020]})
    encoder = AttributeEncoder({"genre": "categorical", "year": "numeric"}).fit(table)
    pipeline = Pipeline({"about": encoder.transform(table)}, {"about": encoder}, k=4)
    expected = FusedIndex(pipeline.index._items).topk({"about": encoder.transform(table)}, 4)
    for inputs in (table, {name: table[name].tolist() for name in table}):
        assert_same_bytes(pipeline.topk({"about": inputs}), expected)
        some = pipeline.topk({"about": inputs}, present={"about": np.array([1, 0, 1, 1], bool)})
        assert some[0][1].tolist() == [-1] * 4
        assert_same_bytes(tuple(x[2:] for x in some), tuple(x[2:] for x in expected))
    texts = pd.Series([*requests["text"][:2], None], index=[7, 7, 1])
    pipeline = Pipeline({"text": items["text"]}, {"text": by_letters}, k=2)
    got = pipeline.topk({"text": texts})
    assert got[0][2].tolist() == [-1, -1]
    assert_same_bytes(tuple(x[:2] for x in got), pipeline.topk({"text": requests["text"][:2]}))


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=6))
def test_any_pattern_of_what_is_there(pattern):
    rng = np.random.default_rng(len(pattern))
    items = {"a": normal(rng, 9, 2), "b": normal(rng, 9, 3)}
    pipeline = Pipeline(items, k=9)
    rows = {"a": normal(rng, len(pattern), 2), "b": normal(rng, len(pattern), 3)}
    inputs = {
        m: [x if p[j] else None for x, p in zip(rows[m], pattern, strict=True)]
        for j, m in enumerate("ab")
    }
    ids, scores = pipeline.topk(inputs)
    for r, (has_a, has_b) in enumerate(pattern):
        names = [m for m, has in zip("ab", (has_a, has_b), strict=True) if has]
        if not names:
            assert (ids[r] == -1).all()
            continue
        alone = FusedIndex({m: items[m] for m in names}).topk(
            {m: rows[m][r : r + 1] for m in names}, 9, weights={m: 2.0 / len(names) for m in names}
        )
        assert_same_bytes((ids[r : r + 1], scores[r : r + 1]), alone)


# Filters.


def test_items_that_nobody_gets(items, requests, rng):
    index = FusedIndex(items)
    pipeline = Pipeline(index, {"text": by_letters}, k=N, exclude=[4, 8, 4])
    rows, dense = random_pattern(rng, 7, N, 0.2)
    rows.data[:] = -1  # entries count, not values
    vectors = vectors_of(requests)
    for filter_, also in ((None, []), ([1, 2], [1, 2]), (rows, dense)):
        wanted = np.zeros((7, N), bool)
        wanted[:, [4, 8]] = True
        if filter_ is rows:
            wanted |= also
        else:
            wanted[:, also] = True
        expected = index.topk(vectors, N, exclude=sp.csr_array(wanted.astype(np.float32)))
        assert_same_bytes(pipeline.topk(requests, exclude=filter_), expected)
    plain = Pipeline(index, {"text": by_letters}, k=N)
    assert_same_bytes(plain.topk(requests, exclude=rows), index.topk(vectors, N, exclude=rows))


# From inputs, to an index.


def test_an_index_from_inputs(rng):
    texts = [*texts_of(rng, 8), None]
    places = normal(rng, 9, 2)
    encoders = {"text": by_letters}
    pipeline = Pipeline.from_inputs(
        {"text": texts, "place": places}, encoders, metric="dot", k=9, missing="zero"
    )
    flags = np.arange(9) < 8
    vectors = {"text": np.vstack([by_letters(texts[:8]), np.zeros((1, 3), "f4")]), "place": places}
    index = FusedIndex(vectors, metric="dot", present={"text": flags})
    requests = {"text": ["abc"], "place": places[:1]}
    expected = index.topk({"text": by_letters(["abc"]), "place": places[:1]}, 9, missing="zero")
    assert_same_bytes(pipeline.topk(requests), expected)
    assert_same_bytes(
        (Pipeline.from_inputs({"place": places}, {}).topk({"place": places}, 3)),
        FusedIndex({"place": places}).topk({"place": places}, 3),
    )


# Times.


def test_the_times_of_the_stages(items, requests):
    def slow(texts):
        time.sleep(0.05)
        return by_letters(texts)

    pipeline = Pipeline(items, {"text": slow})
    ids, scores, timings = pipeline.topk(requests, return_timings=True)
    assert_same_bytes((ids, scores), pipeline.topk(requests))
    assert set(timings.encode) == {"text", "place"}
    assert timings.encode["text"] >= 0.05 > timings.encode["place"] > 0
    assert timings.search > 0
    assert sum(timings.encode.values()) + timings.search <= timings.total
    parts = pipeline.topk(requests, contributions=True, return_timings=True)
    assert len(parts) == 4


def test_warming_up_is_answering(items, requests):
    calls = []
    pipeline = Pipeline(items, {"text": lambda texts: calls.append(1) or by_letters(texts)})
    timings = pipeline.warm_up(requests, runs=2, k=3)
    assert len(calls) == len(timings) == 2
    assert all(t.total > 0 for t in timings)
    with pytest.raises(ValueError, match="warm_up: runs must be at least 1; got 0"):
        pipeline.warm_up(requests, runs=0)


def test_several_threads_at_once(items, requests):
    barrier = threading.Barrier(4)

    def together(texts):
        barrier.wait(10)  # all four are inside one call each
        return by_letters(texts)

    pipeline = Pipeline(items, {"text": together}, k=5, num_threads=2)
    plain = Pipeline(items, {"text": by_letters}, k=5)
    expected = [
        plain.topk({name: rows[r : r + 1] for name, rows in requests.items()}) for r in range(4)
    ]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            got = pool.map(
                lambda r: pipeline.topk(
                    {name: rows[r : r + 1] for name, rows in requests.items()}, return_timings=True
                ),
                range(4),
            )
            for one, wanted in zip(got, expected, strict=True):
                assert_same_bytes(one[:2], wanted)
