"""Columns of item attributes, as people hold them, and what counts as missing in them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

__all__ = ["columns", "is_missing", "items_of"]


def columns(items: Any, fields: Iterable[str], op: str) -> dict[str, list[Any]]:
    """Return the cells of each field as a list, from a mapping, a data frame or an Arrow table."""
    table: dict[str, list[Any]] = {}
    for field in fields:
        try:
            column = items[field]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ValueError(
                f"{op}: items must be a mapping or data frame with the field {field!r}; "
                f"got {_names(items)}"
            ) from error
        except Exception as error:  # polars has exceptions of its own
            if type(error).__name__ != "ColumnNotFoundError":
                raise
            raise ValueError(
                f"{op}: items must have the field {field!r}; got {_names(items)}"
            ) from error
        table[field] = _cells(column, f"{op}: items[{field!r}]")
    lengths = {field: len(cells) for field, cells in table.items()}
    first = next(iter(lengths))
    for field, length in lengths.items():
        if length != lengths[first]:
            raise ValueError(
                f"{op}: items[{field!r}] must have {lengths[first]} rows like items[{first!r}]; "
                f"got {length}"
            )
    return table


def is_missing(cell: Any) -> bool:
    """Tell whether a cell says nothing: None, NaN, NaT, pandas.NA or a blank string."""
    if cell is None or type(cell).__name__ == "NAType":  # pandas.NA, without importing pandas
        return True
    if isinstance(cell, str):
        return not cell.strip()
    if isinstance(cell, (float, np.floating)):
        return bool(np.isnan(cell))
    return type(cell).__name__ == "NaTType"


def items_of(cell: Any) -> list[Any] | None:
    """Return the elements of a cell that holds several values, None for a single value."""
    if isinstance(cell, np.ndarray):
        return list(cell.tolist())
    if isinstance(cell, (list, tuple)):
        return list(cell)
    if isinstance(cell, (set, frozenset)):
        return sorted(cell, key=repr)
    return None


def _cells(column: Any, name: str) -> list[Any]:
    if isinstance(column, (str, bytes)):
        raise TypeError(f"{name} must be a column of cells; got {type(column).__name__}")
    # pyarrow, then NumPy and pandas, then polars: each gives Python objects its own way.
    for method in ("to_pylist", "tolist", "to_list"):
        if hasattr(column, method):
            cells = getattr(column, method)()
            if not isinstance(cells, list):
                raise TypeError(f"{name} must be a column of cells; got a scalar")
            return cells
    try:
        return list(column)
    except TypeError:
        kind = type(column).__name__
        raise TypeError(f"{name} must be a column of cells; got {kind}") from None


def _names(items: Any) -> str:
    keys = getattr(items, "columns", getattr(items, "column_names", None))
    if keys is None:
        keys = items.keys() if hasattr(items, "keys") else None
    return type(items).__name__ if keys is None else f"the fields {list(keys)}"
