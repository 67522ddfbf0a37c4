"""Products of few rows give the bytes that SciPy gives when it converts everything."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from recfuse._sparse import product, sparse_product


def random_csr(rng, shape, density) -> sp.csr_array:
    values = rng.standard_normal(shape, dtype=np.float32)
    return sp.csr_array(np.where(rng.random(shape) < density, values, 0))


def largest_first(matrix: sp.csr_array) -> sp.csr_array:
    """Return the rows as those of similarities are, not in ascending order of their columns."""
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    order = np.lexsort((-matrix.data, rows))
    parts = (matrix.data[order], matrix.indices[order], matrix.indptr)
    return sp.csr_array(parts, shape=matrix.shape)


@pytest.mark.parametrize("n_rows", [0, 1, 3, 200])
@pytest.mark.parametrize("density", [0.0, 0.05, 0.7])
@pytest.mark.parametrize("n_columns", [5, 90, 20_000])
def test_products_have_the_bytes_of_a_whole_conversion(rng, n_rows, density, n_columns):
    left = random_csr(rng, (n_rows, 40), density)
    right = random_csr(rng, (40, n_columns), min(density, 500 / n_columns))
    right = largest_first(right)
    wide = left.astype(np.float64)
    expected = sp.csr_array(wide @ right.astype(np.float64)).sorted_indices()
    got = sparse_product(left, right)
    assert got.shape == expected.shape
    assert sp.csr_array((got.data, got.indices, got.indptr), shape=got.shape).has_sorted_indices
    np.testing.assert_array_equal(got.toarray(), expected.toarray())
    dense = rng.standard_normal((40, min(n_columns, 90)), dtype=np.float32)
    np.testing.assert_array_equal(product(left, dense), wide @ dense.astype(np.float64))
