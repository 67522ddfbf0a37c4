"""FAISS's flat indexes under its names and signatures, over recfuse's exact search."""

from __future__ import annotations

from recfuse.compat.faiss._flat import IndexFlat, IndexFlatIP, IndexFlatL2, knn
from recfuse.compat.faiss._id_map import IndexIDMap, IndexIDMap2
from recfuse.compat.faiss._index import Index
from recfuse.compat.faiss._search import METRIC_INNER_PRODUCT, METRIC_L2
from recfuse.compat.faiss._settings import (
    SearchParameters,
    omp_get_max_threads,
    omp_set_num_threads,
)

__all__ = [
    "METRIC_INNER_PRODUCT",
    "METRIC_L2",
    "Index",
    "IndexFlat",
    "IndexFlatIP",
    "IndexFlatL2",
    "IndexIDMap",
    "IndexIDMap2",
    "SearchParameters",
    "knn",
    "omp_get_max_threads",
    "omp_set_num_threads",
]
