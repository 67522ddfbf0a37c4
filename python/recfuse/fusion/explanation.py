"""Why an item is recommended to a user."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Explanation", "most_similar"]


@dataclass(frozen=True)
class Explanation:
    """Why an item is recommended to a user.

    Attributes
    ----------
    score : float
        The score of `MultimodalRecommender.recommend`.
    contributions : dict of str to float
        What each modality adds to the score.
    because : dict of str to list of (int, float)
        Per modality, the items of the history most like this one, with their cosine.
    """

    score: float
    contributions: dict[str, float]
    because: dict[str, list[tuple[int, float]]]


def most_similar(
    vectors: NDArray[np.float32], item: int, history: NDArray[np.int32], n: int
) -> list[tuple[int, float]]:
    """Return the n items of the history with the largest cosine to an item, and that cosine."""
    others = history[history != item]
    x, target = vectors[others].astype(np.float64), vectors[item].astype(np.float64)
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(target)
    cosine = np.divide(x @ target, norms, out=np.zeros(len(x)), where=norms > 0)
    best = np.argsort(-cosine, kind="stable")[:n]
    return [(int(others[j]), float(cosine[j])) for j in best]
