"""Users between fits: what the query vectors of a history are, item vectors staying as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recfuse.fusion.blocks import unit_rows
from recfuse.service.asks import merged
from recfuse.serving.retriever import Retriever

__all__ = ["FactorFolding", "Folding", "MeanFolding", "RecommenderFolding"]

Float32 = NDArray[np.float32]
Shares = dict[str, list[tuple[int, float]]]
Changes = Sequence[Mapping[int, float]]


class Folding(Protocol):
    """How vectors come from histories."""

    name: str
    histories: sp.csr_array | None

    def knows(self, row: int | None) -> bool:
        """Whether the history of a user is there; one who is new has none."""

    def vectors(self, rows: Sequence[int | None], changes: Changes) -> dict[str, Float32]:
        """Return what users ask with, by modality of the search, a row each."""

    def asked(self, vectors: Mapping[str, Float32]) -> dict[str, Float32]:
        """Return the vectors of a request in the space of the search."""

    def dims(self) -> dict[str, int]:
        """Return how long the vectors of a request are."""

    def past(self, row: int | None, changes: Mapping[int, float], item: int) -> Shares:
        """Return what every item of the history adds to a score, by modality."""


class _WithHistories:
    """What foldings share that know a matrix of histories, or none."""

    histories: sp.csr_array | None
    n_items: int

    def knows(self, row: int | None) -> bool:
        return row is None or self.histories is not None

    def _merged(self, rows: Sequence[int | None], changes: Changes) -> sp.csr_array:
        return merged(self.histories, rows, changes, self.n_items)


class FactorFolding(_WithHistories):
    """Factors solved for by `AlternatingLeastSquares`."""

    name = "fold-in"

    def __init__(self, model: Any, histories: sp.csr_array | None, retriever: Retriever) -> None:
        self._model = model
        self.histories = histories
        self.n_items = retriever.n_items
        self._dims = retriever.dims

    def vectors(self, rows: Sequence[int | None], changes: Changes) -> dict[str, Float32]:
        folded: dict[str, Float32]
        folded = self._model._user_vectors(*self._model._fold_in(self._merged(rows, changes)))
        return folded

    def asked(self, vectors: Mapping[str, Float32]) -> dict[str, Float32]:
        return dict(vectors)

    def dims(self) -> dict[str, int]:
        return self._dims

    def past(self, row: int | None, changes: Mapping[int, float], item: int) -> Shares:
        if not self.knows(row):
            return {}
        _, shares = self._model.explain(self._merged([row], [changes]), item)
        return {"factors": shares}


class RecommenderFolding(_WithHistories):
    """What `MultimodalRecommender.recommend_new_users` takes a history for, as vectors."""

    name = "fold-in"

    def __init__(self, model: Any, retriever: Retriever) -> None:
        self._model = model
        self.histories = model.user_items_
        self.n_items = retriever.n_items
        self._names = retriever.modalities

    def vectors(self, rows: Sequence[int | None], changes: Changes) -> dict[str, Float32]:
        history = self._merged(rows, changes)
        folded = {
            name: unit_rows(block.model.fold_in(history).astype(np.float64))
            for name, block in self._blocks().items()
            if hasattr(getattr(block, "model", None), "fold_in")
        }
        return self._queries(folded, history)

    def asked(self, vectors: Mapping[str, Float32]) -> dict[str, Float32]:
        n = len(next(iter(vectors.values())))
        nothing = sp.csr_array((n, self.n_items), dtype=np.float32)
        found = self._queries(vectors, nothing)
        return {name: found[name] for name in vectors}

    def dims(self) -> dict[str, int]:
        sizes = {}
        for name, block in self._blocks().items():
            if hasattr(block, "dim"):
                sizes[name] = block.dim
            elif hasattr(block, "model"):
                sizes[name] = block.users.shape[1]
        return sizes

    def past(self, row: int | None, changes: Mapping[int, float], item: int) -> Shares:
        # Shares are those of the model's own history.
        if row is None or changes:
            return {}
        shares: Shares = self._model.explain(row, item, n_because=0).past
        return shares

    def _blocks(self) -> dict[str, Any]:
        return {name: self._model._index.blocks[name] for name in self._names}

    def _queries(self, vectors: Mapping[str, Float32], history: sp.csr_array) -> dict[str, Float32]:
        users = np.arange(history.shape[0])
        blocks = self._blocks()
        asked = {name: block.asked_with(vectors.get(name)) for name, block in blocks.items()}
        for name, block in asked.items():
            if hasattr(block, "model") and name not in vectors:  # no factors of these users
                block.users = np.zeros((len(users), block.users.shape[1]), np.float32)
        return {name: block.queries(users, history).vectors for name, block in asked.items()}


class MeanFolding:
    """The mean of item vectors, for a search whose file has no model that could be asked."""

    name = "mean"
    histories = None

    def __init__(self, retriever: Retriever) -> None:
        self._parts = retriever._parts
        self._dims = retriever.dims

    def knows(self, row: int | None) -> bool:
        return row is None

    def vectors(self, rows: Sequence[int | None], changes: Changes) -> dict[str, Float32]:
        found = {}
        for modality in self._parts.modalities:
            means = np.zeros((len(rows), modality.items.dim))
            for i, change in enumerate(changes):
                items = [item for item, value in change.items() if value > 0]
                strengths = np.array([change[item] for item in items])
                if items:
                    x = modality.items.rows(np.array(items)).astype(np.float64)
                    means[i] = strengths @ x / strengths.sum()
            found[modality.name] = means.astype(np.float32)
        return found

    def asked(self, vectors: Mapping[str, Float32]) -> dict[str, Float32]:
        return dict(vectors)

    def dims(self) -> dict[str, int]:
        return self._dims

    def past(self, row: int | None, changes: Mapping[int, float], item: int) -> Shares:
        return {}
