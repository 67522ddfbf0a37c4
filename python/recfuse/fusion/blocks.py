"""The modalities of a recommender: item vectors, and queries whose products are z-scores."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recfuse._sparse import product
from recfuse.fusion._zscores import ZScores
from recfuse.fusion.factor_map import FactorMap

__all__ = [
    "Block",
    "BlockQueries",
    "ContentBlock",
    "FactorBlock",
    "NeighbourBlock",
    "PopularityBlock",
    "UserNeighbourBlock",
]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Users = NDArray[np.int64]
_WARM = 5  # interactions of an item whose factors are worth learning from


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

    @property
    def item_vectors(self) -> Float32:
        """Of shape (n_items, dim)."""

    def queries(self, users: Users, history: sp.csr_array) -> BlockQueries:
        """Return the queries of `users`, whose interactions are the rows of `history`."""

    def shares(self, user: int, history: sp.csr_array, item: int) -> Float64 | None:
        """Return what every entry of the user's history adds to the z-score of an item.

        None for a modality that does not go by the history.
        """

    def asked_with(self, vectors: Float32 | None) -> Block:
        """Return this block for other users: row u of the vectors is that of user u.

        None where their histories say what they ask for.
        """


def _zscores_of(block: Block | None) -> ZScores | None:
    return getattr(block, "_zscores", None)


class FactorBlock:
    """A factorisation: inner products of factors, and item biases; untouched items have none.

    With a map from content to factors, an item of n interactions gets
    ``n / (n + c)`` of what it learned and ``c / (n + c)`` of what the map says.
    """

    def __init__(
        self,
        model: Any,
        counts: NDArray[np.int64],
        content: Mapping[str, ContentBlock] | None = None,
        c: float | None = None,
        before: Block | None = None,
    ) -> None:
        self.model = model
        self.present = counts > 0
        self.map: FactorMap | None = None
        items, self.users = model.item_factors_, model.user_factors_
        biases = getattr(model, "item_biases_", None)
        # What a user adds to every item is gone after standardising; what an item adds is not.
        self.biased = biases is not None and bool(biases.any())
        if biases is not None and self.biased:
            items = np.hstack([items, biases[:, None]])
        warm = counts >= _WARM
        if content and c is not None and warm.sum() > 1:
            vectors = {name: block.items for name, block in content.items()}
            self.map = FactorMap().fit({m: x[warm] for m, x in vectors.items()}, items[warm])
            described = np.any([block.present for block in content.values()], axis=0)
            learned = np.where(described, counts / (counts + c), 1.0)[:, None]
            items = (learned * items + (1 - learned) * self.map.predict(vectors)).astype(np.float32)
            self.present = self.present | described
        self._zscores = ZScores(items, self.present, _zscores_of(before))
        self.item_vectors = self._zscores.item_vectors

    def queries(self, users: Users, history: sp.csr_array) -> BlockQueries:
        return BlockQueries(self._zscores.queries(self._vectors(users)))

    def _vectors(self, users: Users) -> Float32:
        rows = self.users[users]
        return np.hstack([rows, np.ones((len(rows), 1), np.float32)]) if self.biased else rows

    def asked_with(self, vectors: Float32 | None) -> FactorBlock:
        other = copy.copy(self)
        if vectors is not None:
            other.users = vectors
        return other

    def new_items(self, vectors: Mapping[str, Float32]) -> Float32:
        """Return item vectors of items that the catalogue does not have, by the map."""
        assert self.map is not None
        return ZScores.extend(self.map.predict(vectors))

    def shares(self, user: int, history: sp.csr_array, item: int) -> Float64 | None:
        if not hasattr(self.model, "user_parts"):
            return None
        scale = self._zscores.scale(self._vectors(np.array([user])).astype(np.float64))
        parts = self.model.user_parts(history)[:, : self.users.shape[1]]
        if self.biased:
            parts = np.hstack([parts, np.zeros((len(parts), 1))])
        scaled = self._zscores.scaled(parts, scale)
        return np.asarray(scaled @ self.item_vectors[item].astype(np.float64))


class NeighbourBlock:
    """Scores from similar items: sparse, and one column for the items that no neighbour reaches."""

    def __init__(self, model: Any, touched: NDArray[np.bool_]) -> None:
        self.present = touched
        self._n_present = max(int(touched.sum()), 1)
        self.item_vectors = np.ones((len(touched), 1), np.float32)
        self._model = model

    def _entries(self, users: Users, history: sp.csr_array) -> sp.csr_array:
        return self._model.score(history)

    def queries(self, users: Users, history: sp.csr_array) -> BlockQueries:
        entries = self._entries(users, history)
        mean = _row_sums(entries, entries.data) / self._n_present
        variance = _row_sums(entries, entries.data**2) / self._n_present - mean**2
        tells = variance > 0
        scale = np.where(tells, 1 / np.sqrt(np.where(tells, variance, 1)), 0)
        return BlockQueries((-mean * scale).astype(np.float32)[:, None], entries, scale)

    def asked_with(self, vectors: Float32 | None) -> NeighbourBlock:
        return self

    def shares(self, user: int, history: sp.csr_array, item: int) -> Float64 | None:
        scale = self.queries(np.array([user]), history).scale
        assert scale is not None
        rows = self._model.similarity_[history.indices].astype(np.float64)
        mean = np.asarray(rows.sum(axis=1)).ravel() / self._n_present
        near = rows[:, [item]].toarray().ravel()
        return np.asarray(history.data.astype(np.float64) * (near - mean) * scale[0])


def _row_sums(entries: sp.csr_array, values: Float64) -> Float64:
    """Return the sums of values that belong to the entries of a matrix, by row."""
    sums = np.zeros(entries.shape[0])
    filled = np.flatnonzero(np.diff(entries.indptr))
    if len(filled):
        sums[filled] = np.add.reduceat(values, entries.indptr[filled])
    return sums


class UserNeighbourBlock(NeighbourBlock):
    """Scores from similar users; it says nothing to users who came after the fit."""

    _known = True

    def _entries(self, users: Users, history: sp.csr_array) -> sp.csr_array:
        return self._model.score_users(users) if self._known else sp.csr_array(history.shape)

    def asked_with(self, vectors: Float32 | None) -> UserNeighbourBlock:
        other = copy.copy(self)
        other._known = False
        return other

    def shares(self, user: int, history: sp.csr_array, item: int) -> Float64 | None:
        return None


class PopularityBlock:
    """The logarithm of how many users an item has, the same for everyone."""

    def __init__(self, counts: NDArray[np.int64]) -> None:
        logs = np.log1p(counts).astype(np.float32)[:, None]
        self.present = counts > 0
        self._zscores = ZScores(logs, self.present)
        self.item_vectors = self._zscores.item_vectors

    def queries(self, users: Users, history: sp.csr_array) -> BlockQueries:
        return BlockQueries(self._zscores.queries(np.ones((len(users), 1), np.float32)))

    def asked_with(self, vectors: Float32 | None) -> PopularityBlock:
        return self

    def shares(self, user: int, history: sp.csr_array, item: int) -> Float64 | None:
        return None


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
        before: ContentBlock | None = None,
    ) -> None:
        self.items = items  # centred, of length 1
        self.present = present
        self.mean = mean
        self.users = users
        # One that nobody asked knows no more than the one before it.
        if before is not None and "_zscores" not in vars(before):
            before = before._before
        self._before: ContentBlock | None = before

    @functools.cached_property
    def _zscores(self) -> ZScores:
        """Made when it is asked for: a block of a mapped file looks at no item before."""
        before, self._before = self._before, None
        return ZScores(self.items, self.present, _zscores_of(before))

    @property
    def item_vectors(self) -> Float32:
        return self._zscores.item_vectors

    @classmethod
    def fit(
        cls, vectors: Float32, present: NDArray[np.bool_], users: Float32 | None = None
    ) -> ContentBlock:
        """Learn the mean of the present vectors and subtract it."""
        rows = vectors[present].astype(np.float64)
        mean = rows.mean(axis=0) if len(rows) else np.zeros(vectors.shape[1])
        return cls(_centred(vectors, present, mean), present, mean, users)

    def changed(self, items: Float32, present: NDArray[np.bool_]) -> ContentBlock:
        """Return the block of other items, around the same mean."""
        return ContentBlock(items, present, self.mean, self.users, self)

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
        return BlockQueries(self._zscores.queries(self.profiles(history)))

    def profiles(self, history: sp.csr_array) -> Float32:
        """Return the weighted mean of the items of every history, at length 1."""
        return unit_rows(product(history, self.items))

    def asked_with(self, vectors: Float32 | None) -> ContentBlock:
        other = copy.copy(self)
        other.users = vectors
        return other

    def shares(self, user: int, history: sp.csr_array, item: int) -> Float64 | None:
        if self.users is not None:
            return None
        parts = self.items[history.indices].astype(np.float64)
        parts *= history.data.astype(np.float64)[:, None]
        whole = parts.sum(axis=0)
        norm = np.linalg.norm(whole)
        if norm == 0:
            return np.zeros(len(parts))
        scale = self._zscores.scale(whole[None] / norm)
        scaled = self._zscores.scaled(parts / norm, scale)
        return np.asarray(scaled @ self.item_vectors[item].astype(np.float64))

    def vectors_of_new_items(self, vectors: Float32, present: NDArray[np.bool_]) -> Float32:
        """Return item vectors of items that `fit` has not seen, in the same space."""
        return ZScores.extend(_centred(vectors, present, self.mean))


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
