"""`IndexIDMap` as FAISS has it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from recfuse._inputs import as_ids
from recfuse._named import named
from recfuse.compat.faiss._flat import IndexFlat
from recfuse.compat.faiss._index import Float32, Ids, Index, into

__all__ = ["IndexIDMap", "IndexIDMap2"]


class IndexIDMap(Index):
    """An index with ids of the caller's: any int64, also the same more than once.

    Parameters
    ----------
    index : IndexFlat
        Empty.

    Attributes
    ----------
    index : IndexFlat
    id_map : ndarray of shape (ntotal,), int64
        In the order in which the vectors were added.

    Examples
    --------
    >>> from recfuse.compat.faiss import IndexFlatIP, IndexIDMap
    >>> index = IndexIDMap(IndexFlatIP(2))
    >>> index.add_with_ids([[0.0, 3.0], [0.0, 1.0]], [100, 200])
    >>> index.search([[0.0, 1.0]], k=1)[1].tolist()
    [[100]]
    """

    def __init__(self, index: IndexFlat) -> None:
        if not isinstance(index, IndexFlat):
            raise TypeError(f"IndexIDMap: index must be an IndexFlat; got {type(index).__name__}")
        if index.ntotal:
            raise ValueError(f"IndexIDMap: index must be empty; got {index.ntotal} vectors")
        self.index = index
        self.id_map: Ids = np.empty(0, np.int64)
        self.d, self.metric_type = index.d, index.metric_type

    @property
    def ntotal(self) -> int:  # type: ignore[override]
        """Number of vectors."""
        return self.index.ntotal

    def add(self, x: ArrayLike) -> None:
        """Raise: every vector needs an id."""
        raise RuntimeError("add: IndexIDMap needs ids; call add_with_ids")

    @named("add_with_ids")
    def add_with_ids(self, x: ArrayLike, ids: ArrayLike) -> None:
        """Add vectors, shape (n, d), under ids, shape (n,)."""
        vectors, labels = self._as_vectors(x, "x"), as_ids(ids, "ids")
        if len(labels) != len(vectors):
            raise ValueError(f"ids must be {len(vectors)}, one a vector; got {len(labels)}")
        self.index.add(vectors)
        self.id_map = np.concatenate([self.id_map, labels])

    def reset(self) -> None:
        """Remove all vectors and ids."""
        self.index.reset()
        self.id_map = self.id_map[:0]

    @named("remove_ids")
    def remove_ids(self, x: ArrayLike) -> int:
        """Remove the vectors with these ids; return how many."""
        kept = ~np.isin(self.id_map, as_ids(x, "x"))
        self.index._keep(kept)
        self.id_map = self.id_map[kept]
        return int((~kept).sum())

    @named("reconstruct")
    def reconstruct_batch(self, key: ArrayLike, x: Any = None) -> Float32:
        """Return the vectors of ids; of the same id more than once, the last that was added."""
        rows = {label: row for row, label in enumerate(self.id_map.tolist())}
        labels = as_ids(key, "key").tolist()
        missing = [label for label in labels if label not in rows]
        if missing:
            raise IndexError(f"key must be an id that was added; got {missing[0]}")
        return into(x, "x", self.index.reconstruct_batch([rows[label] for label in labels]))

    def _search(self, queries: Float32, k: int) -> tuple[Float32, Ids]:
        distances, rows = self.index._search(queries, k)
        ids = np.full_like(rows, -1)
        ids[rows >= 0] = self.id_map[rows[rows >= 0]]
        return distances, ids

    def _in_range(self, queries: Float32, radius: float) -> tuple[Ids, Float32, Ids]:
        lims, distances, rows = self.index._in_range(queries, radius)
        return lims, distances, self.id_map[rows]


class IndexIDMap2(IndexIDMap):
    """`IndexIDMap`, which reconstructs by id here, too."""
