"""From token vectors to one vector per row."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["normalised", "pooled"]


def pooled(
    hidden: NDArray[Any], mask: NDArray[np.bool_] | None, pooling: str | None, name: str
) -> NDArray[np.float32]:
    """Return (n, dim) float32 from (n, tokens, dim), or from (n, dim) without `pooling`."""
    with np.errstate(over="ignore"):
        hidden = hidden.astype(np.float32, copy=False)
    if pooling is None:
        if sum(axis != 1 for axis in hidden.shape[1:]) > 1:
            raise ValueError(
                f"encode: output {name!r} must be (n, dim) without pooling; got {hidden.shape}"
            )
        return hidden.reshape(len(hidden), int(np.prod(hidden.shape[1:])))
    if hidden.ndim != 3:
        raise ValueError(
            f"encode: output {name!r} must be (n, tokens, dim) for pooling {pooling!r}; "
            f"got {hidden.shape}"
        )
    if mask is None:
        mask = np.ones(hidden.shape[:2], np.bool_)
    if mask.shape != hidden.shape[:2]:
        raise ValueError(
            f"encode: inputs['attention_mask'] must have shape {hidden.shape[:2]} like output "
            f"{name!r}; got {mask.shape}"
        )
    count = mask.sum(axis=1, dtype=np.int64)[:, None]
    if pooling == "cls":
        # The first token that is no padding: some tokenizers pad on the left.
        first = hidden[np.arange(len(hidden)), mask.argmax(axis=1)]
        return np.where(count > 0, first, np.float32(0))
    # `where` instead of a product with the mask: models may give NaN at padding.
    if pooling == "max":
        highest = np.where(mask[:, :, None], hidden, np.float32(-np.inf)).max(axis=1)
        return np.where(count > 0, highest, np.float32(0))
    total = np.where(mask[:, :, None], hidden, np.float32(0)).sum(axis=1, dtype=np.float32)
    mean: NDArray[np.float32] = total / np.maximum(count, 1).astype(np.float32)
    return mean


def normalised(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Divide every row by its Euclidean norm, in float64: the square of 1e20 is no float32."""
    wide = vectors.astype(np.float64)
    norms = np.sqrt(np.einsum("ij,ij->i", wide, wide))[:, None]
    with np.errstate(invalid="ignore"):  # an infinity becomes NaN, as it should
        np.divide(wide, norms, out=wide, where=norms > 0)
    return wide.astype(np.float32)
