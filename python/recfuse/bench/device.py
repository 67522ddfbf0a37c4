"""The GPU of a benchmark: why there may be none, and the inputs of a case that lie on it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from numpy.typing import NDArray

from recfuse import backend
from recfuse.bench.case import Inputs
from recfuse.bench.clock import Clock
from recfuse.errors import DeviceError

__all__ = ["DEVICES", "DeviceInputs", "Site", "rehearse"]

DEVICES = ("cpu", "cuda", "emulator")
_EMULATOR = "_cuda_emulated"
T = TypeVar("T")


class Site:
    """A GPU and its clock.

    Parameters
    ----------
    device : {'cuda', 'emulator'}
        With 'emulator', recfuse runs on the emulator of a GPU and PyTorch on the CPU: the same
        lines of code, and times that mean nothing.

    Raises
    ------
    DeviceError
        If there is no GPU, recfuse has none of its kernels, or PyTorch is missing.
    """

    def __init__(self, device: str) -> None:
        if device == "emulator":
            rehearse()
        self.name = device
        self.torch_device = "cuda" if device == "cuda" else "cpu"
        try:
            backend.resolve_backend("cuda")
            import torch
        except DeviceError as error:
            raise DeviceError(f"bench: device={device!r} has nothing to run on: {error}") from error
        except ImportError as error:
            raise DeviceError(
                f"bench: device={device!r} needs PyTorch with CUDA, for arrays on the GPU and its "
                f"clock ({error})"
            ) from error
        if device == "cuda" and not torch.cuda.is_available():
            raise DeviceError(
                "bench: device='cuda' needs PyTorch with CUDA, for arrays on the GPU and its "
                f"clock; torch {torch.__version__} finds no GPU"
            )
        self.clock = Clock(self.torch_device)

    def describe(self) -> dict[str, Any]:
        """Return the device as results record it."""
        import torch

        if self.name != "cuda":
            return {"name": "emulator"}
        properties = torch.cuda.get_device_properties(0)
        return {
            "name": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "memory_bytes": properties.total_memory,
            "cache_bytes": self.cache_bytes,
        }

    @property
    def cache_bytes(self) -> int:
        """Of the second level, which all multiprocessors share."""
        import torch

        if self.name != "cuda":
            return 1 << 20
        return int(getattr(torch.cuda.get_device_properties(0), "L2_cache_size", 50 << 20))


def rehearse() -> None:
    """Let 'cuda' be the emulator in this process."""
    backend._MODULES["cuda"] = _EMULATOR
    backend._load.cache_clear()


class DeviceInputs(Mapping[str, NDArray[Any]]):
    """The inputs of a case: arrays of the host, and, in `there`, the same as tensors on a device.

    What several contenders need is made once.
    """

    def __init__(self, arrays: Inputs, torch_device: str) -> None:
        self._arrays = arrays
        self._made: dict[str, Any] = {}
        self.torch_device = torch_device
        self.there = _There(self)

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def once(self, name: str, make: Callable[[], T]) -> T:
        """Return what `make` has returned for this name."""
        if name not in self._made:
            self._made[name] = make()
        made: T = self._made[name]
        return made


class _There(Mapping[str, Any]):
    def __init__(self, inputs: DeviceInputs) -> None:
        self._inputs = inputs

    def __getitem__(self, name: str) -> Any:
        return self._inputs.once(f"input {name}", functools.partial(self._sent, name))

    def _sent(self, name: str) -> Any:
        import torch

        return torch.from_numpy(self._inputs[name]).to(self._inputs.torch_device)

    def __iter__(self) -> Iterator[str]:
        return iter(self._inputs)

    def __len__(self) -> int:
        return len(self._inputs)
