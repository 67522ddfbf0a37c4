"""The functions of implicit.cpu.als: where a fit starts, one side solved in place, and the loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recfuse._inputs import as_csr
from recfuse.compat.implicit._confidence import half_step, objective, per_pair

__all__ = [
    "calculate_loss",
    "least_squares",
    "least_squares_cg",
    "of_width",
    "starting_factors",
]

_AT_ONCE = 1 << 16  # random numbers


def of_width(csr: sp.csr_array, width: int, name: str) -> sp.csr_array:
    """Return rows as wide as the other side has factors, if no entry is outside."""
    if csr.shape[1] == width:
        return csr
    if csr.nnz and csr.indices.max() >= width:
        raise IndexError(
            f"{name} must have ids of the model, below {width}; got {csr.indices.max()}"
        )
    return sp.csr_array((csr.data, csr.indices, csr.indptr), shape=(csr.shape[0], width))


def least_squares(
    Cui: Any, X: NDArray[Any], Y: NDArray[Any], regularization: float, num_threads: int = 0
) -> None:
    """Solve for the rows of `X` exactly, in place, from confidences `Cui` and the factors `Y`."""
    csr = of_width(as_csr(Cui, "Cui"), len(Y), "Cui")
    X[...] = half_step(csr, Y, regularization, "cpu", num_threads)


def least_squares_cg(
    Cui: Any,
    X: NDArray[Any],
    Y: NDArray[Any],
    regularization: float,
    num_threads: int = 0,
    cg_steps: int = 3,
) -> None:
    """Solve as `least_squares`: the exact solution is what steps of conjugate gradients near."""
    least_squares(Cui, X, Y, regularization, num_threads)


def calculate_loss(
    Cui: Any, X: NDArray[Any], Y: NDArray[Any], regularization: float, num_threads: int = 0
) -> float:
    """Return the objective by the sum of all confidences, in float64.

    Parameters
    ----------
    Cui : csr_matrix of shape (n_users, n_items)
        Confidences, alpha and all.
    X, Y : ndarray of shape (n_users, factors) and (n_items, factors)
    regularization : float
    num_threads : int
        Ignored.
    """
    csr = as_csr(Cui, "Cui")
    if csr.shape != (len(X), len(Y)):
        raise ValueError(f"Cui must have shape {(len(X), len(Y))}, as of X, Y; got {csr.shape}")
    return per_pair(objective(csr, X, Y, regularization), csr)


def starting_factors(rng: Any, shape: tuple[int, int], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return random numbers from [0, 0.01), each scaled while it is in the cache."""
    values = np.empty(shape, dtype)
    flat = values.reshape(-1)
    for first in range(0, flat.size, _AT_ONCE):
        part = flat[first : first + _AT_ONCE]
        rng.random(dtype=dtype, out=part)
        part *= dtype.type(0.01)
    return values
