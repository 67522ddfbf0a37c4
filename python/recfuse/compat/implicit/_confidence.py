"""implicit's objective, ``c = alpha * r`` on stored entries, in terms of recfuse's ``c = 1 + r``.

Where every |c| is at least 1, ``r = |c| - 1`` says the same, to every solver. A smaller confidence
trusts an entry less than the absence of one: the CPU's solver takes it, with ``c = 0 + r``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recfuse._inputs import CsrParts, as_csr, csr_parts
from recfuse.backend import resolve_op
from recfuse.compat.implicit.recommender_base import ModelFitError

__all__ = [
    "Folder",
    "cg_or_auto",
    "confidences",
    "half_step",
    "interactions",
    "make_solver",
    "objective",
    "per_pair",
    "system",
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


def any_small(csr: sp.csr_array) -> bool:
    """Return whether a confidence is below 1: an entry that counts less than the absence of one."""
    return bool((np.abs(csr.data) < 1).any())


def interactions(csr: sp.csr_array) -> CsrParts:
    """Return confidences of at least 1 as recfuse's interactions."""
    extra = np.maximum(np.abs(csr.data) - 1, _NOTHING)
    values = np.copysign(extra, csr.data, out=extra)
    return csr_parts(sp.csr_array((values, csr.indices, csr.indptr), shape=csr.shape))


def make_solver(csr: sp.csr_array, factors: int, regularization: float, **how: Any) -> Any:
    """Return a compiled solver of confidences; of such below 1, on the CPU."""
    small = any_small(csr)
    if small:
        how["device"] = "cpu"
    return _solver(_given(csr, small), factors, regularization, small, **how)


def _given(csr: sp.csr_array, small: bool) -> CsrParts:
    """Return confidences as they are, or, which GPUs know, too, by how much they are above 1."""
    return csr_parts(csr) if small else interactions(csr)


def _solver(given: CsrParts, factors: int, regularization: float, small: bool, **how: Any) -> Any:
    how = {"solver": "cholesky", "cg_steps": 2, "device": "cpu", "num_threads": 0, **how}
    return resolve_op("AlsSolver", how.pop("device"))(
        given,
        objective="implicit",
        factors=factors,
        regularization=float(regularization),
        alpha=1.0,
        base_confidence=0.0 if small else 1.0,
        frequency_scaling=0.0,
        biases=False,
        **how,
    )


def cg_or_auto(regularization: float) -> str:
    """Return the solver that `use_cg` asks for: conjugate gradients stand a singular system."""
    return "auto" if regularization > 0 else "cg"


class Folder:
    """Exact solver of rows, the factors of the other side being fixed.

    Parameters
    ----------
    others : ndarray of shape (n, factors)
    regularization : float
    device : str
        Of rows without a confidence below 1.
    num_threads : int
    """

    def __init__(
        self, others: NDArray[Any], regularization: float, device: str, num_threads: int
    ) -> None:
        self._others = np.ascontiguousarray(others, np.float32)
        self._regularization, self._device, self._num_threads = regularization, device, num_threads
        self._solvers: dict[bool, Any] = {}  # of confidences below 1, and of others

    def solve(self, rows: sp.csr_array) -> Float32:
        """Return the factors of rows of confidences; of those without entries, zeros."""
        # On the CPU all are given alike, so that a row's bits do not depend on the rows beside it.
        small = self._device == "cpu" or any_small(rows)
        if small not in self._solvers:
            self._solvers[small] = self._made(small)
        factors: Float32 = self._solvers[small].fold_in(_given(rows, small), self._num_threads)[0]
        return factors

    def _made(self, small: bool) -> Any:
        n, factors = self._others.shape
        nobody, none = csr_parts(sp.csr_array((0, n), dtype=np.float32)), np.zeros(0, np.float32)
        how = {"device": "cpu" if small else self._device, "num_threads": self._num_threads}
        solver = _solver(nobody, factors, self._regularization, small, **how)
        solver.set_factors(np.zeros((0, factors), np.float32), self._others, none, none)
        return solver


def half_step(
    rows: sp.csr_array, others: NDArray[Any], regularization: float, device: str, num_threads: int
) -> Float32:
    """Return the exact factors of rows of confidences, those of the other side being fixed."""
    return Folder(others, regularization, device, num_threads).solve(rows)


def system(
    ids: NDArray[np.int32], confidences: Float32, others: NDArray[Any], regularization: float
) -> Float64:
    """Return the matrix of a row's system, in float64."""
    y = others.astype(np.float64)
    liked = y[ids]
    weighted = liked * (np.abs(confidences.astype(np.float64)) - 1)[:, None]
    matrix: Float64 = y.T @ y + weighted.T @ liked + regularization * np.eye(y.shape[1])
    return matrix


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
