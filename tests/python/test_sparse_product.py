"""The largest entries of products of sparse matrices, against the definition."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from recfuse import _core

KINDS = {
    "wide": lambda rng, n: 10.0 ** rng.uniform(-8, 8, n) * rng.choice([-1, 0, 1], n),
    "ties": lambda rng, n: rng.integers(-2, 3, n) / 3,
    "equal in float32": lambda rng, n: 1 + rng.integers(0, 9, n) * 2.0**-26,
    "negative": lambda rng, n: -rng.random(n),
    "zeros": lambda rng, n: rng.choice([0.0, -0.0], n),
    "overflowing": lambda rng, n: rng.choice([-1e200, 1e200, 1.0], n),
}


def rows_of(rng, kind, shape, dtype, density=0.3):
    """Return a matrix whose stored zeros are entries."""
    rows, columns = np.nonzero(rng.random(shape) < density)
    values = KINDS[kind](rng, len(rows))
    if dtype == np.float32:
        values = np.clip(values, -3e38, 3e38)
    return sp.csr_array((values.astype(dtype), (rows, columns)), shape=shape)


def parts(csr):
    return csr.indptr.astype(np.int64), csr.indices.astype(np.int32), csr.shape, None


def largest(left, right, k, above=None, sort=True, num_threads=1):
    indptr, ids, values = _core.sparse_product_topk(
        parts(left),
        left.data,
        parts(right),
        right.data,
        k,
        above=above,
        sort=sort,
        num_threads=num_threads,
    )
    assert (indptr.dtype, ids.dtype, values.dtype) == (np.int64, np.int32, left.dtype)
    cut = indptr[1:-1]
    return list(zip(np.split(ids, cut), np.split(values, cut), strict=True))


def defined(left, right, k, above=None, sort=True):
    """The entries of every row: all sums, one term after the other."""
    dtype = left.dtype
    found = []
    with np.errstate(over="ignore", invalid="ignore"):
        for i in range(left.shape[0]):
            sums = np.zeros(right.shape[1])
            reached = np.full(right.shape[1], -1)
            for e in range(*left.indptr[i : i + 2]):
                j = left.indices[e]
                terms = slice(*right.indptr[j : j + 2])
                ids = right.indices[terms]
                sums[ids] += left.data[e].astype(float) * right.data[terms].astype(float)
                reached[ids] = np.where(reached[ids] < 0, j, reached[ids])
            values = sums.astype(dtype)
            ids = np.flatnonzero((reached >= 0) & ~np.isnan(values))
            if above is not None:
                ids = ids[values[ids] > dtype.type(above)]
            ids = ids[np.lexsort((ids, -values[ids]))][:k]
            if not sort:
                ids = ids[np.lexsort((-ids, -reached[ids]))]
            found.append((ids, values[ids]))
    return found


def assert_same(got, want):
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a[0], b[0])
        np.testing.assert_array_equal(a[1], b[1])  # bit by bit, but for the sign of zero


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", KINDS)
# Where terms are few (3000 columns), the sums that have some are gathered; otherwise all are seen.
@pytest.mark.parametrize(("n_cols", "density"), [(5, 0.5), (300, 0.3), (300, 0.9), (3000, 0.004)])
def test_is_the_definition(isa, rng, num_threads, kind, dtype, n_cols, density):
    left = rows_of(rng, kind, (12, 25), dtype)
    right = rows_of(rng, kind, (25, n_cols), dtype, density)
    for k, above in ((1, None), (4, 0.0), (4, None), (9, -0.5), (40, None), (n_cols, 0.0)):
        for sort in (True, False):
            assert_same(
                largest(left, right, k, above, sort, num_threads),
                defined(left, right, k, above, sort),
            )


def test_a_threshold_is_left_out_itself_and_infinity_is_a_number():
    left = sp.csr_array(np.array([[1e200, 1.0, 0]]))
    right = sp.csr_array(np.array([[1e200, -1e200, 0, 0], [0, 0, 2.0, 3.0], [0, 0, 0, 0]]))
    assert largest(left, right, 4)[0][1].tolist() == [np.inf, 3, 2, -np.inf]
    assert largest(left, right, 4, above=2.0)[0][1].tolist() == [np.inf, 3]
    assert largest(left, right, 4, above=-np.inf)[0][1].tolist() == [np.inf, 3, 2]
    assert largest(left, right, 4, above=np.inf)[0][1].tolist() == []


def test_rows_without_entries():
    left, right = sp.csr_array((3, 4)), sp.csr_array((4, 50))
    assert [len(ids) for ids, _ in largest(left, right, 3)] == [0, 0, 0]
    assert [len(ids) for ids, _ in largest(left, sp.csr_array((4, 0)), 3)] == [0, 0, 0]
    indptr, *_ = _core.sparse_product_topk(
        parts(left[:0]),
        left.data,
        parts(right),
        right.data,
        1,
        above=None,
        sort=False,
        num_threads=0,
    )
    assert indptr.tolist() == [0]


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"k": 0}, ValueError, "k must be at least 1; got 0"),
        ({"num_threads": -1}, ValueError, "num_threads must be at least 0; got -1"),
        ({"above": np.nan}, ValueError, "above must be a number; got nan"),
        (
            {"right": sp.csr_array(np.ones((3, 2)))},
            ValueError,
            "right must have 4 rows, as many as",
        ),
        ({"short": "left"}, ValueError, "left_values must have 8 elements; got 7"),
        ({"short": "right"}, ValueError, "right_values must have 12 elements; got 11"),
        (
            {"left": sp.csr_array([[1.0, np.inf, 0, 0]])},
            ValueError,
            "left_values must be finite; got inf",
        ),
        (
            {"right": sp.csr_array([[np.nan]] * 4)},
            ValueError,
            "right_values must be finite; got nan",
        ),
    ],
)
def test_errors(change, error, words):
    args = {"left": sp.csr_array(np.ones((2, 4))), "right": sp.csr_array(np.ones((4, 3)))}
    args |= {"k": 2, "above": None, "num_threads": 1, "short": ""} | change
    data = {side: args[side].data[args["short"] == side :] for side in ("left", "right")}
    with pytest.raises(error, match=f"^sparse_product_topk: {words}"):
        _core.sparse_product_topk(
            parts(args["left"]),
            data["left"],
            parts(args["right"]),
            data["right"],
            args["k"],
            above=args["above"],
            sort=True,
            num_threads=args["num_threads"],
        )


def test_an_index_out_of_range_is_refused():
    indptr, indices, shape, _ = parts(sp.csr_array(np.ones((2, 4))))
    indices[3] = 4
    right = sp.csr_array(np.ones((4, 3)))
    with pytest.raises(IndexError, match=r"left must have column indices in \[0, 4\); got 4"):
        _core.sparse_product_topk(
            (indptr, indices, shape, None),
            np.ones(8),
            parts(right),
            right.data,
            1,
            above=None,
            sort=True,
            num_threads=1,
        )
