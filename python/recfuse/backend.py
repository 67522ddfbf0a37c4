"""Devices: which compiled module runs an op, and why one is off."""

from __future__ import annotations

import functools
import importlib
import os
import platform
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from recfuse.errors import DeviceError

__all__ = ["Backend", "doctor", "resolve_backend", "resolve_op"]

_MODULES = {"cpu": "recfuse._core", "cuda": "recfuse._cuda"}
_ORT_PROVIDERS = {"cpu": ["CPUExecutionProvider"], "cuda": ["CUDAExecutionProvider"]}


@dataclass(frozen=True)
class Backend:
    """A device that works: its compiled ops, and what ONNX Runtime calls it."""

    device: str
    ops: ModuleType
    ort_providers: tuple[str, ...]


@functools.cache
def _load(device: str) -> Backend | str:
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
    reason = ops.unusable_reason() if device == "cuda" else ""
    if reason:
        return str(reason)
    return Backend(device, ops, tuple(_ORT_PROVIDERS[device]))


def resolve_backend(device: str = "auto") -> Backend:
    """Return the backend of `device`: 'cpu', 'cuda', or 'auto'.

    'auto' is what the variable RECFUSE_DEVICE says, or the CPU: the kernels of the GPU have run on
    an emulator only, so whoever wants them asks for them. 'cuda' never becomes the CPU.

    Raises
    ------
    ValueError
        If `device` is none of the three.
    DeviceError
        If 'cuda' is asked for and cannot be used; the message says why.
    """
    if device == "auto":
        device = os.environ.get("RECFUSE_DEVICE") or "cpu"
    if device not in _MODULES:
        raise ValueError(f"device must be 'auto', 'cpu' or 'cuda'; got {device!r}")
    backend = _load(device)
    if isinstance(backend, str):
        raise DeviceError(f"device {device!r} cannot be used: {backend}")
    return backend


def resolve_op(name: str, device: str = "auto") -> Any:
    """Return the compiled op `name` of `device`.

    Raises
    ------
    ValueError, DeviceError
        As `resolve_backend`.
    NotImplementedError
        If the device has no such op.
    """
    backend = resolve_backend(device)
    if not hasattr(backend.ops, name):
        raise NotImplementedError(
            f"{name} is not on device {backend.device!r} yet: use device='cpu'"
        )
    return getattr(backend.ops, name)


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
        ``threads`` (the default number), ``cuda`` (``usable``, ``reason``), ``onnxruntime``
        (``version``, ``providers`` of the installed wheel, ``reason`` where it does not import).

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
        },
        "onnxruntime": _onnxruntime(),
    }
