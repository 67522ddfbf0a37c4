"""Items that the catalogue does not have yet."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recfuse._base import check_fitted
from recfuse._named import named
from recfuse.fusion._arguments import new_item_vectors
from recfuse.fusion._fitted import FittedRecommender
from recfuse.fusion.blocks import FactorBlock
from recfuse.index import FusedIndex

__all__ = ["NewItems"]


class NewItems(FittedRecommender):
    """The part of `MultimodalRecommender` that ranks items it was never given."""

    @named("recommend_new_items")
    def recommend_new_items(
        self, user_ids: ArrayLike, items: Mapping[str, ArrayLike], k: int = 10
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Rank items that the catalogue does not have, by their content alone.

        With `cold_items` also by the factors that their content predicts.

        Parameters
        ----------
        user_ids : int or array-like of int
        items : mapping modality -> array-like of shape (n_new, dim_m)
            At least one of the content modalities of `fit`; rows of zeros are missing. Weights
            are those of the fit, or equal ones where it gave them none.
        k : int, default=10

        Returns
        -------
        ids : ndarray of shape (n, k), int32
            Rows of `items`; -1 for padding.
        scores : ndarray of shape (n, k), float32

        Raises
        ------
        NotFittedError, IndexError, ValueError
            As `recommend`; ValueError if a modality is unknown or its width differs.
        """
        check_fitted(self, "models_")
        users = self._known_users(user_ids)
        vectors, present = new_item_vectors(items, self.content_)
        history = self.user_items_[users]
        blocks = self._index.blocks
        for name, block in blocks.items():
            if isinstance(block, FactorBlock) and block.map is not None:
                content = {m: x[:, :-1] for m, x in vectors.items() if m in self.content_}
                present[name] = np.any([present[m] for m in content], axis=0)
                vectors[name] = block.new_items(content)
        queries = {name: blocks[name].queries(users, history).vectors for name in vectors}
        weights = {name: self.weights_[name] for name in vectors}
        if not any(weights.values()):
            weights = dict.fromkeys(vectors, 1.0)
        index = FusedIndex(
            vectors,
            metric="dot",
            present=present,
            device=self.device,
            num_threads=self.num_threads,
        )
        ids, scores = index.topk(queries, k, weights=weights)
        return ids, scores
