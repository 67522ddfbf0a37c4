"""Sparse cosine neighbours by implicit, sparse_dot_topn, SciPy and scikit-learn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from recfuse.bench.case import Answer, Contender, Inputs, Ready
from recfuse.bench.interactions import user_items

if TYPE_CHECKING:
    from recfuse.bench.cases.cosine_knn import CosineKnn

__all__ = ["neighbour_lists", "sparse_peers"]

_BLOCK = 1000  # rows of a product at a time, so that memory stays in bounds


def sparse_peers() -> list[Contender]:
    """Return the peers."""
    return [
        Contender(
            "implicit",
            "implicit",
            "implicit",
            _implicit,
            "the user-item matrix in CSR",
            "CosineRecommender(k + 1).fit",
            {"OPENBLAS_NUM_THREADS": "1"},
        ),
        Contender(
            "sparse_dot_topn",
            "sparse-dot-topn",
            "sparse_dot_topn",
            _sparse_dot_topn,
            "the item-user matrix in CSR",
            "rows to unit length, transpose, sp_matmul_topn(k + 1)",
        ),
        Contender(
            "SciPy",
            "scipy",
            "scipy",
            _scipy,
            "the item-user matrix in CSR",
            f"rows to unit length, products of {_BLOCK} rows, argpartition of every row",
        ),
        Contender(
            "scikit-learn",
            "scikit-learn",
            "sklearn",
            _sklearn,
            "the item-user matrix in CSR",
            "NearestNeighbors(metric='cosine', algorithm='brute').fit, kneighbors(k + 1)",
        ),
    ]


def neighbour_lists(neighbours: Any, k: int) -> Answer:
    """Return the k largest other entries of every row as lists, padded with -1 and 0."""
    csr = sp.csr_array(neighbours)
    n = csr.shape[0]
    rows = np.repeat(np.arange(n), np.diff(csr.indptr))
    kept = (csr.indices != rows) & (csr.data > 0)
    rows, columns, values = rows[kept], csr.indices[kept], csr.data[kept]
    order = np.lexsort((columns, -values, rows))
    rows, columns, values = rows[order], columns[order], values[order]
    place = np.arange(len(rows)) - np.searchsorted(rows, rows)
    first = place < k
    ids, cosines = np.full((n, k), -1, np.int64), np.zeros((n, k))
    ids[rows[first], place[first]] = columns[first]
    cosines[rows[first], place[first]] = values[first]
    return {"ids": ids, "cosines": cosines}


def _implicit(case: CosineKnn, inputs: Inputs, num_threads: int) -> Ready:
    from implicit.nearest_neighbours import CosineRecommender

    matrix = sp.csr_matrix(user_items(inputs))

    def fit() -> Any:
        model = CosineRecommender(K=case.k + 1, num_threads=num_threads)
        model.fit(matrix, show_progress=False)
        return model.similarity

    return Ready(fit, lambda neighbours: neighbour_lists(neighbours, case.k))


def _sparse_dot_topn(case: CosineKnn, inputs: Inputs, num_threads: int) -> Ready:
    from sparse_dot_topn import sp_matmul_topn

    items = sp.csr_matrix(user_items(inputs).T)

    def product() -> Any:
        units = _unit_rows(items)
        return sp_matmul_topn(units, units.T.tocsr(), case.k + 1, n_threads=num_threads)

    return Ready(product, lambda neighbours: neighbour_lists(neighbours, case.k))


def _scipy(case: CosineKnn, inputs: Inputs, num_threads: int) -> Ready:
    items = sp.csr_matrix(user_items(inputs).T)

    def product() -> Any:
        units = _unit_rows(items)
        transposed = units.T.tocsr()
        blocks = range(0, case.n_items, _BLOCK)
        return sp.vstack([_largest(units[i : i + _BLOCK] @ transposed, case.k + 1) for i in blocks])

    return Ready(product, lambda neighbours: neighbour_lists(neighbours, case.k))


def _sklearn(case: CosineKnn, inputs: Inputs, num_threads: int) -> Ready:
    from sklearn.neighbors import NearestNeighbors

    items = sp.csr_matrix(user_items(inputs).T)

    def search() -> Any:
        model = NearestNeighbors(metric="cosine", algorithm="brute", n_jobs=num_threads)
        return model.fit(items).kneighbors(items, case.k + 1)

    def answer(result: Any) -> Answer:
        distances, ids = result
        n = len(ids)
        indptr = np.arange(n + 1) * ids.shape[1]
        cosines = np.clip(1 - distances, 0, None)
        # Distances of 1 - cosine have lost the digits of cosines near 0: those are none.
        cosines[cosines < 1e-6] = 0
        csr = sp.csr_array((cosines.ravel(), ids.ravel(), indptr), shape=(n, n))
        return neighbour_lists(csr, case.k)

    return Ready(search, answer)


def _unit_rows(matrix: sp.csr_matrix) -> sp.csr_matrix:
    squares = np.asarray(matrix.multiply(matrix).sum(axis=1), np.float64).ravel()
    inverse = 1 / np.sqrt(np.maximum(squares, 1e-300))
    values = matrix.data * np.repeat(inverse, np.diff(matrix.indptr)).astype(np.float32)
    return sp.csr_matrix((values, matrix.indices, matrix.indptr), shape=matrix.shape)


def _largest(block: sp.csr_matrix, k: int) -> sp.csr_matrix:
    """Return the k largest entries of every row."""
    kept = []
    for start, stop in zip(block.indptr[:-1], block.indptr[1:], strict=True):
        values = block.data[start:stop]
        top = np.argpartition(values, -k)[-k:] if len(values) > k else np.arange(len(values))
        kept.append(start + top)
    entries = np.concatenate(kept)
    indptr = np.concatenate([[0], np.cumsum([len(rows) for rows in kept])])
    return sp.csr_matrix((block.data[entries], block.indices[entries], indptr), shape=block.shape)
