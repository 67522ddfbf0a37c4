"""Products of pairs of sparse rows in float64, against the definition."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from recfuse import _core


def parts(csr):
    return csr.indptr.astype(np.int64), csr.indices.astype(np.int32), csr.shape, None


def shared(left, right, pairs, num_threads=1):
    return _core.shared_products(
        parts(left), left.data, parts(right), right.data, parts(pairs), num_threads=num_threads
    )


def rows_of(rng, n, width, density=0.3) -> sp.csr_array:
    kept = rng.random((n, width)) < density
    values = 10.0 ** rng.uniform(-8, 8, (n, width)) * rng.choice([-1, 0, 1], (n, width))
    rows, columns = np.nonzero(kept)  # a stored zero is an entry
    return sp.csr_array((values[rows, columns], (rows, columns)), shape=(n, width))


@pytest.mark.parametrize("width", [1, 5, 40])
@pytest.mark.parametrize("num_threads", [1, 2])
def test_is_the_definition(rng, width, num_threads):
    left, right = rows_of(rng, 150, width), rows_of(rng, 70, width)
    lists = [rng.permutation(70)[: rng.integers(0, 20)] for _ in range(150)]
    indptr = np.append(0, np.cumsum([len(ids) for ids in lists]))
    pairs = sp.csr_array((np.ones(indptr[-1]), np.concatenate(lists), indptr), shape=(150, 70))
    products, first = shared(left, right, pairs, num_threads)
    expected, columns = [], []
    for row, ids in enumerate(lists):
        a = dict(
            zip(left.indices[s := slice(*left.indptr[row : row + 2])], left.data[s], strict=True)
        )
        for other in ids:
            s = slice(*right.indptr[other : other + 2])
            total, least = 0.0, -1
            for column, value in zip(right.indices[s], right.data[s], strict=True):  # ascending
                if column in a:
                    total += a[column] * value
                    least = column if least < 0 else least
            expected.append(total)
            columns.append(least)
    np.testing.assert_array_equal(products, expected)  # bit by bit
    np.testing.assert_array_equal(first, columns)
    assert (first < 0).any() and len(set(columns)) > min(width, 2)


def test_refuses_what_does_not_fit(rng):
    left, right = rows_of(rng, 4, 6), rows_of(rng, 3, 6)
    pairs = sp.csr_array(np.ones((4, 3)))
    wrong = sp.csr_array(([1.0], [3], [0, 1, 1, 1, 1]), shape=(4, 4))
    for change, words in (
        ((left, rows_of(rng, 3, 5), pairs), "right must have 6 columns like left; got 5"),
        ((left, right, pairs[:2]), r"pairs must have shape \(4, 3\)"),
    ):
        with pytest.raises(ValueError, match=f"shared_products: {words}"):
            shared(*change)
    indptr, indices, _, _ = parts(wrong)
    with pytest.raises(IndexError, match=r"pairs must have column indices in \[0, 3\); got 3"):
        _core.shared_products(
            parts(left),
            left.data,
            parts(right),
            right.data,
            (indptr, indices, (4, 3), None),
            num_threads=1,
        )
    for short, name in ((left.data[:-1], "left_values"), (left.data, "right_values")):
        values = (short, right.data) if name == "left_values" else (left.data, right.data[:-1])
        with pytest.raises(ValueError, match=f"{name} must have .* elements"):
            _core.shared_products(
                parts(left), values[0], parts(right), values[1], parts(pairs), num_threads=1
            )
