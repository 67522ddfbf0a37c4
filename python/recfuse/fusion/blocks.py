"""The modalities of a recommender: item vectors, and queries whose products are z-scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

__all__ = [
    "Block",
    "BlockQueries",
    "ContentBlock",
    "FactorBlock",
    "NeighbourBlock",
    "PopularityBlock",
]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Users = NDArray[np.int64]


@dataclass(frozen=True)
class BlockQueries:
    """What a batch of users asks of one modality.

    ``<vectors[u], item_vectors[i]>`` is the z-score of item i, plus ``entries[u, i] * scale[u]``
    where a modality has sparse entries.
    """

    vectors: Float32
    entries: sp.csr_array | None = None
    scale: Float64 | None = None

    def tells(self) -> NDArray[np.bool_]:
        """Whether the modality tells one item from another for a user."""
        return np.asarray(self.vectors.any(axis=1))


class Block(Protocol):
    """One modality of a fitted recommender."""

    present: NDArray[np.bool_]  # (n_items,)
    item_vectors: Float32  # (n_items, dim)

    def queries(self, users: Users, history: sp.csr_array) -> BlockQueries:
        """Return the queries of `users`, whose interactions are the rows of `history`."""


class _ZScores:
    """Turns inner products with items into z-scores over the items that are present.

    The mean and the variance of ``<q, x>`` come from the mean and the covariance of the item
    vectors, so no query needs a pass over the items. The mean travels in one more column: items
    get a 1 there, queries ``-mean / std``.
    """

    def __init__(self, items: Float32, present: NDArray[np.bool_]) -> None:
        rows = items[present].astype(np.float64)
        self.mean = rows.mean(axis=0) if len(rows) else np.zeros(items.shape[1])
        self.covariance = (rows - self.mean).T @ (rows - self.mean) / max(len(rows), 1)

    @staticmethod
    def extend(items: Float32) -> Float32:
        return np.hstack([items, np.ones((len(items), 1), np.float32)])

    def queries(self, queries: Float32) -> Float32:
        q = queries.astype(np.float64)
        variance = np.einsum("ij,ij->i", q @ self.covariance, q)
        # Rounding leaves a little variance where there is none, so "none" is relative to the norms.
        largest = np.einsum("ij,ij->i", q, q) * np.trace(self.covariance)
        tells = variance > 1e-12 * largest
        scale = np.where(tells, 1 / np.sqrt(np.where(tells, variance, 1)), 0)
        scaled = q * scale[:, None]
        return np.hstack([scaled, -(scaled @ self.mean)[:, None]]).astype(np.float32)


class FactorBlock:
    """A factorisation: inner products of factors, and item biases; untouched items have none."""

    def __init__(self, model: Any, touched: NDArray[np.bool_]) -> None:
        self.present = touched
        items, self._users = model.item_factors_, model.user_factors_
        biases = getattr(model, "item_biases_", None)
        if biases is not None and biases.any():
            # What a user adds to every item is gone after standardising; what an item adds is not.
            items = np.hstack([items, biases[:, None]])
            self._users = np.hstack([self._users, np.ones((len(self._users), 1), np.float32)])
        self.item_vectors = _ZScores.extend(items)
        self._zscores = _ZScores(items, touched)

    def queries(self, users: Users, history: sp.csr_array) -> BlockQueries:
        return BlockQueries(self._zscores.queries(self._users[users]))


class NeighbourBlock:
    """Scores from similar items: sparse, and one column for the items that no neighbour reaches."""

    def __init__(self, model: Any, touched: NDArray[np.bool_]) -> None:
        self.present = touched
        self.item_vectors = np.ones((len(touched), 1), np.float32)
        self._model = model

    def queries(self, users: Users, history: sp.csr_array) -> BlockQueries:
        entries = self._model.score(history)
        n = max(int(self.present.sum()), 1)
        mean = np.asarray(entries.sum(axis=1)).ravel() / n
        variance = np.asarray(entries.multiply(entries).sum(axis=1)).ravel() / n - mean**2
        tells = variance > 0
        scale = np.where(tells, 1 / np.sqrt(np.where(tells, variance, 1)), 0)
        return BlockQueries((-mean * scale).astype(np.float32)[:, None], entries, scale)


class PopularityBlock:
    """The logarithm of how many users an item has, the same for everyone."""

    def __init__(self, counts: NDArray[np.int64]) -> None:
        logs = np.log1p(counts).astype(np.float32)[:, None]
        self.present = counts > 0
        self.item_vectors = _ZScores.extend(logs)
        self._zscores = _ZScores(logs, self.present)

    def queries(self, users: Users, history: sp.csr_array) -> BlockQueries:
        return BlockQueries(self._zscores.queries(np.ones((len(users), 1), np.float32)))


class ContentBlock:
    """Cosine between an item and the mean of a user's history, around the mean of all items.

    What all items have in common says nothing about any of them, and encoders give it most of the
    norm; so it is subtracted first.
    """

    def __init__(
        self,
        items: Float32,
        present: NDArray[np.bool_],
        mean: Float64,
        users: Float32 | None = None,
    ) -> None:
        self.items = items  # centred, of length 1
        self.present = present
        self.mean = mean
        self.users = users
        self.item_vectors = _ZScores.extend(items)
        self._zscores = _ZScores(items, present)

    @classmethod
    def fit(
        cls, vectors: Float32, present: NDArray[np.bool_], users: Float32 | None = None
    ) -> ContentBlock:
        """Learn the mean of the present vectors and subtract it."""
        rows = vectors[present].astype(np.float64)
        mean = rows.mean(axis=0) if len(rows) else np.zeros(vectors.shape[1])
        return cls(_centred(vectors, present, mean), present, mean, users)

    def state(self) -> dict[str, Any]:
        """Return the arguments that make this block."""
        return {
            "items": self.items,
            "present": self.present,
            "mean": self.mean,
            "users": self.users,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> ContentBlock:
        """Make the block that `state` described."""
        return cls(**state)

    @property
    def dim(self) -> int:
        return int(self.items.shape[1])

    def queries(self, users: Users, history: sp.csr_array) -> BlockQueries:
        if self.users is not None:
            return BlockQueries(self._zscores.queries(self.users[users]))
        profiles = history.astype(np.float64) @ self.items.astype(np.float64)
        return BlockQueries(self._zscores.queries(unit_rows(profiles)))

    def vectors_of_new_items(self, vectors: Float32, present: NDArray[np.bool_]) -> Float32:
        """Return item vectors of items that `fit` has not seen, in the same space."""
        return _ZScores.extend(_centred(vectors, present, self.mean))


def _centred(vectors: Float32, present: NDArray[np.bool_], mean: Float64) -> Float32:
    out = np.zeros(vectors.shape, np.float32)
    out[present] = unit_rows(vectors[present].astype(np.float64) - mean)
    return out


def unit_rows(x: Float64) -> Float32:
    """Return the rows of `x` at length 1; zero rows stay."""
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    unit: Float64 = np.divide(x, norms, out=np.zeros_like(x), where=norms > 0)
    return unit.astype(np.float32)


def presence_of(vectors: Float32) -> NDArray[np.bool_]:
    """Return which rows are vectors: a row of zeros or with a NaN counts as missing."""
    return np.asarray(np.isfinite(vectors).all(axis=1) & vectors.any(axis=1))
