# The ops that the GPU has. Those of _core have its signatures, written down once, there; but a
# matrix may be a _DeviceMatrix, and where all queries are, results are each a DeviceArray.
# AlsSolver and FusedIndex take `devices`, too: the numbers of the GPUs that share the work.
# AlsSolver also takes `device_bytes`, of which a fit takes no more, and has `is_streamed`.

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recfuse._core import AlsSolver as AlsSolver
from recfuse._core import FusedIndex as FusedIndex
from recfuse._core import cosine_knn as cosine_knn
from recfuse._core import neighbour_topk as neighbour_topk

# address, rows, columns, elements from row to row, stream or 0, and what keeps the memory
_DeviceMatrix = tuple[int, int, int, int, int, Any]

class DeviceArray:
    def __init__(self, array: NDArray[Any], device: int = 0) -> None: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def __cuda_array_interface__(self) -> dict[str, Any]: ...
    def __len__(self) -> int: ...
    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]: ...
    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: Any = None,
        dl_device: Any = None,
        copy: Any = None,
    ) -> Any: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...

def capsule_parts(
    capsule: Any,
) -> tuple[int, tuple[int, ...], tuple[int, ...] | None, str, int]: ...
def to_host(matrix: _DeviceMatrix) -> NDArray[np.float32]: ...
def memory_info(device: int = 0) -> tuple[int, int]: ...  # bytes free, and in all
def device_of(address: int) -> int: ...
def device_count() -> int: ...
def device_name(device: int) -> str: ...
def unusable_reason(device: int = 0) -> str: ...  # why it cannot be used; empty where it can
