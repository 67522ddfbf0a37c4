"""Sizes that plans of memory are made of, checked."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from recfuse._inputs import as_int, as_num_threads
from recfuse.backend import resolve_backend

__all__ = ["as_dims", "as_size", "as_workers", "ceil", "check_name", "clamp", "planned_device"]

_MOST_THREADS = 512  # of parallel_for


def planned_device(device: str) -> str:
    """Return 'cpu' or 'cuda', with or without a GPU here: a plan may be for another machine."""
    if device == "auto":
        device = os.environ.get("RECFUSE_DEVICE") or "cpu"
    if device not in ("cpu", "cuda"):
        more = ". Of several GPUs plan one, with its share" if device.startswith("cuda:") else ""
        raise ValueError(
            f"plan_memory: device must be 'auto', 'cpu' or 'cuda'; got {device!r}{more}"
        )
    return device


def as_size(value: Any, name: str, *, least: int = 0) -> int:
    size = as_int(value, f"plan_memory: {name}")
    if size < least:
        raise ValueError(f"plan_memory: {name} must be at least {least}; got {size}")
    return size


def as_dims(dims: Any) -> list[int]:
    """Return the columns of every modality."""
    if isinstance(dims, Mapping):
        dims = list(dims.values())
    several = dims if isinstance(dims, Sequence) else [dims]
    if len(several) == 0:
        raise ValueError("plan_memory: dims must have at least 1 modality; got 0")
    return [as_size(width, "dims", least=1) for width in several]


def as_workers(num_threads: Any) -> int:
    threads = as_num_threads(num_threads)
    if threads < 0:
        raise ValueError(f"plan_memory: num_threads must be at least 0; got {threads}")
    default: int = resolve_backend("cpu").ops.default_num_threads()
    return min(threads or default, _MOST_THREADS)


def check_name(value: Any, names: tuple[str, ...], argument: str) -> None:
    if value not in names:
        raise ValueError(f"plan_memory: {argument} must be one of {names}; got {value!r}")


def clamp(x: int, low: int, high: int) -> int:
    return max(low, min(x, high))


def ceil(a: int, b: int) -> int:
    return -(-a // b)
