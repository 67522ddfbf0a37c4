"""Item-item models under implicit's names: the K nearest of every item, itself among them."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recfuse._inputs import CsrParts, as_csr, as_ids, as_int, csr_parts
from recfuse.compat.implicit._files import read_npz
from recfuse.compat.implicit._neighbour_scorer import Lists, NearestNeighboursScorer
from recfuse.compat.implicit._search import (
    chosen_ids,
    given,
    larger_ids_first,
    length_of,
    liked_items,
    refused,
)
from recfuse.compat.implicit._weights import bm25_weight, normalize, tfidf_weight
from recfuse.compat.implicit.recommender_base import RecommenderBase
from recfuse.compat.implicit.utils import check_csr
from recfuse.errors import FormatError, NotFittedError
from recfuse.ops import neighbour_topk

__all__ = [
    "BM25Recommender",
    "CosineRecommender",
    "ItemItemRecommender",
    "NearestNeighboursScorer",
    "TFIDFRecommender",
    "all_pairs_knn",
    "bm25_weight",
    "normalize",
    "tfidf_weight",
]

_LEAST = -float(np.finfo(np.float64).max)  # of one user
_PADDING = -float(np.finfo(np.float32).max)  # of many


class ItemItemRecommender(RecommenderBase):
    """Score an item by its similarity to those of a history, weighted by their values.

    Parameters
    ----------
    K : int, default=20
        Neighbours per item. One of them is, as a rule, the item itself.
    num_threads : int, default=0

    Attributes
    ----------
    similarity : csr_matrix of shape (n_items, n_items), float64, or None before `fit`
        Float64 sums, rounded once to float32.
    scorer : NearestNeighboursScorer or None

    Examples
    --------
    >>> import scipy.sparse as sp
    >>> from recfuse.compat.implicit.nearest_neighbours import CosineRecommender
    >>> plays = sp.csr_matrix([[1.0, 1, 0], [1, 1, 1], [0, 0, 1]])
    >>> model = CosineRecommender(K=3)
    >>> model.fit(plays, show_progress=False)
    >>> model.recommend(0, plays[0])[0].tolist()
    [2]
    """

    def __init__(self, K: int = 20, num_threads: int = 0) -> None:
        self.similarity: Any = None
        self.K = K
        self.num_threads = num_threads
        self.scorer: NearestNeighboursScorer | None = None

    def fit(self, weighted: Any, show_progress: bool = True, callback: Any = None) -> None:
        """Find the K items with the largest inner products of columns with every item.

        Parameters
        ----------
        weighted : csr_matrix of shape (n_users, n_items)
        show_progress : bool
            Ignored: there is one step.
        callback : None

        Raises
        ------
        NotImplementedError
            If there is a callback, as in implicit.
        """
        if callback:
            raise NotImplementedError("fit: callback must be None: neighbours have no iterations")
        found = all_pairs_knn(weighted, self.K, self._threads, show_progress)
        self._set_similarity(found.tocsr())

    def _set_similarity(self, similarity: Any) -> None:
        self.similarity = similarity
        self.scorer = NearestNeighboursScorer(similarity, self._threads)

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
        """Recommend items that neighbours of a history speak for.

        Parameters
        ----------
        userid : int or array-like of int
            Its length alone counts: what is scored are the rows of `user_items`.
        user_items : csr_matrix
            One row per user.
        N : int, default=10
        filter_already_liked_items : bool, default=True
            Leave out what the user has.
        filter_items : array-like of int, optional
            Leave out these, too.
        recalculate_user : bool
            Ignored: it is always so.
        items : array-like of int, optional
            Rank these alone, those that nothing speaks for behind the others.

        Returns
        -------
        ids : ndarray of shape (at most N,) for one user or (n, N), int32
            -1 for padding.
        scores : ndarray of the same shape, float64
            Descending; the least float32 for padding.
        """
        n = length_of(N)
        if filter_items is None and items is None and isinstance(userid, (int, np.integer)):
            plain = self._of_plain_history(user_items, n, filter_already_liked_items)
            if plain is not None:
                return plain
        similarity, scalar = self._fitted(), np.isscalar(userid)
        n_rows, n_items = 1 if scalar else len(userid), similarity.shape[0]
        filter_items = given(filter_items)
        if filter_items is not None and items is not None:
            raise ValueError("Can't specify both filter_items and items")
        liked = liked_items(user_items, n_rows, n_items)
        history = _within(as_csr(user_items, "user_items"), n_items)
        dropped = None
        if filter_items is not None:
            unseen = np.unique(as_ids(filter_items, "filter_items"))
            dropped = unseen[(unseen >= 0) & (unseen < n_items)].astype(np.int32)
        seen = liked if filter_already_liked_items else None
        if scalar and items is None:
            left_out = [dropped] if seen is None else [dropped, seen.indices]
            return self._scorer().one(csr_parts(history), n, _joined(left_out))
        excluded, others = refused(seen, dropped, n_rows, n_items)
        allowed = others if items is None else chosen_ids(items, n_items, "items")
        ids, found = neighbour_topk(
            history,
            self._scorer().neighbours,
            n,
            exclude=excluded,
            allow=allowed,
            num_threads=self._threads,
        )
        ids, found = larger_ids_first(ids, found)
        scores: NDArray[np.float64] = np.where(ids < 0, _PADDING, found.astype(np.float64))
        dtype: Any = ids.dtype
        if items is not None and _append_missing(ids, scores, np.asarray(items)) and scalar:
            dtype = np.result_type(ids, np.asarray(items))  # as there
        if not scalar:
            return ids, scores
        size = np.count_nonzero(ids[0] >= 0)
        return ids[0, :size].astype(dtype, copy=False), scores[0, :size]

    def _of_plain_history(self, user_items: Any, n: int, filter_liked: bool) -> Lists | None:
        """Return the list of a history as it comes; None where it needs a closer look."""
        x, scorer = user_items, self.scorer
        if scorer is None or not isinstance(x, (sp.csr_matrix, sp.csr_array)) or x.shape[0] != 1:
            return None
        ids, values = x.indices, x.data
        if ids.dtype != np.int32 or values.dtype.kind not in "fiu":
            return None
        ids = np.ascontiguousarray(ids)
        parts = CsrParts(
            np.ascontiguousarray(x.indptr, np.int64),
            ids,
            (1, scorer.neighbours.shape[0]),
            np.ascontiguousarray(values, np.float32),
        )
        try:
            return scorer.one(parts, n, ids if filter_liked else None)
        except (ValueError, IndexError):  # not canonical, say; or wrong, which is told by its name
            return None

    def _scorer(self) -> NearestNeighboursScorer:
        assert self.scorer is not None
        return self.scorer

    def _fitted(self) -> Any:
        if self.similarity is None:
            raise NotFittedError("fit must be called before this method; got an unfitted model")
        return self.similarity

    def similar_users(
        self, userid: Any, N: int = 10, filter_users: Any = None, users: Any = None
    ) -> Lists:
        """Raise NotImplementedError, as in implicit."""
        raise NotImplementedError("similar_users: the neighbours of this model are items alone")

    def similar_items(
        self,
        itemid: Any,
        N: int = 10,
        recalculate_item: bool = False,
        item_users: Any = None,
        filter_items: Any = None,
        items: Any = None,
    ) -> Lists:
        """Return the nearest items, the item among them.

        Parameters
        ----------
        itemid : int or array-like of int
        N : int, default=10
        filter_items : array-like of int, optional
            Leave out these.
        items : array-like of int, optional
            Rank these alone, those that are no neighbours behind the others.

        Returns
        -------
        ids, scores : ndarray of shape (at most N,) for one item or (n, N)
            As of `recommend`. Nothing for an item that the model does not know.
        """
        if recalculate_item:
            raise NotImplementedError("similar_items: recalculate_item must be False; got True")
        filter_items = given(filter_items)
        if filter_items is not None and items is not None:
            raise ValueError("Can't specify both filter_items and items")
        similarity, N = self._fitted(), as_int(N, "N")
        if np.isscalar(itemid):
            item = int(as_ids(itemid, "itemid")[0])
            return self._nearest(similarity, item, N, filter_items, items)
        ids = np.full((len(itemid), N), -1, np.int32)
        scores = np.full((len(itemid), N), _PADDING)
        for row, item in enumerate(as_ids(itemid, "itemid")):
            near, how = self._nearest(similarity, item, N, filter_items, items)
            ids[row, : len(near)], scores[row, : len(near)] = near, how
        return ids, scores

    def _nearest(self, similarity: Any, item: int, N: int, filter_items: Any, items: Any) -> Lists:
        if item < 0:
            raise IndexError(f"itemid must be at least 0; got {item}")
        if item >= similarity.shape[0]:
            return np.zeros(0, np.int32), np.zeros(0)
        row = slice(similarity.indptr[item], similarity.indptr[item + 1])
        ids, scores = similarity.indices[row], similarity.data[row]
        if filter_items is not None:
            kept = np.isin(ids, filter_items, invert=True)
            ids, scores = ids[kept], scores[kept]
        elif items is not None:
            among = chosen_ids(items, similarity.shape[0], "items")
            kept = np.isin(ids, among)
            missing = np.setdiff1d(among, ids[kept])
            ids = np.concatenate([ids[kept], missing]) if len(missing) else ids[kept]
            scores = np.concatenate([scores[kept], np.full(len(missing), _LEAST)])
        best = np.lexsort((-ids, -scores))[:N]
        return ids[best], scores[best]

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the scorer, which is made of the similarity."""
        return {name: value for name, value in vars(self).items() if name != "scorer"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.scorer = None
        if self.similarity is not None:
            self._set_similarity(self.similarity)

    def save(self, fileobj_or_path: Any) -> None:
        """Write the model as ``.npz``, which implicit loads, too."""
        values: dict[str, Any] = {"K": self.K}
        m = self.similarity
        if m is not None:
            values |= {"shape": m.shape, "data": m.data, "indptr": m.indptr, "indices": m.indices}
        np.savez(fileobj_or_path, **values)

    @classmethod
    def load(cls, fileobj_or_path: Any) -> ItemItemRecommender:
        """Read what `save` or implicit has written; nothing is unpickled.

        Raises
        ------
        FormatError
            If the file is none of them.
        """
        data = read_npz(fileobj_or_path)
        model = cls()
        try:
            model.K = int(data["K"].item())
            if "data" in data:
                parts = (data["data"].astype(np.float64), data["indices"], data["indptr"])
                n_items = int(data["shape"][0])
                found = sp.csr_matrix(parts, shape=(n_items, n_items))
                found.check_format(full_check=True)
                model._set_similarity(found)
        except (KeyError, ValueError, TypeError, IndexError, OverflowError) as error:
            raise FormatError(f"load: the file must hold a similarity; got {error}") from error
        return model


class CosineRecommender(ItemItemRecommender):
    """`ItemItemRecommender` by the cosine of the columns of items."""

    def fit(self, counts: Any, show_progress: bool = True, callback: Any = None) -> None:
        """Find the neighbours of every item; as there."""
        super().fit(normalize(check_csr(counts).T).T.tocsr(), show_progress, callback)


class TFIDFRecommender(ItemItemRecommender):
    """`ItemItemRecommender` by the cosine of columns weighted by `tfidf_weight`."""

    def fit(self, counts: Any, show_progress: bool = True, callback: Any = None) -> None:
        """Find the neighbours of every item; as there."""
        weighted = normalize(tfidf_weight(check_csr(counts).T)).T.tocsr()
        super().fit(weighted, show_progress, callback)


class BM25Recommender(ItemItemRecommender):
    """`ItemItemRecommender` by the inner product of columns weighted by `bm25_weight`.

    Parameters
    ----------
    K : int, default=20
    K1, B : float, default=1.2, 0.75
    num_threads : int, default=0
    """

    def __init__(self, K: int = 20, K1: float = 1.2, B: float = 0.75, num_threads: int = 0) -> None:
        super().__init__(K, num_threads)
        self.K1 = K1
        self.B = B

    def fit(self, counts: Any, show_progress: bool = True, callback: Any = None) -> None:
        """Find the neighbours of every item; as there."""
        weighted = bm25_weight(check_csr(counts).T, self.K1, self.B).T.tocsr()
        super().fit(weighted, show_progress, callback)


def all_pairs_knn(
    users: Any, K: int = 100, num_threads: int = 0, show_progress: bool = True
) -> sp.coo_matrix:
    """Return the K largest inner products of columns with every column, itself among them.

    Parameters
    ----------
    users : csr_matrix of shape (n_users, n_items)
    K : int, default=100
    num_threads : int, default=0
    show_progress : bool
        Ignored: there is one step.

    Returns
    -------
    coo_matrix of shape (n_items, n_items), float64
        Of float32 precision; only pairs that share a user.
    """
    rows = as_csr(check_csr(users), "users")
    columns = as_csr(rows.T, "users")
    n_items = rows.shape[1]
    k = min(as_int(K, "K"), max(n_items, 1))
    ids, scores = neighbour_topk(columns, rows, k, num_threads=num_threads)
    found = ids >= 0
    items = np.repeat(np.arange(n_items, dtype=np.int32), found.sum(axis=1))
    values = scores[found].astype(np.float64)
    return sp.coo_matrix((values, (items, ids[found])), shape=(n_items, n_items))


def _joined(ids: list[NDArray[np.int32] | None]) -> NDArray[np.int32] | None:
    given_ids = [x for x in ids if x is not None]
    return np.concatenate(given_ids) if given_ids else None


def _within(csr: sp.csr_array, n_items: int) -> sp.csr_array:
    """Return the histories, of which no entry is outside, with one column per item."""
    return sp.csr_array((csr.data, csr.indices, csr.indptr), shape=(csr.shape[0], n_items))


def _append_missing(
    ids: NDArray[np.int32], scores: NDArray[np.float64], items: NDArray[Any]
) -> bool:
    """Put chosen items that nothing speaks for behind the others; say whether there are any."""
    any_missing = False
    for row in range(len(ids)):
        begin = int(np.count_nonzero(ids[row] >= 0))
        missing = np.setdiff1d(items, ids[row, :begin])[: ids.shape[1] - begin]
        ids[row, begin : begin + len(missing)] = missing
        scores[row, begin : begin + len(missing)] = _LEAST
        any_missing |= len(missing) > 0
    return any_missing
