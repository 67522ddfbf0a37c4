"""Inputs and comparisons that several tests share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp


def assert_same_bytes(got: tuple[Any, ...], expected: tuple[Any, ...]) -> None:
    """Both results have the same dtypes, shapes and bits."""
    assert len(got) == len(expected)
    for g, e in zip(got, expected, strict=True):
        assert g.dtype == e.dtype
        assert g.shape == e.shape
        np.testing.assert_array_equal(g, e)
        assert g.tobytes() == e.tobytes()


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def random_pattern(
    rng: np.random.Generator, rows: int, cols: int, density: float
) -> tuple[sp.csr_array, np.ndarray]:
    """A sparse pattern and the same as booleans."""
    dense = rng.random((rows, cols)) < density
    return sp.csr_array(dense.astype(np.float32)), dense


def random_modalities(
    rng: np.random.Generator, dims: tuple[int, ...], n_queries: int, n_items: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, float]]:
    names = [f"m{i}" for i in range(len(dims))]
    queries = {m: normal(rng, n_queries, d) for m, d in zip(names, dims, strict=True)}
    items = {m: normal(rng, n_items, d) for m, d in zip(names, dims, strict=True)}
    weights = {m: float(w) for m, w in zip(names, rng.uniform(0.1, 1, len(dims)), strict=True)}
    return queries, items, weights


def program(heading: str, page: str = "compat.md") -> str:
    """Return the first program below a heading of a document."""
    text = (Path(__file__).parents[2] / "docs" / page).read_text("utf-8")
    return text.split(f"\n## {heading}\n")[1].split("```python\n")[1].split("```")[0]
