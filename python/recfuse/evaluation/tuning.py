"""Search for hyper-parameters: random or grid, with the interface of an Optuna objective."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from recfuse._progress import progress
from recfuse.evaluation._checks import positive_int
from recfuse.evaluation._evaluate import evaluate
from recfuse.evaluation._split import Split
from recfuse.evaluation._table import aligned

__all__ = ["Trial", "Tuning", "ranking_objective", "tune"]

Objective = Callable[[Any], float]

# What `evaluate` gives without values or vectors of items.
_METRICS = (
    *("precision", "recall", "f1", "hit_rate", "map", "ndcg", "mrr"),
    *("novelty", "coverage", "gini"),
)


class Trial:
    """One try: gives an objective its parameters, under the names of `optuna.Trial`.

    Attributes
    ----------
    number : int
    params : dict of str to value
        What was suggested so far.
    value : float or None
        What the objective returned.
    """

    def __init__(
        self, number: int, rng: np.random.Generator, point: Mapping[str, Any] | None = None
    ) -> None:
        self.number = number
        self.params: dict[str, Any] = {}
        self.value: float | None = None
        self._rng = rng
        self._point = point

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Return a number in [low, high]: uniform, on a grid of `step`, or uniform in its log."""
        _check_range(name, low, high, step, log)
        if step is not None:
            n = math.floor((high - low) / step + 1e-9)
            return float(self._suggest(name, lambda: low + step * int(self._rng.integers(n + 1))))
        if log:
            ends = math.log(low), math.log(high)
            return float(self._suggest(name, lambda: self._between(low, high, ends)))
        return float(self._suggest(name, lambda: self._rng.uniform(low, high)))

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        """Return an integer of ``low, low + step, ... high``: uniform, or uniform in its log."""
        _check_range(name, low, high, None if step == 1 else step, log)
        if log:
            # As wide as the integers round: low and high are as likely as their share of the log.
            ends = math.log(low - 0.5), math.log(high + 0.5)
            return int(self._suggest(name, lambda: round(self._between(low, high, ends))))
        n = (high - low) // step
        return int(self._suggest(name, lambda: low + step * int(self._rng.integers(n + 1))))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Return one of the choices."""
        if not len(choices):
            raise ValueError(f"Trial: choices of {name!r} must not be empty; got {choices!r}")
        return self._suggest(name, lambda: choices[int(self._rng.integers(len(choices)))])

    def _between(self, low: float, high: float, ends: tuple[float, float]) -> float:
        # A draw between `ends`, which are logarithms; rounding must not leave the range.
        return min(max(math.exp(self._rng.uniform(*ends)), low), high)

    def _suggest(self, name: str, draw: Callable[[], Any]) -> Any:
        if name not in self.params:  # asked twice, a trial gives the same answer
            if self._point is not None and name not in self._point:
                raise ValueError(
                    f"Trial: {name!r} must be in the grid; got values of {list(self._point)} only"
                )
            self.params[name] = draw() if self._point is None else self._point[name]
        return self.params[name]


@dataclass(frozen=True)
class Tuning:
    """All trials of a search, and the best of them.

    Attributes
    ----------
    trials : list of Trial
        In the order they ran.
    direction : {'maximize', 'minimize'}
    """

    trials: list[Trial] = field(default_factory=list)
    direction: str = "maximize"

    @property
    def best(self) -> Trial:
        """The first trial with the best value; NaN never is, unless all are."""
        sign = 1 if self.direction == "maximize" else -1

        def worth(trial: Trial) -> float:
            value = math.nan if trial.value is None else trial.value
            return -math.inf if math.isnan(value) else sign * value

        return max(self.trials, key=worth)

    @property
    def best_params(self) -> dict[str, Any]:
        """Parameters of the best trial."""
        return self.best.params

    @property
    def best_value(self) -> float:
        """Value of the best trial."""
        return float(math.nan if self.best.value is None else self.best.value)

    def curve(self) -> list[float]:
        """Return the best value so far after each trial, for `recfuse.plots.learning_curves`."""
        return [
            Tuning(self.trials[: n + 1], self.direction).best_value for n in range(len(self.trials))
        ]

    def __repr__(self) -> str:
        """Show the trials as a table, the best marked."""
        names = list(dict.fromkeys(name for trial in self.trials for name in trial.params))
        rows = [
            [
                f"{trial.number}{' *' if trial is self.best else ''}",
                *(_show(trial.params.get(name)) for name in names),
                _show(trial.value),
            ]
            for trial in self.trials
        ]
        return aligned(["trial", *names, "value"], rows)


def tune(
    objective: Objective,
    *,
    n_trials: int | None = None,
    grid: Mapping[str, Sequence[Any]] | None = None,
    direction: str = "maximize",
    random_state: int = 0,
    callback: Callable[[Trial], Any] | None = None,
    show_progress: bool = False,
) -> Tuning:
    """Try parameters, at random [1]_ or all of a grid; the same seed gives the same trials.

    The objective asks its argument for parameters and returns a value, exactly as for Optuna:
    ``optuna.create_study(direction="maximize").optimize(objective, n_trials=50)`` takes the same
    function where a cleverer search is worth another package.

    Parameters
    ----------
    objective : callable
        Called with a `Trial`, returns a number.
    n_trials : int, optional
        Number of random trials, 20 by default; with `grid`, at most so many of its points.
    grid : mapping of str to sequence, optional
        Values by name: every combination is tried, the last name varying fastest, and the ranges
        that the objective suggests are not looked at.
    direction : {'maximize', 'minimize'}, default='maximize'
    random_state : int, default=0
        Trial `n` depends on it and `n` alone: more trials begin with the same ones.
    callback : callable, optional
        Called with every trial when it is done, for what must outlive an interruption.
    show_progress : bool, default=False

    Returns
    -------
    Tuning

    Raises
    ------
    TypeError
        If `objective` is not callable, or returns no number.
    ValueError
        If `direction` is unknown, `n_trials` is below 1, or `grid` has a name without values.

    References
    ----------
    .. [1] J. Bergstra, Y. Bengio, "Random search for hyper-parameter optimization", JMLR 13, 2012.

    Examples
    --------
    >>> from recfuse.evaluation import tune
    >>> def objective(trial):
    ...     x = trial.suggest_float("x", -4, 4)
    ...     return -(x - 1) ** 2
    >>> tune(objective, grid={"x": [-1, 0, 1, 2]}).best_params
    {'x': 1}
    >>> abs(tune(objective, n_trials=200).best_params["x"] - 1) < 0.1
    True
    """
    if not callable(objective):
        raise TypeError(f"tune: objective must be callable; got {type(objective).__name__}")
    if direction not in ("maximize", "minimize"):
        raise ValueError(f"tune: direction must be 'maximize' or 'minimize'; got {direction!r}")
    points: list[dict[str, Any]] | list[None]
    if grid is None:
        points = [None] * positive_int(20 if n_trials is None else n_trials, "n_trials", "tune")
    else:
        empty = [name for name, values in grid.items() if not len(values)]
        if empty or not grid:
            raise ValueError(f"tune: grid must have values for every name; got {dict(grid)}")
        combinations = itertools.product(*grid.values())
        points = [dict(zip(grid, values, strict=True)) for values in combinations]
        if n_trials is not None:
            points = points[: positive_int(n_trials, "n_trials", "tune")]
    tuning = Tuning([], direction)
    for number, point in enumerate(
        progress(points, description="tune", enabled=show_progress, total=len(points))
    ):
        trial = Trial(number, np.random.default_rng([random_state, number]), point)
        value = objective(trial)
        if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
            raise TypeError(f"tune: objective must return a number; got {type(value).__name__}")
        trial.value = float(value)
        tuning.trials.append(trial)
        if callback is not None:
            callback(trial)
    return tuning


def ranking_objective(
    make_model: Callable[[Any], Any],
    split: Split,
    *,
    metric: str = "ndcg@20",
    fit_params: Mapping[str, Any] | None = None,
    exclude_seen: bool = True,
    user_ids: Any = None,
    batch_size: int = 1024,
) -> Objective:
    """Return an objective for `tune` or Optuna: fit on one part, the metric on the other.

    Tune on a validation split, cut from the training part of the split that is published; a test
    that was tuned on says nothing.

    Parameters
    ----------
    make_model : callable
        Called with a trial, returns an unfitted model.
    split : Split
        Fit on `train`, evaluated on `test`.
    metric : str, default='ndcg@20'
        As in `RankingMetrics`, or 'auc'.
    fit_params : mapping, optional
        Further arguments of `fit`.
    exclude_seen, user_ids, batch_size
        As in `evaluate`.

    Returns
    -------
    callable

    Raises
    ------
    TypeError
        If `make_model` is not callable or `split` no Split.
    ValueError
        If `metric` is unknown or has no cut-off.

    Examples
    --------
    >>> import recfuse
    >>> from recfuse.datasets import synthetic
    >>> from recfuse.evaluation import random_split, ranking_objective, tune
    >>> events = synthetic(60, 40, 900, random_state=0).interactions
    >>> def make_model(trial):
    ...     return recfuse.ItemNeighbours(k=trial.suggest_int("k", 1, 30))
    >>> objective = ranking_objective(make_model, random_split(events, random_state=0))
    >>> sorted(tune(objective, n_trials=3).best_params)
    ['k']
    """
    op = "ranking_objective"
    if not callable(make_model):
        raise TypeError(f"{op}: make_model must be callable; got {type(make_model).__name__}")
    if not isinstance(split, Split):
        raise TypeError(f"{op}: split must be a Split; got {type(split).__name__}")
    name, _, cutoff = metric.partition("@")
    if metric != "auc" and name not in _METRICS:  # a slip is not to cost a fit
        known = ["auc", *(f"{name}@k" for name in _METRICS)]
        raise ValueError(f"{op}: metric must be one of {known}; got {metric!r}")
    if metric != "auc" and not cutoff.isdecimal():
        raise ValueError(f"{op}: metric must be 'auc' or like 'ndcg@20'; got {metric!r}")

    def objective(trial: Any) -> float:
        model = make_model(trial)
        model.fit(split.train, **dict(fit_params or {}))
        result = evaluate(
            model,
            split.train,
            split.test,
            k=int(cutoff or 1),
            exclude_seen=exclude_seen,
            user_ids=user_ids,
            auc=metric == "auc",
            batch_size=batch_size,
        )
        return result[metric]

    return objective


def _check_range(name: str, low: float, high: float, step: float | None, log: bool) -> None:
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ValueError(f"Trial: {name!r} must have low <= high, both finite; got {low}, {high}")
    if log and (low <= 0 or step is not None):
        raise ValueError(
            f"Trial: {name!r} must have low > 0 and no step with log; got low {low}, step {step}"
        )
    if step is not None and not step > 0:
        raise ValueError(f"Trial: {name!r} must have a step above 0; got {step}")


def _show(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "-" if value is None else str(value)
