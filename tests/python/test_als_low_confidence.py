"""Confidences below 1: entries that count less than absent ones, whose terms are subtracted."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from helpers import assert_same_bytes, normal
from recfuse._inputs import csr_parts
from reference_als import Objective
from test_als import NONE, assert_solves, interactions, solver_for, stepped

PLAIN = Objective(base_confidence=0.0)  # c = |r|
SOLVERS = ["cholesky", "cg", "block"]


def with_confidences(rng, n_users=40, n_items=30) -> sp.csr_array:
    """Confidences from 0 to 3, dislikes, zeros, and rows of which none is below 1."""
    matrix = interactions(rng, n_users, n_items)
    matrix.data = (rng.uniform(0, 3, matrix.nnz) * np.sign(matrix.data)).astype(np.float32)
    for row in range(0, n_users, 3):
        own = matrix.data[matrix.indptr[row] : matrix.indptr[row + 1]]
        own += np.copysign(np.float32(1), own)
    return matrix


@pytest.mark.parametrize("factors", [1, 16, 33, 70])
@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver_solves_rows_of_both_kinds(rng, isa, factors, solver):
    matrix = with_confidences(rng)
    steps = 20 if solver == "block" and factors > 64 else 1
    fitted, items = stepped(
        rng, matrix, PLAIN, factors=factors, solver=solver, cg_steps=4 * factors + 20, steps=steps
    )
    if steps == 1:
        users = fitted.factors()[0]
        zeros = np.zeros(len(users)), np.zeros(len(items))
        assert_solves(PLAIN, matrix, users, zeros[0], items, zeros[1], 0.0, 2e-5)
        return
    exact = stepped(
        np.random.default_rng(1), matrix, PLAIN, factors=factors, steps=steps, double_precision=True
    )[0]
    assert fitted.loss() == pytest.approx(exact.loss(), rel=0.05)


def test_systems_of_entries_are_for_rows_without_a_confidence_below_1(rng, isa):
    matrix = with_confidences(rng)
    fitted, items = stepped(rng, matrix, PLAIN, factors=33, dual_entries=33)
    users, zeros = fitted.factors()[0], np.zeros(len(items))
    assert_solves(PLAIN, matrix, users, np.zeros(len(users)), items, zeros, 0.0, 3e-6)


def test_confidences_of_at_least_1_are_those_of_a_base_of_1(rng):
    matrix = with_confidences(rng)
    matrix.data = np.copysign(np.abs(matrix.data) + np.float32(1.5), matrix.data)
    above = matrix.copy()
    above.data = np.copysign(np.abs(matrix.data) - 1, matrix.data)
    got, want = (
        stepped(np.random.default_rng(1), m, convention, factors=6)[0]
        for m, convention in ((matrix, PLAIN), (above, Objective()))
    )
    for g, w in zip(got.factors(), want.factors(), strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-4, atol=1e-5)
    assert got.loss() == pytest.approx(want.loss(), rel=1e-6)


@pytest.mark.parametrize("solver", ["cholesky", "cg"])
def test_a_row_that_all_threads_share(rng, solver):
    n_items = 70_000
    dense = rng.random((3, n_items)) < np.array([[1.0], [0.95], [0.01]])
    matrix = sp.csr_array(dense.astype(np.float32))
    matrix.data = rng.uniform(-0.5, 2, matrix.nnz).astype(np.float32)
    results = []
    for num_threads in (1, 2):
        fitted, items = stepped(
            np.random.default_rng(1), matrix, PLAIN, factors=5, solver=solver, cg_steps=30,
            num_threads=num_threads,
        )  # fmt: skip
        results.append(fitted.factors())
        users = results[-1][0]
        assert_solves(PLAIN, matrix, users, np.zeros(3), items, np.zeros(n_items), 0.0, 1e-5)
    assert_same_bytes(*results)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("factors", [4, 70])
def test_a_row_that_takes_nearly_all_out_is_solved_in_float64(rng, isa, solver, factors):
    """Steps and factorisations in float32 would work on what rounding has left of the sums."""
    dense = np.full((3, 400), 1e-4, np.float32)
    dense[1:, 7:] = 0
    matrix, items = sp.csr_array(dense), normal(rng, 400, factors)
    convention = Objective(base_confidence=0.0, regularization=0.02)
    fitted = solver_for(matrix, convention, factors=factors, solver=solver)
    fitted.set_factors(np.zeros((3, factors), np.float32), items, NONE, NONE)
    fitted.step()
    assert fitted.float64_rows >= 1
    expected = convention.half_step(matrix, items, np.zeros(400), 0.0)[0]
    error = fitted.factors()[0][0] - expected[0]  # Gram matrices are float32 by 256
    assert np.linalg.norm(error) <= 0.01 * np.linalg.norm(expected[0])


def test_stored_zeros_take_entries_out_and_alone_want_nothing():
    matrix = sp.csr_array(np.ones((2, 3), np.float32))
    matrix.data[:] = [0, 2, 0, 0, 0, 0]
    items = np.float32([[1, 0], [1, 1], [0, 2]])
    for solver in SOLVERS:
        fitted = solver_for(matrix, PLAIN, factors=2, solver=solver, cg_steps=10)
        fitted.set_factors(np.ones((2, 2), np.float32), items, NONE, NONE)
        fitted.step()
        users = fitted.factors()[0]
        np.testing.assert_allclose(users[1], 0, atol=1e-5)
        np.testing.assert_allclose(users[0], np.full(2, 2 / 4.1), rtol=1e-5)


def test_fold_in_is_exact_and_no_row_minds_the_others(rng, isa):
    matrix = with_confidences(rng)
    fitted, _ = stepped(rng, matrix, PLAIN, factors=9, solver="cg")
    items = fitted.factors()[1]
    together = fitted.fold_in(csr_parts(matrix), 2)[0]
    zeros = np.zeros(len(together)), np.zeros(len(items))
    assert_solves(PLAIN, matrix, together, zeros[0], items, zeros[1], 0.0, 3e-6)
    for row in range(0, 40, 7):
        alone = fitted.fold_in(csr_parts(sp.csr_array(matrix[[row]])), 1)[0]
        assert_same_bytes(alone[0], together[row])
