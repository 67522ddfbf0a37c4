"""Dense top-k by NumPy, PyTorch, FAISS, implicit and scikit-learn."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from recfuse.bench.case import Contender, Inputs, Ready, ids_and_scores
from recfuse.bench.exclusions import excluded_hits, excluded_items
from recfuse.bench.machine import openblas_core

if TYPE_CHECKING:
    from recfuse.bench.cases.dense import DenseCase

__all__ = ["dense_peers"]

_BLOCKS = (32, 128, 512, 1024)
_SCORE_BYTES = 2e9  # what a block of scores and its positions may take


def dense_peers(n_queries: int) -> list[Contender]:
    """Return the peers, tuned for that many queries where tuning is known to help."""
    return [
        Contender(
            "NumPy",
            "numpy",
            "numpy",
            _numpy,
            "items side by side, unit length; the fastest block size",
            "queries weighted and side by side, float32 matmul, argpartition, sort of the k",
        ),
        Contender(
            "PyTorch",
            "torch",
            "torch",
            _torch,
            "items side by side, unit length; the fastest block size",
            "queries weighted and side by side, matmul, torch.topk",
        ),
        Contender(
            "FAISS",
            "faiss-cpu",
            "faiss",
            _faiss,
            "IndexFlatIP of the items",
            "queries weighted and side by side, search; excluded items: k + n_excluded, then cut",
        ),
        *_tuned_faiss(n_queries),
        Contender(
            "implicit",
            "implicit",
            "implicit",
            _implicit,
            "items side by side, unit length",
            "queries weighted and side by side, implicit.cpu.topk",
            # Its own threads multiply blocks of 100 queries; threads of BLAS inside would collide.
            {"OPENBLAS_NUM_THREADS": "1"} if n_queries > 100 else {},
        ),
        Contender(
            "scikit-learn",
            "scikit-learn",
            "sklearn",
            _sklearn,
            "NearestNeighbors(algorithm='brute'), one coordinate added so that the nearest item "
            "is the one with the largest product",
            "queries weighted and side by side, kneighbors",
        ),
    ]


def _tuned_faiss(n_queries: int) -> list[Contender]:
    core = openblas_core()
    if core is None:
        return []
    environment = {"OPENBLAS_CORETYPE": core}
    once, per_call = f"IndexFlatIP of the items, OPENBLAS_CORETYPE={core}", "as FAISS"
    tuned = [Contender(f"FAISS {core}", "faiss-cpu", "faiss", _faiss, once, per_call, environment)]
    if n_queries < 20:  # where FAISS would not call BLAS by itself
        tuned.append(
            Contender(
                f"FAISS {core}, BLAS",
                "faiss-cpu",
                "faiss",
                _faiss_by_blas,
                once + ", distance_compute_blas_threshold=1",
                per_call,
                environment,
            )
        )
    return tuned


def _numpy(case: DenseCase, inputs: Inputs, num_threads: int) -> Ready:
    items, k = case.item_matrix(inputs), case.k
    excluded = excluded_items(inputs) if case.n_excluded else None

    def search(block: int, n_queries: int) -> tuple[Any, Any]:
        queries = case.query_matrix(inputs)[:n_queries]
        ids = np.empty((len(queries), k), np.int64)
        scores = np.empty((len(queries), k), np.float32)
        for start in range(0, len(queries), block):
            part = slice(start, start + block)
            product = queries[part] @ items.T
            if excluded is not None:
                product[_entries(excluded, start, len(product))] = -np.inf
            top = np.argpartition(product, -k, axis=1)[:, -k:]
            values = np.take_along_axis(product, top, axis=1)
            order = np.argsort(-values, axis=1)
            ids[part] = np.take_along_axis(top, order, axis=1)
            scores[part] = np.take_along_axis(values, order, axis=1)
        return ids, scores

    block = _fastest_block(case, search)
    return Ready(lambda: search(block, case.n_queries), ids_and_scores)


def _torch(case: DenseCase, inputs: Inputs, num_threads: int) -> Ready:
    import torch

    torch.set_num_threads(num_threads)
    items, k = torch.from_numpy(case.item_matrix(inputs)), case.k
    excluded = excluded_items(inputs) if case.n_excluded else None

    def search(block: int, n_queries: int) -> tuple[Any, Any]:
        with torch.inference_mode():
            queries = torch.from_numpy(case.query_matrix(inputs)[:n_queries])
            ids, scores = [], []
            for start in range(0, len(queries), block):
                product = queries[start : start + block] @ items.T
                if excluded is not None:
                    rows, columns = _entries(excluded, start, len(product))
                    product[torch.from_numpy(rows), torch.from_numpy(columns)] = -torch.inf
                top = torch.topk(product, k, dim=1)
                ids.append(top.indices)
                scores.append(top.values)
            return torch.cat(ids), torch.cat(scores)

    block = _fastest_block(case, search)
    return Ready(lambda: search(block, case.n_queries), ids_and_scores)


def _faiss(case: DenseCase, inputs: Inputs, num_threads: int) -> Ready:
    import faiss

    faiss.omp_set_num_threads(num_threads)
    index = faiss.IndexFlatIP(case.width)
    index.add(case.item_matrix(inputs))
    excluded = excluded_items(inputs) if case.n_excluded else None

    def search() -> tuple[Any, Any]:
        scores, ids = index.search(case.query_matrix(inputs), case.k + case.n_excluded)
        return _without(excluded, ids, scores, case.k)

    return Ready(search, ids_and_scores)


def _faiss_by_blas(case: DenseCase, inputs: Inputs, num_threads: int) -> Ready:
    import faiss

    faiss.cvar.distance_compute_blas_threshold = 1
    return _faiss(case, inputs, num_threads)


def _implicit(case: DenseCase, inputs: Inputs, num_threads: int) -> Ready:
    from implicit.cpu.topk import topk

    items = case.item_matrix(inputs)
    excluded = sp.csr_matrix(excluded_items(inputs)) if case.n_excluded else None
    return Ready(
        lambda: topk(
            items,
            case.query_matrix(inputs),
            case.k,
            filter_query_items=excluded,
            num_threads=num_threads,
        ),
        ids_and_scores,
    )


def _sklearn(case: DenseCase, inputs: Inputs, num_threads: int) -> Ready:
    from sklearn.neighbors import NearestNeighbors

    items = case.item_matrix(inputs)
    squares = np.einsum("ij,ij->i", items, items, dtype=np.float64)
    # With every item at the same length, |q - x|^2 = |q|^2 + const - 2 <q, x>: nearest is largest.
    added = np.sqrt(squares.max() - squares).astype(np.float32)[:, None]
    model = NearestNeighbors(algorithm="brute", n_jobs=num_threads)
    model.fit(np.concatenate([items, added], axis=1))
    excluded = excluded_items(inputs) if case.n_excluded else None

    def search() -> tuple[Any, Any]:
        queries = case.query_matrix(inputs)
        padded = np.concatenate([queries, np.zeros((len(queries), 1), np.float32)], axis=1)
        distances, ids = model.kneighbors(padded, case.k + case.n_excluded)
        return _without(excluded, ids, -distances, case.k)

    return Ready(search, ids_and_scores)


def _entries(excluded: sp.csr_array, start: int, n_rows: int) -> tuple[Any, Any]:
    """Return the rows, counted from `start`, and the columns of a block of rows."""
    bounds = excluded.indptr[start : start + n_rows + 1]
    rows = np.repeat(np.arange(n_rows), np.diff(bounds))
    return rows, excluded.indices[bounds[0] : bounds[-1]]


def _without(excluded: Any, ids: Any, scores: Any, k: int) -> tuple[Any, Any]:
    """Return the first k of every row that are not excluded."""
    if excluded is None:
        return ids, scores
    order = np.argsort(excluded_hits(excluded, ids), axis=1, kind="stable")[:, :k]
    return np.take_along_axis(ids, order, axis=1), np.take_along_axis(scores, order, axis=1)


def _fastest_block(case: DenseCase, search: Callable[[int, int], Any]) -> int:
    """Return the number of queries per product that is fastest, tried on some of them."""
    fitting = [block for block in _BLOCKS if block * case.n_items * 12 <= _SCORE_BYTES]
    blocks = [block for block in fitting if block <= case.n_queries] or [case.n_queries]
    n_queries = min(case.n_queries, blocks[-1])

    def seconds(block: int) -> float:
        start = time.perf_counter()
        search(block, n_queries)
        return time.perf_counter() - start

    search(blocks[0], blocks[0])  # what only the first product pays
    return min(blocks, key=seconds)
