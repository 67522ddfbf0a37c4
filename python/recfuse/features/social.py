"""Who knows whom: the taste of friends, as scores and as a history for people without one."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike

from recfuse._inputs import as_csr, as_ids, check_ids
from recfuse._named import named

__all__ = ["friends_taste"]


@named("friends_taste")
def friends_taste(
    friends: Any, user_items: Any, *, users: ArrayLike | None = None, steps: int = 1
) -> sp.csr_array:
    r"""Return the mean interactions of every user's friends: one sparse product.

    .. math:: T = (D^{-1} S)^{steps} R, \quad D = \mathrm{diag}(\textstyle\sum_v S_{uv})

    with the tie strengths S and the interactions R, as in collaborative filtering over a social
    network [1]_. T is a modality of its own (scores of items per user); and the histories of users
    without one: `AlternatingLeastSquares.fold_in` and `history_profiles` take its rows.

    Parameters
    ----------
    friends : sparse of shape (n_users, n_users)
        Tie strengths, finite and not negative: 1 for a friend, or how often two write each other.
        Row u has the friends of u: a directed graph (who follows whom) stays directed. The diagonal
        is left out: nobody recommends to himself.
    user_items : sparse of shape (n_users, n_items), or Interactions
    users : array-like of int, optional
        Return the rows of these alone.
    steps : int, default=1
        2 is the friends of friends, and so on.

    Returns
    -------
    csr_array of shape (n_users, n_items), float32
        An empty row for a user without friends.

    Raises
    ------
    ValueError
        If shapes disagree, a strength is negative or not finite, or `steps` is below 1.
    IndexError
        If one of `users` is no row of `friends`.
    TypeError
        If a matrix is not sparse.

    References
    ----------
    .. [1] H. Ma, I. King, M. R. Lyu, "Learning to Recommend with Social Trust Ensemble",
       SIGIR 2009: the term of the trusted friends.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from recfuse.features import friends_taste
    >>> friends = sp.csr_array(np.array([[0, 3, 1], [1, 0, 0], [0, 0, 0]]))
    >>> plays = sp.csr_array(np.array([[0.0, 0.0], [8.0, 0.0], [0.0, 4.0]]))
    >>> friends_taste(friends, plays).toarray()
    array([[6., 1.],
           [0., 0.],
           [0., 0.]], dtype=float32)
    """
    ties, history = as_csr(friends, "friends"), as_csr(user_items, "user_items")
    n_users = ties.shape[0]
    if ties.shape != (n_users, n_users):
        raise ValueError(f"friends must be square; got shape {ties.shape}")
    if history.shape[0] != n_users:
        raise ValueError(
            f"user_items must have one row per row of friends ({n_users}); got {history.shape[0]}"
        )
    if not (np.isfinite(ties.data).all() and (ties.data >= 0).all()):
        raise ValueError("friends must be finite and not negative; got other strengths")
    if not isinstance(steps, (int, np.integer)) or isinstance(steps, bool) or steps < 1:
        raise ValueError(f"steps must be an integer of at least 1; got {steps!r}")
    walk = _transitions(ties)
    rows = walk if users is None else walk[check_ids(as_ids(users, "users"), n_users, "users")]
    for _ in range(steps - 1):
        rows = rows @ walk
    taste = sp.csr_array(rows @ history.astype(np.float64))
    taste.sort_indices()
    return taste.astype(np.float32)


def _transitions(ties: sp.csr_array) -> sp.csr_array:
    """Return the strengths without the diagonal, every row of sum 1."""
    coo = sp.coo_array(ties)
    kept = (coo.row != coo.col) & (coo.data > 0)
    row, data = coo.row[kept], coo.data[kept].astype(np.float64)
    total = np.bincount(row, data, minlength=ties.shape[0])
    return sp.csr_array((data / total[row], (row, coo.col[kept])), shape=ties.shape)
