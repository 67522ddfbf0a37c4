"""From many vectors to one: the frames of a video, the patches of a song, the items of a user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from recfuse._inputs import as_csr, as_ids, as_modalities
from recfuse._named import named
from recfuse.features._kinds import Pooling

__all__ = ["history_profiles", "pool_sequences"]

Float64 = NDArray[np.float64]


@named("pool_sequences")
def pool_sequences(
    vectors: ArrayLike,
    lengths: ArrayLike,
    *,
    pooling: Pooling | Sequence[Pooling] = "mean",
    weights: ArrayLike | None = None,
) -> NDArray[np.float32]:
    r"""Pool ragged sequences of vectors: one vector per sequence.

    With the weights :math:`w_t` of the vectors :math:`x_t` of a sequence,

    .. math:: mean = \frac{\sum_t w_t x_t}{\sum_t w_t}, \quad
              std = \sqrt{\frac{\sum_t w_t (x_t - mean)^2}{\sum_t w_t}}, \quad
              sum = \sum_t w_t x_t, \quad max = \max_{t: w_t > 0} x_t

    Parameters
    ----------
    vectors : array-like of shape (n_vectors, dim)
        The sequences, one behind the other.
    lengths : array-like of shape (n_sequences,), integer
        Vectors of each sequence; they add up to n_vectors, and may be 0.
    pooling : {'mean', 'max', 'sum', 'std'} or a sequence of them, default='mean'
        Several are put side by side, in this order.
    weights : array-like of shape (n_vectors,), optional
        Finite and not negative; 1 by default. A mask is a weight of booleans: what is 0 is not
        looked at, and may be NaN. Attention weights of a network go here, too.

    Returns
    -------
    ndarray of shape (n_sequences, dim * number of poolings), float32
        Computed in float64. A sequence without a vector of positive weight is a zero row.

    Raises
    ------
    ValueError
        If shapes disagree, a weight is negative or not finite, a vector that counts is not finite,
        or `pooling` is unknown.
    TypeError
        If an argument is not numeric.

    Examples
    --------
    >>> from recfuse.features import pool_sequences
    >>> frames = [[1, 0], [3, 2], [5, 5], [0, 7]]
    >>> pool_sequences(frames, [2, 0, 2], pooling=["mean", "max"])
    array([[2. , 1. , 3. , 2. ],
           [0. , 0. , 0. , 0. ],
           [2.5, 6. , 5. , 7. ]], dtype=float32)
    >>> pool_sequences(frames, [4], weights=[0, 1, 0, 3])
    array([[0.75, 5.75]], dtype=float32)
    """
    kinds = (pooling,) if isinstance(pooling, str) else tuple(pooling)
    for kind in kinds:
        if kind not in get_args(Pooling):
            raise ValueError(f"pooling must be of {list(get_args(Pooling))}; got {kind!r}")
    if not kinds:
        raise ValueError("pooling must name a pooling; got none")
    rows, where, mass = _counted(vectors, lengths, weights)
    pooled = [_POOLINGS[kind](rows, where, mass) for kind in kinds]
    return np.hstack(pooled).astype(np.float32)


@named("history_profiles")
def history_profiles(
    user_items: Any,
    items: Mapping[str, ArrayLike],
    *,
    present: Mapping[str, ArrayLike] | None = None,
) -> dict[str, NDArray[np.float32]]:
    r"""Return a profile of every user in every modality: the weighted mean of the history's items.

    .. math:: p_m(u) = \frac{\sum_{i \in N_u \cap P_m} r_{ui} \, x_m(i)}
                            {\sum_{i \in N_u \cap P_m} |r_{ui}|}

    over the items :math:`P_m` that have modality m. The result has the shape of queries: pass it to
    `FusedIndex.topk` beside factors of behaviour, one block per modality.

    Parameters
    ----------
    user_items : sparse of shape (n_users, n_items), or Interactions
        A negative value pushes away.
    items : mapping of str to array-like of shape (n_items, dim_m)
    present : mapping of str to array-like of shape (n_items,), bool, optional
        Which items have a modality; all where none is given.

    Returns
    -------
    dict of str to ndarray of shape (n_users, dim_m), float32
        A zero row for a user without any item of that modality.

    Raises
    ------
    ValueError
        If numbers of items disagree, `present` names an unknown modality, or the vector of a
        present item is not finite.
    TypeError
        If `user_items` is not sparse or `items` no mapping.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from recfuse.features import history_profiles
    >>> likes = sp.csr_array(np.array([[1.0, 3.0, 0.0], [0.0, 0.0, 0.0]]))
    >>> history_profiles(likes, {"text": [[4, 0], [0, 4], [8, 8]]})["text"]
    array([[1., 3.],
           [0., 0.]], dtype=float32)
    """
    history = as_csr(user_items, "user_items").astype(np.float64)
    blocks = as_modalities(items, "items")
    unknown = [name for name in present or {} if name not in blocks]
    if unknown:
        raise ValueError(f"present must have modalities of {list(blocks)}; got {unknown}")
    n_items = history.shape[1]
    profiles = {}
    for name, vectors in blocks.items():
        if len(vectors) != n_items:
            raise ValueError(
                f"items[{name!r}] must have one row per column of user_items ({n_items}); "
                f"got {len(vectors)}"
            )
        mask = np.ones(n_items, np.bool_)
        if present is not None and name in present:
            mask = _mask(present[name], n_items, f"present[{name!r}]")
        if not np.isfinite(vectors[mask]).all():
            raise ValueError(f"items[{name!r}] must be finite where present; got NaN or infinity")
        known = history.copy()
        known.data *= mask[known.indices]
        total = known @ np.where(mask[:, None], vectors, 0).astype(np.float64)
        profiles[name] = _divided(total, abs(known).sum(axis=1)).astype(np.float32)
    return profiles


def _counted(
    vectors: Any, lengths: Any, weights: Any
) -> tuple[Float64, NDArray[np.intp], sp.csr_array]:
    """Return the vectors that count, their sequence, and the weights as (sequences, vectors)."""
    x = np.asarray(vectors)
    if x.dtype.kind not in "fiub":
        raise TypeError(f"vectors must hold real numbers; got dtype {x.dtype}")
    if x.ndim != 2:
        raise ValueError(f"vectors must have 2 dimensions; got shape {x.shape}")
    counts = as_ids(lengths, "lengths")
    if (counts < 0).any() or counts.sum() != len(x):
        got = int(counts.min()) if (counts < 0).any() else int(counts.sum())
        raise ValueError(
            f"lengths must be at least 0 and add up to the number of vectors {len(x)}; got {got}"
        )
    mass = np.ones(len(x)) if weights is None else np.asarray(weights)
    if mass.dtype.kind not in "fiub":
        raise TypeError(f"weights must hold real numbers; got dtype {mass.dtype}")
    if mass.shape != (len(x),):
        raise ValueError(f"weights must have shape ({len(x)},); got {mass.shape}")
    mass = mass.astype(np.float64)
    if not (np.isfinite(mass).all() and (mass >= 0).all()):
        raise ValueError("weights must be finite and not negative; got others")
    where = np.repeat(np.arange(len(counts)), counts)
    keep = mass > 0
    if not keep.all():
        x, where, mass = x[keep], where[keep], mass[keep]
    x = x.astype(np.float64)
    if not np.isfinite(x).all():
        raise ValueError("vectors must be finite where weights are positive; got NaN or infinity")
    columns = np.arange(len(x))
    return x, where, sp.csr_array((mass, (where, columns)), shape=(len(counts), len(x)))


def _sum(x: Float64, where: NDArray[np.intp], mass: sp.csr_array) -> Float64:
    return np.asarray(mass @ x)


def _mean(x: Float64, where: NDArray[np.intp], mass: sp.csr_array) -> Float64:
    return _divided(mass @ x, mass.sum(axis=1))


def _std(x: Float64, where: NDArray[np.intp], mass: sp.csr_array) -> Float64:
    deviations = x - _mean(x, where, mass)[where]
    return np.sqrt(_mean(deviations**2, where, mass))


def _max(x: Float64, where: NDArray[np.intp], mass: sp.csr_array) -> Float64:
    highest = np.zeros((mass.shape[0], x.shape[1]))
    if len(x):
        # `where` never decreases, so every run of it is a sequence.
        starts = np.flatnonzero(np.diff(where, prepend=-1))
        highest[where[starts]] = np.maximum.reduceat(x, starts, axis=0)
    return highest


_POOLINGS = {"mean": _mean, "max": _max, "sum": _sum, "std": _std}


def _divided(total: Float64, mass: Float64) -> Float64:
    mass = np.asarray(mass).reshape(-1, 1)
    return np.divide(total, mass, out=np.zeros_like(total), where=mass > 0)


def _mask(x: Any, n: int, name: str) -> NDArray[np.bool_]:
    mask = np.asarray(x)
    if mask.dtype != np.bool_ or mask.shape != (n,):
        raise ValueError(f"{name} must be booleans of shape ({n},); got {mask.dtype} {mask.shape}")
    return mask
