"""Metrics of ranked lists that need more than hits: values, vectors or scores of items."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recfuse._index_ranks import PairRanks

Float64 = NDArray[np.float64]
Ids = NDArray[np.int64]
Mask = NDArray[np.bool_]


def last_ranks(at: tuple[int, ...], n_ranks: int) -> list[int]:
    """Return the position of the last rank within each cut-off."""
    return [min(k, n_ranks) - 1 for k in at]


def novelty(ids: Ids, recommended: Mask, surprise: Float64, at: tuple[int, ...]) -> Float64:
    """Return the mean surprise of what each user is recommended, (n_users, n_cut_offs)."""
    last = last_ranks(at, ids.shape[1])
    total = np.cumsum(np.where(recommended, surprise[ids], 0.0), axis=1)[:, last]
    return _ratio(total, np.cumsum(recommended, axis=1)[:, last])


def of_values(
    ids: Ids, hits: Mask, truth: sp.csr_array, values: Float64, at: tuple[int, ...]
) -> dict[str, Float64]:
    """Return the metrics that count a hit by the value of its item."""
    last = last_ranks(at, ids.shape[1])
    gains = np.where(hits, values[ids], 0.0)
    found = np.cumsum(gains, axis=1)[:, last]
    dcg = np.cumsum(gains * _discount(np.arange(ids.shape[1])), axis=1)[:, last]
    rows = np.repeat(np.arange(truth.shape[0]), np.diff(truth.indptr))
    wanted = values[truth.indices]
    order = np.lexsort((-wanted, rows))  # the best list of each user, one after the other
    best = wanted[order]
    rank = np.arange(len(best)) - truth.indptr[rows].astype(np.int64)
    total = np.bincount(rows, weights=best, minlength=len(ids))[:, None]
    ideal = np.stack(
        [
            np.bincount(rows, weights=best * _discount(rank) * (rank < k), minlength=len(ids))
            for k in at
        ],
        axis=1,
    )
    return {
        "value": found,
        "value_recall": _ratio(found, np.broadcast_to(total, found.shape)),
        "value_ndcg": _ratio(dcg, ideal),
    }


def diversity(ids: Ids, recommended: Mask, units: Float64, at: tuple[int, ...]) -> Float64:
    """Return the mean of 1 - cosine over pairs of recommended items that have a vector.

    `units` has rows of length 1, or of zeros where an item has no vector.
    """
    any_vector: Mask = np.asarray(units.any(axis=1))
    has_vector = recommended & any_vector[ids]
    # The cosines of an item with all before it are its product with their sum: no pair is visited.
    so_far = np.zeros((len(ids), units.shape[1]))
    similar = np.zeros(ids.shape)
    for rank in range(ids.shape[1]):
        vectors = np.where(has_vector[:, rank, None], units[ids[:, rank]], 0.0)
        similar[:, rank] = np.einsum("ij,ij->i", so_far, vectors)
        so_far += vectors
    last = last_ranks(at, ids.shape[1])
    n = np.cumsum(has_vector, axis=1)[:, last]
    pairs = n * (n - 1) / 2
    return _ratio(pairs - np.cumsum(similar, axis=1)[:, last], pairs)


def auc(
    ids: Ids, scores: Float64, hits: Mask, n_positive: NDArray[Any], n_candidates: NDArray[Any]
) -> Float64:
    """Return the AUC of each user from whole rankings; items that are missing in them tie below."""
    return np.array(
        [
            _auc_of_user(row[listed := i >= 0], h[listed], int(p), int(c))
            for i, row, h, p, c in zip(ids, scores, hits, n_positive, n_candidates, strict=True)
        ]
    )


def _auc_of_user(scores: Float64, hits: Mask, n_positive: int, n_candidates: int) -> float:
    n_negative = n_candidates - n_positive
    if n_negative == 0:
        return np.nan
    negatives = np.concatenate([[0], np.cumsum(~hits)])  # in the first j of the list
    falling = -scores
    above = negatives[np.searchsorted(falling, falling[hits], side="left")]
    not_below = negatives[np.searchsorted(falling, falling[hits], side="right")]
    won = (n_negative - (above + not_below) / 2).sum()  # a tie is half a win
    unlisted = n_positive - len(falling[hits])
    won += unlisted * (n_negative - negatives[-1]) / 2
    return float(won / (n_positive * n_negative))


def auc_of_ranks(
    ranks: PairRanks, truth: sp.csr_array, n_candidates: NDArray[Any]
) -> NDArray[np.float64]:
    """Return the same from the ranks of the test items, those of `truth`; nothing is rounded."""
    n_positive = np.diff(truth.indptr).astype(np.int64)
    n_negative = n_candidates - n_positive
    rows = np.repeat(np.arange(truth.shape[0]), n_positive)
    listed = ranks.rank > 0
    user, first, last = rows[listed], ranks.first[listed], ranks.last[listed]
    n_listed = np.bincount(user, minlength=truth.shape[0])
    # Of the items before and beside a test item some are test items: those of its user, by rank.
    order = np.lexsort((first, user))
    keys = user.astype(np.int64)[order] << 32 | first[order]
    own = np.cumsum(n_listed)[user[order]] - n_listed[user[order]]  # where the user's begin
    before = np.searchsorted(keys, keys, side="left") - own
    until = np.searchsorted(keys, keys, side="right") - own
    lost = (first[order] - 1.0 - before + last[order] - until) / 2  # a tie is half a win
    won = n_listed * n_negative - np.bincount(user[order], weights=lost, minlength=truth.shape[0])
    unlisted_negative = n_negative - (ranks.n_ranked - n_listed)
    won += (n_positive - n_listed) * unlisted_negative / 2
    return _ratio(won, (n_positive * n_negative).astype(np.float64))


def gini(counts: NDArray[np.int64], n_items: int) -> float:
    """Return the Gini coefficient of how often each of `n_items` items is recommended."""
    listed = np.sort(counts[counts > 0])  # all others are zeros before them
    if not len(listed):
        return np.nan
    if n_items == 1:
        return 0.0
    rank = np.arange(n_items - len(listed) + 1, n_items + 1, dtype=np.float64)
    return float(((2 * rank - n_items - 1) * listed).sum() / ((n_items - 1) * listed.sum()))


def _discount(rank: NDArray[Any]) -> Float64:
    result: Float64 = 1 / np.log2(rank + 2.0)  # ranks from 0
    return result


def _ratio(above: NDArray[Any], below: NDArray[Any]) -> Float64:
    # Undefined for a user where there is nothing to divide by; the means leave such users out.
    result: Float64 = np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)
    return result
