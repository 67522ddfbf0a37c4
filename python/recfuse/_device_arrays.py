"""Arrays that other libraries hold: on the host as NumPy's, in the memory of a GPU as they are.

The contract about streams. Work that the library of an array has begun, on the stream that it
names, is waited for on the GPU, not by the caller. When a call returns, its results are complete
for every stream, and the inputs may be written to again. So nobody has to synchronise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recfuse.backend import resolve_backend

__all__ = ["DeviceMatrix", "is_on_gpu", "on_gpu", "read_in_place", "to_gpu"]

_CUDA, _MANAGED = 2, 13  # as DLPack counts devices
_LEGACY_STREAM = 1
_ALIGNMENT = 4  # bytes, of a float32


class DeviceMatrix:
    """A float32 matrix in the memory of a GPU, with adjacent elements in a row.

    ``numpy.asarray`` copies it to the host; so does pickling.
    """

    __slots__ = ("_host", "parts", "shape")

    dtype = np.dtype(np.float32)
    ndim = 2

    def __init__(
        self, address: int, shape: tuple[int, int], stride: int, stream: int, owner: Any
    ) -> None:
        self.shape = shape
        # As the compiled module takes it; the owner keeps the memory.
        self.parts = (address, *shape, stride, stream, owner)
        self._host: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        return 4 * self.shape[0] * self.shape[1]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if self._host is None:
            self._host = resolve_backend("cuda").ops.to_host(self.parts)
        return self._host.astype(dtype or np.float32, copy=bool(copy))

    def __getitem__(self, key: Any) -> NDArray[Any]:
        found: NDArray[Any] = np.asarray(self)[key]
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        return np.array, (np.asarray(self),)


def is_on_gpu(x: Any) -> bool:
    """Whether an array lies in the memory of an NVIDIA GPU."""
    if isinstance(x, np.ndarray):
        return False
    device = getattr(x, "__dlpack_device__", None)
    if device is None:
        return isinstance(x, DeviceMatrix) or hasattr(x, "__cuda_array_interface__")
    try:
        return int(device()[0]) in (_CUDA, _MANAGED)
    except (BufferError, RuntimeError, TypeError, ValueError):  # no device that DLPack knows
        return False


def on_gpu(x: Any, name: str, device: str) -> DeviceMatrix:
    """Return a view of an array on a GPU, for ops that run there; nothing is converted or copied.

    Raises TypeError where `device` is the CPU or the elements are not float32, ValueError where the
    array is no matrix of adjacent rows or lies on another GPU.
    """
    backend = resolve_backend(device)
    kind = type(x).__name__
    if backend.device != "cuda":
        raise TypeError(
            f"{name} must be in host memory on device {backend.device!r}; got a {kind} on a GPU. "
            "Pass device='cuda' to an op that has it, or copy the array to the host."
        )
    if isinstance(x, DeviceMatrix):
        return x
    if hasattr(x, "__dlpack__"):
        # The library makes the legacy stream wait for its own; ours waits for that one.
        try:
            capsule = x.__dlpack__(stream=_LEGACY_STREAM)
        except (BufferError, RuntimeError, TypeError, ValueError) as error:
            raise TypeError(
                f"{name} must be an array that DLPack can pass on; got {kind}: {error}"
            ) from error
        address, shape, strides, dtype, index = backend.ops.capsule_parts(capsule)
        stream, owner = _LEGACY_STREAM, (capsule, x)  # ONNX Runtime wants its value kept, too
    else:
        facts = x.__cuda_array_interface__
        if facts.get("mask") is not None:
            raise TypeError(f"{name} must not be masked; got {kind}. Fill it first.")
        address, shape = facts["data"][0], tuple(facts["shape"])
        index = backend.ops.device_of(address) if address else backend.numbers[0]
        dtype, stream, owner = np.dtype(facts["typestr"]), facts.get("stream") or 0, x
        in_bytes = facts.get("strides")
        if in_bytes is None:
            strides = None
        elif any(n % dtype.itemsize for n in in_bytes):
            raise ValueError(f"{name} must have strides of whole elements; got {in_bytes} bytes")
        else:
            strides = tuple(n // dtype.itemsize for n in in_bytes)
    if str(dtype) != "float32":
        raise TypeError(f"{name} must be float32 on a GPU, where nothing is converted; got {dtype}")
    if len(shape) != 2:
        raise ValueError(f"{name} must have 2 dimensions; got shape {shape}")
    if index not in backend.numbers:
        numbers = " or ".join(f"cuda:{number}" for number in dict.fromkeys(backend.numbers))
        raise ValueError(f"{name} must be on {numbers}; got an array on cuda:{index}")
    if address % _ALIGNMENT:  # a kernel that reads there takes the whole process off the GPU
        raise ValueError(f"{name} must lie at a multiple of {_ALIGNMENT} bytes; got {address:#x}")
    return DeviceMatrix(address, shape, _row_stride(shape, strides, name), stream, owner)


def _row_stride(shape: tuple[int, int], strides: tuple[int, ...] | None, name: str) -> int:
    """Return the elements from row to row."""
    n_rows, n_columns = shape
    if strides is None or n_rows * n_columns == 0:
        return n_columns
    adjacent = n_columns == 1 or strides[1] == 1
    if n_rows == 1 and adjacent:
        return n_columns
    if not adjacent or strides[0] < n_columns:
        raise ValueError(
            f"{name} must have adjacent elements in every row; got strides {strides} of elements. "
            "Make it contiguous."
        )
    return strides[0]


def to_gpu(x: NDArray[Any], device: str) -> Any:
    """Return an array of NumPy as one in the memory of the (first) GPU of `device`."""
    backend = resolve_backend(device)
    return backend.ops.DeviceArray(x, device=backend.numbers[0])


def read_in_place(x: Any, name: str) -> Any:
    """Return an array of another library as NumPy's, without a copy where it speaks DLPack."""
    if isinstance(x, np.ndarray) or not hasattr(x, "__dlpack__"):
        return x
    try:
        return np.from_dlpack(x)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        reason = error
    try:  # a dtype that DLPack has no name for, perhaps
        if hasattr(x, "__array__"):
            return np.asarray(x)
    except (RuntimeError, TypeError, ValueError) as error:
        reason = error
    raise TypeError(
        f"{name} must be an array that NumPy can read; got {type(x).__name__}: {reason}"
    ) from reason
