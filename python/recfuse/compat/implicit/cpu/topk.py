"""The search that other packages call directly."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recfuse._inputs import CsrParts, as_matrix
from recfuse.compat.implicit._search import liked_items, lists
from recfuse.index import FusedIndex

__all__ = ["topk"]

_DENSE = 1 << 24  # numbers of sparse queries that are dense at a time


def topk(
    items: Any,
    query: Any,
    k: int,
    item_norms: Any = None,
    filter_query_items: Any = None,
    filter_items: Any = None,
    num_threads: int = 0,
) -> tuple[NDArray[np.int32], NDArray[Any]]:
    """Find the k items with the largest inner product with every query.

    Parameters
    ----------
    items : ndarray of shape (n_items, dim)
    query : ndarray or sparse of shape (n_queries, dim), or (dim,) for one
    k : int
    item_norms : ndarray of shape (n_items,), optional
        Divide every score by that of the item.
    filter_query_items : csr_matrix of shape (n_queries, n_items), optional
        Stored entries, whatever their value, come last.
    filter_items : array-like of int, optional
        Items that come last for every query.
    num_threads : int, default=0

    Returns
    -------
    ids : ndarray of shape (n_queries, k), int32
        Score descending, equal ones by id descending; -1 where `k` exceeds the number of items.
    scores : ndarray of shape (n_queries, k), of the dtype of `query`
        The least number of that dtype for what is filtered and where there is no item.
    """
    queries: Any = query.tocsr() if sp.issparse(query) else np.atleast_2d(np.asarray(query))
    matrix = as_matrix(items, "items")
    if item_norms is not None:
        matrix = matrix / np.asarray(item_norms, np.float32)[:, None]
    index = FusedIndex({"factors": matrix}, metric="dot", num_threads=num_threads)
    n_queries = queries.shape[0]
    liked = None
    if filter_query_items is not None:
        liked = liked_items(filter_query_items, n_queries, index.n_items, name="filter_query_items")
    dtype = queries.dtype if queries.dtype.kind == "f" else np.dtype(np.float32)
    if not sp.issparse(queries):
        return lists(index, queries, k, liked=liked, filtered=filter_items, dtype=dtype)
    step = max(1, _DENSE // max(1, queries.shape[1]))
    ids, scores = np.empty((n_queries, k), np.int32), np.empty((n_queries, k), dtype)
    for first in range(0, n_queries, step):
        part = slice(first, min(first + step, n_queries))
        ids[part], scores[part] = lists(
            index,
            queries[part].toarray(),
            k,
            liked=_rows(liked, part),
            filtered=filter_items,
            dtype=dtype,
        )
    return ids, scores


def _rows(pairs: CsrParts | None, part: slice) -> CsrParts | None:
    if pairs is None:
        return None
    indptr = pairs.indptr[part.start : part.stop + 1]
    here = slice(int(indptr[0]), int(indptr[-1]))
    shape = (part.stop - part.start, pairs.shape[1])
    return CsrParts(indptr - indptr[0], pairs.indices[here], shape, pairs.values[here])
