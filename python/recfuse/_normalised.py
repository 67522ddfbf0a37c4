"""Sums of similarities that every query puts on one scale first: z-scores, or from 0 to 1."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recfuse._inputs import as_csr, as_ids, check_ids, is_sparse
from recfuse._merge import best_of, check_weights
from recfuse._moments import Moments

if TYPE_CHECKING:
    from recfuse.index import FusedIndex

__all__ = ["normalised_topk"]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Flags = NDArray[np.bool_]
Queries = dict[str, Float32]
Lists = tuple[NDArray[Any], ...]  # ids, scores, terms


def normalised_topk(
    index: FusedIndex,
    queries: Queries,
    weights: Float64,
    k: int,
    *,
    normalise: str,
    fusion: str,
    missing: str,
    exclude: Any,
    allow: Any,
) -> Lists:
    """Return ids, scores and terms of ``sum_P w_m f (s_m - centre_m) / spread_m``.

    Centre and spread are a query's own, so they are folded into its weights, and what is left of
    the centres is one number for all items that have the same modalities: the weight of one more
    modality, in which every similarity is 1. The compiled search then ranks these very scores.
    """
    _check_choice(normalise, fusion, missing)
    n_queries = len(next(iter(queries.values())))
    weights = np.broadcast_to(weights, (n_queries, len(queries)))
    check_weights(weights, list(queries))
    centres, spreads = _centres_and_spreads(index, queries, normalise)
    best: Lists | None = None
    for present, ids_of_pattern in _patterns(index):
        factor = _factors(weights, present, fusion, missing)
        lists = _search(
            index,
            queries,
            _folded(weights * present, factor, spreads),
            centres,
            k,
            exclude,
            _within(allow, ids_of_pattern, index.n_items),
        )
        lists[0][factor == 0], lists[1][factor == 0], lists[2][factor == 0] = -1, -np.inf, 0
        if best is not None:
            pairs = zip(best, lists, strict=True)
            lists = best_of(*(np.concatenate(pair, axis=1) for pair in pairs), k=k)
        best = lists
    assert best is not None
    return best


def _check_choice(normalise: str, fusion: str, missing: str) -> None:
    if normalise not in _SCALES:
        raise ValueError(
            f"fuse_topk: normalise must be one of {tuple(_SCALES)} or None; got {normalise!r}"
        )
    if fusion not in ("sum", "average"):
        raise ValueError(
            f"fuse_topk: fusion must be 'sum' or 'average' where normalise is given; got {fusion!r}"
        )
    if missing not in ("renormalise", "zero"):
        raise ValueError(
            f"fuse_topk: missing must be one of 'renormalise', 'zero'; got {missing!r}"
        )


def _centres_and_spreads(
    index: FusedIndex, queries: Queries, normalise: str
) -> tuple[Float64, Float64]:
    """Return both as (n_queries, n_modalities); a spread of 0 where similarities do not differ.

    A query that is not finite in a modality stays as it is there: its similarities are none.
    """
    columns = []
    for name, q in queries.items():
        finite = np.isfinite(q).all(axis=1)
        centre, spread = np.zeros(len(q)), np.ones(len(q))
        centre[finite], spread[finite] = _SCALES[normalise](index, name, q[finite])
        columns.append((centre, np.where(np.isfinite(centre) & np.isfinite(spread), spread, 0)))
    centres, spreads = (np.stack(column, axis=1) for column in zip(*columns, strict=True))
    return np.where(spreads > 0, centres, 0), spreads


def _zscores(index: FusedIndex, name: str, queries: Float32) -> tuple[Float64, Float64]:
    moments: Moments = index._made_once(
        f"moments of {name}",
        lambda: Moments.of(index._items[name], index._presence_of(name), index._metric),
    )
    return moments.spread(queries, index._metric)


def _extremes(index: FusedIndex, name: str, queries: Float32) -> tuple[Float64, Float64]:
    """Return the least similarity and the range: of the negated query, the least is the best."""
    both = np.concatenate([queries, -queries])
    best = index._alone(name).topk(
        [both],
        np.ones((1, 1)),
        1,
        fusion="sum",
        missing="renormalise",
        exclude=None,
        allow=None,
        allow_ids=None,
        contributions=False,
        num_threads=index._num_threads,
    )[1]
    largest, least = np.split(best[:, 0].astype(np.float64), 2)
    return -least, largest + least


_SCALES: dict[str, Callable[[FusedIndex, str, Float32], tuple[Float64, Float64]]] = {
    "zscore": _zscores,
    "minmax": _extremes,
}


def _patterns(index: FusedIndex) -> list[tuple[Flags, NDArray[np.int64] | None]]:
    """Return which modalities items have, and the ids of those items; None for all."""
    if index._present is None or index.n_items == 0:
        return [(np.ones(len(index.modalities), bool), None)]
    # Looking at every item would take longer than a search for one query.
    found: list[tuple[Flags, NDArray[np.int64] | None]] = index._made_once(
        "patterns", lambda: _found_patterns(np.asarray(index._present, np.bool_))
    )
    return found


def _found_patterns(here: Flags) -> list[tuple[Flags, NDArray[np.int64] | None]]:
    patterns, group = np.unique(here, axis=0, return_inverse=True)
    if len(patterns) == 1:
        return [(patterns[0], None)]
    return [(row, np.flatnonzero(group.reshape(-1) == i)) for i, row in enumerate(patterns)]


def _factors(weights: Float64, present: Flags, fusion: str, missing: str) -> Float64:
    """Return per query what multiplies the terms of items that have `present`; 0: not ranked."""
    every, here = _sum_in_order(np.abs(weights)), _sum_in_order(np.abs(weights) * present)
    base = here if missing == "renormalise" else every
    one = np.ones(len(weights)) if fusion == "average" else every
    factor = np.divide(one, base, out=np.zeros(len(weights)), where=base > 0)
    return np.where(base == every, 1, factor) if fusion == "sum" else factor


def _sum_in_order(columns: Float64) -> Float64:
    total = np.zeros(len(columns))
    for column in columns.T:
        total = total + column
    return total


def _folded(weights: Float64, factor: Float64, spreads: Float64) -> Float64:
    """Return what similarities are multiplied with: ``w / spread * factor``, 0 without a spread."""
    scaled = np.divide(weights, spreads, out=np.zeros(weights.shape), where=spreads > 0)
    return scaled * factor[:, None]


def _search(
    index: FusedIndex,
    queries: Queries,
    weights: Float64,
    centres: Float64,
    k: int,
    exclude: Any,
    allow: Any,
) -> Lists:
    """Search with folded weights; terms come back less their part of the centres."""
    offsets = weights * centres
    constant = -_sum_in_order(offsets)[:, None]
    # Where nothing tells items from one another all score 0: the constant counts, and is 0.
    silent = (weights == 0).all(axis=1) & (constant[:, 0] == 0)
    ones = np.where(silent, 0, 1).astype(np.float32)[:, None]
    constant[silent] = 1
    ids, scores, terms = index._search(
        [*queries.values(), ones],
        np.hstack([weights, constant]),
        k,
        fusion="sum",
        missing="zero",
        exclude=exclude,
        allow=allow,
        contributions=True,
        handle=index._with_constant(),
    )
    return ids, scores, np.where(ids[:, :, None] < 0, 0, terms[:, :, :-1] - offsets[:, None, :])


def _within(allow: Any, ids: NDArray[np.int64] | None, n_items: int) -> Any:
    """Return the allow-list of a caller, of the items `ids` alone."""
    if ids is None or allow is None:
        return allow if ids is None else ids
    mask = np.zeros(n_items, bool)
    mask[ids] = True
    if not is_sparse(allow):
        chosen = check_ids(as_ids(allow, "allow"), n_items, "allow")
        return chosen[mask[chosen]]
    csr = as_csr(allow, "allow")
    kept = csr.copy()
    kept.data = (mask[csr.indices]).astype(np.float32)
    kept.eliminate_zeros()
    return kept
