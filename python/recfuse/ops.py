"""The ops as functions: arrays and sparse matrices in, arrays out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from recfuse._inputs import (
    as_csr,
    as_filters,
    as_float,
    as_int,
    as_matrix,
    as_num_threads,
    check_name,
    check_structure,
    csr_parts,
)
from recfuse._named import named
from recfuse._streamed import search_in_blocks
from recfuse.backend import resolve_op
from recfuse.index import FusedIndex

__all__ = ["cosine_knn", "fuse_topk", "neighbour_topk", "topk"]

Ids = NDArray[np.int32]
Scores = NDArray[np.float32]


@named("topk")
def topk(
    queries: ArrayLike,
    items: ArrayLike,
    k: int,
    *,
    metric: str = "dot",
    exclude: Any = None,
    allow: Any = None,
    device: str = "auto",
    num_threads: int = 0,
) -> tuple[Ids, Scores]:
    """Find the k items with the largest inner product or cosine for every query, exactly.

    The score is computed in float64 in a fixed order and rounded once to float32, so the result
    has the same bytes for any number of threads, batch size and instruction set.

    Parameters
    ----------
    queries : array-like of shape (n_queries, dim)
        Any real dtype; converted to float32. On a GPU as `FusedIndex` takes them.
    items : array-like of shape (n_items, dim)
        C-contiguous float32 is used in place, memory-mapped or not, so a file may be larger than
        memory; anything else is converted, and what is mapped a block at a time.
    k : int
        Length of the lists, at least 1.
    metric : {'dot', 'cosine'}, default='dot'
        ``<q, x>`` or ``<q, x> / (|q| |x|)``, 0 where a norm is 0.
    exclude : sparse of shape (n_queries, n_items), optional
        Stored entries, whatever their value, are left out.
    allow : array-like of int, or sparse of shape (n_queries, n_items), optional
        Only these ids, for all queries; or only the stored entries of each row.
    device : {'auto', 'cpu', 'cuda'}, default='auto'
        'auto' is RECFUSE_DEVICE, or the CPU; 'cuda' never falls back.
    num_threads : int, default=0
        0 takes the default (see `doctor`).

    Returns
    -------
    ids : ndarray of shape (n_queries, k), int32
        Score descending, then id ascending; -1 where fewer than `k` items are admitted.
    scores : ndarray of shape (n_queries, k), float32
        -inf where `ids` is -1. A NaN is never returned.

    Raises
    ------
    TypeError
        If an array does not hold real numbers, or a filter has the wrong type.
    ValueError
        If shapes disagree, `k` < 1 or `metric` is unknown.
    IndexError
        If an id of `allow` is out of range.
    DeviceError
        If 'cuda' is asked for and cannot be used.

    Examples
    --------
    >>> import numpy as np, recfuse
    >>> items = np.array([[1, 0], [0, 1], [1, 1]], dtype=np.float32)
    >>> ids, scores = recfuse.topk([[2.0, 1.0]], items, k=2)
    >>> ids.tolist(), scores.tolist()
    ([[2, 0]], [[3.0, 2.0]])
    """

    def search(block: Mapping[str, Any], _: None, **filters: Any) -> tuple[Ids, Scores]:
        index = FusedIndex.__new__(FusedIndex)
        matrix = as_matrix(block[""], "items", device)
        index._build({"": matrix}, None, metric, device, num_threads, op="topk")
        ids, scores = index._search(
            [as_matrix(queries, "queries", device)],
            np.ones((1, 1)),
            k,
            fusion="sum",
            missing="renormalise",
            **filters,
            contributions=False,
        )
        return ids, scores

    return search_in_blocks(search, "topk", {"": items}, exclude=exclude, allow=allow)


@named("fuse_topk")
def fuse_topk(
    queries: Mapping[str, ArrayLike],
    items: Mapping[str, ArrayLike],
    weights: Mapping[str, ArrayLike],
    k: int,
    *,
    metric: str = "cosine",
    fusion: str = "sum",
    normalise: str | None = None,
    missing: str = "renormalise",
    present: Mapping[str, ArrayLike] | None = None,
    exclude: Any = None,
    allow: Any = None,
    depth: int = 1000,
    rank_constant: float = 60.0,
    device: str = "auto",
    num_threads: int = 0,
) -> tuple[Ids, Scores]:
    """Fuse the similarities of several modalities and find the k best items, exactly, in one pass.

    No score matrix is made. See `FusedIndex.topk` for the parameters and the formulas; build a
    `FusedIndex` to search the same items more than once.

    Parameters
    ----------
    queries, items : mapping modality -> array-like of shape (n, dim_m)
        Items in files of any size as in `topk`; converted at once for 'rrf' and `normalise`.
    weights : mapping modality -> float or array-like of shape (n_queries,)
    k : int
    metric : {'cosine', 'dot'}, default='cosine'
    fusion : {'sum', 'average', 'product', 'max', 'min', 'rrf'}, default='sum'
    normalise : {'zscore', 'minmax'} or None, default=None
    missing : {'renormalise', 'zero'}, default='renormalise'
    present : mapping modality -> array-like of bool of shape (n_items,), optional
    exclude, allow, device, num_threads
        As in `topk`.
    depth, rank_constant
        Of 'rrf', as in `FusedIndex.topk`.

    Returns
    -------
    ids : ndarray of shape (n_queries, k), int32
    scores : ndarray of shape (n_queries, k), float32

    Raises
    ------
    TypeError, ValueError, IndexError, DeviceError
        As `topk`; and ValueError if the modalities of the mappings differ.

    Examples
    --------
    >>> import numpy as np, recfuse
    >>> items = {"text": np.eye(3), "image": np.eye(3)[::-1]}
    >>> queries = {"text": [[1.0, 0, 0]], "image": [[1.0, 0, 0]]}
    >>> ids, scores = recfuse.fuse_topk(queries, items, {"text": 0.75, "image": 0.25}, k=2)
    >>> ids.tolist(), scores.tolist()
    ([[0, 2]], [[0.75, 0.25]])
    """

    def search(block: Any, mask: Any, **filters: Any) -> tuple[Ids, Scores]:
        index = FusedIndex(
            block, metric=metric, present=mask, device=device, num_threads=num_threads
        )
        result = index.topk(
            queries,
            k,
            weights=weights,
            fusion=fusion,
            normalise=normalise,
            missing=missing,
            depth=depth,
            rank_constant=rank_constant,
            **filters,
        )
        return result[0], result[1]

    if normalise is not None or fusion == "rrf":  # these want to know all items
        return search(items, present, exclude=exclude, allow=allow)
    return search_in_blocks(search, "fuse_topk", items, present, exclude=exclude, allow=allow)


@named("cosine_knn")
def cosine_knn(
    matrix: Any,
    k: int,
    *,
    norm: str = "full",
    shrinkage: float = 0.0,
    min_support: int = 1,
    device: str = "auto",
    num_threads: int = 0,
) -> sp.csr_array:
    r"""Find the k most similar other rows of every row of a sparse matrix, by the cosine [1]_.

    .. math:: sim(u, v) = \frac{\sum_i w_{ui} w_{vi}}
              {\sqrt{\sum_i w_{ui}^2} \sqrt{\sum_i w_{vi}^2} + shrinkage}

    Pass ``user_items`` for similar users, its transpose for similar items. Only rows that share
    stored columns are compared; nothing of the size of all pairs is made. Sums are float64 in
    ascending column order and the similarity is rounded once, so the result has the same bytes for
    any number of threads and instruction set.

    Parameters
    ----------
    matrix : sparse of shape (n_rows, n_cols)
        Finite values, used as float32; duplicates are summed first. A stored zero is an entry: it
        counts as a shared column and adds nothing.
    k : int
        Neighbours per row, at least 1; it may exceed the number of rows.
    norm : {'full', 'corated'}, default='full'
        Take the norms over all columns of a row, or only over those that both rows have.
    shrinkage : float, default=0.0
        Added to the product of the norms, at least 0: pairs with little behind them fall behind.
    min_support : int, default=1
        Columns that two rows must share, at least 1.
    device : {'auto', 'cpu', 'cuda'}, default='auto'
    num_threads : int, default=0

    Returns
    -------
    csr_array of shape (n_rows, n_rows), float32
        Row u has its neighbours best first (score descending, then id ascending), so the indices
        of a row are not sorted. Rows may have fewer than `k`; a similarity of 0, as between rows
        of stored zeros, is stored.

    Raises
    ------
    TypeError
        If `matrix` is not sparse or an argument has the wrong type.
    ValueError
        If a value is not finite, `norm` is unknown, `shrinkage` is negative, or `k` or
        `min_support` is below 1.
    DeviceError
        If 'cuda' is asked for and cannot be used.

    References
    ----------
    .. [1] B. Sarwar, G. Karypis, J. Konstan, J. Riedl, "Item-based collaborative filtering
       recommendation algorithms", WWW 2001.

    Examples
    --------
    >>> import scipy.sparse as sp, recfuse
    >>> likes = sp.csr_array([[1, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 1]])
    >>> recfuse.cosine_knn(likes, k=1).toarray().tolist()
    [[0.0, 0.5, 0.0], [0.5, 0.0, 0.0], [0.5, 0.0, 0.0]]
    """
    check_name(norm, "norm")
    csr = as_csr(matrix, "matrix")
    n_rows = csr.shape[0]
    ids, scores = resolve_op("cosine_knn", device)(
        csr_parts(csr),
        # No row has more neighbours than there are rows.
        min(as_int(k, "k"), max(n_rows, 1)),
        norm=norm,
        shrinkage=as_float(shrinkage, "shrinkage"),
        min_support=as_int(min_support, "min_support"),
        num_threads=as_num_threads(num_threads),
    )
    found = ids >= 0
    indptr = np.concatenate([[0], np.cumsum(found.sum(axis=1))])
    if indptr[-1] <= np.iinfo(np.int32).max:  # or SciPy would widen the ids, too
        indptr = indptr.astype(np.int32)
    if indptr[-1] == ids.size:  # every row has k neighbours
        return sp.csr_array((scores.ravel(), ids.ravel(), indptr), shape=(n_rows, n_rows))
    return sp.csr_array((scores[found], ids[found], indptr), shape=(n_rows, n_rows))


@named("neighbour_topk")
def neighbour_topk(
    user_items: Any,
    neighbours: Any,
    k: int,
    *,
    normalise: bool = False,
    exclude: Any = None,
    allow: Any = None,
    device: str = "auto",
    num_threads: int = 0,
) -> tuple[Ids, Scores]:
    """Find the k best items of the product of histories and neighbours, exactly.

    ``score(u, i) = sum_j user_items[u, j] * neighbours[j, i]``, for the items that some neighbour
    speaks for. The product itself is never made.

    Parameters
    ----------
    user_items : sparse of shape (n_queries, n)
        Finite values, used as float32.
    neighbours : sparse of shape (n, n_items)
        Finite values, used as float32. CSR is used as it is, with the entries of a row in any
        order: `cosine_knn` has the best first.
    k : int
        Length of the lists, at least 1.
    normalise : bool, default=False
        Divide a score by ``sum_j |user_items[u, j]|`` over the neighbours that have the item: it
        becomes their weighted mean.
    exclude : sparse of shape (n_queries, n_items), optional
        Stored entries, whatever their value, are left out.
    allow : array-like of int, or sparse of shape (n_queries, n_items), optional
        Only these ids, for all queries; or only the stored entries of each row.
    device : {'auto', 'cpu', 'cuda'}, default='auto'
    num_threads : int, default=0

    Returns
    -------
    ids : ndarray of shape (n_queries, k), int32
        Score descending, then id ascending; -1 where fewer than `k` items have a neighbour that
        speaks for them.
    scores : ndarray of shape (n_queries, k), float32
        Float64 sums in the order of the neighbours, rounded once; -inf where the id is -1.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If shapes disagree, `k` < 1 or a value is not finite.
    IndexError
        If an id of `allow` is out of range.

    Examples
    --------
    >>> import scipy.sparse as sp
    >>> from recfuse.ops import neighbour_topk
    >>> neighbours = sp.csr_array([[0, 0.5, 0.25], [0.5, 0, 1]])
    >>> ids, scores = neighbour_topk(sp.csr_array([[1, 2]]), neighbours, k=2)
    >>> ids.tolist(), scores.tolist()
    ([[2, 0]], [[2.25, 1.0]])
    """
    csr = as_csr(user_items, "user_items")
    result = resolve_op("neighbour_topk", device)(
        csr_parts(csr),
        csr_parts(_as_rows(neighbours, "neighbours")),
        as_int(k, "k"),
        normalise=bool(normalise),
        **as_filters(exclude, allow),
        num_threads=as_num_threads(num_threads),
    )
    return result[0], result[1]


def _as_rows(x: Any, name: str) -> sp.csr_array:
    """Return a float32 CSR whose rows may be in any order; C++ checks the values."""
    if not sp.issparse(x) or x.format != "csr" or x.dtype != np.float32:
        return as_csr(x, name)
    check_structure(x, name)
    return x
