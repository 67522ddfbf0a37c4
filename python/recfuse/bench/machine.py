"""What a result must name: the processor, its caches, versions, the state of the source."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import recfuse

__all__ = [
    "default_threads",
    "describe_machine",
    "git_describe",
    "last_cache_bytes",
    "memory_bytes",
    "openblas_core",
]

_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def default_threads() -> int:
    """Return the number of threads that every contender gets where none is asked for."""
    threads: int = recfuse.doctor()["threads"]
    return threads


def describe_machine(num_threads: int) -> dict[str, Any]:
    """Return the machine as results record it."""
    isa = recfuse.doctor()["isa"]
    return {
        "cpu": _cpu_field("model name") or platform.processor() or platform.machine(),
        "cpu_family": _cpu_field("cpu family"),
        "cpu_model": _cpu_field("model"),
        "cores": os.cpu_count(),
        "threads": num_threads,
        "isa": isa["active"],
        "isas": isa["available"],
        "last_cache_bytes": last_cache_bytes(),
        "memory_bytes": memory_bytes("MemTotal"),
        "system": platform.platform(),
    }


def git_describe() -> str | None:
    """Return the state of the source that recfuse is imported from, None outside a checkout."""
    folder = Path(recfuse.__file__).parent
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--tags"]
    try:
        # An installed copy may lie inside someone else's repository.
        tracked = ["git", "-C", str(folder), "ls-files", "--error-unmatch", "__init__.py"]
        subprocess.run(tracked, capture_output=True, check=True)
        result = subprocess.run(command, capture_output=True, check=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()


@functools.cache
def last_cache_bytes() -> int:
    """Return the size of the last cache level; 32 MiB where the system does not say."""
    sizes = []
    for folder in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        try:
            text = (folder / "size").read_text().strip()
        except OSError:
            continue
        sizes.append(int(text[:-1]) * _UNITS[text[-1]])
    return max(sizes, default=32 << 20)


def memory_bytes(field: str) -> int | None:
    """Return a field of /proc/meminfo, None where there is none."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next(
        (int(line.split()[1]) << 10 for line in lines if line.startswith(f"{field}:")), None
    )


def openblas_core() -> str | None:
    """Return the OPENBLAS_CORETYPE for the widest vectors here, None where it would not help.

    An OpenBLAS that is older than the processor falls back to kernels of 2006.
    """
    flags = (_cpu_field("flags") or "").split()
    if "avx512f" in flags:
        return "SkylakeX"
    return "Haswell" if "avx2" in flags and "fma" in flags else None


@functools.cache
def _cpu_field(name: str) -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    fields = (line.split(":", 1) for line in lines if ":" in line)
    return next((value.strip() for key, value in fields if key.strip() == name), None)
