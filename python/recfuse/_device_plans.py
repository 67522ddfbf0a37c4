"""The buffers of a search on a GPU, from its sizes: the formulas by which it cuts its work."""

from __future__ import annotations

from recfuse._buffers import Buffer, Plan
from recfuse.backend import resolve_backend
from recfuse.errors import DeviceError

__all__ = ["plan_on_gpu"]


def plan_on_gpu(
    n_queries: int, n_items: int, dims: list[int], k: int, free_bytes: int | None
) -> Plan:
    """Return the buffers on the GPU, and how queries and items are cut."""
    free = _free_bytes() if free_bytes is None else free_bytes
    plan = resolve_backend("cpu").ops.plan_device_memory
    buffers, blocks = plan(n_queries, n_items, dims, k, free)
    return [Buffer(*buffer) for buffer in buffers], blocks


def _free_bytes() -> int | None:
    """Return what the GPU has free; None where there is none to ask."""
    try:
        free: int = resolve_backend("cuda").ops.memory_info()[0]
    except DeviceError:
        return None
    return min(free, 2**63 - 1)
