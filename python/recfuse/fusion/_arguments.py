"""What `MultimodalRecommender` is given, checked and in one shape."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from recfuse._inputs import as_matrix
from recfuse.fusion.blocks import ContentBlock, presence_of

__all__ = ["content_blocks", "full_weights"]


def full_weights(weights: Mapping[str, float], names: list[str]) -> dict[str, float]:
    """Return a weight per modality, 0 for those not named."""
    unknown = [name for name in weights if name not in names]
    if unknown:
        raise ValueError(f"weights must name modalities of {names}; got {unknown}")
    return {name: float(weights.get(name, 0.0)) for name in names}


def content_blocks(
    items: Mapping[str, ArrayLike],
    users: Mapping[str, ArrayLike],
    present: Mapping[str, ArrayLike],
    shape: tuple[int, int],
) -> dict[str, ContentBlock]:
    """Return the content modalities, centred, with the vectors of users where they are given."""
    for argument, names in (("users", list(users)), ("present", list(present))):
        unknown = [name for name in names if name not in items]
        if unknown:
            raise ValueError(
                f"{argument} must name modalities of items {list(items)}; got {unknown}"
            )
    blocks = {}
    for name, given in items.items():
        vectors = as_matrix(given, f"items[{name!r}]")
        if len(vectors) != shape[1]:
            raise ValueError(
                f"items[{name!r}] must have one row per column of user_items ({shape[1]}); "
                f"got {len(vectors)}"
            )
        here = presence_of(vectors)
        if name in present:
            here &= np.asarray(present[name], bool)
        user_vectors = None
        if name in users:
            user_vectors = as_matrix(users[name], f"users[{name!r}]")
            if user_vectors.shape != (shape[0], vectors.shape[1]):
                raise ValueError(
                    f"users[{name!r}] must have shape {(shape[0], vectors.shape[1])}; "
                    f"got {user_vectors.shape}"
                )
        blocks[name] = ContentBlock.fit(vectors, here, user_vectors)
    return blocks
