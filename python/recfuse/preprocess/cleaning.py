"""Cleaning of events: which go, and which are cut to size."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from recfuse._inputs import as_float
from recfuse._named import named
from recfuse.interactions import Interactions
from recfuse.preprocess._step import Report, Step

__all__ = ["Cleaner"]


class Cleaner(Step):
    """Drop, clip and deduplicate events, in the order of the parameters.

    There is nothing to learn, and the id spaces stay: positions keep their meaning.

    Parameters
    ----------
    above : float, optional
        Keep events whose value is greater: ``above=0`` is the ``score > 0`` of many recipes.
    minimum : float, optional
        Keep events whose value is this or more.
    clip : (low, high), optional
        Cut values to these bounds; None is no bound.
    duplicates : {'last', 'first', 'sum', 'max'}, optional
        Keep one event per user-item pair, by `Interactions.deduplicate`; None keeps all.
    core : int, optional
        Keep the n-core, by `Interactions.core`.

    Examples
    --------
    >>> from recfuse import Interactions
    >>> from recfuse.preprocess import Cleaner
    >>> events = Interactions.from_arrays(["a", "a", "b"], [1, 1, 2], values=[3, 4, 0])
    >>> Cleaner(above=0, duplicates="sum").transform(events).values
    array([7.], dtype=float32)
    """

    _input_tags = ()
    _transforms_unfitted = True

    def __init__(
        self,
        *,
        above: float | None = None,
        minimum: float | None = None,
        clip: tuple[float | None, float | None] | None = None,
        duplicates: Literal["last", "first", "sum", "max"] | None = None,
        core: int | None = None,
    ) -> None:
        self.above = above
        self.minimum = minimum
        self.clip = clip
        self.duplicates = duplicates
        self.core = core

    @named("Cleaner")
    def transform(self, x: Interactions, *, report: Report | None = None) -> Interactions:
        """Return what is left of events.

        Parameters
        ----------
        x : Interactions
        report : Report, optional
            Gets a line for each rule.

        Returns
        -------
        Interactions
            Same id spaces.

        Raises
        ------
        TypeError
            If `x` are no Interactions, or a bound is no number.
        ValueError
            If a bound is not finite, the lower one is above the upper one, or a rule is unknown.
        """
        if not isinstance(x, Interactions):
            raise TypeError(f"x must be Interactions; got {type(x).__name__}")
        events = x
        if self.above is not None:
            kept = events.select(events.values > _finite(self.above, "above"))
            events = _noted(report, f"above {self.above}", events, kept)
        if self.minimum is not None:
            kept = events.select(events.values >= _finite(self.minimum, "minimum"))
            events = _noted(report, f"minimum {self.minimum}", events, kept)
        if self.clip is not None:
            events = self._clipped(events, report)
        if self.duplicates is not None:
            kept = events.deduplicate(self.duplicates)
            events = _noted(report, f"duplicates, keep {self.duplicates}", events, kept)
        if self.core is not None:
            events = _noted(report, f"{self.core}-core", events, events.core(self.core))
        return events

    def _clipped(self, events: Interactions, report: Report | None) -> Interactions:
        assert self.clip is not None
        low, high = (
            None if bound is None else _finite(bound, f"clip[{i}]")
            for i, bound in enumerate(self.clip)
        )
        if low is not None and high is not None and low > high:
            raise ValueError(f"clip must have low at most high; got {tuple(self.clip)}")
        values = np.clip(
            events.values,
            np.float32(-np.inf if low is None else low),
            np.float32(np.inf if high is None else high),
        )
        changed = int(np.count_nonzero(values != events.values))
        bounds = " and ".join(f"{b:g}" for b in (low, high) if b is not None) or "nothing"
        return _noted(report, f"clip to {bounds}", events, replace(events, values=values), changed)


def _noted(
    report: Report | None, rule: str, before: Interactions, after: Interactions, changed: int = 0
) -> Interactions:
    if report is not None:
        report.add(f"Cleaner: {rule}", len(before), len(after), changed)
    return after


def _finite(bound: float, name: str) -> float:
    number = as_float(bound, name)
    if not np.isfinite(number):
        raise ValueError(f"{name} must be finite; got {bound}")
    return number
