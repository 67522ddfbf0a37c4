r"""Rows with confidences below 1, in NumPy: many small systems at a time.

.. math:: (Y^T Y + \lambda I + \sum_i (|c_i| - 1) y_i y_i^T)\, x = \sum_{c_i > 0} c_i y_i

Where |c| is below 1, a term is subtracted, which the compiled solver has no room for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recfuse.compat.implicit.recommender_base import ModelFitError

__all__ = ["Blocks"]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Rows = NDArray[np.int64]

_BLOCK_FLOATS = 1 << 18  # of the gathered factors, or of the systems, of a block: about a cache
_LEAST_EIGENVALUE = 2.0**-24  # of the largest, to divide by: float32 holds no less


class Blocks:
    """Solver of rows against the fixed factors of the other side.

    Parameters
    ----------
    others : ndarray of shape (n, factors)
    regularization : float
    """

    def __init__(self, others: NDArray[np.floating], regularization: float) -> None:
        self._others = np.ascontiguousarray(others, np.float32)
        self._regularization = regularization
        wide = others.astype(np.float64)
        self._shared = wide.T @ wide + regularization * np.eye(wide.shape[1])

    def system(self, ids: NDArray[np.int32], confidences: Float32) -> tuple[Float64, Float64]:
        """Return matrix and right-hand side of a row, in float64."""
        vectors, c = self._others[ids].astype(np.float64), confidences.astype(np.float64)
        weighted = vectors * (np.abs(c) - 1)[:, None]
        return self._shared + weighted.T @ vectors, np.maximum(c, 0) @ vectors

    def solve(self, rows: sp.csr_array) -> Float32:
        """Return the exact factors of rows; of those without entries, zeros."""
        shared = self._shared.astype(np.float32)

        def solve(block: Rows) -> Float32:
            vectors, weights, targets = _gathered(rows, block, self._others)
            scaled = (vectors * weights[:, :, None]).transpose(0, 2, 1)
            matrices = shared + np.matmul(scaled, vectors)
            solved: Any = np.linalg.solve(matrices, _times(targets, vectors)[:, :, None])
            return np.asarray(solved[:, :, 0], np.float32)

        return self._in_blocks(rows, self._others.shape[1], solve)

    def steps(self, rows: sp.csr_array, start: Float32, n_steps: int) -> Float32:
        """Return factors that are some steps of conjugate gradients from `start`.

        In the coordinates in which what all rows share is diagonal, and preconditioned by it.
        """
        values, vectors_of = np.linalg.eigh(self._shared)
        diagonal = np.maximum(values, 0).astype(np.float32)
        inverse = (1 / np.maximum(values, _LEAST_EIGENVALUE * values.max())).astype(np.float32)
        turn: Float32 = vectors_of.astype(np.float32)
        others, turned = self._others @ turn, start @ turn

        def solve(block: Rows) -> Float32:
            vectors, weights, targets = _gathered(rows, block, others)
            x: Any = turned[block]

            def multiply(p: Float32) -> Float32:
                products = np.matmul(vectors, p[:, :, None])[:, :, 0]
                product: Float32 = diagonal * p + _times(weights * products, vectors)
                return product

            residual: Any = _times(targets, vectors) - multiply(x)
            direction: Any = inverse * residual
            energy: Any = _dots(residual, direction)
            for _ in range(n_steps):
                product = multiply(direction)
                curvature = _dots(direction, product)
                length = np.divide(energy, curvature, out=0 * energy, where=curvature > 0)
                x = x + length * direction
                residual = residual - length * product
                better = inverse * residual
                before, energy = energy, _dots(residual, better)
                share = np.divide(energy, before, out=0 * energy, where=before > 0)
                direction = better + share * direction
            moved: Float32 = x @ turn.T
            return moved

        return self._in_blocks(rows, 1, solve)

    def _in_blocks(
        self, rows: sp.csr_array, height: int, solve: Callable[[Rows], Float32]
    ) -> Float32:
        """Solve block by block; what float32 does not hold, in float64."""
        factors = self._others.shape[1]
        out = np.zeros((rows.shape[0], factors), np.float32)

        # One after the other: calls are so short that threads would wait for the interpreter.
        for block in _blocks(np.diff(rows.indptr), factors, height):
            try:
                found = solve(block)
            except np.linalg.LinAlgError:
                found = np.full((len(block), factors), np.nan, np.float32)
            for at in np.flatnonzero(~np.isfinite(found).all(axis=1)):
                found[at] = self._solve_in_float64(rows, int(block[at]))
            out[block] = found
        return out

    def _solve_in_float64(self, rows: sp.csr_array, row: int) -> Float64:
        entries = slice(rows.indptr[row], rows.indptr[row + 1])
        try:
            system = self.system(rows.indices[entries], rows.data[entries])
            solved: Any = np.linalg.solve(*system)
        except np.linalg.LinAlgError as error:
            raise ModelFitError(
                f"als: the system of row {row} is singular; got regularization "
                f"{self._regularization}. Raise it above 0."
            ) from error
        factors: Float64 = solved
        return factors


def _blocks(lengths: Rows, factors: int, height: int) -> Iterator[Rows]:
    """Yield rows of about one length, so that little is padded; empty ones not at all."""
    order = np.argsort(-lengths, kind="stable")
    order = order[lengths[order] > 0]
    first = 0
    while first < len(order):
        longest = int(lengths[order[first]])
        n = max(1, _BLOCK_FLOATS // (factors * max(longest, height)))
        yield order[first : first + n]
        first += n


def _gathered(rows: sp.csr_array, block: Rows, others: Float32) -> tuple[Float32, Float32, Float32]:
    """Return the vectors of entries (n, longest, factors), and their weights and targets."""
    begin, end = rows.indptr[block], rows.indptr[block + 1]
    here = np.arange(int((end - begin).max()))
    inside = here < (end - begin)[:, None]
    at = np.where(inside, begin[:, None] + here, 0)
    c = rows.data[at]
    zero = np.float32(0)
    vectors = others[rows.indices[at]]
    return vectors, np.where(inside, np.abs(c) - 1, zero), np.where(inside, np.maximum(c, 0), zero)


def _times(values: Float32, vectors: Float32) -> Float32:
    """Return the sum of the vectors of every row, each times its value."""
    sums: Float32 = np.matmul(values[:, None, :], vectors)[:, 0]
    return sums


def _dots(a: NDArray[Any], b: NDArray[Any]) -> Float32:
    products: Float32 = np.einsum("ij,ij->i", a, b)[:, None]
    return products
