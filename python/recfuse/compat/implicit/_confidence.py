"""implicit's objective, ``c = alpha * r`` on stored entries, in terms of recfuse's ``c = 1 + r``.

Where every |c| is at least 1, ``r = |c| - 1`` says the same. A row with a smaller confidence trusts
an entry less than the absence of one; the compiled solver knows no such row, so NumPy solves it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recfuse._inputs import CsrParts, as_csr, csr_parts
from recfuse.backend import resolve_op
from recfuse.compat.implicit._blocks import Blocks
from recfuse.compat.implicit.recommender_base import ModelFitError

__all__ = [
    "MixedSolver",
    "confidences",
    "folder",
    "half_step",
    "interactions",
    "make_solver",
    "objective",
    "per_pair",
    "small_rows",
]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

# c = 1 and p = 1: an interaction above 0 that adds nothing to 1.
_NOTHING = np.float32(1e-30)
_CHUNK = 1 << 16  # entries of which both vectors are in memory at a time


def confidences(user_items: Any, alpha: float, name: str = "user_items") -> sp.csr_array:
    """Return ``alpha * r`` as a canonical float32 matrix; a negative one is a dislike."""
    csr = as_csr(user_items, name)
    values = csr.data if alpha == 1 else (csr.data * np.float64(alpha)).astype(np.float32)
    if not np.isfinite(values).all():
        raise ModelFitError(f"als: {name} must be finite; got {values[~np.isfinite(values)][0]}")
    return sp.csr_array((values, csr.indices, csr.indptr), shape=csr.shape)


def small_rows(csr: sp.csr_array) -> NDArray[np.bool_]:
    """Return which rows have a confidence below 1."""
    small = np.abs(csr.data) < 1
    if not small.any():
        return np.zeros(csr.shape[0], bool)
    before = np.concatenate([[0], np.cumsum(small)])
    any_small: NDArray[np.bool_] = np.diff(before[csr.indptr]) > 0
    return any_small


def interactions(csr: sp.csr_array) -> CsrParts:
    """Return confidences of at least 1 as recfuse's interactions."""
    extra = np.maximum(np.abs(csr.data) - 1, _NOTHING)
    values = np.copysign(extra, csr.data, out=extra)
    return csr_parts(sp.csr_array((values, csr.indices, csr.indptr), shape=csr.shape))


def make_solver(csr: sp.csr_array, factors: int, regularization: float, **how: Any) -> Any:
    """Return a compiled solver of confidences that are at least 1."""
    given = {"solver": "cholesky", "cg_steps": 2, "device": "cpu", "num_threads": 0, **how}
    return resolve_op("AlsSolver", given.pop("device"))(
        interactions(csr),
        objective="implicit",
        factors=factors,
        regularization=float(regularization),
        alpha=1.0,
        frequency_scaling=0.0,
        biases=False,
        **given,
    )


def cg_or_auto(regularization: float) -> str:
    """Return the solver that `use_cg` asks for: conjugate gradients stand a singular system."""
    return "auto" if regularization > 0 else "cg"


def folder(others: NDArray[Any], regularization: float, device: str, num_threads: int) -> Any:
    """Return a solver that folds rows in against fixed factors of the other side."""
    fixed, none = np.ascontiguousarray(others, np.float32), np.zeros(0, np.float32)
    n, factors = fixed.shape
    empty = sp.csr_array((0, n), dtype=np.float32)
    how = {"device": device, "num_threads": num_threads}
    solver = make_solver(empty, factors, regularization, **how)
    solver.set_factors(np.zeros((0, factors), np.float32), fixed, none, none)
    return solver


def half_step(
    rows: sp.csr_array, others: NDArray[Any], regularization: float, device: str, num_threads: int
) -> Float32:
    """Return the exact factors of rows of confidences, those of the other side being fixed."""
    small = small_rows(rows)
    out = np.zeros((rows.shape[0], others.shape[1]), np.float32)
    if not small.all():
        able = as_csr(rows[~small], "rows") if small.any() else rows
        solver = folder(others, regularization, device, num_threads)
        out[~small] = solver.fold_in(interactions(able), num_threads)[0]
    if small.any():
        out[small] = Blocks(others, regularization).solve(_some(rows, small))
    return out


def _some(rows: sp.csr_array, which: NDArray[np.bool_]) -> sp.csr_array:
    return rows if which.all() else as_csr(rows[which], "rows")


class MixedSolver:
    """What the compiled solver offers, for confidences of which some are below 1.

    Parameters
    ----------
    csr : csr_array
    regularization : float
    cg_steps : int
        Of conjugate gradients; 0 solves exactly.
    device : str
    """

    def __init__(
        self, csr: sp.csr_array, regularization: float, cg_steps: int, device: str
    ) -> None:
        self._sides = [(m, small_rows(m)) for m in (csr, as_csr(csr.T, "user_items"))]
        self._regularization, self._cg_steps, self._device = regularization, cg_steps, device
        self.finished_steps = 0

    def set_factors(self, users: Float32, items: Float32, *biases: Float32) -> None:
        """Set the starting factors."""
        self._factors = users, items

    def factors(self) -> tuple[Float32, Float32]:
        """Return the factors of users and of items."""
        return self._factors

    def step(self, num_threads: int) -> None:
        """Solve for all users, then for all items."""
        users = self._solved(0, self._factors[0], self._factors[1], num_threads)
        self._factors = users, self._solved(1, self._factors[1], users, num_threads)
        self.finished_steps += 1

    def _solved(self, side: int, start: Float32, others: Float32, num_threads: int) -> Float32:
        rows, small = self._sides[side]
        if not (self._cg_steps and small.any()):
            return half_step(rows, others, self._regularization, self._device, num_threads)
        out = np.zeros_like(start)
        blocks = Blocks(others, self._regularization)
        out[small] = blocks.steps(_some(rows, small), start[small], self._cg_steps)
        if not small.all():
            out[~small] = self._compiled_steps(
                _some(rows, ~small), start[~small], others, num_threads
            )
        return out

    def _compiled_steps(
        self, rows: sp.csr_array, start: Float32, others: Float32, num_threads: int
    ) -> Float32:
        """Move rows by steps of conjugate gradients, in a step that solves for the others, too.

        That is half of it for nothing, and a fraction of what exact solutions take.
        """
        how: dict[str, Any] = {"device": self._device, "num_threads": num_threads}
        how |= {"solver": cg_or_auto(self._regularization), "cg_steps": self._cg_steps}
        none = np.zeros(0, np.float32)
        solver = make_solver(rows, others.shape[1], self._regularization, **how)
        solver.set_factors(np.ascontiguousarray(start), np.ascontiguousarray(others), none, none)
        solver.step(num_threads)
        factors: Float32 = solver.factors()[0]
        return factors

    def loss(self, num_threads: int) -> float:
        """Return the objective."""
        return objective(self._sides[0][0], *self._factors, self._regularization)


def objective(
    csr: sp.csr_array, users: NDArray[Any], items: NDArray[Any], regularization: float
) -> float:
    r"""Return :math:`\sum c_{ui} (p_{ui} - x_u y_i)^2 + \lambda (|X|^2 + |Y|^2)`, in float64."""
    x, y = users.astype(np.float64), items.astype(np.float64)
    total = float(np.sum((x.T @ x) * (y.T @ y)))  # as if every c were 1 and every p 0
    for first in range(0, csr.nnz, _CHUNK):
        part = slice(first, min(first + _CHUNK, csr.nnz))
        rows = np.searchsorted(csr.indptr, np.arange(part.start, part.stop), side="right") - 1
        score = np.einsum("ij,ij->i", x[rows], y[csr.indices[part]])
        c = csr.data[part].astype(np.float64)
        total += float(np.sum(np.abs(c) * ((c > 0) - score) ** 2 - score**2))
    return total + regularization * (float(np.sum(x * x)) + float(np.sum(y * y)))


def per_pair(loss: float, csr: sp.csr_array) -> float:
    """Return the loss as implicit reports it: by the sum of all confidences."""
    n_users, n_items = csr.shape
    weight = float(np.abs(csr.data.astype(np.float64)).sum()) + float(n_users) * n_items - csr.nnz
    return loss / weight if weight else 0.0
