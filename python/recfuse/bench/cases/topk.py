"""`topk`: the k largest inner products of every query, generated Gaussian vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

import recfuse
from recfuse.bench.case import Contender, Inputs, Ready, ids_and_scores
from recfuse.bench.cases.dense import DenseCase, Float32
from recfuse.bench.exclusions import draw_excluded, excluded_items

__all__ = ["CASE", "FULL", "QUICK", "Topk"]


@dataclass(frozen=True, kw_only=True)
class Topk(DenseCase):
    """Search `n_items` vectors of `dim` elements for the `k` best of every query."""

    op = "topk"
    metric: ClassVar[str] = "dot"

    dim: int

    @property
    def name(self) -> str:
        """Sizes in one line."""
        excluded = f", {self.n_excluded} excluded each" if self.n_excluded else ""
        return f"q{self.n_queries} n{self.n_items} d{self.dim} k{self.k}{excluded}"

    @property
    def width(self) -> int:
        """The dimension."""
        return self.dim

    def inputs(self) -> Inputs:
        """Draw queries and items; with exclusions, as many distinct items for every query."""
        rng = np.random.default_rng(self.seed)
        arrays: dict[str, Any] = {
            "queries": rng.standard_normal((self.n_queries, self.dim), np.float32),
            "items": rng.standard_normal((self.n_items, self.dim), np.float32),
        }
        if self.n_excluded:
            arrays |= draw_excluded(rng, self.n_queries, self.n_items, self.n_excluded)
        return arrays

    def item_matrix(self, inputs: Inputs) -> Float32:
        """Return the items."""
        return inputs["items"]

    def query_matrix(self, inputs: Inputs) -> Float32:
        """Return the queries."""
        return inputs["queries"]

    def modalities(self, arrays: Mapping[str, Any], kind: str) -> dict[str, Any]:
        """Return 'queries' or 'items' as the one modality that there is."""
        return {"x": arrays[kind]}

    def options(self, inputs: Inputs) -> dict[str, Any]:
        """Return what is excluded."""
        return {"exclude": excluded_items(inputs) if self.n_excluded else None}

    def ours(self) -> list[Contender]:
        """Search a prepared index, and search without one."""
        return [
            Contender(
                "recfuse", "recfuse", "recfuse", _index, "FusedIndex of the items", "index.topk"
            ),
            Contender("recfuse.topk", "recfuse", "recfuse", _function, "nothing", "recfuse.topk"),
        ]


def _index(case: Topk, inputs: Inputs, num_threads: int) -> Ready:
    items, queries = case.modalities(inputs, "items"), case.modalities(inputs, "queries")
    index = recfuse.FusedIndex(items, metric=case.metric, num_threads=num_threads)
    options = case.options(inputs)
    return Ready(lambda: index.topk(queries, case.k, **options), ids_and_scores)


def _function(case: Topk, inputs: Inputs, num_threads: int) -> Ready:
    options = case.options(inputs)
    return Ready(
        lambda: recfuse.topk(
            inputs["queries"], inputs["items"], case.k, num_threads=num_threads, **options
        ),
        ids_and_scores,
    )


CASE = Topk
QUICK = [
    Topk(n_queries=256, n_items=50_000, dim=64, k=10),
    Topk(n_queries=1, n_items=200_000, dim=64, k=10),
    Topk(n_queries=1000, n_items=5_000, dim=64, k=20, n_excluded=50),
]
FULL = [
    Topk(n_queries=1024, n_items=1_000_000, dim=128, k=10),
    Topk(n_queries=1024, n_items=1_000_000, dim=128, k=100),
    Topk(n_queries=1024, n_items=100_000, dim=64, k=10),
    Topk(n_queries=10_000, n_items=27_000, dim=64, k=20),
    Topk(n_queries=10_000, n_items=27_000, dim=64, k=20, n_excluded=150),
    Topk(n_queries=1, n_items=1_000_000, dim=128, k=10),
]
FULL_ON_DEVICE = [
    Topk(n_queries=10_240, n_items=1_000_000, dim=128, k=100),
]
