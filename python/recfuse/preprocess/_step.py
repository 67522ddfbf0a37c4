"""What the steps of a pipeline share, and the report that they write."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeVar

from recfuse._base import Estimator
from recfuse._table import aligned

__all__ = ["Report", "ReportLine", "Step"]

Self = TypeVar("Self", bound="Step")


@dataclass(frozen=True)
class ReportLine:
    """One step: its name, the rows that came and went on, and the rows whose values it changed."""

    step: str
    before: int
    after: int
    changed: int = 0

    @property
    def taken(self) -> int:
        """Rows that the step took away."""
        return self.before - self.after


@dataclass
class Report:
    """What each step of a pipeline did; pass one to `fit_transform` or `transform`.

    Attributes
    ----------
    lines : list of ReportLine
        In the order of the steps; a report that is passed again goes on.

    Examples
    --------
    >>> from recfuse import Interactions
    >>> from recfuse.preprocess import Cleaner, Report
    >>> events = Interactions.from_arrays(["a", "a", "b"], [1, 1, 2], values=[3, 0, 5])
    >>> report = Report()
    >>> kept = Cleaner(above=0, clip=(None, 4)).transform(events, report=report)
    >>> print(report)
    step                before  after  taken  changed
    Cleaner: above 0         3      2      1        0
    Cleaner: clip to 4       2      2      0        1
    >>> report.as_dict()["Cleaner: above 0"]
    {'before': 3, 'after': 2, 'taken': 1, 'changed': 0}
    """

    lines: list[ReportLine] = field(default_factory=list)

    def add(self, step: str, before: int, after: int, changed: int = 0) -> None:
        """Write a line."""
        self.lines.append(ReportLine(step, before, after, changed))

    def as_dict(self) -> dict[str, dict[str, int]]:
        """Return the lines by the name of their step; lines of one name are added up."""
        table: dict[str, dict[str, int]] = {}
        for line in self.lines:
            seen = table.get(line.step)
            table[line.step] = {
                "before": line.before if seen is None else seen["before"],
                "after": line.after,
                "taken": line.taken + (0 if seen is None else seen["taken"]),
                "changed": line.changed + (0 if seen is None else seen["changed"]),
            }
        return table

    def __str__(self) -> str:
        header = ["step", "before", "after", "taken", "changed"]
        rows = [
            [line.step, *(f"{n:,}" for n in (line.before, line.after, line.taken, line.changed))]
            for line in self.lines
        ]
        return aligned(header, rows)


class Step(Estimator):
    """Base of the steps: `fit` learns from data, `transform` applies what was learned.

    A step without anything to learn transforms without `fit`.
    """

    _input_tags: tuple[str, ...] = ("two_d_array", "allow_nan")
    takes_times = False  # whether `fit_transform` and `transform` have the argument `times`

    def __init__(self) -> None:
        """Make a step without parameters; the signature is what `get_params` reads."""

    def fit(self: Self, x: Any, y: Any = None) -> Self:
        """Learn from `x`; a step without anything to learn does nothing. Returns self."""
        return self

    def transform(self, x: Any, *, report: Report | None = None) -> Any:
        """Apply the step."""
        raise NotImplementedError

    def fit_transform(self, x: Any, y: Any = None, *, report: Report | None = None) -> Any:
        """Learn from `x` and transform it."""
        return self.fit(x).transform(x, report=report)
