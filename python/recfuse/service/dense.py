"""A model whose answers are dense searches: many requests are one call."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recfuse.service.asks import Ask, Lists, matrix_of
from recfuse.service.folding import Folding, Shares
from recfuse.service.labels import Labels
from recfuse.serving.retriever import Retriever

__all__ = ["DenseModel"]

_FOLDED = 8192  # users whose folded vectors are kept


class DenseModel:
    """A `Retriever`, with histories folded in. Searched by one thread at a time.

    Attributes
    ----------
    modalities : list of str
    users, items : Labels
    """

    def __init__(self, retriever: Retriever, folding: Folding) -> None:
        self._retriever = retriever.prepare()
        self._parts = retriever._parts
        self._folding = folding
        self._folded: OrderedDict[Any, dict[str, NDArray[np.float32]]] = OrderedDict()
        self.modalities = retriever.modalities
        self.users = Labels(self._parts.user_ids, retriever.n_users or 0)
        self.items = Labels(self._parts.item_ids, retriever.n_items)

    def describe(self) -> dict[str, Any]:
        """Return what requests may name."""
        return {
            "modalities": self.modalities,
            "weights": self._retriever.weights,
            "dims": self._folding.dims(),
            "users": self.users.n,
            "items": self.items.n,
            "histories": self._folding.name,
            "similar": True,
        }

    def rescored(self) -> float | None:
        """Return how many items a query scored canonically in the last trial of a screen."""
        scored: float | None = self._retriever._index.plan()["scored_per_query"]
        return scored

    def check(self, ask: Ask) -> None:
        """Raise ValueError for what one request has wrong, so that no other fails with it."""
        unknown = set(ask.weights or {}) - set(self.modalities)
        if unknown:
            raise ValueError(f"weights must name {self.modalities}; got {sorted(unknown)}")
        if ask.weights is not None and not any(ask.weights.values()):
            raise ValueError("weights must not all be 0")
        dims = self._folding.dims() if ask.vectors else {}
        for name, vector in ask.vectors.items():
            if name not in dims:
                raise ValueError(f"vectors must name {list(dims)}; got {name!r:.99}")
            if len(vector) != dims[name]:
                raise ValueError(
                    f"vectors[{name!r}] must have {dims[name]} numbers; got {len(vector)}"
                )

    def search(self, asks: Sequence[Ask], contributions: bool) -> Lists:
        """Return the lists of many requests, as long as the longest."""
        known = np.array([-1 if ask.row is None else ask.row for ask in asks])
        queries = self._queries(asks, known)
        allow = None
        if asks[0].allow is not None:
            allow = matrix_of([a.allow for a in asks if a.allow is not None], self.items.n)
        ids, scores, *parts = self._retriever._index.topk(
            queries,
            max(ask.k for ask in asks),
            weights=self._retriever._weights(self._weights(asks, known), queries, len(asks)),
            missing=self._parts.missing,
            exclude=self._excluded(asks, known),
            allow=allow,
            contributions=contributions,
        )
        return ids, scores, parts[0] if parts else None

    def similar(
        self,
        rows: Sequence[int],
        k: int,
        weights: Mapping[str, float] | None,
        exclude: NDArray[np.int64] | None,
        allow: NDArray[np.int64] | None,
    ) -> Lists:
        """Return the items most like given ones."""
        several = {"exclude": exclude, "allow": allow}
        filters = {
            name: None if found is None else matrix_of([found] * len(rows), self.items.n)
            for name, found in several.items()
        }
        labels = [self.items.label(row) for row in rows]
        if self._parts.item_ids is not None:  # as the table has them, not as JSON has them
            labels = self._parts.item_ids.labels(np.array(rows)).tolist()
        found, scores = self._retriever.similar(labels, k, weights=weights, **filters)
        if self._parts.item_ids is None:
            return found, scores, None
        places = self._parts.item_ids.find([label for label in found.ravel() if label is not None])
        ids = np.full(found.shape, -1, np.int32)
        ids[found != None] = places  # noqa: E711
        return ids, scores, None

    def explain(self, ask: Ask, item: int) -> tuple[float, dict[str, float], Shares]:
        """Return the score of an item, what every modality adds, and every item of the history."""
        one = Ask(
            1,
            ask.row,
            ask.changes,
            ask.version,
            ask.vectors,
            ask.weights,
            allow=np.array([item]),
            exclude_seen=False,
        )
        ids, scores, parts = self.search([one], True)
        assert parts is not None
        if ids[0, 0] < 0:
            return float("-inf"), {}, {}
        terms = dict(zip(self.modalities, parts[0, 0].tolist(), strict=True))
        past: Shares = {}
        if not ask.vectors and not ask.weights:
            past = self._folding.past(ask.row, ask.changes, item)
        return float(scores[0, 0]), terms, past

    def _queries(
        self, asks: Sequence[Ask], known: NDArray[np.int64]
    ) -> dict[str, NDArray[np.float32]]:
        here = known >= 0
        queries = {}
        for modality in self._parts.modalities:
            if modality.users is not None and here.all():
                queries[modality.name] = modality.users.rows(known)
                continue
            block = np.zeros((len(asks), modality.items.dim), np.float32)
            if modality.users is not None and here.any():
                block[here] = modality.users.rows(known[here])
            queries[modality.name] = block
        self._fold(asks, queries)
        for i, ask in enumerate(asks):
            if ask.vectors:
                given = self._folding.asked({m: x[None] for m, x in ask.vectors.items()})
                for name, vectors in given.items():
                    queries[name][i] = vectors[0]
        return queries

    def _fold(self, asks: Sequence[Ask], queries: dict[str, NDArray[np.float32]]) -> None:
        """Put what histories with changes ask with in the place of what the fit has."""
        changed = [i for i, a in enumerate(asks) if a.changes and self._folding.knows(a.row)]
        new = [i for i in changed if asks[i].version is None or asks[i].version not in self._folded]
        found: dict[int, dict[str, NDArray[np.float32]]] = {}
        if new:
            rows, changes = [asks[i].row for i in new], [asks[i].changes for i in new]
            for name, vectors in self._folding.vectors(rows, changes).items():
                for i, vector in zip(new, vectors, strict=True):
                    found.setdefault(i, {})[name] = vector
        for i in changed:
            version = asks[i].version
            vectors_of = found[i] if i in found else self._folded[version]
            for name, vector in vectors_of.items():
                queries[name][i] = vector
            if version is not None:
                self._folded[version] = vectors_of
                self._folded.move_to_end(version)
        while len(self._folded) > _FOLDED:
            self._folded.popitem(last=False)

    def _weights(self, asks: Sequence[Ask], known: NDArray[np.int64]) -> dict[str, Any]:
        table = np.tile(np.array(self._parts.weights, np.float64), (len(asks), 1))
        if self._parts.user_weights is not None:
            here = known >= 0
            table[here] = self._parts.user_weights[known[here]]
        for i, ask in enumerate(asks):
            if ask.weights is not None:
                table[i] = [ask.weights.get(name, 0.0) for name in self.modalities]
            elif ask.vectors and ask.row is None and not ask.changes:
                # As in Retriever.search: what is not named has no weight.
                table[i] *= [name in ask.vectors for name in self.modalities]
        return {name: table[:, m] for m, name in enumerate(self.modalities)}

    def _excluded(self, asks: Sequence[Ask], known: NDArray[np.int64]) -> sp.csr_array | None:
        seen = self._parts.seen
        plain = all(a.exclude_seen and not a.changes and a.exclude is None for a in asks)
        if plain and (known >= 0).all():
            return None if seen is None else seen.rows(known)
        lists = []
        for ask in asks:
            left_out = np.zeros(0, np.int64)
            if ask.exclude_seen:
                if seen is not None and ask.row is not None:
                    left_out = seen.rows(np.array([ask.row])).indices
                kept = [item for item, value in ask.changes.items() if value == 0]
                new = [item for item, value in ask.changes.items() if value != 0]
                left_out = np.union1d(np.setdiff1d(left_out, kept), np.array(new, np.int64))
            if ask.exclude is not None:
                left_out = np.union1d(left_out, ask.exclude)
            lists.append(left_out)
        return matrix_of(lists, self.items.n)
