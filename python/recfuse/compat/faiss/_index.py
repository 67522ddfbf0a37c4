"""What FAISS's indexes share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recfuse._inputs import as_float, as_int, as_matrix
from recfuse._named import named

__all__ = ["Float32", "Ids", "Index", "into"]

Float32 = NDArray[np.float32]
Ids = NDArray[np.int64]


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
        no_params(params)
        queries = self._as_vectors(x, "x")
        k = as_int(k, "k")
        if k < 1:
            raise ValueError(f"k must be at least 1; got {k}")
        distances, ids = self._search(queries, k)
        return into(D, "D", distances), into(I, "I", ids)

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
        no_params(params)
        radius = as_float(thresh, "thresh")
        if np.isnan(radius):
            raise ValueError("thresh must be a number; got nan")
        lims, distances, ids = self._in_range(self._as_vectors(x, "x"), radius)
        return lims.astype(np.uint64), distances, ids

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
        return into(x, "reconstruct: x", self.reconstruct_batch([as_int(key, "key")])[0])

    def reconstruct_batch(self, key: ArrayLike, x: Any = None) -> Float32:
        """Return the vectors of ids; IndexError if there is none for one of them."""
        raise NotImplementedError

    def _search(self, queries: Float32, k: int) -> tuple[Float32, Ids]:
        raise NotImplementedError

    def _in_range(self, queries: Float32, radius: float) -> tuple[Ids, Float32, Ids]:
        raise NotImplementedError

    def _as_vectors(self, x: ArrayLike, name: str) -> Float32:
        vectors = as_matrix(x, name)
        if vectors.shape[1] != self.d:
            raise ValueError(f"{name} must have {self.d} columns; got shape {vectors.shape}")
        return vectors


def no_params(params: Any) -> None:
    if getattr(params, "sel", params) is not None:  # parameters that say nothing are none
        raise ValueError(f"params must be None: there are no selectors here; got {params!r}")


def into(out: Any, name: str, result: NDArray[Any]) -> NDArray[Any]:
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
