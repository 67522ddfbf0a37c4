"""The result of an evaluation: means, standard errors, and the values of each user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recfuse.evaluation._table import aligned, split_title

__all__ = ["RankingMetrics"]


@dataclass(frozen=True, eq=False, repr=False)
class RankingMetrics:
    """Metrics of one model under one protocol; ``result["ndcg@20"]`` is a mean over the users.

    Attributes
    ----------
    k : tuple of int
        The cut-offs, increasing.
    user_ids : ndarray of shape (n_users,), integers
        The users that were evaluated: those with test items.
    per_user : dict of str to ndarray of shape (n_users,), float64
        Under names like 'ndcg@20', in the order of `user_ids`: what a bootstrap or a paired test
        needs. 'auc' is of the whole ranking and has no cut-off.
    coverage : dict of str to float
        'coverage@20' and so on, which has no value per user.
    gini : dict of str to float
        'gini@20' and so on: how unequally items are recommended.
    n_skipped : int
        Users left out because they have no test items.
    n_seen_left_out : int
        Test items left out because the user has them in training already, and seen items are not
        recommended.
    split : str or None
        Name of the split.
    """

    k: tuple[int, ...]
    user_ids: NDArray[Any]
    per_user: Mapping[str, NDArray[np.float64]]
    coverage: Mapping[str, float]
    gini: Mapping[str, float] = field(default_factory=dict)
    n_skipped: int = 0
    n_seen_left_out: int = 0
    split: str | None = None

    @property
    def n_users(self) -> int:
        """Number of users evaluated."""
        return len(self.user_ids)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the metrics without cut-off, in the order of the tables."""
        return tuple(dict.fromkeys(key.partition("@")[0] for key in self.means))

    @property
    def means(self) -> dict[str, float]:
        """Every metric by name: the mean over the users, coverage and Gini coefficient."""
        per_user = {name: _mean(values) for name, values in self.per_user.items()}
        return {**per_user, **self.coverage, **self.gini}

    @property
    def standard_errors(self) -> dict[str, float]:
        """Standard error of each mean: sample deviation / sqrt(n); NaN without values per user."""
        per_user = {name: _standard_error(values) for name, values in self.per_user.items()}
        return {**per_user, **dict.fromkeys([*self.coverage, *self.gini], np.nan)}

    def key(self, metric: str, k: int) -> str:
        """Return the name under which a metric is kept: 'ndcg@20'; 'auc', which has no cut-off."""
        return metric if metric in self.per_user else f"{metric}@{k}"

    def __getitem__(self, name: str) -> float:
        """Return the mean of one metric, or the coverage."""
        means = self.means
        if name not in means:
            raise KeyError(f"RankingMetrics: name must be one of {list(means)}; got {name!r}")
        return means[name]

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers and strings, ready for JSON: no arrays; None where undefined."""
        return {
            "split": self.split,
            "k": list(self.k),
            "n_users": self.n_users,
            "n_skipped": self.n_skipped,
            "n_seen_left_out": self.n_seen_left_out,
            "means": _defined(self.means),
            "standard_errors": _defined(self.standard_errors),
        }

    def population(self) -> str:
        """Say in words over whom the means are."""
        text = f"{self.n_users} users, {self.n_skipped} without test items skipped"
        if self.n_seen_left_out:
            text += f"; {self.n_seen_left_out} test items seen in training left out"
        return text

    def __repr__(self) -> str:
        """Show the split, the users and a table of means with standard errors."""
        means, errors = self.means, self.standard_errors
        rows = [
            [name] + [cell(means[key], errors[key]) for key in (self.key(name, k) for k in self.k)]
            for name in self.names
        ]
        table = aligned(["mean ± standard error", *(f"@{k}" for k in self.k)], rows)
        return "\n".join([split_title(self.split), self.population(), table])


def cell(mean: float, error: float = np.nan) -> str:
    """Show a mean, and its standard error where there is one."""
    return f"{mean:.4f}" if np.isnan(error) else f"{mean:.4f} ± {error:.4f}"


def _mean(values: NDArray[np.float64]) -> float:
    # Undefined for some users: the novelty of an empty list, the AUC without a negative item.
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else np.nan


def _standard_error(values: NDArray[np.float64]) -> float:
    values = values[~np.isnan(values)]
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else np.nan


def _defined(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: None if np.isnan(value) else value for name, value in values.items()}
