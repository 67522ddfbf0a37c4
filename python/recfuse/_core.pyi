# The boundary to C++, written by hand: `make types` and test_stub.py hold it against the module.
# Nothing is converted on the way in: _inputs.py has prepared dtypes and layouts, C++ checks values.

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

# indptr (rows + 1), indices (nnz), (rows, cols), values (nnz) or None
_Csr = tuple[NDArray[np.int64], NDArray[np.int32], tuple[int, int], NDArray[np.float32] | None]
_Float = TypeVar("_Float", np.float32, np.float64)

class FusedIndex:
    def __init__(
        self,
        items: list[NDArray[np.float32]],  # per modality (n_items, dim_m)
        present: NDArray[np.uint8] | None,  # (n_items, n_modalities)
        metric: str,
        names: list[str],  # of the modalities, for messages
        op: str,  # likewise
        most_kept_bytes: int,  # of a rounded copy of the items
        num_threads: int,
    ) -> None: ...
    # ids, scores (n_queries, k) and, with contributions, float64 (n_queries, k, n_modalities)
    def topk(
        self,
        queries: list[NDArray[np.float32]],  # per modality (n_queries, dim_m)
        weights: NDArray[np.float64],  # (1 or n_queries, n_modalities)
        k: int,
        *,
        fusion: str,
        missing: str,
        exclude: _Csr | None,  # (n_queries, n_items)
        allow: _Csr | None,  # (n_queries, n_items)
        allow_ids: NDArray[np.int32] | None,
        contributions: bool,
        num_threads: int,
    ) -> tuple[NDArray[Any], ...]: ...
    def plan(self) -> dict[str, Any]: ...
    # rank, first, last (nnz), n_ranked (n_queries), all int32
    def rank_pairs(
        self,
        queries: list[NDArray[np.float32]],  # per modality (n_queries, dim_m)
        weights: NDArray[np.float64],  # (1 or n_queries, n_modalities)
        pairs: _Csr,  # (n_queries, n_items)
        *,
        fusion: str,
        missing: str,
        exclude: _Csr | None,  # (n_queries, n_items)
        num_threads: int,
    ) -> tuple[NDArray[np.int32], ...]: ...
    # scores (nnz), parts float64 (nnz, n_modalities)
    def score_pairs(
        self,
        queries: list[NDArray[np.float32]],  # per modality (n_queries, dim_m)
        weights: NDArray[np.float64],  # (1 or n_queries, n_modalities)
        pairs: _Csr,  # (n_queries, n_items)
        *,
        fusion: str,
        missing: str,
        num_threads: int,
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]: ...

class AlsSolver:
    def __init__(
        self,
        user_items: _Csr,  # (n_users, n_items), with values
        *,
        objective: str,
        solver: str,
        factors: int,
        regularization: float,
        alpha: float,
        frequency_scaling: float,
        biases: bool,
        cg_steps: int,
        dual_entries: int = -1,
        double_precision: bool = False,
        base_confidence: float = 1.0,
        num_threads: int = 0,
    ) -> None: ...
    def set_factors(
        self,
        users: NDArray[np.float32],  # (n_users, factors)
        items: NDArray[np.float32],  # (n_items, factors)
        user_biases: NDArray[np.float32],  # (n_users) or (0)
        item_biases: NDArray[np.float32],  # (n_items) or (0)
    ) -> None: ...
    # users (n_users, factors), items (n_items, factors), and their biases or (0)
    def factors(
        self,
        users: NDArray[np.float32] | None = None,  # written to, and returned
        items: NDArray[np.float32] | None = None,
    ) -> tuple[
        NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]
    ]: ...
    def step(self, num_threads: int = 0) -> None: ...
    def loss(self, num_threads: int = 0) -> float: ...
    # factors (n_rows, factors), biases (n_rows) or (0)
    def fold_in(
        self, user_items: _Csr, num_threads: int = 0
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]: ...
    @property
    def global_mean(self) -> float: ...
    @global_mean.setter
    def global_mean(self, value: float) -> None: ...
    @property
    def solver(self) -> str: ...
    @property
    def float64_rows(self) -> int: ...
    @property
    def finished_steps(self) -> int: ...

# ids, scores (n_rows, k), padded
def cosine_knn(
    matrix: _Csr,  # (n_rows, n_cols), with values
    k: int,
    *,
    norm: str,
    shrinkage: float,
    min_support: int,
    num_threads: int,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]: ...

# ids, scores (n_queries, k), padded
def neighbour_topk(
    queries: _Csr,  # (n_queries, n_rows), with values
    neighbours: _Csr,  # (n_rows, n_items), with values; the entries of a row in any order
    k: int,
    *,
    normalise: bool,
    exclude: _Csr | None,  # (n_queries, n_items)
    allow: _Csr | None,  # (n_queries, n_items)
    allow_ids: NDArray[np.int32] | None,
    num_threads: int,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]: ...

class NeighbourScorer:
    def __init__(self, neighbours: _Csr) -> None: ...  # (n_rows, n_items), with values; any order

    # ids, scores (1, k), padded
    def topk(
        self,
        history: _Csr,  # (1, n_rows), with values
        k: int,
        *,
        exclude: NDArray[np.int32] | None,  # ids
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]: ...

# The k largest entries of every row of a product, as parts of a CSR: indptr, indices, values. CPU.
def sparse_product_topk(
    left: _Csr,  # (n_rows, n), its pattern
    left_values: NDArray[_Float],
    right: _Csr,  # (n, n_cols), its pattern
    right_values: NDArray[_Float],
    k: int,
    *,
    above: float | None,  # only larger ones
    sort: bool,  # or in the order of SciPy's product
    num_threads: int,
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[_Float]]: ...

# Ids of the k nearest candidates of every query, and squared distances; -1, inf for padding. CPU.
def nearest_candidates(
    queries: NDArray[np.float32],  # (n_queries, dim)
    items: NDArray[np.float32],  # (n_items, dim)
    candidates: NDArray[np.int32],  # (n_queries, n), -1 for none
    k: int,
    *,
    num_threads: int,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]: ...

# Items nearer than a squared distance, or with larger products: indptr, ids, values. CPU.
def rows_in_range(
    queries: NDArray[np.float32],  # (n_queries, dim)
    items: NDArray[np.float32],  # (n_items, dim)
    limit: float,
    *,
    products: bool,
    num_threads: int,
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]: ...

# Rates per second: float32 operations, bytes, increments.
def measure_flops(num_threads: int = 0) -> float: ...
def measure_int8_operations(num_threads: int = 0) -> float: ...
def measure_bandwidth(bytes: int, num_threads: int = 0) -> float: ...
def measure_updates(num_threads: int = 0) -> float: ...

# Whether SciPy's parts are what _Csr wants but for their types; both int32 or both int64.
def is_canonical_csr(
    indptr: NDArray[Any], indices: NDArray[Any], shape: tuple[int, int], num_threads: int = 1
) -> bool: ...
def active_isa() -> str: ...
def available_isas() -> list[str]: ...  # best first
def set_isa(name: str) -> None: ...
def default_num_threads() -> int: ...
def set_default_num_threads(num_threads: int) -> None: ...  # 0 restores

# buffers (name, bytes, phase), and how the work is cut; free_bytes None: no end
def plan_device_memory(
    n_queries: int, n_items: int, dims: list[int], k: int, free_bytes: int | None
) -> tuple[list[tuple[str, int, str]], dict[str, int]]: ...
def plan_rank_pairs(
    n_queries: int,
    n_items: int,
    dims: list[int],
    n_pairs: int,
    n_excluded: int,
    free_bytes: int | None,
) -> tuple[list[tuple[str, int, str]], dict[str, int]]: ...
def plan_cosine_knn(
    n_rows: int, n_columns: int, n_entries: int, k: int, values: int, norm: str, min_support: int
) -> list[tuple[str, int, str]]: ...
def plan_als(
    n_users: int,
    n_items: int,
    n_entries: int,
    factors: int,
    objective: str,
    solver: str,
    biases: bool,
    frequency_scaling: float,
    dual_entries: int = -1,
    multiprocessors: int = ...,
    free_bytes: int | None = None,
    piece_entries: int = ...,
) -> tuple[list[tuple[str, int, str]], dict[str, int]]: ...
def plan_neighbour_topk(
    n_queries: int,
    n_rows: int,
    n_items: int,
    query_entries: int,
    n_entries: int,
    filter_bytes: int,
    k: int,
    normalise: bool,
) -> list[tuple[str, int, str]]: ...
