"""Dense feature matrices that may have missing values, worked on in blocks of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

__all__ = ["as_features", "by_blocks", "real_blocks"]

Matrix = NDArray[Any]
Float64 = NDArray[np.float64]

_BLOCK_ELEMENTS = 1 << 20  # in float64 at a time, beside a matrix of float32


def as_features(x: Any, name: str, *, finite: bool = True) -> Matrix:
    """Return a matrix of float32 or float64; NaN may be in it, infinity only if not `finite`."""
    if sp.issparse(x) or np.ma.isMaskedArray(x):
        raise TypeError(
            f"{name} must be a dense array, not sparse and without a mask; got {type(x).__name__}"
        )
    try:
        matrix = np.asarray(x)
    except ValueError as error:  # lists of several lengths
        raise ValueError(f"{name} must have rows of one length; got {type(x).__name__}") from error
    if matrix.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold real numbers; got dtype {matrix.dtype}")
    if matrix.ndim != 2:
        hint = ". Reshape your data: x[:, None] is one column" if matrix.ndim == 1 else ""
        raise ValueError(f"{name} must have 2 dimensions; got shape {matrix.shape}{hint}")
    if matrix.dtype not in (np.float32, np.float64):
        small = matrix.dtype.kind == "f" and matrix.dtype.itemsize < 4
        matrix = matrix.astype(np.float32 if small else np.float64)
    if finite:
        for block in real_blocks(matrix):
            if np.isinf(block).any():
                row, column = np.argwhere(np.isinf(matrix))[0]
                raise ValueError(
                    f"{name} must have no infinite values; got {matrix[row, column]} "
                    f"in row {row}, column {column}"
                )
    return matrix


def real_blocks(matrix: Matrix) -> Iterator[Float64]:
    """Yield the rows in order, as float64, some at a time."""
    step = max(1, _BLOCK_ELEMENTS // max(1, matrix.shape[1]))
    for first in range(0, len(matrix), step):
        yield matrix[first : first + step].astype(np.float64)


def by_blocks(matrix: Matrix, dtype: Any, function: Callable[[Float64], Float64]) -> Matrix:
    """Return ``function(matrix)`` of a function of rows, computed in float64, as `dtype`."""
    out = np.empty(matrix.shape, dtype)
    first = 0
    for block in real_blocks(matrix):
        out[first : first + len(block)] = function(block)
        first += len(block)
    return out
