"""Two towers with and without augmentation: items and modalities dropped while training.

What is dropped is what will be missing when it counts: new users have short histories, new items
have no number of their own yet, only content.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from recfuse.evaluation import Split, evaluate
from recipes import shared, two_tower

CONTENT_ONLY = {"product": 0.0, "content": 1.0}
SHORT = 3  # items that a new user has liked so far


class ShortHistories(shared.Data):
    """The same data, with the last few likes of everybody only."""

    def histories(self) -> shared.Array:
        likes = self.liked().train
        order = np.lexsort((likes.timestamps, likes.user_index))[::-1]
        user = likes.user_index[order]
        starts = np.flatnonzero(np.r_[True, user[1:] != user[:-1]])
        rank = np.arange(len(user)) - np.repeat(starts, np.diff(np.r_[starts, len(user)]))
        last = order[rank < SHORT]
        rows = np.zeros((len(self.profile), len(self.product)), np.float32)
        rows[likes.user_index[last], likes.item_index[last]] = 1
        return rows


def recall(retrieval: two_tower.Retrieval, likes: Split, weights: Any = None) -> float:
    def recommend(users: Any, k: int, *, user_items: Any) -> Any:
        return retrieval.recommend(users, k, user_items=user_items, weights=weights)

    return float(evaluate(recommend, likes.train, likes.test, k=20)["recall@20"])


def main(data: shared.Data | None = None, epochs: int = 8) -> list[list[Any]]:
    data = shared.load() if data is None else data
    short = ShortHistories(**{name: getattr(data, name) for name in data.__dataclass_fields__})
    likes = data.liked()
    rows: list[list[Any]] = []
    for name, dropped in {
        "nothing": (0.0, 0.0),
        "items": (0.5, 0.0),
        "items and modalities": (0.5, 0.5),
    }.items():
        network, seconds = two_tower.train(
            data, epochs=epochs, items_dropped=dropped[0], modalities_dropped=dropped[1]
        )
        models = two_tower.export(network, data)
        whole, few = two_tower.Retrieval(models, data), two_tower.Retrieval(models, short)
        qualities = [recall(whole, likes), recall(few, likes), recall(whole, likes, CONTENT_ONLY)]
        rows.append([name, *qualities, f"{seconds:.0f}"])
    header = ["dropped", "recall@20", f"{SHORT} likes known", "content alone", "seconds"]
    print(f"{data.name}, {likes.name}", shared.table(header, rows), sep="\n")
    return rows


if __name__ == "__main__":
    main()
