"""Alternating least squares on several GPUs: the bytes of one, however rows are divided."""

from __future__ import annotations

import functools
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp

from helpers import assert_same_bytes
from recfuse import AlternatingLeastSquares
from recfuse._inputs import csr_parts
from recfuse.errors import DeviceError
from reference_als import Objective
from test_als import CONVENTIONS, NONE, interactions, solver_for, stepped
from test_several_devices import device, emulated  # noqa: F401

DIVISIONS = [[1], [0, 0], [0, 1], [2, 0, 1], [0, 1, 2, 3, 4, 5, 6]]


def on(module, numbers):
    """Return the ops of a module on these GPUs."""
    return SimpleNamespace(AlsSolver=functools.partial(module.AlsSolver, devices=numbers))


def results(module, numbers, matrix, convention, **options):
    """Return factors, loss, folded-in factors, and how many rows float64 solved."""
    solver, _ = stepped(
        np.random.default_rng(1), matrix, convention, steps=2, ops=on(module, numbers), **options
    )
    folded = solver.fold_in(csr_parts(sp.csr_array(matrix[:7])))
    counts = np.array([solver.loss(), solver.float64_rows, solver.finished_steps])
    return (*solver.factors(), *folded, counts)


def assert_divided_alike(module, matrix, convention, **options):
    expected = results(module, [0], matrix, convention, **options)
    for numbers in DIVISIONS:
        assert_same_bytes(results(module, numbers, matrix, convention, **options), expected)


@pytest.mark.parametrize("convention", CONVENTIONS, ids=str)
@pytest.mark.parametrize("solver", ["cholesky", "cg", "block", "auto"])
def test_the_same_bytes(rng, emulated, convention, solver):  # noqa: F811
    matrix = interactions(rng, 70, 45)
    assert_divided_alike(emulated, matrix, convention, factors=20, solver=solver)


def test_systems_of_entries(rng, emulated):  # noqa: F811
    matrix = interactions(rng, 70, 45, 0.1)
    options = {"factors": 40, "dual_entries": 20}
    assert_divided_alike(emulated, matrix, Objective(regularization=1.0), **options)


@pytest.mark.parametrize("convention", [CONVENTIONS[0], CONVENTIONS[5]], ids=str)
def test_parts_of_long_rows_and_of_the_loss(rng, emulated, convention):  # noqa: F811
    """Some entries of the loss's runs are on one device, some on two, some runs on one alone."""
    emulated.set_als_limits(long_row=8, gram_rows=7)
    matrix = interactions(rng, 400, 90, 0.5)
    assert matrix.nnz > 4 * 4096
    try:
        assert_divided_alike(emulated, matrix, convention, factors=6)
    finally:
        emulated.set_als_limits()


def test_rows_that_float32_does_not_solve(rng, emulated):  # noqa: F811
    matrix = interactions(rng, 50, 40)
    convention = Objective(objective="explicit", regularization=1e-9)
    options = {"factors": 12, "dual_entries": 0}  # systems of entries are better conditioned
    expected = results(emulated, [0], matrix, convention, **options)
    assert expected[-1][1] > 10
    assert_divided_alike(emulated, matrix, convention, **options)
    assert_divided_alike(emulated, matrix, CONVENTIONS[0], factors=5, double_precision=True)


@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (2, 9), (0, 4)])
def test_fewer_rows_than_devices(emulated, shape):  # noqa: F811
    matrix = sp.csr_array(np.arange(1, 1 + shape[0] * shape[1], dtype=np.float32).reshape(shape))
    for convention in (CONVENTIONS[0], CONVENTIONS[6]):
        assert_divided_alike(emulated, matrix, convention, factors=3)


@pytest.mark.parametrize("numbers", DIVISIONS, ids=str)
def test_a_start_is_kept_and_biases_are_part_of_it(rng, emulated, numbers):  # noqa: F811
    start = [rng.random(n).astype(np.float32) for n in ((40, 4), (30, 4), 40, 30)]
    solver = solver_for(interactions(rng), CONVENTIONS[5], factors=4, ops=on(emulated, numbers))
    solver.set_factors(*start)
    assert_same_bytes(solver.factors(), start)


@pytest.mark.parametrize("numbers", DIVISIONS, ids=str)
def test_singular_systems_name_the_first_row_of_all(emulated, numbers):  # noqa: F811
    matrix = np.zeros((9, 5), np.float32)
    matrix[[4, 7], 1], matrix[:4, :] = 1, np.eye(4, 5) + 1
    solver = solver_for(
        sp.csr_array(matrix),
        Objective(objective="explicit", regularization=0.0),
        factors=3,
        ops=on(emulated, numbers),
    )
    items = np.zeros((5, 3), np.float32)
    items[:3] = np.eye(3)
    solver.set_factors(np.zeros((9, 3), np.float32), items, NONE, NONE)
    with pytest.raises(ValueError, match=r"als: the system of user 4 is singular"):
        solver.step()


def test_what_fails_on_one_device_names_it(rng, emulated):  # noqa: F811
    matrix = interactions(rng)
    solver, _ = stepped(rng, matrix, Objective(), factors=5, ops=on(emulated, [0, 1]))
    other, _ = stepped(rng, matrix, Objective(), factors=5, ops=on(emulated, [0, 2]))
    emulated.set_launches(1, 0)
    for call in (solver.step, solver.loss):
        with pytest.raises(DeviceError, match=r"^cuda:1: a kernel has failed"):
            call()
    other.step()
    emulated.set_launches(1)
    emulated.set_memory(100, 1)
    message = r"^als: \d+ bytes asked on cuda:1, \d+ of 100 free\. plan_memory"
    for call in (
        solver.step,
        lambda: solver_for(matrix, Objective(), factors=5, ops=on(emulated, [0, 1])),
    ):
        with pytest.raises(MemoryError, match=message):
            call()
    emulated.set_memory(device=1)
    solver.step()
    assert solver.finished_steps == 1


@pytest.mark.parametrize("options", [{}, {"objective": "explicit", "biases": True}], ids=str)
def test_the_estimator(rng, device, options):  # noqa: F811
    matrix = interactions(rng, 80, 60)
    one, several = (
        AlternatingLeastSquares(
            factors=8, regularization=1.0, iterations=3, solver="cholesky", compute_loss=True,
            random_state=0, device=name, **options,
        ).fit(matrix)
        for name in ("cuda", device)
    )  # fmt: skip
    assert_same_bytes(
        (several.user_factors_, several.item_factors_, np.array(several.loss_)),
        (one.user_factors_, one.item_factors_, np.array(one.loss_)),
    )
    assert_same_bytes(several.recommend([1, 2], 3), one.recommend([1, 2], 3))
