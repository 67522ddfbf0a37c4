"""What is done to ranked lists afterwards: diversity, caps per category, further factors.

Each function takes the lists of any search or model, longer than needed, and returns shorter ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recfuse._decay import fading, half_life_of
from recfuse._inputs import as_float, as_int, as_matrix
from recfuse._named import named

__all__ = ["boost", "cap", "distance_decay", "mmr"]

Ids = NDArray[np.int32]
Scores = NDArray[np.float32]
Float64 = NDArray[np.float64]
Lists = tuple[Ids, Scores]


@named("mmr")
def mmr(
    ids: ArrayLike,
    scores: ArrayLike,
    vectors: ArrayLike | Mapping[str, ArrayLike],
    k: int = 10,
    *,
    trade_off: float = 0.7,
    weights: Mapping[str, float] | None = None,
) -> Lists:
    r"""Choose k of every list by maximal marginal relevance [1]_: relevant, and unlike each other.

    One after another, the item that is best by

    .. math:: \lambda\, rel(i) - (1 - \lambda) \max_{j \in S} sim(i, j)

    joins the chosen ones S (the maximum is 0 while there are none); of equal ones that with the
    smaller id. The greedy choice is exact, in float64. The relevance is the score on the scale of
    its list, :math:`(s - \min s) / (\max s - \min s)` (1 where all are alike), so that
    :math:`\lambda` means the same whatever the scores are; the similarity is the cosine.

    Parameters
    ----------
    ids : array-like of int of shape (n_queries, length)
        Lists to choose from, of items that do not repeat; -1 for padding.
    scores : array-like of shape (n_queries, length)
        Finite where there is an item.
    vectors : array-like of shape (n_items, dim), or mapping modality -> such
        Of all items. The similarity of several modalities is the weighted mean of their cosines;
        that of a row of zeros to anything is 0.
    k : int, default=10
    trade_off : float, default=0.7
        :math:`\lambda` in [0, 1]: with 1 the lists stay in their order of score.
    weights : mapping modality -> float, optional
        Of the mean; equal ones by default. At least 0, not all 0.

    Returns
    -------
    ids : ndarray of shape (n_queries, k), int32
        In the order of choice; -1 for padding.
    scores : ndarray of shape (n_queries, k), float32
        The scores given: they need not descend. -inf for padding.

    Raises
    ------
    TypeError, ValueError, IndexError
        If shapes differ, a number is outside its range, or an id has no vector.

    References
    ----------
    .. [1] J. Carbonell, J. Goldstein, "The use of MMR, diversity-based reranking for reordering
       documents and producing summaries", SIGIR 1998.

    Examples
    --------
    >>> from recfuse.rerank import mmr
    >>> vectors = [[1, 0], [1, 0], [0, 1]]
    >>> mmr([[0, 1, 2]], [[3.0, 2.9, 2.0]], vectors, k=2, trade_off=0.5)[0].tolist()
    [[0, 2]]
    """
    lists, given = _lists(ids, scores)
    length = _length(k)
    share = as_float(trade_off, "trade_off")
    if not 0 <= share <= 1:
        raise ValueError(f"trade_off must be in [0, 1]; got {share}")
    listed = np.unique(lists[lists >= 0])
    matrices = _unit_vectors(vectors, listed, weights)
    shares = _shares(weights, matrices)

    def choose(items: Ids, values: Float64) -> NDArray[np.intp]:
        at = np.searchsorted(listed, items)
        rows = [x[at] for x in matrices.values()]
        similarity = sum(w * (x @ x.T) for w, x in zip(shares, rows, strict=True))
        return _greedy(items, share * _unit_range(values), (1 - share) * similarity, length)

    return _each(lists, given, length, choose)


def _greedy(items: Ids, gain: Float64, penalty: Any, k: int) -> NDArray[np.intp]:
    """Return positions in the order in which they are chosen."""
    chosen: list[int] = []
    worst = np.zeros(len(items))
    left = np.ones(len(items), bool)
    for step in range(min(k, len(items))):
        value = np.where(left, gain - worst, -np.inf)
        best = np.flatnonzero(value == value.max())
        pick = int(best[np.argmin(items[best])])
        chosen.append(pick)
        left[pick] = False
        worst = penalty[pick] if step == 0 else np.maximum(worst, penalty[pick])
    return np.array(chosen, np.intp)


def _unit_range(values: Float64) -> Float64:
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.ones(len(values))


def _unit_vectors(
    vectors: Any, listed: Ids, weights: Mapping[str, float] | None
) -> dict[str, Float64]:
    """Return the modalities of the items that are listed, at length 1, in float64."""
    given = vectors if isinstance(vectors, Mapping) else {"": vectors}
    if not given:
        raise ValueError("vectors must have at least 1 modality; got none")
    unit = {}
    for name, matrix in given.items():
        label = f"vectors[{name!r}]" if name else "vectors"
        x = as_matrix(matrix, label)
        if listed.max(initial=-1) >= len(x):
            raise IndexError(f"ids must be rows of {label} ({len(x)}); got {listed.max()}")
        if not np.isfinite(x[listed]).all():
            raise ValueError(f"{label} must be finite for listed items; got NaN or infinity")
        rows = x[listed].astype(np.float64)
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        unit[name] = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
    if weights is not None and set(weights) != set(unit):
        raise ValueError(f"weights must name the modalities {list(unit)}; got {list(weights)}")
    return unit


def _shares(weights: Mapping[str, float] | None, matrices: Mapping[str, Any]) -> list[float]:
    values = [1.0 if weights is None else as_float(weights[name], "weights") for name in matrices]
    total = sum(values)
    if min(values) < 0 or not 0 < total < np.inf:
        raise ValueError(f"weights must be finite, at least 0 and not all 0; got {weights}")
    return [value / total for value in values]


@named("cap")
def cap(
    ids: ArrayLike, scores: ArrayLike, categories: ArrayLike, k: int = 10, *, at_most: int = 2
) -> Lists:
    """Keep the k best of every list, no more than `at_most` of a category.

    Parameters
    ----------
    ids : array-like of int of shape (n_queries, length)
        Best first; -1 for padding.
    scores : array-like of shape (n_queries, length)
    categories : array-like of int of shape (n_items,)
        Of every item, such as its author; a negative one is never capped.
    k : int, default=10
    at_most : int, default=2

    Returns
    -------
    ids : ndarray of shape (n_queries, k), int32
        In the order given; -1 for padding.
    scores : ndarray of shape (n_queries, k), float32
        -inf for padding.

    Raises
    ------
    TypeError, ValueError, IndexError
        If shapes differ, a number is outside its range, or an id has no category.

    Examples
    --------
    >>> from recfuse.rerank import cap
    >>> cap([[0, 1, 2]], [[3, 2, 1]], categories=[7, 7, 8], k=2, at_most=1)[0].tolist()
    [[0, 2]]
    """
    lists, given = _lists(ids, scores)
    length, most = _length(k), as_int(at_most, "at_most")
    if most < 1:
        raise ValueError(f"at_most must be at least 1; got {most}")
    kinds = np.asarray(categories)
    if kinds.dtype.kind not in "iu" or kinds.ndim != 1:
        raise TypeError(
            f"categories must be integers of shape (n_items,); got {kinds.dtype} of {kinds.shape}"
        )
    if lists.max(initial=-1) >= len(kinds):
        raise IndexError(f"ids must be rows of categories ({len(kinds)}); got {lists.max()}")

    def choose(items: Ids, values: Float64) -> NDArray[np.intp]:
        of_items = kinds[items].astype(np.int64)
        order = np.argsort(of_items, kind="stable")
        first = np.searchsorted(of_items[order], of_items[order])
        rank = np.empty(len(items), np.intp)
        rank[order] = np.arange(len(items)) - first
        return np.flatnonzero((rank < most) | (of_items < 0))[:length]

    return _each(lists, given, length, choose)


@named("boost")
def boost(
    ids: ArrayLike,
    scores: ArrayLike,
    factors: ArrayLike,
    k: int = 10,
    *,
    how: str = "multiply",
    weight: float = 1.0,
) -> Lists:
    """Rank every list again by its scores and one more factor: nearness, freshness, margin.

    Parameters
    ----------
    ids : array-like of int of shape (n_queries, length)
        -1 for padding.
    scores : array-like of shape (n_queries, length)
        At least 0 for 'multiply': a factor of 2 would make a negative one worse.
    factors : array-like of shape (n_items,), (n_queries, n_items) or (n_queries, length)
        Per item; per query and item; or per entry of the lists. The last is taken where the shape
        is that of `ids`. At least 0 for 'multiply'.
    k : int, default=10
    how : {'multiply', 'add'}, default='multiply'
        The new score is ``score * factor ** weight`` or ``score + weight * factor``.
    weight : float, default=1.0

    Returns
    -------
    ids : ndarray of shape (n_queries, k), int32
        New score descending, then id ascending; -1 for padding.
    scores : ndarray of shape (n_queries, k), float32
        New scores, computed in float64; -inf for padding.

    Raises
    ------
    TypeError, ValueError, IndexError
        If shapes differ, or a number is outside its range.

    Examples
    --------
    >>> from recfuse.rerank import boost, distance_decay
    >>> near = distance_decay([0.2, 5.0], half_distance=1.0)  # kilometres to items 0 and 1
    >>> boost([[1, 0]], [[0.9, 0.6]], near, k=2)[0].tolist()
    [[0, 1]]
    """
    lists, given = _lists(ids, scores)
    length, power = _length(k), as_float(weight, "weight")
    if how not in ("multiply", "add"):
        raise ValueError(f"how must be 'multiply' or 'add'; got {how!r}")
    values = np.asarray(factors, np.float64)
    if values.shape != lists.shape:
        if values.ndim not in (1, 2) or values.shape[:-1] not in ((), (len(lists),)):
            raise ValueError(
                f"factors must have shape (n_items,), ({len(lists)}, n_items) or {lists.shape}; "
                f"got {values.shape}"
            )
        if lists.max(initial=-1) >= values.shape[-1]:
            raise IndexError(f"ids must be in [0, {values.shape[-1]}); got {lists.max()}")
        rows = np.arange(len(lists))[:, None]
        values = values[lists] if values.ndim == 1 else values[rows, lists]
    listed = lists >= 0
    if not np.isfinite(values[listed]).all():
        raise ValueError("factors must be finite for listed items; got NaN or infinity")
    if how == "multiply":
        for name, x in (("scores", given[listed]), ("factors", values[listed])):
            if x.min(initial=0) < 0:
                raise ValueError(f"{name} must be at least 0 to multiply; got {x.min()}")
        new = given * np.where(listed, values, 1.0) ** power
    else:
        new = given + power * np.where(listed, values, 0.0)

    def choose(items: Ids, values: Float64) -> NDArray[np.intp]:
        return np.lexsort((items, -values.astype(np.float32)))[:length]

    return _each(lists, new, length, choose)


@named("distance_decay")
def distance_decay(distances: ArrayLike, half_distance: float) -> Float64:
    r"""Return factors :math:`2^{-d / h}`: 1 here, a half at `half_distance` h, 0 at infinity.

    Parameters
    ----------
    distances : array-like of float
        At least 0, in any unit; such as great-circle kilometres.
    half_distance : float
        Above 0, in the same unit; infinity counts all places alike.

    Returns
    -------
    ndarray of float64, in the shape of `distances`

    Raises
    ------
    ValueError
        If a number is outside its range.
    """
    d, half = np.asarray(distances, np.float64), half_life_of(half_distance, "half_distance")
    if np.isnan(d).any():
        raise ValueError(
            "distances must be known; got NaN: decide for places that are not, for example with "
            "np.nan_to_num(distances, nan=np.inf), which counts them as infinitely far"
        )
    if (d < 0).any():
        raise ValueError(f"distances must be at least 0; got {d.min()}")
    return fading(d, half)


def _lists(ids: Any, scores: Any) -> tuple[Ids, Float64]:
    """Return ids and scores as matrices of one shape; scores are finite where there is an item."""
    lists, given = np.asarray(ids), np.asarray(scores, np.float64)
    if lists.dtype.kind not in "iu":
        raise TypeError(f"ids must be integers; got dtype {lists.dtype}")
    if lists.ndim != 2 or lists.shape != given.shape:
        raise ValueError(
            f"ids must have shape (n_queries, length) like scores; got {lists.shape} and "
            f"{given.shape}"
        )
    if lists.min(initial=0) < -1 or lists.max(initial=0) > np.iinfo(np.int32).max:
        raise IndexError(f"ids must be items, or -1; got {lists.min()} to {lists.max()}")
    if not np.isfinite(given[lists >= 0]).all():
        raise ValueError("scores must be finite where there is an item; got NaN or infinity")
    return lists.astype(np.int32), given


def _length(k: Any) -> int:
    if as_int(k, "k") < 1:
        raise ValueError(f"k must be at least 1; got {k}")
    return int(k)


def _each(lists: Ids, given: Float64, k: int, choose: Any) -> Lists:
    """Return for every list the entries at the positions that `choose` returns, padded to k."""
    out = np.full((len(lists), k), -1, np.int32)
    scores = np.full((len(lists), k), -np.inf, np.float32)
    for row, (items, values) in enumerate(zip(lists, given, strict=True)):
        here = items >= 0
        items, values = items[here], values[here]
        if len(items) == 0:
            continue
        if len(np.unique(items)) != len(items):
            raise ValueError(f"ids must not repeat in a list; got row {row}: {items.tolist()}")
        picked = choose(items, values)
        out[row, : len(picked)] = items[picked]
        scores[row, : len(picked)] = values[picked]
    return out, scores
