"""Scales of features: standard scores, ranges and unit lengths; missing values stay missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recfuse._base import check_fitted
from recfuse._columns import as_values
from recfuse._inputs import as_csr
from recfuse._named import named
from recfuse._named_columns import NamedColumns
from recfuse.interactions import Interactions
from recfuse.preprocess._matrices import as_features, by_blocks, real_blocks
from recfuse.preprocess._step import Report, Step

__all__ = ["L2Normalizer", "MinMax", "Standardizer"]

Matrix = NDArray[Any]
Float64 = NDArray[np.float64]


class _Scaler(NamedColumns, Step):
    """A linear map of every column and its inverse; `fit` sets `scale_`."""

    scale_: Float64

    def _scaled(self, block: Float64) -> Float64:
        raise NotImplementedError

    def _unscaled(self, block: Float64) -> Float64:
        raise NotImplementedError

    def transform(self, x: Any, *, report: Report | None = None) -> Any:
        """Scale `x`.

        Parameters
        ----------
        x : array-like of shape (n, n_features), or Interactions
            NaN stays NaN. The values of interactions are one column.
        report : Report, optional
            Gets no line: no row goes.

        Returns
        -------
        ndarray of shape (n, n_features), or Interactions
            float32 for float32, else float64.

        Raises
        ------
        NotFittedError, TypeError, ValueError
            Before `fit`; if `x` does not hold real numbers; if a value is infinite, or `x` has
            another number of columns than that of the fit.
        """
        return self._as_output(x, self._mapped(x, self._scaled))

    def inverse_transform(self, x: Any) -> Any:
        """Return what `transform` made `x` of, to rounding; as `transform`."""
        return self._mapped(x, self._unscaled)

    def _mapped(self, x: Any, function: Callable[[Float64], Float64]) -> Any:
        name = type(self).__name__
        check_fitted(self, "scale_")
        if isinstance(x, Interactions):
            values = by_blocks(self._checked(x.values[:, None], name), np.float64, function)
            return replace(x, values=as_values(values[:, 0], f"{name}: values"))
        matrix = self._checked(x, name)
        return by_blocks(matrix, matrix.dtype, function)

    def _checked(self, x: Any, name: str) -> Matrix:
        matrix = as_features(x, f"{name}: x")
        if matrix.shape[1] != len(self.scale_):
            raise ValueError(
                f"{name}: x must have {len(self.scale_)} columns as in fit; got {matrix.shape[1]}"
            )
        return matrix


class Standardizer(_Scaler):
    r"""Standard scores of every column: :math:`z = (x - \bar x) / s`.

    Mean and standard deviation (of the population, ``ddof=0``) are those of the values that are
    not NaN, in float64. A column without spread keeps its values less their mean, as in
    scikit-learn's `StandardScaler`, which this equals.

    Attributes
    ----------
    mean_, scale_ : ndarray of shape (n_features,), float64
        A column without any value has mean NaN and scale NaN, and stays NaN.

    Examples
    --------
    >>> from recfuse.preprocess import Standardizer
    >>> scaler = Standardizer().fit([[1.0, 10.0], [3.0, 10.0]])
    >>> scaler.transform([[1.0, 10.0], [5.0, 12.0]])
    array([[-1.,  0.],
           [ 3.,  2.]])
    """

    mean_: Float64

    def fit(self, x: Any, y: Any = None) -> Standardizer:
        """Learn means and deviations.

        Parameters
        ----------
        x : array-like of shape (n, n_features), or Interactions

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            If `x` does not hold real numbers, has no rows, or holds infinity.
        """
        matrix = _fit_matrix(x, "Standardizer")
        self._note_columns(x, matrix.shape[1])
        count = np.zeros(matrix.shape[1])
        total = np.zeros(matrix.shape[1])
        for block in real_blocks(matrix):
            count += np.count_nonzero(~np.isnan(block), axis=0)
            total += np.nansum(block, axis=0)
        with np.errstate(invalid="ignore"):
            mean = total / count
        squares = np.zeros(matrix.shape[1])
        rest = np.zeros(matrix.shape[1])  # of rounding in the mean
        for block in real_blocks(matrix):
            squares += np.nansum((block - mean) ** 2, axis=0)
            rest += np.nansum(block - mean, axis=0)
        with np.errstate(invalid="ignore"):
            variance = (squares - rest**2 / count) / count
        # What rounding alone can make of a constant column is no spread: scikit-learn's bound.
        noise = count * np.finfo(float).eps
        constant = variance <= noise * variance + (noise * mean) ** 2
        self.mean_ = mean
        self.scale_ = np.where(constant, 1.0, np.sqrt(np.maximum(variance, 0)))
        return self

    def _scaled(self, block: Float64) -> Float64:
        return (block - self.mean_) / self.scale_

    def _unscaled(self, block: Float64) -> Float64:
        return block * self.scale_ + self.mean_


class MinMax(_Scaler):
    r"""Put every column on the range from `low` to `high`: :math:`(x - min) / (max - min)`.

    Least and greatest are those of the values that are not NaN. A column without spread becomes
    `low`, as in scikit-learn's `MinMaxScaler`, which this equals. Later values may lie outside.

    Parameters
    ----------
    low, high : float, default=0.0, 1.0

    Attributes
    ----------
    min_, max_, scale_ : ndarray of shape (n_features,), float64
        The range of the values, and what of it becomes 1; NaN for a column without any value.

    Examples
    --------
    >>> from recfuse.preprocess import MinMax
    >>> MinMax().fit([[1.0], [3.0]]).transform([[2.0], [4.0]])
    array([[0.5],
           [1.5]])
    """

    min_: Float64
    max_: Float64

    def __init__(self, low: float = 0.0, high: float = 1.0) -> None:
        self.low = low
        self.high = high

    def fit(self, x: Any, y: Any = None) -> MinMax:
        """Learn the ranges; as `Standardizer.fit`."""
        if not (np.isfinite([self.low, self.high]).all() and self.low < self.high):
            raise ValueError(f"MinMax: low must be below high; got {self.low} and {self.high}")
        matrix = _fit_matrix(x, "MinMax")
        self._note_columns(x, matrix.shape[1])
        least = np.full(matrix.shape[1], np.nan)
        greatest = np.full(matrix.shape[1], np.nan)
        for block in real_blocks(matrix):
            least = np.fmin(least, np.fmin.reduce(block, axis=0))
            greatest = np.fmax(greatest, np.fmax.reduce(block, axis=0))
        span = greatest - least
        span = np.where(span < 10 * np.finfo(float).eps, 1.0, span)  # scikit-learn's bound
        self.min_, self.max_ = least, greatest
        self.scale_ = span / (self.high - self.low)
        return self

    # The least value first: so it becomes `low` exactly; one offset for all would round it.
    def _scaled(self, block: Float64) -> Float64:
        return (block - self.min_) / self.scale_ + self.low

    def _unscaled(self, block: Float64) -> Float64:
        return (block - self.low) * self.scale_ + self.min_


class L2Normalizer(NamedColumns, Step):
    """Give every row the length one; rows of zeros stay zeros.

    There is nothing to learn and no inverse: the lengths are gone. NaN stays NaN, and the length
    is that of the other values of its row.

    Examples
    --------
    >>> from recfuse.preprocess import L2Normalizer
    >>> L2Normalizer().transform([[3.0, 4.0], [0.0, 0.0]])
    array([[0.6, 0.8],
           [0. , 0. ]])
    """

    _input_tags = ("two_d_array", "sparse", "allow_nan")
    _transforms_unfitted = True

    def fit(self, x: Any, y: Any = None) -> L2Normalizer:
        """Remember the names of the columns, nothing else. Returns self."""
        matrix = x if sp.issparse(x) else as_features(x, "L2Normalizer: x")
        self._note_columns(x, matrix.shape[1])
        return self

    @named("L2Normalizer")
    def transform(self, x: Any, *, report: Report | None = None) -> Any:
        """Scale the rows of `x`.

        Parameters
        ----------
        x : array-like or sparse matrix of shape (n, n_features)
        report : Report, optional
            Gets no line: no row goes.

        Returns
        -------
        ndarray of shape (n, n_features)
            float32 for float32, else float64.
        csr_array, float32
            For a sparse matrix.

        Raises
        ------
        TypeError, ValueError
            If `x` does not hold real numbers, or a value is infinite.
        """
        if sp.issparse(x):
            csr = as_csr(x, "x")
            if not np.isfinite(csr.data).all():
                raise ValueError("x must be finite; got NaN or infinity")
            rows = np.repeat(np.arange(csr.shape[0]), np.diff(csr.indptr))
            squares = np.bincount(rows, csr.data.astype(np.float64) ** 2, csr.shape[0])
            data = csr.data / np.where(squares > 0, np.sqrt(squares), 1.0)[rows]
            parts = (data.astype(np.float32), csr.indices, csr.indptr)
            return self._as_output(x, sp.csr_array(parts, shape=csr.shape))
        matrix = as_features(x, "x")
        if not hasattr(self, "n_features_in_"):  # it transforms without `fit`
            self._note_columns(x, matrix.shape[1])
        return self._as_output(x, by_blocks(matrix, matrix.dtype, _unit_rows))


def _unit_rows(block: Float64) -> Float64:
    # By the greatest first: squares of very large or small values leave float64.
    size = np.fmax.reduce(np.abs(block), axis=1, keepdims=True, initial=0)
    scaled = block / np.where(size > 0, size, 1.0)
    length = np.sqrt(np.nansum(scaled**2, axis=1, keepdims=True))
    return np.asarray(scaled / np.where(length > 0, length, 1.0))


def _fit_matrix(x: Any, name: str) -> Matrix:
    values = x.values[:, None] if isinstance(x, Interactions) else x
    matrix = as_features(values, f"{name}: x")
    if not len(matrix):
        raise ValueError(f"{name}: x must have at least 1 row; got 0")
    return matrix
