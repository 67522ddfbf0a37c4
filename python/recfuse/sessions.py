"""What somebody is doing now: the recent items of a session, weighted by how recent they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, overload

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from recfuse._decay import fading, half_life_of
from recfuse._inputs import as_csr, as_float, as_ids, as_int, as_matrix, check_ids
from recfuse._named import named

__all__ = ["decayed", "session_rows", "session_vectors"]

Float32 = NDArray[np.float32]


@named("session_rows")
def session_rows(
    sessions: Sequence[ArrayLike],
    n_items: int,
    *,
    half_life: float = 5.0,
    times: Sequence[ArrayLike] | None = None,
) -> sp.csr_array:
    r"""Return sessions as rows of item weights that halve with every `half_life`.

    The weight of an event is :math:`2^{-age / h}`, divided by the sum over the session; an item
    that comes twice has both. Such rows are histories for every model:
    ``als.fold_in(rows)``, ``neighbours.recommend(..., user_items=rows)``.

    Parameters
    ----------
    sessions : sequence of array-like of int
        Item ids of every session; the last is the newest, where there are no `times`.
    n_items : int
    half_life : float, default=5.0
        In steps; in the unit of `times` (seconds) where those are given. ``inf`` counts all alike.
    times : sequence of array-like of float, optional
        When each event was, in any order; the latest has age 0.

    Returns
    -------
    csr_array of shape (n_sessions, n_items), float32
        Rows sum to 1; that of an empty session has no entries.

    Raises
    ------
    TypeError, ValueError, IndexError
        If an id is unknown, lengths differ or a number is outside its range.

    Examples
    --------
    >>> from recfuse.sessions import session_rows
    >>> session_rows([[2, 0]], n_items=3, half_life=1).astype(float).toarray().round(3).tolist()
    [[0.667, 0.0, 0.333]]
    """
    columns = as_int(n_items, "n_items")
    half = half_life_of(half_life)
    if times is not None and len(times) != len(sessions):
        raise ValueError(f"times must have one row per session ({len(sessions)}); got {len(times)}")
    ids, weights, lengths = [], [], []
    for row, session in enumerate(sessions):
        items = check_ids(as_ids(session, "sessions"), columns, "sessions")
        ages = np.arange(len(items), dtype=np.float64)[::-1]
        if times is not None:
            ages = _ages(times[row], len(items))
        if len(items):
            raw = fading(ages, half)
            weights.append(raw / raw.sum())
        ids.append(items)
        lengths.append(len(items))
    indptr = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    values = np.concatenate(weights) if weights else np.zeros(0)
    indices = np.concatenate(ids) if ids else np.zeros(0, np.int64)
    return as_csr(sp.csr_array((values, indices, indptr), shape=(len(sessions), columns)), "rows")


def _ages(times: Any, n: int, now: float | None = None) -> NDArray[np.float64]:
    at = np.asarray(times, np.float64)
    if at.shape != (n,):
        raise ValueError(f"times must have one per item of a session ({n}); got shape {at.shape}")
    if not np.isfinite(at).all():
        raise ValueError("times must be finite; got NaN or infinity")
    latest = float(at.max(initial=-np.inf))
    if now is not None and latest > as_float(now, "now"):
        raise ValueError(f"now must be at or after every event; got {now} and an event at {latest}")
    return np.asarray((latest if now is None else now) - at)


@overload
def session_vectors(
    sessions: Sequence[ArrayLike],
    vectors: Mapping[str, ArrayLike],
    *,
    half_life: float = ...,
    times: Sequence[ArrayLike] | None = ...,
) -> dict[str, Float32]: ...
@overload
def session_vectors(
    sessions: Sequence[ArrayLike],
    vectors: ArrayLike,
    *,
    half_life: float = ...,
    times: Sequence[ArrayLike] | None = ...,
) -> Float32: ...
@named("session_vectors")
def session_vectors(
    sessions: Sequence[ArrayLike],
    vectors: Any,
    *,
    half_life: float = 5.0,
    times: Sequence[ArrayLike] | None = None,
) -> Any:
    r"""Return the recency-weighted mean of every session's item vectors: a query block.

    .. math:: q = \sum_e 2^{-age_e / h} x_{item(e)} \Big/ \sum_e 2^{-age_e / h}

    Parameters
    ----------
    sessions, half_life, times
        As in `session_rows`.
    vectors : array-like of shape (n_items, dim), or mapping modality -> such
        The vectors of an index, or the factors of a model.

    Returns
    -------
    ndarray of shape (n_sessions, dim), float32, or a dict of such by modality
        Zeros for an empty session.

    Raises
    ------
    TypeError, ValueError, IndexError
        As `session_rows`.

    Examples
    --------
    >>> import numpy as np, recfuse
    >>> from recfuse.sessions import session_vectors
    >>> index = recfuse.FusedIndex({"text": np.eye(3)})
    >>> queries = session_vectors([[2, 0]], {"text": np.eye(3)}, half_life=1)
    >>> index.topk(queries, k=2)[0].tolist()
    [[0, 2]]
    """
    if isinstance(vectors, Mapping):
        return {
            name: session_vectors(sessions, x, half_life=half_life, times=times)
            for name, x in vectors.items()
        }
    matrix = as_matrix(vectors, "vectors")
    rows = session_rows(sessions, len(matrix), half_life=half_life, times=times)
    return (rows.astype(np.float64) @ matrix.astype(np.float64)).astype(np.float32)


@named("decayed")
def decayed(interactions: Any, half_life: float, *, now: float | None = None) -> sp.csr_array:
    r"""Return interactions as a matrix whose events fade: value times :math:`2^{-age / h}`.

    Fit any model on it for recommendations that go with the time; repeated events add up.

    Parameters
    ----------
    interactions : Interactions
        With timestamps.
    half_life : float
        Above 0, in the unit of the timestamps (seconds); as that of `preprocess.EventReader`, which
        reads and fades at once. ``inf`` counts all alike.
    now : float, optional
        Age 0; the latest event by default. Later events are refused.

    Returns
    -------
    csr_array of shape (n_users, n_items), float32

    Raises
    ------
    TypeError, ValueError
        If there are no timestamps, or a number is outside its range.

    Examples
    --------
    >>> import recfuse
    >>> events = recfuse.Interactions.from_arrays([0, 0], [0, 1], timestamps=[0, 60])
    >>> recfuse.sessions.decayed(events, half_life=60).toarray().tolist()
    [[0.5, 1.0]]
    """
    from recfuse.interactions import Interactions

    if not isinstance(interactions, Interactions):
        raise TypeError(f"interactions must be Interactions; got {type(interactions).__name__}")
    if interactions.timestamps is None:
        raise ValueError("interactions must have timestamps; got none")
    half = half_life_of(half_life)
    ages = _ages(interactions.timestamps, len(interactions), now)
    values = interactions.values * fading(ages, half)
    shape = (interactions.n_users, interactions.n_items)
    positions = (interactions.user_index, interactions.item_index)
    return as_csr(sp.csr_array((values, positions), shape=shape), "interactions")
