"""Small searches on a GPU that meet every kernel: for compute-sanitizer, which is slow."""

from __future__ import annotations

import numpy as np

import recfuse


def main() -> None:
    """Search in all the ways there are, and hold the lists against the CPU's."""
    rng = np.random.default_rng(0)
    items = {
        name: rng.standard_normal((700, d), dtype=np.float32) for name, d in (("a", 40), ("b", 70))
    }
    items["a"][5] = np.inf
    present = {"b": rng.random(700) < 0.7}
    for n_queries in (3, 70):
        queries = {
            name: rng.standard_normal((n_queries, matrix.shape[1]), dtype=np.float32)
            for name, matrix in items.items()
        }
        weights = {name: rng.uniform(0.1, 1, n_queries) for name in items}
        for fusion in ("sum", "max"):
            for k in (5, 300):
                found = [
                    recfuse.FusedIndex(items, present=present, device=device).topk(
                        queries, k=k, weights=weights, fusion=fusion, contributions=True
                    )
                    for device in ("cuda", "cpu")
                ]
                for ours, theirs in zip(*found, strict=True):
                    np.testing.assert_array_equal(ours, theirs)
    print("the same bytes as the CPU")


if __name__ == "__main__":
    main()
