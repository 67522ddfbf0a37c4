"""Missing values of feature matrices, predicted from the others by a factorisation."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recfuse._base import check_fitted
from recfuse._named import named
from recfuse._named_columns import NamedColumns
from recfuse.models import AlternatingLeastSquares
from recfuse.preprocess._matrices import as_features
from recfuse.preprocess._step import Report, Step
from recfuse.preprocess.scaling import Standardizer

__all__ = ["MatrixCompletion"]

Matrix = NDArray[Any]


class MatrixCompletion(NamedColumns, Step):
    r"""Replace NaN by what the other values of row and column say: matrix completion [1]_.

    Columns are standardised over their known values; `AlternatingLeastSquares` with
    ``objective='explicit'`` and biases factorises the known values, and its predictions, scaled
    back, fill the gaps. Where features go together (ratings of several critics, prices in several
    shops) that is closer than the mean of a column; where they do not, it is no better.

    A row without any known value gets the prediction for a row about which nothing is known. Rows
    that `fit` has not seen are folded in.

    Parameters
    ----------
    factors : int, default=8
    regularization : float, default=0.1
    iterations : int, default=15
    random_state : int, default=0
    num_threads : int, default=0

    Attributes
    ----------
    scaler_ : Standardizer
    model_ : AlternatingLeastSquares

    References
    ----------
    .. [1] Y. Koren, R. Bell, C. Volinsky, "Matrix factorization techniques for recommender
       systems", IEEE Computer 42(8), 2009.

    Examples
    --------
    >>> import numpy as np
    >>> from recfuse.preprocess import MatrixCompletion
    >>> x = np.outer([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [1.0, 2.0, 3.0, 4.0])
    >>> x[2, 1] = np.nan  # was 6; the mean of its column is 7.2
    >>> filled = MatrixCompletion(factors=1, regularization=0.01, iterations=100).fit_transform(x)
    >>> bool(abs(filled[2, 1] - 6) < 0.1)
    True
    """

    scaler_: Standardizer
    model_: AlternatingLeastSquares

    def __init__(
        self,
        factors: int = 8,
        *,
        regularization: float = 0.1,
        iterations: int = 15,
        random_state: int = 0,
        num_threads: int = 0,
    ) -> None:
        self.factors = factors
        self.regularization = regularization
        self.iterations = iterations
        self.random_state = random_state
        self.num_threads = num_threads

    @named("MatrixCompletion")
    def fit(self, x: Any, y: Any = None) -> MatrixCompletion:
        """Learn scales and factors.

        Parameters
        ----------
        x : array-like of shape (n, n_features)

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            If `x` does not hold real numbers, is infinite somewhere, has a column without any
            value, or a parameter is wrong.
        """
        matrix = as_features(x, "x")
        empty = np.flatnonzero(np.isnan(matrix).all(axis=0))
        if len(empty):
            raise ValueError(f"x must have a value in every column; got none in column {empty[0]}")
        scaler = Standardizer().fit(matrix)
        model = AlternatingLeastSquares(
            self.factors,
            objective="explicit",
            biases=True,
            solver="cholesky",
            regularization=self.regularization,
            iterations=self.iterations,
            random_state=self.random_state,
            num_threads=self.num_threads,
        ).fit(_known(scaler.transform(matrix)))
        self.scaler_, self.model_ = scaler, model
        self._note_columns(x, matrix.shape[1])
        return self

    @named("MatrixCompletion")
    def transform(self, x: Any, *, report: Report | None = None) -> Any:
        """Return `x` without NaN.

        Parameters
        ----------
        x : array-like of shape (n, n_features)
        report : Report, optional

        Returns
        -------
        ndarray of shape (n, n_features)
            float32 for float32, else float64; known values as they are. Or what `set_output` asked
            for.

        Raises
        ------
        NotFittedError, TypeError, ValueError
            Before `fit`; if `x` does not hold real numbers, is infinite somewhere, or has another
            number of columns than that of the fit.
        """
        check_fitted(self, "model_")
        matrix = as_features(x, "x").copy()
        if matrix.shape[1] != len(self.scaler_.scale_):
            raise ValueError(
                f"x must have {len(self.scaler_.scale_)} columns as in fit; got {matrix.shape[1]}"
            )
        rows = np.flatnonzero(np.isnan(matrix).any(axis=1))
        if len(rows):
            part = matrix[rows]
            predicted = self._predicted(self.scaler_.transform(part))
            matrix[rows] = np.where(np.isnan(part), predicted, part)
        if report is not None:
            report.add("MatrixCompletion", len(matrix), len(matrix), len(rows))
        return self._as_output(x, matrix)

    def _predicted(self, scaled: Matrix) -> Matrix:
        """Return the predictions for all cells of rows, folded in, on the scale of `fit`."""
        model = self.model_
        factors, biases = model._fold_in(_known(scaled))
        predicted = (
            model.global_mean_
            + biases.astype(np.float64)[:, None]
            + model.item_biases_.astype(np.float64)
            + factors.astype(np.float64) @ model.item_factors_.astype(np.float64).T
        )
        return np.asarray(self.scaler_.inverse_transform(predicted))


def _known(matrix: Matrix) -> sp.csr_array:
    """Return the cells that are not NaN as entries, zeros included."""
    known = ~np.isnan(matrix)
    rows, columns = np.nonzero(known)
    indptr = np.append(0, np.cumsum(known.sum(axis=1)))
    values = matrix[rows, columns].astype(np.float32)
    return sp.csr_array((values, columns.astype(np.int32), indptr), shape=matrix.shape)
