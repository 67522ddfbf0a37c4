# The boundary to C++, written by hand: `make types` and test_stub.py hold it against the module.
# Nothing is converted on the way in: _inputs.py has prepared dtypes and layouts, C++ checks values.

from typing import Any

import numpy as np
from numpy.typing import NDArray

# indptr (rows + 1), indices (nnz), (rows, cols), values (nnz) or None
_Csr = tuple[NDArray[np.int64], NDArray[np.int32], tuple[int, int], NDArray[np.float32] | None]

class FusedIndex:
    def __init__(
        self,
        items: list[NDArray[np.float32]],  # per modality (n_items, dim_m)
        present: NDArray[np.uint8] | None,  # (n_items, n_modalities)
        metric: str,
        names: list[str],  # of the modalities, for messages
        op: str,  # likewise
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

# Rates per second: float32 operations, bytes, increments.
def measure_flops(num_threads: int = 0) -> float: ...
def measure_bandwidth(bytes: int, num_threads: int = 0) -> float: ...
def measure_updates(num_threads: int = 0) -> float: ...
def active_isa() -> str: ...
def available_isas() -> list[str]: ...  # best first
def set_isa(name: str) -> None: ...
def default_num_threads() -> int: ...
def set_default_num_threads(num_threads: int) -> None: ...  # 0 restores
