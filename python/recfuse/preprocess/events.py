"""Tables of events of several types as one strength per event."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from recfuse._base import check_fitted
from recfuse._columns import as_labels, as_numbers, as_values, factorise
from recfuse._decay import fading, half_life_of
from recfuse._inputs import as_float
from recfuse._named import named
from recfuse.interactions import Interactions
from recfuse.preprocess._frames import column_names, missing_rows, read_table, rows_at
from recfuse.preprocess._step import Report, Step

__all__ = ["EventReader"]

Float64 = NDArray[np.float64]
Rows = NDArray[np.intp]
Clip = tuple[float | None, float | None]

# Parameters that name a column; without one of the first four, a row says nothing.
_NEEDED = ("user", "item", "event", "timestamp", "value")
_BOOSTS = ("dwell", "amount")


class EventReader(Step):
    r"""Read events (views, carts, purchases) and say how strongly each speaks for its item.

    The strength of an event of type e, of value r (a rating, a count of clicks), t seconds old,
    with a dwell time d and an amount of money a, is

    .. math:: s = w_e \, r \, \left(1 + \ln(1 + d / d_0)\right) \left(1 + \ln(1 + a / a_0)\right)
              2^{-t / h}

    The logarithms are those of the confidence of [1]_, eq. 6: ten times the time is not ten times
    the interest. A factor whose column is not named, or whose cell is missing, is 1, so that a view
    without an amount stays a view. The strengths of a pair are added by `Interactions.to_csr`:
    that is the matrix for the models, where ALS reads them as confidence.

    Parameters
    ----------
    user, item : str
        Columns of ids: integers, strings of any language, or other hashable objects.
    event : str, optional
        Column of the type of event.
    weights : mapping of type to float, optional
        :math:`w_e` of each type, finite and not negative: ``{"view": 1, "cart": 3, "buy": 10}``.
    value : str, optional
        Column of r: a rating, or a number of clicks.
    timestamp : str, optional
        Column of times: whole seconds, or dates, as text of ISO 8601 too ("2026-01-31 18:30:00").
    half_life : float, optional
        h in seconds: an event that much older counts half, as in `recfuse.sessions.decayed`.
        Without it age does not matter.
    now : int, optional
        The time from which age is counted; by default that of the latest event of `fit`. Later
        events count in full.
    dwell, amount : str, optional
        Columns of d and a, not negative.
    dwell_unit, amount_unit : float, default=60.0, 1.0
        :math:`d_0` and :math:`a_0`, in the units of their columns.
    clip : mapping of column to (low, high), optional
        Bounds for the columns `value`, `dwell` or `amount` before the formula; None is no bound.
    missing : {'error', 'drop'}, default='error'
        What to do with a row whose user, item, event, timestamp or value is missing.
    unknown_events : {'error', 'drop'}, default='error'
        What to do with a type that has no weight.
    unknown_ids : {'error', 'drop'}, default='error'
        What `transform` does with users and items that `fit` has not seen, and `fit` with those
        that are not among the labels.
    user_labels, item_labels : array-like, optional
        All ids, in the order of rows and columns, also of those without an event: a catalogue.

    Attributes
    ----------
    users_, items_ : ndarray
        The labels, or the ids of the fit, in order of first appearance: rows and columns of what
        `transform` returns, also for later events.
    now_ : int or None
        The time from which age is counted.

    References
    ----------
    .. [1] Y. Hu, Y. Koren, C. Volinsky, "Collaborative filtering for implicit feedback datasets",
       ICDM 2008.

    Examples
    --------
    >>> from recfuse.preprocess import EventReader
    >>> table = {
    ...     "who": ["ann", "ann", "bo"],
    ...     "what": ["茶", "tea", "tea"],
    ...     "did": ["view", "buy", "view"],
    ...     "when": [0, 86_400, 172_800],
    ... }
    >>> reader = EventReader(
    ...     user="who", item="what", event="did", weights={"view": 1, "buy": 10},
    ...     timestamp="when", half_life=86_400,
    ... )
    >>> reader.fit_transform(table).to_csr().toarray()
    array([[0.25, 5.  ],
           [0.  , 1.  ]], dtype=float32)
    """

    _input_tags = ("dict",)

    users_: NDArray[Any]
    items_: NDArray[Any]
    now_: int | None

    def __init__(
        self,
        *,
        user: str,
        item: str,
        event: str | None = None,
        weights: Mapping[Any, float] | None = None,
        value: str | None = None,
        timestamp: str | None = None,
        half_life: float | None = None,
        now: int | None = None,
        dwell: str | None = None,
        amount: str | None = None,
        dwell_unit: float = 60.0,
        amount_unit: float = 1.0,
        clip: Mapping[str, Clip] | None = None,
        missing: Literal["error", "drop"] = "error",
        unknown_events: Literal["error", "drop"] = "error",
        unknown_ids: Literal["error", "drop"] = "error",
        user_labels: Any = None,
        item_labels: Any = None,
    ) -> None:
        self.user = user
        self.item = item
        self.event = event
        self.weights = weights
        self.value = value
        self.timestamp = timestamp
        self.half_life = half_life
        self.now = now
        self.dwell = dwell
        self.amount = amount
        self.dwell_unit = dwell_unit
        self.amount_unit = amount_unit
        self.clip = clip
        self.missing = missing
        self.unknown_events = unknown_events
        self.unknown_ids = unknown_ids
        self.user_labels = user_labels
        self.item_labels = item_labels

    def fit(self, x: Any, y: Any = None) -> EventReader:
        """Learn the ids and the latest time; `x` as in `transform`. Returns self."""
        self.fit_transform(x)
        return self

    @named("EventReader")
    def fit_transform(self, x: Any, y: Any = None, *, report: Report | None = None) -> Interactions:
        """Learn the ids and the latest time, and return the events; as `transform`."""
        self._check()
        table = self._columns(x, report)
        table = self._known(table, report, self.user_labels, self.item_labels)
        events = self._interactions(table, self.user_labels, self.item_labels)
        now = None
        if events.timestamps is not None and self.half_life is not None:
            latest = int(events.timestamps.max()) if len(events) else 0
            now = latest if self.now is None else int(self.now)
        result = self._weighted(events, table, now)
        self.users_, self.items_, self.now_ = events.users, events.items, now
        return result

    @named("EventReader")
    def transform(self, x: Any, *, report: Report | None = None) -> Interactions:
        """Return events, in the id spaces of the fit.

        Parameters
        ----------
        x : pandas or polars DataFrame, pyarrow.Table, mapping of name to column, or path
            One event per row; a path is read by `read_table`.
        report : Report, optional
            Gets a line for each rule that can take or change rows.

        Returns
        -------
        Interactions
            Values are strengths, float32; an event per row that is left, in their order.

        Raises
        ------
        NotFittedError
            Before `fit`.
        TypeError
            If `x` is no table, or a column has the wrong type.
        ValueError
            If a column or a parameter is wrong, a cell is missing, a type of event or an id is
            unknown, or a dwell time or an amount is negative. The message names the row, among
            those that the rules before it have left.
        """
        check_fitted(self, "users_")
        self._check()
        table = self._columns(x, report)
        table = self._known(table, report, self.users_, self.items_)
        events = self._interactions(table, self.users_, self.items_)
        return self._weighted(events, table, self.now_)

    @named("EventReader")
    def transform_new_users(self, x: Any, *, report: Report | None = None) -> Interactions:
        """Return the events of people whom the fit need not know; items are those of the fit.

        `x`, `report`, result and errors are those of `transform`; users are those of the table, in
        order of first appearance, and are strangers although the fit may have their names.
        """
        check_fitted(self, "users_")
        self._check()
        table = self._known(self._columns(x, report), report, None, self.items_)
        return self._weighted(self._interactions(table, None, self.items_), table, self.now_)

    def _columns(self, x: Any, report: Report | None) -> dict[str, Any]:
        """Return the columns wanted, by parameter, without rows that say nothing."""
        frame = read_table(x) if isinstance(x, (str, os.PathLike)) else x
        existing = column_names(frame, "EventReader")
        table = {}
        for role in (*_NEEDED, *_BOOSTS):
            column = getattr(self, role)
            if column is not None and column not in existing:
                raise ValueError(f"{role} must name one of the columns {existing}; got {column!r}")
            if column is not None:
                table[role] = frame[column]
        n = len(table["user"])
        for role, column in table.items():
            if len(column) != n:
                raise ValueError(f"{role} must have {n} rows like {self.user!r}; got {len(column)}")
        if self.missing == "drop":
            table = self._complete(table, report)
        if self.event is not None and self.unknown_events == "drop":
            table = self._of_known_types(table, report)
        return {role: self._clipped(role, column, report) for role, column in table.items()}

    def _complete(self, table: dict[str, Any], report: Report | None) -> dict[str, Any]:
        keep = np.ones(len(table["user"]), bool)
        for role in _NEEDED:
            if role in table:
                keep &= ~missing_rows(table[role], role)
        return _kept(table, keep, report, "EventReader: drop missing")

    def _of_known_types(self, table: dict[str, Any], report: Report | None) -> dict[str, Any]:
        codes, types = factorise(as_labels(table["event"], "event"), "event")
        known = np.array([t in (self.weights or {}) for t in types.tolist()], bool)
        return _kept(table, known[codes], report, "EventReader: drop unknown events")

    def _known(
        self, table: dict[str, Any], report: Report | None, users: Any, items: Any
    ) -> dict[str, Any]:
        if self.unknown_ids != "drop" or (users is None and items is None):
            return table
        spaces = {"user": users, "item": items}
        keep = np.ones(len(table["user"]), bool)
        for role, space in spaces.items():
            if space is None:
                continue
            codes, labels = factorise(as_labels(table[role], role), role)
            known = set(as_labels(space, f"{role}_labels").tolist())
            keep &= np.array([label in known for label in labels.tolist()], bool)[codes]
        return _kept(table, keep, report, "EventReader: drop unknown ids")

    def _clipped(self, role: str, column: Any, report: Report | None) -> Any:
        name = getattr(self, role)
        if role not in ("value", *_BOOSTS) or name not in (self.clip or {}):
            return column
        low, high = (self.clip or {})[name]
        cells = _numbers(column, role)
        clipped = np.clip(cells, -np.inf if low is None else low, np.inf if high is None else high)
        if report is not None:
            changed = int(np.count_nonzero(clipped != cells) - np.count_nonzero(np.isnan(cells)))
            report.add(f"EventReader: clip {name}", len(cells), len(cells), changed)
        return clipped

    def _interactions(self, table: dict[str, Any], users: Any, items: Any) -> Interactions:
        """Check the columns as `Interactions.from_frame` does, and number the ids."""
        roles = {"users": "user", "items": "item", "values": "value", "timestamps": "timestamp"}
        columns = {key: table.get(role) for key, role in roles.items()}
        names = {key: f"EventReader: column {getattr(self, r)!r}" for key, r in roles.items()}
        return Interactions._build(columns, names, users, items)

    def _weighted(
        self, events: Interactions, table: dict[str, Any], now: int | None
    ) -> Interactions:
        """Return the events with the strengths of the formula, in float64, rounded once."""
        strength = np.ones(len(events))
        if "value" in table:
            strength = _numbers(table["value"], "value")
        if "event" in table:
            strength = strength * self._weights_of(table["event"])
        for role in _BOOSTS:
            if role in table:
                strength = strength * self._boost(role, table[role])
        if self.half_life is not None and events.timestamps is not None:
            age = np.maximum(np.float64(now or 0) - events.timestamps.astype(np.float64), 0)
            strength = strength * fading(age, self.half_life)
        return replace(events, values=as_values(strength, "strengths"))

    def _weights_of(self, column: Any) -> Float64:
        codes, types = factorise(as_labels(column, "event"), "event")
        weights = self.weights or {}
        for label in types.tolist():
            if label not in weights:
                raise ValueError(f"event must be one of the types {list(weights)}; got {label!r}")
        return np.array([weights[label] for label in types.tolist()], np.float64)[codes]

    def _boost(self, role: str, column: Any) -> Float64:
        cells = _numbers(column, role)
        wrong = np.flatnonzero((cells < 0) | np.isinf(cells))
        if len(wrong):
            row = int(wrong[0])
            raise ValueError(f"{role} must be finite and at least 0; got {cells[row]} in row {row}")
        factor = 1 + np.log1p(cells / float(getattr(self, f"{role}_unit")))
        return np.where(np.isnan(cells), 1.0, factor)

    def _check(self) -> None:
        for name in ("missing", "unknown_events", "unknown_ids"):
            if getattr(self, name) not in ("error", "drop"):
                raise ValueError(f"{name} must be 'error' or 'drop'; got {getattr(self, name)!r}")
        if (self.event is None) != (self.weights is None):
            raise ValueError(
                f"weights must be given if, and only if, event is; got {self.weights!r}"
            )
        for label, weight in (self.weights or {}).items():
            if not (np.isfinite(as_float(weight, f"weights[{label!r}]")) and weight >= 0):
                raise ValueError(f"weights[{label!r}] must be finite and at least 0; got {weight}")
        if self.half_life is not None and self.timestamp is None:
            raise ValueError("timestamp must be given where half_life is; got None")
        if self.half_life is not None:
            half_life_of(self.half_life)
        for name in ("dwell_unit", "amount_unit"):
            number = getattr(self, name)
            if not (np.isfinite(as_float(number, name)) and number > 0):
                raise ValueError(f"{name} must be finite and above 0; got {number}")
        roles = [getattr(self, role) for role in ("value", *_BOOSTS)]
        for name in self.clip or {}:
            if name not in roles:
                raise ValueError(f"clip must name value, dwell or amount columns; got {name!r}")


def _numbers(column: Any, name: str) -> Float64:
    """Return a column as float64, NaN where a cell is missing."""
    missing = missing_rows(column, name)
    numbers = np.full(len(missing), np.nan)
    known = np.flatnonzero(~missing)
    numbers[known] = as_numbers(rows_at(column, known), name)
    return numbers


def _kept(
    table: dict[str, Any], keep: NDArray[np.bool_], report: Report | None, step: str
) -> dict[str, Any]:
    rows = np.flatnonzero(keep)
    if report is not None:
        report.add(step, len(keep), len(rows))
    if len(rows) == len(keep):
        return table
    return {role: rows_at(column, rows) for role, column in table.items()}
