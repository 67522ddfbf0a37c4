"""`fuse_topk`: the k largest weighted sums of the cosines of modalities, generated vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

import recfuse
from recfuse.bench.case import Contender, Inputs, Ready, ids_and_scores
from recfuse.bench.cases.dense import DenseCase, Float32

__all__ = ["CASE", "FULL", "QUICK", "FuseTopk"]


@dataclass(frozen=True, kw_only=True)
class FuseTopk(DenseCase):
    """Fuse as many modalities as there are `dims`, with weights of every query's own."""

    op = "fuse_topk"
    metric: ClassVar[str] = "cosine"

    dims: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "dims", tuple(self.dims))  # JSON brings a list

    @property
    def name(self) -> str:
        """Sizes in one line."""
        return f"q{self.n_queries} n{self.n_items} d{'+'.join(map(str, self.dims))} k{self.k}"

    @property
    def width(self) -> int:
        """All dimensions together."""
        return sum(self.dims)

    def inputs(self) -> Inputs:
        """Draw vectors per modality and a weight per query and modality."""
        rng = np.random.default_rng(self.seed)
        arrays: dict[str, Any] = {
            "weights": rng.uniform(0.1, 1.0, (self.n_queries, len(self.dims)))
        }
        for m, dim in enumerate(self.dims):
            arrays[f"queries{m}"] = rng.standard_normal((self.n_queries, dim), np.float32)
            arrays[f"items{m}"] = rng.standard_normal((self.n_items, dim), np.float32)
        return arrays

    def item_matrix(self, inputs: Inputs) -> Float32:
        """Return the modalities side by side, every row of each with length 1."""
        return np.concatenate([_unit(x) for x in self._parts(inputs, "items")], axis=1)

    def query_matrix(self, inputs: Inputs) -> Float32:
        """Return the same of the queries, times their weights."""
        weights = inputs["weights"].astype(np.float32)
        parts = [
            _unit(x) * weights[:, m, None] for m, x in enumerate(self._parts(inputs, "queries"))
        ]
        return np.concatenate(parts, axis=1)

    def ours(self) -> list[Contender]:
        """Search a prepared index, and search without one."""
        return [
            Contender(
                "recfuse", "recfuse", "recfuse", _index, "FusedIndex of the items", "index.topk"
            ),
            Contender(
                "recfuse.fuse_topk",
                "recfuse",
                "recfuse",
                _function,
                "nothing",
                "recfuse.fuse_topk",
            ),
        ]

    def modalities(self, arrays: Mapping[str, Any], kind: str) -> dict[str, Any]:
        """Return 'queries' or 'items' as recfuse takes them."""
        return {f"m{m}": x for m, x in enumerate(self._parts(arrays, kind))}

    def options(self, inputs: Inputs) -> dict[str, Any]:
        """Return the weights."""
        return {"weights": self.weights(inputs)}

    def weights(self, inputs: Inputs) -> dict[str, NDArray[np.float64]]:
        """Return the weights as recfuse takes them."""
        return {f"m{m}": inputs["weights"][:, m] for m in range(len(self.dims))}

    def _parts(self, arrays: Mapping[str, Any], kind: str) -> list[Any]:
        return [arrays[f"{kind}{m}"] for m in range(len(self.dims))]


def _unit(x: Float32) -> Float32:
    scaled: Float32 = x / np.linalg.norm(x, axis=1, keepdims=True)
    return scaled


def _index(case: FuseTopk, inputs: Inputs, num_threads: int) -> Ready:
    index = recfuse.FusedIndex(case.modalities(inputs, "items"), num_threads=num_threads)
    queries, weights = case.modalities(inputs, "queries"), case.weights(inputs)
    return Ready(lambda: index.topk(queries, case.k, weights=weights), ids_and_scores)


def _function(case: FuseTopk, inputs: Inputs, num_threads: int) -> Ready:
    queries, items = case.modalities(inputs, "queries"), case.modalities(inputs, "items")
    weights = case.weights(inputs)
    return Ready(
        lambda: recfuse.fuse_topk(queries, items, weights, case.k, num_threads=num_threads),
        ids_and_scores,
    )


CASE = FuseTopk
QUICK = [FuseTopk(n_queries=256, n_items=20_000, dims=(64, 384, 512), k=100)]
FULL = [
    FuseTopk(n_queries=1024, n_items=100_000, dims=(64, 384, 512), k=100),
    FuseTopk(n_queries=1024, n_items=100_000, dims=(64, 384, 512), k=20),
    FuseTopk(n_queries=1024, n_items=100_000, dims=(64, 384, 512, 128), k=100),
    FuseTopk(n_queries=1024, n_items=100_000, dims=(64, 384, 512, 128), k=20),
]
FULL_ON_DEVICE = [
    FuseTopk(n_queries=10_240, n_items=1_000_000, dims=(64, 384, 512), k=100),
]
