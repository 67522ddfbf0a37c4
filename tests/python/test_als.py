"""The solver of alternating least squares against its specification."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from helpers import assert_same_bytes, normal
from recfuse import _core
from recfuse._inputs import as_csr, csr_parts
from reference_als import Objective, rows_of, transposed

CONVENTIONS = [
    Objective(),
    Objective(alpha=0.0),
    Objective(alpha=7.5, frequency_scaling=1.0, regularization=0.003),
    Objective("explicit"),
    Objective("explicit", frequency_scaling=1.0),
    Objective("explicit", biases=True),
    Objective("explicit", biases=True, frequency_scaling=0.5, regularization=2.0),
]
CONVENTIONS_ON_CPU = [
    *CONVENTIONS,
    Objective(base_confidence=0.0),  # a stored zero counts nothing, a value of 1 like an absent one
    Objective(alpha=0.3, base_confidence=0.0),  # and up to 3 less than an absent one
    Objective(alpha=0.2, base_confidence=0.5, frequency_scaling=0.5),
]
NONE = np.zeros(0, np.float32)


def solver_for(matrix, convention, *, factors, solver="cholesky", cg_steps=3, ops=_core, **options):
    return ops.AlsSolver(
        csr_parts(as_csr(matrix, "user_items")),
        factors=factors,
        solver=solver,
        cg_steps=cg_steps,
        **{**vars(convention), **options},
    )


def interactions(rng, n_users=40, n_items=30, density=0.3) -> sp.csr_array:
    """Ratings with dislikes, stored zeros, empty users and items, and a user with every item."""
    dense = np.where(rng.random((n_users, n_items)) < density, 1.0, 0.0)
    dense[3], dense[-1], dense[:, 2], dense[:, -1], dense[5, :-1] = 0, 0, 0, 0, 1
    matrix = sp.csr_array(dense.astype(np.float32))
    matrix.data = rng.integers(-2, 6, matrix.nnz).astype(np.float32)
    return matrix


def started(rng, matrix, convention, **options):
    solver = solver_for(matrix, convention, **options)
    users = normal(rng, matrix.shape[0], options["factors"]) * np.float32(0.3)
    items = normal(rng, matrix.shape[1], options["factors"]) * np.float32(0.3)
    solver.set_factors(users, items, NONE, NONE)
    return solver, users, items


def stepped(rng, matrix, convention, *, num_threads=0, steps=1, **options):
    solver, _, items = started(rng, matrix, convention, **options)
    for _ in range(steps):
        solver.step(num_threads)
    return solver, items


def biases_or_zeros(solver):
    users, items, user_biases, item_biases = solver.factors()
    if not len(user_biases):
        user_biases = np.zeros(len(users), np.float32)
        item_biases = np.zeros(len(items), np.float32)
    return users, items, user_biases, item_biases


def assert_solves(convention, matrix, factors, biases, others, other_biases, mean, tolerance):
    """Every row solves its system: the residual is within `tolerance` of the sizes of A x and b.

    Cholesky in float32 is backward stable, so that its residual is some multiple of 2^-24 of these
    norms, however ill-conditioned the system is; the error of x itself also grows with that.
    """
    for row, (ids, values) in enumerate(rows_of(matrix)):
        if len(ids) == 0:
            assert not factors[row].any() and biases[row] == 0
            continue
        a, b, size_of_b = convention.system(ids, values, others, other_biases, mean)
        x = factors[row].astype(np.float64)
        if convention.biases:
            x = np.append(x, biases[row])
        scale = np.linalg.norm(a) * np.linalg.norm(x) + size_of_b
        assert np.linalg.norm(a @ x - b) <= tolerance * scale


def assert_step(convention, matrix, solver, start_items, tolerance):
    users, items, user_biases, item_biases = biases_or_zeros(solver)
    mean = convention.mean(matrix)
    assert solver.global_mean == pytest.approx(mean, abs=1e-12)
    no_biases = np.zeros(matrix.shape[1])
    assert_solves(convention, matrix, users, user_biases, start_items, no_biases, mean, tolerance)
    assert_solves(
        convention, transposed(matrix), items, item_biases, users, user_biases, mean, tolerance
    )


# Sum of 30 products and the factorisation: a few tens of roundings of 2^-24 = 6e-8.
FLOAT32 = 3e-6


@pytest.mark.parametrize("convention", CONVENTIONS_ON_CPU, ids=str)
@pytest.mark.parametrize("factors", [1, 3, 16, 31, 33, 100])
def test_cholesky_solves_every_system(rng, isa, convention, factors):
    matrix = interactions(rng)
    solver, items = stepped(rng, matrix, convention, factors=factors)
    assert_step(convention, matrix, solver, items, FLOAT32)
    assert solver.finished_steps == 1


@pytest.mark.parametrize("convention", CONVENTIONS_ON_CPU, ids=str)
@pytest.mark.parametrize("factors", [1, 16, 31, 33, 100])
def test_systems_of_the_entries_have_the_same_solutions(rng, isa, convention, factors):
    """Of every row, however long it is against the factors."""
    matrix = interactions(rng)
    solver, items = stepped(rng, matrix, convention, factors=factors, dual_entries=30)
    assert_step(convention, matrix, solver, items, FLOAT32)


@pytest.mark.parametrize("objective", ["implicit", "explicit"])
@pytest.mark.parametrize("regularization", [1e-3, 0.1, 1.0, 10.0])
@pytest.mark.parametrize("difference", [0.0, 1e-4, 1e-2])
def test_systems_of_entries_that_nearly_repeat_one_another(
    rng, objective, regularization, difference
):
    """They have solutions that cancel in x: such rows are solved by the system of the factors."""
    convention = Objective(objective, regularization=regularization, alpha=40.0)
    matrix = interactions(rng, 40, 60, 0.4)
    items = normal(rng, 60, 64)
    items[1::2] = items[::2] + np.float32(difference) * items[1::2]
    solver = solver_for(matrix, convention, factors=64, dual_entries=64)
    solver.set_factors(np.zeros((40, 64), np.float32), items, NONE, NONE)
    solver.step()
    zeros, users = np.zeros(60), solver.factors()[0]
    assert_solves(convention, matrix, users, zeros, items, zeros, 0.0, FLOAT32)


@pytest.mark.parametrize("objective", ["implicit", "explicit"])
def test_short_rows_have_systems_of_their_entries(rng, objective):
    """Of themselves, where that pays; a row that is too long is solved as without them."""
    convention = Objective(objective, regularization=1.0)
    short = sp.csr_array((rng.random((500, 400)) < 0.01).astype(np.float32))
    users = [
        stepped(np.random.default_rng(1), short, convention, factors=128, **options)[0].factors()[0]
        for options in ({}, {"dual_entries": 128}, {"dual_entries": 0})
    ]
    assert_same_bytes([users[0]], [users[1]])
    assert (users[0] != users[2]).any()
    np.testing.assert_allclose(users[0], users[2], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("factors", [255, 256, 257, 1025])
def test_many_factors(rng, factors):
    matrix = interactions(rng, 6, 40)
    for solver_name in ("cholesky", "cg"):
        solver, items = stepped(
            rng, matrix, Objective(regularization=1.0), factors=factors, solver=solver_name,
            cg_steps=60,
        )  # fmt: skip
        assert_step(Objective(regularization=1.0), matrix, solver, items, 1e-5)


@pytest.mark.parametrize("convention", CONVENTIONS_ON_CPU, ids=str)
def test_float64_instance_agrees_with_the_reference(rng, convention):
    """Without float32 in the solution, conventions are met to the rounding of the result."""
    matrix = interactions(rng)
    solver, items = stepped(rng, matrix, convention, factors=9, double_precision=True)
    users, new_items, user_biases, item_biases = biases_or_zeros(solver)
    mean = convention.mean(matrix)
    expected = convention.half_step(matrix, items, np.zeros(len(items)), mean)
    for got, want in zip((users, user_biases), expected, strict=True):
        # The Gram matrix is summed in float32 over 256 rows, which a bad condition magnifies.
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)
    expected = convention.half_step(transposed(matrix), users, user_biases, mean)
    for got, want in zip((new_items, item_biases), expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)
    assert solver.float64_rows == sum(len(ids) > 0 for ids, _ in rows_of(matrix)) + sum(
        len(ids) > 0 for ids, _ in rows_of(transposed(matrix))
    )


@pytest.mark.parametrize("convention", CONVENTIONS_ON_CPU, ids=str)
@pytest.mark.parametrize("factors", [1, 5, 33])
def test_conjugate_gradients_converge_to_the_solution(rng, isa, convention, factors):
    matrix = interactions(rng)
    solver, items = stepped(
        rng, matrix, convention, factors=factors, solver="cg", cg_steps=6 * factors
    )
    # The recursive residual of conjugate gradients drifts from the true one by more roundings.
    assert_step(convention, matrix, solver, items, 10 * FLOAT32)


@pytest.mark.parametrize("least", [1.0, 1e-3, 1e-5])
@pytest.mark.parametrize(("regularization", "most"), [(0.01, 1e-8), (1e-4, 3e-5), (1e-6, 0.1)])
def test_conjugate_gradients_on_gram_matrices_of_any_condition(
    rng, isa, least, regularization, most
):
    """In coordinates of their triangle, or, where float32 does not hold it, of eigenvectors.

    Above its minimum the objective is by what rounding the factors makes of the condition.
    """
    convention = Objective(regularization=regularization)
    matrix = interactions(rng, 40, 60)
    items = normal(rng, 60, 32) * np.linspace(1, least, 32, dtype=np.float32) ** 3
    items = np.ascontiguousarray(items @ np.linalg.qr(normal(rng, 32, 32))[0], np.float32)
    solver = solver_for(matrix, convention, factors=32, solver="cg", cg_steps=100)
    solver.set_factors(np.zeros((40, 32), np.float32), items, NONE, NONE)
    solver.step()
    zeros, users = np.zeros(60), solver.factors()[0]
    assert_solves(convention, matrix, users, np.zeros(40), items, zeros, 0.0, 10 * FLOAT32)
    for row, (ids, values) in enumerate(rows_of(matrix)):
        if len(ids):
            a, b, _ = convention.system(ids, values, items, zeros, 0.0)
            exact = np.linalg.solve(a, b)
            error = users[row] - exact
            assert error @ a @ error <= most * abs(b @ exact)


@pytest.mark.parametrize("regularization", [1e-8, 1e-12])
def test_a_triangle_that_float32_does_not_hold(rng, isa, regularization):
    """Of small whole numbers, whose Gram matrix is exact, so that float64 factors it for certain.

    Its condition is 2^34 and 2^47. In coordinates of its triangle rounding leaves residuals from
    1e-5 and from 2e-4 on (tried without the limit), in those of eigenvectors 6e-8.
    """
    convention = Objective(regularization=regularization)
    matrix = interactions(rng, 40, 48)
    items = np.vstack([np.eye(24) + 4 * np.eye(24, k=1)] * 2).astype(np.float32)
    solver = solver_for(matrix, convention, factors=24, solver="cg", cg_steps=100)
    solver.set_factors(np.zeros((40, 24), np.float32), items, NONE, NONE)
    solver.step()
    zeros, users = np.zeros(48), solver.factors()[0]
    assert_solves(convention, matrix, users, np.zeros(40), items, zeros, 0.0, FLOAT32)


def test_factors_are_written_where_they_are_wanted(rng):
    matrix = interactions(rng)
    solver, _ = stepped(rng, matrix, Objective(), factors=20)
    expected = solver.factors()
    users, items = np.zeros((40, 20), np.float32), np.zeros((30, 20), np.float32)
    got = solver.factors(users, items)
    assert got[0] is users and got[1] is items
    assert_same_bytes(got, expected)
    assert solver.factors(users)[1] is not items
    with pytest.raises(ValueError, match="shape"):
        solver.factors(items, users)
    users.flags.writeable = False
    with pytest.raises(ValueError, match="writeable"):
        solver.factors(users, items)


@pytest.mark.parametrize("convention", CONVENTIONS_ON_CPU, ids=str)
@pytest.mark.parametrize("factors", [1, 33, 63])
def test_one_block_is_the_whole_system(rng, isa, convention, factors):
    matrix = interactions(rng)
    solver, items = stepped(rng, matrix, convention, factors=factors, solver="block")
    # As of conjugate gradients: coordinates are turned there and back.
    assert_step(convention, matrix, solver, items, 10 * FLOAT32)


@pytest.mark.parametrize("objective", ["implicit", "explicit"])
@pytest.mark.parametrize("factors", [64, 65, 130])
def test_rounds_over_blocks_end_where_exact_solutions_do(rng, isa, objective, factors):
    """One side is held: solving it again and again is block Gauss-Seidel on each system."""
    convention = Objective(objective, regularization=3.0)
    matrix = interactions(rng, 60, 50)
    solver, users, items = started(rng, matrix, convention, factors=factors, solver="block")
    for _ in range(25):
        solver.set_factors(users, items, NONE, NONE)
        solver.step()
        users = solver.factors()[0]
    no_biases = np.zeros(len(users))
    assert_solves(convention, matrix, users, no_biases, items, np.zeros(len(items)), 0.0, 1e-3)


def test_a_long_row_gathers_its_blocks_again(rng):
    """Beyond 1 MiB of gathered factors nothing is kept, and nothing changes."""
    dense = rng.random((3, 9_000)) < np.array([[0.9], [0.5], [0.01]])
    matrix = sp.csr_array(dense.astype(np.float32))
    matrix.data = rng.integers(1, 6, matrix.nnz).astype(np.float32)
    convention = Objective(regularization=1.0)
    solver, items = stepped(rng, matrix, convention, factors=40, solver="block")
    assert_step(convention, matrix, solver, items, 10 * FLOAT32)


@pytest.mark.parametrize("convention", CONVENTIONS_ON_CPU, ids=str)
@pytest.mark.parametrize(
    "how",
    [
        {"solver": "cholesky"},
        {"solver": "cholesky", "dual_entries": 70, "factors": 70},
        {"solver": "cg"},
        {"solver": "block"},
    ],
    ids=str,
)
def test_threads_do_not_change_a_bit(rng, isa, convention, how):
    matrix = interactions(rng, 300, 200)
    results = []
    for num_threads in (1, 2, 5):
        again = np.random.default_rng(1)
        fitted, _ = stepped(
            again, matrix, convention, num_threads=num_threads, steps=2, **{"factors": 20, **how}
        )
        results.append((*fitted.factors(), np.float64(fitted.loss(num_threads))))
    assert_same_bytes(results[0], results[1])
    assert_same_bytes(results[0], results[2])


@pytest.mark.parametrize("convention", [CONVENTIONS[0], CONVENTIONS[5]], ids=str)
@pytest.mark.parametrize("solver", ["cholesky", "cg"])
def test_a_row_that_all_threads_share(rng, convention, solver):
    """Beyond 65,536 entries the parts of one row are added in order."""
    n_items = 70_000
    dense = rng.random((4, n_items)) < np.array([[1.0], [0.95], [0.01], [0.0]])
    matrix = sp.csr_array(dense.astype(np.float32))
    matrix.data = rng.integers(1, 6, matrix.nnz).astype(np.float32)
    results = []
    for num_threads in (1, 2):
        fitted, items = stepped(
            np.random.default_rng(1), matrix, convention, factors=5, solver=solver, cg_steps=30,
            num_threads=num_threads,
        )  # fmt: skip
        results.append(fitted.factors())
        users, _, user_biases, _ = biases_or_zeros(fitted)
        zeros, mean = np.zeros(n_items), convention.mean(matrix)
        assert_solves(convention, matrix, users, user_biases, items, zeros, mean, 1e-5)
    assert_same_bytes(*results)


@pytest.mark.parametrize("convention", CONVENTIONS_ON_CPU, ids=str)
def test_loss(rng, isa, convention):
    matrix = interactions(rng, 60, 50)
    solver, _ = stepped(rng, matrix, convention, factors=7, steps=2)
    expected = convention.loss(matrix, *biases_or_zeros(solver), convention.mean(matrix))
    # The Gram matrices are summed in float32 over 256 rows.
    assert solver.loss() == pytest.approx(expected, rel=1e-6)


@st.composite
def problems(draw):
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    matrix = interactions(rng, draw(st.integers(7, 25)), draw(st.integers(4, 25)))
    objective = draw(st.sampled_from(["implicit", "explicit"]))
    convention = Objective(
        objective,
        regularization=draw(st.sampled_from([1e-3, 0.1, 10.0])),
        alpha=draw(st.sampled_from([0.0, 0.5, 40.0])),
        frequency_scaling=draw(st.sampled_from([0.0, 1.0])),
        biases=objective == "explicit" and draw(st.booleans()),
        base_confidence=draw(st.sampled_from([1.0, 1.0, 0.5, 0.0])),
    )
    return rng, matrix, convention, draw(st.integers(1, 20))


def losses_of(problem, steps=6, **options):
    rng, matrix, convention, factors = problem
    solver, _, _ = started(rng, matrix, convention, factors=factors, **options)
    losses = []
    for _ in range(steps):
        solver.step()
        losses.append(solver.loss())
    return np.array(losses)


HOW = [("cholesky", 3, 0), ("cholesky", 3, 25), ("cg", 5, 0), ("block", 3, 0)]


@given(problems(), st.sampled_from(HOW))
def test_the_objective_never_increases(problem, how):
    losses = losses_of(problem, solver=how[0], cg_steps=how[1], dual_entries=how[2])
    # Near a minimum the loss moves less than its own rounding, 2^-24 of its terms.
    assert (np.diff(losses) <= 1e-6 * np.abs(losses[:-1]) + 1e-6).all()


@given(problems(), st.integers(1, 4))
def test_factors_rounded_to_bfloat16_move_the_objective_little(problem, cg_steps):
    """By 2^-16 of itself, as sampled entries tell; where it would be more, nothing is rounded."""
    losses = losses_of(problem, solver="cg", cg_steps=cg_steps)
    assert (np.diff(losses) <= 2.0**-16 * np.abs(losses[:-1]) + 1e-6).all()


def test_what_rounding_would_spoil_is_not_rounded():
    """More factors than the matrix has rank, so that all that is left of the loss is noise."""
    for seed in range(60):
        rng = np.random.default_rng(seed)
        matrix = interactions(rng, rng.integers(7, 26), rng.integers(4, 26))
        convention = Objective(alpha=40.0, regularization=1e-3)
        losses = losses_of((rng, matrix, convention, 20), solver="cg", cg_steps=3)
        assert (np.diff(losses) <= 2.0**-16 * np.abs(losses[:-1])).all()


@pytest.mark.parametrize("factors", [1, 16, 31, 33, 64, 65, 100, 128, 130, 257])
def test_few_steps_agree_with_float32_but_for_rounding(rng, isa, factors):
    """Every width of a pass over rounded factors: four steps with them, five without."""
    matrix = interactions(rng, 50, 40)
    losses = [
        losses_of((np.random.default_rng(1), matrix, convention, factors), 4, solver="cg",
                  cg_steps=n)
        for convention in (Objective(regularization=5.0), Objective("explicit", regularization=5.0))
        for n in (4, 5)
    ]  # fmt: skip
    for few, many in zip(losses[::2], losses[1::2], strict=True):
        np.testing.assert_allclose(few, many, rtol=1e-3)


def test_three_preconditioned_steps_are_nearly_exact(rng):
    matrix = interactions(rng, 200, 150, density=0.1)
    losses = {}
    for name in ("cholesky", "cg"):
        fitted, _ = stepped(
            np.random.default_rng(1), matrix, Objective(), factors=16, solver=name, steps=10
        )
        losses[name] = fitted.loss()
    assert losses["cg"] <= 1.01 * losses["cholesky"]


def test_a_stored_zero_is_no_preference_at_confidence_1(rng):
    """So it is what an absent entry is, but for the frequency, which counts it."""
    matrix = interactions(rng)
    without = matrix.copy()
    without.eliminate_zeros()
    assert without.nnz < matrix.nnz
    got, want = (
        stepped(np.random.default_rng(1), m, Objective(), factors=6)[0].factors()
        for m in (matrix, without)
    )
    for g, w in zip(got, want, strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-4, atol=1e-5)


def test_small_pivots_are_solved_in_float64(rng):
    """Two items with nearly the same factors: float32 cannot tell them, float64 can."""
    convention = Objective("explicit", regularization=1e-9)
    matrix = sp.csr_array(np.float32([[1, 2], [3, 1]]))
    items = np.float32([[1, 1], [1, 1 + 1e-4]])
    solver = solver_for(matrix, convention, factors=2)
    solver.set_factors(np.zeros((2, 2), np.float32), items, NONE, NONE)
    solver.step()
    users = solver.factors()[0]
    assert solver.float64_rows >= 2
    expected = convention.half_step(matrix, items, np.zeros(2), 0.0)[0]
    np.testing.assert_allclose(users, expected, rtol=1e-4)


def test_a_row_beyond_float32_is_solved_in_float64():
    matrix = sp.csr_array(np.float32([[3e38, 1.0], [1.0, 0.0]]))
    convention = Objective(alpha=100.0, regularization=1.0)
    solver = solver_for(matrix, convention, factors=1)
    items = np.float32([[0.5], [0.25]])
    solver.set_factors(np.zeros((2, 1), np.float32), items, NONE, NONE)
    solver.step()
    assert solver.float64_rows >= 1
    assert np.isfinite(solver.factors()[0]).all()
    np.testing.assert_allclose(
        solver.factors()[0], convention.half_step(matrix, items, np.zeros(2), 0.0)[0], rtol=1e-5
    )


@pytest.mark.parametrize("num_threads", [1, 2])
def test_singular_systems_name_the_row(num_threads):
    matrix = sp.csr_array(np.float32([[1, 1, 1], [0, 0, 0], [0, 1, 0]]))
    convention = Objective("explicit", regularization=0.0)
    solver = solver_for(matrix, convention, factors=2)
    items = np.float32([[1, 0], [0, 1], [1, 1]])
    solver.set_factors(np.zeros((3, 2), np.float32), items, NONE, NONE)
    with pytest.raises(
        ValueError, match=r"als: the system of user 2 is singular; got regularization 0\. Raise it"
    ):
        solver.step(num_threads)
    assert solver.finished_steps == 0


def test_regularization_0_is_fine_where_systems_are_regular(rng):
    convention = Objective("explicit", regularization=0.0)
    matrix = sp.csr_array(rng.uniform(1, 5, (12, 9)).astype(np.float32))
    solver, items = stepped(rng, matrix, convention, factors=3)
    assert_step(convention, matrix, solver, items, FLOAT32)


@pytest.mark.parametrize("shape", [(0, 0), (0, 4), (4, 0), (1, 1), (3, 2)])
def test_nothing_to_learn_from(shape):
    empty = sp.csr_array(shape, dtype=np.float32)
    for convention in CONVENTIONS_ON_CPU:
        for name in ("cholesky", "cg"):
            fitted, _ = stepped(
                np.random.default_rng(1), empty, convention, factors=3, solver=name, steps=2
            )
            assert not any(part.any() for part in fitted.factors())
            assert fitted.loss() == 0


BAD_PARAMETERS = [
    ({"factors": 0}, r"als: factors must be at least 1; got 0"),
    ({"factors": -3}, r"als: factors must be at least 1; got -3"),
    ({"regularization": -0.1}, r"als: regularization must be finite and at least 0; got -0\.1"),
    ({"regularization": np.nan}, r"als: regularization must be finite and at least 0; got nan"),
    ({"alpha": -1.0}, r"als: alpha must be finite and at least 0; got -1"),
    ({"alpha": np.inf}, r"als: alpha must be finite and at least 0; got inf"),
    ({"frequency_scaling": -1.0}, r"als: frequency_scaling must be finite and at least 0; got -1"),
    ({"frequency_scaling": 1e4}, r"als: frequency_scaling must keep the regularization of every"),
    ({"cg_steps": 0}, r"als: cg_steps must be at least 1; got 0"),
    ({"biases": True}, r"als: biases must be false where objective is 'implicit'; got true"),
    ({"objective": "ranking"}, r"als: objective must be one of 'implicit', 'explicit'; got 'ran"),
    ({"solver": "lu"}, r"als: solver must be one of 'auto', 'cholesky', 'cg', 'block'; got 'lu'"),
    ({"base_confidence": -0.1}, r"als: base_confidence must be between 0 and 1; got -0\.1"),
    ({"base_confidence": 1.5}, r"als: base_confidence must be between 0 and 1; got 1\.5"),
    ({"base_confidence": np.nan}, r"als: base_confidence must be between 0 and 1; got nan"),
    ({"dual_entries": -2}, r"als: dual_entries must be at least -1; got -2"),
    ({"num_threads": -1}, r"als: num_threads must be at least 0; got -1"),
]


@pytest.mark.parametrize(("bad", "message"), BAD_PARAMETERS)
def test_bad_parameters(rng, bad, message):
    with pytest.raises(ValueError, match=message):
        solver_for(interactions(rng), Objective(), **{"factors": 2, **bad})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_must_be_finite_and_the_entry_is_named(rng, value):
    matrix = interactions(rng)
    matrix.data[-1] = value
    row, column = matrix.shape[0] - 2, matrix.indices[-1]
    with pytest.raises(
        ValueError, match=rf"als: user_items must be finite; got {value} at \[{row}, {column}\]"
    ):
        solver_for(matrix, Objective(), factors=2)


def test_factors_are_checked(rng):
    solver = solver_for(interactions(rng), Objective(), factors=2)
    users, items = np.zeros((40, 2), np.float32), np.zeros((30, 2), np.float32)
    with pytest.raises(ValueError, match=r"als: user_factors must have shape \(40, 2\); got \(39"):
        solver.set_factors(users[:-1], items, NONE, NONE)
    with pytest.raises(ValueError, match=r"als: item_factors must have shape \(30, 2\); got \(30,"):
        solver.set_factors(users, np.zeros((30, 3), np.float32), NONE, NONE)
    with pytest.raises(ValueError, match=r"als: user_biases must have 0 elements; got 40"):
        solver.set_factors(users, items, np.zeros(40, np.float32), NONE)
    items[7, 1] = np.nan
    with pytest.raises(ValueError, match=r"als: item_factors must be finite; got nan at \[7, 1\]"):
        solver.set_factors(users, items, NONE, NONE)
    with pytest.raises(ValueError, match="als: user_items must have 30 columns like the fitted"):
        solver.fold_in(csr_parts(sp.csr_array((2, 31), dtype=np.float32)), 0)
