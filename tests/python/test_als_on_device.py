"""The solver of alternating least squares on a GPU, and on the emulator of one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import scipy.sparse as sp

from conftest import CUDA_MODULES, run_on_cuda
from helpers import assert_same_bytes, normal
from recfuse import AlternatingLeastSquares, backend
from recfuse._inputs import csr_parts
from reference_als import Objective
from test_als import (
    BAD_PARAMETERS,
    CONVENTIONS,
    FLOAT32,
    NONE,
    assert_solves,
    assert_step,
    biases_or_zeros,
    interactions,
    solver_for,
    started,
    stepped,
)


@pytest.fixture(params=CUDA_MODULES)
def ops(request, monkeypatch) -> Iterator[object]:
    for _ in run_on_cuda(CUDA_MODULES[request.param], monkeypatch):
        yield backend.resolve_backend("cuda").ops


@pytest.fixture
def emulated(monkeypatch) -> Iterator[object]:
    for _ in run_on_cuda(CUDA_MODULES["emulator"], monkeypatch):
        module = backend.resolve_backend("cuda").ops
        yield module
        module.set_als_limits()


@pytest.mark.parametrize("convention", CONVENTIONS, ids=str)
@pytest.mark.parametrize("factors", [1, 3, 16, 33, 100])
def test_every_system_is_solved(rng, ops, convention, factors):
    matrix = interactions(rng)
    solver, items = stepped(rng, matrix, convention, factors=factors, ops=ops)
    assert_step(convention, matrix, solver, items, FLOAT32)
    assert solver.finished_steps == 1
    assert solver.solver == "cholesky"


@pytest.mark.parametrize("factors", [230, 257])
def test_systems_that_shared_memory_does_not_hold(rng, ops, factors):
    matrix = interactions(rng, 6, 40)
    convention = Objective(regularization=1.0)
    solver, items = stepped(rng, matrix, convention, factors=factors, ops=ops)
    assert_step(convention, matrix, solver, items, 1e-5)


@pytest.mark.parametrize("convention", CONVENTIONS, ids=str)
def test_float64_throughout_agrees_with_the_reference(rng, ops, convention):
    matrix = interactions(rng)
    solver, items = stepped(rng, matrix, convention, factors=9, double_precision=True, ops=ops)
    users, _, user_biases, _ = biases_or_zeros(solver)
    expected = convention.half_step(matrix, items, np.zeros(len(items)), convention.mean(matrix))
    for got, want in zip((users, user_biases), expected, strict=True):
        # The Gram matrix is summed in float32 over 256 rows, which a bad condition magnifies.
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)
    stored = sum(np.count_nonzero(np.diff(m.indptr)) for m in (matrix, sp.csr_array(matrix.T)))
    assert solver.float64_rows == stored


@pytest.mark.parametrize("convention", CONVENTIONS, ids=str)
def test_the_objective_is_that_of_the_cpu_after_every_epoch(ops, convention):
    matrix = interactions(np.random.default_rng(2), 150, 90)
    here, there = (
        started(np.random.default_rng(1), matrix, convention, factors=20, **options)[0]
        for options in ({}, {"ops": ops})
    )
    assert there.loss() == pytest.approx(here.loss(), rel=1e-6)  # of the same start
    for _ in range(5):
        here.step()
        there.step()
        assert there.loss() == pytest.approx(here.loss(), rel=1e-4)


@pytest.mark.parametrize("convention", CONVENTIONS, ids=str)
def test_loss_is_that_of_the_reference(rng, ops, convention):
    matrix = interactions(rng, 60, 50)
    solver, _ = stepped(rng, matrix, convention, factors=7, steps=2, ops=ops)
    expected = convention.loss(matrix, *biases_or_zeros(solver), convention.mean(matrix))
    assert solver.loss() == pytest.approx(expected, rel=1e-6)


def results(matrix, convention, ops, factors=30):
    solver, _ = stepped(
        np.random.default_rng(1), matrix, convention, factors=factors, steps=2, ops=ops
    )
    return (*solver.factors(), np.float64(solver.loss()))


@pytest.mark.parametrize("convention", CONVENTIONS, ids=str)
def test_two_runs_have_the_same_bytes(rng, ops, convention):
    matrix = interactions(rng, 120, 80)
    assert_same_bytes(results(matrix, convention, ops), results(matrix, convention, ops))


@pytest.mark.parametrize("convention", [CONVENTIONS[2], CONVENTIONS[6]], ids=str)
def test_long_rows_are_sums_of_their_parts(rng, emulated, convention):
    """However many of them there is room for at a time."""
    matrix = interactions(rng, 60, 50)
    emulated.set_als_limits(long_row=8, gram_rows=7)
    want = results(matrix, convention, emulated)
    emulated.set_als_limits(long_row=8, gram_rows=7, parts_bytes=20_000)
    assert_same_bytes(results(matrix, convention, emulated), want)
    solver, items = stepped(rng, matrix, convention, factors=30, ops=emulated)
    assert_step(convention, matrix, solver, items, FLOAT32)


@pytest.mark.parametrize("convention", [CONVENTIONS[2], CONVENTIONS[6]], ids=str)
@pytest.mark.parametrize("long_row", [10, 4096])
def test_where_a_matrix_lies_changes_nothing(rng, emulated, convention, long_row):
    matrix = interactions(rng, 60, 50)
    emulated.set_als_limits(long_row=long_row)
    want = results(matrix, convention, emulated, 150)
    emulated.set_als_limits(long_row=long_row, shared_bytes=60_000, scratch_bytes=1)
    assert_same_bytes(results(matrix, convention, emulated, 150), want)


@pytest.mark.parametrize("room", [0, 9_000])
def test_memory_that_ends_is_told_of_als(rng, emulated, room):
    """When the interactions are copied, and when rows are solved; the solver stays usable."""
    matrix = interactions(rng)
    solver = started(rng, matrix, Objective(), factors=30, ops=emulated)[0]
    emulated.set_memory()
    total = emulated.set_memory() + room
    message = r"^als: \d+ bytes asked on cuda:0, \d+ of \d+ free\. plan_memory"
    try:
        emulated.set_memory(total)
        for call in (
            lambda: solver_for(matrix, Objective(), factors=30, ops=emulated),
            solver.step,
            solver.loss,
            lambda: solver.fold_in(csr_parts(matrix), 0),
        ):
            with pytest.raises(MemoryError, match=message):
                call()
    finally:
        emulated.set_memory()
    solver.step()
    assert solver.finished_steps == 1


@pytest.mark.parametrize("convention", CONVENTIONS, ids=str)
@pytest.mark.parametrize(
    "limits", [{}, {"long_row": 8, "gram_rows": 7, "parts_bytes": 20_000}], ids=str
)
@pytest.mark.parametrize(
    "how",
    [{"dual_entries": 0}, {"dual_entries": 30}, {"solver": "cg"}, {"solver": "block"}],
    ids=str,
)
def test_an_epoch_after_the_first_allocates_nothing(rng, emulated, convention, limits, how):
    emulated.set_als_limits(**limits)
    matrix = interactions(rng, 60, 50)
    recorded = {"factors": 30, "ops": emulated, **how}
    solver, _ = stepped(np.random.default_rng(1), matrix, convention, **recorded)
    emulated.set_memory()
    used = emulated.set_memory()
    emulated.set_memory(used)
    try:
        solver.step()
        solver.step()
    finally:
        peak = emulated.set_memory()
    assert peak == used
    # Every step begins anew: the fifth is the first of a solver that starts with these.
    again = solver_for(matrix, convention, **recorded)
    again.set_factors(*solver.factors())
    for one in (solver, again):
        one.step()
    assert_same_bytes(solver.factors(), again.factors())


def test_an_epoch_that_is_replayed_meets_rows_for_float64_and_errors(ops):
    convention = Objective("explicit", regularization=1e-9)
    matrix = sp.csr_array(np.float32([[1, 2], [3, 1]]))
    solver = solver_for(matrix, convention, factors=2, dual_entries=0, ops=ops)
    users = np.zeros((2, 2), np.float32)
    good, alike = np.float32([[1, 0], [0, 1]]), np.float32([[1, 1], [1, 1 + 1e-4]])
    for items in (good, good, alike):
        before = solver.float64_rows
        solver.set_factors(users, items, NONE, NONE)
        solver.step()
    assert before == 0
    assert solver.float64_rows >= 2
    expected = convention.half_step(matrix, alike, np.zeros(2), 0.0)[0]
    np.testing.assert_allclose(solver.factors()[0], expected, rtol=1e-4)
    counted = solver.float64_rows
    solver.set_factors(users, np.full((2, 2), 1e8, np.float32), NONE, NONE)
    with pytest.raises(ValueError, match="als: the system of user 0 is singular"):
        solver.step()
    assert solver.finished_steps == 0
    assert solver.float64_rows == counted
    np.testing.assert_array_equal(solver.factors()[1], np.full((2, 2), 1e8, np.float32))
    solver.set_factors(users, good, NONE, NONE)
    solver.step()
    assert solver.float64_rows == counted


def test_another_mean_is_that_of_the_next_epoch(rng, ops):
    convention = Objective("explicit", regularization=1.0, biases=True)
    matrix = interactions(rng)
    solver, _ = stepped(rng, matrix, convention, factors=4, dual_entries=0, steps=2, ops=ops)
    solver.global_mean = 3.0
    _, items, _, item_biases = solver.factors()
    solver.step()
    users, _, biases, _ = solver.factors()
    assert_solves(convention, matrix, users, biases, items, item_biases, 3.0, FLOAT32)


def test_a_row_of_many_parts(ops):
    """The CPU shares such a row between its threads."""
    rng = np.random.default_rng(1)
    dense = rng.random((4, 20_000)) < np.array([[1.0], [0.95], [0.01], [0.0]])
    matrix = sp.csr_array(dense.astype(np.float32))
    matrix.data = rng.integers(1, 6, matrix.nnz).astype(np.float32)
    for convention in (CONVENTIONS[0], CONVENTIONS[5]):
        solver, items = stepped(rng, matrix, convention, factors=5, ops=ops)
        users, _, user_biases, _ = biases_or_zeros(solver)
        zeros, mean = np.zeros(len(items)), convention.mean(matrix)
        assert_solves(convention, matrix, users, user_biases, items, zeros, mean, 1e-5)


def test_small_pivots_are_solved_in_float64(ops):
    """Two items with nearly the same factors: float32 cannot tell them, float64 can."""
    convention = Objective("explicit", regularization=1e-9)
    matrix = sp.csr_array(np.float32([[1, 2], [3, 1]]))
    items = np.float32([[1, 1], [1, 1 + 1e-4]])
    solver = solver_for(matrix, convention, factors=2, ops=ops)
    solver.set_factors(np.zeros((2, 2), np.float32), items, NONE, NONE)
    solver.step()
    assert solver.float64_rows >= 2
    expected = convention.half_step(matrix, items, np.zeros(2), 0.0)[0]
    np.testing.assert_allclose(solver.factors()[0], expected, rtol=1e-4)


def test_a_row_beyond_float32_is_solved_in_float64(ops):
    matrix = sp.csr_array(np.float32([[3e38, 1.0], [1.0, 0.0]]))
    convention = Objective(alpha=100.0, regularization=1.0)
    solver = solver_for(matrix, convention, factors=1, ops=ops)
    items = np.float32([[0.5], [0.25]])
    solver.set_factors(np.zeros((2, 1), np.float32), items, NONE, NONE)
    solver.step()
    assert solver.float64_rows >= 1
    expected = convention.half_step(matrix, items, np.zeros(2), 0.0)[0]
    np.testing.assert_allclose(solver.factors()[0], expected, rtol=1e-5)


def test_factors_that_overflow_name_the_row(ops):
    matrix = sp.csr_array(np.float32([[1.0, 0.0], [3e38, 0.0]]))
    solver = solver_for(matrix, Objective("explicit", regularization=0.0), factors=1, ops=ops)
    items = np.float32([[1e-3], [1.0]])
    solver.set_factors(np.zeros((2, 1), np.float32), items, NONE, NONE)
    with pytest.raises(ValueError, match="als: the factors of user 1 must fit in float32"):
        solver.step()


@pytest.mark.parametrize("double_precision", [False, True])
def test_singular_systems_name_the_first_row(ops, double_precision):
    matrix = sp.csr_array(np.float32([[1, 1, 1], [0, 0, 0], [0, 1, 0], [1, 0, 0]]))
    solver = solver_for(
        matrix, Objective("explicit", regularization=0.0), factors=2, ops=ops,
        double_precision=double_precision,
    )  # fmt: skip
    items = np.float32([[1, 0], [0, 1], [1, 1]])
    solver.set_factors(np.zeros((4, 2), np.float32), items, NONE, NONE)
    with pytest.raises(
        ValueError, match=r"als: the system of user 2 is singular; got regularization 0\. Raise it"
    ):
        solver.step()
    assert solver.finished_steps == 0


@pytest.mark.parametrize("shape", [(0, 0), (0, 4), (4, 0), (1, 1), (3, 2)])
def test_nothing_to_learn_from(ops, shape):
    empty = sp.csr_array(shape, dtype=np.float32)
    for convention in CONVENTIONS:
        fitted, _ = stepped(
            np.random.default_rng(1), empty, convention, factors=3, steps=2, ops=ops
        )
        assert not any(part.any() for part in fitted.factors())
        assert fitted.loss() == 0


@pytest.mark.parametrize("convention", CONVENTIONS, ids=str)
def test_fold_in_solves_the_rows_of_users_unknown_to_it(rng, ops, convention):
    matrix, new = interactions(rng), interactions(rng, 12, 30)
    solver, _ = stepped(rng, matrix, convention, factors=10, ops=ops)
    _, items, _, item_biases = biases_or_zeros(solver)
    factors, biases = solver.fold_in(csr_parts(new), 0)
    biases = biases if len(biases) else np.zeros(12, np.float32)
    mean = solver.global_mean
    assert_solves(convention, new, factors, biases, items, item_biases, mean, FLOAT32)
    alone = solver.fold_in(csr_parts(new[4:6]), 0)[0]
    assert_same_bytes([alone], [factors[4:6]])
    solver.step()  # other items: another Gram matrix
    _, items, _, item_biases = biases_or_zeros(solver)
    factors, biases = solver.fold_in(csr_parts(new), 0)
    biases = biases if len(biases) else np.zeros(12, np.float32)
    assert_solves(convention, new, factors, biases, items, item_biases, mean, FLOAT32)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        *BAD_PARAMETERS,
        ({"factors": 2049}, "als: factors must be at most 2048 on cuda; got 2049"),
    ],
)
def test_bad_parameters(rng, ops, bad, message):
    with pytest.raises(ValueError, match=message):
        solver_for(interactions(rng), Objective(), ops=ops, **{"factors": 2, **bad})


def test_factors_are_checked(rng, ops):
    solver = solver_for(interactions(rng), Objective(), factors=2, ops=ops)
    users, items = np.zeros((40, 2), np.float32), np.zeros((30, 2), np.float32)
    with pytest.raises(ValueError, match=r"als: user_factors must have shape \(40, 2\); got \(39"):
        solver.set_factors(users[:-1], items, NONE, NONE)
    with pytest.raises(ValueError, match="als: user_items must have 30 columns like the fitted"):
        solver.fold_in(csr_parts(sp.csr_array((2, 31), dtype=np.float32)), 0)


def test_biases_are_a_start_too(rng, ops):
    convention = CONVENTIONS[5]
    matrix = interactions(rng)
    start = [normal(rng, 40, 4), normal(rng, 30, 4), *(normal(rng, n, 1)[:, 0] for n in (40, 30))]
    solver = solver_for(matrix, convention, factors=4, ops=ops)
    solver.set_factors(*start)
    assert_same_bytes(solver.factors(), start)


@pytest.mark.parametrize("options", [{}, {"objective": "explicit", "biases": True}], ids=str)
def test_the_estimator_on_a_device(rng, ops, options):
    matrix = interactions(rng, 80, 60)
    here, there = (
        AlternatingLeastSquares(
            factors=8, regularization=1.0, iterations=3, solver="cholesky", compute_loss=True,
            random_state=0, device=device, **options,
        ).fit(matrix)
        for device in ("cpu", "cuda")
    )  # fmt: skip
    np.testing.assert_allclose(there.loss_, here.loss_, rtol=1e-4)
    np.testing.assert_allclose(there.user_factors_, here.user_factors_, rtol=1e-2, atol=1e-4)
    unknown = matrix[:5]
    got, want = (
        model.recommend([80, 81, 82, 83, 84], 3, user_items=unknown, recalculate_user=True)[1]
        for model in (there, here)
    )
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4)


def test_confidences_below_1_are_the_cpus(emulated):
    with pytest.raises(ValueError, match=r"base_confidence must be 1 on a GPU; got 0\.5\. device"):
        solver_for(sp.csr_array(np.eye(3)), Objective(base_confidence=0.5), factors=2, ops=emulated)
