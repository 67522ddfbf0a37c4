"""The rows of ALS that a GPU multiplies in two float16 each, on the emulator and on a GPU."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

import test_als_on_device
from helpers import normal
from recfuse._inputs import csr_parts
from reference_als import Objective
from test_als import FLOAT32, NONE, assert_solves, solver_for

ops = test_als_on_device.ops  # the fixture

CONVENTIONS = [
    Objective(alpha=40.0, regularization=10.0),
    Objective("explicit", regularization=0.1),
    Objective("explicit", regularization=0.1, biases=True),
]


def users_of(matrix, convention, items, ops):
    """Return the users that these items give."""
    solver = solver_for(matrix, convention, factors=items.shape[1], ops=ops)
    zeros = np.zeros((matrix.shape[0], items.shape[1]), np.float32)
    biases = [np.zeros(n, np.float32) for n in matrix.shape] if convention.biases else [NONE, NONE]
    solver.set_factors(zeros, items, *biases)
    users, biases = solver.fold_in(csr_parts(matrix), 0)
    return users, biases if len(biases) else np.zeros(len(users), np.float32)


def half_full(rng, n_users, n_items, values) -> sp.csr_array:
    dense = rng.random((n_users, n_items)) < 0.5
    dense[0] = True
    matrix = sp.csr_array(dense.astype(np.float32))
    matrix.data = values(matrix.nnz).astype(np.float32)
    return matrix


@pytest.mark.parametrize("convention", CONVENTIONS, ids=str)
@pytest.mark.parametrize("factors", [5, 64, 66, 128, 131])
@pytest.mark.parametrize("spread", [0, 2, 6])
def test_factors_and_confidences_of_all_sizes(rng, ops, convention, factors, spread):
    """Up to: rows of factors 2^12 apart, columns 2^6 apart, confidences from 0.04 to 4e7."""
    matrix = half_full(
        rng, 5, 150, lambda n: 10.0 ** rng.uniform(-spread / 2, spread, n) * rng.choice([-1, 1], n)
    )
    items = normal(rng, 150, factors)
    items *= np.exp2(rng.integers(-spread, spread + 1, (150, 1)))
    items *= np.exp2(rng.integers(-spread // 2, spread // 2 + 1, factors))
    users, biases = users_of(matrix, convention, items, ops)
    zeros, mean = np.zeros(150), convention.mean(matrix)
    assert_solves(convention, matrix, users, biases, items, zeros, mean, FLOAT32)


def test_a_column_that_float16_loses_is_solved_in_float64(rng, ops):
    """Cholesky does not mind a column that is short throughout; the low part of float16 does."""
    convention = Objective("explicit", regularization=1e-16)
    matrix = half_full(rng, 20, 60, lambda n: rng.uniform(1, 5, n))
    items = normal(rng, 60, 3)
    items[:, 1] *= 1e-6
    expected = convention.half_step(matrix, items, np.zeros(60), 0.0)[0]
    np.testing.assert_allclose(users_of(matrix, convention, items, ops)[0], expected, rtol=1e-5)


@pytest.mark.parametrize("size", [1e-16, 1e16])
def test_the_scale_goes_with_the_row(rng, ops, size):
    convention = Objective("explicit", regularization=float(size**2))
    matrix = half_full(rng, 4, 60, lambda n: rng.uniform(1, 5, n))
    items = normal(rng, 60, 20) * np.float32(size)
    users, biases = users_of(matrix, convention, items, ops)
    assert_solves(convention, matrix, users, biases, items, np.zeros(60), 0.0, FLOAT32)


def test_an_outlier_is_not_reason_enough_for_float64(rng, ops):
    """One item is 2^10 times as long as the others of its strip."""
    matrix = half_full(rng, 30, 60, lambda n: rng.uniform(1, 5, n))
    items = normal(rng, 60, 20)
    items[7] *= 1024
    solver = solver_for(matrix, Objective(regularization=1.0), factors=20, ops=ops)
    solver.set_factors(np.zeros((30, 20), np.float32), items, NONE, NONE)
    solver.step()
    assert solver.float64_rows == 0
