"""From what an item is to where behaviour would put it: a ridge map from content to factors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recfuse._base import Estimator, check_fitted
from recfuse._inputs import as_matrix
from recfuse._named import named

__all__ = ["FactorMap"]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
_PENALTIES = (1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0, 1e3, 1e4)
_MOST_LEFT_OUT = 4096  # items left out one by one when the penalty is chosen


class FactorMap(Estimator):
    r"""Predict the factors of items from their content vectors, by ridge regression.

    .. math:: \min_{B, b} \sum_{i\ warm} |y_i - b - B^T x_i|^2 + \lambda |B|^2

    over items that have factors worth learning from; :math:`x_i` is the content of all modalities
    side by side, zeros where one is missing, with a column for every modality that some lack. The
    :math:`\lambda` is the one with the least squared error on items left out one by one, which the
    fit knows exactly without being repeated [1]_.

    Parameters
    ----------
    regularizations : sequence of float, default=(1e-3, 1e-2, ..., 1e4)
        Each above 0.

    Attributes
    ----------
    regularization_ : float
        The one chosen.
    r2_ : float
        Share of the variance of left-out factors that the map explains; at most 0, it is useless.
    coefficients_ : ndarray of shape (n_columns, factors), float64
    intercept_ : ndarray of shape (factors,), float64
    modalities_ : list of str

    References
    ----------
    .. [1] D. M. Allen, "The relationship between variable selection and data augmentation and a
       method for prediction", Technometrics 16(1), 1974.
    .. [2] Z. Gantner et al., "Learning attribute-to-feature mappings for cold-start
       recommendations", ICDM 2010.

    Examples
    --------
    >>> import numpy as np
    >>> from recfuse.fusion import FactorMap
    >>> rng = np.random.default_rng(0)
    >>> text = rng.standard_normal((100, 5))
    >>> factors = text @ rng.standard_normal((5, 3))
    >>> fitted = FactorMap().fit({"text": text[:90]}, factors[:90])
    >>> np.allclose(fitted.predict({"text": text[90:]}), factors[90:], atol=1e-3)
    True
    """

    _input_tags = ("dict",)

    def __init__(self, regularizations: Sequence[float] = _PENALTIES) -> None:
        self.regularizations = regularizations

    @named("fit")
    def fit(self, vectors: Mapping[str, ArrayLike], factors: ArrayLike) -> FactorMap:
        """Learn the map from items that have factors.

        Parameters
        ----------
        vectors : mapping modality -> array-like of shape (n_items, dim)
            Best at similar lengths. A row of zeros or with a NaN counts as missing.
        factors : array-like of shape (n_items, n_factors)

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            If shapes differ, there are fewer than 2 items, or a penalty is not above 0.
        """
        penalties = np.asarray(self.regularizations, np.float64)
        if penalties.ndim != 1 or len(penalties) == 0 or not (penalties > 0).all():
            raise ValueError(f"regularizations must be above 0; got {self.regularizations}")
        y = as_matrix(factors, "factors").astype(np.float64)
        if len(y) < 2 or not np.isfinite(y).all():
            raise ValueError(f"factors must be finite, of 2 items or more; got shape {y.shape}")
        given = {name: as_matrix(x, f"vectors[{name!r}]") for name, x in vectors.items()}
        here = {name: _present(x) for name, x in given.items()}
        partly = [name for name in given if not here[name].all()]
        x = _columns(given, here, partly)
        if len(x) != len(y):
            raise ValueError(f"vectors must have one row per item ({len(y)}); got {len(x)}")

        x_mean, y_mean = x.mean(axis=0), y.mean(axis=0)
        x, y = x - x_mean, y - y_mean
        spectrum, basis = np.linalg.eigh(x.T @ x)
        spectrum = np.maximum(spectrum, 0)
        rotated = x @ basis
        right = rotated.T @ y
        rows = np.linspace(0, len(y) - 1, min(len(y), _MOST_LEFT_OUT)).astype(np.intp)
        errors = [
            _left_out_error(rotated[rows], y[rows], len(y), right, spectrum + penalty)
            for penalty in penalties
        ]
        best = int(np.argmin(errors))
        self.regularization_ = float(penalties[best])
        spread = float(np.sum((y[rows] * len(y) / (len(y) - 1)) ** 2))
        self.r2_ = 1 - errors[best] / spread if spread > 0 else 0.0
        inverse = spectrum + self.regularization_
        self.coefficients_: Float64 = basis @ (right / inverse[:, None])
        self.intercept_: Float64 = y_mean - x_mean @ self.coefficients_
        self.modalities_, self.partly_missing_ = list(given), partly
        self.widths_ = {name: matrix.shape[1] for name, matrix in given.items()}
        return self

    @named("predict")
    def predict(self, vectors: Mapping[str, ArrayLike]) -> Float32:
        """Return the factors that items of this content should have.

        Parameters
        ----------
        vectors : mapping modality -> array-like of shape (n_items, dim)
            At least one modality of the fit; those not given are missing.

        Returns
        -------
        ndarray of shape (n_items, n_factors), float32

        Raises
        ------
        NotFittedError, TypeError, ValueError
            Before `fit`; if a modality is unknown or its width differs.
        """
        check_fitted(self, "coefficients_")
        unknown = [name for name in vectors if name not in self.modalities_]
        if unknown or not vectors:
            raise ValueError(f"vectors must name modalities of {self.modalities_}; got {unknown}")
        given = {name: as_matrix(x, f"vectors[{name!r}]") for name, x in vectors.items()}
        n = len(next(iter(given.values())))
        widths = self.widths_
        full = {name: given.get(name, np.zeros((n, widths[name]), np.float32)) for name in widths}
        for name, matrix in full.items():
            if matrix.shape != (n, widths[name]):
                raise ValueError(
                    f"vectors[{name!r}] must have shape {(n, widths[name])}; got {matrix.shape}"
                )
        here = {name: _present(x) for name, x in full.items()}
        x = _columns(full, here, self.partly_missing_)
        return (x @ self.coefficients_ + self.intercept_).astype(np.float32)


def _left_out_error(x: Float64, y: Float64, n: int, right: Float64, inverse: Float64) -> float:
    """Return the squared error of the rows, each predicted by a fit without it.

    The error of a row grows by 1 / (1 - h) when the row is left out; h is what it weighs in its
    own prediction.
    """
    residual = y - x @ (right / inverse[:, None])
    weighs = 1 / n + np.einsum("ij,ij,j->i", x, x, 1 / inverse)
    free = 1 - weighs
    if (free < 1e-10).any():
        return float("inf")
    return float(np.sum((residual / free[:, None]) ** 2))


def _present(vectors: Float32) -> NDArray[np.bool_]:
    return np.asarray(np.isfinite(vectors).all(axis=1) & vectors.any(axis=1))


def _columns(
    vectors: Mapping[str, Float32], here: Mapping[str, NDArray[np.bool_]], partly: Sequence[str]
) -> Float64:
    blocks = [np.where(here[name][:, None], x, 0).astype(np.float64) for name, x in vectors.items()]
    flags = [here[name].astype(np.float64)[:, None] for name in partly]
    return np.hstack([*blocks, *flags])
