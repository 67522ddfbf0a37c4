"""What fusion rules outside of the compiled search share: lists of the k best, weights."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["best_of", "check_weights"]


def best_of(ids: NDArray[np.int32], *arrays: NDArray[Any], k: int) -> tuple[NDArray[Any], ...]:
    """Return the k best of lists that stand side by side, in the order of every search.

    Parameters
    ----------
    ids : ndarray of shape (n_queries, n)
        No id twice in a row; -1 for padding, which goes to the end whatever its score is.
    *arrays : ndarray of shape (n_queries, n, ...)
        First the scores, none of them a NaN; then whatever else belongs to the ids.
    k : int
        At most n.
    """
    # Score descending, then id ascending; as an unsigned number, -1 is the largest id.
    order = np.lexsort((ids.view(np.uint32), -arrays[0]), axis=-1)[:, :k]
    rows = np.arange(len(ids))[:, None]
    return ids[rows, order], *(array[rows, order] for array in arrays)


def check_weights(weights: NDArray[np.float64], names: list[str]) -> None:
    """Raise as the compiled search does, which sees other weights than the caller gave."""
    for q, m in np.argwhere(~np.isfinite(weights))[:1]:
        raise ValueError(
            f"fuse_topk: weights[{names[m]!r}] must be finite; got {weights[q, m]} for query {q}"
        )
    for q in np.flatnonzero((weights == 0).all(axis=1))[:1]:
        raise ValueError(f"fuse_topk: weights must not all be 0; got only zeros for query {q}")
