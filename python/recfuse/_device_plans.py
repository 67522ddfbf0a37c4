"""The buffers of a search on a GPU, from its sizes: what cuda/src/fused_search.cuh allocates."""

from __future__ import annotations

from recfuse._buffers import Buffer, Plan

__all__ = ["plan_on_gpu"]

# Of cuda/src: SearchLimits, tile_image, screen, candidates.
_CAPACITY, _MOST_K, _MOST_DIM, _FEW_QUERIES = 4096, 1024, 1 << 15, 64
_BATCH_BYTES, _KEYS_BYTES = 256 << 20, 256 << 20
_CANDIDATE_BYTES, _KEY_BYTES = 12, 8
_TILE_ITEMS, _SLAB, _FEW_TILE, _MANY_TILE = 128, 64, 16, 256


def plan_on_gpu(n_queries: int, n_items: int, dims: list[int], k: int) -> Plan:
    """Return the buffers on the GPU, and how the queries are cut."""
    q, n, m, d = n_queries, n_items, len(dims), sum(dims)
    tiles, slabs = -(-n // _TILE_ITEMS), -(-d // _SLAB)
    room = max(_CAPACITY, _power_of_two(8 * min(k, _MOST_K)))
    batch = max(1, min(q, _BATCH_BYTES // (room * _CANDIDATE_BYTES)))
    screened = d <= _MOST_DIM and k <= _MOST_K
    tile = _FEW_TILE if batch <= _FEW_QUERIES else _MANY_TILE
    keys = _power_of_two(n) * _KEY_BYTES
    at_once = min(batch, max(1, _KEYS_BYTES // keys))
    buffers = [
        Buffer("items", 4 * n * d, "kept"),
        Buffer("norms and groups of the items", (8 * m + 4) * n, "kept"),
        Buffer("ranges of the items, being measured", (4 * m + 4) * n, "build"),
        Buffer("order of the scan", 4 * tiles * (_TILE_ITEMS + 1), "kept"),
    ]
    if d <= _MOST_DIM:
        buffers += [
            Buffer("items in float16", 2 * tiles * _TILE_ITEMS * slabs * _SLAB, "kept"),
            Buffer("norms of tiles", 16 * tiles * m, "kept"),
        ]
    for phase in ("screen", "scoring of every item"):
        buffers += [
            Buffer("queries", 4 * batch * d, phase),
            Buffer("weights, norms and factors of the queries", (16 * m + 8) * batch, phase),
            Buffer("ids and scores", 8 * batch * k, phase),
        ]
    if screened:
        rows = -(-batch // tile) * tile
        buffers += [
            Buffer("queries in float16", 2 * rows * slabs * _SLAB, "screen"),
            Buffer("bounds and thresholds", (16 * m + 16) * batch, "screen"),
            Buffer("candidates", batch * room * _CANDIDATE_BYTES, "screen"),
        ]
    # Of queries that are not screened, or that have more candidates than there is room for.
    buffers.append(Buffer("keys", at_once * keys, "scoring of every item"))
    return buffers, {"queries": batch, "queries whose every item is scored": at_once}


def _power_of_two(n: int) -> int:
    return 1 << max(n - 1, 0).bit_length()
