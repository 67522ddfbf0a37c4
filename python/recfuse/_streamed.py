"""Items in files that must be converted: searched a block of rows at a time."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recfuse._inputs import as_csr, as_ids, in_place, is_sparse
from recfuse._merge import best_of
from recfuse._modalities import presence_flags

__all__ = ["BLOCK_BYTES", "search_in_blocks"]

Result = tuple[NDArray[np.int32], NDArray[np.float32]]
Search = Callable[..., Result]  # items, present, exclude=, allow=

BLOCK_BYTES = 64 << 20  # of converted items that are in memory together


def search_in_blocks(
    search: Search,
    op: str,
    items: Any,
    present: Any = None,
    *,
    exclude: Any = None,
    allow: Any = None,
) -> Result:
    """Return ``search(items, present, exclude=, allow=)``, never with much of a file in memory.

    Where modalities are mapped from files and cannot be used in place, blocks of items are searched
    one by one and their lists merged. The order of results is total, so the bytes are the same.
    """
    rows = _block_rows(items)
    if rows is None:
        return search(items, present, exclude=exclude, allow=allow)
    n_items = len(next(iter(items.values())))
    presence_flags(present, items)  # for its checks
    if exclude is not None:
        exclude = _checked_filter(exclude, "exclude", n_items, op)
    if is_sparse(allow):
        allow = _checked_filter(allow, "allow", n_items, op)
    elif allow is not None:
        allow = _checked_ids(allow, n_items, op)
    best: Result | None = None
    for first in range(0, n_items, rows):
        last = min(n_items, first + rows)
        ids, scores = search(
            {name: matrix[first:last] for name, matrix in items.items()},
            None if present is None else {m: np.asarray(x)[first:last] for m, x in present.items()},
            exclude=_columns(exclude, first, last),
            allow=_columns(allow, first, last),
        )
        ids = np.where(ids < 0, ids, ids + np.int32(first))
        if best is not None:
            ids = np.concatenate([best[0], ids], axis=1)
            scores = np.concatenate([best[1], scores], axis=1)
            ids, scores = best_of(ids, scores, k=best[0].shape[1])
        best = ids, scores
    assert best is not None
    return best


def _block_rows(items: Any) -> int | None:
    """Return how many items to convert at a time; None where all at once, or none need it."""
    if not isinstance(items, Mapping) or not all(_is_matrix(x) for x in items.values()):
        return None  # it is wrong, or already in memory: whoever converts it says so
    n_items = {len(x) for x in items.values()}
    to_convert = (x for x in items.values() if _is_mapped(x) and not in_place(x))
    row_bytes = 4 * sum(int(x.shape[1]) for x in to_convert)
    if len(n_items) != 1 or n_items.pop() * row_bytes <= BLOCK_BYTES:
        return None
    return max(1, BLOCK_BYTES // row_bytes)


def _is_matrix(x: Any) -> bool:
    return isinstance(x, np.ndarray) and x.ndim == 2 and not np.ma.isMaskedArray(x)


def _is_mapped(array: Any) -> bool:
    """Whether the elements lie in a file."""
    while isinstance(array, np.ndarray):
        array = array.base
    return isinstance(array, mmap.mmap)


def _checked_filter(x: Any, argument: str, n_items: int, op: str) -> sp.csr_array:
    csr = as_csr(x, argument)
    if csr.shape[1] != n_items:
        raise ValueError(
            f"{op}: {argument} must have a column per item ({n_items}); got {csr.shape[1]}"
        )
    return csr


def _checked_ids(allow: Any, n_items: int, op: str) -> NDArray[np.int64]:
    ids = as_ids(allow, "allow")
    outside = np.flatnonzero((ids < 0) | (ids >= n_items))
    if len(outside):
        at = outside[0]
        raise IndexError(f"{op}: allow[{at}] must be in [0, {n_items}); got {ids[at]}")
    return ids


def _columns(chosen: Any, first: int, last: int) -> Any:
    """Return a filter of items [first, last), which are 0, 1, ... in their block."""
    if chosen is None or isinstance(chosen, sp.csr_array):
        return None if chosen is None else chosen[:, first:last]
    return chosen[(chosen >= first) & (chosen < last)] - first
