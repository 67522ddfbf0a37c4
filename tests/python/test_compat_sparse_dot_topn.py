"""`recfuse.compat.sparse_dot_topn`, against NumPy and against the library itself."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from recfuse.compat import sparse_dot_topn as ours
from recfuse.compat.sparse_dot_topn import sp_matmul, sp_matmul_topn, zip_sp_matmul_topn

DTYPES = [np.float32, np.float64, np.int32, np.int64]
KINDS = {
    "reals": lambda rng, shape: rng.random(shape),
    "signed": lambda rng, shape: rng.standard_normal(shape),
    "ties": lambda rng, shape: rng.integers(-2, 4, shape) / 3,
    "close": lambda rng, shape: 1 + rng.random(shape) * 1e-9,
    "wild": lambda rng, shape: 10.0 ** rng.uniform(-60, 60, shape) * rng.choice([-1, 1], shape),
    "counts": lambda rng, shape: rng.integers(0, 5, shape),
    "large": lambda rng, shape: rng.integers(-(2**15), 2**15, shape),
}


def matrix(rng, kind, dtype, shape, density=0.3) -> sp.csr_matrix:
    kept = rng.random(shape) < density
    values = np.where(kept, KINDS[kind](rng, shape), 0)
    if dtype == np.float32:
        values = np.clip(values, -1e15, 1e15)
    rows, columns = np.nonzero(kept)  # a stored zero is an entry
    return sp.csr_matrix((values[rows, columns].astype(dtype), (rows, columns)), shape=shape)


def products(left, right):
    """Every entry of the product, and whether the factors share an index there."""
    wide = np.float64 if left.dtype.kind == "f" else left.dtype
    a, b = left.toarray(), right.toarray()
    sums = np.zeros((a.shape[0], b.shape[1]), wide)
    for j in range(a.shape[1]):  # in this order, as the definition adds
        sums += a[:, j, None].astype(wide) * b[None, j].astype(wide)
    ones = [sp.csr_matrix((np.ones(m.nnz), m.indices, m.indptr), m.shape) for m in (left, right)]
    return sums.astype(left.dtype), (ones[0] @ ones[1]).toarray() > 0


def expected(left, right, top_n, threshold=None):
    """The lists of all rows, by definition: pairs of column and value."""
    sums, stored = products(left, right)
    lists = []
    for row, there in zip(sums, stored, strict=True):
        columns = [i for i in np.flatnonzero(there) if threshold is None or row[i] > threshold]
        best = sorted(columns, key=lambda i: (-row[i], i))[:top_n]
        lists.append([(int(i), row[i]) for i in best])
    return lists


def lists(result):
    return [
        list(zip(result.indices[a:b].tolist(), result.data[a:b], strict=True))
        for a, b in zip(result.indptr[:-1], result.indptr[1:], strict=True)
    ]


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [
        (dtype, kind)
        for dtype in DTYPES
        for kind in KINDS
        if dtype in (np.float32, np.float64) or kind in ("counts", "large")
    ],
)
@pytest.mark.parametrize("top_n", [1, 4, 60, 90])
@pytest.mark.parametrize("threshold", [None, 0.4])
def test_is_the_definition(rng, kind, dtype, top_n, threshold):
    left, right = (matrix(rng, kind, dtype, shape) for shape in ((20, 15), (15, 80)))
    limit = threshold if np.dtype(dtype).kind == "f" or threshold is None else 0
    want = expected(left, right, top_n, limit)
    got = sp_matmul_topn(left, right, top_n, threshold=threshold, sort=True)
    assert isinstance(got, sp.csr_matrix) and got.dtype == dtype and got.shape == (20, 80)
    assert got.indices.dtype == np.int32
    assert lists(got) == want
    unsorted = sp_matmul_topn(left, right, top_n, threshold=threshold)
    assert [sorted(row) for row in lists(unsorted)] == [sorted(row) for row in want]


@given(st.integers(0, 2**32), st.sampled_from([np.float32, np.float64]), st.integers(1, 30))
@settings(max_examples=40, deadline=None)
def test_is_the_definition_for_close_values(seed, dtype, top_n):
    # float32 does not tell these apart, so the screen proves nothing and rows are multiplied out.
    rng = np.random.default_rng(seed)
    left, right = (
        matrix(rng, rng.choice(["close", "ties", "wild"]), dtype, shape, rng.choice([0.1, 0.9]))
        for shape in ((6, 9), (9, 70))
    )
    assert lists(sp_matmul_topn(left, right, top_n, sort=True)) == expected(left, right, top_n)


def test_unsorted_rows_are_in_the_order_of_scipy(rng):
    for dtype in (np.float32, np.float64):
        left, right = (matrix(rng, "reals", dtype, shape) for shape in ((20, 15), (15, 80)))
        whole = left @ right
        got = sp_matmul_topn(left, right, 7)
        for i in range(20):
            row = whole.indices[whole.indptr[i] : whole.indptr[i + 1]]
            kept = got.indices[got.indptr[i] : got.indptr[i + 1]]
            np.testing.assert_array_equal(row[np.isin(row, kept)], kept)


@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_and_blocks_do_not_matter(rng, dtype, monkeypatch):
    left, right = (matrix(rng, "counts", dtype, shape) for shape in ((40, 30), (30, 90)))
    one = sp_matmul_topn(left, right, 5, sort=True)
    assert lists(sp_matmul_topn(left, right, 5, sort=True, n_threads=2)) == lists(one)
    assert lists(sp_matmul_topn(left, right, 5, sort=True, n_threads=-1)) == lists(one)
    monkeypatch.setattr("recfuse.compat.sparse_dot_topn._largest._BLOCK", 100)
    assert lists(sp_matmul_topn(left, right, 5, sort=True)) == lists(one)


def test_orientation(rng):
    left, right = (
        matrix(rng, "reals", np.float32, (20, 15)),
        matrix(rng, "reals", np.float32, (15, 30)),
    )
    want = lists(sp_matmul_topn(left, right, 5, sort=True))
    assert lists(sp_matmul_topn(left, right.T, 5, sort=True)) == want
    assert lists(sp_matmul_topn(left.T, right.T, 5, sort=True)) == want  # both CSC
    for container in (sp.csc_matrix, sp.coo_matrix, sp.csr_array, sp.lil_matrix):
        assert lists(sp_matmul_topn(container(left), container(right), 5, sort=True)) == want
    square = sp.csc_matrix(matrix(rng, "reals", np.float32, (9, 9)))
    other = sp.csc_matrix(matrix(rng, "reals", np.float32, (9, 9)))
    assert lists(sp_matmul_topn(square, other, 5, sort=True)) == expected(
        square.tocsr(), other.tocsr(), 5
    )


def test_dtypes_meet_and_indices_are_asked_for(rng):
    single, double = (matrix(rng, "reals", t, (12, 12)) for t in (np.float32, np.float64))
    assert sp_matmul_topn(single, double, 3).dtype == np.float64
    wide = sp_matmul_topn(single, single, 3, idx_dtype=np.int64)
    assert (wide.indices.dtype, wide.indptr.dtype) == (np.int64, np.int64)


@pytest.mark.parametrize("dtype", DTYPES)
def test_parts_are_merged(rng, dtype):
    left, right = matrix(rng, "counts", dtype, (20, 15)), matrix(rng, "counts", dtype, (15, 90))
    parts = [right[:, :30], right[:, 30:31], right[:, 31:]]
    got = zip_sp_matmul_topn(6, [sp_matmul_topn(left, part, 6) for part in parts])
    assert lists(got) == lists(sp_matmul_topn(left, right, 6, sort=True))
    assert got.shape == (20, 90) and got.dtype == dtype


def test_nothing_there():
    empty = sp.csr_matrix((4, 5), dtype=np.float64)
    for left, right in ((empty, empty.T), (empty[:0], empty.T), (empty, empty.T[:, :0])):
        got = sp_matmul_topn(left.tocsr(), right.tocsr(), 3, sort=True)
        assert got.nnz == 0 and got.shape == (left.shape[0], right.shape[1])
    assert sp_matmul(empty, empty).nnz == 0
    assert zip_sp_matmul_topn(3, [empty, empty]).shape == (4, 10)


def test_inputs_are_left_alone(rng):
    left = sp.csr_matrix(([3.0, 1.0, 2.0], [2, 0, 2], [0, 3]), shape=(1, 3))  # 2 twice, unsorted
    right = sp.csr_matrix(np.eye(3))
    for part in (left.data, left.indices, left.indptr):
        part.flags.writeable = False
    got = sp_matmul_topn(left, right, 2, sort=True)
    assert lists(got) == [[(2, 5.0), (0, 1.0)]]
    assert left.indices.tolist() == [2, 0, 2]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"A": np.eye(3)}, TypeError, "A must be a SciPy sparse matrix or array; got ndarray"),
        ({"B": sp.csr_matrix((4, 5))}, ValueError, "A must have as many columns as B has rows"),
        ({"A": sp.csr_matrix(np.eye(3, dtype=bool))}, TypeError, "A must have dtype int32"),
        ({"A": sp.csr_matrix([[np.nan, 0, 1]])}, ValueError, "A must hold finite values; got nan"),
        ({"top_n": 0}, ValueError, "top_n must be at least 1; got 0"),
        ({"top_n": 2.5}, TypeError, "top_n must be an integer; got 2.5"),
        ({"threshold": "x"}, TypeError, "threshold must be a number; got 'x'"),
        ({"threshold": np.nan}, ValueError, "threshold must be a number; got nan"),
        ({"idx_dtype": np.int16}, TypeError, "idx_dtype must be int32 or int64; got int16"),
        ({"n_threads": 1.5}, TypeError, "n_threads must be an integer; got 1.5"),
    ],
)
def test_errors(change, error, message):
    eye = sp.csr_matrix(np.eye(3))
    with pytest.raises(error, match=f"^sp_matmul_topn: {message}"):
        sp_matmul_topn(**{"A": eye, "B": eye, "top_n": 1, **change})


def test_thresholds_that_other_types_do_not_hold():
    big = sp.csr_matrix(np.array([[2**53 + 1, 2**53]], np.int64))
    ones = sp.csr_matrix(np.eye(2, dtype=np.int64))
    found = sp_matmul_topn(big, ones, 2, threshold=2**53)
    assert found.indices.tolist() == [0]
    for limit, n in ((1e30, 0), (np.inf, 0), (-1e30, 2), (-np.inf, 2)):
        for dtype in (np.int32, np.int64, np.float32, np.float64):
            assert sp_matmul_topn(ones.astype(dtype), big.T, 2, threshold=limit).nnz == n
            few = sp.csr_matrix(np.array([[1, 2]], dtype))
            assert sp_matmul_topn(few, ones.astype(dtype), 2, threshold=limit).nnz == n


def test_an_index_out_of_range_is_refused():
    bad = sp.csr_matrix(np.eye(3))
    bad.indices[1] = 7
    with pytest.raises(ValueError, match="sp_matmul_topn: A must have column indices in"):
        sp_matmul_topn(bad, sp.csr_matrix(np.eye(3)), 1)


def test_merging_nothing_is_an_error():
    with pytest.raises(ValueError, match="C_mats must have at least one part"):
        zip_sp_matmul_topn(3, [])
    with pytest.raises(ValueError, match="all the same number of rows"):
        zip_sp_matmul_topn(3, [sp.csr_matrix((2, 3)), sp.csr_matrix((3, 3))])


def test_the_old_name(rng):
    left = matrix(rng, "reals", np.float64, (12, 12))
    with pytest.warns(DeprecationWarning, match="call sp_matmul_topn"):
        got, longest = ours.awesome_cossim_topn(left, left, 3, 0.2, return_best_ntop=True)
    assert lists(got) == lists(sp_matmul_topn(left, left, 3, 0.2, sort=True))
    assert longest == np.diff(got.indptr).max()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("threshold", [None, 0.3])
@pytest.mark.parametrize("sort", [True, False])
def test_equals_the_library(rng, dtype, threshold, sort):
    library = pytest.importorskip("sparse_dot_topn", reason="sparse_dot_topn is not installed")
    left, right = (matrix(rng, "reals", dtype, shape) for shape in ((60, 40), (40, 200)))
    theirs = library.sp_matmul_topn(left, right, 12, threshold, sort)
    got = sp_matmul_topn(left, right, 12, threshold, sort)
    assert type(got) is type(theirs) and got.dtype == theirs.dtype
    np.testing.assert_array_equal(got.indptr, theirs.indptr)
    np.testing.assert_array_equal(got.indices, theirs.indices)
    np.testing.assert_allclose(got.data, theirs.data, rtol=4 * np.finfo(dtype).eps * 40)
