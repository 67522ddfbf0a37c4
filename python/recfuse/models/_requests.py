"""What `recommend` is asked, checked once for every model."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from recfuse._inputs import as_csr, as_ids, check_ids

__all__ = ["filter_rows", "left_out", "rows_of_users"]


def rows_of_users(user_ids: ArrayLike, n_users: int) -> NDArray[np.int64]:
    """Return known user ids as a vector."""
    if type(user_ids) is int and 0 <= user_ids < n_users:  # the usual request
        return np.array([user_ids])
    return check_ids(as_ids(user_ids, "user_ids"), n_users, "user_ids")


def filter_rows(matrix: Any, name: str, shape: tuple[int, int]) -> sp.csr_array | None:
    """Return a sparse filter with one row per query, or None."""
    if matrix is None:
        return None
    csr = as_csr(matrix, name)
    if csr.shape != shape:
        raise ValueError(f"{name} must have shape {shape} (queries, items); got {csr.shape}")
    return csr


def left_out(user_items: Any, exclude: Any, shape: tuple[int, int]) -> sp.csr_array | None:
    """Return the pairs that a list must not have: the history given, and what is excluded."""
    history = filter_rows(user_items, "user_items", shape)
    excluded = filter_rows(exclude, "exclude", shape)
    if history is None or excluded is None:  # values do not count in a filter
        return history if excluded is None else excluded
    ones = [
        sp.csr_array((np.ones(len(m.indices), np.float32), m.indices, m.indptr), shape=shape)
        for m in (history, excluded)
    ]
    return as_csr(ones[0] + ones[1], "exclude")
