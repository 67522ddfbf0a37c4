"""implicit's searches: seen and filtered items at the end of a list, equal scores by id downwards.

implicit scores what is filtered with the least float instead of leaving it out, so a list that is
longer than what remains ends in filtered ids with that score. Programs know that score.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from recfuse._inputs import CsrParts, as_ids, as_int, check_ids, csr_parts, is_canonical
from recfuse.index import FusedIndex

__all__ = [
    "chosen_ids",
    "given",
    "larger_ids_first",
    "length_of",
    "liked_items",
    "lists",
    "refused",
]

Ids = NDArray[np.int32]
Lists = tuple[NDArray[Any], NDArray[Any]]

_WEIGHT = np.ones((1, 1))  # of the only modality


def given(ids: Any) -> Any:
    """Return a filter, None where it filters nothing: programs pass False and [] for that."""
    return None if ids is None or ids is False or len(ids) == 0 else ids


def length_of(wanted: Any, name: str = "N") -> int:
    """Return how many entries of a list are asked for."""
    n = as_int(wanted, name)
    if n < 1:
        raise ValueError(f"{name} must be at least 1; got {n}")
    return n


def chosen_ids(given: ArrayLike, n: int, name: str) -> NDArray[Any]:
    """Return the distinct ids of a list in ascending order, in their own dtype."""
    ids = np.unique(np.asarray(given))
    if len(ids) == 0:
        raise ValueError(f"{name} must have at least one id; got none")
    if ids.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers; got dtype {ids.dtype}")
    if ids[0] < 0 or ids[-1] >= n:
        wrong = ids[0] if ids[0] < 0 else ids[-1]
        raise IndexError(f"{name} must be in [0, {n}), the ids of the model; got {wrong}")
    return ids


def liked_items(user_items: Any, n_rows: int, n_items: int, name: str = "user_items") -> CsrParts:
    """Return the pattern of a CSR matrix that may be narrower or wider than the model."""
    if not (sp.issparse(user_items) and user_items.format == "csr"):
        raise ValueError(f"{name} needs to be a CSR sparse matrix")
    if user_items.shape[0] != n_rows:
        raise ValueError(f"{name} must contain 1 row for every user in userids")
    x = user_items
    if x.shape[1] != n_items or not is_canonical(x):
        x = sp.csr_array(
            (np.ones(len(x.indices), np.float32), x.indices.copy(), x.indptr.copy()),
            shape=x.shape,
        )
        x.sum_duplicates()  # in place, of all three
        if x.nnz and not 0 <= x.indices.min() <= x.indices.max() < n_items:
            wrong = x.indices[(x.indices < 0) | (x.indices >= n_items)][0]
            raise IndexError(f"{name} must have items of the model, below {n_items}; got {wrong}")
    # The values of a filter are not looked at.
    values = np.zeros(len(x.indices), np.float32)
    return CsrParts(
        x.indptr.astype(np.int64), x.indices.astype(np.int32, copy=False), (n_rows, n_items), values
    )


def refused(
    liked: CsrParts | None, filtered: Ids | None, n_rows: int, n_items: int
) -> tuple[CsrParts | None, Ids | None]:
    """Return what a search may not return: pairs, and the ids that every row is confined to.

    Filtered ids become pairs where those are few, which spares a look at all items.
    """
    if filtered is None or not len(filtered):
        return liked, None
    if n_rows * len(filtered) > n_items:
        kept = np.ones(n_items, bool)
        kept[filtered] = False
        return liked, np.flatnonzero(kept).astype(np.int32)
    return _with_filter(liked, filtered, n_rows, n_items), None


def _with_filter(liked: CsrParts | None, filtered: Ids, n_rows: int, n_items: int) -> CsrParts:
    """Return the liked items of every row and the ones that no row may have."""
    shape = (n_rows, n_items)
    if n_rows == 1:
        own = filtered if liked is None else np.union1d(liked.indices, filtered)
        own = own.astype(np.int32, copy=False)
        return CsrParts(np.array([0, len(own)]), own, shape, np.zeros(len(own), np.float32))
    rows = np.repeat(np.arange(n_rows), len(filtered))
    columns = np.tile(filtered, n_rows)
    if liked is not None:
        rows = np.concatenate([rows, np.repeat(np.arange(n_rows), np.diff(liked.indptr))])
        columns = np.concatenate([columns, liked.indices])
    both = sp.csr_array((np.ones(len(rows), np.float32), (rows, columns)), shape=shape)
    both.sum_duplicates()
    return csr_parts(both)


def lists(
    index: FusedIndex,
    queries: NDArray[Any],
    k: int,
    *,
    liked: CsrParts | None = None,
    filtered: Any = None,
    allowed: NDArray[Any] | None = None,
    dtype: Any = np.float32,
) -> Lists:
    """Return the k best items of every query, what is filtered behind them.

    Parameters
    ----------
    index : FusedIndex
        Of one modality.
    queries : ndarray of shape (n, dim)
    k : int
    liked : CsrParts of shape (n, n_items), optional
    filtered : array-like of int, optional
        Not together with `allowed`.
    allowed : ndarray of int, optional
        Distinct, ascending.
    dtype
        Of the scores.

    Returns
    -------
    ids : ndarray of shape (n, k), int32
        Equal scores by id downwards; -1 where there is no item any more.
    scores : ndarray of shape (n, k)
        The least number of `dtype` where the item is filtered, or none.
    """
    n_rows, n_items = len(queries), index.n_items
    if filtered is not None:
        out = check_ids(as_ids(filtered, "filter_items"), n_items, "filter_items")
        filtered = np.unique(out).astype(np.int32)
    excluded, others = refused(liked, filtered, n_rows, n_items)
    allowed = others if allowed is None else allowed
    ids, scores = index._search(  # what a search by name would check again is all made here
        [np.ascontiguousarray(queries, np.float32)],
        _WEIGHT,
        k,
        fusion="sum",
        missing="renormalise",
        exclude=excluded,
        allow=None if allowed is None else allowed.astype(np.int32, copy=False),
        contributions=False,
    )
    scores = scores.astype(dtype, copy=False)
    ids, scores = larger_ids_first(ids, scores)
    if (ids[0, -1] if len(ids) == 1 else ids[:, -1].min(initial=0)) < 0:
        _fill(ids, scores, excluded, filtered, allowed)
    return ids, scores


def larger_ids_first(ids: Ids, scores: NDArray[Any]) -> Lists:
    """Return lists with equal scores by id downwards, as implicit has them."""
    if len(scores) == 1:  # without the calls of NumPy, which are most of a small search
        any_equal = len(set(scores[0].tolist())) < scores.shape[1]
    else:
        any_equal = bool((scores[:, 1:] == scores[:, :-1]).any())
    if not any_equal:
        return ids, scores
    rows = np.flatnonzero((scores[:, 1:] == scores[:, :-1]).any(axis=1))
    some_ids, some_scores = ids[rows], scores[rows]
    order = np.lexsort((-some_ids, -some_scores), axis=-1)
    ids[rows] = np.take_along_axis(some_ids, order, axis=-1)
    scores[rows] = np.take_along_axis(some_scores, order, axis=-1)
    return ids, scores


def _fill(
    ids: Ids,
    scores: NDArray[Any],
    excluded: CsrParts | None,
    filtered: Ids | None,
    allowed: NDArray[Any] | None,
) -> None:
    """Put what is filtered where a row has no more items, the largest id first."""
    least = -np.finfo(scores.dtype).max
    for row in np.flatnonzero(ids[:, -1] < 0):
        begin = int(np.count_nonzero(ids[row] >= 0))
        scores[row, begin:] = least
        left_out = np.zeros(0, np.int32) if filtered is None else filtered
        if excluded is not None:
            own = excluded.indices[excluded.indptr[row] : excluded.indptr[row + 1]]
            left_out = np.union1d(left_out, own)
        if allowed is not None and excluded is not None and filtered is None:
            left_out = np.intersect1d(left_out, allowed)
        tail = left_out[::-1][: ids.shape[1] - begin]
        ids[row, begin : begin + len(tail)] = tail
