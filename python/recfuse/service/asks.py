"""What a request asks of a model, in rows instead of ids; and matrices made of many of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

__all__ = ["Ask", "Lists", "matrix_of", "merged"]

Rows = NDArray[np.int64]
Float32 = NDArray[np.float32]
# Ids and scores of shape (n, k), and parts of shape (n, k, n_modalities) or None.
Lists = tuple[NDArray[np.int32], Float32, NDArray[np.float64] | None]


@dataclass(frozen=True)
class Ask:
    """One list that is wanted.

    Attributes
    ----------
    row : int or None
        A user of the model.
    changes : mapping of int to float
        What the user's history has besides: items and strengths; 0 takes an item back.
    version : hashable
        Changes of one version are the same, so that what was made of them may be kept.
    vectors : mapping modality -> ndarray of shape (dim,)
        To be asked with instead of what is known of the user.
    weights : mapping modality -> float, or None
    exclude, allow : ndarray of int64, ascending, or None
    exclude_seen : bool
    """

    k: int
    row: int | None = None
    changes: Mapping[int, float] = field(default_factory=dict)
    version: Any = None
    vectors: Mapping[str, Float32] = field(default_factory=dict)
    weights: Mapping[str, float] | None = None
    exclude: Rows | None = None
    allow: Rows | None = None
    exclude_seen: bool = True


def matrix_of(rows: Iterable[Rows], n_columns: int) -> sp.csr_array:
    """Return a matrix of ones from the columns of every row, ascending and once each."""
    parts = [np.asarray(part) for part in rows]
    indptr = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
    indices = np.concatenate([*parts, np.zeros(0, np.int64)]).astype(np.int32)
    ones = np.ones(len(indices), np.float32)
    return sp.csr_array((ones, indices, indptr), shape=(len(parts), n_columns))


def merged(
    histories: sp.csr_array | None,
    rows: Sequence[int | None],
    changes: Sequence[Mapping[int, float]],
    n_items: int,
) -> sp.csr_array:
    """Return the histories of users with what came later: a strength replaces the one before."""
    indptr, indices, data = [0], [], []
    for row, change in zip(rows, changes, strict=True):
        values: dict[int, float] = {}
        if histories is not None and row is not None:
            begin, end = int(histories.indptr[row]), int(histories.indptr[row + 1])
            values = dict(
                zip(
                    histories.indices[begin:end].tolist(),
                    histories.data[begin:end].tolist(),
                    strict=True,
                )
            )
        values.update(change)
        kept = sorted(item for item, value in values.items() if item not in change or value != 0)
        indices += kept
        data += [values[item] for item in kept]
        indptr.append(len(indices))
    entries = (np.array(data, np.float32), np.array(indices, np.int32), np.array(indptr))
    return sp.csr_array(entries, shape=(len(rows), n_items))
