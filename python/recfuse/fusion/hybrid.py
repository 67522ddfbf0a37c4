"""Exact top-k over dense and sparse modalities together."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recfuse.fusion._patterns import (
    intersection,
    merge_lists,
    sums,
    union,
    values_at,
    without,
)
from recfuse.fusion.blocks import Block, BlockQueries
from recfuse.index import FusedIndex

__all__ = ["USERS_PER_BATCH", "HybridIndex", "ranked"]

Float64 = NDArray[np.float64]
USERS_PER_BATCH = 4096
Ranked = tuple[NDArray[np.int32], NDArray[np.float32], Float64]


class HybridIndex:
    """Blocks of modalities, searched by the weighted sum of their z-scores.

    Items to which a sparse modality gives something are scored one by one and left out of the
    dense search; the two lists, merged by the total order, are the exact answer.

    Parameters
    ----------
    blocks : mapping of str to Block
    fallback : str or None
        The modality that decides alone for a user about whom no weighted one tells anything.
    device, num_threads
    """

    def __init__(
        self,
        blocks: Mapping[str, Block],
        *,
        fallback: str | None,
        device: str = "auto",
        num_threads: int = 0,
    ) -> None:
        self.blocks = dict(blocks)
        self.fallback = fallback
        self._index = FusedIndex(
            {name: block.item_vectors for name, block in blocks.items()},
            metric="dot",
            present={name: block.present for name, block in blocks.items()},
            device=device,
            num_threads=num_threads,
        )

    def asked_with(self, vectors: Mapping[str, NDArray[np.float32]]) -> HybridIndex:
        """Return this index for other users; a modality without vectors goes by the history."""
        other = copy.copy(self)
        other.blocks = {m: block.asked_with(vectors.get(m)) for m, block in self.blocks.items()}
        return other

    def topk(
        self,
        users: NDArray[np.int64],
        history: sp.csr_array,
        k: int,
        weights: Mapping[str, Any],
        *,
        exclude: sp.csr_array | None = None,
        allow: Any = None,
    ) -> Ranked:
        """Return ids, scores and parts (n, k, n_modalities) for a batch of users."""
        queries, vectors, per_user = self._asked(users, history, weights)
        search: dict[str, Any] = {"weights": per_user, "contributions": True, "allow": allow}
        sparse = [q.entries for q in queries.values() if q.entries is not None]
        if not sparse:
            ids, scores, parts = self._index.topk(vectors, k, exclude=exclude, **search)
            return ids, scores, parts
        reached = functools.reduce(union, sparse)
        ids, _, parts = self._index.topk(vectors, k, exclude=union(reached, exclude), **search)
        pairs = without(reached, exclude)
        if allow is not None:
            pairs = intersection(pairs, allow)
        return merge_lists(ids, parts, pairs, self._parts(queries, vectors, per_user, pairs))

    def scores(
        self, users: NDArray[np.int64], history: sp.csr_array, weights: Mapping[str, Any]
    ) -> NDArray[np.float32]:
        """Return the scores (n, n_items) of all items; NaN for those that are not ranked."""
        shape = (len(users), self._index.n_items)
        pairs = sp.csr_array(np.ones(shape, np.float32))
        return sums(self._parts(*self._asked(users, history, weights), pairs)).reshape(shape)

    def _asked(
        self, users: NDArray[np.int64], history: sp.csr_array, weights: Mapping[str, Any]
    ) -> tuple[dict[str, BlockQueries], dict[str, NDArray[np.float32]], dict[str, Float64]]:
        """Return the queries of the modalities that are asked, vectors of all, and weights."""
        asked = [name for name in self.blocks if name == self.fallback or np.any(weights[name])]
        queries = {name: self.blocks[name].queries(users, history) for name in asked}
        vectors = {
            name: queries[name].vectors if name in queries else _nothing(block, len(users))
            for name, block in self.blocks.items()
        }
        return queries, vectors, self._weights_per_user(queries, weights, len(users))

    def _parts(
        self,
        queries: dict[str, BlockQueries],
        vectors: dict[str, NDArray[np.float32]],
        weights: dict[str, Float64],
        pairs: sp.csr_array,
    ) -> Float64:
        """Return the terms of the scores of pairs; NaN where an item is not ranked."""
        scores, parts = self._index.score_pairs(vectors, pairs, weights=weights)
        rows = _rows_of(pairs)
        factor = None
        for column, name in enumerate(self.blocks):
            if name not in queries or queries[name].entries is None:
                continue
            if factor is None:
                factor = self._presence_factor(rows, pairs.indices, weights)
            added = _sparse_zscores(queries[name], pairs, rows)
            parts[:, column] += _of_pairs(weights[name], rows) * factor * added
        parts[np.isnan(scores)] = np.nan
        return parts

    def zscores(
        self, users: NDArray[np.int64], history: sp.csr_array, pairs: sp.csr_array
    ) -> tuple[Float64, NDArray[np.bool_]]:
        """Return per pair and modality the z-score (0 if missing), and whether it is present."""
        queries = {name: block.queries(users, history) for name, block in self.blocks.items()}
        equal = dict.fromkeys(self.blocks, 1.0)
        vectors = {name: q.vectors for name, q in queries.items()}
        _, scores = self._index.score_pairs(vectors, pairs, weights=equal, missing="zero")
        rows = _rows_of(pairs)
        for column, query in enumerate(queries.values()):
            if query.entries is not None:
                scores[:, column] += _sparse_zscores(query, pairs, rows)
        present = [block.present[pairs.indices] for block in self.blocks.values()]
        return scores, np.stack(present, axis=1)

    def _weights_per_user(
        self, queries: dict[str, BlockQueries], weights: Mapping[str, Any], n_users: int
    ) -> dict[str, Float64]:
        per_user = {name: np.full(n_users, weights[name], np.float64) for name in self.blocks}
        if self.fallback is not None:
            known = np.zeros(n_users, bool)
            for name, query in queries.items():
                known |= query.tells() & (per_user[name] != 0)
            per_user[self.fallback][~known] = 1.0
        return per_user

    def _presence_factor(
        self, rows: NDArray[np.intp], items: NDArray[np.int32], weights: dict[str, Float64]
    ) -> Float64:
        """Return by how much the weights of an item grow for the modalities that it lacks."""
        total = np.zeros(len(items))
        here = np.zeros(len(items))
        for name, block in self.blocks.items():
            weight = np.abs(weights[name])
            if weight.any():
                of_pairs = _of_pairs(weight, rows)
                total += of_pairs
                here += of_pairs * block.present[items]
        return np.divide(total, here, out=np.zeros_like(total), where=here > 0)


def ranked(
    index: HybridIndex,
    users: NDArray[np.int64],
    history_of: Callable[[slice], sp.csr_array],
    k: int,
    weights: Mapping[str, Any],
    *,
    exclude_seen: bool,
    exclude: sp.csr_array | None,
    allow: Any,
) -> Ranked:
    """Return ids, scores and parts of any number of users, some at a time."""
    batches = []
    for begin in range(0, max(len(users), 1), USERS_PER_BATCH):
        rows = slice(begin, begin + USERS_PER_BATCH)
        history = history_of(rows)
        excluded = None if exclude is None else exclude[rows]
        if exclude_seen:
            excluded = history if excluded is None else union(history, excluded)
        batches.append(
            index.topk(
                users[rows],
                history,
                k,
                {name: w[rows] if np.ndim(w) else w for name, w in weights.items()},
                exclude=excluded,
                allow=allow[rows] if sp.issparse(allow) else allow,
            )
        )
    ids, scores, parts = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
    return ids, scores, parts


def _nothing(block: Block, n_users: int) -> NDArray[np.float32]:
    """Return the queries of a modality that has no weight."""
    return np.zeros((n_users, block.item_vectors.shape[1]), np.float32)


def _of_pairs(of_users: Float64, rows: NDArray[np.intp]) -> Float64:
    """Return the value of every pair's user; of a single user it is one that broadcasts."""
    return of_users if len(of_users) == 1 else of_users[rows]


def _rows_of(pairs: sp.csr_array) -> NDArray[np.intp]:
    return np.repeat(np.arange(pairs.shape[0]), np.diff(pairs.indptr))


def _sparse_zscores(query: BlockQueries, pairs: sp.csr_array, rows: NDArray[np.intp]) -> Float64:
    assert query.entries is not None and query.scale is not None
    return values_at(query.entries, pairs) * _of_pairs(query.scale, rows)
