"""A fitted recommender as a dense search: the vectors that its users ask with, made once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recfuse._retrieval import Modality, Retrieval, Seen, Vectors
from recfuse.fusion.blocks import Block, ContentBlock, FactorBlock, NeighbourBlock
from recfuse.fusion.hybrid import USERS_PER_BATCH, HybridIndex

__all__ = ["retrieval_of"]


def retrieval_of(
    index: HybridIndex,
    history: sp.csr_array,
    weights: Mapping[str, Any],
    options: Mapping[str, Any],
) -> Retrieval:
    """Return the search of the dense modalities; ValueError if another one has a weight.

    Vectors are those of `recommend` for all users at once: a matrix product may round otherwise
    for fewer.
    """
    sparse = [name for name, block in index.blocks.items() if isinstance(block, NeighbourBlock)]
    weighted = [name for name in sparse if np.any(weights[name])]
    if weighted:
        raise ValueError(
            "model must have modalities of vectors alone, but neighbours add sparse scores; got "
            f"{weighted}. Fit with behaviour={{'als': AlternatingLeastSquares()}}, or with weights "
            "that give them 0"
        )
    blocks = {name: block for name, block in index.blocks.items() if name not in sparse}
    if not blocks:
        raise ValueError(f"model must have modalities of vectors; got {list(index.blocks)}")
    names = list(blocks)
    per_user = any(np.ndim(weights[name]) for name in names)
    alike = _alike({name: weights[name] for name in names}, blocks)
    return Retrieval(
        tuple(_modality(name, block, history) for name, block in blocks.items()),
        weights=tuple(float(np.mean(weights[name])) for name in names),
        user_weights=np.stack([weights[name] for name in names], axis=1) if per_user else None,
        similar_weights=alike,
        fallback=names.index(index.fallback) if index.fallback in blocks else None,
        present=np.stack([block.present for block in blocks.values()], axis=1).astype(np.uint8),
        seen=Seen.of(history),
        options=options,
    )


def _modality(name: str, block: Block, history: sp.csr_array) -> Modality:
    items = Vectors.of(block.item_vectors)
    # The last column carries the mean of z-scores, of which likeness knows nothing.
    like = Vectors.of(block.item_vectors, items.dim - 1)
    return Modality(name, items, Vectors.of(_queries(block, history)), like)


def _queries(block: Block, history: sp.csr_array) -> NDArray[np.float32]:
    n_users = history.shape[0]
    out = np.empty((n_users, block.item_vectors.shape[1]), np.float32)
    for begin in range(0, n_users, USERS_PER_BATCH):
        users = np.arange(begin, min(begin + USERS_PER_BATCH, n_users))
        out[users] = block.queries(users, history[users]).vectors
    return out


def _alike(weights: Mapping[str, Any], blocks: Mapping[str, Block]) -> tuple[float, ...] | None:
    """Return by what items are alike: by content, else by factors, else as the search has it."""
    for kind in (ContentBlock, FactorBlock):
        of_kind = {
            name: float(np.mean(np.abs(weights[name]))) if isinstance(block, kind) else 0.0
            for name, block in blocks.items()
        }
        if any(of_kind.values()):
            return tuple(of_kind.values())
    return None
