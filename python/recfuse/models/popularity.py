"""The baseline that every recommender must beat."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recfuse._base import check_fitted
from recfuse._inputs import as_csr, as_ids, csr_parts
from recfuse._named import named
from recfuse._retrieval import Modality, Retrieval, Vectors
from recfuse.index import FusedIndex
from recfuse.models._made import MadeOnce
from recfuse.models._requests import left_out, rows_of_users

__all__ = ["Popularity"]

_WEIGHT = np.ones((1, 1))  # of the only modality


class Popularity(MadeOnce):
    """Recommend the same popular items to everyone; items that nobody has are never recommended.

    Parameters
    ----------
    by : {'users', 'values'}, default='users'
        Count the users of an item, or add up its values.
    device : {'auto', 'cpu', 'cuda'}, default='auto'
    num_threads : int, default=0

    Attributes
    ----------
    item_scores_ : ndarray of shape (n_items,), float32
    item_counts_ : ndarray of shape (n_items,), int64
        Users of each item, stored zeros included.
    n_users_ : int

    Examples
    --------
    >>> import scipy.sparse as sp, recfuse
    >>> likes = sp.csr_array([[0, 1, 0], [0, 1, 1]])
    >>> recfuse.Popularity().fit(likes).recommend(0, k=2)[0].tolist()
    [[1, 2]]
    """

    def __init__(self, by: str = "users", *, device: str = "auto", num_threads: int = 0) -> None:
        self.by = by
        self.device = device
        self.num_threads = num_threads

    @named("fit")
    def fit(self, user_items: Any, y: Any = None, *, show_progress: bool = False) -> Popularity:
        """Count; `user_items` is sparse of shape (n_users, n_items). Returns self."""
        if self.by not in ("users", "values"):
            raise ValueError(f"by must be 'users' or 'values'; got {self.by!r}")
        csr = as_csr(user_items, "user_items")
        if not np.isfinite(csr.data).all():
            raise ValueError("user_items must be finite; got NaN or infinity")
        self.item_counts_ = np.bincount(csr.indices, minlength=csr.shape[1])
        scores = self.item_counts_
        if self.by == "values":
            scores = np.bincount(csr.indices, weights=csr.data, minlength=csr.shape[1])
        self.item_scores_ = scores.astype(np.float32)
        self.n_users_ = csr.shape[0]
        return self

    def _retrieval(self) -> Retrieval:
        check_fitted(self, "item_scores_")
        popular = Modality(
            "popularity",
            Vectors.of(self.item_scores_),
            Vectors.of(np.ones(self.n_users_, np.float32)),  # everyone asks alike
        )
        return Retrieval(
            (popular,),
            similar_weights=(0.0,),  # a number makes no items alike
            present=(self.item_counts_ > 0).astype(np.uint8)[:, None],
            options={"device": self.device, "num_threads": self.num_threads},
        )

    def _holds_retrieval(self) -> bool:
        return True

    @named("recommend")
    def recommend(
        self,
        user_ids: ArrayLike,
        k: int = 10,
        *,
        user_items: Any = None,
        exclude: Any = None,
        allow: Any = None,
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Recommend items; parameters, results and errors as `ItemNeighbours.recommend`."""
        check_fitted(self, "item_scores_")
        if user_items is None:
            users = rows_of_users(user_ids, self.n_users_)
        else:
            users = as_ids(user_ids, "user_ids")
        shape = (len(users), len(self.item_scores_))
        index, cut = self._made_once("search", self.item_scores_, self._prepared)
        excluded = left_out(user_items, exclude, shape)
        ids, scores = index._search(
            [np.ones((len(users), 1), np.float32)],
            _WEIGHT,
            k,
            fusion="sum",
            missing="renormalise",
            exclude=None if excluded is None else csr_parts(excluded),
            allow=allow,
            contributions=False,
        )
        last = cut[ids]
        ids[last], scores[last] = -1, -np.inf
        return ids, scores

    def _prepared(self) -> tuple[FusedIndex, NDArray[np.bool_]]:
        """Return the index of all items, and which ids a list is cut off at."""
        nobody = self.item_counts_ == 0
        # Below all others they come last, where they can be cut off.
        lowest = self.item_scores_.min(where=~nobody, initial=0)
        last = np.nextafter(lowest - 1, -np.float32(np.inf))
        strengths = np.where(nobody, last, self.item_scores_)[:, None]
        index = FusedIndex.__new__(FusedIndex)  # built in the name of `topk`, for its messages
        index._build({"": strengths}, None, "dot", self.device, self.num_threads, op="topk")
        return index, np.append(nobody, True)  # -1, padding, is the last
