"""What a request lacks, in weights; what it must not get, in one matrix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from recfuse._inputs import as_csr, as_ids, check_ids, is_sparse
from recfuse._modalities import weight_rows

__all__ = ["known_ids", "left_out", "request_weights"]


def request_weights(
    given: Any,
    present: Mapping[str, NDArray[np.bool_]],
    n_rows: int,
    *,
    fusion: str,
    missing: str,
) -> tuple[Any, NDArray[np.bool_]]:
    """Return the weights of every request, and which of them have nothing to go by."""
    unserved = np.zeros(n_rows, np.bool_)
    zero = missing == "zero" and fusion != "rrf"
    if zero or all(flags.all() for flags in present.values()):
        return given, unserved
    modalities = list(present)
    all_rows = weight_rows(given, modalities, n_rows)
    rows = np.array(np.broadcast_to(all_rows, (n_rows, len(modalities))))
    left = rows * np.stack(list(present.values()), axis=1)
    total, remaining = np.abs(rows).sum(axis=1), np.abs(left).sum(axis=1)
    served = remaining > 0
    if fusion == "sum":
        left[served] *= (total[served] / remaining[served])[:, None]
    # The rest is searched as it stands, so that weights are checked, and then forgotten.
    rows[served] = left[served]
    return {name: rows[:, m] for m, name in enumerate(modalities)}, ~served


def left_out(always: NDArray[np.int64] | None, given: Any, shape: tuple[int, int]) -> Any:
    """Return what requests must not get: the rows of a matrix, and ids for all of them."""
    ids = always
    if given is not None and not is_sparse(given):
        also = known_ids(given, shape[1])
        ids, given = (also if ids is None else np.union1d(ids, also)), None
    if ids is None:
        return given
    parts = (
        np.ones(shape[0] * len(ids), np.float32),
        np.tile(ids, shape[0]),
        np.arange(shape[0] + 1) * len(ids),
    )
    for_all = sp.csr_array(parts, shape=shape)
    if given is None:
        return for_all
    rows = as_csr(given, "exclude")
    if rows.shape != shape:
        raise ValueError(f"exclude must have shape {shape} (requests, items); got {rows.shape}")
    # Ones: entries count, whatever their value, and a sum of values may vanish.
    return for_all + sp.csr_array((np.ones_like(rows.data), rows.indices, rows.indptr), shape)


def known_ids(ids: ArrayLike, n_items: int) -> NDArray[np.int64]:
    """Return sorted ids of `exclude`; IndexError for those of no item."""
    return np.unique(check_ids(as_ids(ids, "exclude"), n_items, "exclude"))
