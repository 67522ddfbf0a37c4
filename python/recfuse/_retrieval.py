"""What a fitted model needs to answer by dense search, as arrays: for searches and for files.

Estimators describe themselves (`Estimator._retrieval`), `serving.Retriever` searches, and a model
file has the description as JSON that names arrays of the file (`recfuse._retrieval_file`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recfuse._id_table import IdTable
from recfuse.errors import FormatError

__all__ = ["Modality", "Part", "Retrieval", "Seen", "Vectors"]

Array = NDArray[Any]
Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Part:
    """Columns of vectors: of an array, or a constant.

    Attributes
    ----------
    array : ndarray of shape (n, dim) or (n,), float32, or None
    columns : int or None
        Only the first ones of the array.
    plus : float or None
        Added to every number, in float64; the sum is rounded to float32.
    constant : float or None
        One column of it, where there is no array.
    """

    array: Array | None = None
    columns: int | None = None
    plus: float | None = None
    constant: float | None = None

    @property
    def dim(self) -> int:
        if self.columns is not None:
            return self.columns
        return self.array.shape[1] if self.array is not None and self.array.ndim == 2 else 1

    def rows(self, rows: Any, n: int) -> Array:
        """Return the columns of `rows`, of which there are `n`."""
        if self.array is None:
            return np.full((n, 1), self.constant, np.float32)
        values: Array = self.array[rows]
        values = values[:, None] if values.ndim == 1 else values[:, : self.columns]
        if self.plus is not None:
            values = (values.astype(np.float64) + self.plus).astype(np.float32)
        return values


@dataclass(frozen=True)
class Vectors:
    """Vectors of users or items: parts side by side."""

    parts: tuple[Part, ...]

    @classmethod
    def of(cls, array: Array, columns: int | None = None) -> Vectors:
        return cls((Part(array, columns),))

    @property
    def dim(self) -> int:
        return sum(part.dim for part in self.parts)

    def __len__(self) -> int:
        return next(len(part.array) for part in self.parts if part.array is not None)

    def rows(self, rows: NDArray[np.int64]) -> Float32:
        """Return some of the vectors, C-contiguous."""
        return np.hstack([part.rows(rows, len(rows)) for part in self.parts])

    def matrix(self) -> Float32:
        """Return all vectors: the array itself where it is one."""
        if len(self.parts) == 1:
            return np.ascontiguousarray(self.parts[0].rows(slice(None), len(self)))
        return np.hstack([part.rows(slice(None), len(self)) for part in self.parts])


@dataclass(frozen=True)
class Seen:
    """The items of every user, as a sparse pattern of which rows are checked when they are used."""

    indptr: Array
    indices: Array
    n_items: int
    source: Any = None  # the matrix of which these are the parts

    @classmethod
    def of(cls, matrix: sp.csr_array) -> Seen:
        return cls(matrix.indptr, matrix.indices, matrix.shape[1], matrix)

    def rows(self, rows: NDArray[np.int64]) -> sp.csr_array:
        """Return some rows as a canonical matrix of ones; FormatError for what is no matrix."""
        begins, ends = (self.indptr[rows + step].astype(np.int64) for step in (0, 1))
        if not ((begins >= 0) & (begins <= ends) & (ends <= len(self.indices))).all():
            raise FormatError("seen items must have row starts that rise within the indices")
        parts = [self.indices[b:e] for b, e in zip(begins.tolist(), ends.tolist(), strict=True)]
        indices = np.concatenate([*parts, np.zeros(0, np.int32)])
        if len(indices) and (indices.min() < 0 or indices.max() >= self.n_items):
            raise FormatError(f"seen items must be in [0, {self.n_items}); got others")
        indptr = np.append(0, np.cumsum(ends - begins))
        entries = (np.ones(len(indices), np.float32), indices.astype(np.int32), indptr)
        matrix = sp.csr_array(entries, shape=(len(rows), self.n_items))
        matrix.sum_duplicates()
        return matrix


@dataclass(frozen=True)
class Modality:
    """One modality: its item vectors, what users ask with, and what makes items alike."""

    name: str
    items: Vectors
    users: Vectors | None = None
    similar: Vectors | None = None  # None: `items`

    @property
    def likeness(self) -> Vectors:
        return self.items if self.similar is None else self.similar


@dataclass(frozen=True)
class Retrieval:
    """A search over modalities, with everything that a request leaves unsaid.

    Attributes
    ----------
    modalities : tuple of Modality
    metric, missing : str
        As in `FusedIndex`.
    weights : tuple of float
        Of the modalities, where a request has none.
    user_weights : ndarray of shape (n_users, n_modalities), float64, or None
        Instead of `weights`, for users of the model.
    similar_weights : tuple of float, or None
        Of the modalities where items are compared; None: `weights`.
    fallback : int or None
        The modality that gets weight 1 for a query of which no weighted one has a vector other
        than 0.
    present : ndarray of shape (n_items, n_modalities), uint8, or None
    user_ids, item_ids : IdTable, or None
        None: rows are ids.
    seen : Seen, or None
        What is left out of lists.
    """

    modalities: tuple[Modality, ...]
    metric: str = "dot"
    missing: str = "renormalise"
    weights: tuple[float, ...] = (1.0,)
    user_weights: Array | None = None
    similar_weights: tuple[float, ...] | None = None
    fallback: int | None = None
    present: Array | None = None
    user_ids: IdTable | None = None
    item_ids: IdTable | None = None
    seen: Seen | None = None
    options: Mapping[str, Any] = field(default_factory=dict)  # device and num_threads; not in files

    def check(self) -> None:
        """Look at all that is otherwise checked where it is used; FormatError for what is wrong."""
        if self.seen is not None:
            self.seen.rows(np.arange(len(self.seen.indptr) - 1))
        for table in (self.user_ids, self.item_ids):
            if table is not None:
                table.check()

    @property
    def n_items(self) -> int:
        return len(self.modalities[0].items)

    @property
    def n_users(self) -> int | None:
        """None where users have no vectors."""
        users = self.modalities[0].users
        return None if users is None else len(users)

    @property
    def names(self) -> list[str]:
        return [modality.name for modality in self.modalities]
