"""What a model does with its factors: lists of items and of users."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recfuse._inputs import as_matrix
from recfuse.compat.implicit._search import (
    Lists,
    chosen_ids,
    given,
    length_of,
    liked_items,
    lists,
)
from recfuse.compat.implicit.recommender_base import ModelFitError, RecommenderBase
from recfuse.errors import NotFittedError
from recfuse.index import FusedIndex

__all__ = ["MatrixFactorizationBase"]


class MatrixFactorizationBase(RecommenderBase):
    """A model of factors, whose scores are inner products.

    Attributes
    ----------
    user_factors : ndarray of shape (n_users, factors), or None before `fit`
    item_factors : ndarray of shape (n_items, factors), or None before `fit`
        Read-only once they were searched, because a search keeps a rounded copy: to change them,
        assign a changed copy.
    num_threads : int
    """

    # Of the classes, so that models without them, from pickles of implicit, have them, too.
    _device = "cpu"
    _made: dict[str, Any] | None = None  # indexes, by name

    def __init__(self, num_threads: int = 0) -> None:
        self.user_factors: Any = None
        self.item_factors: Any = None
        self._user_norms: Any = None
        self._item_norms: Any = None
        self.num_threads = num_threads

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is made again at the first search."""
        return {name: value for name, value in vars(self).items() if name != "_made"}

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
        """Recommend items to one user, or to several.

        Parameters
        ----------
        userid : int or array-like of int
        user_items : csr_matrix
            The histories of the queried users, one row each in the order of `userid`.
        N : int, default=10
            Length of the lists; no longer than the items that there are.
        filter_already_liked_items : bool, default=True
            Put what `user_items` has at the end, with the least float as its score.
        filter_items : array-like of int, optional
            Items to put at the end for everybody.
        recalculate_user : bool, default=False
            Solve for the factors of `user_items` instead of taking those of the fit.
        items : array-like of int, optional
            Rank these alone; not together with `filter_items`.

        Returns
        -------
        ids : ndarray of shape (N,) or (n_users, N), int32, or the dtype of `items`
        scores : ndarray of the same shape, of the dtype of the factors
            Descending; equal scores by id descending.

        Raises
        ------
        ValueError, IndexError
            If a shape is wrong, or an id unknown.
        """
        scalar = np.isscalar(userid)
        n_users, n_items = 1 if scalar else len(userid), len(_learned(self.item_factors))
        liked = None
        if filter_already_liked_items or recalculate_user:
            liked = liked_items(user_items, n_users, n_items)
        if recalculate_user:
            users = np.atleast_2d(self.recalculate_user(userid, user_items))
        else:
            users = _rows(self.user_factors, userid, "userid")
        allowed, filter_items = None, given(filter_items)
        if items is not None:
            if filter_items is not None:
                raise ValueError("Can't set both items and filter_items in recommend call")
            allowed = chosen_ids(items, n_items, "items")
        ids, scores = lists(
            self._index("item_factors", "dot"),
            users,
            min(length_of(N), n_items if allowed is None else len(allowed)),
            liked=liked if filter_already_liked_items else None,
            filtered=filter_items,
            allowed=allowed,
            dtype=self.item_factors.dtype,
        )
        if allowed is not None:
            ids = ids.astype(allowed.dtype, copy=False)
        return (ids[0], scores[0]) if scalar else (ids, scores)

    def recommend_all(
        self,
        user_items: Any,
        N: int = 10,
        recalculate_user: bool = False,
        filter_already_liked_items: bool = True,
        filter_items: Any = None,
        users_items_offset: int = 0,
    ) -> NDArray[Any]:
        """Return the ids of `recommend` for all users; deprecated in implicit."""
        warnings.warn(
            "recommend_all is deprecated. Use recommend with an array of userids instead",
            DeprecationWarning,
            stacklevel=2,
        )
        return self.recommend(
            np.arange(user_items.shape[0]) + users_items_offset,
            user_items,
            N=N,
            filter_already_liked_items=filter_already_liked_items,
            filter_items=filter_items,
            recalculate_user=recalculate_user,
        )[0]

    def similar_users(
        self, userid: Any, N: int = 10, filter_users: Any = None, users: Any = None
    ) -> Lists:
        """Find users with the largest cosine between factors, the user among them.

        Parameters
        ----------
        userid : int or array-like of int
        N : int, default=10
        filter_users : array-like of int, optional
            Users to put at the end.
        users : array-like of int, optional
            Look among these alone.

        Returns
        -------
        ids, scores : ndarray of shape (N,) or (n, N)
            As of `recommend`.
        """
        factors = _rows(self.user_factors, userid, "userid")
        return self._similar("user", factors, N, filter_users, users, np.isscalar(userid))

    def similar_items(
        self,
        itemid: Any,
        N: int = 10,
        recalculate_item: bool = False,
        item_users: Any = None,
        filter_items: Any = None,
        items: Any = None,
    ) -> Lists:
        """Find items with the largest cosine between factors, the item among them.

        Parameters
        ----------
        itemid : int or array-like of int
        N : int, default=10
        recalculate_item : bool, default=False
            Solve for the factors of `item_users` instead of taking those of the fit.
        item_users : csr_matrix of shape (n, n_users), optional
        filter_items : array-like of int, optional
            Items to put at the end.
        items : array-like of int, optional
            Look among these alone.

        Returns
        -------
        ids, scores : ndarray of shape (N,) or (n, N)
            As of `recommend`.
        """
        if recalculate_item:
            factors = np.atleast_2d(self.recalculate_item(itemid, item_users))
        else:
            factors = _rows(self.item_factors, itemid, "itemid")
        return self._similar("item", factors, N, filter_items, items, np.isscalar(itemid))

    def _similar(
        self, side: str, queries: NDArray[Any], N: int, filtered: Any, among: Any, scalar: bool
    ) -> Lists:
        factors = _learned(getattr(self, f"{side}_factors"))
        allowed, filtered = None, given(filtered)
        if among is not None:
            if filtered is not None:
                raise ValueError(
                    f"Can't set both {side}s and filter_{side}s in similar_{side}s call"
                )
            allowed = chosen_ids(among, len(factors), f"{side}s")
        ids, scores = lists(
            self._index(f"{side}_factors", "cosine"),
            queries,
            min(length_of(N), len(factors) if allowed is None else len(allowed)),
            filtered=filtered,
            allowed=allowed,
            dtype=factors.dtype,
        )
        if allowed is not None:
            ids = ids.astype(allowed.dtype, copy=False)
        return (ids[0], scores[0]) if scalar else (ids, scores)

    def recalculate_user(self, userid: Any, user_items: Any) -> NDArray[Any]:
        """Return factors of users, from their histories."""
        raise NotImplementedError("recalculate_user: this model cannot solve for factors")

    def recalculate_item(self, itemid: Any, item_users: Any) -> NDArray[Any]:
        """Return factors of items, from their users."""
        raise NotImplementedError("recalculate_item: this model cannot solve for factors")

    def _index(self, name: str, metric: str) -> FusedIndex:
        """Return the index of factors, made when they are searched for the first time."""
        made = f"{name} {metric}"
        known = self._known(made, (getattr(self, name), self._threads, self._device))
        return known if known is not None else self._make_index(name, metric, made)

    def _make_index(self, name: str, metric: str, made: str) -> FusedIndex:
        key = (getattr(self, name), self._threads, self._device)

        def make() -> FusedIndex:
            return FusedIndex(
                {"factors": as_matrix(key[0], name)},
                metric=metric,
                device=self._device,
                num_threads=self._threads,
            )

        if key[0].flags.writeable:
            view = key[0].view()
            view.flags.writeable = False
            setattr(self, name, view)
            key = (view, *key[1:])
        index: FusedIndex = self._made_once(made, key, make)
        return index

    def _known(self, name: str, key: tuple[Any, ...]) -> Any:
        """Return what was made of the very same key, else None."""
        known = None if self._made is None else self._made.get(name)
        return known[1] if known is not None and all(map(operator.is_, known[0], key)) else None

    def _made_once(self, name: str, key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        """Return ``make()``, made anew where an element of the key is another than last time."""
        known = self._known(name, key)
        if known is None:
            known = make()
            if self._made is None:
                self._made = {}
            self._made[name] = (key, known)
        return known

    def _forget(self, name: str) -> None:
        """Drop what was made of changed factors."""
        self._made = None

    @property
    def user_norms(self) -> NDArray[Any]:
        """Lengths of the factors of users, 1e-10 where they are 0."""
        if self._user_norms is None:
            self._user_norms = _norms(_learned(self.user_factors))
        norms: NDArray[Any] = self._user_norms
        return norms

    @property
    def item_norms(self) -> NDArray[Any]:
        """Lengths of the factors of items, 1e-10 where they are 0."""
        if self._item_norms is None:
            self._item_norms = _norms(_learned(self.item_factors))
        norms: NDArray[Any] = self._item_norms
        return norms

    def _check_fit_errors(self) -> None:
        for factors in (self.user_factors, self.item_factors):
            if factors.size and np.isnan(factors.min()):  # NaN where any element is
                raise ModelFitError("NaN encountered in factors")


def _learned(factors: Any) -> NDArray[Any]:
    if factors is None:
        raise NotFittedError("fit must be called before this method; got an unfitted model")
    array: NDArray[Any] = factors
    return array


def _rows(factors: Any, ids: Any, name: str) -> NDArray[Any]:
    """Return the rows of ids as a matrix; a negative id is none, as anywhere else."""
    n = len(_learned(factors))
    if isinstance(ids, (int, np.integer)) and 0 <= ids < n:  # the usual request
        row: NDArray[Any] = factors[ids : ids + 1]
        return row
    at = np.asarray(ids).reshape(1) if np.isscalar(ids) else np.asarray(ids)
    if at.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers; got dtype {at.dtype}")
    if at.size and not 0 <= at.min() <= at.max() < n:
        wrong = at[(at < 0) | (at >= n)][0]
        raise IndexError(f"{name} must be in [0, {n}); got {wrong}")
    rows: NDArray[Any] = factors[at]
    return rows


def _norms(factors: NDArray[Any]) -> NDArray[Any]:
    norms: NDArray[Any] = np.linalg.norm(factors, axis=-1)
    norms[norms == 0] = 1e-10
    return norms


def _filter_items_from_sparse_matrix(items: Any, query_items: Any) -> sp.csr_matrix:
    """Return which of the chosen, ascending items every row has, by their place among them."""
    coo = query_items.tocoo()
    places = np.clip(np.searchsorted(items, coo.col), 0, len(items) - 1)
    there = np.asarray(items)[places] == coo.col
    shape = (query_items.shape[0], len(items))
    return sp.csr_matrix((coo.data[there], (coo.row[there], places[there])), shape=shape)
