"""The specification of sparse similarity and of what is recommended from it: loops in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

Ranked = list[tuple[int, float]]


def dense_and_pattern(matrix: Any) -> tuple[np.ndarray, np.ndarray]:
    """Values as float64 of their float32, and which entries are stored."""
    csr = sp.csr_array(matrix).astype(np.float32)
    csr.sum_duplicates()
    pattern = sp.csr_array((np.ones(len(csr.data)), csr.indices, csr.indptr), shape=csr.shape)
    return csr.toarray().astype(np.float64), pattern.toarray() > 0


def ranked(scores: dict[int, float], k: int) -> Ranked:
    """Best k by the score rounded to float32, then by id."""
    with np.errstate(over="ignore"):
        rounded = {i: float(np.float32(s)) + 0.0 for i, s in scores.items()}
    return sorted(rounded.items(), key=lambda pair: (-pair[1], pair[0]))[:k]


def similarity(
    u: np.ndarray, v: np.ndarray, shared: np.ndarray, norm: str, shrinkage: float
) -> float:
    """Three sums in ascending column order, one square root, one division."""
    dot = squared_u = squared_v = 0.0
    for c in range(len(u)):
        dot += u[c] * v[c]
        if norm == "full" or shared[c]:
            squared_u += u[c] * u[c]
            squared_v += v[c] * v[c]
    denominator = float(np.sqrt(squared_u * squared_v)) + shrinkage
    return 0.0 if denominator == 0 else float(dot / denominator)


def cosine_knn(
    matrix: Any, k: int, *, norm: str = "full", shrinkage: float = 0.0, min_support: int = 1
) -> list[Ranked]:
    """The neighbours of every row, best first."""
    dense, stored = dense_and_pattern(matrix)
    neighbours = []
    for u in range(len(dense)):
        scores = {}
        for v in range(len(dense)):
            shared = stored[u] & stored[v]
            if v != u and shared.sum() >= min_support:
                scores[v] = similarity(dense[u], dense[v], shared, norm, shrinkage)
        neighbours.append(ranked(scores, k))
    return neighbours


def neighbour_topk(
    queries: Any,
    neighbours: Any,
    k: int,
    *,
    normalise: bool = False,
    admitted: np.ndarray | None = None,
) -> list[Ranked]:
    """The items of every query; `admitted` says which may be returned."""
    q, q_stored = dense_and_pattern(queries)
    n, n_stored = dense_and_pattern(neighbours)
    lists = []
    for row in range(len(q)):
        scores = {}
        for item in range(n.shape[1]):
            terms = [j for j in range(q.shape[1]) if q_stored[row, j] and n_stored[j, item]]
            if not terms or (admitted is not None and not admitted[row, item]):
                continue
            total = weight = 0.0
            for j in terms:
                total += q[row, j] * n[j, item]
                weight += abs(q[row, j])
            scores[item] = total
            if normalise:
                scores[item] = 0.0 if weight == 0 else total / weight
        lists.append(ranked(scores, k))
    return lists


def from_csr(csr: sp.csr_array) -> list[Ranked]:
    """The rows of a sparse result, in the order in which they are stored."""
    return [
        list(zip(csr.indices[a:b].tolist(), csr.data[a:b].tolist(), strict=True))
        for a, b in zip(csr.indptr[:-1], csr.indptr[1:], strict=True)
    ]


def from_lists(ids: np.ndarray, scores: np.ndarray) -> list[Ranked]:
    """The rows of a padded result; the padding must be at the end, and whole."""
    rows = []
    for row_ids, row_scores in zip(ids, scores, strict=True):
        n = int((row_ids >= 0).sum())
        assert (row_ids[n:] == -1).all() and np.isneginf(row_scores[n:]).all()
        rows.append(list(zip(row_ids[:n].tolist(), row_scores[:n].tolist(), strict=True)))
    return rows
