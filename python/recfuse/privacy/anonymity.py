"""A threshold on how many people stand behind a similarity."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recfuse._inputs import as_csr, as_int, check_structure
from recfuse._named import named

__all__ = ["k_anonymous"]

_BLOCK_ELEMENTS = 1 << 24  # counts of pairs at a time, 64 MiB


@named("k_anonymous")
def k_anonymous(similarity: Any, user_items: Any, k: int) -> sp.csr_array:
    """Leave out the similarities of items that fewer than `k` different users have both.

    A pair that one person alone has tells what else that person has. This is the threshold of
    k-anonymity [1]_ on pairs of items; it is no differential privacy: the similarities that are
    left still move a little with every user.

    ``ItemNeighbours(min_support=k)`` holds to the same threshold before it chooses the nearest, so
    that its lists are full; prefer it where the model is fitted here. This function is for a matrix
    of any origin, and rows get shorter.

    Parameters
    ----------
    similarity : sparse of shape (n_items, n_items)
    user_items : sparse of shape (n_users, n_items), or Interactions
        Who has what: stored entries count, whatever their value.
    k : int
        At least 1.

    Returns
    -------
    csr_array of shape (n_items, n_items)
        The entries that are left, in their order, with their values.

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong or the shapes do not agree.

    References
    ----------
    .. [1] L. Sweeney, "k-anonymity: a model for protecting privacy", International Journal of
       Uncertainty, Fuzziness and Knowledge-Based Systems 10(5), 2002.

    Examples
    --------
    >>> import scipy.sparse as sp, recfuse
    >>> from recfuse.privacy import k_anonymous
    >>> likes = sp.csr_array([[1, 1, 0], [1, 1, 0], [0, 1, 1]])
    >>> similarity = recfuse.cosine_knn(likes.T, k=2)
    >>> similarity.nnz, k_anonymous(similarity, likes, k=2).nnz  # items 1 and 2: one user alone
    (4, 2)
    """
    k = as_int(k, "k")
    if k < 1:
        raise ValueError(f"k must be at least 1; got {k}")
    if not sp.issparse(similarity):
        raise TypeError(f"similarity must be sparse; got {type(similarity).__name__}")
    history = as_csr(user_items, "user_items")
    n = history.shape[1]
    if similarity.shape != (n, n):
        raise ValueError(f"similarity must have shape ({n}, {n}); got {similarity.shape}")
    # Not `as_csr`: it would sort the rows, which are best first.
    matrix = sp.csr_array(similarity)
    check_structure(matrix, "similarity")
    rows = np.repeat(np.arange(n), np.diff(matrix.indptr))
    keep = _support(history, rows, matrix.indices) >= k
    indptr = np.append(0, np.cumsum(np.bincount(rows[keep], minlength=n)))
    return sp.csr_array(
        (matrix.data[keep], matrix.indices[keep], indptr.astype(matrix.indptr.dtype)), shape=(n, n)
    )


def _support(
    history: sp.csr_array, rows: NDArray[np.int64], columns: NDArray[np.int32]
) -> NDArray[np.int64]:
    """Return how many users have both items of each pair; `rows` rise."""
    n = history.shape[1]
    has = sp.csr_array(
        (np.ones(len(history.indices), np.int32), history.indices, history.indptr), history.shape
    )
    of_item = sp.csr_array(has.T)
    support = np.empty(len(rows), np.int64)
    step = max(1, _BLOCK_ELEMENTS // max(1, n))
    for first in range(0, n, step):
        pairs = slice(*np.searchsorted(rows, (first, first + step)))
        counts = (of_item[first : first + step] @ has).toarray()
        support[pairs] = counts[rows[pairs] - first, columns[pairs]]
    return support
