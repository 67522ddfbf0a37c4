r"""Linear fusion: predictions of several modalities, added up with fitted weights."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.optimize
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from recfuse._base import Estimator, check_fitted
from recfuse._inputs import as_float, as_int, as_rng
from recfuse._named import named

__all__ = ["LinearFusion"]

Float64 = NDArray[np.float64]


class LinearFusion(Estimator):
    r"""Fit the weights of a sum by least squares, exactly or by gradient descent.

    With predictions (or features) :math:`F` of shape (N, M) it minimises

    .. math:: L(w) = \frac{1}{2N} \sum_i (y_i - f_i \cdot w)^2 + \frac{\lambda}{2} \|w\|^2.

    'exact' solves for the minimum; where several weights reach it, the shortest. 'gd' follows the
    article's update :math:`w \leftarrow w - \eta \nabla L`. 'sgd' takes gradients of batches and
    corrects them by the full gradient at the start of the epoch [1]_: with a fixed step, plain
    stochastic gradients only come near the minimum, and these reach it.

    Parameters
    ----------
    solver : {'exact', 'gd', 'sgd'}, default='exact'
    l2 : float, default=0.0
        The :math:`\lambda`, not of the intercept.
    fit_intercept : bool, default=False
    nonnegative : bool, default=False
        No weight below 0: a modality may not speak against an item.
    learning_rate : float, optional
        The :math:`\eta`. By default what converges: 1 / (largest eigenvalue of the Hessian) for
        'gd', a quarter of 1 / (the expected smoothness of a batch [2]_) for 'sgd'.
    epochs : int, default=10000
        At most so many passes over the data.
    batch_size : int, default=32
        Of 'sgd'.
    tol : float, default=1e-10
        Stop where the gradient is this small, relative to the one at w = 0.
    patience : int, default=10
        With validation data, stop after so many epochs that were no better; the best weights stay.
    random_state : int, Generator or None, default=0
        Of the order of batches.

    Attributes
    ----------
    modalities_ : list of str
        Names of the columns; "0", "1", ... for an array.
    weights_ : dict of str to float
        As `recfuse.FusedIndex.topk` takes them.
    coef_ : ndarray of shape (M,), float64
        The same as an array.
    intercept_ : float
    losses_ : list of float
        L before the first epoch and after each; one number for 'exact'.
    validation_losses_ : list of float
        The same without the penalty on validation data, if there are any.
    converged_ : bool

    References
    ----------
    .. [1] R. Johnson, T. Zhang, "Accelerating stochastic gradient descent using predictive
       variance reduction", NIPS 2013.
    .. [2] R. M. Gower et al., "SGD: General analysis and improved rates", ICML 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from recfuse.fusion import LinearFusion
    >>> text, image = np.array([1.0, 2, 3, 4]), np.array([1.0, 0, 1, 0])
    >>> model = LinearFusion().fit({"text": text, "image": image}, 2 * text - image)
    >>> {name: round(weight, 6) for name, weight in model.weights_.items()}
    {'text': 2.0, 'image': -1.0}
    >>> descent = LinearFusion("gd").fit({"text": text, "image": image}, 2 * text - image)
    >>> np.allclose(descent.coef_, model.coef_)
    True
    """

    def __init__(
        self,
        solver: str = "exact",
        *,
        l2: float = 0.0,
        fit_intercept: bool = False,
        nonnegative: bool = False,
        learning_rate: float | None = None,
        epochs: int = 10000,
        batch_size: int = 32,
        tol: float = 1e-10,
        patience: int = 10,
        random_state: int | np.random.Generator | None = 0,
    ) -> None:
        self.solver = solver
        self.l2 = l2
        self.fit_intercept = fit_intercept
        self.nonnegative = nonnegative
        self.learning_rate = learning_rate
        self.epochs = epochs
        self.batch_size = batch_size
        self.tol = tol
        self.patience = patience
        self.random_state = random_state

    _is_regressor = True
    _input_tags = ("two_d_array", "dict")

    @property
    def n_features_in_(self) -> int:
        """Number of columns of the fit, as scikit-learn asks for it."""
        check_fitted(self, "weights_")
        return len(self.modalities_)

    @named("fit")
    def fit(
        self,
        predictions: ArrayLike | Mapping[str, ArrayLike],
        targets: ArrayLike,
        *,
        validation: tuple[Any, ArrayLike] | None = None,
    ) -> LinearFusion:
        """Fit the weights.

        Parameters
        ----------
        predictions : array-like of shape (n, M), or mapping modality -> array-like of shape (n,)
            Finite. The columns of a data frame are modalities by their names.
        targets : array-like of shape (n,)
        validation : tuple of predictions and targets, optional
            For early stopping of 'gd' and 'sgd'.

        Raises
        ------
        TypeError, ValueError
            If a parameter, a shape or a value is wrong, or a `learning_rate` makes it diverge.

        Warns
        -----
        RuntimeWarning
            If the epochs were not enough.
        """
        self._check_parameters()
        names, x = _table(predictions, "predictions")
        y = _targets(targets, len(x), "targets")
        held = None
        if validation is not None:
            held_names, held_x = _table(validation[0], "validation")
            if held_names != names:
                raise ValueError(f"validation must have the columns {names}; got {held_names}")
            held = held_x, _targets(validation[1], len(held_x), "validation targets")
        # What an intercept adds is the means; without them the rest needs no column for it.
        mean = x.mean(axis=0) if self.fit_intercept else np.zeros(x.shape[1])
        level = float(y.mean()) if self.fit_intercept else 0.0
        problem = _Problem(x - mean, y - level, self.l2, self.nonnegative)
        if held is not None:
            held = held[0] - mean, held[1] - level
        if self.solver == "exact":
            w = problem.exact()
            losses, held_losses, converged = [problem.loss(w)], list[float](), True
        else:
            w, losses, held_losses, converged = self._descend(problem, held)
        if not converged:
            warnings.warn(
                f"fit: {self.epochs} epochs were not enough for tol={self.tol}; raise epochs, "
                "or use solver='exact'",
                RuntimeWarning,
                stacklevel=3,
            )
        self.modalities_, self.weights_ = names, dict(zip(names, w.tolist(), strict=True))
        self.intercept_ = level - float(mean @ w)
        self.losses_, self.validation_losses_, self.converged_ = losses, held_losses, converged
        return self

    def _descend(
        self, problem: _Problem, held: tuple[Float64, Float64] | None
    ) -> tuple[Float64, list[float], list[float], bool]:
        rng = as_rng(self.random_state)
        size = min(self.batch_size, len(problem.y)) if self.solver == "sgd" else len(problem.y)
        rate = self.learning_rate
        if rate is None:
            rate = problem.safe_rate(size, stochastic=self.solver == "sgd")
        w = np.zeros(problem.x.shape[1])
        enough = self.tol * float(np.linalg.norm(problem.gradient(w)))
        losses, held_losses = [problem.loss(w)], list[float]()
        best, best_w, waited = np.inf, w, 0
        for _ in range(self.epochs):
            if problem.stationarity(w) <= enough:
                return (w if held is None else best_w), losses, held_losses, True
            if self.solver == "gd":
                w = problem.project(w - rate * problem.gradient(w))
            else:
                w = problem.epoch(w, rate, size, rng)
            losses.append(problem.loss(w))
            if not losses[-1] <= 1e6 * (losses[0] + 1e-300):
                raise ValueError(
                    f"learning_rate must be small enough to converge; got {rate}. "
                    "None chooses one that is."
                )
            if held is not None:
                held_losses.append(float(((held[1] - held[0] @ w) ** 2).mean() / 2))
                if held_losses[-1] < best:
                    best, best_w, waited = held_losses[-1], w, 0
                else:
                    waited += 1
                if waited >= self.patience:
                    return best_w, losses, held_losses, True
        converged = problem.stationarity(w) <= enough
        return (w if held is None else best_w), losses, held_losses, converged

    def _check_parameters(self) -> None:
        if self.solver not in ("exact", "gd", "sgd"):
            raise ValueError(f"solver must be 'exact', 'gd' or 'sgd'; got {self.solver!r}")
        for name in ("epochs", "batch_size", "patience"):
            if as_int(getattr(self, name), name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}")
        for name in ("l2", "tol"):
            value = as_float(getattr(self, name), name)
            if not (value >= 0 and np.isfinite(value)):
                raise ValueError(f"{name} must be finite and at least 0; got {value}")
        if self.learning_rate is not None and not as_float(self.learning_rate, "learning_rate") > 0:
            raise ValueError(f"learning_rate must be above 0; got {self.learning_rate}")

    @property
    def coef_(self) -> Float64:
        check_fitted(self, "weights_")
        return np.array([self.weights_[name] for name in self.modalities_])

    @named("predict")
    def predict(self, predictions: ArrayLike | Mapping[str, ArrayLike]) -> Float64:
        """Return the fused prediction of every row: ``predictions @ coef_ + intercept_``.

        Parameters
        ----------
        predictions : array-like of shape (n, M), or mapping modality -> array-like of shape (n,)

        Returns
        -------
        ndarray of shape (n,), float64

        Raises
        ------
        NotFittedError, ValueError
            Before `fit`; if columns differ from those of `fit`.
        """
        check_fitted(self, "weights_")
        names, x = _table(predictions, "predictions")
        if sorted(names) != sorted(self.modalities_):
            raise ValueError(f"predictions must have the columns {self.modalities_}; got {names}")
        columns = [names.index(name) for name in self.modalities_]
        # In one layout: BLAS rounds differently for rows and for columns.
        fused: Float64 = np.ascontiguousarray(x[:, columns]) @ self.coef_ + self.intercept_
        return fused

    @named("score")
    def score(self, predictions: ArrayLike | Mapping[str, ArrayLike], targets: ArrayLike) -> float:
        r"""Return the coefficient of determination.

        .. math:: R^2 = 1 - \frac{\sum_i (y_i - \hat y_i)^2}{\sum_i (y_i - \bar y)^2}

        Parameters
        ----------
        predictions : array-like of shape (n, M), or mapping modality -> array-like of shape (n,)
        targets : array-like of shape (n,)

        Returns
        -------
        float
            1 for a perfect fit. Of equal targets 1 if they are all met, else 0, as in
            scikit-learn.
        """
        fused = self.predict(predictions)
        return determination(_targets(targets, len(fused), "targets"), fused)


def determination(targets: Float64, fused: Float64) -> float:
    """Return the share of the variance of `targets` that `fused` explains."""
    rest = float(((targets - fused) ** 2).sum())
    spread = float(((targets - targets.mean()) ** 2).sum())
    return 1 - rest / spread if spread > 0 else float(rest == 0)


class _Problem:
    """The loss, its gradient and its minimum."""

    def __init__(self, x: Float64, y: Float64, l2: float, nonnegative: bool) -> None:
        self.x, self.y, self.l2, self.nonnegative = x, y, l2, nonnegative
        self.hessian = x.T @ x / len(y) + l2 * np.eye(x.shape[1])
        self.moment = x.T @ y / len(y)

    def loss(self, w: Float64) -> float:
        residuals = self.y - self.x @ w
        return float(residuals @ residuals / (2 * len(self.y)) + self.l2 / 2 * (w @ w))

    def gradient(self, w: Float64) -> Float64:
        return self.hessian @ w - self.moment

    def project(self, w: Float64) -> Float64:
        return np.maximum(w, 0) if self.nonnegative else w

    def stationarity(self, w: Float64) -> float:
        """Return how far a gradient step, were it allowed everywhere, would go."""
        return float(np.linalg.norm(w - self.project(w - self.gradient(w))))

    def exact(self) -> Float64:
        # The penalty as further rows: the normal equations would square the condition number.
        root = np.sqrt(len(self.y) * self.l2)
        rows = np.vstack([self.x, root * np.eye(self.x.shape[1])])
        targets = np.concatenate([self.y, np.zeros(self.x.shape[1])])
        if self.nonnegative:
            return np.asarray(scipy.optimize.nnls(rows, targets)[0])
        return np.asarray(np.linalg.lstsq(rows, targets, rcond=None)[0])

    def safe_rate(self, size: int, *, stochastic: bool) -> float:
        n, largest = len(self.y), float(np.linalg.eigvalsh(self.hessian)[-1])
        if stochastic and n > 1:
            longest = float(np.einsum("ij,ij->i", self.x, self.x).max()) + self.l2
            whole = n * (size - 1) / (size * (n - 1))
            single = (n - size) / (size * (n - 1))
            largest = 4 * max(whole * largest + single * longest, largest)
        return 1 / largest if largest > 0 else 1.0

    def epoch(self, w: Float64, rate: float, size: int, rng: np.random.Generator) -> Float64:
        """Pass over the batches; each corrects the gradient at the start by its own change."""
        start, full = w, self.gradient(w)
        order = rng.permutation(len(self.y))
        for first in range(0, len(order), size):
            rows = self.x[order[first : first + size]]
            moved = w - start
            change = rows.T @ (rows @ moved) / len(rows) + self.l2 * moved
            w = self.project(w - rate * (change + full))
        return w


def _table(predictions: Any, name: str) -> tuple[list[str], Float64]:
    """Return names of columns and the columns, finite and in float64."""
    if isinstance(predictions, Mapping) and not sp.issparse(predictions):  # dok_matrix is a dict
        names = [str(key) for key in predictions]
        columns = [_float64(column, f"{name}[{key!r}]") for key, column in predictions.items()]
        for key, column in zip(names, columns, strict=True):
            if column.ndim != 1 or len(column) != len(columns[0]):
                raise ValueError(
                    f"{name}[{key!r}] must have shape ({len(columns[0])},) like "
                    f"{name}[{names[0]!r}]; got {column.shape}"
                )
        x = np.stack(columns, axis=1) if columns else np.zeros((0, 0))
    else:
        x = _float64(predictions, name)
        of_frame = list(getattr(predictions, "columns", ()))
        names = [str(column) for column in of_frame or range(x.shape[1])] if x.ndim == 2 else []
    if x.ndim != 2 or x.size == 0:
        hint = ". Reshape your data: x[:, None] is one column" if x.ndim == 1 else ""
        raise ValueError(f"{name} must have rows and columns; got shape {x.shape}{hint}")
    return names, _finite(x, name)


def _targets(targets: ArrayLike, n: int, name: str) -> Float64:
    y = _float64(targets, name)
    if y.shape != (n,):
        raise ValueError(f"{name} must have shape ({n},); got {y.shape}")
    return _finite(y, name)


def _float64(x: Any, name: str) -> Float64:
    """Return real numbers in float64: NumPy itself drops imaginary parts with a warning."""
    if sp.issparse(x):
        raise TypeError(f"{name} must be dense; got a sparse {type(x).__name__}")
    array = np.asarray(x)
    if array.dtype.kind == "c":
        raise TypeError(f"{name} must hold real numbers; got dtype {array.dtype}")
    return np.asarray(array, np.float64)


def _finite(x: Float64, name: str) -> Float64:
    wrong = np.argwhere(~np.isfinite(x))
    if len(wrong):
        row = tuple(wrong[0])
        raise ValueError(f"{name} must be finite; got {x[row]} (NaN or infinity) in row {row[0]}")
    return x
