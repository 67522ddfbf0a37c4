"""The program of the other languages in Python, which all of them repeat byte for byte.

python recommend.py model.recfuse ann
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from recfuse.serving import Retriever

K = 3


def show(title: str, lists: tuple[Any, ...]) -> None:
    """Print items with their scores, and the bits of those, in which nothing is rounded."""
    (items,), (scores,) = lists
    print(title)
    for item, score in zip(items, scores, strict=True):
        if np.isfinite(score):  # a list can be shorter than K
            print(f"  {item} {score:.6f} {score.view(np.uint32):08x}")


def main(path: str, user: str) -> None:
    model = Retriever.load(path)
    show(f"for {user}", model.recommend([user], K))
    best = model.recommend([user], 1)[0][0, 0]
    last = model.modalities[-1]
    lists = model.recommend([user], K, weights={last: 1.0}, exclude=[best])
    show(f"for {user}, by {last} alone, without {best}", lists)
    show(f"like {best}", model.similar([best], K))
    show(f"for a vector of {last}", model.search({last: np.ones(model.dims[last])}, K))


if __name__ == "__main__":
    main(*sys.argv[1:])
