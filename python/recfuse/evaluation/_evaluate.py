"""Evaluate one model on one split."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp

from recfuse._inputs import as_csr, as_ids
from recfuse.evaluation._checks import cutoffs, positive_int
from recfuse.evaluation._ranking import RankingPass, relevant
from recfuse.evaluation._users import UsersWithItems
from recfuse.evaluation.report import RankingMetrics
from recfuse.interactions import Interactions

__all__ = ["evaluate", "evaluate_ranks"]


def evaluate(
    model: Any,
    train: Any,
    test: Any,
    *,
    k: int | Iterable[int] = 20,
    exclude_seen: bool = True,
    user_ids: Any = None,
    item_values: Any = None,
    item_vectors: Any = None,
    auc: bool = False,
    batch_size: int = 1024,
    split: str | None = None,
    show_progress: bool = False,
) -> RankingMetrics:
    """Recommend to the users that have test items, and compare; `ranking_metrics` defines how.

    One pass over the users in batches, with one call of `recommend` for each, whatever the number
    of cut-offs. Memory is that of the matrices, one batch of `k` ids and the metrics per user.

    Parameters
    ----------
    model : object with a method `recommend`, or callable
        Called as ``recommend(user_ids, k, user_items=rows)`` and returns ``(ids, scores)``, ids of
        shape (n, k), best first, padded with -1. `rows` are those of `train`, which the model must
        leave out, or None where `exclude_seen` is false.
    train, test : Interactions or sparse matrix or array of shape (n_users, n_items)
        With the same id spaces. An item is relevant to a user where the value in `test` is above 0;
        repeated events of a pair are summed first.
    k : int or iterable of int, default=20
        One or several cut-offs. It may exceed the number of items.
    exclude_seen : bool, default=True
        Do not recommend what the user has in `train`. Test items of this kind cannot be found
        then: they are left out of the test, and counted.
    user_ids : array-like of int, optional
        Evaluate only these rows; all by default.
    item_values, item_vectors : array-like, optional
        For the metrics weighted by value and for the diversity, as in `ranking_metrics`.
    auc : bool, default=False
        Ask for the whole ranking of every user, not only the first `k`, and add 'auc': the share of
        pairs of a test item and another item that the model's scores put in the right order [1]_,
        ties counting half. Items that the model does not list tie below all others; items left out
        as seen take no part. A model with a method `rank_items` is asked for the ranks of the test
        items instead (`evaluate_ranks`); of others lists come in blocks of users, so no more than a
        few million scores exist at a time.
    batch_size : int, default=1024
        Users per call of `recommend`. The result does not depend on it if the model's does not.
    split : str, optional
        Name of the split, shown with the result.
    show_progress : bool, default=False
        Show a bar on standard error (extra: progress).

    Returns
    -------
    RankingMetrics

    Raises
    ------
    TypeError
        If `model` cannot recommend, or returns no pair of arrays with integer ids; if `train` or
        `test` is neither Interactions nor sparse; if `k`, `batch_size` or `user_ids` are no
        integers.
    ValueError
        If `train` and `test` differ in shape or labels; if `k` or `batch_size` is below 1; if a
        user id occurs twice; if no user has a test item; if a value of `test` is not finite; if the
        model returns the wrong shape or an item twice in a row, or, for the AUC, scores that rise
        along a list.
    IndexError
        If a user id is not a row of `train`, or an id returned not a column.

    References
    ----------
    .. [1] S. Rendle, C. Freudenthaler, Z. Gantner, L. Schmidt-Thieme, "BPR: Bayesian personalized
       ranking from implicit feedback", UAI 2009, section 3.1, with the ties of the Mann-Whitney
       statistic.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.sparse import csr_array
    >>> from recfuse.evaluation import evaluate
    >>> train = csr_array(np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0]]))
    >>> test = csr_array(np.array([[0, 1, 0], [0, 0, 1], [0, 0, 0]]))
    >>> def popular(user_ids, k, *, user_items):
    ...     scores = np.where(user_items.toarray() > 0, -np.inf, train.sum(axis=0))
    ...     ids = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    ...     return ids, np.take_along_axis(scores, ids, axis=1)
    >>> evaluate(popular, train, test, k=1, split="by hand")["recall@1"]
    0.5
    """
    op = "evaluate"
    recommend = recommender(model, op)
    rank_items = getattr(model, "rank_items", None) if auc else None
    at = cutoffs(k, op)
    batch_size = positive_int(batch_size, "batch_size", op)
    known, held_out = _matrices(train, test, op)
    truth = relevant(held_out, f"{op}: test")
    wanted = _users(user_ids, truth.shape[0], op)
    popularity = np.bincount(known.indices, minlength=known.shape[1]) if known.nnz else None
    totals = RankingPass(
        at,
        known.shape[1],
        op,
        popularity=popularity,
        values=item_values,
        vectors=item_vectors,
        auc=auc and rank_items is None,  # lists as long as the catalogue
    )
    batch_size = totals.users_per_request(batch_size)
    users = UsersWithItems(known, truth, wanted, exclude_seen=exclude_seen)
    for batch, test_rows, rows in users.batches(batch_size, show_progress=show_progress):
        seen = rows if exclude_seen else None
        answer = recommend(batch, totals.width, user_items=seen)
        if not isinstance(answer, Sequence) or len(answer) != 2:
            raise TypeError(
                f"{op}: recommend must return (ids, scores); got {type(answer).__name__}"
            )
        totals.add(
            batch,
            answer[0],
            test_rows,
            f"{op}: ids from recommend",
            scores=answer[1],
            n_candidates=users.n_candidates(rows),
            ranks=None if rank_items is None else rank_items(batch, test_rows, user_items=seen),
        )
    return totals.result(
        n_skipped=len(wanted) - users.n_evaluated, n_seen_left_out=users.n_seen, split=split
    )


def evaluate_ranks(
    model: Any,
    train: Any,
    test: Any,
    *,
    k: int | Iterable[int] = 20,
    exclude_seen: bool = True,
    user_ids: Any = None,
    batch_size: int = 8192,
    split: str | None = None,
    show_progress: bool = False,
) -> RankingMetrics:
    """Compare the ranks of the test items among all items; no list is made, on any device.

    The metrics of hits and the AUC are, bit by bit, those of `evaluate` with ``auc=True``. Where
    `model` is on a GPU so is the counting, and ranks are what comes back. What needs to know the
    other items of a list, such as coverage and novelty, is not there.

    Parameters
    ----------
    model : object with a method `rank_items`
        Called as ``rank_items(user_ids, test_rows, user_items=rows)``; returns the
        `FusedIndex.rank_pairs` of its scores. `AlternatingLeastSquares` has it.
    train, test, k, exclude_seen, user_ids, split, show_progress
        As in `evaluate`. A large `k` costs a byte a user of a batch.
    batch_size : int, default=8192
        Users per call of `rank_items`. The result does not depend on it.

    Returns
    -------
    RankingMetrics
        Without coverage and Gini coefficient.

    Raises
    ------
    TypeError
        If `model` cannot rank; and as `evaluate`.
    ValueError, IndexError
        As `evaluate`.

    Examples
    --------
    >>> import recfuse
    >>> from scipy.sparse import csr_array
    >>> from recfuse.evaluation import evaluate_ranks
    >>> train = csr_array([[1.0, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]])
    >>> model = recfuse.AlternatingLeastSquares(2, random_state=0).fit(train)
    >>> result = evaluate_ranks(model, train, csr_array([[0.0, 0, 0, 1]] * 3), k=[1, 2])
    >>> result["recall@2"]
    1.0
    """
    op = "evaluate_ranks"
    rank_items = getattr(model, "rank_items", None)
    if not callable(rank_items):
        raise TypeError(f"{op}: model must have a method rank_items; got {type(model).__name__}")
    at = cutoffs(k, op)
    batch_size = positive_int(batch_size, "batch_size", op)
    known, held_out = _matrices(train, test, op)
    truth = relevant(held_out, f"{op}: test")
    wanted = _users(user_ids, truth.shape[0], op)
    totals = RankingPass(at, known.shape[1], op)
    batch_size = totals.users_per_request(batch_size, hits=True)
    users = UsersWithItems(known, truth, wanted, exclude_seen=exclude_seen)
    for batch, test_rows, rows in users.batches(batch_size, show_progress=show_progress):
        ranks = rank_items(batch, test_rows, user_items=rows if exclude_seen else None)
        totals.add_ranks(batch, ranks, test_rows, users.n_candidates(rows))
    return totals.result(
        n_skipped=len(wanted) - users.n_evaluated, n_seen_left_out=users.n_seen, split=split
    )


def recommender(model: Any, op: str) -> Any:
    """Return what recommends: a method, or the model itself."""
    recommend = getattr(model, "recommend", model)
    if not callable(recommend):
        raise TypeError(
            f"{op}: model must have a method recommend or be callable; got {type(model).__name__}"
        )
    return recommend


def _matrices(train: Any, test: Any, op: str) -> tuple[sp.csr_array, sp.csr_array]:
    if isinstance(train, Interactions) and isinstance(test, Interactions):
        for space in ("users", "items"):
            if not np.array_equal(getattr(train, space), getattr(test, space)):
                raise ValueError(
                    f"{op}: train and test must have the same {space} in the same order; "
                    "got different ones. Split one set of interactions, or give its labels."
                )
    known, held_out = _matrix(train, f"{op}: train"), _matrix(test, f"{op}: test")
    if known.shape != held_out.shape:
        raise ValueError(
            f"{op}: test must have the shape of train, {known.shape}; got {held_out.shape}"
        )
    return known, held_out


def _matrix(x: Any, name: str) -> sp.csr_array:
    return x.to_csr() if isinstance(x, Interactions) else as_csr(x, name)


def _users(user_ids: Any, n_users: int, op: str) -> Any:
    if user_ids is None:
        return np.arange(n_users)
    ids = as_ids(user_ids, f"{op}: user_ids")
    wrong = (ids < 0) | (ids >= n_users)
    if wrong.any():
        raise IndexError(f"{op}: user_ids must be in [0, {n_users}); got {ids[wrong][0]}")
    unique, counts = np.unique(ids, return_counts=True)
    if len(unique) < len(ids):
        raise ValueError(f"{op}: user_ids must not repeat; got {unique[counts > 1][0]} twice")
    return ids
