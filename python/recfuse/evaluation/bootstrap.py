"""Whether one model is better than another, or the users drawn were kind to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from recfuse._inputs import as_rng
from recfuse.evaluation._checks import positive_int
from recfuse.evaluation._split import RandomState
from recfuse.evaluation.report import RankingMetrics

__all__ = ["Difference", "paired_bootstrap"]

_DRAWS_PER_STEP = 1 << 20


@dataclass(frozen=True)
class Difference:
    """The mean of a metric of one model minus that of another, with an interval.

    Attributes
    ----------
    metric : str
    mean : float
        Mean over the users of the difference within each user.
    low, high : float
        Ends of the interval.
    confidence : float
    n_users : int
        Users for whom the metric is defined in both.
    """

    metric: str
    mean: float
    low: float
    high: float
    confidence: float
    n_users: int

    def __str__(self) -> str:
        """Show the difference and its interval in one line."""
        return (
            f"{self.metric}: {self.mean:+.4f}, {100 * self.confidence:g} % interval "
            f"[{self.low:+.4f}, {self.high:+.4f}] over {self.n_users} users"
        )


def paired_bootstrap(
    a: RankingMetrics,
    b: RankingMetrics,
    metric: str,
    *,
    confidence: float = 0.95,
    n_resamples: int = 2000,
    random_state: RandomState = 0,
) -> Difference:
    r"""Say by how much `a` is better than `b`, with a percentile bootstrap interval over users.

    Users are drawn with replacement, each with both models' values, so what makes a user easy or
    hard for both cancels out. With :math:`d_u = a_u - b_u` and :math:`B` samples of all users, the
    interval lies between the quantiles :math:`\frac{1 \mp c}{2}` of the :math:`B` means of
    :math:`d` [1]_ [2]_. If it does not contain 0, the difference is more than luck of the draw of
    these users; it says nothing of other splits or seeds.

    Parameters
    ----------
    a, b : RankingMetrics
        Of `evaluate`, over the same users.
    metric : str
        One that has a value per user: 'ndcg@20', 'auc'.
    confidence : float, default=0.95
    n_resamples : int, default=2000
    random_state : int, numpy.random.Generator or None, default=0

    Returns
    -------
    Difference

    Raises
    ------
    TypeError
        If `a` or `b` is no RankingMetrics or `n_resamples` no integer.
    ValueError
        If the users differ, the metric has no value per user in one of them or is defined for no
        user in both, `confidence` is not in (0, 1) or `n_resamples` is below 1.

    References
    ----------
    .. [1] B. Efron, R. J. Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
    .. [2] T. Sakai, "Evaluating evaluation metrics based on the bootstrap", SIGIR 2006.

    Examples
    --------
    >>> from scipy.sparse import csr_array
    >>> from recfuse.evaluation import paired_bootstrap, ranking_metrics
    >>> test = csr_array([[0, 1], [1, 0], [0, 1], [0, 1]])
    >>> a = ranking_metrics([[1], [0], [1], [0]], test, k=1)
    >>> b = ranking_metrics([[0], [0], [0], [0]], test, k=1)
    >>> print(paired_bootstrap(a, b, "recall@1"))
    recall@1: +0.5000, 95 % interval [+0.0000, +1.0000] over 4 users
    """
    op = "paired_bootstrap"
    for name, result in (("a", a), ("b", b)):
        if not isinstance(result, RankingMetrics):
            raise TypeError(f"{op}: {name} must be RankingMetrics; got {type(result).__name__}")
        if metric not in result.per_user:
            raise ValueError(f"{op}: metric must be one of {list(result.per_user)}; got {metric!r}")
    if not np.array_equal(a.user_ids, b.user_ids):
        raise ValueError(f"{op}: b must be over the same users as a, in their order; got others")
    if not 0 < confidence < 1:
        raise ValueError(f"{op}: confidence must be in (0, 1); got {confidence}")
    n_resamples = positive_int(n_resamples, "n_resamples", op)
    differences = a.per_user[metric] - b.per_user[metric]
    differences = differences[~np.isnan(differences)]
    n = len(differences)
    if n == 0:
        raise ValueError(f"{op}: metric must be defined for a user in both; got only NaN")
    means = _resampled_means(differences, n_resamples, as_rng(random_state))
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Difference(
        metric, float(differences.mean()), float(low), float(high), float(confidence), n
    )


def _resampled_means(x: Any, n_resamples: int, rng: np.random.Generator) -> Any:
    n = len(x)
    step = max(1, _DRAWS_PER_STEP // n)
    sizes = [min(step, n_resamples - begin) for begin in range(0, n_resamples, step)]
    return np.concatenate([x[rng.integers(0, n, (size, n))].mean(axis=1) for size in sizes])
