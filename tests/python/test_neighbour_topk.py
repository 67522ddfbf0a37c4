"""`neighbour_topk`: a sparse row times a sparse matrix, and the k best of it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

import reference_cosine as reference
from helpers import assert_same_bytes, random_pattern
from recfuse import _core
from recfuse._inputs import as_csr, csr_parts
from recfuse.ops import neighbour_topk

VALUES = {
    "ones": lambda rng, n: np.ones(n),
    "reals": lambda rng, n: rng.random(n),
    "signed": lambda rng, n: rng.integers(-2, 3, n),
    "wild": lambda rng, n: 10.0 ** rng.uniform(-30, 30, n) * rng.choice([-1, 1], n),
}


def random_matrix(rng, values, shape, density) -> sp.csr_array:
    rows, columns = np.nonzero(rng.random(shape) < density)
    data = VALUES[values](rng, len(rows)).astype(np.float32)
    return sp.csr_array((data, (rows, columns)), shape=shape)


def problem(rng, values="reals", n_queries=9, n_rows=25, n_items=60):
    queries = random_matrix(rng, values, (n_queries, n_rows), 0.2)
    return queries, random_matrix(rng, values, (n_rows, n_items), 0.1)


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("k", [1, 6, 100])
def test_matches_the_reference(rng, isa, values, normalise, k):
    queries, matrix = problem(rng, values)
    got = neighbour_topk(queries, matrix, k, normalise=normalise)
    assert (got[0].dtype, got[1].dtype, got[0].shape) == (np.int32, np.float32, (9, k))
    expected = reference.neighbour_topk(queries, matrix, k, normalise=normalise)
    assert reference.from_lists(*got) == expected


@pytest.mark.usefixtures("sparse_device")
@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("normalise", [False, True])
def test_matches_the_reference_on_every_device(rng, values, normalise):
    queries, matrix = problem(rng, values)
    for k in (1, 6, 100):
        got = neighbour_topk(queries, matrix, k, normalise=normalise)
        expected = reference.neighbour_topk(queries, matrix, k, normalise=normalise)
        assert reference.from_lists(*got) == expected


@pytest.mark.parametrize("normalise", [False, True])
def test_same_bytes_for_any_number_of_threads(rng, normalise):
    # Both ways to look at the sums: items by their lists, and all of them in blocks.
    queries = sp.vstack(
        [random_matrix(rng, "reals", (300, 200), 0.3), random_matrix(rng, "reals", (50, 200), 0.01)]
    )
    matrix = random_matrix(rng, "reals", (200, 3000), 0.05)
    expected = neighbour_topk(queries, matrix, 25, normalise=normalise, num_threads=1)
    for isa in _core.available_isas():
        before = _core.active_isa()
        _core.set_isa(isa)
        for num_threads in (1, 2, 5):
            got = neighbour_topk(queries, matrix, 25, normalise=normalise, num_threads=num_threads)
            assert_same_bytes(got, expected)
        _core.set_isa(before)


def test_equals_the_product(rng):
    queries = random_matrix(rng, "reals", (40, 300), 0.1)
    matrix = random_matrix(rng, "reals", (300, 2000), 0.05)
    ids, scores = neighbour_topk(queries, matrix, 2000)
    product = (queries.astype(np.float64) @ matrix.astype(np.float64)).astype(np.float32).tocsr()
    got = sp.csr_array(
        (scores[ids >= 0], ids[ids >= 0], np.append(0, np.cumsum((ids >= 0).sum(axis=1)))),
        shape=product.shape,
    )
    np.testing.assert_array_equal(got.toarray(), product.toarray())


@pytest.mark.usefixtures("sparse_device")
def test_equal_scores_run_by_id():
    matrix = sp.csr_array(np.ones((3, 400), np.float32))
    ids, scores = neighbour_topk(sp.csr_array([[1.0, 0, 2]]), matrix, 50)
    assert ids[0].tolist() == list(range(50))
    assert (scores == 3).all()


@pytest.mark.usefixtures("sparse_device")
@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("kind", ["ids", "rows", "none"])
@pytest.mark.parametrize("excluding", [False, True])
def test_filters(rng, normalise, kind, excluding):
    queries, matrix = problem(rng)
    admitted = np.ones((9, 60), bool)
    exclude = allow = None
    if excluding:
        exclude, dense = random_pattern(rng, 9, 60, 0.3)
        exclude.data[:] = 0  # entries count, not values
        admitted &= ~dense
    if kind == "ids":
        allow = [40, 3, 3, 17, 59, 8]
        admitted &= np.isin(np.arange(60), allow)
    elif kind == "rows":
        allow, dense = random_pattern(rng, 9, 60, 0.4)
        admitted &= dense
    got = neighbour_topk(queries, matrix, 8, normalise=normalise, exclude=exclude, allow=allow)
    expected = reference.neighbour_topk(queries, matrix, 8, normalise=normalise, admitted=admitted)
    assert reference.from_lists(*got) == expected


@pytest.mark.usefixtures("sparse_device")
def test_an_empty_allow_list_admits_nothing(rng):
    queries, matrix = problem(rng)
    ids, scores = neighbour_topk(queries, matrix, 3, allow=[])
    assert (ids == -1).all() and np.isneginf(scores).all()


@pytest.mark.usefixtures("sparse_device")
def test_rows_in_any_order_are_used_as_they_are(rng):
    queries, matrix = problem(rng)
    shuffled = matrix.copy()
    for a, b in zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True):
        order = a + rng.permutation(b - a)
        shuffled.indices[a:b], shuffled.data[a:b] = matrix.indices[order], matrix.data[order]
    for array in (shuffled.data, shuffled.indices, shuffled.indptr):
        array.flags.writeable = False
    got = neighbour_topk(queries, shuffled, 6)
    assert_same_bytes(got, neighbour_topk(queries, matrix, 6))
    assert_same_bytes(got, neighbour_topk(queries.tocoo(), sp.csc_matrix(matrix), 6))


@pytest.mark.usefixtures("sparse_device")
def test_scores_beyond_float32_are_infinite():
    queries = sp.csr_array(np.array([[3e38, -3e38]], np.float32))
    matrix = sp.csr_array(np.array([[3e38, 0, 1], [0, 3e38, 0]], np.float32))
    ids, scores = neighbour_topk(queries, matrix, 3)
    assert ids.tolist() == [[0, 2, 1]]
    assert scores.tolist() == [[np.inf, np.float32(3e38), -np.inf]]


@pytest.mark.usefixtures("sparse_device")
def test_infinite_scores_run_by_id():
    """The lists come in another order, and their sums are finite in float64."""
    large = np.full((1, 200), 3e38, np.float32)
    nothing = sp.csr_array((1, 1000), dtype=np.float32)
    late = sp.hstack([nothing, sp.csr_array(large), sp.csr_array((1, 8800))])
    early = sp.hstack([sp.csr_array(large), sp.csr_array((1, 9800))])
    queries = sp.csr_array(np.array([[3e38, 3e38]], np.float32))
    ids, scores = neighbour_topk(queries, sp.vstack([late, early], format="csr"), 3)
    assert ids.tolist() == [[0, 1, 2]]
    assert np.isposinf(scores).all()


@pytest.mark.usefixtures("sparse_device")
@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (2, 3, 0), (1, 1, 1)], ids=str)
def test_degenerate_shapes(shape):
    queries = sp.csr_array((shape[0], shape[1]), dtype=np.float32)
    matrix = sp.csr_array((shape[1], shape[2]), dtype=np.float32)
    ids, scores = neighbour_topk(queries, matrix, 2)
    assert ids.shape == scores.shape == (shape[0], 2)
    assert (ids == -1).all()


@given(data=st.data(), k=st.integers(1, 9), normalise=st.booleans())
def test_any_small_problem(data, k, normalise):
    n, m, items = (data.draw(st.integers(1, 7)) for _ in range(3))
    some = st.sampled_from([0, 0, 1, -1, 2, 0.1, -0.3])
    queries = sp.csr_array(data.draw(hnp.arrays(np.float32, (n, m), elements=some)))
    matrix = sp.csr_array(data.draw(hnp.arrays(np.float32, (m, items), elements=some)))
    got = neighbour_topk(queries, matrix, k, normalise=normalise)
    expected = reference.neighbour_topk(queries, matrix, k, normalise=normalise)
    assert reference.from_lists(*got) == expected


def with_value(csr: sp.csr_array, value: float) -> sp.csr_array:
    csr = csr.copy()
    csr.data[-1] = value
    return csr


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"k": 0}, ValueError, "neighbour_topk: k must be at least 1; got 0"),
        ({"k": 2.0}, TypeError, "k must be an integer; got 2.0"),
        ({"num_threads": -2}, ValueError, "num_threads must be at least 0; got -2"),
        ({"user_items": np.eye(3)}, TypeError, "user_items must be a SciPy sparse"),
        ({"neighbours": np.eye(3)}, TypeError, "neighbours must be a SciPy sparse"),
        ({"user_items": sp.eye_array(9)}, ValueError, "user_items must have 25 columns; got 9"),
        ({"exclude": sp.eye_array(9)}, ValueError, r"exclude must have shape \(9, 60\)"),
        ({"allow": sp.eye_array(9)}, ValueError, r"allow must have shape \(9, 60\)"),
        ({"allow": [3, 60]}, IndexError, r"allow\[1\] must be in \[0, 60\); got 60"),
        ({"allow": [-1]}, IndexError, "allow must hold item ids; got -1"),
        ({"allow": [0.5]}, TypeError, "allow must be integers; got dtype float64"),
        ({"allow": ["a"]}, TypeError, "allow must be integers"),
    ],
)
def test_bad_arguments(rng, change, error, message):
    queries, matrix = problem(rng)
    arguments = {"user_items": queries, "neighbours": matrix, "k": 3, **change}
    with pytest.raises(error, match=message):
        neighbour_topk(**arguments)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_must_be_finite(rng, value):
    queries, matrix = problem(rng)
    with pytest.raises(ValueError, match="user_items must be finite; got"):
        neighbour_topk(with_value(queries, value), matrix, 3)
    with pytest.raises(ValueError, match="neighbours must be finite; got"):
        neighbour_topk(queries, with_value(matrix, value), 3)


def test_damaged_neighbours(rng):
    queries, matrix = problem(rng)
    matrix.indices[5] = 60
    with pytest.raises(ValueError, match=r"neighbours must have column indices in \[0, 60\); got"):
        neighbour_topk(queries, matrix, 3)


@pytest.mark.parametrize("values", VALUES)
def test_a_scorer_answers_one_history_after_the_other(rng, isa, values):
    histories, matrix = problem(rng, values, n_queries=40)
    histories = sp.vstack([histories, sp.csr_array((1, 25))]).tocsr()  # the last one's is empty
    scorer = _core.NeighbourScorer(csr_parts(as_csr(matrix, "neighbours")))
    everything = np.arange(60, dtype=np.int32)

    def check(row: int) -> None:
        history = histories[[row]]
        parts = csr_parts(as_csr(history, "user_items"))
        for k in (1, 6, 60):
            got = scorer.topk(parts, k, exclude=None)
            assert_same_bytes(got, neighbour_topk(history, matrix, k))
            some = everything[rng.random(60) < 0.5][::-1]
            excluded = sp.csr_array(np.isin(everything, some)[None].astype(np.float32))
            got = scorer.topk(parts, k, exclude=np.concatenate([some, some]))
            assert_same_bytes(got, neighbour_topk(history, matrix, k, exclude=excluded))

    for row in range(41):
        check(row)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(check, range(41)))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"k": 0}, ValueError, "k must be at least 1; got 0"),
        ({"rows": 2}, ValueError, "user_items must have 1 row; got 2"),
        ({"columns": 24}, ValueError, "user_items must have 25 columns; got 24"),
        ({"value": np.nan}, ValueError, "user_items must be finite; got nan"),
        ({"id": 25}, IndexError, r"user_items must have column indices in \[0, 25\); got 25"),
        ({"exclude": [-1]}, IndexError, r"exclude\[0\] must be in \[0, 60\); got -1"),
        ({"exclude": [0, 60]}, IndexError, r"exclude\[1\] must be in \[0, 60\); got 60"),
    ],
)
def test_a_scorer_checks_what_it_is_given(rng, change, error, message):
    _, matrix = problem(rng)
    scorer = _core.NeighbourScorer(csr_parts(as_csr(matrix, "neighbours")))
    rows = change.get("rows", 1)
    history = (
        np.arange(rows + 1),
        np.full(rows, change.get("id", 3), np.int32),
        (rows, change.get("columns", 25)),
        np.full(rows, change.get("value", 1), np.float32),
    )
    exclude = np.array(change.get("exclude", []), np.int32)
    with pytest.raises(error, match="neighbour_topk: " + message):
        scorer.topk(history, change.get("k", 3), exclude=exclude)
    with pytest.raises(ValueError, match="neighbours must be finite"):
        _core.NeighbourScorer(csr_parts(with_value(matrix, np.inf)))


@pytest.mark.parametrize("values", ["reals", "signed"])
@pytest.mark.parametrize("width", [60, 70_000])
def test_many_histories_of_few_lists(rng, isa, values, width):
    """The ids of the lists get numbers then, of 16 bits where these suffice."""
    queries, matrix = problem(rng, values, n_queries=160, n_rows=6)
    queries.data[::2], matrix.data[::3] = 1, 1  # equal sums, which run by id
    exclude, dense = random_pattern(rng, 160, 60, 0.1)
    allow = np.flatnonzero(rng.random(60) < 0.8)
    admitted = ~dense & np.isin(np.arange(60), allow)
    # The items, among others that stand on more lists, of which nobody has any: those come first.
    ids = np.sort(rng.choice(width, 60, replace=False))
    spread, left_out = (
        sp.csr_array((m.data, ids[m.indices], m.indptr), shape=(m.shape[0], width))
        for m in (matrix, exclude)
    )
    others = np.tile(np.isin(np.arange(width), ids, invert=True), (4, 1)).astype(np.float32)
    spread = sp.vstack([spread, sp.csr_array(others)], format="csr")
    histories = sp.csr_array((queries.data, queries.indices, queries.indptr), shape=(160, 10))
    for k in (1, 20):
        got = neighbour_topk(histories, spread, k, exclude=left_out, allow=ids[allow])
        found = np.where(got[0] < 0, -1, np.searchsorted(ids, got[0]))
        expected = reference.neighbour_topk(queries, matrix, k, admitted=admitted)
        assert reference.from_lists(found, got[1]) == expected


@pytest.mark.parametrize("width", [1 << 16, (1 << 16) + 1])
def test_as_many_items_as_16_bits_tell_apart_and_one_more(isa, width):
    """All of them on a list, so that the last number is that of an entry."""
    values = np.ones((1, width), np.float32)
    values[0, -2:] = 2, 3
    histories = sp.csr_array(np.ones((16, 1), np.float32))  # enough for the ids to have numbers
    ids, scores = neighbour_topk(histories, sp.csr_array(values), 3)
    np.testing.assert_array_equal(ids, np.tile([width - 1, width - 2, 0], (16, 1)))
    np.testing.assert_array_equal(scores, np.tile([3.0, 2.0, 1.0], (16, 1)))
