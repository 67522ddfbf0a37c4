"""What a fit by ALS takes of a GPU: plans against what the emulator counts, solver by solver."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

import recfuse
from recfuse import AlternatingLeastSquares, _core
from recfuse._buffers import Buffer
from recfuse.memory import MemoryPlan
from reference_als import Objective
from test_als import started
from test_device_memory import emulated, used  # noqa: F401

CONVENTIONS = [
    Objective(frequency_scaling=0.5),
    Objective("explicit", regularization=0.1),
    Objective("explicit", regularization=0.1, frequency_scaling=1.0, biases=True),
]
# Systems of the factors, systems of entries for all rows, and what moves rows.
HOW = [
    {"solver": "cholesky", "dual_entries": 0},
    {"solver": "cholesky", "dual_entries": 12},
    {"solver": "cg"},
    {"solver": "block"},
]
LOSS = ("loss of the entries", "loss of all pairs")


def planned(matrix, convention, factors, how, **room):
    """Return the plan of a fit on the emulator."""
    buffers, blocks = _core.plan_als(
        *matrix.shape, matrix.nnz, factors, convention.objective, how["solver"], convention.biases,
        convention.frequency_scaling, how.get("dual_entries", -1), multiprocessors=3, **room,
    )  # fmt: skip
    return MemoryPlan("als", tuple(Buffer(*buffer) for buffer in buffers), blocks, "cuda")


def scattered(n_rows, n_cols):
    """Return a matrix of rows and columns with few entries each."""
    ids = (np.arange(n_rows)[:, None] * 3 + np.arange(4) * 7) % n_cols
    values = 1 + np.arange(ids.size) % 5
    rows = np.repeat(np.arange(n_rows), 4)
    return sp.csr_array((values.astype(np.float32), (rows, ids.ravel())), shape=(n_rows, n_cols))


def assert_planned(emulated, matrix, convention, factors, how):  # noqa: F811
    plan = planned(matrix, convention, factors, how)
    before = used(emulated)
    emulated.set_memory()
    solver, *_ = started(
        np.random.default_rng(1), matrix, convention, factors=factors, ops=emulated, **how
    )
    solver.step()
    assert used(emulated) - before == plan.kept_bytes
    solver.step()
    assert emulated.set_memory() - before == plan.kept_bytes
    solver.loss()
    of_loss = plan.kept_bytes + max(map(plan.bytes_of, LOSS))
    assert emulated.set_memory() - before == of_loss
    assert plan.peak_bytes == of_loss
    del solver
    assert used(emulated) == before


# Systems of factors may be asked for by any row with a system of its entries, and are planned.
CASES = [
    (how, factors)
    for how in HOW
    for factors in (1, 17, 64, 130, 238, 270)
    if 12 <= factors < 200 or how.get("dual_entries", 0) == 0
]


@pytest.mark.parametrize("convention", CONVENTIONS, ids=str)
@pytest.mark.parametrize(("how", "factors"), CASES, ids=str)
def test_a_plan_is_what_is_taken(emulated, convention, how, factors):  # noqa: F811
    matrix = scattered(70, 52) if factors > 200 or "dual_entries" in how else scattered(40, 300)
    assert_planned(emulated, matrix, convention, factors, how)


@pytest.mark.parametrize("convention", CONVENTIONS, ids=str)
@pytest.mark.parametrize("how", HOW, ids=str)
@pytest.mark.parametrize("shape", [(5, 4500), (1, 8193)], ids=["2 parts", "3 parts"])
def test_rows_in_parts_are_planned(emulated, shape, convention, how):  # noqa: F811
    matrix = sp.csr_array(np.ones(shape, np.float32))
    assert_planned(emulated, matrix, convention, 16, how)


@pytest.mark.parametrize("convention", CONVENTIONS[:2], ids=str)
def test_systems_of_rows_in_parts_are_planned(emulated, convention):  # noqa: F811
    """They end sooner in shared memory than others, whose entries are multiplied elsewhere."""
    matrix = sp.csr_array(np.ones((2, 4500), np.float32))
    how = {"solver": "cholesky", "dual_entries": 2}
    assert_planned(emulated, matrix, convention, 230, how)


@pytest.mark.parametrize("solver", ["auto", "cholesky", "cg", "block"])
@pytest.mark.parametrize("objective", ["implicit", "explicit"])
@pytest.mark.parametrize("shape", [(400, 90), (3, 5000), (1, 8193)])
def test_what_is_told_beforehand_suffices(rng, emulated, shape, objective, solver):  # noqa: F811
    """Whatever the lengths of the rows, the scaling of penalties and the device."""
    dense = rng.random(shape) < rng.random((shape[0], 1)) ** 2
    dense[0] = True
    matrix = sp.csr_array(dense.astype(np.float32))
    plan = recfuse.plan_memory(
        "als", n_users=shape[0], n_items=shape[1], nnz=matrix.nnz, factors=8, solver=solver,
        objective=objective, device="cuda",
    )  # fmt: skip
    assert plan.device == "cuda"
    before = used(emulated)
    emulated.set_memory()
    AlternatingLeastSquares(
        8, objective=objective, solver=solver, regularization=1.0, frequency_scaling=0.5,
        iterations=2, compute_loss=True, device="cuda",
    ).fit(matrix)  # fmt: skip
    taken = emulated.set_memory() - before
    assert taken <= plan.peak_bytes
    assert used(emulated) == before


def test_auto_is_planned_as_what_takes_the_most():
    sizes = {"n_users": 5000, "n_items": 900, "nnz": 40_000, "factors": 48, "device": "cuda"}
    peaks = {
        solver: recfuse.plan_memory("als", **sizes, solver=solver).peak_bytes
        for solver in ("auto", "cholesky", "cg", "block")
    }
    assert peaks.pop("auto") == max(peaks.values())


def test_rows_that_must_be_long_have_no_systems_of_their_entries():
    few, many = (
        recfuse.plan_memory(
            "als", n_users=10**4, n_items=10**4, nnz=nnz, factors=16, solver="cholesky",
            device="cuda",
        )
        for nnz in (10**5, 10**8)
    )  # fmt: skip
    turned = [{"rows, turned"} & {buffer.name for buffer in plan.buffers} for plan in (few, many)]
    assert turned == [{"rows, turned"}, set()]
