"""What the parts of a fitted recommender know of each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from recfuse._base import Estimator
from recfuse._inputs import as_ids, check_ids
from recfuse.fusion.blocks import Block, ContentBlock, FactorBlock, unit_rows
from recfuse.fusion.hybrid import HybridIndex

__all__ = ["FittedRecommender"]


class FittedRecommender(Estimator):
    """The learned attributes of `MultimodalRecommender`, which `fit` sets."""

    popularity: bool
    device: str
    num_threads: int
    modalities_: list[str]
    weights_: dict[str, float]
    models_: dict[str, Any]
    content_: dict[str, ContentBlock]
    user_items_: sp.csr_array
    _built_index: HybridIndex | None = None
    # Of the index before the last changes: what they left as it was is not computed again.
    _blocks_before: Mapping[str, Block] | None = None

    @property
    def _index(self) -> HybridIndex:
        raise NotImplementedError

    def _weights_of(self, users: NDArray[np.int64]) -> dict[str, Any]:
        """Return the weights of users: for all of them, or one per user where segments differ."""
        # A file of an earlier version knows no segments.
        of_users = getattr(self, "user_weights_", None)
        if of_users is None:
            return dict(self.weights_)
        return {name: of_users[name][users] for name in self.modalities_}

    def _known_users(self, user_ids: ArrayLike, name: str = "user_ids") -> NDArray[np.int64]:
        return check_ids(as_ids(user_ids, name), self.user_items_.shape[0], name)

    def _likeness(self) -> tuple[Mapping[str, NDArray[np.float32]], dict[str, float] | None]:
        """Return by which vectors items are like each other, and the weights of these."""
        if self.content_:
            weights = {name: abs(self.weights_[name]) for name in self.content_}
            vectors = {name: block.items for name, block in self.content_.items()}
            return vectors, weights if any(weights.values()) else None
        blocks = self._index.blocks
        factors = {
            name: unit_rows(block.model.item_factors_.astype(np.float64))
            for name, block in blocks.items()
            if isinstance(block, FactorBlock)
        }
        if not factors:
            raise ValueError(
                "diversity must have content or factors to go by; got a model of neither"
            )
        return factors, None
