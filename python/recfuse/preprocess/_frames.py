"""Tables of events as people hold them: columns, missing cells and chosen rows of each kind."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recfuse._columns import missing_cells

__all__ = ["column_names", "missing_rows", "read_table", "rows_at"]


def read_table(path: str | os.PathLike[str], **options: Any) -> Any:
    """Read a CSV, TSV or Parquet file as a data frame, with pandas.

    Parameters
    ----------
    path : str or path-like
        Ends in .csv, .tsv (each also with .gz) or .parquet.
    **options
        For `pandas.read_csv` or `pandas.read_parquet`: ``dtype={"user": str}`` keeps the zeros of
        ids such as 007, ``keep_default_na=False`` the id "NA".

    Returns
    -------
    pandas.DataFrame
        With nullable types: integers stay integers beside missing cells.

    Raises
    ------
    ImportError
        If pandas (or, for Parquet, pyarrow) is missing; it names the extra.
    ValueError
        If the file is of another kind.
    OSError
        If it cannot be read.
    """
    name = Path(path).name.lower()
    text = name.endswith((".csv", ".csv.gz", ".tsv", ".tsv.gz"))
    if not text and not name.endswith(".parquet"):
        raise ValueError(
            f"read_table: path must end in .csv, .tsv (.gz) or .parquet; got {Path(path).name!r}"
        )
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError("reading tables needs pandas: pip install 'recfuse[frames]'") from error
    options = {"dtype_backend": "numpy_nullable", **options}
    if not text:
        return pd.read_parquet(path, **options)
    return pd.read_csv(path, **{"sep": "\t" if ".tsv" in name else ",", **options})


def column_names(table: Any, op: str) -> list[str]:
    """Return the names of a frame's columns; TypeError for what is no frame."""
    if isinstance(table, Mapping):
        return list(table)
    if not hasattr(table, "shape") or not hasattr(table, "columns"):
        hint = ". Call collect() first." if hasattr(table, "collect") else ""
        raise TypeError(
            f"{op}: table must be a pandas or polars DataFrame, an Arrow table, a mapping of "
            f"columns or the path of a file; got {type(table).__name__}{hint}"
        )
    return list(getattr(table, "column_names", table.columns))


def missing_rows(column: Any, name: str) -> NDArray[np.bool_]:
    """Tell which cells are missing, before integers beside them become floats."""
    if hasattr(column, "isna"):  # pandas
        return np.asarray(column.isna(), bool)
    if hasattr(column, "is_null"):  # polars and Arrow
        null = np.asarray(column.is_null(), bool)
        if null.all():
            return null
        known = np.flatnonzero(~null)
        null[known] = missing_cells(rows_at(column, known), name)
        return null
    return missing_cells(column, name)


def rows_at(column: Any, rows: NDArray[np.intp]) -> Any:
    """Return the cells at `rows`, in a column of the same kind."""
    for method in ("take", "gather"):  # pandas, Arrow and NumPy; polars
        if hasattr(column, method):
            return getattr(column, method)(rows)
    return [column[row] for row in rows.tolist()]
