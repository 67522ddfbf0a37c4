"""Interactions larger than the memory of a GPU: pieces of them give the bytes of all at once."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

import recfuse
from conftest import CUDA_MODULES, run_on_cuda
from helpers import assert_same_bytes
from recfuse import AlternatingLeastSquares, backend
from recfuse._inputs import csr_parts
from recfuse.errors import DeviceError
from reference_als import Objective
from test_als import CONVENTIONS, interactions, solver_for, started, stepped
from test_als_memory_on_device import HOW, planned, scattered
from test_device_memory import used

SMALL = {"long_row": 8, "gram_rows": 7, "parts_bytes": 20_000, "team_row": 16}


@pytest.fixture
def emulated(monkeypatch):
    """Return the emulator's module, whose memory ends where a test says."""
    for _ in run_on_cuda(CUDA_MODULES["emulator"], monkeypatch):
        module = backend.resolve_backend("cuda").ops
        module.set_memory()
        yield module
        module.set_als_limits()
        module.set_memory()


def resident_bytes(matrix, convention, factors, **how):
    how = {"solver": "cholesky", **how}
    return planned(matrix, convention, factors, how).peak_bytes


def results(module, matrix, convention, streamed, **options):
    """Return factors, loss, folded-in factors, and how many rows float64 solved."""
    solver, _ = stepped(
        np.random.default_rng(1), matrix, convention, steps=2, ops=module, **options
    )
    assert solver.is_streamed is streamed
    folded = solver.fold_in(csr_parts(sp.csr_array(matrix[:7])))
    counts = np.array([solver.loss(), solver.float64_rows, solver.finished_steps])
    return (*solver.factors(), *folded, counts)


@pytest.mark.parametrize("convention", CONVENTIONS, ids=str)
@pytest.mark.parametrize("how", HOW, ids=str)
@pytest.mark.parametrize("piece_entries", [1, 300])
def test_the_same_bytes(rng, emulated, convention, how, piece_entries):
    matrix = interactions(rng, 70, 45)
    options = {"factors": 20, **how}
    emulated.set_als_limits(**SMALL)
    expected = results(emulated, matrix, convention, False, **options)
    emulated.set_als_limits(**SMALL, piece_entries=piece_entries)
    room = resident_bytes(matrix, convention, 20, **how)
    got = results(emulated, matrix, convention, True, device_bytes=room, **options)
    assert_same_bytes(got, expected)


@pytest.mark.parametrize("numbers", [[0, 1], [1, 1, 2]], ids=str)
@pytest.mark.parametrize("convention", [CONVENTIONS[2], CONVENTIONS[6]], ids=str)
def test_rows_of_several_gpus(rng, emulated, numbers, convention):
    """Each for itself streams what it has no room for; the loss is summed in one order."""
    emulated.set_devices(3)
    matrix = interactions(rng, 400, 90, 0.5)
    assert matrix.nnz > 4 * 4096
    expected = results(emulated, matrix, convention, False, factors=6)
    emulated.set_als_limits(piece_entries=1500)
    got = results(
        emulated, matrix, convention, True, factors=6, devices=numbers, device_bytes=150_000
    )
    assert_same_bytes(got, expected)
    emulated.set_devices()


@pytest.mark.parametrize("shape", [(30, 500), (500, 30)])
def test_pieces_of_one_row(emulated, shape):
    """However long that is: every row has an entry for each of the others."""
    matrix = sp.csr_array(1 + np.arange(shape[0] * shape[1], dtype=np.float32).reshape(shape) % 5)
    for convention in (CONVENTIONS[0], CONVENTIONS[6]):
        expected = results(emulated, matrix, convention, False, factors=3)
        emulated.set_als_limits(piece_entries=1)
        least = planned(matrix, convention, 3, HOW[0], free_bytes=1)
        assert list(least.blocks.values())[1::2] == list(shape[::-1])
        got = results(emulated, matrix, convention, True, factors=3, device_bytes=least.peak_bytes)
        assert_same_bytes(got, expected)
        emulated.set_als_limits()


def test_what_is_free_decides(rng, emulated):
    """What does not fit, or only just, is streamed; what does not even so is told."""
    matrix, convention = scattered(4000, 300), Objective()
    plan = planned(matrix, convention, 8, {"solver": "cg"})
    before = used(emulated)

    def streams(free):
        emulated.set_memory(before + free)
        solver = solver_for(matrix, convention, factors=8, solver="cg", ops=emulated)
        return solver.is_streamed

    assert not streams(plan.peak_bytes + plan.peak_bytes // 63 + 1)
    assert streams(plan.peak_bytes)
    assert streams(plan.peak_bytes * 2 // 3)
    message = r"^als: \d+ bytes asked on cuda:0, 90000 of \d+ free\. plan_memory.*fewer factors"
    with pytest.raises(MemoryError, match=message):
        streams(90_000)
    assert used(emulated) == before
    # What a user allows counts the same, where more is free.
    emulated.set_memory()
    for n_bytes, streamed in ((plan.peak_bytes * 2, False), (plan.peak_bytes * 2 // 3, True)):
        solver = solver_for(
            matrix, convention, factors=8, solver="cg", ops=emulated, device_bytes=n_bytes
        )
        assert solver.is_streamed is streamed
        del solver
    with pytest.raises(MemoryError, match=message):
        solver_for(
            matrix, convention, factors=8, solver="cg", ops=emulated, device_bytes=90_000
        )  # fmt: skip
    assert used(emulated) == before


@pytest.mark.parametrize("convention", [CONVENTIONS[0], CONVENTIONS[3], CONVENTIONS[6]], ids=str)
@pytest.mark.parametrize("how", HOW, ids=str)
def test_a_plan_is_what_streaming_takes(emulated, convention, how):
    matrix, factors, entries = scattered(600, 300), 17, 1200
    room = resident_bytes(matrix, convention, factors, **how)
    plan = planned(matrix, convention, factors, how, free_bytes=room, piece_entries=entries)
    assert plan.peak_bytes <= room
    assert list(plan.blocks.values()) == [300, 1200, 150, 1200]  # which all pieces have
    emulated.set_als_limits(piece_entries=entries)
    before = used(emulated)
    emulated.set_memory()
    solver, *_ = started(
        np.random.default_rng(1), matrix, convention, factors=factors, ops=emulated,
        device_bytes=room, **how,
    )  # fmt: skip
    assert solver.is_streamed
    solver.step()
    assert used(emulated) - before == plan.kept_bytes
    solver.step()
    assert emulated.set_memory() - before == plan.kept_bytes
    solver.loss()
    assert emulated.set_memory() - before <= plan.peak_bytes
    del solver
    assert used(emulated) == before


def test_plan_memory_says_whether_a_fit_is_streamed():
    sizes = {"n_users": 10**6, "n_items": 10**5, "nnz": 2 * 10**9, "factors": 64}
    how = {"solver": "cg", "device": "cuda"}
    free = 20 << 30
    resident = recfuse.plan_memory("als", **sizes, **how, device_bytes=1 << 40)
    assert resident.blocks == {}
    assert resident.peak_bytes > 2 * 8 * sizes["nnz"]
    plan = recfuse.plan_memory("als", **sizes, **how, device_bytes=free)
    assert plan.peak_bytes <= free
    assert 16_000_000 < plan.blocks["interactions per piece, by users"] <= 16 << 20
    assert plan.blocks["users per piece, streamed"] == pytest.approx(10**6 / 120, rel=0.01)
    # Too little even so: what it would take is told.
    least = recfuse.plan_memory("als", **sizes, **how, device_bytes=1 << 20)
    assert 1 << 20 < least.peak_bytes < plan.peak_bytes
    assert "streamed" in repr(least)


@pytest.mark.parametrize("options", [{}, {"objective": "explicit", "biases": True}], ids=str)
@pytest.mark.parametrize("solver", ["auto", "cholesky", "cg", "block"])
def test_the_estimator(rng, emulated, options, solver):
    matrix = interactions(rng, 400, 60)
    emulated.set_als_limits(piece_entries=500)
    how = {"factors": 4, "iterations": 3, "compute_loss": True, "random_state": 0, **options}
    whole, streamed = (
        AlternatingLeastSquares(solver=solver, device="cuda", device_bytes=n_bytes, **how).fit(
            matrix
        )
        for n_bytes in (None, 100_000)
    )
    assert_same_bytes(
        (streamed.user_factors_, streamed.item_factors_, np.array(streamed.loss_)),
        (whole.user_factors_, whole.item_factors_, np.array(whole.loss_)),
    )
    for model in (whole, streamed):
        model.partial_fit_users([1, 2], sp.csr_array(matrix[[5, 6]]))
    assert_same_bytes(streamed.user_factors_, whole.user_factors_)


def test_an_error_between_pieces_leaves_the_last_whole_model(rng, emulated):
    matrix = interactions(rng, 80, 60)
    how = {"factors": 5, "solver": "cg", "iterations": 4, "random_state": 0, "device": "cuda"}
    emulated.set_als_limits(piece_entries=100)
    kept = []

    def stop_then_fail(iteration, seconds, loss):
        kept.append(model.user_factors_.copy())
        if iteration == 2:
            emulated.set_launches(0, 30)  # which end among the users of the third

    room = resident_bytes(matrix, Objective(), 5, solver="cg")
    model = AlternatingLeastSquares(device_bytes=room, **how)
    try:
        with pytest.raises(DeviceError, match="a kernel has failed"):
            model.fit(matrix, callback=stop_then_fail)
    finally:
        emulated.set_launches(0)
    assert len(kept) == 2
    assert model.n_iter_ == 2
    assert_same_bytes(model.user_factors_, kept[-1])

    # And Ctrl-C, which Python raises between iterations.
    def interrupt(iteration, seconds, loss):
        if iteration == 2:
            raise KeyboardInterrupt

    again = AlternatingLeastSquares(device_bytes=room, **how)
    with pytest.raises(KeyboardInterrupt):
        again.fit(matrix, callback=interrupt)
    assert_same_bytes(again.user_factors_, kept[-1])


def test_device_bytes_are_of_a_gpu():
    with pytest.raises(ValueError, match=r"als: device_bytes must be None on the CPU; got 10"):
        AlternatingLeastSquares(device_bytes=10, device="cpu").fit(sp.eye_array(2, format="csr"))


@pytest.mark.parametrize("wrong", [-1, 0])
def test_device_bytes_are_positive(emulated, wrong):
    with pytest.raises(ValueError, match=rf"als: device_bytes must be at least 1; got {wrong}"):
        AlternatingLeastSquares(device_bytes=wrong, device="cuda").fit(
            sp.eye_array(2, format="csr")
        )


@pytest.fixture(params=["cuda", "emulator"])
def device(request, monkeypatch):
    """Let 'auto' stand for a GPU, and for the emulator of one."""
    yield from run_on_cuda(CUDA_MODULES[request.param], monkeypatch)


@pytest.mark.parametrize("solver", ["cholesky", "cg", "block"])
@pytest.mark.usefixtures("device")
def test_a_user_s_budget_changes_no_byte(rng, solver):
    matrix = sp.random_array((400, 300), density=0.5, rng=rng, format="csr", dtype=np.float32)
    sizes = {"n_users": 400, "n_items": 300, "nnz": matrix.nnz, "factors": 8, "solver": solver}
    least, most = (
        recfuse.plan_memory("als", **sizes, device="cuda", device_bytes=n_bytes).peak_bytes
        for n_bytes in (1, 1 << 40)
    )
    budget = least + (most - least) // 4  # three quarters of the interactions short of all
    assert recfuse.plan_memory("als", **sizes, device="cuda", device_bytes=budget).blocks
    models = [
        AlternatingLeastSquares(
            8, solver=solver, iterations=2, random_state=0, device="cuda", device_bytes=n_bytes
        ).fit(matrix)
        for n_bytes in (None, budget)
    ]
    factors = [(model.user_factors_, model.item_factors_) for model in models]
    assert_same_bytes(*factors)
