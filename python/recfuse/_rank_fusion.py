"""Reciprocal rank fusion: the lists of several modalities, merged by rank."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recfuse._inputs import as_filters, as_float, as_int, as_num_threads
from recfuse._merge import best_of, check_weights

if TYPE_CHECKING:
    from recfuse.index import FusedIndex

__all__ = ["rank_fusion"]

_ENTRIES = 1 << 22  # of lists that are merged together


def rank_fusion(
    index: FusedIndex,
    queries: dict[str, NDArray[np.float32]],
    weights: NDArray[np.float64],
    k: int,
    *,
    depth: Any,
    rank_constant: Any,
    exclude: Any,
    allow: Any,
) -> tuple[NDArray[Any], ...]:
    """Return ids, scores and terms of ``sum_m w_m / (c + rank_m)`` over lists of `depth` items."""
    depth, constant = as_int(depth, "depth"), as_float(rank_constant, "rank_constant")
    k = as_int(k, "k")
    if k < 1:
        raise ValueError(f"fuse_topk: k must be at least 1; got {k}")
    if depth < 1:
        raise ValueError(f"fuse_topk: depth must be at least 1; got {depth}")
    if not (constant >= 0 and np.isfinite(constant)):
        raise ValueError(
            f"fuse_topk: rank_constant must be finite and at least 0; got {rank_constant}"
        )
    depth = min(depth, max(index.n_items, 1))
    n_queries, n_modalities = len(next(iter(queries.values()))), len(queries)
    weights = np.broadcast_to(weights, (n_queries, n_modalities))
    check_weights(weights, list(queries))
    filters = as_filters(exclude, allow)
    lists = np.stack(
        [
            index._alone(name).topk(
                [q],
                np.ones((1, 1)),
                depth,
                fusion="sum",
                missing="renormalise",
                **filters,
                contributions=False,
                num_threads=as_num_threads(index._num_threads),
            )[0]
            for name, q in queries.items()
        ],
        axis=1,
    )
    ids = np.full((n_queries, k), -1, np.int32)
    scores = np.full((n_queries, k), -np.inf, np.float32)
    terms = np.zeros((n_queries, k, n_modalities))
    divisors = constant + np.arange(1.0, depth + 1)
    step = max(1, _ENTRIES // (n_modalities * depth))
    for first in range(0, n_queries, step):
        part = slice(first, first + step)
        merged = _merged(lists[part], weights[part], divisors, k)
        width = merged[0].shape[1]
        ids[part, :width], scores[part, :width], terms[part, :width] = merged
    return ids, scores, terms


def _merged(
    lists: NDArray[np.int32], weights: NDArray[np.float64], divisors: NDArray[np.float64], k: int
) -> tuple[NDArray[Any], ...]:
    """Return the k best ids of lists (n_queries, n_modalities, depth), scores and terms."""
    n_queries, n_modalities, depth = lists.shape
    gains = (weights[:, :, None] / divisors).reshape(n_queries, -1)
    used = (lists >= 0) & (weights[:, :, None] != 0)
    ids = np.where(used, lists, -1).reshape(n_queries, -1)
    # Entries of one item side by side, those of the first modality first: sums have their order.
    order = np.argsort(ids.view(np.uint32), axis=1, kind="stable")
    rows = np.arange(n_queries)[:, None]
    ids, gains, modality = ids[rows, order], gains[rows, order], order // depth
    follows = np.zeros(ids.shape, bool)  # the same item as the entry before
    follows[:, 1:] = ids[:, 1:] == ids[:, :-1]
    total = gains.copy()
    for step in range(1, n_modalities):
        same = ids[:, step:] == ids[:, :-step]
        total[:, :-step] += np.where(same, gains[:, step:], 0)
    first = np.where(follows | (ids < 0), -1, ids)
    scores = np.where(first < 0, -np.inf, total).astype(np.float32)
    places = np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
    best, scores, places = best_of(first, scores, places, k=min(k, ids.shape[1]))
    terms = np.zeros((*best.shape, n_modalities))
    for step in range(n_modalities):
        at = np.minimum(places + step, ids.shape[1] - 1)
        same = (best >= 0) & (ids[rows, at] == best) & (places + step < ids.shape[1])
        q, i = np.nonzero(same)
        terms[q, i, modality[q, at[q, i]]] = gains[q, at[q, i]]
    return best, scores, terms
