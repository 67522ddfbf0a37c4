"""`IndexFlat`, `IndexIDMap` and `knn` as FAISS has them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recfuse._inputs import as_float, as_ids, as_int, as_matrix, check_ids
from recfuse._named import named
from recfuse.compat.faiss._search import (
    METRIC_INNER_PRODUCT,
    METRIC_L2,
    ByDistance,
    ByProduct,
)

__all__ = ["Index", "IndexFlat", "IndexFlatIP", "IndexFlatL2", "IndexIDMap", "IndexIDMap2", "knn"]

Float32 = NDArray[np.float32]
Ids = NDArray[np.int64]


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


class Index:
    """What the indexes share: checks of arguments, and results in arrays that are given."""

    d: int
    metric_type: int
    ntotal: int
    is_trained = True
    verbose = False

    def train(self, x: ArrayLike) -> None:
        """Do nothing: there is nothing to train."""
        self._as_vectors(x, "train: x")

    @named("search")
    def search(
        self,
        x: ArrayLike,
        k: int,
        *,
        params: Any = None,
        D: Any = None,
        I: Any = None,  # noqa: E741
    ) -> tuple[Float32, Ids]:
        """Find the k nearest vectors of every query, exactly.

        Parameters
        ----------
        x : array-like of shape (n, d)
        k : int
            At least 1.
        params : None
            There are no selectors here.
        D, I : ndarray of shape (n, k), optional
            Where the results go.

        Returns
        -------
        D : ndarray of shape (n, k), float32
            Squared distances ascending, or inner products descending; equal ones by id.
        I : ndarray of shape (n, k), int64
            -1 where there are fewer than `k` vectors; `D` is the largest float32 there, or with
            inner products the smallest.

        Raises
        ------
        TypeError, ValueError
            If an argument is not what is said above.
        """
        _no_params(params)
        queries = self._as_vectors(x, "x")
        k = as_int(k, "k")
        if k < 1:
            raise ValueError(f"k must be at least 1; got {k}")
        distances, ids = self._search(queries, k)
        return _into(D, "D", distances), _into(I, "I", ids)

    def assign(self, x: ArrayLike, k: int, labels: Any = None) -> Ids:
        """Return `I` of `search`."""
        return self.search(x, k, I=labels)[1]

    @named("range_search")
    def range_search(
        self, x: ArrayLike, thresh: float, *, params: Any = None
    ) -> tuple[NDArray[np.uint64], Float32, Ids]:
        """Find all vectors nearer than a squared distance, or with larger products.

        Parameters
        ----------
        x : array-like of shape (n, d)
        thresh : float
            Left out itself.
        params : None

        Returns
        -------
        lims : ndarray of shape (n + 1,), uint64
            Those of query i are at ``lims[i]:lims[i + 1]``, in the order in which they were added.
        D : ndarray of shape (lims[n],), float32
        I : ndarray of shape (lims[n],), int64
        """
        _no_params(params)
        radius = as_float(thresh, "thresh")
        if np.isnan(radius):
            raise ValueError("thresh must be a number; got nan")
        found = list(self._in_range(self._as_vectors(x, "x"), radius))
        lims = np.zeros(len(found) + 1, np.uint64)
        lims[1:] = np.cumsum([len(ids) for ids, _ in found])
        ids = np.concatenate([np.empty(0, np.int64), *(ids for ids, _ in found)])
        distances = np.concatenate([np.empty(0, np.float32), *(d for _, d in found)])
        return lims, distances, ids

    def search_and_reconstruct(
        self,
        x: ArrayLike,
        k: int,
        *,
        params: Any = None,
        D: Any = None,
        I: Any = None,  # noqa: E741
    ) -> tuple[Float32, Ids, Float32]:
        """Return `D` and `I` of `search`, and the vectors of `I`; NaN where it is -1."""
        distances, ids = self.search(x, k, params=params, D=D, I=I)
        vectors = np.full((*ids.shape, self.d), np.nan, np.float32)
        found = ids >= 0
        vectors[found] = self.reconstruct_batch(ids[found])
        return distances, ids, vectors

    def reconstruct(self, key: int, x: Any = None) -> Float32:
        """Return the vector of an id; IndexError if there is none."""
        return _into(x, "reconstruct: x", self.reconstruct_batch([as_int(key, "key")])[0])

    def reconstruct_batch(self, key: ArrayLike, x: Any = None) -> Float32:
        """Return the vectors of ids; IndexError if there is none for one of them."""
        raise NotImplementedError

    def _search(self, queries: Float32, k: int) -> tuple[Float32, Ids]:
        raise NotImplementedError

    def _in_range(self, queries: Float32, radius: float) -> Any:
        raise NotImplementedError

    def _as_vectors(self, x: ArrayLike, name: str) -> Float32:
        vectors = as_matrix(x, name)
        if vectors.shape[1] != self.d:
            raise ValueError(f"{name} must have {self.d} columns; got shape {vectors.shape}")
        return vectors


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
        self._added.append(vectors.copy() if vectors is x or vectors.base is not None else vectors)
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
        return _into(x, "x", self._all()[n0 : n0 + ni].copy())

    @named("reconstruct")
    def reconstruct_batch(self, key: ArrayLike, x: Any = None) -> Float32:
        """Return the vectors of ids, shape (n, d); IndexError if there is none for one of them."""
        return _into(x, "x", self._all()[check_ids(as_ids(key, "key"), self.ntotal, "key")])

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

    def _in_range(self, queries: Float32, radius: float) -> Any:
        return (
            self._ready().in_range(queries, radius)
            if self.ntotal
            else [(np.empty(0, np.int64), np.empty(0, np.float32)) for _ in queries]
        )

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
        return _into(x, "x", self.index.reconstruct_batch([rows[label] for label in labels]))

    def _search(self, queries: Float32, k: int) -> tuple[Float32, Ids]:
        distances, rows = self.index._search(queries, k)
        ids = np.full_like(rows, -1)
        ids[rows >= 0] = self.id_map[rows[rows >= 0]]
        return distances, ids

    def _in_range(self, queries: Float32, radius: float) -> Any:
        for rows, distances in self.index._in_range(queries, radius):
            yield self.id_map[rows], distances


class IndexIDMap2(IndexIDMap):
    """`IndexIDMap`, which reconstructs by id here, too."""


def _no_params(params: Any) -> None:
    if getattr(params, "sel", params) is not None:  # parameters that say nothing are none
        raise ValueError(f"params must be None: there are no selectors here; got {params!r}")


def _into(out: Any, name: str, result: NDArray[Any]) -> NDArray[Any]:
    """Return the result, in the array that was given for it."""
    if out is None:
        return result
    if not isinstance(out, np.ndarray) or (out.shape, out.dtype) != (result.shape, result.dtype):
        raise ValueError(
            f"{name} must be an array of shape {result.shape} and dtype {result.dtype}; got "
            + (f"{out.shape}, {out.dtype}" if isinstance(out, np.ndarray) else type(out).__name__)
        )
    out[...] = result
    return out
