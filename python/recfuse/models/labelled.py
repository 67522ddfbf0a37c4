"""A model that speaks in the ids of its users, whatever they are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recfuse._base import Estimator, check_fitted
from recfuse._id_table import IdTable
from recfuse._named import named
from recfuse._retrieval import Retrieval, Seen
from recfuse.interactions import Interactions
from recfuse.models._made import MadeOnce

__all__ = ["LabelledModel"]


class LabelledModel(MadeOnce):
    """Wrap a model so that users and items go by their own ids: strings, numbers, any language.

    Parameters
    ----------
    model : estimator
        Fitted in place.

    Attributes
    ----------
    users_, items_ : ndarray
        The ids, in the order of the model's rows and columns.
    interactions_ : csr_array of shape (n_users, n_items)
        What was fitted on, and is left out of the lists.

    Examples
    --------
    >>> import recfuse
    >>> events = recfuse.Interactions.from_arrays(
    ...     ["ann", "ann", "bob", "bob"], ["茶", "tea", "茶", "rice"]
    ... )
    >>> model = recfuse.LabelledModel(recfuse.ItemNeighbours(k=2)).fit(events)
    >>> items, scores = model.recommend(["bob"], k=1)
    >>> items.tolist()
    [['tea']]
    """

    _input_tags = ()

    def __init__(self, model: Any) -> None:
        self.model = model

    @named("fit")
    def fit(self, interactions: Interactions, y: Any = None, **fit_params: Any) -> LabelledModel:
        """Fit the model on the matrix of `interactions`; further arguments go to its `fit`.

        `y` is ignored.
        """
        if not isinstance(interactions, Interactions):
            raise TypeError(f"interactions must be Interactions; got {type(interactions).__name__}")
        matrix = interactions.to_csr()
        self.model.fit(matrix, **fit_params)
        self.users_, self.items_ = interactions.users, interactions.items
        self.interactions_ = matrix
        return self

    def _retrieval(self) -> Retrieval:
        check_fitted(self, "users_")
        inner: Retrieval = self.model._retrieval()
        return replace(
            inner,
            user_ids=IdTable.of(self.users_, "users_"),
            item_ids=IdTable.of(self.items_, "items_"),
            seen=inner.seen or Seen.of(self.interactions_),
        )

    def _holds_retrieval(self) -> bool:
        return isinstance(self.model, Estimator) and self.model._holds_retrieval()

    @named("recommend")
    def recommend(
        self, users: Any, k: int = 10, *, exclude_seen: bool = True, **options: Any
    ) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """Recommend items to users, by their ids.

        Parameters
        ----------
        users : sequence of ids
        k : int, default=10
        exclude_seen : bool, default=True
            Leave out what the user already has.
        **options
            For the model's `recommend`.

        Returns
        -------
        items : ndarray of shape (n, k), object
            Ids, best first; None for padding.
        scores : ndarray of shape (n, k), float32
            -inf for padding.

        Raises
        ------
        NotFittedError
            Before `fit`.
        TypeError
            If `users` is one string.
        KeyError
            If an id is unknown.
        """
        rows = self._rows(users)
        history = self.interactions_[rows] if exclude_seen else None
        ids, scores = self.model.recommend(rows, k, user_items=history, **options)[:2]
        return self._item_labels(ids), scores

    @named("recommend_new_users")
    def recommend_new_users(
        self, events: Interactions, k: int = 10, **options: Any
    ) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """Recommend items to people by their events alone; the model need not know them.

        Parameters
        ----------
        events : Interactions
            Of any users, with items of the model.
        k : int, default=10
        **options
            For the model's `recommend_new_users` (`MultimodalRecommender`) or `recommend`.

        Returns
        -------
        items, scores
            As `recommend`, a row for each of ``events.users``, without what they already have.

        Raises
        ------
        NotFittedError, KeyError
            Before `fit`; if an item is unknown.
        TypeError
            If `events` are no Interactions, or the model speaks of its own users alone.
        """
        check_fitted(self, "users_")
        if not isinstance(events, Interactions):
            raise TypeError(f"events must be Interactions; got {type(events).__name__}")
        used, where = np.unique(events.item_index, return_inverse=True)
        items = self._places("items_", events.items[used].tolist(), "items")
        entries = (events.values, (events.user_index, items[where.ravel()]))
        history = sp.csr_array(entries, shape=(events.n_users, len(self.items_)), dtype=np.float32)
        history.sum_duplicates()
        if hasattr(self.model, "recommend_new_users"):
            found = self.model.recommend_new_users(history, k, **options)
        elif hasattr(self.model, "score_users"):
            raise TypeError(
                f"model must speak of people that it does not know; got {type(self.model).__name__}"
            )
        else:
            if hasattr(self.model, "fold_in"):
                options["recalculate_user"] = True
            found = self.model.recommend(
                np.arange(events.n_users), k, user_items=history, **options
            )
        return self._item_labels(found[0]), found[1]

    @named("recommend_new_items")
    def recommend_new_items(
        self, users: Any, items: Any, k: int = 10
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Rank items that the model does not have, for users by their ids.

        `items`, results and errors are those of `MultimodalRecommender.recommend_new_items`, the
        only model that does: others raise TypeError.
        """
        if not hasattr(self.model, "recommend_new_items"):
            raise TypeError(f"model must fuse content; got {type(self.model).__name__}")
        found: tuple[Any, Any] = self.model.recommend_new_items(self._rows(users), items, k)
        return found

    def _rows(self, users: Any) -> NDArray[np.int64]:
        check_fitted(self, "users_")
        if isinstance(users, (str, bytes)):
            raise TypeError(f"users must be a sequence of ids; got {users!r}")
        return self._places("users_", users, "users")

    def _places(self, space: str, labels: Any, name: str) -> NDArray[np.int64]:
        """Return where ids are in a space of ids."""
        ids = getattr(self, space)
        place_of = self._made_once(space, ids, lambda: _places(ids))
        try:
            return np.array([place_of[label] for label in labels], np.int64)
        except KeyError as error:
            raise KeyError(f"recommend: {name} must be known; got {error.args[0]!r}") from None

    def _item_labels(self, ids: NDArray[np.int32]) -> NDArray[Any]:
        labels = self._made_once("labels", self.items_, lambda: [*self.items_.tolist(), None])
        out = np.empty(ids.shape, object)  # id -1, padding, is the last one
        out.ravel()[:] = [labels[i] for i in ids.ravel().tolist()]
        return out


def _places(labels: NDArray[Any]) -> dict[Any, int]:
    return {label: place for place, label in enumerate(labels.tolist())}
