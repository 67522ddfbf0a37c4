"""Metrics of rankings and of predicted ratings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recfuse._inputs import as_csr
from recfuse.evaluation._checks import cutoffs
from recfuse.evaluation._ranking import RankingPass, relevant
from recfuse.evaluation.report import RankingMetrics

__all__ = ["RankingMetrics", "log_loss", "mae", "mse", "ranking_metrics", "rmse"]


def ranking_metrics(
    ids: Any,
    test: Any,
    *,
    k: int | Iterable[int] = 20,
    n_items: int | None = None,
    train_popularity: Any = None,
    item_values: Any = None,
    item_vectors: Any = None,
) -> RankingMetrics:
    r"""Compare ranked lists with the items that each user had in the test.

    With :math:`h_j = 1` if the item at rank :math:`j` is one of the :math:`n > 0` test items of the
    user and 0 otherwise, and :math:`H = \sum_{j \le k} h_j`:

    =============== ==========================================================================
    precision@k     :math:`H / k`, also where fewer than `k` items were recommended
    recall@k        :math:`H / n`
    f1@k            :math:`2PR / (P + R) = 2H / (k + n)` of the user; 0 where P = R = 0
    hit_rate@k      1 if :math:`H > 0`, else 0
    map@k           :math:`\frac{1}{\min(k, n)} \sum_{j \le k} h_j \frac{h_1 + \dots + h_j}{j}`
    ndcg@k          :math:`\sum_{j \le k} \frac{h_j}{\log_2(j + 1)} \big/
                    \sum_{j \le \min(k, n)} \frac{1}{\log_2(j + 1)}` [1]_
    mrr@k           1 / rank of the first hit within `k`; 0 without one
    novelty@k       mean of :math:`-\log_2 p_i` over the items recommended within `k` [2]_
    value@k         :math:`\sum_{j \le k} h_j v_j`, with :math:`v_j` the `item_values` of the
                    item at rank :math:`j`: the revenue, say, that the list finds
    value_recall@k  `value@k` over the value of all test items of the user
    value_ndcg@k    :math:`\sum_{j \le k} \frac{h_j v_j}{\log_2(j + 1)}` over the same sum of the
                    test items in falling order of value [1]_
    diversity@k     mean of :math:`1 - \cos(x_i, x_j)` over the pairs of items recommended within
                    `k` that have `item_vectors` other than zeros [3]_
    coverage@k      share of the catalogue that is recommended to anybody within `k`
    gini@k          :math:`\frac{1}{n - 1} \sum_{j=1}^{n} (2j - n - 1) p_{(j)}` with the shares
                    :math:`p_{(1)} \le p_{(2)} \le \dots` of the `n` items of the catalogue in all
                    that is recommended [4]_: 0 where all are shown alike, 1 where one is
    =============== ==========================================================================

    All but the last two are per user, and their value is the mean over the users that have test
    items; the other users are skipped, and counted. :math:`p_i` is the item's share of
    `train_popularity`. An item that it has never seen would be infinitely novel; it counts like
    the least popular item that was seen. Where a metric is undefined for a user it is NaN and the
    user is left out of its mean: the novelty of nothing, the diversity of fewer than two items,
    shares of no value.

    Parameters
    ----------
    ids : array-like of shape (n_users, >= max(k)), integers
        Items, best first. -1 is padding: no item, a miss.
    test : sparse matrix or array of shape (n_users, n_columns)
        Row `r` belongs to row `r` of `ids`. An item is relevant where the value stored is above 0:
        stored zeros and dislikes are not.
    k : int or iterable of int, default=20
        One or several cut-offs; all of them cost one pass.
    n_items : int, optional
        Size of the catalogue for the coverage; the number of columns of `test` by default.
    train_popularity : array-like of shape (n_columns,), optional
        How often each item occurs in training, for the novelty; without it there is none.
    item_values : array-like of shape (n_columns,), optional
        What a hit is worth: price, margin, conversion value. Finite and at least 0; without it
        there are no metrics of value.
    item_vectors : array-like of shape (n_columns, dim), optional
        Vectors (text, factors, one-hot genres) for the diversity; rows of zeros have none.

    Returns
    -------
    RankingMetrics
        Its `user_ids` are the rows that have test items.

    Raises
    ------
    TypeError
        If `ids` or `k` are no integers or `test` is not sparse.
    ValueError
        If `k` is below 1, empty or has duplicates; if `ids` has fewer than `k` columns, another
        number of rows than `test`, or an item twice in a row; if a value of `test` is not finite;
        if no row has a test item; if `train_popularity` has another length, is negative, not finite
        or zero everywhere; if `item_values` or `item_vectors` has the wrong shape, is not finite
        or (values) negative; if `n_items` is smaller than the number of items recommended.
    IndexError
        If an id is below -1 or not a column of `test`.

    References
    ----------
    .. [1] K. Jarvelin, J. Kekalainen, "Cumulated gain-based evaluation of IR techniques", ACM
       Transactions on Information Systems 20(4), 2002; here with gains 0 and 1, or 0 and the value.
    .. [2] S. Vargas, P. Castells, "Rank and relevance in novelty and diversity metrics for
       recommender systems", RecSys 2011; here without discount by rank.
    .. [3] C.-N. Ziegler et al., "Improving recommendation lists through topic diversification",
       WWW 2005; the mean over pairs instead of their sum, and 1 - cosine.
    .. [4] G. Shani, A. Gunawardana, "Evaluating recommendation systems", Recommender Systems
       Handbook, 2011, section 8.3.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.sparse import csr_array
    >>> from recfuse.evaluation import ranking_metrics
    >>> test = csr_array(np.array([[0, 1, 1, 0], [1, 0, 0, 0]]))
    >>> result = ranking_metrics([[1, 3, 2], [2, 0, -1]], test, k=[1, 3])
    >>> result["recall@1"], result["recall@3"], result["mrr@3"]
    (0.25, 1.0, 0.75)
    """
    op = "ranking_metrics"
    at = cutoffs(k, op)
    truth = relevant(as_csr(test, f"{op}: test"), f"{op}: test")
    ids = np.asarray(ids)
    if ids.ndim != 2 or ids.shape[0] != truth.shape[0]:
        raise ValueError(
            f"{op}: ids must have shape (n_users, >= k) with one row per row of test, "
            f"{truth.shape[0]}; got {ids.shape}"
        )
    totals = RankingPass(
        at,
        truth.shape[1],
        op,
        n_items=n_items,
        popularity=train_popularity,
        values=item_values,
        vectors=item_vectors,
    )
    rows = np.flatnonzero(np.diff(truth.indptr))
    for start in range(0, len(rows), _ROWS_PER_STEP):
        step = rows[start : start + _ROWS_PER_STEP]
        totals.add(step, ids[step], truth[step], f"{op}: ids")
    return totals.result(n_skipped=truth.shape[0] - len(rows))


_ROWS_PER_STEP = 4096  # bounds the temporaries: a few float64 arrays of (rows, k)


def rmse(predicted: Any, actual: Any) -> float:
    r"""Root mean squared error, :math:`\sqrt{\frac{1}{n} \sum_i (p_i - a_i)^2}`.

    Parameters
    ----------
    predicted, actual : array-like of one shape
        Finite real numbers; computed in float64.

    Returns
    -------
    float

    Raises
    ------
    TypeError
        If one is not real or is masked.
    ValueError
        If the shapes differ, or one is empty or not finite.

    Examples
    --------
    >>> from recfuse.evaluation import rmse
    >>> rmse([3, 5], [4, 2]) == 5 ** 0.5
    True
    """
    return float(np.sqrt(np.mean(np.square(_errors(predicted, actual, "rmse")))))


def mse(predicted: Any, actual: Any) -> float:
    r"""Mean squared error, :math:`\frac{1}{n} \sum_i (p_i - a_i)^2`.

    Parameters
    ----------
    predicted, actual : array-like of one shape
        Finite real numbers; computed in float64.

    Returns
    -------
    float

    Raises
    ------
    TypeError
        If one is not real or is masked.
    ValueError
        If the shapes differ, or one is empty or not finite.

    Examples
    --------
    >>> from recfuse.evaluation import mse
    >>> mse([3, 5], [4, 2])
    5.0
    """
    return float(np.mean(np.square(_errors(predicted, actual, "mse"))))


def mae(predicted: Any, actual: Any) -> float:
    r"""Mean absolute error, :math:`\frac{1}{n} \sum_i |p_i - a_i|`.

    Parameters
    ----------
    predicted, actual : array-like of one shape
        Finite real numbers; computed in float64.

    Returns
    -------
    float

    Raises
    ------
    TypeError
        If one is not real or is masked.
    ValueError
        If the shapes differ, or one is empty or not finite.

    Examples
    --------
    >>> from recfuse.evaluation import mae
    >>> mae([3, 5], [4, 2])
    2.0
    """
    return float(np.mean(np.abs(_errors(predicted, actual, "mae"))))


def log_loss(predicted: Any, actual: Any) -> float:
    r"""Binary cross-entropy, :math:`-\frac{1}{n} \sum_i a_i \ln p_i + (1 - a_i) \ln(1 - p_i)`.

    In nats. Probabilities are kept 2.2e-16 away from 0 and 1, as in scikit-learn, so that one that
    is certain and wrong costs 36 and not infinity [1]_.

    Parameters
    ----------
    predicted : array-like
        Probabilities of a click, a purchase ..., in [0, 1]; computed in float64.
    actual : array-like of the same shape
        What happened: 0 or 1, or a share in between.

    Returns
    -------
    float

    Raises
    ------
    TypeError
        If one is not real or is masked.
    ValueError
        If the shapes differ, or one is empty or outside [0, 1].

    References
    ----------
    .. [1] C. M. Bishop, "Pattern Recognition and Machine Learning", 2006, equation 4.90.

    Examples
    --------
    >>> from recfuse.evaluation import log_loss
    >>> round(log_loss([0.9, 0.2], [1, 0]), 4)
    0.1643
    """
    p, a = _pair(predicted, actual, "log_loss")
    for name, x in (("predicted", p), ("actual", a)):
        wrong = (x < 0) | (x > 1)
        if wrong.any():
            raise ValueError(f"log_loss: {name} must be in [0, 1]; got {x[wrong].flat[0]}")
    tiny = np.finfo(np.float64).eps
    p = np.clip(p, tiny, 1 - tiny)
    return float(-np.mean(a * np.log(p) + (1 - a) * np.log1p(-p)))


def _errors(predicted: Any, actual: Any, op: str) -> NDArray[np.float64]:
    p, a = _pair(predicted, actual, op)
    return p - a


def _pair(predicted: Any, actual: Any, op: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    p = _finite(predicted, f"{op}: predicted")
    a = _finite(actual, f"{op}: actual")
    if p.shape != a.shape:
        raise ValueError(f"{op}: predicted must have the shape of actual, {a.shape}; got {p.shape}")
    if p.size == 0:
        raise ValueError(f"{op}: predicted must not be empty; got shape {p.shape}")
    return p, a


def _finite(x: Any, name: str) -> NDArray[np.float64]:
    array = np.asarray(x)
    if array.size == 0:
        array = array.astype(np.float64)
    if array.dtype.kind not in "fiub" or np.ma.isMaskedArray(x):
        kind = "a masked array" if np.ma.isMaskedArray(x) else f"dtype {array.dtype}"
        raise TypeError(f"{name} must hold real numbers; got {kind}")
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        wrong = array[~np.isfinite(array)].flat[0]
        raise ValueError(f"{name} must be finite; got {wrong}")
    return array
