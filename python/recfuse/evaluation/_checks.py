"""Checks of arguments that splits and metrics share."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recfuse.interactions import Interactions


def check_interactions(interactions: Any, op: str) -> None:
    """Raise TypeError unless `interactions` are Interactions."""
    if not isinstance(interactions, Interactions):
        raise TypeError(
            f"{op}: interactions must be Interactions; got {type(interactions).__name__}. "
            "Make them with Interactions.from_arrays or from_frame."
        )


def check_fraction(fraction: Any, op: str) -> float:
    """Return a share in (0, 1) as a float."""
    if not isinstance(fraction, Real) or isinstance(fraction, bool):
        raise TypeError(f"{op}: test_fraction must be a number; got {type(fraction).__name__}")
    if not 0 < float(fraction) < 1:
        raise ValueError(f"{op}: test_fraction must be in (0, 1); got {fraction}")
    return float(fraction)


def positive_int(n: Any, name: str, op: str) -> int:
    """Return an integer of at least 1; booleans and floats are no integers."""
    if isinstance(n, bool) or not hasattr(n, "__index__"):
        raise TypeError(f"{op}: {name} must be an integer; got {type(n).__name__}")
    number = operator.index(n)
    if number < 1:
        raise ValueError(f"{op}: {name} must be at least 1; got {number}")
    return number


def cutoffs(k: Any, op: str) -> tuple[int, ...]:
    """Return one or several cut-offs in increasing order."""
    given = list(k) if isinstance(k, Iterable) else [k]
    at = sorted(positive_int(n, "k", op) for n in given)
    if not at or len(set(at)) < len(at):
        raise ValueError(f"{op}: k must be one or several different numbers; got {given}")
    return tuple(at)


def item_numbers(x: Any, n_columns: int, name: str) -> NDArray[np.float64]:
    """Return one finite number of at least 0 per item, in float64."""
    array = np.asarray(x)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name} must hold numbers; got dtype {array.dtype}")
    if array.shape != (n_columns,):
        raise ValueError(
            f"{name} must have shape ({n_columns},), one number per column of test; "
            f"got {array.shape}"
        )
    numbers = array.astype(np.float64)
    wrong = ~(np.isfinite(numbers) & (numbers >= 0))
    if wrong.any():
        raise ValueError(f"{name} must be finite and at least 0; got {numbers[wrong][0]}")
    return numbers


def item_vectors(x: Any, n_columns: int, name: str) -> NDArray[np.float64]:
    """Return one vector of length 1 per item, in float64; zeros where it has none."""
    array = np.asarray(x)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name} must hold numbers; got dtype {array.dtype}")
    if array.ndim != 2 or len(array) != n_columns:
        raise ValueError(
            f"{name} must have shape ({n_columns}, dim), one row per column of test; "
            f"got {array.shape}"
        )
    vectors = array.astype(np.float64)
    wrong = ~np.isfinite(vectors)
    if wrong.any():
        raise ValueError(f"{name} must be finite; got {vectors[wrong][0]}")
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    units: NDArray[np.float64] = np.divide(
        vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0
    )
    return units
