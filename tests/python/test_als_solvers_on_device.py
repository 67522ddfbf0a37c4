"""The solvers of a GPU that move rows from where they are, against those of the CPU."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import scipy.sparse as sp

from conftest import CUDA_MODULES, run_on_cuda
from helpers import assert_same_bytes, normal
from recfuse import AlternatingLeastSquares, backend
from recfuse._inputs import csr_parts
from reference_als import Objective, rows_of
from test_als import (
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


# More than 4 steps, so that the CPU rounds nothing.
HOW = [
    {"solver": "cg", "cg_steps": 5},
    {"solver": "block"},
    {"solver": "cholesky", "dual_entries": 30},
]


@pytest.mark.parametrize("convention", CONVENTIONS, ids=str)
@pytest.mark.parametrize("factors", [1, 2, 17, 64, 65, 128, 257])
@pytest.mark.parametrize("how", HOW, ids=str)
def test_the_objective_is_that_of_the_cpu_after_every_epoch(ops, convention, factors, how):
    matrix = interactions(np.random.default_rng(2), 60, 40)
    here, there = (
        started(np.random.default_rng(1), matrix, convention, factors=factors, **how, **options)[0]
        for options in ({}, {"ops": ops})
    )
    for _ in range(3):
        here.step()
        there.step()
        assert there.loss() == pytest.approx(here.loss(), rel=1e-4)
    assert there.solver == how["solver"]
    assert there.float64_rows == here.float64_rows == 0
    assert there.finished_steps == 3


def after_steps(convention, matrix, items, start, n_steps):
    """Rows of `matrix` after steps of conjugate gradients from `start`, in float64."""
    items = items.astype(np.float64)
    features = np.column_stack([items, np.ones(len(items))]) if convention.biases else items
    rows = np.zeros(start.shape)
    for row, (ids, values) in enumerate(rows_of(matrix)):
        a, b, _ = convention.system(
            ids, values, items, np.zeros(len(items)), convention.mean(matrix)
        )
        if not b.any():
            continue
        near = items.T @ items
        if convention.objective == "explicit":
            near = np.diag(len(ids) * (features**2).mean(axis=0))
        near = near + convention.penalty(len(ids), len(items)) * np.eye(len(b))
        x = start[row].astype(np.float64)
        residual = b - a @ x
        direction = turned = np.linalg.solve(near, residual)
        for _ in range(n_steps):
            energy = residual @ turned
            length = energy / (direction @ a @ direction)
            x = x + length * direction
            residual = residual - length * (a @ direction)
            turned = np.linalg.solve(near, residual)
            direction = turned + residual @ turned / energy * direction
        rows[row] = x
    return rows


@pytest.mark.parametrize("convention", CONVENTIONS, ids=str)
@pytest.mark.parametrize("cg_steps", [1, 2, 3])
@pytest.mark.parametrize("limits", [{}, {"team_row": 4}, {"long_row": 6}], ids=str)
def test_few_steps_are_those_of_the_reference(rng, emulated, convention, cg_steps, limits):
    matrix = interactions(rng)
    emulated.set_als_limits(**limits)
    solver, start, items = started(
        rng, matrix, convention, factors=9, solver="cg", cg_steps=cg_steps, ops=emulated
    )
    solver.step()
    users, _, user_biases, _ = biases_or_zeros(solver)
    if convention.biases:
        users, start = np.column_stack([users, user_biases]), np.pad(start, ((0, 0), (0, 1)))
    want = after_steps(convention, matrix, items, start, cg_steps)
    np.testing.assert_allclose(users, want, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("convention", CONVENTIONS, ids=str)
@pytest.mark.parametrize("factors", [1, 33, 130])
def test_conjugate_gradients_converge_to_the_solution(rng, ops, convention, factors):
    matrix = interactions(rng)
    solver, items = stepped(
        rng, matrix, convention, factors=factors, solver="cg", cg_steps=200, ops=ops
    )
    assert_step(convention, matrix, solver, items, 10 * FLOAT32)


@pytest.mark.parametrize("convention", CONVENTIONS, ids=str)
@pytest.mark.parametrize("factors", [1, 33, 63])
def test_one_block_is_the_whole_system(rng, ops, convention, factors):
    matrix = interactions(rng)
    solver, items = stepped(rng, matrix, convention, factors=factors, solver="block", ops=ops)
    assert_step(convention, matrix, solver, items, 10 * FLOAT32)


@pytest.mark.parametrize("convention", CONVENTIONS, ids=str)
@pytest.mark.parametrize("factors", [1, 16, 33, 100])
def test_systems_of_the_entries_have_the_same_solutions(rng, ops, convention, factors):
    """Of every row, however long it is against the factors."""
    matrix = interactions(rng)
    solver, items = stepped(rng, matrix, convention, factors=factors, dual_entries=40, ops=ops)
    assert_step(convention, matrix, solver, items, FLOAT32)


@pytest.mark.parametrize("objective", ["implicit", "explicit"])
@pytest.mark.parametrize("regularization", [1e-3, 1.0])
@pytest.mark.parametrize("difference", [0.0, 1e-4, 1e-2])
def test_systems_of_entries_that_nearly_repeat_one_another(
    rng, ops, objective, regularization, difference
):
    """They have solutions that cancel in x: such rows are solved by the system of the factors."""
    convention = Objective(objective, regularization=regularization, alpha=40.0)
    matrix = interactions(rng, 40, 60, 0.4)
    items = normal(rng, 60, 64)
    items[1::2] = items[::2] + np.float32(difference) * items[1::2]
    solver = solver_for(matrix, convention, factors=64, dual_entries=64, ops=ops)
    solver.set_factors(np.zeros((40, 64), np.float32), items, NONE, NONE)
    solver.step()
    zeros, users = np.zeros(60), solver.factors()[0]
    assert_solves(convention, matrix, users, zeros, items, zeros, 0.0, FLOAT32)


@pytest.mark.parametrize("objective", ["implicit", "explicit"])
def test_short_rows_have_systems_of_their_entries(rng, ops, objective):
    """A row that is too long, or that leaves its entries no room, is solved as without them."""
    convention = Objective(objective, regularization=1.0)
    short = sp.csr_array((rng.random((60, 40)) < 0.1).astype(np.float32))
    users = [
        stepped(
            np.random.default_rng(1), short, convention, factors=30, dual_entries=entries, ops=ops
        )[0].factors()[0]
        for entries in (0, 3, 30)
    ]
    same = (users[0] == users[1]).all(axis=1)
    is_short = np.diff(short.indptr) <= 3
    assert same[~is_short].all() and not same[is_short & (np.diff(short.indptr) > 0)].all()
    np.testing.assert_allclose(users[0], users[1], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(users[0], users[2], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("factors", "objective"), [(300, "implicit"), (600, "explicit"), (1030, "explicit")]
)
def test_many_factors(rng, ops, factors, objective):
    matrix, convention = interactions(rng, 6, 40), Objective(objective, regularization=1.0)
    solver, items = stepped(
        rng, matrix, convention, factors=factors, solver="cg", cg_steps=60, ops=ops
    )
    assert_step(convention, matrix, solver, items, 1e-5)


def results(matrix, convention, ops, how, factors=30):
    solver, _ = stepped(
        np.random.default_rng(1), matrix, convention, factors=factors, steps=2, ops=ops, **how
    )
    return (*solver.factors(), np.float64(solver.loss()))


@pytest.mark.parametrize("convention", CONVENTIONS, ids=str)
@pytest.mark.parametrize("how", HOW, ids=str)
def test_two_runs_have_the_same_bytes(rng, ops, convention, how):
    matrix = interactions(rng, 120, 80)
    assert_same_bytes(results(matrix, convention, ops, how), results(matrix, convention, ops, how))


@pytest.mark.parametrize("convention", [CONVENTIONS[2], CONVENTIONS[6]], ids=str)
@pytest.mark.parametrize("how", HOW, ids=str)
def test_rows_cut_in_parts_and_shared_by_warps(rng, emulated, convention, how):
    """Parts are added in their order, however many of them there is room for at a time."""
    matrix = interactions(rng, 60, 50)
    whole = results(matrix, convention, emulated, how)
    for limits in ({"long_row": 8}, {"long_row": 20, "team_row": 6}, {"team_row": 1}):
        emulated.set_als_limits(**limits)
        want = results(matrix, convention, emulated, how)
        assert want[-1] == pytest.approx(whole[-1], rel=1e-5)
        emulated.set_als_limits(**limits, parts_bytes=1)
        assert_same_bytes(results(matrix, convention, emulated, how), want)


@pytest.mark.parametrize("how", HOW, ids=str)
def test_a_row_of_many_parts(ops, how):
    rng = np.random.default_rng(1)
    dense = rng.random((4, 20_000)) < np.array([[1.0], [0.95], [0.01], [0.0]])
    matrix = sp.csr_array(dense.astype(np.float32))
    matrix.data = rng.integers(1, 6, matrix.nnz).astype(np.float32)
    for convention in (CONVENTIONS[0], CONVENTIONS[5]):
        solver, items = stepped(rng, matrix, convention, factors=5, ops=ops, **how)
        users, _, user_biases, _ = biases_or_zeros(solver)
        zeros, mean = np.zeros(len(items)), convention.mean(matrix)
        assert_solves(convention, matrix, users, user_biases, items, zeros, mean, 1e-5)


@pytest.mark.parametrize("how", [HOW[0], HOW[2]], ids=str)
def test_dislikes_alone_are_exactly_nothing(ops, emulated, how):
    matrix = sp.csr_array(np.float32([[-1, -2, 0], [0, 0, 0], [3, 1, 1]]))
    for module, limits in ((ops, {}), (emulated, {"long_row": 1})):
        emulated.set_als_limits(**limits)
        solver, _ = stepped(
            np.random.default_rng(1), matrix, Objective(), factors=4, ops=module, **how
        )
        assert not solver.factors()[0][:2].any()
        assert solver.factors()[0][2].any()


@pytest.mark.parametrize("convention", CONVENTIONS, ids=str)
@pytest.mark.parametrize("how", HOW, ids=str)
def test_fold_in_is_exact_whatever_the_solver(rng, ops, convention, how):
    matrix, new = interactions(rng), interactions(rng, 12, 30)
    solver, _ = stepped(rng, matrix, convention, factors=10, ops=ops, **how)
    _, items, _, item_biases = biases_or_zeros(solver)
    factors, biases = solver.fold_in(csr_parts(new), 0)
    biases = biases if len(biases) else np.zeros(12, np.float32)
    mean = solver.global_mean
    assert_solves(convention, new, factors, biases, items, item_biases, mean, FLOAT32)
    alone = solver.fold_in(csr_parts(new[4:6]), 0)[0]
    assert_same_bytes([alone], [factors[4:6]])


@pytest.mark.parametrize("how", HOW, ids=str)
def test_a_row_beyond_float32_is_solved_in_float64(ops, how):
    matrix = sp.csr_array(np.float32([[3e38, 1.0], [1.0, 0.0]]))
    convention = Objective(alpha=100.0, regularization=1.0)
    solver = solver_for(matrix, convention, factors=1, ops=ops, **how)
    items = np.float32([[0.5], [0.25]])
    solver.set_factors(np.zeros((2, 1), np.float32), items, NONE, NONE)
    solver.step()
    assert solver.float64_rows >= 1
    expected = convention.half_step(matrix, items, np.zeros(2), 0.0)[0]
    np.testing.assert_allclose(solver.factors()[0], expected, rtol=1e-4)


@pytest.mark.parametrize("how", HOW, ids=str)
def test_factors_that_overflow_name_the_row_and_change_no_other(ops, how):
    matrix = sp.csr_array(np.float32([[1.0, 0.0], [3e38, 0.0]]))
    solver = solver_for(
        matrix, Objective("explicit", regularization=0.0), factors=1, ops=ops, **how
    )
    items = np.float32([[1e-3], [1.0]])
    for _ in range(2):  # as the first epoch, and again
        solver.set_factors(np.zeros((2, 1), np.float32), items, NONE, NONE)
        with pytest.raises(ValueError, match="als: the factors of user 1 must fit in float32"):
            solver.step()
        assert np.isfinite(solver.factors()[0]).all()
        np.testing.assert_array_equal(solver.factors()[1], items)


@pytest.mark.parametrize("how", HOW, ids=str)
def test_a_gram_matrix_that_is_not_finite_names_the_row_and_changes_nothing(rng, ops, how):
    """The float64 of all rows meets it, too; what comes after does not."""
    matrix = interactions(rng)[3:]  # whose first row has no entries
    solver, users, items = started(rng, matrix, Objective(), factors=30, ops=ops, **how)
    solver.step()
    want, before, beyond = solver.factors(), solver.float64_rows, np.full_like(items, 3e38)
    solver.set_factors(users, beyond, NONE, NONE)
    with pytest.raises(ValueError, match="als: the system of user 1 is singular"):
        solver.step()
    assert solver.float64_rows == before
    has_entries = np.diff(matrix.indptr)[:, np.newaxis] > 0
    np.testing.assert_array_equal(solver.factors()[0], np.where(has_entries, users, 0))
    np.testing.assert_array_equal(solver.factors()[1], beyond)
    solver.set_factors(users, items, NONE, NONE)
    solver.step()
    assert_same_bytes(solver.factors(), want)


@pytest.mark.parametrize("how", HOW, ids=str)
@pytest.mark.parametrize("convention", [CONVENTIONS[0], CONVENTIONS[5]], ids=str)
def test_double_precision_solves_exactly(rng, ops, convention, how):
    matrix = interactions(rng)
    solver, items = stepped(
        rng, matrix, convention, factors=9, double_precision=True, ops=ops, **how
    )
    users, _, user_biases, _ = biases_or_zeros(solver)
    expected = convention.half_step(matrix, items, np.zeros(len(items)), convention.mean(matrix))
    for got, want in zip((users, user_biases), expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("shape", [(0, 0), (0, 4), (4, 0), (1, 1), (3, 2)])
@pytest.mark.parametrize("how", HOW, ids=str)
def test_nothing_to_learn_from(ops, shape, how):
    empty = sp.csr_array(shape, dtype=np.float32)
    for convention in CONVENTIONS:
        fitted, _ = stepped(
            np.random.default_rng(1), empty, convention, factors=3, steps=2, ops=ops, **how
        )
        assert not any(part.any() for part in fitted.factors())
        assert fitted.loss() == 0


@pytest.mark.parametrize("options", [{}, {"objective": "explicit", "biases": True}], ids=str)
@pytest.mark.parametrize("how", [*HOW[:2], {"solver": "cholesky"}], ids=str)
def test_the_estimator_and_what_follows_a_fit(rng, ops, options, how):
    """New and changed users and items are solved exactly, as on the CPU."""
    matrix = interactions(rng, 80, 60)
    here, there = (
        AlternatingLeastSquares(
            factors=8, regularization=1.0, iterations=3, compute_loss=True, random_state=0,
            device=device, **how, **options,
        ).fit(matrix)
        for device in ("cpu", "cuda")
    )  # fmt: skip
    np.testing.assert_allclose(there.loss_, here.loss_, rtol=1e-4)
    rows, columns = matrix[[4, 6, 7]], sp.csr_array(matrix.T)[[1, 3]]
    columns.resize((2, 82))
    folded = there.fold_in(rows)
    for model in (here, there):
        model.partial_fit_users([5, 80, 81], rows).partial_fit_items([60, 7], columns)
    for name in ("user_factors_", "item_factors_", "user_biases_", "item_biases_"):
        np.testing.assert_allclose(
            getattr(there, name), getattr(here, name), rtol=1e-2, atol=1e-3, err_msg=name
        )
    assert_same_bytes([folded], [there.user_factors_[[5, 80, 81]]])


@pytest.mark.parametrize(
    ("factors", "per_row", "options", "solver"),
    [
        (8, 2, {}, "cholesky"),
        (64, 100, {"objective": "explicit"}, "cg"),
        (512, 150, {"objective": "explicit", "cg_steps": 60}, "block"),
    ],
)
def test_auto_takes_the_solver_that_is_predicted_to_get_there_soonest(
    rng, ops, factors, per_row, options, solver
):
    rows = np.repeat(np.arange(150), per_row)
    columns = np.concatenate([rng.choice(150, per_row, replace=False) for _ in range(150)])
    matrix = sp.csr_array((np.ones(len(rows), np.float32), (rows, columns)), shape=(150, 150))
    convention = Objective(options.get("objective", "implicit"))
    made = solver_for(
        matrix, convention, factors=factors, solver="auto",
        cg_steps=options.get("cg_steps", 2), ops=ops,
    )  # fmt: skip
    assert made.solver == solver
