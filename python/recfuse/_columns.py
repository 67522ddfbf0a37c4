"""Columns of events as people hold them (lists, arrays, Series, Arrow), typed and complete."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "as_labels",
    "as_numbers",
    "as_timestamps",
    "as_values",
    "factorise",
    "missing_cells",
    "positions",
]

Labels = NDArray[Any]
Index = NDArray[np.intp]


def as_labels(x: Any, name: str) -> Labels:
    """Return ids as a 1-D array: int64 for integers, Python objects of one type for all else.

    Strings stay Python strings: a NumPy string array is as wide as its longest id.
    """
    column = _as_column(x, name)
    if column.dtype.kind == "f":
        _refuse_missing(np.isnan(column), column, name)
        raise TypeError(
            f"{name} must be integers, strings or other hashable ids; got dtype {column.dtype}. "
            "Convert the column, for example with astype('int64')."
        )
    if column.dtype.kind in "iu":
        return _as_int64(column)
    if column.dtype.kind in "US":
        return _object_array(column.tolist())
    if column.dtype.kind == "O":
        return _as_object_labels(column, name)
    raise TypeError(
        f"{name} must be integers, strings or other hashable ids; got dtype {column.dtype}"
    )


def as_numbers(x: Any, name: str) -> NDArray[np.float64]:
    """Return a new float64 array; NaN and infinity stay."""
    return _real(x, name).astype(np.float64)


def as_values(x: Any, name: str) -> NDArray[np.float32]:
    """Return a new, finite float32 array."""
    column = _real(x, name)
    if column.dtype.kind == "f":
        _refuse_missing(np.isnan(column), column, name)
    with np.errstate(over="ignore"):  # what overflows float32 is reported below, with its row
        values = column.astype(np.float32)
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        row = int(wrong[0])
        raise ValueError(f"{name} must be finite float32 numbers; got {column[row]} in row {row}")
    return values


def as_timestamps(x: Any, name: str) -> NDArray[np.int64]:
    """Return a new int64 array; dates become seconds since 1970 in UTC, rounded down."""
    column = _inferred(_as_column(x, name), name)
    if column.dtype.kind == "M":
        _refuse_missing(np.isnat(column), column, name)
        return column.astype("datetime64[s]").astype(np.int64)
    if column.dtype.kind == "O" and all(isinstance(value, datetime) for value in column):
        return np.fromiter((_utc_seconds(value) for value in column), np.int64, len(column))
    if column.dtype.kind == "U":
        seconds = (_utc_seconds(_iso_date(text, name, row)) for row, text in enumerate(column))
        return np.fromiter(seconds, np.int64, len(column))
    if column.dtype.kind == "f":
        _refuse_missing(np.isnan(column), column, name)
        # A fraction of a second decides an order, so it is not dropped silently.
        wrong = np.flatnonzero((column != np.floor(column)) | (np.abs(column) >= 2.0**63))
        if len(wrong):
            row = int(wrong[0])
            raise ValueError(f"{name} must be whole seconds; got {column[row]} in row {row}")
        return column.astype(np.int64)
    if column.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers or dates; got dtype {column.dtype}")
    if _as_int64(column).dtype != np.int64:
        row = int(column.argmax())
        raise ValueError(f"{name} must be below 2**63; got {column[row]} in row {row}")
    return column.astype(np.int64)


def missing_cells(x: Any, name: str) -> NDArray[np.bool_]:
    """Tell which cells of a column are missing: None, NaN, NaT, NA or masked."""
    if isinstance(x, np.ma.MaskedArray):
        return np.ma.getmaskarray(x) | missing_cells(x.data, name)
    column = _as_column(x, name)
    if column.dtype.kind == "O":
        return _missing(column)
    if column.dtype.kind == "M":
        return np.asarray(np.isnat(column))
    if column.dtype.kind in "fc":
        return np.asarray(np.isnan(column))
    return np.zeros(len(column), np.bool_)


def factorise(labels: Labels, name: str) -> tuple[Index, Labels]:
    """Return the code of each label and the labels by code; codes count first appearances."""
    if labels.dtype.kind == "O":
        seen: dict[Any, int] = {}
        try:
            codes = np.fromiter(
                (seen.setdefault(label, len(seen)) for label in labels), np.intp, len(labels)
            )
        except TypeError:
            _refuse_unhashable(labels, name)
            raise
        return codes, _object_array(list(seen))
    if len(labels) == 0:
        return np.empty(0, np.intp), labels
    lowest, highest = int(labels.min()), int(labels.max())
    if highest - lowest < 4 * len(labels) + 1_000_000:
        return _factorise_dense((labels - labels.dtype.type(lowest)).astype(np.intp), labels)
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    by_appearance = np.argsort(first, kind="stable")
    code = np.empty(len(first), np.intp)
    code[by_appearance] = np.arange(len(first))
    return code[inverse.reshape(-1)], labels[first[by_appearance]]


def positions(labels: Labels, space: Labels, name: str) -> Index:
    """Return the position of each label in `space`; ValueError names the first unknown label."""
    if labels.dtype.kind == "O" or space.dtype.kind == "O":
        place = {label: row for row, label in enumerate(space.tolist())}
        found = np.fromiter((place.get(label, -1) for label in labels.tolist()), np.intp)
    else:
        order = np.argsort(space, kind="stable").astype(np.intp)
        sorted_space = space[order]
        slot = np.searchsorted(sorted_space, labels)
        slot[slot == len(space)] = 0
        found = np.full(len(labels), -1, np.intp)
        if len(space):
            known = sorted_space[slot] == labels
            found[known] = order[slot[known]]
    unknown = np.flatnonzero(found < 0)
    if len(unknown):
        row = int(unknown[0])
        raise ValueError(f"{name} must be known ids; got {labels.tolist()[row]!r} in row {row}")
    return found


def _as_column(x: Any, name: str) -> NDArray[Any]:
    if isinstance(x, np.ma.MaskedArray):
        _refuse_missing(np.ma.getmaskarray(x).reshape(-1), x.reshape(-1), name)
        x = x.data
    if isinstance(x, np.ndarray) or hasattr(x, "__array__"):
        column = np.asarray(x)
    elif isinstance(x, Sequence) and not isinstance(x, (str, bytes)):
        # np.asarray would make the string '1' of the number 1 beside a string.
        column = _object_array(x)
    else:
        raise TypeError(f"{name} must be a sequence, array or Series; got {type(x).__name__}")
    if column.ndim != 1:
        raise ValueError(f"{name} must have 1 dimension; got shape {column.shape}")
    return column


def _object_array(values: Sequence[Any]) -> NDArray[Any]:
    return np.fromiter(values, object, len(values))


def _as_int64(column: NDArray[Any]) -> NDArray[Any]:
    # A label keeps its value: what int64 cannot hold stays uint64.
    if column.dtype.kind == "u" and len(column) and column.max() > np.iinfo(np.int64).max:
        return column.astype(np.uint64)
    return column.astype(np.int64, copy=False)


def _as_object_labels(column: NDArray[Any], name: str) -> Labels:
    kinds = set(map(type, column))
    if any(issubclass(kind, np.generic) for kind in kinds):
        column = _object_array([v.item() if isinstance(v, np.generic) else v for v in column])
        kinds = set(map(type, column))
    if kinds <= {str}:
        return column
    if kinds <= {int}:
        try:
            return column.astype(np.int64)
        except OverflowError:
            return column
    _refuse_missing(_missing(column), column, name)
    if len(kinds) > 1:
        first = type(column[0])
        row = next(row for row, label in enumerate(column) if type(label) is not first)
        raise TypeError(
            f"{name} must all have one type; got {first.__name__} in row 0 "
            f"and {type(column[row]).__name__} in row {row}"
        )
    if kinds & {float, bool, complex}:
        raise TypeError(
            f"{name} must be integers, strings or other hashable ids; got {kinds.pop().__name__}"
        )
    return column


def _real(x: Any, name: str) -> NDArray[Any]:
    column = _inferred(_as_column(x, name), name)
    if column.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold real numbers; got dtype {column.dtype}")
    return column


def _inferred(column: NDArray[Any], name: str) -> NDArray[Any]:
    """Give a column of Python objects the dtype of its numbers; strings are no numbers."""
    if column.dtype.kind != "O":
        return column
    _refuse_missing(_missing(column), column, name)
    return np.asarray(column.tolist()) if len(column) else np.empty(0)


def _missing(column: NDArray[Any]) -> NDArray[np.bool_]:
    return np.fromiter((_is_missing(value) for value in column), np.bool_, len(column))


def _is_missing(value: Any) -> bool:
    if value is None or type(value).__name__ == "NAType":  # pandas.NA, without importing pandas
        return True
    different = value != value  # NaN and NaT
    return isinstance(different, (bool, np.bool_)) and bool(different)


def _refuse_missing(missing: NDArray[np.bool_], column: NDArray[Any], name: str) -> None:
    rows = np.flatnonzero(missing)
    if len(rows):
        row = int(rows[0])
        raise ValueError(f"{name} must have no missing values; got {column[row]} in row {row}")


def _refuse_unhashable(labels: Labels, name: str) -> None:
    for row, label in enumerate(labels):
        try:
            hash(label)
        except TypeError:
            kind = type(label).__name__
            raise TypeError(f"{name} must be hashable ids; got {kind} in row {row}") from None


def _factorise_dense(offset: Index, labels: Labels) -> tuple[Index, Labels]:
    """Codes by a table over the range of the ids: no sort of the events."""
    n = len(offset)
    first = np.full(int(offset.max()) + 1, n, np.intp)
    first[offset[::-1]] = np.arange(n - 1, -1, -1, dtype=np.intp)  # the last write is the first row
    rows = np.sort(first[first < n])
    code = np.empty(len(first), np.intp)
    code[offset[rows]] = np.arange(len(rows))
    return code[offset], labels[rows]


def _iso_date(text: str, name: str, row: int) -> datetime:
    try:
        if text[4:5] != "-":  # Python 3.11 reads 20260131, too; a column of such is more often ids
            raise ValueError
        return datetime.fromisoformat(text.removesuffix("Z") + "+00:00" * text.endswith("Z"))
    except ValueError:
        raise ValueError(
            f"{name} must be integers, or dates like 2026-01-31 or 2026-01-31 18:30:00; "
            f"got {str(text)!r} in row {row}"
        ) from None


def _utc_seconds(value: datetime) -> int:
    # A date without a zone is UTC, as in NumPy: never the zone of this machine.
    if value.tzinfo is None:
        value = value.replace(tzinfo=timezone.utc)
    return int(value.timestamp() // 1)
