"""Devices: which compiled module runs an op, and why one is off."""

from __future__ import annotations

import functools
import importlib
import os
import platform
import re
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from recfuse.errors import DeviceError

__all__ = ["Backend", "doctor", "parse_device", "resolve_backend", "resolve_op"]

_MODULES = {"cpu": "recfuse._core", "cuda": "recfuse._cuda"}
_NUMBERED = re.compile(r"cuda:[0-9]{1,4}(,[0-9]{1,4})*")
_ON_SEVERAL = ("AlsSolver", "FusedIndex")  # ops that take the numbers of GPUs
_ORT_PROVIDERS = {"cpu": ["CPUExecutionProvider"], "cuda": ["CUDAExecutionProvider"]}


@dataclass(frozen=True)
class Backend:
    """A device that works: its compiled ops, and what ONNX Runtime calls it."""

    device: str
    ops: ModuleType
    ort_providers: tuple[str, ...]
    numbers: tuple[int, ...] = ()  # of the GPUs, in the order in which they have the items

    @property
    def name(self) -> str:
        """'cpu', 'cuda', or with the numbers of other GPUs than the first: 'cuda:0,1'."""
        named = self.numbers not in ((), (0,))
        return f"{self.device}:{','.join(map(str, self.numbers))}" if named else self.device


def parse_device(device: Any = "auto") -> tuple[str, tuple[int, ...]]:
    """Return what `device` means: 'cpu' or 'cuda', and the numbers of the GPUs.

    'auto' is what the variable RECFUSE_DEVICE says, or the CPU. A GPU may be named more than once.

    Raises
    ------
    ValueError
        If it means nothing.
    """
    if device == "auto":
        device = os.environ.get("RECFUSE_DEVICE") or "cpu"
    if device == "cpu":
        return "cpu", ()
    if device == "cuda":
        return "cuda", (0,)
    if not isinstance(device, str) or not _NUMBERED.fullmatch(device):
        raise ValueError(
            "device must be 'auto', 'cpu', 'cuda', or 'cuda:' and numbers of GPUs as in "
            f"'cuda:0,1'; got {device!r}"
        )
    return "cuda", tuple(int(number) for number in device.removeprefix("cuda:").split(","))


@functools.cache
def _load(device: str, numbers: tuple[int, ...] = (0,)) -> Backend | str:
    """Return the backend, or the reason there is none; its module is imported at the first call."""
    name = _MODULES[device]
    try:
        ops = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        return (
            f"this build of recfuse has no {device.upper()} module: build it where nvcc is, "
            "12.4 or later (the variable CUDACXX says where)"
        )
    except ImportError as error:  # a shared library is missing
        return f"{name} does not load: {error}"
    reason = _obstacle(ops, numbers) if device == "cuda" else ""
    if reason:
        return reason
    return Backend(device, ops, tuple(_ORT_PROVIDERS[device]), numbers if device == "cuda" else ())


def _obstacle(ops: ModuleType, numbers: tuple[int, ...]) -> str:
    """Return why one of these GPUs cannot be used; empty where all can."""
    n_devices = ops.device_count()
    for number in numbers:
        if number >= max(n_devices, 1):
            return f"numbers of GPUs must be below {n_devices}, for so many are here; got {number}"
        reason = str(ops.unusable_reason(number))
        if reason:
            return reason if numbers == (0,) else f"cuda:{number}: {reason}"
    return ""


def resolve_backend(device: str = "auto") -> Backend:
    """Return the backend of `device`: 'cpu', 'cuda', 'auto', or GPUs by number, as in 'cuda:0,1'.

    'auto' is what the variable RECFUSE_DEVICE says, or the CPU: the kernels of the GPU have run on
    an emulator only, so whoever wants them asks for them. 'cuda', which is 'cuda:0', never becomes
    the CPU.

    Raises
    ------
    ValueError
        If `device` is none of these.
    DeviceError
        If GPUs are asked for and one cannot be used; the message says why.
    """
    kind, numbers = parse_device(device)
    backend = _load(kind, numbers)
    if isinstance(backend, str):
        name = device if device != "auto" else os.environ["RECFUSE_DEVICE"]
        raise DeviceError(f"device {name!r} cannot be used: {backend}")
    return backend


def resolve_op(name: str, device: str = "auto") -> Any:
    """Return the compiled op `name` of `device`.

    Raises
    ------
    ValueError, DeviceError
        As `resolve_backend`.
    NotImplementedError
        If the device has no such op, or not on other GPUs than the first.
    """
    backend = resolve_backend(device)
    if not hasattr(backend.ops, name):
        raise NotImplementedError(
            f"{name} is not on device {backend.device!r} yet: use device='cpu'"
        )
    op = getattr(backend.ops, name)
    if name in _ON_SEVERAL and backend.numbers:
        return functools.partial(op, devices=list(backend.numbers))
    if backend.numbers not in ((), (0,)):
        raise NotImplementedError(
            f"{name} runs on the first GPU alone so far: device must be 'cpu' or 'cuda'; got "
            f"{backend.name!r}"
        )
    return op


def _gpus(ops: ModuleType) -> list[dict[str, Any]]:
    """Return what there is to know of every GPU."""
    found = []
    for number in range(ops.device_count()):
        reason = str(ops.unusable_reason(number)) or None
        gpu: dict[str, Any] = {"name": f"cuda:{number}", "usable": reason is None, "reason": reason}
        if reason is None:
            gpu["model"] = ops.device_name(number)
            gpu["free_bytes"], gpu["total_bytes"] = ops.memory_info(number)
        found.append(gpu)
    return found


def _version_of(package: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _onnxruntime() -> dict[str, Any]:
    try:
        import onnxruntime
    except ImportError as error:
        return {"version": None, "providers": [], "reason": str(error)}
    # What the wheel was built with; a session may still refuse it (OnnxEncoder checks).
    return {
        "version": onnxruntime.__version__,
        "providers": onnxruntime.get_available_providers(),
        "reason": None,
    }


def doctor() -> dict[str, Any]:
    """Report what runs here: versions, instruction sets, threads, devices and why CUDA is off.

    Returns
    -------
    dict
        ``versions`` (of recfuse, Python, NumPy, SciPy), ``isa`` (``active``, ``available``),
        ``threads`` (the default number), ``cuda`` (``usable``, ``reason``, and ``devices``: of
        every GPU ``name``, ``usable``, ``reason``, and where it is usable ``model``,
        ``free_bytes``, ``total_bytes``), ``onnxruntime`` (``version``, ``providers`` of the
        installed wheel, ``reason`` where it does not import).

    Examples
    --------
    >>> import recfuse
    >>> recfuse.doctor()["isa"]["active"] in recfuse.doctor()["isa"]["available"]
    True
    """
    from recfuse import __version__

    core = resolve_backend("cpu").ops
    cuda = _load("cuda")
    return {
        "versions": {
            "recfuse": __version__,
            "python": platform.python_version(),
            "numpy": _version_of("numpy"),
            "scipy": _version_of("scipy"),
        },
        "isa": {"active": core.active_isa(), "available": core.available_isas()},
        "threads": core.default_num_threads(),
        "cuda": {
            "usable": isinstance(cuda, Backend),
            "reason": cuda if isinstance(cuda, str) else None,
            "devices": _gpus(cuda.ops) if isinstance(cuda, Backend) else [],
        },
        "onnxruntime": _onnxruntime(),
    }
