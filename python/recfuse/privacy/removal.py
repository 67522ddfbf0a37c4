"""Removal of users from fitted models."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recfuse._base import check_fitted
from recfuse._inputs import as_csr, as_ids, as_int, check_ids
from recfuse._named import named
from recfuse.fusion import MultimodalRecommender
from recfuse.models import (
    AlternatingLeastSquares,
    ItemNeighbours,
    LabelledModel,
    Popularity,
    UserNeighbours,
)

__all__ = ["forget_users"]

Rows = Callable[[NDArray[Any]], NDArray[Any]]


@named("forget_users")
def forget_users(
    model: Any, users: Any, *, user_items: Any = None, iterations: int | None = None
) -> Any:
    """Return a model without what some users did, and without what the model learned from it.

    The given model stays as it is until it is replaced: a search in progress ends in peace, and
    Ctrl-C leaves a whole model. Delete it, and its files, afterwards.

    What is recomputed, and what the result equals:

    - `ItemNeighbours`, `UserNeighbours`, `Popularity`: everything, from the histories without those
      of the users. The same bytes as a new fit.
    - `AlternatingLeastSquares`: everything, from new starting factors, with ``iterations=None``.
      The same bytes as a new fit, if `random_state` is an integer. With a number of `iterations`,
      that many from the factors at hand, on the histories without those of the users, whose own
      factors become zero: much faster, but what the users did still shows in the start, less with
      every iteration. That is no removal to the letter.
    - `MultimodalRecommender`: its behaviour models as above, histories, popularity, and the users'
      own vectors. The weights of the modalities stay as they are.
    - `LabelledModel`: the model inside of it; and the ids themselves go.

    But for the last one, user ids keep their meaning: a forgotten user has an empty row, and "a new
    fit" is one on the matrix with those rows emptied.

    Parameters
    ----------
    model : a fitted model of one of these classes
    users : int or array-like of int; for a `LabelledModel` a sequence of its ids
    user_items : sparse of shape (n_users, n_items), or Interactions, optional
        The matrix of the fit, with the users or without: needed for `AlternatingLeastSquares` and
        `Popularity`, which keep no histories.
    iterations : int, optional
        For factors, as above.

    Returns
    -------
    model
        Of the same class, with the same parameters.

    Raises
    ------
    NotFittedError
        Before `fit`.
    TypeError
        If the model is of another class.
    IndexError, KeyError
        If a user is unknown.
    ValueError
        If `user_items` is needed and missing, or has another shape than that of the fit.

    Examples
    --------
    >>> import scipy.sparse as sp, recfuse
    >>> from recfuse.privacy import forget_users
    >>> likes = sp.csr_array([[1, 1, 0], [1, 0, 1], [0, 1, 1]])
    >>> model = recfuse.ItemNeighbours(k=2).fit(likes)
    >>> model.similar_items(0, k=2)[0].tolist()
    [[1, 2]]
    >>> forget_users(model, [0]).similar_items(0, k=2)[0].tolist()  # 0 with 1: that was user 0
    [[2, -1]]
    """
    if iterations is not None and as_int(iterations, "iterations") < 1:
        raise ValueError(f"iterations must be at least 1; got {iterations}")
    if isinstance(model, LabelledModel):
        return _forget_labels(model, users, user_items, iterations)
    history = _history(model, user_items)
    gone = check_ids(as_ids(users, "users"), history.shape[0], "users")
    stays = np.ones(history.shape[0], bool)
    stays[gone] = False
    return _fitted_again(model, _emptied(history, stays), _zeroed(stays), iterations)


def _history(model: Any, user_items: Any) -> sp.csr_array:
    """Return the matrix of the fit: the one given, or the one that the model keeps."""
    kinds = (AlternatingLeastSquares, ItemNeighbours, MultimodalRecommender)
    if not isinstance(model, (*kinds, Popularity, UserNeighbours)):
        raise TypeError(
            f"model must be one whose parts are known; got {type(model).__name__}. Fit it anew."
        )
    shape: tuple[int, int]
    if isinstance(model, AlternatingLeastSquares):
        check_fitted(model, "item_factors_")
        kept, shape = None, (len(model.user_factors_), len(model.item_factors_))
    elif isinstance(model, Popularity):
        check_fitted(model, "item_scores_")
        kept, shape = None, (model.n_users_, len(model.item_scores_))
    else:
        check_fitted(model, "user_items_")
        kept, shape = model.user_items_, model.user_items_.shape
    if user_items is None and kept is None:
        raise ValueError(
            f"user_items must be given for {type(model).__name__}, which keeps no histories; "
            "got None"
        )
    history = as_csr(kept if user_items is None else user_items, "user_items")
    if history.shape != shape:
        raise ValueError(f"user_items must have the shape of the fit {shape}; got {history.shape}")
    return history


def _emptied(history: sp.csr_array, stays: NDArray[np.bool_]) -> sp.csr_array:
    """Return a matrix with empty rows for the users that do not stay."""
    counts = np.diff(history.indptr)
    keep = np.repeat(stays, counts)
    indptr = np.append(0, np.cumsum(np.where(stays, counts, 0)))
    return sp.csr_array(
        (history.data[keep], history.indices[keep], indptr.astype(history.indptr.dtype)),
        shape=history.shape,
    )


def _zeroed(stays: NDArray[np.bool_]) -> Rows:
    def rows(array: NDArray[Any]) -> NDArray[Any]:
        return np.where(stays.reshape(-1, *[1] * (array.ndim - 1)), array, array.dtype.type(0))

    return rows


def _fitted_again(model: Any, history: sp.csr_array, rows: Rows, iterations: int | None) -> Any:
    """Return a model of the same parameters; `rows` makes arrays of users fit to `history`."""
    if isinstance(model, MultimodalRecommender):
        return _multimodal_again(model, history, rows, iterations)
    fresh = type(model)(**model.get_params(deep=False))
    if iterations is None or not isinstance(model, AlternatingLeastSquares):
        return fresh.fit(history)
    return _continued(fresh, model, history, rows, iterations)


def _continued(
    fresh: AlternatingLeastSquares,
    model: AlternatingLeastSquares,
    history: sp.csr_array,
    rows: Rows,
    iterations: int,
) -> AlternatingLeastSquares:
    """Go on from the factors of `model`, without those of the users that are gone."""
    none = np.zeros(0, np.float32)
    solver = fresh._solver(history)
    solver.set_factors(
        np.ascontiguousarray(rows(model.user_factors_)),
        np.ascontiguousarray(model.item_factors_),
        np.ascontiguousarray(rows(model.user_biases_)) if model.biases else none,
        np.ascontiguousarray(model.item_biases_) if model.biases else none,
    )
    losses = []
    for _ in range(iterations):
        solver.step(fresh.num_threads)
        if fresh.compute_loss:
            losses.append(solver.loss(fresh.num_threads))
    fresh._learn(solver, losses)
    return fresh


def _multimodal_again(
    model: MultimodalRecommender, history: sp.csr_array, rows: Rows, iterations: int | None
) -> MultimodalRecommender:
    result = copy.copy(model)
    result.models_ = {
        name: _fitted_again(part, history, rows, iterations) for name, part in model.models_.items()
    }
    if model.behaviour is not None:  # fitted in place: the old ones would go on, and be saved
        result.behaviour = result.models_
    content = {}
    for name, block in model.content_.items():
        content[name] = block.asked_with(None if block.users is None else rows(block.users))
    of_users = getattr(model, "user_weights_", None)  # a file of an earlier version has none
    if of_users is not None:  # which would tell the segment of a forgotten user
        stays = rows(np.ones((model.user_items_.shape[0], 1), np.float32))[:, 0] > 0
        result.user_weights_ = {
            name: np.where(stays, rows(weights[:, None])[:, 0], model.weights_[name])
            for name, weights in of_users.items()
        }
    result.content_, result.user_items_ = content, history
    result._built_index = None  # made again from the parts at first use
    return result


def _forget_labels(
    model: LabelledModel, users: Any, user_items: Any, iterations: int | None
) -> LabelledModel:
    check_fitted(model, "users_")
    if user_items is not None:
        raise ValueError("user_items must be None for a LabelledModel, which keeps them; got some")
    position = {label: row for row, label in enumerate(model.users_.tolist())}
    unknown = [user for user in users if user not in position]
    if unknown:
        raise KeyError(f"users must be known; got {unknown[0]!r}")
    stays = np.ones(len(position), bool)
    stays[[position[user] for user in users]] = False
    history = model.interactions_[stays]
    _history(model.model, model.interactions_)  # or an error
    result = LabelledModel(_fitted_again(model.model, history, lambda x: x[stays], iterations))
    result.users_, result.items_ = model.users_[stays], model.items_
    result.interactions_ = history
    return result
