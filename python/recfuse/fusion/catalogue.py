"""Changes between fits: users with new events, items that come, change and go."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from recfuse._base import check_fitted
from recfuse._inputs import as_csr, as_ids, as_matrix, check_ids
from recfuse._named import named
from recfuse.fusion._fitted import FittedRecommender
from recfuse.fusion.blocks import ContentBlock, presence_of
from recfuse.models._als_live import continued_ids, with_rows

__all__ = ["Catalogue"]


class Catalogue(FittedRecommender):
    """The part of `MultimodalRecommender` that keeps up with its users and items.

    Every change is made on copies and takes effect as a whole, or not at all; the index is made
    again at the next request. That is a look at every vector, which takes less time than the copy
    that `FusedIndex.update` makes; moments of items that stay are taken over. Weights,
    similarities of items and factors of others stay as they are until the next fit.
    """

    @named("partial_fit_users")
    def partial_fit_users(self, user_ids: ArrayLike, user_items: Any) -> Catalogue:
        """Replace the histories of users, or append users, without a fit.

        Factors of these users are solved for again (`AlternatingLeastSquares.partial_fit_users`);
        neighbours and content go by the new history anyway, and popularity counts it. For one
        request there and then, without a change of the model, see `recommend_new_users`.

        Parameters
        ----------
        user_ids : int or array-like of int
            Known ids are replaced; new ones must continue those of the model without a gap.
        user_items : sparse of shape (n_rows, n_items)
            The *whole* history of every user.

        Returns
        -------
        self

        Raises
        ------
        NotFittedError, TypeError, ValueError, IndexError
            Before `fit`; if an id repeats or leaves a gap; if the matrix does not fit the model,
            or users are new and `fit` was given vectors of users.
        """
        check_fitted(self, "models_")
        rows = as_csr(user_items, "user_items")
        n_users, n_items = self.user_items_.shape
        ids = continued_ids(user_ids, "user_ids", n_users, rows, "user_items")
        if rows.shape[1] != n_items:
            raise ValueError(f"user_items must have {n_items} columns; got {rows.shape[1]}")
        n_new = max(n_users, int(ids.max(initial=-1)) + 1)
        given = [m for m, block in self.content_.items() if block.users is not None]
        if n_new > n_users and given:
            raise ValueError(
                f"user_ids must be known where fit was given vectors of users ({given}); "
                f"got {ids.max()}"
            )
        models = {}
        for name, model in self.models_.items():
            if hasattr(model, "partial_fit_users"):
                model = copy.copy(model).partial_fit_users(ids, rows)
            elif hasattr(model, "user_items_"):
                model = copy.copy(model)
                model.user_items_ = _with_csr_rows(model.user_items_, ids, rows, n_new)
            models[name] = model
        history = _with_csr_rows(self.user_items_, ids, rows, n_new)
        self._change(models, self.content_, history)
        return self

    @named("add_items")
    def add_items(self, items: Mapping[str, ArrayLike]) -> NDArray[np.int64]:
        """Append items to the catalogue; nobody has them yet, so their content speaks for them.

        With `cold_items` they get factors from it, too.

        Parameters
        ----------
        items : mapping modality -> array-like of shape (n_new, dim_m)
            At least one content modality of `fit`; those not named, and rows of zeros, are missing.

        Returns
        -------
        ndarray of shape (n_new,), int64
            Their ids, which continue those of the catalogue.

        Raises
        ------
        NotFittedError, TypeError, ValueError
            Before `fit`; if a modality is unknown, or a shape is wrong.
        """
        check_fitted(self, "models_")
        first = self.user_items_.shape[1]
        new = self._vectors(items)
        ids = np.arange(first, first + len(next(iter(new.values()))))
        everything = {
            name: new.get(name, np.zeros((len(ids), block.dim), np.float32))
            for name, block in self.content_.items()
        }
        self._replace(ids, everything)
        return ids

    @named("update_items")
    def update_items(self, item_ids: ArrayLike, items: Mapping[str, ArrayLike]) -> Catalogue:
        """Replace the content of items; modalities that are not named stay.

        Parameters
        ----------
        item_ids : int or array-like of int
        items : mapping modality -> array-like of shape (n, dim_m)
            Row i is of ``item_ids[i]``; a row of zeros is missing from now on.

        Returns
        -------
        self

        Raises
        ------
        NotFittedError, TypeError, ValueError, IndexError
            As `add_items`; if an id is unknown or repeats.
        """
        check_fitted(self, "models_")
        ids = self._known_items(item_ids)
        new = self._vectors(items)
        if len(next(iter(new.values()))) != len(ids):
            raise ValueError(
                f"items must have one row per id ({len(ids)}); got {len(next(iter(new.values())))}"
            )
        self._replace(ids, new)
        return self

    @named("remove_items")
    def remove_items(self, item_ids: ArrayLike) -> Catalogue:
        """Take items out of the catalogue and all histories.

        The ids of those behind them move up, as in ``numpy.delete`` and `FusedIndex.remove`.

        Parameters
        ----------
        item_ids : int or array-like of int

        Returns
        -------
        self

        Raises
        ------
        NotFittedError, IndexError, ValueError
            Before `fit`; if an id is unknown or repeats; if none would be left.
        """
        check_fitted(self, "models_")
        ids = self._known_items(item_ids)
        kept = np.delete(np.arange(self.user_items_.shape[1]), ids)
        if len(kept) == 0:
            raise ValueError("item_ids must leave at least 1 item; got all of them")
        models = {name: _with_items(model, kept) for name, model in self.models_.items()}
        content = {
            name: block.changed(block.items[kept], block.present[kept])
            for name, block in self.content_.items()
        }
        self._change(models, content, _columns(self.user_items_, kept))
        return self

    def _known_items(self, item_ids: ArrayLike) -> NDArray[np.int64]:
        ids = check_ids(as_ids(item_ids, "item_ids"), self.user_items_.shape[1], "item_ids")
        if len(np.unique(ids)) != len(ids):
            raise ValueError(f"item_ids must not repeat; got {ids.tolist()}")
        return ids

    def _vectors(self, items: Any) -> dict[str, NDArray[np.float32]]:
        if not isinstance(items, Mapping) or not items or set(items) - set(self.content_):
            got = list(items) if isinstance(items, Mapping) else type(items).__name__
            raise ValueError(f"items must name modalities of {list(self.content_)}; got {got}")
        new = {name: as_matrix(x, f"items[{name!r}]") for name, x in items.items()}
        n = len(next(iter(new.values())))
        for name, matrix in new.items():
            expected = (n, self.content_[name].dim)
            if matrix.shape != expected:
                raise ValueError(f"items[{name!r}] must have shape {expected}; got {matrix.shape}")
        return new

    def _replace(self, ids: NDArray[np.int64], new: Mapping[str, NDArray[np.float32]]) -> None:
        """Set the content of items, of which some may come behind the last."""
        n_old = self.user_items_.shape[1]
        n_items = max(n_old, int(ids.max(initial=-1)) + 1)
        content = {}
        for name, block in self.content_.items():
            present = np.append(block.present, np.zeros(n_items - n_old, bool))
            rows = block.items
            if name in new:
                present[ids] = presence_of(new[name])
                # The last column carries the mean of z-scores; blocks add it themselves.
                rows = with_rows(
                    rows, ids, block.vectors_of_new_items(new[name], present[ids])[:, :-1]
                )
            content[name] = block.changed(rows, present)
        models, history = self.models_, self.user_items_
        if n_items > n_old:
            order = np.append(np.arange(n_old), np.full(n_items - n_old, -1))
            models = {name: _with_items(model, order) for name, model in models.items()}
            history = _columns(history, order)
        self._change(models, content, history)

    def _change(
        self, models: dict[str, Any], content: dict[str, ContentBlock], history: sp.csr_array
    ) -> None:
        self.models_, self.content_, self.user_items_ = models, content, history
        if self._built_index is not None:
            self._blocks_before = self._built_index.blocks
        self._built_index = None


def _with_items(model: Any, order: NDArray[np.int64]) -> Any:
    """Return a copy of a behaviour model whose items are those of `order`; -1 is a new one."""
    other = copy.copy(model)
    for name in ("item_factors_", "item_biases_"):
        if hasattr(other, name):
            old = getattr(other, name)
            rows = np.append(old, np.zeros((1, *old.shape[1:]), old.dtype), axis=0)
            setattr(other, name, np.ascontiguousarray(rows[order]))
    if hasattr(other, "similarity_"):
        by_row = _columns(sp.csr_array(other.similarity_.T), order)
        other.similarity_ = _best_first(_columns(sp.csr_array(by_row.T), order))
    if hasattr(other, "user_items_"):
        other.user_items_ = _columns(other.user_items_, order)
    return other


def _columns(matrix: sp.csr_array, order: NDArray[np.int64]) -> sp.csr_array:
    """Return the columns in another order; those at -1 are empty."""
    where = np.full(matrix.shape[1], -1)
    where[order[order >= 0]] = np.flatnonzero(order >= 0)
    columns = where[matrix.indices]
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    kept = columns >= 0
    entries = (matrix.data[kept], (rows[kept], columns[kept]))
    return as_csr(sp.csr_array(entries, shape=(matrix.shape[0], len(order))), "user_items")


def _best_first(similarity: sp.csr_array) -> sp.csr_array:
    """Return rows in the order that `cosine_knn` gives them: similarity descending, then id."""
    rows = np.repeat(np.arange(similarity.shape[0]), np.diff(similarity.indptr))
    order = np.lexsort((similarity.indices, -similarity.data, rows))
    parts = (similarity.data[order], similarity.indices[order], similarity.indptr)
    return sp.csr_array(parts, shape=similarity.shape)


def _with_csr_rows(
    matrix: sp.csr_array, ids: NDArray[np.int64], rows: sp.csr_array, n_rows: int
) -> sp.csr_array:
    """Return the matrix with rows replaced or appended."""
    stacked = sp.vstack([matrix, rows], format="csr")
    order = np.arange(n_rows)
    order[ids] = matrix.shape[0] + np.arange(len(ids))
    return as_csr(sp.csr_array(stacked)[order], "user_items")
