"""A model that makes its lists itself: of neighbours, by popularity, or of both and vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recfuse.service.asks import Ask, Lists, matrix_of, merged
from recfuse.service.folding import Shares
from recfuse.service.labels import Labels

__all__ = ["ListModel"]


class ListModel:
    """An estimator with `recommend`, as a service needs it; see `DenseModel`."""

    def __init__(
        self, model: Any, histories: sp.csr_array | None, user_ids: Any, item_ids: Any
    ) -> None:
        self._model = model
        self._fused = hasattr(model, "recommend_new_users")
        self._by_history = self._fused or hasattr(model, "score")
        inside = getattr(model, "user_items_", None)
        self._histories = histories if inside is None else inside
        shape = (
            (model.n_users_, len(model.item_scores_))
            if self._histories is None
            else self._histories.shape
        )
        self.modalities = list(getattr(model, "modalities_", [type(model).__name__]))
        self.users, self.items = Labels(user_ids, shape[0]), Labels(item_ids, shape[1])

    def describe(self) -> dict[str, Any]:
        weights = getattr(self._model, "weights_", dict.fromkeys(self.modalities, 1.0))
        return {
            "modalities": self.modalities,
            "weights": {name: float(weights[name]) for name in self.modalities},
            "dims": self._dims(),
            "users": self.users.n,
            "items": self.items.n,
            "histories": "fold-in" if self._by_history else "left out",
            "similar": hasattr(self._model, "similar_items"),
        }

    def rescored(self) -> float | None:
        return None

    def check(self, ask: Ask) -> None:
        if not self._fused and (ask.weights is not None or ask.vectors):
            raise ValueError(
                f"weights and vectors must be left out: {type(self._model).__name__} has none"
            )
        unknown = set(ask.weights or {}) - set(self.modalities)
        if unknown:
            raise ValueError(f"weights must name {self.modalities}; got {sorted(unknown)}")
        if ask.weights is not None and not any(ask.weights.values()):
            raise ValueError("weights must not all be 0")
        dims = self._dims()
        for name, vector in ask.vectors.items():
            if dims.get(name) != len(vector):
                raise ValueError(
                    f"vectors must have the lengths of {dims}; got {len(vector)} for {name!r:.99}"
                )
        if not self._by_history and ask.row is None and hasattr(self._model, "similar_users"):
            raise KeyError("user must be known to a model of similar users")
        if not ask.exclude_seen and not self._fused and hasattr(self._model, "score"):
            raise ValueError("exclude_seen must be true for a model of similar items")

    def search(self, asks: Sequence[Ask], contributions: bool) -> Lists:
        if not self._fused:
            return self._plain(asks)
        k = max(ask.k for ask in asks)
        known = [
            i for i, a in enumerate(asks) if not (a.changes or a.vectors) and a.row is not None
        ]
        ids = np.full((len(asks), k), -1, np.int32)
        scores = np.full((len(asks), k), -np.inf, np.float32)
        parts = np.zeros((len(asks), k, len(self.modalities)))
        if known:
            of = [asks[i] for i in known]
            ids[known], scores[known], parts[known] = self._model.recommend(
                [ask.row for ask in of],
                k,
                exclude_seen=False,
                weights=self._weights(of),
                contributions=True,
                **self._filters(of),
            )
        for i in set(range(len(asks))) - set(known):
            found = self._of_history(asks[i], k)
            ids[i], scores[i], parts[i] = (array[0] for array in found)
        return ids, scores, parts if contributions else None

    def similar(
        self,
        rows: Sequence[int],
        k: int,
        weights: Mapping[str, float] | None,
        exclude: NDArray[np.int64] | None,
        allow: NDArray[np.int64] | None,
    ) -> Lists:
        if not hasattr(self._model, "similar_items"):
            raise ValueError(f"{type(self._model).__name__} must have vectors to tell likeness")
        if weights is not None or exclude is not None or allow is not None:
            raise ValueError("weights and filters must be left out for lists of neighbours")
        ids, scores = self._model.similar_items(np.array(rows), k)
        return ids, scores, None

    def explain(self, ask: Ask, item: int) -> tuple[float, dict[str, float], Shares]:
        one = Ask(
            1,
            ask.row,
            ask.changes,
            None,
            ask.vectors,
            ask.weights,
            allow=np.array([item]),
            exclude_seen=not self._fused,
        )
        ids, scores, parts = self.search([one], True)
        if ids[0, 0] < 0:
            return float("-inf"), {}, {}
        score = float(scores[0, 0])
        if parts is None:
            return score, {self.modalities[0]: score}, {}
        terms = dict(zip(self.modalities, parts[0, 0].tolist(), strict=True))
        past: Shares = {}
        if ask.row is not None and not (ask.changes or ask.vectors or ask.weights):
            past = self._model.explain(ask.row, item, n_because=0).past
        return score, terms, past

    def _dims(self) -> dict[str, int]:
        content = getattr(self._model, "content_", {})
        return {name: block.dim for name, block in content.items()} if self._fused else {}

    def _weights(self, asks: Sequence[Ask]) -> dict[str, NDArray[np.float64]]:
        of_users = getattr(self._model, "user_weights_", None)
        fitted = self._model.weights_
        table = {name: np.full(len(asks), float(fitted[name])) for name in self.modalities}
        for i, ask in enumerate(asks):
            for name in self.modalities:
                if ask.weights is not None:
                    table[name][i] = ask.weights.get(name, 0.0)
                elif of_users is not None:
                    table[name][i] = of_users[name][ask.row]
        return table

    def _merged(self, asks: Sequence[Ask]) -> sp.csr_array:
        rows, changes = [ask.row for ask in asks], [ask.changes for ask in asks]
        return merged(self._histories, rows, changes, self.items.n)

    def _filters(self, asks: Sequence[Ask]) -> dict[str, Any]:
        """Return what is left out, besides histories that are, and what is allowed."""
        history = self._merged(asks)
        lists = []
        for i, ask in enumerate(asks):
            seen = history.indices[history.indptr[i] : history.indptr[i + 1]]
            left_out = seen if ask.exclude_seen else seen[:0]
            lists.append(left_out if ask.exclude is None else np.union1d(left_out, ask.exclude))
        allow = None
        if asks[0].allow is not None:
            allow = matrix_of([a.allow for a in asks if a.allow is not None], self.items.n)
        return {"exclude": matrix_of(lists, self.items.n), "allow": allow}

    def _of_history(self, ask: Ask, k: int) -> tuple[Any, ...]:
        found: tuple[Any, ...] = self._model.recommend_new_users(
            self._merged([ask]),
            k,
            vectors={name: vector[None] for name, vector in ask.vectors.items()},
            exclude_seen=False,
            weights=ask.weights,
            contributions=True,
            **self._filters([ask]),
        )
        return found

    def _plain(self, asks: Sequence[Ask]) -> Lists:
        users = [0 if ask.row is None else ask.row for ask in asks]
        filters = self._filters(asks)
        history = self._merged(asks) if self._by_history else None
        k = max(ask.k for ask in asks)
        if not self._by_history and any(ask.row is None for ask in asks):
            history = sp.csr_array((len(asks), self.items.n), dtype=np.float32)  # nobody's
        ids, scores = self._model.recommend(users, k, user_items=history, **filters)
        return ids, scores, None
