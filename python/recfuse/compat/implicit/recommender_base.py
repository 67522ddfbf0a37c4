"""What every model of implicit has."""

from __future__ import annotations

import warnings
from abc import ABCMeta, abstractmethod
from typing import Any

from numpy.typing import NDArray

__all__ = ["ModelFitError", "RecommenderBase"]

Lists = tuple[NDArray[Any], NDArray[Any]]


class ModelFitError(ValueError):
    """A model cannot be fitted to these data."""


class RecommenderBase(metaclass=ABCMeta):
    """The interface of implicit's models; arguments as there."""

    num_threads: int

    @property
    def _threads(self) -> int:
        return max(0, self.num_threads)  # programs pass -1 for all of them

    @abstractmethod
    def fit(self, user_items: Any, show_progress: bool = True, callback: Any = None) -> None:
        """Learn from a sparse matrix of shape (n_users, n_items)."""

    @abstractmethod
    def recommend(
        self,
        userid: Any,
        user_items: Any,
        N: int = 10,
        filter_already_liked_items: bool = True,
        filter_items: Any = None,
        recalculate_user: bool = False,
        items: Any = None,
    ) -> Lists:
        """Return ids and scores, best first: vectors for one user, matrices for several."""

    @abstractmethod
    def similar_users(
        self, userid: Any, N: int = 10, filter_users: Any = None, users: Any = None
    ) -> Lists:
        """Return ids and scores of similar users, best first."""

    @abstractmethod
    def similar_items(
        self,
        itemid: Any,
        N: int = 10,
        recalculate_item: bool = False,
        item_users: Any = None,
        filter_items: Any = None,
        items: Any = None,
    ) -> Lists:
        """Return ids and scores of similar items, best first."""

    @abstractmethod
    def save(self, fileobj_or_path: Any) -> None:
        """Write the model as ``.npz``, which implicit reads, too."""

    @classmethod
    @abstractmethod
    def load(cls, fileobj_or_path: Any) -> RecommenderBase:
        """Read what `save` or implicit has written; nothing is unpickled."""

    def rank_items(
        self, userid: Any, user_items: Any, selected_items: Any, recalculate_user: bool = False
    ) -> Lists:
        """Rank chosen items; deprecated in implicit for `recommend` with `items`."""
        warnings.warn(
            "rank_items is deprecated. Use recommend with the 'items' parameter instead",
            DeprecationWarning,
            stacklevel=2,
        )
        return self.recommend(
            userid,
            user_items,
            N=len(selected_items),
            recalculate_user=recalculate_user,
            items=selected_items,
            filter_already_liked_items=False,
        )
