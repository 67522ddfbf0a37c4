"""`cosine_knn` against its specification, on every instruction set and kind of value."""

from __future__ import annotations

import warnings

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

import recfuse
import reference_cosine as reference
from helpers import assert_same_bytes
from recfuse import _core

VALUES = {
    "ones": lambda rng, n: np.ones(n),
    "equal": lambda rng, n: np.full(n, 0.5),
    "counts": lambda rng, n: rng.integers(1, 6, n),
    "half stars": lambda rng, n: rng.integers(1, 11, n) / 2,
    "large counts": lambda rng, n: rng.integers(40_000, 46_000, n),
    "reals": lambda rng, n: rng.random(n) + 0.1,
    "signed": lambda rng, n: rng.integers(-3, 4, n),  # with stored zeros
    "signed reals": lambda rng, n: (rng.random(n) + 0.1) * rng.choice([-1, 1], n),
    "wild": lambda rng, n: 10.0 ** rng.uniform(-38, 38, n),
}


def random_matrix(rng, values, shape=(40, 30), density=0.2) -> sp.csr_array:
    rows, columns = np.nonzero(rng.random(shape) < density)
    data = VALUES[values](rng, len(rows)).astype(np.float32)
    return sp.csr_array((data, (rows, columns)), shape=shape)


def busy_matrix(rng, data, n_rows=2600, n_columns=60) -> sp.csr_array:
    """Rows of very different size: the columns are full among the large rows, thin among the rest.

    `data` draws n values. Large enough that columns are added as blocks of bytes where that pays.
    """
    full = 0.9 / (1 + np.arange(n_rows) / 200)[:, None]
    rows, columns = np.nonzero(rng.random((n_rows, n_columns)) < rng.permutation(full))
    shape = (n_rows, n_columns)
    return sp.csr_array((data(rng, len(rows)).astype(np.float32), (rows, columns)), shape=shape)


def parts(csr: sp.csr_array):
    return csr.indptr, csr.indices, csr.data


def fast_reference(matrix, k, rows, *, shrinkage=0.0):
    """Neighbours of some rows of a larger matrix; SciPy's product adds in index order, too."""
    wide = matrix.astype(np.float64)
    squared = squared_norms(wide)
    for row in rows:
        dots = wide[[row]] @ wide.T
        others = dots.indices
        norms = np.sqrt(squared[row] * squared[others]) + shrinkage
        scores = (dots.data / norms).astype(np.float32)
        order = np.lexsort((others, -scores))
        order = order[others[order] != row][:k]
        yield list(zip(others[order].tolist(), scores[order].tolist(), strict=True))


def squared_norms(csr):
    """One after the other, as the definition has it."""
    sums = np.zeros(csr.shape[0])
    np.add.at(sums, np.repeat(np.arange(csr.shape[0]), np.diff(csr.indptr)), csr.data**2)
    return sums


@pytest.mark.usefixtures("sparse_device")
@pytest.mark.parametrize("shape", [(36, 24), (15, 120)], ids=str)
@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("norm", ["full", "corated"])
@pytest.mark.parametrize("shrinkage", [0.0, 2.5])
@pytest.mark.parametrize("min_support", [1, 3])
def test_matches_the_reference(rng, shape, values, norm, shrinkage, min_support):
    options = {"norm": norm, "shrinkage": shrinkage, "min_support": min_support}
    matrix = random_matrix(rng, values, shape)
    expected = reference.cosine_knn(matrix, 60, **options)
    assert any(expected)
    for k in (1, 7, 60):
        got = reference.from_csr(recfuse.cosine_knn(matrix, k, **options))
        assert got == [row[:k] for row in expected]


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize(("norm", "min_support"), [("full", 1), ("full", 2), ("corated", 1)])
def test_same_bytes_on_every_isa_and_thread(rng, isa, values, norm, min_support):
    # More rows than are screened at a time, and lists both shorter and longer than all rows.
    matrix = sp.vstack(
        [
            random_matrix(rng, values, (1100, 40), 0.08),
            random_matrix(rng, values, (30, 40), 0.02),
            sp.csr_array((7, 40), dtype=np.float32),
        ],
        format="csr",
    )
    options = {"norm": norm, "min_support": min_support, "shrinkage": 0.25}
    _core.set_isa("baseline")
    expected = recfuse.cosine_knn(matrix, 10, num_threads=1, **options)
    _core.set_isa(isa)
    for num_threads in (1, 2, 5):
        got = recfuse.cosine_knn(matrix, 10, num_threads=num_threads, **options)
        assert_same_bytes(parts(got), parts(expected))


@pytest.mark.parametrize("values", ["ones", "half stars", "reals", "signed"])
def test_many_rows(rng, values):
    """Rows beyond the screened block, and beyond the 2 k + 64 candidates that are kept at once."""
    matrix = random_matrix(rng, values, (2500, 60), 0.1)
    got = recfuse.cosine_knn(matrix, 20, shrinkage=1.0)
    rows = range(0, 2500, 125)
    expected = list(fast_reference(matrix, 20, rows, shrinkage=1.0))
    assert [reference.from_csr(got)[row] for row in rows] == expected


BYTES = {
    "ones": VALUES["ones"],
    "counts": VALUES["counts"],
    "up to 127": lambda rng, n: rng.integers(1, 128, n),
    "up to 128": lambda rng, n: rng.integers(1, 129, n),  # some columns cannot be bytes
    "quarters": lambda rng, n: rng.integers(1, 40, n) / 4,
    "up to 46,000": lambda rng, n: rng.choice([1, 2, 3, 46_000], n, p=[0.4, 0.3, 0.299, 0.001]),
}


@pytest.mark.parametrize("values", BYTES)
@pytest.mark.parametrize(("shrinkage", "k"), [(0.0, 20), (3.0, 600)])
def test_busy_columns(rng, isa, values, shrinkage, k):
    matrix = busy_matrix(rng, BYTES[values])
    matrix = sp.vstack([matrix, matrix[:300]], format="csr")  # ties
    _core.set_isa(isa)
    got = recfuse.cosine_knn(matrix, k, shrinkage=shrinkage, num_threads=2)
    rows = list(range(0, matrix.shape[0], 91))
    expected = list(fast_reference(matrix, k, rows, shrinkage=shrinkage))
    assert reference.from_csr(got[rows]) == expected
    alone = recfuse.cosine_knn(matrix, k, shrinkage=shrinkage, num_threads=1)
    assert_same_bytes(parts(alone), parts(got))


@pytest.mark.parametrize("values", ["ones", "counts", "large counts", "signed reals"])
def test_few_of_many_rows_are_met(rng, isa, values):
    """Marks lead to the few sums that were added to, in more rows than 16 bits number."""
    n_rows, n_columns = 70_000, 30_000
    columns = rng.integers(0, n_columns, (n_rows, 2))
    columns[: n_rows // 50, 0] = rng.integers(0, 20, n_rows // 50)  # some columns are popular
    columns.sort(axis=1)
    columns[:, 1] += columns[:, 0] == columns[:, 1]
    data = VALUES[values](rng, columns.size).astype(np.float32)
    shape = (n_rows, n_columns + 1)
    matrix = sp.csr_array((data, (np.repeat(np.arange(n_rows), 2), columns.ravel())), shape=shape)
    matrix = sp.vstack([matrix, matrix[:2000]], format="csr")
    _core.set_isa(isa)
    got = recfuse.cosine_knn(matrix, 30)
    rows = np.concatenate([np.arange(0, 1400, 100), np.arange(0, 72_000, 6001)]).tolist()
    assert reference.from_csr(got[rows]) == list(fast_reference(matrix, 30, rows))


@pytest.mark.parametrize("values", ["ones", "counts", "up to 46,000", "signed reals"])
def test_ranges_of_many_rows(rng, isa, values):
    """So many rows that they are met range by range, some of them large, many of them equal."""
    n_rows, n_columns = 66_000, 1500
    sizes = np.maximum(2, 300 // (1 + np.arange(n_rows) // 8))
    rows = np.repeat(rng.permutation(n_rows), sizes)
    columns = (n_columns * rng.random(len(rows)) ** 1.5).astype(np.int64)
    pattern = sp.csr_array((np.ones(len(rows)), (rows, columns)), shape=(n_rows, n_columns))
    pattern.data[:] = (VALUES | BYTES)[values](rng, pattern.nnz)
    matrix = sp.vstack([pattern, pattern[:700]], format="csr").astype(np.float32)
    _core.set_isa(isa)
    got = recfuse.cosine_knn(matrix, 40, num_threads=2)
    largest = np.argsort(-np.diff(matrix.indptr))[:3]
    chosen = [*largest.tolist(), *range(5, matrix.shape[0], 9001)]
    assert reference.from_csr(got[chosen]) == list(fast_reference(matrix, 40, chosen))
    assert_same_bytes(parts(recfuse.cosine_knn(matrix, 40, num_threads=1)), parts(got))


@pytest.mark.parametrize("values", ["counts", "reals"])
def test_more_equal_rows_than_are_candidates(values):
    """All neighbours tie: what is kept before the exact scores must not be cut short."""
    n_rows, value = 10_000, {"counts": 2, "reals": 0.3}[values]
    matrix = sp.csr_array(np.full((n_rows, 1), value, np.float32))
    got = reference.from_csr(recfuse.cosine_knn(matrix, 3))
    for row in (0, 1, 2, 3, 4, 9_999):
        score = float(np.float32(1)) if values == "counts" else got[row][0][1]
        assert got[row] == [(i, score) for i in range(4) if i != row][:3]


@pytest.mark.parametrize(
    ("norm", "values"),
    [
        ("full", "ones"),
        ("full", "counts"),
        ("full", "reals"),
        ("full", "signed"),
        ("corated", "reals"),
    ],
)
def test_more_rows_than_16_bits_number(rng, values, norm):
    n_rows = 66_000
    columns = rng.integers(0, 9000, (n_rows, 3))
    columns[rng.random((n_rows, 3)) < 0.01] = 0  # a popular column
    data = VALUES[values](rng, columns.size).astype(np.float32)
    rows = np.repeat(np.arange(n_rows), 3)
    matrix = sp.csr_array((data, (rows, columns.ravel())), shape=(n_rows, 9000))
    got = recfuse.cosine_knn(matrix, 5, norm=norm)
    if norm == "full":
        chosen = [0, 65_535, 65_536, 65_999]
        expected = list(fast_reference(matrix, 5, chosen))
        assert [reference.from_csr(got[[row]])[0] for row in chosen] == expected
    # The last rows among themselves are a small problem of their own.
    last = matrix[-60:]
    small = reference.from_csr(recfuse.cosine_knn(last, 60, norm=norm))
    assert small == reference.cosine_knn(last, 60, norm=norm)
    lists = recfuse.cosine_knn(sp.vstack([sp.csr_array((n_rows, 9000)), last]), 60, norm=norm)
    shifted = [[(i - n_rows, s) for i, s in row] for row in reference.from_csr(lists[n_rows:, :])]
    assert shifted == small


@pytest.mark.usefixtures("sparse_device")
@pytest.mark.parametrize("k", [1, 5, 300])
@pytest.mark.parametrize("norm", ["full", "corated"])
def test_equal_rows_run_by_id(k, norm):
    matrix = sp.csr_array(np.ones((500, 3), np.float32))
    got = recfuse.cosine_knn(matrix, k, norm=norm)
    for row, neighbours in enumerate(reference.from_csr(got)):
        assert neighbours == [(i, 1.0) for i in range(k + 1) if i != row][:k]


@pytest.mark.usefixtures("sparse_device")
def test_scores_that_float32_tells_apart_only_just(rng):
    """A screen that rounded the wrong way would lose one of these."""
    steps = 1 + np.arange(400, dtype=np.float32) * np.float32(2**-23)
    matrix = sp.csr_array(np.column_stack([np.ones(400, np.float32), rng.permutation(steps)]))
    got = reference.from_csr(recfuse.cosine_knn(matrix, 30))
    assert got == list(fast_reference(matrix, 30, range(400)))


@pytest.mark.usefixtures("sparse_device")
def test_self_is_no_neighbour_even_where_it_is_alone():
    got = recfuse.cosine_knn(sp.csr_array(np.eye(4, dtype=np.float32)), 3)
    assert got.shape == (4, 4)
    assert got.nnz == 0


@pytest.mark.usefixtures("sparse_device")
def test_stored_zeros_are_shared_entries_that_add_nothing():
    # Rows 0 and 1 share only a zero of row 1; rows 2 and 3 are zeros throughout.
    data = np.array([1, 1, 0, 2, 0, 0], np.float32)
    columns, indptr = np.array([0, 1, 1, 2, 3, 3]), np.array([0, 2, 4, 5, 6])
    matrix = sp.csr_array((data, columns, indptr), shape=(4, 4))
    for norm in ("full", "corated"):
        got = reference.from_csr(recfuse.cosine_knn(matrix, 3, norm=norm))
        assert got == [[(1, 0.0)], [(0, 0.0)], [(3, 0.0)], [(2, 0.0)]]
        assert recfuse.cosine_knn(matrix, 3, norm=norm, min_support=2).nnz == 0


@pytest.mark.usefixtures("sparse_device")
def test_the_formula_of_the_article():
    """Ratings of two users; the norms run over all items of each, or over the common ones."""
    ratings = sp.csr_array(np.array([[5, 3, 0, 1], [4, 0, 2, 1]], np.float32))
    dot = 5 * 4 + 1 * 1
    full = np.float32(dot / np.sqrt((25 + 9 + 1) * (16 + 4 + 1)))
    corated = np.float32(dot / np.sqrt((25 + 1) * (16 + 1)))
    assert recfuse.cosine_knn(ratings, 1)[0, 1] == full
    assert recfuse.cosine_knn(ratings, 1, norm="corated")[0, 1] == corated
    assert recfuse.cosine_knn(ratings, 1, min_support=2)[0, 1] == full
    assert recfuse.cosine_knn(ratings, 1, min_support=3).nnz == 0


@pytest.mark.usefixtures("sparse_device")
def test_shrinkage_holds_back_thin_evidence():
    rows = np.zeros((4, 12), np.float32)
    rows[0] = rows[1] = 1  # twelve shared
    rows[2, 0] = rows[3, 0] = 1  # one shared: as similar, with less behind it
    plain = recfuse.cosine_knn(sp.csr_array(rows), 1)
    shrunk = recfuse.cosine_knn(sp.csr_array(rows), 1, shrinkage=3.0)
    assert plain[0, 1] == plain[2, 3] == 1
    assert shrunk[0, 1] == np.float32(12 / 15)
    assert shrunk[2, 3] == np.float32(1 / 4)


@pytest.mark.usefixtures("sparse_device")
@pytest.mark.parametrize("shrinkage", [1e-300, 1e300])
def test_extreme_shrinkage(rng, shrinkage):
    matrix = random_matrix(rng, "reals")
    expected = reference.cosine_knn(matrix, 5, shrinkage=shrinkage)
    assert reference.from_csr(recfuse.cosine_knn(matrix, 5, shrinkage=shrinkage)) == expected


@pytest.mark.usefixtures("sparse_device")
@pytest.mark.parametrize("scale", [2.0**-140, 2.0**-60, 3.0e38])
def test_extreme_values(rng, scale):
    """Squares of these leave float32, and the smallest are denormal."""
    matrix = random_matrix(rng, "ones") * np.float32(scale)
    got = reference.from_csr(recfuse.cosine_knn(matrix, 5))
    assert got == reference.cosine_knn(matrix, 5)
    assert got[0]


@pytest.mark.usefixtures("sparse_device")
@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0), (1, 1), (1, 7), (6, 1), (3, 2)], ids=str)
@pytest.mark.parametrize("filled", [False, True])
def test_degenerate_shapes(shape, filled):
    matrix = sp.csr_array(np.full(shape, filled, np.float32))
    got = recfuse.cosine_knn(matrix, 6)
    assert got.shape == (shape[0], shape[0])
    assert got.nnz == (shape[0] * (shape[0] - 1) if filled and shape[1] else 0)


@pytest.mark.usefixtures("sparse_device")
def test_k_may_exceed_the_rows(rng):
    matrix = random_matrix(rng, "counts")
    few = recfuse.cosine_knn(matrix, 40)
    assert_same_bytes(parts(recfuse.cosine_knn(matrix, 2**31 - 1)), parts(few))


def test_result_is_an_ordinary_sparse_matrix(rng):
    matrix = random_matrix(rng, "reals")
    got = recfuse.cosine_knn(matrix, 10)
    assert isinstance(got, sp.csr_array)
    assert (got.dtype, got.shape) == (np.float32, (40, 40))
    dense, x = got.toarray(), rng.standard_normal(40)
    np.testing.assert_allclose(got @ x, dense @ x, rtol=1e-6)
    np.testing.assert_array_equal(got.T.tocsr().toarray(), dense.T)
    np.testing.assert_array_equal(got[[3, 5], :].toarray(), dense[[3, 5]])
    assert [got[0, i] for i in got.indices[:3]] == got.data[:3].tolist()
    assert (np.diff(got.data[got.indptr[0] : got.indptr[1]]) <= 0).all()


@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "lil", "dok", "bsr", "dia"])
@pytest.mark.parametrize("flavour", ["matrix", "array"])
def test_containers(rng, kind, flavour):
    matrix = random_matrix(rng, "counts")
    container = getattr(sp, f"{kind}_{flavour}")(matrix)
    got = recfuse.cosine_knn(container, 5)
    assert_same_bytes(parts(got), parts(recfuse.cosine_knn(matrix, 5)))


@pytest.mark.parametrize("dtype", ["?", "i1", "i8", "u1", "u8", "f8", "g"])
def test_dtypes(rng, dtype):
    values = "ones" if dtype == "?" else "counts"
    matrix = random_matrix(rng, values)
    expected = recfuse.cosine_knn(matrix, 5)
    assert_same_bytes(parts(recfuse.cosine_knn(matrix.astype(dtype), 5)), parts(expected))


def test_index_types_unsorted_rows_and_duplicates(rng):
    matrix = random_matrix(rng, "counts")
    expected = parts(recfuse.cosine_knn(matrix, 5))
    wide = matrix.copy()
    wide.indices, wide.indptr = wide.indices.astype(np.int64), wide.indptr.astype(np.int64)
    assert_same_bytes(parts(recfuse.cosine_knn(wide, 5)), expected)
    coo = matrix.tocoo()
    order = rng.permutation(2 * coo.nnz) // 2  # every entry twice, at half its value
    halves = sp.coo_array((coo.data[order] / 2, (coo.row[order], coo.col[order])), matrix.shape)
    counts = np.bincount(halves.row, minlength=matrix.shape[0])
    by_row = np.argsort(halves.row, kind="stable")
    unsorted = sp.csr_array(
        (halves.data[by_row], halves.col[by_row], np.append(0, np.cumsum(counts))), matrix.shape
    )
    assert not unsorted.has_sorted_indices
    before = unsorted.indices.copy()
    assert_same_bytes(parts(recfuse.cosine_knn(unsorted, 5)), expected)
    np.testing.assert_array_equal(unsorted.indices, before)


@pytest.mark.usefixtures("sparse_device")
def test_inputs_are_read_only(rng):
    matrix = random_matrix(rng, "reals")
    for array in parts(matrix):
        array.flags.writeable = False
    before = [array.copy() for array in parts(matrix)]
    recfuse.cosine_knn(matrix, 5)
    assert_same_bytes(parts(matrix), tuple(before))


def test_prefix(rng):
    matrix = random_matrix(rng, "ones", (300, 20))
    long, short = (reference.from_csr(recfuse.cosine_knn(matrix, k)) for k in (50, 7))
    assert [row[:7] for row in long] == short


@pytest.mark.usefixtures("sparse_device")
def test_permuted_rows_give_permuted_ids(rng):
    matrix = random_matrix(rng, "reals", (120, 50))
    order = rng.permutation(120)
    got = recfuse.cosine_knn(sp.csr_array(matrix[order]), 200)
    back = np.argsort(order)
    expected = recfuse.cosine_knn(matrix, 200)
    np.testing.assert_array_equal(got.toarray()[back][:, back], expected.toarray())


def test_a_power_of_two_changes_nothing(rng):
    matrix = random_matrix(rng, "reals")
    expected = recfuse.cosine_knn(matrix, 9)
    assert_same_bytes(parts(recfuse.cosine_knn(matrix * 0.25, 9)), parts(expected))


def test_whole_numbers_and_reals_agree(rng):
    """One value that is no multiple of 1/16, in a row of its own, moves all sums to float64."""
    matrix = random_matrix(rng, "half stars", (200, 40))
    alone = sp.block_diag([matrix, sp.csr_array([[0.3]])], format="csr")
    got = recfuse.cosine_knn(alone, 12)
    assert_same_bytes(parts(got[:200, :200]), parts(recfuse.cosine_knn(matrix, 12)))


@pytest.mark.usefixtures("sparse_device")
@given(
    dense=hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12),
        elements=st.sampled_from([0, 0, 1, 1, 2, 0.5, -1, 0.1]),
    ),
    stored_zeros=st.booleans(),
    k=st.integers(1, 14),
    norm=st.sampled_from(["full", "corated"]),
    shrinkage=st.sampled_from([0.0, 0.5, 10.0]),
    min_support=st.integers(1, 3),
)
def test_any_small_matrix(dense, stored_zeros, k, norm, shrinkage, min_support):
    options = {"norm": norm, "shrinkage": shrinkage, "min_support": min_support}
    rows, columns = np.nonzero(np.ones_like(dense) if stored_zeros else dense)
    matrix = sp.csr_array((dense[rows, columns], (rows, columns)), shape=dense.shape)
    got = reference.from_csr(recfuse.cosine_knn(matrix, k, **options))
    assert got == reference.cosine_knn(matrix, k, **options)


@pytest.mark.parametrize("values", ["ones", "half stars"])
def test_scikit_learn_agrees(rng, values):
    pairwise = pytest.importorskip("sklearn.metrics.pairwise")
    matrix = random_matrix(rng, values, (150, 40))
    got = recfuse.cosine_knn(matrix, 149)
    expected = pairwise.cosine_similarity(matrix)
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(got.toarray(), expected, atol=1e-6)


def test_implicit_agrees(rng):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nearest = pytest.importorskip("implicit.nearest_neighbours")
        matrix = random_matrix(rng, "reals", (150, 80))
        model = nearest.CosineRecommender(K=11, num_threads=1)
        model.fit(sp.csr_matrix(matrix.T), show_progress=False)
    got = recfuse.cosine_knn(matrix, 10)
    expected = model.similarity.toarray()
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(got.toarray(), expected, atol=1e-6)


BAD_VALUES = {
    "k": [(0, ValueError, "k must be at least 1; got 0"), (-1, ValueError, "at least 1; got -1")],
    "norm": [("half", ValueError, "norm must be one of 'full', 'corated'; got 'half'")],
    "shrinkage": [
        (-1, ValueError, "shrinkage must be finite and at least 0; got -1"),
        (np.nan, ValueError, "shrinkage must be finite and at least 0; got"),
        (np.inf, ValueError, "shrinkage must be finite and at least 0; got inf"),
        ("1", TypeError, "shrinkage must be a number; got '1'"),
        (None, TypeError, "shrinkage must be a number; got None"),
    ],
    "min_support": [
        (0, ValueError, "min_support must be at least 1; got 0"),
        (1.5, TypeError, "min_support must be an integer; got 1.5"),
    ],
    "num_threads": [
        (-1, ValueError, "num_threads must be at least 0; got -1"),
        (True, TypeError, "num_threads must be an integer; got True"),
    ],
    "device": [("gpu", ValueError, "device must be 'auto', 'cpu', 'cuda', .*; got 'gpu'")],
}


@pytest.mark.usefixtures("sparse_device")
@pytest.mark.parametrize(
    ("argument", "value", "error", "message"),
    [(name, *case) for name, cases in BAD_VALUES.items() for case in cases],
)
def test_bad_arguments(rng, argument, value, error, message):
    arguments = {"k": 3, argument: value}
    with pytest.raises(error, match=message):
        recfuse.cosine_knn(random_matrix(rng, "ones"), **arguments)


@pytest.mark.usefixtures("sparse_device")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_must_be_finite(rng, value):
    matrix = random_matrix(rng, "ones")
    matrix.data[-1] = value
    with pytest.raises(ValueError, match=r"cosine_knn: matrix must be finite; got .* at \[39, "):
        recfuse.cosine_knn(matrix, 3)


@pytest.mark.parametrize(
    ("matrix", "error", "message"),
    [
        (np.ones((3, 3)), TypeError, "matrix must be a SciPy sparse matrix or array; got ndarray"),
        ([[1, 2]], TypeError, "matrix must be a SciPy sparse matrix or array; got list"),
        (sp.csr_array(np.eye(2) * 1j), TypeError, "matrix must hold real numbers; got dtype compl"),
    ],
)
def test_bad_matrices(matrix, error, message):
    with pytest.raises(error, match=message):
        recfuse.cosine_knn(matrix, 3)


def damaged(change) -> sp.csr_array:
    csr = sp.csr_array(np.eye(3, dtype=np.float32))
    change(csr)
    return csr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.indptr.__setitem__(1, 3), "indptr that starts at 0 and never decreases"),
        (lambda m: m.indptr.__setitem__(0, 1), "indptr that starts at 0"),
        (lambda m: m.indptr.__setitem__(3, 9), "one index and one value per entry"),
        (lambda m: m.indices.__setitem__(0, 3), r"column indices in \[0, 3\); got 3"),
        (lambda m: m.indices.__setitem__(0, -1), r"column indices in \[0, 3\); got -1"),
        (lambda m: setattr(m, "indptr", m.indptr[:3]), "indptr of 4 entries; got 3"),
        (lambda m: setattr(m, "data", m.data[:2]), "one index and one value per entry"),
    ],
)
def test_damaged_structure(change, message):
    with pytest.raises(ValueError, match=message):
        recfuse.cosine_knn(damaged(change), 3)
