r"""Early fusion: the vectors of several modalities become one matrix, before any similarity.

Late fusion adds scores up and keeps weights open until a search (`recfuse.FusedIndex`); what is
fused here is an ordinary matrix, for `recfuse.topk`, for a network or for any other index.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recfuse._named import named

__all__ = ["concatenate", "product", "weighted_average", "weighted_sum"]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Flags = dict[str, NDArray[np.bool_]]

_ROWS = 8192  # in float64 at a time


@named("weighted_sum")
def weighted_sum(
    blocks: Mapping[str, ArrayLike],
    weights: Mapping[str, float] | None = None,
    *,
    present: Mapping[str, ArrayLike] | None = None,
) -> Float32:
    r"""Add vectors up: :math:`\sum_m w_m x_m` over the modalities that a row has.

    Parameters
    ----------
    blocks : mapping modality -> array-like of shape (n, dim)
        All in one space, of one shape; `CommonSpace` makes such.
    weights : mapping modality -> float, optional
        Finite; 1 for every modality by default, and for those not named.
    present : mapping modality -> array-like of bool of shape (n,), optional
        Which rows have the modality; all of them where it is not named.

    Returns
    -------
    ndarray of shape (n, dim), float32
        Computed in float64 and rounded once.

    Raises
    ------
    TypeError, ValueError
        If shapes differ (the message names both modalities and both shapes), or a weight or a name
        is wrong.

    Examples
    --------
    >>> from recfuse.fusion import weighted_sum
    >>> behaviour, content = [[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [10, 11, 12]]
    >>> weighted_sum({"behaviour": behaviour, "content": content}, {"content": 2})
    array([[15., 18., 21.],
           [24., 27., 30.]], dtype=float32)
    """

    def rule(rows: list[Float64], w: Float64, here: NDArray[np.bool_]) -> Float64:
        return _sum(rows, w, here)

    return _fused(_alike(blocks), weights, present, rule)


@named("weighted_average")
def weighted_average(
    blocks: Mapping[str, ArrayLike],
    weights: Mapping[str, float] | None = None,
    *,
    present: Mapping[str, ArrayLike] | None = None,
) -> Float32:
    r"""Average vectors: :math:`\sum_m w_m x_m / \sum_m |w_m|` over the modalities that a row has.

    A row that lacks a modality is the average of the others, on the same scale; in a sum it would
    be shorter. One that has none is 0.

    Parameters
    ----------
    blocks, weights, present
        As in `weighted_sum`; the weights must not all be 0.

    Returns
    -------
    ndarray of shape (n, dim), float32

    Raises
    ------
    TypeError, ValueError
        As `weighted_sum`.

    Examples
    --------
    >>> from recfuse.fusion import weighted_average
    >>> behaviour, content = [[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [10, 11, 12]]
    >>> weighted_average({"behaviour": behaviour, "content": content})
    array([[4., 5., 6.],
           [7., 8., 9.]], dtype=float32)
    """

    def rule(rows: list[Float64], w: Float64, here: NDArray[np.bool_]) -> Float64:
        total = (np.abs(w)[:, None] * here).sum(axis=0)[:, None]
        added = _sum(rows, w, here)
        average: Float64 = np.divide(added, total, out=np.zeros_like(added), where=total > 0)
        return average

    return _fused(_alike(blocks), weights, present, rule)


@named("product")
def product(
    blocks: Mapping[str, ArrayLike], *, present: Mapping[str, ArrayLike] | None = None
) -> Float32:
    r"""Multiply vectors element by element: :math:`\prod_m x_m` over the modalities of a row.

    Parameters
    ----------
    blocks, present
        As in `weighted_sum`. A row that has no modality is 0.

    Returns
    -------
    ndarray of shape (n, dim), float32

    Raises
    ------
    TypeError, ValueError
        As `weighted_sum`.

    Examples
    --------
    >>> from recfuse.fusion import product
    >>> product({"text": [[1, 2]], "image": [[3, 4]]})
    array([[3., 8.]], dtype=float32)
    """

    def rule(rows: list[Float64], w: Float64, here: NDArray[np.bool_]) -> Float64:
        out = np.ones_like(rows[0])
        for x, flags in zip(rows, here, strict=True):
            out[flags] *= x[flags]
        out[~here.any(axis=0)] = 0
        return out

    return _fused(_alike(blocks), None, present, rule)


@named("concatenate")
def concatenate(
    blocks: Mapping[str, ArrayLike],
    weights: Mapping[str, float] | None = None,
    *,
    normalise: bool = False,
    present: Mapping[str, ArrayLike] | None = None,
) -> Float32:
    r"""Put vectors side by side, each times :math:`\sqrt{w_m}`.

    The inner product of two such rows is the weighted sum of the inner products of modalities,

    .. math:: \langle [\sqrt{w_m} q_m]_m, [\sqrt{w_m} x_m]_m \rangle
              = \sum_m w_m \langle q_m, x_m \rangle,

    so one matrix in any index of inner products ranks like ``FusedIndex(..., metric="dot")`` with
    these weights and ``missing="zero"``; with `normalise`, like ``metric="cosine"``. The weights
    are then part of the data.

    Parameters
    ----------
    blocks : mapping modality -> array-like of shape (n, dim_m)
        The queries or the items; widths may differ. Do it to both sides, in one order.
    weights : mapping modality -> float, optional
        At least 0, as a negative number has no root; 1 where a modality is not named.
    normalise : bool, default=False
        Divide every vector by its Euclidean norm first; a zero vector stays zero.
    present : mapping modality -> array-like of bool of shape (n,), optional

    Returns
    -------
    ndarray of shape (n, sum of dim_m), float32

    Raises
    ------
    TypeError, ValueError
        As `weighted_sum`; ValueError for a negative weight.

    Examples
    --------
    >>> from recfuse.fusion import concatenate
    >>> concatenate({"text": [[3, 4]], "image": [[1]]}, {"text": 4})
    array([[6., 8., 1.]], dtype=float32)
    """
    for name, weight in ({} if weights is None else weights).items():
        if weight < 0:
            raise ValueError(f"weights[{name!r}] must be at least 0; got {weight}")

    def rule(rows: list[Float64], w: Float64, here: NDArray[np.bool_]) -> Float64:
        scaled = []
        for x, weight, flags in zip(rows, w, here, strict=True):
            norms = np.linalg.norm(x, axis=1, keepdims=True) if normalise else np.ones((len(x), 1))
            factor = np.sqrt(weight) / np.where(norms > 0, norms, 1)
            scaled.append(np.where(flags[:, None], x * factor, 0))
        return np.hstack(scaled)

    return _fused(_alike(blocks, widths=False), weights, present, rule)


Rule = Callable[[list[Float64], Float64, NDArray[np.bool_]], Float64]


def _sum(rows: list[Float64], w: Float64, here: NDArray[np.bool_]) -> Float64:
    out = np.zeros_like(rows[0])
    for x, weight, flags in zip(rows, w, here, strict=True):
        # Not a product with the flags: what stands in a missing row may be NaN.
        out[flags] += weight * x[flags]
    return out


def _fused(
    blocks: dict[str, NDArray[np.generic]],
    weights: Mapping[str, float] | None,
    present: Mapping[str, ArrayLike] | None,
    rule: Rule,
) -> Float32:
    """Apply a rule to rows in float64, a few thousand at a time."""
    w = _weights(weights, list(blocks))
    flags = _presence(present, blocks)
    n = len(next(iter(blocks.values())))
    parts = []
    for start in range(0, max(n, 1), _ROWS):
        part = slice(start, start + _ROWS)
        rows = [x[part].astype(np.float64) for x in blocks.values()]
        here = np.stack([flags[name][part] for name in blocks])
        parts.append(rule(rows, w, here).astype(np.float32))
    return np.concatenate(parts)


def _alike(
    blocks: Mapping[str, ArrayLike], *, widths: bool = True
) -> dict[str, NDArray[np.generic]]:
    """Return the blocks as arrays of one shape, or of one number of rows."""
    if not isinstance(blocks, Mapping):
        raise TypeError(f"blocks must be a mapping modality -> array; got {type(blocks).__name__}")
    if not blocks:
        raise ValueError("blocks must have at least 1 modality; got none")
    arrays = {name: np.asarray(block) for name, block in blocks.items()}
    first, like = next(iter(arrays.items()))
    for name, x in arrays.items():
        if x.dtype.kind not in "fiub":
            raise TypeError(f"blocks[{name!r}] must hold real numbers; got dtype {x.dtype}")
        same = x.shape == like.shape if widths else x.shape[:1] == like.shape[:1]
        if not same:
            what = f"shape {like.shape}" if widths else f"{len(like)} rows"
            raise ValueError(
                f"blocks[{name!r}] must have {what} like blocks[{first!r}]; got {x.shape}"
            )
        if x.ndim != 2:
            raise ValueError(f"blocks[{name!r}] must have 2 dimensions; got shape {x.shape}")
    return arrays


def _weights(weights: Mapping[str, float] | None, names: list[str]) -> Float64:
    given = {} if weights is None else weights
    unknown = [name for name in given if name not in names]
    if unknown:
        raise ValueError(f"weights must name modalities of {names}; got {unknown}")
    out = np.array([given.get(name, 1.0) for name in names], np.float64)
    for name, weight in zip(names, out, strict=True):
        if not np.isfinite(weight):
            raise ValueError(f"weights[{name!r}] must be finite; got {weight}")
    if not out.any():
        raise ValueError(f"weights must not all be 0; got {dict(given)}")
    return out


def _presence(
    present: Mapping[str, ArrayLike] | None, blocks: Mapping[str, NDArray[np.generic]]
) -> Flags:
    given = {} if present is None else present
    unknown = [name for name in given if name not in blocks]
    if unknown:
        raise ValueError(f"present must name modalities of {list(blocks)}; got {unknown}")
    flags: Flags = {}
    for name, x in blocks.items():
        flag = np.asarray(given.get(name, np.ones(len(x), np.bool_)))
        if flag.dtype != np.bool_ or flag.shape != (len(x),):
            raise ValueError(
                f"present[{name!r}] must be {len(x)} booleans; got {flag.dtype} of {flag.shape}"
            )
        flags[name] = flag
    return flags
