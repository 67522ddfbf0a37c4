"""Why an item is recommended to a user."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["Explanation", "most_similar"]

_SHOWN = 3  # items of the history in a line of print


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
    past : dict of str to list of (int, float)
        Per modality that goes by the history, every item of it and what it adds to the score, the
        largest first. They add up to the modality's contribution, except where factors were
        fitted: those are of an iteration before the items', and the shares are of the exact ones
        [1]_. `rest` is the difference.

    References
    ----------
    .. [1] Y. Hu, Y. Koren, C. Volinsky, "Collaborative filtering for implicit feedback datasets",
       ICDM 2008, section 5.
    """

    score: float
    contributions: dict[str, float]
    because: dict[str, list[tuple[int, float]]]
    past: dict[str, list[tuple[int, float]]] = field(default_factory=dict)

    @property
    def rest(self) -> dict[str, float]:
        """What each modality adds that no item of the history accounts for."""
        return {
            name: whole - sum(share for _, share in self.past.get(name, []))
            for name, whole in self.contributions.items()
        }

    def by_item(self) -> list[tuple[int, float]]:
        """Return what every item of the history adds to the score, the largest first, then by id.

        With the values of `rest` they add up to the score.
        """
        total: dict[int, float] = {}
        for shares in self.past.values():
            for item, share in shares:
                total[item] = total.get(item, 0.0) + share
        return sorted(total.items(), key=lambda pair: (-pair[1], pair[0]))

    def __str__(self) -> str:
        """Show what each modality adds, and the items of the history that add most to that."""
        width = max(map(len, self.contributions), default=0)
        lines = [f"score {self.score:.3f}"]
        for name, whole in self.contributions.items():
            largest = self.past.get(name, [])[:_SHOWN]
            past = ", ".join(f"item {item} {share:+.3f}" for item, share in largest)
            lines.append(f"  {name:{width}}  {whole:+.3f}  {past}".rstrip())
        return "\n".join(lines)


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
