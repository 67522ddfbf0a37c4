"""Collaborative filtering by similar items, or by similar users."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from recfuse._base import Estimator, check_fitted
from recfuse._inputs import as_csr, as_ids, as_int, check_ids
from recfuse._named import named
from recfuse._sparse import sparse_product
from recfuse.models._requests import filter_rows, left_out, rows_of_users
from recfuse.models._similarity import similarity
from recfuse.models.weighting import weighted
from recfuse.ops import neighbour_topk

__all__ = ["ItemNeighbours", "UserNeighbours"]

Ids = NDArray[np.int32]
Scores = NDArray[np.float32]


class ItemNeighbours(Estimator):
    r"""Recommend items similar to those of a user's history.

    :math:`score(u, i) = \sum_j r_{uj}\, sim(j, i)` over the history, where ``sim`` is the cosine
    of the items' (weighted) columns, kept for the `k` nearest other items of each [1]_.

    Parameters
    ----------
    k : int, default=20
        Neighbours per item; the item itself is none of them.
    weighting : {None, 'tfidf', 'bm25', 'l2'}, default=None
        Weight interactions before the similarity (`tfidf_weight`, `bm25_weight`). 'l2' brings every
        user's row to length 1, so that one of few items tells more about each of them [1]_.
    norm : {'full', 'corated'}, default='full'
    shrinkage : float, default=0.0
    min_support : int, default=1
        As in `recfuse.cosine_knn`. The users that two items must share: with k, no similarity rests
        on fewer than k people (`recfuse.privacy`).
    asymmetry : float, default=0.5
        Share a, 0 to 1, of the item itself in the norms, the rest being its neighbour's:
        :math:`sim(j, i) = \langle w_j, w_i \rangle / (|w_j|^{2a} |w_i|^{2 - 2a})` [2]_. 0.5 is the
        cosine; with 1, the confidence of a rule "who has j has i", popular items are not held back
        as neighbours and weigh less in a history. Other values want the defaults of `norm`,
        `shrinkage` and `min_support`.
    bm25_k1, bm25_b : float, default=1.2, 0.75
    device : {'auto', 'cpu', 'cuda'}, default='auto'
        For the neighbours, and for the lists.
    num_threads : int, default=0

    Attributes
    ----------
    similarity_ : csr_array of shape (n_items, n_items)
        Row j has the neighbours of item j, best first.
    user_items_ : csr_array of shape (n_users, n_items)
        The histories of the fit, as given.

    References
    ----------
    .. [1] M. Deshpande, G. Karypis, "Item-based top-N recommendation algorithms", ACM TOIS 22(1),
       2004.
    .. [2] F. Aiolli, "Efficient top-N recommendation for very large scale binary rated datasets",
       RecSys 2013.

    Examples
    --------
    >>> import scipy.sparse as sp, recfuse
    >>> likes = sp.csr_array([[1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 1, 1]])
    >>> model = recfuse.ItemNeighbours(k=2).fit(likes)
    >>> ids, scores = model.recommend(0, k=2, user_items=likes[[0]])
    >>> ids.tolist()
    [[2, -1]]
    """

    def __init__(
        self,
        k: int = 20,
        *,
        weighting: str | None = None,
        norm: str = "full",
        shrinkage: float = 0.0,
        min_support: int = 1,
        asymmetry: float = 0.5,
        bm25_k1: float = 1.2,
        bm25_b: float = 0.75,
        device: str = "auto",
        num_threads: int = 0,
    ) -> None:
        self.k = k
        self.weighting = weighting
        self.norm = norm
        self.shrinkage = shrinkage
        self.min_support = min_support
        self.asymmetry = asymmetry
        self.bm25_k1 = bm25_k1
        self.bm25_b = bm25_b
        self.device = device
        self.num_threads = num_threads

    @named("fit")
    def fit(self, user_items: Any, y: Any = None, *, show_progress: bool = False) -> ItemNeighbours:
        """Find the neighbours of every item.

        Parameters
        ----------
        user_items : sparse of shape (n_users, n_items)
        show_progress : bool, default=False
            Ignored: there is one step. It is here so that every model can be asked the same way.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            If an argument is wrong.
        """
        history = _finite(as_csr(user_items, "user_items"))
        values = weighted(history, self.weighting, k1=self.bm25_k1, b=self.bm25_b)
        self.similarity_ = similarity(values.T, self)
        self.user_items_ = history
        return self

    @named("recommend")
    def recommend(
        self,
        user_ids: ArrayLike,
        k: int = 10,
        *,
        user_items: Any = None,
        exclude: Any = None,
        allow: Any = None,
    ) -> tuple[Ids, Scores]:
        """Recommend items to users.

        Parameters
        ----------
        user_ids : int or array-like of int
            May be unknown to the model where `user_items` is given.
        k : int, default=10
        user_items : sparse of shape (n, n_items), optional
            Histories of the queried users, one row each: scored instead of those of the fit, and
            left out of the lists.
        exclude : sparse of shape (n, n_items), optional
        allow : array-like of int, or sparse of shape (n, n_items), optional

        Returns
        -------
        ids : ndarray of shape (n, k), int32
            Score descending, then id ascending; only items that some neighbour speaks for, then -1.
        scores : ndarray of shape (n, k), float32
            -inf for padding.

        Raises
        ------
        NotFittedError, IndexError, ValueError
            Before `fit`; if a user or an item of `allow` is unknown; if a shape is wrong.
        """
        check_fitted(self, "similarity_")
        n_items = self.similarity_.shape[1]
        if user_items is None:
            users = rows_of_users(user_ids, self.user_items_.shape[0])
            history = self.user_items_[users]
        else:
            users = as_ids(user_ids, "user_ids")
            history = filter_rows(user_items, "user_items", (len(users), n_items))
        return neighbour_topk(
            history,
            self.similarity_,
            k,
            exclude=left_out(user_items, exclude, (len(users), n_items)),
            allow=allow,
            device=self.device,
            num_threads=self.num_threads,
        )

    @named("score")
    def score(self, user_items: Any) -> sp.csr_array:
        """Return the scores of all items that neighbours speak for, sparse, one row per history."""
        check_fitted(self, "similarity_")
        history, n_items = as_csr(user_items, "user_items"), self.similarity_.shape[0]
        if history.shape[1] != n_items:
            raise ValueError(f"user_items must have {n_items} columns; got {history.shape[1]}")
        return sparse_product(history, self.similarity_)

    @named("similar_items")
    def similar_items(self, item_ids: ArrayLike, k: int = 10) -> tuple[Ids, Scores]:
        """Return the nearest other items, at most as many as the model keeps.

        Parameters
        ----------
        item_ids : int or array-like of int
        k : int, default=10

        Returns
        -------
        ids : ndarray of shape (n, k), int32
            Similarity descending, then id ascending; -1 for padding.
        scores : ndarray of shape (n, k), float32
            -inf for padding.

        Raises
        ------
        NotFittedError, IndexError, ValueError
            Before `fit`; if an item is unknown; if `k` < 1.
        """
        check_fitted(self, "similarity_")
        return _rows_of(self.similarity_, item_ids, "item_ids", k)


class UserNeighbours(Estimator):
    r"""Recommend what similar users have.

    :math:`score(u, i) = \sum_v sim(u, v)\, r_{vi}` over the `k` most similar users [1]_. With
    `normalise` it is divided by :math:`\sum_v |sim(u, v)|` over those of them who have item i: then
    it predicts a rating.

    Parameters
    ----------
    k : int, default=20
        Neighbours per user.
    norm : {'full', 'corated'}, default='full'
        'full' is the textbook formula; 'corated' takes the norms over shared items only.
    weighting : {None, 'tfidf', 'bm25', 'l2'}, default=None
        As in `ItemNeighbours`; 'l2' is the cosine of None, whatever the `asymmetry`.
    shrinkage : float, default=0.0
    min_support : int, default=1
    asymmetry : float, default=0.5
        As in `ItemNeighbours`, with users for items [2]_. A user's own norm does not change the
        order of a list; below 0.5 that of a neighbour counts more, and people with long histories
        less.
    bm25_k1, bm25_b : float, default=1.2, 0.75
    normalise : bool, default=False
        Score by the weighted mean of the neighbours' values instead of the weighted sum.
    device : {'auto', 'cpu', 'cuda'}, default='auto'
        For the neighbours, and for the lists.
    num_threads : int, default=0

    Attributes
    ----------
    similarity_ : csr_array of shape (n_users, n_users)
        Row u has the neighbours of user u, best first.
    user_items_ : csr_array of shape (n_users, n_items)

    References
    ----------
    .. [1] P. Resnick, N. Iacovou, M. Suchak, P. Bergstrom, J. Riedl, "GroupLens: an open
       architecture for collaborative filtering of netnews", CSCW 1994.
    .. [2] F. Aiolli, "Efficient top-N recommendation for very large scale binary rated datasets",
       RecSys 2013.

    Examples
    --------
    >>> import scipy.sparse as sp, recfuse
    >>> likes = sp.csr_array([[1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 1, 1]])
    >>> model = recfuse.UserNeighbours(k=1).fit(likes)
    >>> ids, scores = model.recommend(0, k=1, user_items=likes[[0]])
    >>> ids.tolist()
    [[2]]
    """

    def __init__(
        self,
        k: int = 20,
        *,
        norm: str = "full",
        weighting: str | None = None,
        shrinkage: float = 0.0,
        min_support: int = 1,
        asymmetry: float = 0.5,
        bm25_k1: float = 1.2,
        bm25_b: float = 0.75,
        normalise: bool = False,
        device: str = "auto",
        num_threads: int = 0,
    ) -> None:
        self.k = k
        self.norm = norm
        self.weighting = weighting
        self.shrinkage = shrinkage
        self.min_support = min_support
        self.asymmetry = asymmetry
        self.bm25_k1 = bm25_k1
        self.bm25_b = bm25_b
        self.normalise = normalise
        self.device = device
        self.num_threads = num_threads

    @named("fit")
    def fit(self, user_items: Any, y: Any = None, *, show_progress: bool = False) -> UserNeighbours:
        """Find the neighbours of every user; parameters as `ItemNeighbours.fit`."""
        history = _finite(as_csr(user_items, "user_items"))
        values = weighted(history, self.weighting, k1=self.bm25_k1, b=self.bm25_b)
        self.similarity_ = similarity(values, self)
        self.user_items_ = history
        return self

    @named("recommend")
    def recommend(
        self,
        user_ids: ArrayLike,
        k: int = 10,
        *,
        user_items: Any = None,
        exclude: Any = None,
        allow: Any = None,
    ) -> tuple[Ids, Scores]:
        """Recommend items to users of the fit.

        Parameters
        ----------
        user_ids : int or array-like of int
        k : int, default=10
        user_items : sparse of shape (n, n_items), optional
            What is left out of the lists, one row per queried user.
        exclude, allow
            As in `ItemNeighbours.recommend`.

        Returns
        -------
        ids : ndarray of shape (n, k), int32
            Score descending, then id ascending; only items that some neighbour has, then -1.
        scores : ndarray of shape (n, k), float32
            -inf for padding.

        Raises
        ------
        NotFittedError, IndexError, ValueError
            Before `fit`; if a user is unknown; if a shape is wrong.
        """
        check_fitted(self, "similarity_")
        users = rows_of_users(user_ids, self.user_items_.shape[0])
        shape = (len(users), self.user_items_.shape[1])
        return neighbour_topk(
            self.similarity_[users],
            self.user_items_,
            k,
            normalise=self.normalise,
            exclude=left_out(user_items, exclude, shape),
            allow=allow,
            device=self.device,
            num_threads=self.num_threads,
        )

    @named("score_users")
    def score_users(self, user_ids: ArrayLike) -> sp.csr_array:
        """Return the scores of all items that neighbours have, sparse, one row per user."""
        check_fitted(self, "similarity_")
        near = self.similarity_[rows_of_users(user_ids, self.user_items_.shape[0])]
        sums = sparse_product(near, self.user_items_)
        if self.normalise:
            weights = sparse_product(abs(near), self.user_items_.astype(bool))
            sums.data /= weights.data
        return sums

    @named("similar_users")
    def similar_users(self, user_ids: ArrayLike, k: int = 10) -> tuple[Ids, Scores]:
        """Return the nearest other users; as `ItemNeighbours.similar_items`."""
        check_fitted(self, "similarity_")
        return _rows_of(self.similarity_, user_ids, "user_ids", k)


def _finite(history: sp.csr_array) -> sp.csr_array:
    """Return the histories; `cosine_knn` would name a wrong value in its own, turned matrix."""
    if not np.isfinite(history.data).all():
        at = int(np.flatnonzero(~np.isfinite(history.data))[0])
        row = int(np.searchsorted(history.indptr, at, side="right")) - 1
        raise ValueError(
            f"user_items must be finite; got {history.data[at]} at [{row}, {history.indices[at]}]"
        )
    return history


def _rows_of(similarity: sp.csr_array, ids: ArrayLike, name: str, k: int) -> tuple[Ids, Scores]:
    """Return the first k entries of rows, padded."""
    k = as_int(k, "k")
    if k < 1:
        raise ValueError(f"k must be at least 1; got {k}")
    rows = check_ids(as_ids(ids, name), similarity.shape[0], name)
    begin = similarity.indptr[rows].astype(np.int64)
    size = similarity.indptr[rows + 1] - begin
    here = np.arange(min(k, size.max(initial=0)))
    at = (begin[:, None] + here)[here < size[:, None]]
    out_ids = np.full((len(rows), k), -1, np.int32)
    out_scores = np.full((len(rows), k), -np.inf, np.float32)
    filled = np.arange(k) < size[:, None]
    out_ids[filled] = similarity.indices[at]
    out_scores[filled] = similarity.data[at]
    return out_ids, out_scores
