"""Missing values of feature matrices: rows without them, or values in their place."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recfuse._base import check_fitted
from recfuse._columns import as_timestamps
from recfuse._inputs import as_float
from recfuse._named import named
from recfuse._named_columns import NamedColumns
from recfuse.preprocess._matrices import as_features
from recfuse.preprocess._step import Report, Step

__all__ = ["MissingValues"]

Matrix = NDArray[Any]
_STRATEGIES = ("drop", "mean", "median", "constant", "interpolate")


class MissingValues(NamedColumns, Step):
    """Replace NaN in a feature matrix, or leave out the rows that have one.

    Parameters
    ----------
    strategy : {'mean', 'median', 'constant', 'interpolate', 'drop'}, default='mean'
        'mean' and 'median' fill with those of the column in `fit`; 'constant' with `value`.
        'interpolate' joins the known values of a column by straight lines in time, in each matrix
        by itself, and holds the first and the last one beyond them. 'drop' leaves out rows with
        NaN: the rows that are left are no longer numbered as the items are. To keep the numbers
        and have such items treated as missing, pass `present` to the index instead.
    value : float, default=0.0
        For 'constant'.

    Attributes
    ----------
    fill_ : ndarray of shape (n_features,), float64
        What 'mean', 'median' and 'constant' fill in.

    Examples
    --------
    >>> import numpy as np
    >>> from recfuse.preprocess import MissingValues
    >>> x = np.array([[1.0, 5.0], [np.nan, 7.0], [4.0, np.nan]])
    >>> MissingValues("median").fit_transform(x)
    array([[1. , 5. ],
           [2.5, 7. ],
           [4. , 6. ]])
    >>> MissingValues("interpolate").fit_transform(x, times=[0, 10, 30])[:, 0]
    array([1., 2., 4.])
    >>> MissingValues("drop").present(x)
    array([ True, False, False])
    """

    takes_times = True
    fill_: NDArray[np.float64]

    def __init__(
        self,
        strategy: Literal["mean", "median", "constant", "interpolate", "drop"] = "mean",
        *,
        value: float = 0.0,
    ) -> None:
        self.strategy = strategy
        self.value = value

    @named("MissingValues")
    def fit(self, x: Any, y: Any = None) -> MissingValues:
        """Learn what to fill in.

        Parameters
        ----------
        x : array-like of shape (n, n_features)

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            If `x` does not hold real numbers, the strategy is unknown, or a column has no value of
            which to take the mean or median.
        """
        if self.strategy not in _STRATEGIES:
            raise ValueError(f"strategy must be one of {_STRATEGIES}; got {self.strategy!r}")
        matrix = as_features(x, "x")
        fill = np.full(matrix.shape[1], np.nan)
        if self.strategy == "constant":
            fill[:] = as_float(self.value, "value")
            if not np.isfinite(fill).all():
                raise ValueError(f"value must be finite; got {self.value}")
        if self.strategy in ("mean", "median"):
            _refuse_empty(matrix, np.isnan(matrix))
            center = np.nanmean if self.strategy == "mean" else np.nanmedian
            fill = center(matrix, axis=0, **_float64(self.strategy))
        self.fill_ = np.asarray(fill, np.float64)
        self._note_columns(x, matrix.shape[1])
        return self

    @named("MissingValues")
    def transform(
        self, x: Any, *, times: ArrayLike | None = None, report: Report | None = None
    ) -> Any:
        """Return `x` without NaN.

        Parameters
        ----------
        x : array-like of shape (n, n_features)
        times : array-like of shape (n,), optional
            The time of each row, in any order, for 'interpolate': integers or dates. By default
            rows follow each other at equal distances. Known values of one time count as their mean.
        report : Report, optional

        Returns
        -------
        ndarray of shape (n, n_features), or fewer rows for 'drop'
            float32 for float32, else float64; a new array. Or what `set_output` asked for.

        Raises
        ------
        NotFittedError, TypeError, ValueError
            Before `fit`; if `x` does not hold real numbers, has another number of columns than that
            of the fit, or a column without any value is to be interpolated; if `times` are given
            for another strategy, or not one per row.
        """
        check_fitted(self, "fill_")
        matrix = as_features(x, "x").copy()
        if matrix.shape[1] != len(self.fill_):
            raise ValueError(
                f"x must have {len(self.fill_)} columns as in fit; got {matrix.shape[1]}"
            )
        if times is not None and self.strategy != "interpolate":
            raise ValueError(f"times must be None for {self.strategy!r}; got some")
        gaps = np.isnan(matrix)
        rows = gaps.any(axis=1)
        if report is not None:
            dropped, filled = (rows.sum(), 0) if self.strategy == "drop" else (0, rows.sum())
            kept = len(matrix) - int(dropped)
            report.add(f"MissingValues: {self.strategy}", len(matrix), kept, int(filled))
        if self.strategy == "drop":
            return self._as_output(x, np.ascontiguousarray(matrix[~rows]), np.asarray(~rows))
        if self.strategy == "interpolate":
            _interpolate(matrix, gaps, _as_times(times, len(matrix)))
        else:
            matrix[gaps] = np.broadcast_to(self.fill_, matrix.shape)[gaps]
        return self._as_output(x, matrix)

    def fit_transform(
        self, x: Any, y: Any = None, *, times: ArrayLike | None = None, report: Report | None = None
    ) -> Any:
        """Learn from `x` and transform it."""
        return self.fit(x).transform(x, times=times, report=report)

    @named("MissingValues")
    def present(self, x: Any) -> NDArray[np.bool_]:
        """Tell which rows have no NaN: those that 'drop' keeps, or `present` of a `FusedIndex`."""
        return np.asarray(~np.isnan(as_features(x, "x")).any(axis=1))


def _float64(strategy: str) -> dict[str, Any]:
    # nanmedian has no dtype: it takes a value, or the mean of two.
    return {"dtype": np.float64} if strategy == "mean" else {}


def _refuse_empty(matrix: Matrix, gaps: NDArray[np.bool_]) -> None:
    empty = np.flatnonzero(gaps.all(axis=0))
    if len(empty):
        raise ValueError(
            f"x must have a value in every column; got none in column {empty[0]} "
            f"of {len(matrix)} rows. Leave it out, or fill it with strategy='constant'."
        )


def _as_times(times: ArrayLike | None, n: int) -> NDArray[np.float64]:
    if times is None:
        return np.arange(n, dtype=np.float64)
    clock = as_timestamps(times, "times")
    if len(clock) != n:
        raise ValueError(f"times must have {n} entries, one per row; got {len(clock)}")
    # From the earliest one: distances are exact where a time in nanoseconds is not.
    return np.asarray(clock - (clock.min() if n else 0), np.float64)


def _interpolate(matrix: Matrix, gaps: NDArray[np.bool_], times: NDArray[np.float64]) -> None:
    columns = np.flatnonzero(gaps.any(axis=0))
    if len(columns):
        _refuse_empty(matrix, gaps)
    for column in columns:
        gap = gaps[:, column]
        when, at = np.unique(times[~gap], return_inverse=True)
        values = matrix[~gap, column].astype(np.float64)
        known = np.bincount(at, values) / np.bincount(at)
        matrix[gap, column] = np.interp(times[gap], when, known)
