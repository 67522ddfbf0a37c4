"""Splits and metrics under implicit's names, with its definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recfuse.compat.implicit._progress import shown
from recfuse.compat.implicit.utils import check_random_state

__all__ = [
    "AUC_at_k",
    "leave_k_out_split",
    "mean_average_precision_at_k",
    "ndcg_at_k",
    "precision_at_k",
    "ranking_metrics_at_k",
    "train_test_split",
]

Split = tuple[sp.csr_matrix, sp.csr_matrix]

_BATCH = 1000  # users asked for at a time


def train_test_split(
    ratings: Any, train_percentage: float = 0.8, random_state: Any = None
) -> Split:
    """Put every entry into the training matrix with a probability, else into the test matrix.

    Parameters
    ----------
    ratings : sparse of shape (n_users, n_items)
    train_percentage : float, default=0.8
        The probability, from 0 to 1.
    random_state : int, numpy.random.RandomState, numpy.random.Generator or None, default=None
        The same seed makes the split that implicit makes.

    Returns
    -------
    train, test : csr_matrix
        Entries of up to 0 are in no test matrix.
    """
    coo = ratings.tocoo()
    drawn = check_random_state(random_state).random(len(coo.data))
    train = _part(coo, drawn < train_percentage)
    return train, _part(coo, (drawn >= train_percentage) & (coo.data > 0))


def leave_k_out_split(
    ratings: Any, K: int = 1, train_only_size: float = 0.0, random_state: Any = None
) -> Split:
    """Put K random entries of every user who has more than K + 1 into the test matrix.

    Parameters
    ----------
    ratings : sparse of shape (n_users, n_items)
    K : int, default=1
    train_only_size : float, default=0.0
        Share of the users whose entries all stay in the training matrix.
    random_state : int, numpy.random.RandomState, numpy.random.Generator or None, default=None
        Decides which users and which entries.

    Returns
    -------
    train, test : csr_matrix
        Together the given entries, each as it was.

    Raises
    ------
    ValueError
        If `K` is below 1 or `train_only_size` not in [0, 1).
    """
    if K < 1:
        raise ValueError("The 'K' must be >= 1.")
    if not 0.0 <= train_only_size < 1.0:
        raise ValueError("The 'train_only_size' must be in the range (0.0 <= x < 1.0).")
    coo, rng = ratings.tocoo(), check_random_state(random_state)
    users, place, counts = np.unique(coo.row, return_inverse=True, return_counts=True)
    candidates = counts > K + 1
    if train_only_size > 0.0:
        size = max(1, int(len(users) * train_only_size))
        candidates[rng.choice(len(users), size=size, replace=False)] = False
    # By user, and within a user by chance: the first K are a sample of that size.
    order = np.lexsort((rng.random(len(coo.row)), place))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    tested = candidates[place] & (rank < K)
    return _part(coo, ~tested), _part(coo, tested)


def _part(coo: Any, kept: NDArray[np.bool_]) -> sp.csr_matrix:
    entries = (coo.data[kept], (coo.row[kept], coo.col[kept]))
    return sp.csr_matrix(entries, shape=coo.shape, dtype=coo.dtype)


def precision_at_k(
    model: Any,
    train_user_items: Any,
    test_user_items: Any,
    K: int = 10,
    show_progress: bool = True,
    num_threads: int = 1,
) -> float:
    """Return 'precision' of `ranking_metrics_at_k`."""
    every = ranking_metrics_at_k(
        model, train_user_items, test_user_items, K, show_progress, num_threads
    )
    return every["precision"]


def mean_average_precision_at_k(
    model: Any,
    train_user_items: Any,
    test_user_items: Any,
    K: int = 10,
    show_progress: bool = True,
    num_threads: int = 1,
) -> float:
    """Return 'map' of `ranking_metrics_at_k`."""
    every = ranking_metrics_at_k(
        model, train_user_items, test_user_items, K, show_progress, num_threads
    )
    return every["map"]


def ndcg_at_k(
    model: Any,
    train_user_items: Any,
    test_user_items: Any,
    K: int = 10,
    show_progress: bool = True,
    num_threads: int = 1,
) -> float:
    """Return 'ndcg' of `ranking_metrics_at_k`."""
    every = ranking_metrics_at_k(
        model, train_user_items, test_user_items, K, show_progress, num_threads
    )
    return every["ndcg"]


def AUC_at_k(
    model: Any,
    train_user_items: Any,
    test_user_items: Any,
    K: int = 10,
    show_progress: bool = True,
    num_threads: int = 1,
) -> float:
    """Return 'auc' of `ranking_metrics_at_k`."""
    every = ranking_metrics_at_k(
        model, train_user_items, test_user_items, K, show_progress, num_threads
    )
    return every["auc"]


def ranking_metrics_at_k(
    model: Any,
    train_user_items: Any,
    test_user_items: Any,
    K: int = 10,
    show_progress: bool = True,
    num_threads: int = 1,
) -> dict[str, float]:
    r"""Return metrics of the lists of K items, over the users with test entries.

    With the :math:`n_u` test items of a user, of which those at the ranks R are in the list:

    ============ ===================================================================
    'precision'  :math:`\sum_u |R| / \sum_u \min(K, n_u)`
    'map'        mean of :math:`\sum_{r \in R} |R \cap [1, r]| / r / \min(K, n_u)`
    'ndcg'       mean of :math:`\sum_{r \in R} 1 / \log_2(r + 1)` by that of a full list
    'auc'        mean share of the pairs of a test item and another one that are in the
                 right order, where the order of what is not in the list is a coin's
    ============ ===================================================================

    Parameters
    ----------
    model : RecommenderBase
        Anything with `recommend`, whose rows may end in ids of -1.
    train_user_items : csr_matrix of shape (n_users, n_items)
        Histories, which `recommend` gets.
    test_user_items : csr_matrix of shape (n_users, n_items)
    K : int, default=10
    show_progress : bool, default=True
    num_threads : int
        Ignored: the model has its own number.

    Returns
    -------
    dict of str to float

    Raises
    ------
    ValueError
        If there is no test entry.
    """
    train = train_user_items.tocsr()
    test = _pattern(test_user_items)
    users = np.flatnonzero(np.diff(test.indptr) > 0).astype(np.int32)
    if len(users) == 0:
        raise ValueError("test_user_items must have an entry; got none")
    sums = np.zeros(4)
    starts = range(0, len(users), _BATCH)
    for first in shown(starts, description="evaluation", enabled=show_progress):
        batch = users[first : first + _BATCH]
        ids = np.asarray(model.recommend(batch, train[batch], N=K)[0])[:, :K]
        sums += _sums(ids, test[batch], K)
    possible = np.minimum(np.diff(test.indptr)[users], K).sum()
    return {
        "precision": float(sums[0] / possible),
        "map": float(sums[1] / len(users)),
        "ndcg": float(sums[2] / len(users)),
        "auc": float(sums[3] / len(users)),
    }


def _pattern(matrix: Any) -> sp.csr_array:
    """Return which entries are stored, as ones."""
    csr = sp.csr_array(matrix)
    ones = np.ones(len(csr.indices), np.int8)
    pattern = sp.csr_array((ones, csr.indices.copy(), csr.indptr.copy()), shape=csr.shape)
    pattern.sum_duplicates()
    return pattern


def _sums(ids: NDArray[Any], test: sp.csr_array, K: int) -> NDArray[np.float64]:
    """Return the sums over users of hits, average precision, gain and area."""
    n_users, n_items = test.shape
    n_liked = np.diff(test.indptr)
    rows = np.arange(n_users)
    # Pairs as numbers, in ascending order: the rows of the pattern are sorted.
    pairs = np.repeat(rows, n_liked) * n_items + test.indices
    wanted = rows[:, None] * n_items + ids
    place = np.minimum(np.searchsorted(pairs, wanted), len(pairs) - 1)
    hit = (pairs[place] == wanted) & (ids >= 0) & (ids < n_items)
    so_far = np.cumsum(hit, axis=1)
    most = np.minimum(n_liked, K)
    ranks = np.arange(1, ids.shape[1] + 1)
    gains = 1.0 / np.log2(np.arange(2, K + 2))
    hits = hit.sum(axis=1)
    others, misses = n_items - n_liked, ids.shape[1] - hits
    ordered = (so_far * ~hit).sum(axis=1) + (hits + n_liked) / 2.0 * (others - misses)
    area = np.divide(ordered, n_liked * others, out=np.ones(n_users), where=others > 0)
    return np.array(
        [
            hits.sum(),
            ((hit * so_far / ranks).sum(axis=1) / most).sum(),
            ((hit * gains[: ids.shape[1]]).sum(axis=1) / np.cumsum(gains)[most - 1]).sum(),
            area.sum(),
        ]
    )
