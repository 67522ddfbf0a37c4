"""Stacking: models of single modalities, and one more that learns from their predictions."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from recfuse._base import Estimator, check_fitted
from recfuse._inputs import as_int, as_rng
from recfuse._named import named
from recfuse._progress import progress
from recfuse.fusion.linear import LinearFusion, determination

__all__ = ["StackingFusion"]

Float64 = NDArray[np.float64]


class StackingFusion(Estimator):
    r"""Stack regressors: one per modality, and a meta-model over their predictions.

    The meta-model learns from predictions for rows that the base models have not seen: the data
    are cut into folds, and a fold is predicted by models of the others [1]_. Learnt from
    predictions of their own training data it would trust the model that remembers most. Then
    every base model is fitted once more, on everything.

    Parameters
    ----------
    base : regressor, or mapping modality -> regressor
        Anything with ``fit(X, y)`` and ``predict(X)``, such as scikit-learn's; one is copied for
        every modality. They are copied, never changed.
    meta : 'nonnegative', 'ridge' or regressor, default='nonnegative'
        `LinearFusion` with an intercept, without or with negative weights; or a regressor, such as
        scikit-learn's SVR.
    l2 : float, default=1e-3
        Penalty of the two native meta-models.
    folds : int, default=5
    random_state : int, Generator or None, default=0
        Of the folds.

    Attributes
    ----------
    modalities_ : list of str
    base_models_ : dict of str to regressor
        Fitted on everything.
    meta_model_ : regressor
    out_of_fold_ : ndarray of shape (n, n_modalities), float64
        What the meta-model has learnt from.
    errors_ : dict of str to float
        Mean squared error on unseen rows: of every modality, and "fused" of the stack, whose
        meta-model is fitted on the other folds for that.

    References
    ----------
    .. [1] D. H. Wolpert, "Stacked generalization", Neural Networks 5(2), 1992;
       L. Breiman, "Stacked regressions", Machine Learning 24, 1996 (weights that are not negative).

    Examples
    --------
    >>> import numpy as np
    >>> from recfuse.fusion import LinearFusion, StackingFusion
    >>> rng = np.random.default_rng(0)
    >>> behaviour, content = rng.random((40, 3)), rng.random((40, 2))
    >>> ratings = behaviour[:, 0] + 2 * content[:, 1]
    >>> stack = StackingFusion(LinearFusion(fit_intercept=True))
    >>> stack = stack.fit({"behaviour": behaviour, "content": content}, ratings)
    >>> stack.errors_["fused"] < min(stack.errors_["behaviour"], stack.errors_["content"])
    True
    >>> stack.predict({"behaviour": behaviour[:2], "content": content[:2]}).shape
    (2,)
    """

    def __init__(
        self,
        base: Any,
        meta: Any = "nonnegative",
        *,
        l2: float = 1e-3,
        folds: int = 5,
        random_state: int | np.random.Generator | None = 0,
    ) -> None:
        self.base = base
        self.meta = meta
        self.l2 = l2
        self.folds = folds
        self.random_state = random_state

    _is_regressor = True
    _input_tags = ("dict",)

    @named("fit")
    def fit(
        self,
        blocks: Mapping[str, Any],
        targets: ArrayLike,
        *,
        groups: ArrayLike | None = None,
        show_progress: bool = False,
    ) -> StackingFusion:
        """Fit the base models and the meta-model.

        Parameters
        ----------
        blocks : mapping modality -> array-like or sparse of shape (n, dim_m)
            Features of every modality, row by row the same users, items or pairs.
        targets : array-like of shape (n,)
        groups : array-like of shape (n,), optional
            Rows of one group are never in two folds: of one user, say.
        show_progress : bool, default=False

        Raises
        ------
        TypeError, ValueError
            If shapes differ, there are fewer rows or groups than folds, or a parameter is wrong.
        """
        rows = _rows(blocks)
        y = np.asarray(targets, np.float64)
        n = _n_rows(rows)
        if y.shape != (n,):
            raise ValueError(f"targets must have shape ({n},); got {y.shape}")
        base = self._base_of(list(rows))
        fold_of = self._folds(n, groups)
        held_out = np.empty((n, len(rows)))
        steps = [(fold, name) for fold in range(self.folds) for name in rows]
        for fold, name in progress(steps, description="fit", enabled=show_progress):
            inside, outside = fold_of == fold, fold_of != fold
            model = _clone(base[name]).fit(rows[name][outside], y[outside])
            held_out[inside, list(rows).index(name)] = _predicted(model, rows[name][inside], name)
        fused = np.empty(n)
        for fold in range(self.folds):
            inside, outside = fold_of == fold, fold_of != fold
            meta = self._new_meta().fit(held_out[outside], y[outside])
            fused[inside] = _predicted(meta, held_out[inside], "meta")
        meta = self._new_meta().fit(held_out, y)
        models = {name: _clone(base[name]).fit(x, y) for name, x in rows.items()}
        # Set together, so that an interrupted fit leaves the model as it was.
        errors = ((held_out - y[:, None]) ** 2).mean(axis=0).tolist()
        self.errors_ = dict(zip(rows, errors, strict=True))
        self.errors_["fused"] = float(((fused - y) ** 2).mean())
        self.modalities_, self.base_models_, self.meta_model_ = list(rows), models, meta
        self.out_of_fold_ = held_out
        return self

    @named("predict")
    def predict(self, blocks: Mapping[str, Any]) -> Float64:
        """Return the stack's prediction of every row.

        Parameters
        ----------
        blocks : mapping modality -> array-like or sparse of shape (n, dim_m)

        Returns
        -------
        ndarray of shape (n,), float64

        Raises
        ------
        NotFittedError, TypeError, ValueError
            Before `fit`; if modalities or shapes differ.
        """
        predictions = self.base_predictions(blocks)
        return _predicted(self.meta_model_, predictions, "meta")

    @named("score")
    def score(self, blocks: Mapping[str, Any], targets: ArrayLike) -> float:
        """Return the coefficient of determination of `predict`; as `LinearFusion.score`."""
        fused = self.predict(blocks)
        y = np.asarray(targets, np.float64)
        if y.shape != fused.shape:
            raise ValueError(f"targets must have shape {fused.shape}; got {y.shape}")
        return determination(y, fused)

    @named("base_predictions")
    def base_predictions(self, blocks: Mapping[str, Any]) -> Float64:
        """Return what the base models predict: ndarray of shape (n, n_modalities), float64."""
        check_fitted(self, "base_models_")
        rows = _rows(blocks)
        if sorted(rows) != sorted(self.modalities_):
            raise ValueError(
                f"blocks must have the modalities {self.modalities_}; got {list(rows)}"
            )
        columns = [_predicted(model, rows[name], name) for name, model in self.base_models_.items()]
        return np.stack(columns, axis=1)

    def _base_of(self, names: list[str]) -> dict[str, Any]:
        if not isinstance(self.base, Mapping):
            return dict.fromkeys(names, self.base)
        if sorted(self.base) != sorted(names):
            raise ValueError(f"base must have the modalities {names}; got {list(self.base)}")
        return {name: self.base[name] for name in names}

    def _new_meta(self) -> Any:
        if isinstance(self.meta, str):
            if self.meta not in ("nonnegative", "ridge"):
                raise ValueError(
                    f"meta must be 'nonnegative', 'ridge' or a regressor; got {self.meta!r}"
                )
            bounded = self.meta == "nonnegative"
            return LinearFusion(l2=self.l2, fit_intercept=True, nonnegative=bounded)
        return _clone(self.meta)

    def _folds(self, n: int, groups: ArrayLike | None) -> NDArray[np.int64]:
        """Return the fold of every row, the same for all rows of a group."""
        if as_int(self.folds, "folds") < 2:
            raise ValueError(f"folds must be at least 2; got {self.folds}")
        if groups is None:
            group_of = np.arange(n)
        else:
            labels = np.asarray(groups)
            if labels.shape != (n,):
                raise ValueError(f"groups must have shape ({n},); got {labels.shape}")
            group_of = np.unique(labels, return_inverse=True)[1]
        n_groups = int(group_of.max(initial=-1)) + 1
        if n_groups < self.folds:
            raise ValueError(
                f"folds must be at most the number of rows or groups ({n_groups}); got {self.folds}"
            )
        shuffled = as_rng(self.random_state).permutation(n_groups) % self.folds
        fold_of: NDArray[np.int64] = shuffled[group_of]
        return fold_of


def _clone(model: Any) -> Any:
    """Return the unfitted model: nothing that it has learnt before may leak into a fold."""
    if not (hasattr(model, "fit") and hasattr(model, "predict")):
        raise TypeError(
            f"base and meta must have fit and predict, like scikit-learn's regressors; "
            f"got {type(model).__name__}"
        )
    if isinstance(model, Estimator):
        return type(model)(**model.get_params(deep=False))
    if hasattr(model, "get_params"):
        try:
            from sklearn.base import clone
        except ImportError:
            pass
        else:
            return clone(model)
    return copy.deepcopy(model)


def _rows(blocks: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(blocks, Mapping):
        raise TypeError(f"blocks must be a mapping modality -> array; got {type(blocks).__name__}")
    if not blocks:
        raise ValueError("blocks must have at least 1 modality; got none")
    rows = {
        name: sp.csr_array(x) if sp.issparse(x) else np.asarray(x) for name, x in blocks.items()
    }
    first = next(iter(rows))
    for name, x in rows.items():
        if x.ndim != 2:
            raise ValueError(f"blocks[{name!r}] must have 2 dimensions; got shape {x.shape}")
        if x.shape[0] != rows[first].shape[0]:
            raise ValueError(
                f"blocks[{name!r}] must have {rows[first].shape[0]} rows like "
                f"blocks[{first!r}]; got {x.shape[0]}"
            )
    return rows


def _n_rows(rows: Mapping[str, Any]) -> int:
    return int(next(iter(rows.values())).shape[0])


def _predicted(model: Any, x: Any, name: str) -> Float64:
    out = np.asarray(model.predict(x), np.float64)
    if out.shape != (x.shape[0],):
        raise ValueError(
            f"base[{name!r}] must predict one number per row ({x.shape[0]},); got {out.shape}"
        )
    return out
