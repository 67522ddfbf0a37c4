"""The buffers of an op on a GPU, from its sizes: the formulas by which it cuts its work."""

from __future__ import annotations

from recfuse._buffers import Buffer, Plan
from recfuse.backend import resolve_backend
from recfuse.errors import DeviceError

__all__ = ["als_on_gpu", "cosine_on_gpu", "ranks_on_gpu", "search_on_gpu"]

_MULTIPROCESSORS = 148  # of the largest device that there is: blocks have systems of their own
# Of sparse_memory; real weights may be negative, which takes more.
_VALUES = ("ones", "whole", "positive", "real")


def search_on_gpu(
    n_queries: int, n_items: int, dims: list[int], k: int, free_bytes: int | None
) -> Plan:
    """Return the buffers on the GPU, and how queries and items are cut."""
    free = _free_bytes() if free_bytes is None else free_bytes
    plan = resolve_backend("cpu").ops.plan_device_memory
    buffers, blocks = plan(n_queries, n_items, dims, k, free)
    return [Buffer(*buffer) for buffer in buffers], blocks


def ranks_on_gpu(
    n_queries: int,
    n_items: int,
    dims: list[int],
    n_pairs: int,
    n_excluded: int,
    free_bytes: int | None,
) -> Plan:
    """Return the buffers of `FusedIndex.rank_pairs`, and how queries and items are cut."""
    free = _free_bytes() if free_bytes is None else free_bytes
    plan = resolve_backend("cpu").ops.plan_rank_pairs
    buffers, blocks = plan(n_queries, n_items, dims, n_pairs, n_excluded, free)
    return [Buffer(*buffer) for buffer in buffers], blocks


def als_on_gpu(
    users: int,
    items: int,
    nnz: int,
    factors: int,
    *,
    objective: str,
    solver: str,
    biases: bool,
    free_bytes: int | None,
) -> Plan:
    """Return the buffers of a fit, with a penalty of its own for every row, and its pieces."""
    free = _free_bytes() if free_bytes is None else free_bytes
    plan = resolve_backend("cpu").ops.plan_als
    how = {"objective": objective, "solver": solver, "biases": biases, "frequency_scaling": 1.0}
    buffers, blocks = plan(
        users, items, nnz, factors, **how, multiprocessors=_MULTIPROCESSORS, free_bytes=free
    )
    return [Buffer(*buffer) for buffer in buffers], blocks


def cosine_on_gpu(rows: int, cols: int, nnz: int, k: int, values: str, norm: str) -> Plan:
    """Return the buffers of `cosine_knn`."""
    plan = resolve_backend("cpu").ops.plan_cosine_knn
    kind = _VALUES.index(values)
    found = plan(rows, cols, nnz, k, values=kind, norm=norm, min_support=1)
    return [Buffer(*buffer) for buffer in found], {}


def _free_bytes() -> int | None:
    """Return what the GPU has free; None where there is none to ask."""
    try:
        free: int = resolve_backend("cuda").ops.memory_info()[0]
    except DeviceError:
        return None
    return min(free, 2**63 - 1)
