"""The buffers of an op on a GPU, from its sizes: the formulas by which it cuts its work."""

from __future__ import annotations

from recfuse._buffers import Buffer, Plan
from recfuse.backend import resolve_backend
from recfuse.errors import DeviceError

__all__ = ["als_on_gpu", "cosine_on_gpu", "search_on_gpu"]

# Of cuda/src: als_system, als_side, als_half_step.
_TILE, _LONG_ROW, _GRAM_ROWS = 4, 4096, 256
_PARTS_BYTES, _SCRATCH_BYTES, _PART_BYTES = 256 << 20, 1 << 30, 16
_SHARED_BYTES = 227 << 10  # of a block
_MULTIPROCESSORS = 148  # of the largest device that there is
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


def als_on_gpu(users: int, items: int, nnz: int, unknowns: int, *, implicit: bool) -> Plan:
    """Return the buffers of a fit; `unknowns` of a row: its factors, and its bias if it has one."""
    rows, most_rows = users + items, max(users, items)
    padded = _ceil(unknowns, _TILE) * _TILE
    elements = (padded + 1) * (padded + _TILE)
    parts = max(1, _PARTS_BYTES // (4 * elements))  # that are summed at a time
    of_gram = min(parts, _ceil(most_rows, _GRAM_ROWS))
    buffers = [
        Buffer("interactions, by users and by items", 16 * nnz + 8 * (rows + 2), "kept"),
        Buffer("factors", 4 * rows * unknowns, "kept"),
        Buffer("order of the rows, penalties", 4 * rows + 16, "kept"),
        Buffer("rows that float32 cannot solve", 8 * most_rows + 4, "steps"),
        Buffer("parts of long rows", _of_long_rows(users, items, nnz, parts, elements), "steps"),
    ]
    if implicit:
        buffers += [Buffer("Gram matrix", 8 * elements, phase) for phase in ("Gram", "steps")]
        of_parts = of_gram * (_PART_BYTES + 4 * elements)
        buffers.append(Buffer("Gram matrix, parts of it", of_parts, "Gram"))
    if _system_bytes(padded, elements) > _SHARED_BYTES:
        blocks = min(most_rows, _SCRATCH_BYTES // (4 * elements), 4 * _MULTIPROCESSORS)
        buffers.append(Buffer("systems", 4 * elements * max(blocks, 1), "steps"))
    return buffers, {"parts at once": parts}


def _of_long_rows(users: int, items: int, nnz: int, at_once: int, elements: int) -> int:
    """Return the bytes of as many long rows as there can be, of which no size tells."""
    longest = min(max(users, items), nnz)
    if longest <= _LONG_ROW:
        return 0
    # Whose last part has one entry, all of them.
    most = min(2 * (nnz // (_LONG_ROW + 1)), max(at_once, _ceil(longest, _LONG_ROW)))
    return most * (_PART_BYTES + 4 * elements) + 8 * (most + 1)


def _system_bytes(padded: int, elements: int) -> int:
    return 4 * (elements + 3 * padded + _TILE**2 + _TILE)


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


def _ceil(a: int, b: int) -> int:
    return -(-a // b)
