"""Why a recommender says what it says, and lists that are not all alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recfuse._base import check_fitted
from recfuse._inputs import as_float, as_ids, as_int, check_ids
from recfuse._named import named
from recfuse.fusion._arguments import list_length
from recfuse.fusion._fitted import FittedRecommender
from recfuse.fusion._patterns import pattern, without
from recfuse.fusion.blocks import ContentBlock
from recfuse.fusion.explanation import Explanation, most_similar
from recfuse.fusion.importance import (
    Importance,
    Judge,
    Step,
    eliminations,
    importances,
    ndcg_of_lists,
)
from recfuse.models._requests import filter_rows
from recfuse.rerank import mmr

__all__ = ["Explains"]


class Explains(FittedRecommender):
    """The part of `MultimodalRecommender` that explains itself."""

    @named("explain")
    def explain(self, user_id: int, item_id: int, *, n_because: int = 3) -> Explanation:
        """Say what each modality contributes to a score, and which of the history speaks for it.

        Parameters
        ----------
        user_id, item_id : int
        n_because : int, default=3
            How many items of the history to name per modality.

        Returns
        -------
        Explanation
            The score of `recommend` by modality, and by item of the history. The score is -inf for
            an item that no weighted modality knows.

        Raises
        ------
        NotFittedError, IndexError
            Before `fit`; if an id is unknown.
        """
        check_fitted(self, "models_")
        user = self._known_users(user_id, "user_id")
        item = check_ids(as_ids(item_id, "item_id"), self.user_items_.shape[1], "item_id")
        for name, ids in (("user_id", user), ("item_id", item)):
            if len(ids) != 1:
                raise ValueError(f"{name} must be one id; got {len(ids)}")
        if as_int(n_because, "n_because") < 0:
            raise ValueError(f"n_because must be at least 0; got {n_because}")
        history = self.user_items_[user]
        _, scores, parts = self._index.topk(user, history, 1, self._weights_of(user), allow=item)
        because = {}
        for name, block in self._index.blocks.items():
            vectors = getattr(self.models_.get(name), "item_factors_", None)
            if isinstance(block, ContentBlock):
                vectors = block.items
            if vectors is not None and block.present[item[0]]:
                because[name] = most_similar(vectors, int(item[0]), history.indices, n_because)
        contributions = dict(zip(self.modalities_, parts[0, 0].tolist(), strict=True))
        past = {}
        if np.isfinite(scores[0, 0]):
            past = self._shares_of_the_past(int(user[0]), history, int(item[0]))
        return Explanation(float(scores[0, 0]), contributions, because, past)

    def _shares_of_the_past(
        self, user: int, history: Any, item: int
    ) -> dict[str, list[tuple[int, float]]]:
        blocks = self._index.blocks
        of_user = self._weights_of(np.array([user]))
        weights = {name: float(np.ravel(weight)[0]) for name, weight in of_user.items()}
        here = [abs(weights[name]) for name, b in blocks.items() if b.present[item]]
        grown = sum(map(abs, weights.values())) / sum(here) if sum(here) else 0.0
        past = {}
        for name, block in blocks.items():
            if not block.present[item] or weights[name] == 0:
                continue
            shares = block.shares(user, history, item)
            if shares is not None:
                added = weights[name] * grown * shares
                order = np.lexsort((history.indices, -added))
                past[name] = [(int(history.indices[j]), float(added[j])) for j in order]
        return past

    @named("modality_importance")
    def modality_importance(self, test: Any, k: int = 20) -> list[Importance]:
        """Say what the lists lose when a modality is left out, the others keeping their weights.

        Parameters
        ----------
        test : sparse of shape (n_users, n_items)
            Held-out events, which the model was not fitted on; others do not count.
        k : int, default=20
            NDCG@`k`, over the whole catalogue, of the users who have held-out events.

        Returns
        -------
        list of Importance
            Of the modalities with a weight, the largest loss first.

        Raises
        ------
        NotFittedError, TypeError, ValueError
            Before `fit`; if the shape is wrong, or no event is new.
        """
        return importances(self._needed_weights(), self._judge(test, k))

    @named("recursive_modality_elimination")
    def recursive_modality_elimination(self, test: Any, k: int = 20) -> list[Step]:
        """Leave out one modality after another, each time the one that is missed least.

        The others keep their weights. What was chosen by these events looks better on them than it
        is: judge the final choice on others.

        Parameters
        ----------
        test, k
            As in `modality_importance`.

        Returns
        -------
        list of Step
            From all modalities to one, in the order of elimination.

        Raises
        ------
        NotFittedError, TypeError, ValueError
            As `modality_importance`.
        """
        return eliminations(self._needed_weights(), self._judge(test, k))

    def _needed_weights(self) -> dict[str, float]:
        check_fitted(self, "weights_")
        return self.weights_

    def _judge(self, test: Any, k: int) -> Judge:
        list_length(k)
        given = filter_rows(test, "test", self.user_items_.shape)
        assert given is not None
        new = without(pattern(given), self.user_items_)
        users = np.flatnonzero(np.diff(new.indptr))
        if len(users) == 0:
            raise ValueError("test must have at least 1 event that is new; got 0")
        relevant = new[users]
        model: Any = self

        def judge(weights: Mapping[str, float]) -> NDArray[np.float64]:
            ids, _ = model.recommend(users, k, weights=weights)
            return ndcg_of_lists(ids, relevant)

        return judge

    def _spread(self, lists: tuple[Any, ...], k: int, diversity: float) -> tuple[Any, ...]:
        """Choose k of every list by maximal marginal relevance."""
        share = as_float(diversity, "diversity")
        if not 0 <= share <= 1:
            raise ValueError(f"diversity must be in [0, 1]; got {share}")
        ids, scores, parts = lists
        vectors, weights = self._likeness()
        chosen, kept = mmr(ids, scores, vectors, k, trade_off=1 - share, weights=weights)
        at = (chosen[:, :, None] == ids[:, None, :]).argmax(axis=2)
        moved = np.take_along_axis(parts, at[:, :, None], axis=1)
        return chosen, kept, np.where(chosen[:, :, None] >= 0, moved, 0.0)
