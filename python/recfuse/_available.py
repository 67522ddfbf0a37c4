"""How much memory this process may still take."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

__all__ = ["available_bytes"]

_CGROUPS = (  # limit, use, and the part of the use that can be reclaimed: version 2, version 1
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        "total_inactive_file",
    ),
)


def available_bytes() -> int:
    """Return what this process can allocate before the system, a cgroup or a limit refuses it.

    Pages of mapped files count as available, because the system can take them back. A very large
    number where nothing tells.
    """
    return max(0, min(_of_system(), _of_cgroup(Path("/sys/fs/cgroup")), _of_limits()))


def _of_system() -> int:
    return _field(Path("/proc/meminfo"), "MemAvailable:", default=sys.maxsize // 1024) * 1024


def _of_cgroup(root: Path) -> int:
    for limit, use, stat, reclaimable in _CGROUPS:
        try:
            most, used = ((root / name).read_text(encoding="ascii") for name in (limit, use))
        except OSError:
            continue
        if most.strip() == "max":
            return sys.maxsize
        return int(most) - int(used) + _field(root / stat, reclaimable, default=0)
    return sys.maxsize


def _of_limits() -> int:
    left = sys.maxsize
    for kind, name in ((resource.RLIMIT_DATA, "VmData:"), (resource.RLIMIT_AS, "VmSize:")):
        limit = resource.getrlimit(kind)[0]
        if limit != resource.RLIM_INFINITY:
            left = min(left, limit - 1024 * _field(Path("/proc/self/status"), name, default=0))
    return left


def _field(file: Path, name: str, *, default: int) -> int:
    """Return the first number behind `name` at the beginning of a line."""
    try:
        lines = file.read_text(encoding="ascii").splitlines()
    except OSError:
        return default
    words = (line.split() for line in lines)
    return next((int(w[1]) for w in words if len(w) > 1 and w[0] == name), default)
