"""Events between users and items, with the labels of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recfuse._columns import as_labels, as_timestamps, as_values, factorise, positions

__all__ = ["Interactions"]


@dataclass(frozen=True, eq=False, repr=False)
class Interactions:
    """Who met what, how strongly and when; immutable.

    Make one with `from_arrays` or `from_frame`. An event's user and item are positions in `users`
    and `items`, and those are the rows and columns of `to_csr`, the ids of every model fitted on
    it, and the rows of the feature arrays. All filters keep both id spaces, so that positions keep
    their meaning; only `compact` renumbers.

    Attributes
    ----------
    user_index, item_index : ndarray of shape (n_events,), intp
        Position of each event's user in `users` and item in `items`.
    values : ndarray of shape (n_events,), float32
        Strength of each event (a rating, a count); 1 where none was given. Always finite.
    timestamps : ndarray of shape (n_events,), int64, or None
        Seconds since 1970 in UTC, or whatever integer clock was given.
    users, items : ndarray of shape (n_users,) and (n_items,), int64 or object
        The labels; their order is that of first appearance unless the caller gave one.

    Examples
    --------
    >>> from recfuse.interactions import Interactions
    >>> events = Interactions.from_arrays(["ann", "bo", "ann"], [10, 10, 30], values=[5, 3, 1])
    >>> events
    Interactions(3 events, 2 users, 2 items, no timestamps)
    >>> events.to_csr().toarray()
    array([[5., 1.],
           [3., 0.]], dtype=float32)
    >>> events.items[events.item_index]
    array([10, 10, 30])
    """

    user_index: NDArray[np.intp]
    item_index: NDArray[np.intp]
    values: NDArray[np.float32]
    timestamps: NDArray[np.int64] | None
    users: NDArray[Any]
    items: NDArray[Any]

    def __post_init__(self) -> None:
        n = len(self.user_index)
        for name in ("user_index", "item_index", "values", "timestamps", "users", "items"):
            array = getattr(self, name)
            if array is None:
                continue
            if name not in ("users", "items") and len(array) != n:
                raise ValueError(
                    f"Interactions: {name} must have {n} entries like user_index; got {len(array)}"
                )
            view = array.view()
            view.flags.writeable = False
            object.__setattr__(self, name, view)
        _check_range(self.user_index, self.n_users, "user_index")
        _check_range(self.item_index, self.n_items, "item_index")

    @classmethod
    def from_arrays(
        cls,
        users: Any,
        items: Any,
        values: Any = None,
        timestamps: Any = None,
        *,
        user_labels: Any = None,
        item_labels: Any = None,
    ) -> Interactions:
        """Build from one column per argument, an event per row.

        Parameters
        ----------
        users, items : array-like of shape (n_events,)
            Ids: integers, strings or any other hashable objects of one type per column.
        values : array-like of shape (n_events,), optional
            Finite real numbers; 1 for every event by default.
        timestamps : array-like of shape (n_events,), optional
            Integers as they are, or dates (NumPy datetime64, pandas, polars, datetime, text as in
            ISO 8601; without a zone they are UTC), which become whole seconds since 1970, rounded
            down.
        user_labels, item_labels : array-like, optional
            The id space in the order wanted, without duplicates: also users and items that have no
            event (new items that only have a text, say). By default the ids of the events in order
            of first appearance.

        Returns
        -------
        Interactions

        Raises
        ------
        TypeError
            If a column is not a sequence; if ids are floats, booleans, of several types or not
            hashable; if values or timestamps are no numbers.
        ValueError
            If columns differ in length or are not 1-D; if an id, a value or a timestamp is missing
            (None, NaN, NaT, NA); if a value is not finite in float32; if an id is not in its given
            id space or the id space has duplicates. The message names the row.

        Examples
        --------
        >>> from recfuse.interactions import Interactions
        >>> Interactions.from_arrays(["ann"], ["b"], item_labels=["a", "b", "c"]).to_csr().toarray()
        array([[0., 1., 0.]], dtype=float32)
        """
        columns = {"users": users, "items": items, "values": values, "timestamps": timestamps}
        names = {key: f"Interactions: {key}" for key in columns}
        return cls._build(columns, names, user_labels, item_labels)

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        *,
        user: str,
        item: str,
        value: str | None = None,
        timestamp: str | None = None,
        user_labels: Any = None,
        item_labels: Any = None,
    ) -> Interactions:
        """Build from the named columns of a pandas or polars frame, an Arrow table or a mapping.

        Parameters
        ----------
        frame : pandas.DataFrame, polars.DataFrame, pyarrow.Table or mapping of name to column
            One event per row.
        user, item : str
            Names of the id columns.
        value, timestamp : str, optional
            Names of the columns of strength and time.
        user_labels, item_labels : array-like, optional
            As in `from_arrays`.

        Returns
        -------
        Interactions
            The same, whatever the kind of frame.

        Raises
        ------
        TypeError, ValueError
            As `from_arrays`; also if `frame` is no frame, or a column does not exist (the message
            lists those that do).

        Examples
        --------
        >>> from recfuse.interactions import Interactions
        >>> frame = {"who": ["ann", "bo"], "what": ["x", "x"], "stars": [4, 5]}
        >>> Interactions.from_frame(frame, user="who", item="what", value="stars").values
        array([4., 5.], dtype=float32)
        """
        existing = _column_names(frame)
        wanted = {"users": user, "items": item, "values": value, "timestamps": timestamp}
        for argument, column in wanted.items():
            if column is not None and column not in existing:
                raise ValueError(
                    f"Interactions: {argument[:-1]} must name one of the columns {existing}; "
                    f"got {column!r}"
                )
        columns = {k: None if name is None else frame[name] for k, name in wanted.items()}
        names = {key: f"Interactions: column {name!r}" for key, name in wanted.items()}
        return cls._build(columns, names, user_labels, item_labels)

    @classmethod
    def _build(
        cls, columns: dict[str, Any], names: dict[str, str], user_labels: Any, item_labels: Any
    ) -> Interactions:
        user_ids = as_labels(columns["users"], names["users"])
        item_ids = as_labels(columns["items"], names["items"])
        n = len(user_ids)
        values = np.ones(n, np.float32)
        if columns["values"] is not None:
            values = as_values(columns["values"], names["values"])
        timestamps = None
        if columns["timestamps"] is not None:
            timestamps = as_timestamps(columns["timestamps"], names["timestamps"])
        for key, column in (("items", item_ids), ("values", values), ("timestamps", timestamps)):
            if column is not None and len(column) != n:
                raise ValueError(
                    f"{names[key]} must have {n} rows, one per event; got {len(column)}"
                )
        user_index, users = _encode(user_ids, names["users"], user_labels, "user_labels")
        item_index, items = _encode(item_ids, names["items"], item_labels, "item_labels")
        return cls(user_index, item_index, values, timestamps, users, items)

    @property
    def n_users(self) -> int:
        return len(self.users)

    @property
    def n_items(self) -> int:
        return len(self.items)

    def __len__(self) -> int:
        return len(self.user_index)

    def __repr__(self) -> str:
        clock = "no timestamps" if self.timestamps is None else "with timestamps"
        return (
            f"Interactions({len(self)} events, {self.n_users} users, {self.n_items} items, {clock})"
        )

    def to_csr(self) -> sp.csr_array:
        """Return the user-item matrix.

        Returns
        -------
        csr_array of shape (n_users, n_items), float32
            Indices sorted, values of equal pairs summed; an event of value 0 stays a stored entry.
        """
        entries = (self.values, (self.user_index, self.item_index))
        matrix = sp.csr_array(entries, shape=(self.n_users, self.n_items), dtype=np.float32)
        matrix.sum_duplicates()
        return matrix

    def select(self, mask: Any) -> Interactions:
        """Keep some of the events; the id spaces stay.

        Parameters
        ----------
        mask : array-like of shape (n_events,), bool, or of any length, int
            Either which events to keep, or their positions in the order wanted.

        Returns
        -------
        Interactions

        Raises
        ------
        TypeError
            If `mask` is neither boolean nor integer.
        ValueError
            If a boolean mask has another length.
        IndexError
            If a position is outside [0, n_events).
        """
        chosen = np.asarray(mask)
        if chosen.size == 0 and chosen.dtype.kind == "f":  # np.asarray([]) is float64
            chosen = chosen.astype(np.intp)
        if chosen.dtype.kind not in "biu":
            raise TypeError(f"Interactions: mask must be bool or int; got dtype {chosen.dtype}")
        if chosen.ndim != 1 or (chosen.dtype.kind == "b" and len(chosen) != len(self)):
            raise ValueError(
                f"Interactions: mask must have shape ({len(self)},); got {chosen.shape}"
            )
        if chosen.dtype.kind != "b" and chosen.size:
            _check_range(chosen, len(self), "mask")
        return replace(
            self,
            user_index=self.user_index[chosen],
            item_index=self.item_index[chosen],
            values=self.values[chosen],
            timestamps=None if self.timestamps is None else self.timestamps[chosen],
        )

    def user_ids(self, labels: Any) -> NDArray[np.intp]:
        """Return the position of each label in `users`; ValueError names an unknown one."""
        return positions(as_labels(labels, "user_ids: labels"), self.users, "user_ids: labels")

    def item_ids(self, labels: Any) -> NDArray[np.intp]:
        """Return the position of each label in `items`; ValueError names an unknown one."""
        return positions(as_labels(labels, "item_ids: labels"), self.items, "item_ids: labels")

    def at_least(self, value: float) -> Interactions:
        """Keep the events whose value is `value` or more (ratings of 4 and 5, say)."""
        if not np.isfinite(value):
            raise ValueError(f"at_least: value must be finite; got {value}")
        return self.select(self.values >= value)

    def deduplicate(self, keep: Literal["last", "first", "sum", "max"] = "last") -> Interactions:
        """Keep one event per user-item pair, in the order of the events kept.

        Parameters
        ----------
        keep : {'last', 'first', 'sum', 'max'}, default='last'
            The latest or the earliest event by timestamp, then by position; or one event with the
            sum of the values and the time of the latest; or the event with the greatest value, the
            latest of equals.

        Returns
        -------
        Interactions
            Same id spaces.

        Raises
        ------
        ValueError
            If `keep` is none of these.
        """
        if keep not in ("last", "first", "sum", "max"):
            raise ValueError(
                f"deduplicate: keep must be 'last', 'first', 'sum' or 'max'; got {keep!r}"
            )
        if len(self) == 0:
            return self
        pair = self.user_index.astype(np.int64) * self.n_items + self.item_index
        by: list[NDArray[Any]] = [pair]  # np.lexsort: the last key counts first, and it is stable
        if self.timestamps is not None:
            by.insert(0, self.timestamps)
        if keep == "max":
            by.insert(len(by) - 1, self.values)
        order = np.lexsort(by)
        starts = np.flatnonzero(np.diff(pair[order], prepend=-1))
        ends = np.append(starts[1:], len(order)) - 1
        kept = np.sort(order[starts if keep == "first" else ends])
        result = self.select(kept)
        if keep != "sum":
            return result
        totals = np.add.reduceat(self.values[order], starts, dtype=np.float64)
        back = np.argsort(order[ends])
        return replace(result, values=as_values(totals[back], "deduplicate: sums of values"))

    def core(self, n: int) -> Interactions:
        """Keep the `n`-core: users with `n` different items and items with `n` different users.

        Removing one side can push the other below `n`, so it is repeated until nothing changes;
        the result does not depend on the order. The id spaces stay: call `compact` to drop the
        labels left without events.

        Raises
        ------
        ValueError
            If `n` is below 1.
        """
        if n < 1:
            raise ValueError(f"core: n must be at least 1; got {n}")
        pairs = self.deduplicate()
        users, items = pairs.user_index, pairs.item_index
        while True:
            per_user = np.bincount(users, minlength=self.n_users)
            per_item = np.bincount(items, minlength=self.n_items)
            keep = (per_user[users] >= n) & (per_item[items] >= n)
            if keep.all():
                left = (per_user[self.user_index] > 0) & (per_item[self.item_index] > 0)
                return self.select(left)
            users, items = users[keep], items[keep]

    def compact(self) -> Interactions:
        """Drop the labels without events and renumber; the order of the labels stays."""
        kept_users, user_index = np.unique(self.user_index, return_inverse=True)
        kept_items, item_index = np.unique(self.item_index, return_inverse=True)
        return replace(
            self,
            user_index=user_index.reshape(-1).astype(np.intp, copy=False),
            item_index=item_index.reshape(-1).astype(np.intp, copy=False),
            users=self.users[kept_users],
            items=self.items[kept_items],
        )


def _encode(
    labels: NDArray[Any], name: str, space: Any, space_name: str
) -> tuple[NDArray[np.intp], NDArray[Any]]:
    if space is None:
        return factorise(labels, name)
    space_name = f"Interactions: {space_name}"
    known = as_labels(space, space_name).copy()
    codes, unique = factorise(known, space_name)
    if len(unique) < len(known):
        row = int(np.flatnonzero(codes != np.arange(len(codes)))[0])
        label = known.tolist()[row]
        raise ValueError(f"{space_name} must have no duplicates; got {label!r} in row {row}")
    return positions(labels, known, name), known


def _check_range(index: NDArray[Any], size: int, name: str) -> None:
    if len(index) and (index.min() < 0 or index.max() >= size):
        wrong = index.min() if index.min() < 0 else index.max()
        raise IndexError(f"Interactions: {name} must be in [0, {size}); got {wrong}")


def _column_names(frame: Any) -> list[str]:
    if isinstance(frame, Mapping):
        return list(frame)
    if not hasattr(frame, "shape") or not hasattr(frame, "columns"):
        hint = ". Call collect() first." if hasattr(frame, "collect") else ""
        raise TypeError(
            "Interactions: frame must be a pandas or polars DataFrame, an Arrow table or a mapping "
            f"of columns; got {type(frame).__name__}{hint}"
        )
    return list(getattr(frame, "column_names", frame.columns))
