"""`IndexFlat` and `knn` as FAISS has them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recfuse._inputs import as_ids, as_int, as_matrix, check_ids
from recfuse._named import named
from recfuse.compat.faiss._index import Float32, Ids, Index, into
from recfuse.compat.faiss._search import (
    METRIC_INNER_PRODUCT,
    METRIC_L2,
    ByDistance,
    ByProduct,
    in_range,
)

__all__ = ["IndexFlat", "IndexFlatIP", "IndexFlatL2", "knn"]


@named("knn")
def knn(
    xq: ArrayLike, xb: ArrayLike, k: int, metric: int = METRIC_L2, metric_arg: float = 0.0
) -> tuple[Float32, Ids]:
    """Find the k nearest rows of `xb` for every row of `xq`, exactly.

    Parameters
    ----------
    xq : array-like of shape (n_queries, d)
    xb : array-like of shape (n, d)
    k : int
        At least 1.
    metric : {METRIC_L2, METRIC_INNER_PRODUCT}, default=METRIC_L2
        Squared Euclidean distance, or inner product.
    metric_arg : float
        Ignored: neither metric has an argument.

    Returns
    -------
    D : ndarray of shape (n_queries, k), float32
        Squared distances ascending, or inner products descending; equal ones by id. The largest
        float32 of the metric's bad end where `I` is -1.
    I : ndarray of shape (n_queries, k), int64
        -1 where there are fewer than `k` rows.

    Raises
    ------
    TypeError
        If an array does not hold real numbers.
    ValueError
        If shapes disagree, `k` < 1 or the metric is another one.

    Examples
    --------
    >>> from recfuse.compat.faiss import knn
    >>> D, I = knn([[0.0, 1.0]], [[0.0, 3.0], [0.0, 1.0], [5.0, 5.0]], k=2)
    >>> D.tolist(), I.tolist()
    ([[0.0, 4.0]], [[1, 0]])
    """
    del metric_arg
    items = as_matrix(xb, "xb")
    index = IndexFlat(items.shape[1], metric)
    index._vectors = items
    queries = as_matrix(xq, "xq")
    if queries.shape[1] != items.shape[1]:
        raise ValueError(f"xq must have {items.shape[1]} columns, as xb; got shape {queries.shape}")
    return index.search(queries, k)


class IndexFlat(Index):
    """Vectors as they are, searched exactly.

    Parameters
    ----------
    d : int
        Dimension of the vectors.
    metric : {METRIC_L2, METRIC_INNER_PRODUCT}, default=METRIC_L2

    Attributes
    ----------
    ntotal : int
        Number of vectors.
    d, metric_type : int
    is_trained : bool
        Always true.

    Examples
    --------
    >>> from recfuse.compat.faiss import IndexFlatL2
    >>> index = IndexFlatL2(2)
    >>> index.add([[0.0, 3.0], [0.0, 1.0], [5.0, 5.0]])
    >>> D, I = index.search([[0.0, 1.0]], k=2)
    >>> D.tolist(), I.tolist()
    ([[0.0, 4.0]], [[1, 0]])
    """

    def __init__(self, d: int, metric: int = METRIC_L2) -> None:
        self.d = as_int(d, "IndexFlat: d")
        if self.d < 1:
            raise ValueError(f"IndexFlat: d must be at least 1; got {d}")
        if metric not in (METRIC_L2, METRIC_INNER_PRODUCT):
            raise ValueError(
                f"IndexFlat: metric must be METRIC_L2 or METRIC_INNER_PRODUCT; got {metric!r}"
            )
        self.metric_type = int(metric)
        self._vectors: Float32 = np.empty((0, self.d), np.float32)
        self._added: list[Float32] = []
        self._made: ByDistance | ByProduct | None = None

    @property
    def ntotal(self) -> int:  # type: ignore[override]
        """Number of vectors."""
        return len(self._vectors) + sum(len(part) for part in self._added)

    @named("add")
    def add(self, x: ArrayLike) -> None:
        """Add vectors, shape (n, d); their ids go on from `ntotal`. They are copied."""
        vectors = self._as_vectors(x, "x")
        converted = isinstance(x, np.ndarray) and not np.may_share_memory(x, vectors)
        self._added.append(vectors if converted else vectors.copy())
        self._made = None

    def add_with_ids(self, x: ArrayLike, ids: ArrayLike) -> None:
        """Raise: this index numbers its vectors itself."""
        raise RuntimeError(
            f"add_with_ids: {type(self).__name__} has no ids of its own; put IndexIDMap around it"
        )

    def reset(self) -> None:
        """Remove all vectors."""
        self._vectors, self._added, self._made = self._vectors[:0], [], None

    @named("remove_ids")
    def remove_ids(self, x: ArrayLike) -> int:
        """Remove vectors, and move the later ones up; ids that are not there are ignored.

        Returns
        -------
        int
            How many were removed.
        """
        kept = ~np.isin(np.arange(self.ntotal), as_ids(x, "x"))
        self._keep(kept)
        return int((~kept).sum())

    @named("reconstruct_n")
    def reconstruct_n(self, n0: int = 0, ni: int = -1, x: Any = None) -> Float32:
        """Return the `ni` vectors from `n0` on, all that follow for -1."""
        n0, ni = as_int(n0, "n0"), as_int(ni, "ni")
        ni = self.ntotal - n0 if ni == -1 else ni
        if n0 < 0 or ni < 0 or n0 + ni > self.ntotal:
            raise IndexError(f"n0 must be in [0, {self.ntotal}] with n0 + ni; got {n0} and {ni}")
        return into(x, "x", self._all()[n0 : n0 + ni].copy())

    @named("reconstruct")
    def reconstruct_batch(self, key: ArrayLike, x: Any = None) -> Float32:
        """Return the vectors of ids, shape (n, d); IndexError if there is none for one of them."""
        return into(x, "x", self._all()[check_ids(as_ids(key, "key"), self.ntotal, "key")])

    def _keep(self, kept: NDArray[np.bool_]) -> None:
        if not kept.all():
            self._vectors, self._made = self._all()[kept], None

    def _all(self) -> Float32:
        if self._added:
            self._vectors = np.concatenate([self._vectors, *self._added])
            self._added = []
        return self._vectors

    def _ready(self) -> ByDistance | ByProduct:
        if self._made is None:
            make = ByDistance if self.metric_type == METRIC_L2 else ByProduct
            self._made = make(self._all())
        return self._made

    def _search(self, queries: Float32, k: int) -> tuple[Float32, Ids]:
        worst = np.finfo(np.float32).max * (1 if self.metric_type == METRIC_L2 else -1)
        distances = np.full((len(queries), k), worst, np.float32)
        ids = np.full((len(queries), k), -1, np.int64)
        n = min(k, self.ntotal)
        if n and len(queries):
            near, found = self._ready().search(queries, n)
            distances[:, :n] = np.where(found < 0, worst, near)
            ids[:, :n] = found
        return distances, ids

    def _in_range(self, queries: Float32, radius: float) -> tuple[Ids, Float32, Ids]:
        return in_range(queries, self._all(), radius, self.metric_type)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is made again from the vectors."""
        return {**vars(self), "_made": None}


class IndexFlatIP(IndexFlat):
    """`IndexFlat` by inner product: the largest first.

    Parameters
    ----------
    d : int
        Dimension of the vectors.
    """

    def __init__(self, d: int) -> None:
        super().__init__(d, METRIC_INNER_PRODUCT)


class IndexFlatL2(IndexFlat):
    """`IndexFlat` by squared Euclidean distance: the smallest first.

    Parameters
    ----------
    d : int
        Dimension of the vectors.
    """

    def __init__(self, d: int) -> None:
        super().__init__(d, METRIC_L2)
