"""What belongs to several modalities: rows, presence and weights, checked and in one order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recfuse._inputs import check_keys

__all__ = [
    "as_compiled",
    "check_shapes",
    "check_widths",
    "first_of",
    "presence_flags",
    "weight_rows",
]

Scores = NDArray[np.float32]


def first_of(items: dict[str, Scores]) -> Scores:
    return next(iter(items.values()))


def as_compiled(matrices: Iterable[Any]) -> list[Any]:
    """Return matrices as the compiled module takes them: those on a GPU in parts."""
    return [getattr(matrix, "parts", matrix) for matrix in matrices]


def check_shapes(queries: dict[str, Scores], items: dict[str, Scores]) -> None:
    """Raise as the compiled search does, which sees every modality alone."""
    n_queries, name = len(first_of(queries)), next(iter(queries))
    for other, matrix in queries.items():
        if len(matrix) != n_queries:
            raise ValueError(
                f"queries[{other!r}] must have {n_queries} rows like "
                f"queries[{name!r}]; got {len(matrix)}"
            )
        if matrix.shape[1] != items[other].shape[1]:
            raise ValueError(
                f"queries[{other!r}] must have {items[other].shape[1]} columns like "
                f"items[{other!r}]; got {matrix.shape[1]}"
            )


def check_widths(new: dict[str, Scores], items: dict[str, Scores]) -> None:
    """Raise ValueError unless all new items have the columns and the number of rows they must."""
    for name, matrix in new.items():
        expected = (len(first_of(new)), items[name].shape[1])
        if matrix.shape != expected:
            raise ValueError(f"items[{name!r}] must have shape {expected}; got {matrix.shape}")


def presence_flags(
    present: Mapping[str, ArrayLike] | None, items: dict[str, Scores]
) -> NDArray[np.uint8] | None:
    """Return flags (n_items, n_modalities), or None where every item has everything."""
    if present is None:
        return None
    if not isinstance(present, Mapping):
        raise TypeError(
            f"present must be a mapping modality -> array; got {type(present).__name__}"
        )
    unknown = [name for name in present if name not in items]
    if unknown:
        raise ValueError(f"present must name modalities of {list(items)}; got {unknown}")
    flags = np.ones((len(first_of(items)), len(items)), np.uint8)
    for column, name in enumerate(items):
        if name not in present:
            continue
        mask = np.asarray(present[name])
        if mask.dtype != np.bool_:
            raise TypeError(f"present[{name!r}] must be boolean; got dtype {mask.dtype}")
        if mask.shape != (len(flags),):
            raise ValueError(f"present[{name!r}] must have shape ({len(flags)},); got {mask.shape}")
        flags[:, column] = mask
    return flags


def weight_rows(
    weights: Mapping[str, ArrayLike] | None, modalities: list[str], n_queries: int
) -> NDArray[np.float64]:
    """Return weights of shape (1 or n_queries, n_modalities), in the order of the modalities."""
    if weights is None:
        return np.ones((1, len(modalities)))
    if not isinstance(weights, Mapping):
        raise TypeError(
            f"weights must be a mapping modality -> weight; got {type(weights).__name__}"
        )
    check_keys(weights, "weights", modalities)
    columns = []
    for name in modalities:
        column = np.asarray(weights[name])
        if column.dtype.kind not in "fiu":
            raise TypeError(f"weights[{name!r}] must be real; got dtype {column.dtype}")
        if column.shape not in ((), (n_queries,)):
            raise ValueError(
                f"weights[{name!r}] must be a number or have shape ({n_queries},); "
                f"got shape {column.shape}"
            )
        columns.append(column.astype(np.float64))
    return np.ascontiguousarray(
        np.stack(np.broadcast_arrays(*columns), axis=-1).reshape(-1, len(modalities))
    )
