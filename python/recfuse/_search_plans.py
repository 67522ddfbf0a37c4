"""The buffers of searches and of ranks of pairs, from their sizes: what the C++ allocates."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from recfuse._buffers import Buffer, Plan
from recfuse._device_plans import ranks_on_gpu, search_on_gpu
from recfuse._plan_sizes import as_dims, as_size, as_workers, ceil, clamp, planned_device
from recfuse._streamed import BLOCK_BYTES
from recfuse.index import FusedIndex, most_kept_bytes

__all__ = ["plan_index", "plan_rank_pairs", "plan_topk"]

_RANKED_PANELS, _PREPARED_FLOATS = 8, 16 << 20  # of rank_pairs
# Of cpp/src/ops: search, candidates, float_screen, neighbourhoods, rounded_items, rounded_reach,
# screen_choice.
_BLOCK_QUERIES, _SHARED_QUERIES, _PANEL_QUERIES, _BLOCKS_PER_WORKER = 512, 64, 14, 4
_CANDIDATE_BYTES, _SPARE_CANDIDATES, _MANY_DIMS = 32 << 20, 48, 256
_LEAST_NEAR, _MOST_NEAR, _MOST_NEAR_LIST = 4096, 1 << 17, 32  # neighbourhoods
_FLOAT_CHUNK, _ROUNDED_CHUNK = 8, 32  # tiles
_FLOAT_TILE, _ROUNDED_TILE, _PANEL_ITEMS = 1 << 18, 256 << 10, 32
_FEW_QUERIES, _MANY_QUERIES, _LEAST_ITEMS = 6, 256, 1024


def plan_topk(
    *,
    n_queries: int,
    n_items: int,
    dims: Any,
    k: int,
    dtype: Any = "float32",
    mapped: bool = False,
    device: str = "auto",
    device_bytes: int | None = None,
    num_threads: int = 0,
) -> Plan:
    if planned_device(device) == "cuda":
        return _plan_on_gpu(n_queries, n_items, dims, k, device_bytes)
    n, d = as_size(n_items, "n_items"), sum(as_dims(dims))
    if not mapped or np.dtype(dtype) == np.float32 or 4 * n * d <= BLOCK_BYTES:
        return _plan_search(n_queries, n_items, dims, k, dtype, num_threads, again=False)
    # Blocks of the file are converted, searched and forgotten; their lists are merged.
    rows = max(1, BLOCK_BYTES // (4 * d))
    buffers, blocks = _plan_search(n_queries, rows, dims, k, dtype, num_threads, again=False)
    buffers[0] = Buffer("items", np.dtype(dtype).itemsize * n * d, "input")
    buffers.append(Buffer("lists, being merged", 32 * n_queries * k, "kept"))
    return buffers, {**blocks, "items converted at a time": rows}


def plan_index(
    *,
    n_queries: int,
    n_items: int,
    dims: Any,
    k: int,
    dtype: Any = "float32",
    device: str = "auto",
    device_bytes: int | None = None,
    num_threads: int = 0,
) -> Plan:
    if planned_device(device) == "cuda":
        return _plan_on_gpu(n_queries, n_items, dims, k, device_bytes)
    return _plan_search(n_queries, n_items, dims, k, dtype, num_threads, again=True)


def plan_rank_pairs(
    *,
    n_queries: int,
    n_items: int,
    dims: Any,
    n_pairs: int,
    n_excluded: int = 0,
    device: str = "auto",
    device_bytes: int | None = None,
    num_threads: int = 0,
) -> Plan:
    q, n = as_size(n_queries, "n_queries"), as_size(n_items, "n_items")
    widths, pairs = as_dims(dims), as_size(n_pairs, "n_pairs")
    excluded = as_size(n_excluded, "n_excluded")
    if planned_device(device) == "cuda":
        free = None if device_bytes is None else as_size(device_bytes, "device_bytes")
        return ranks_on_gpu(q, n, widths, pairs, excluded, free)
    workers, m, d = as_workers(num_threads), len(widths), sum(widths)
    tile = clamp(_FLOAT_TILE // max(d, 1) // 64 * 64, 64, 512)
    panels = ceil(q, _RANKED_PANELS * _PANEL_QUERIES)
    packed = min(_PREPARED_FLOATS, ceil(n, tile) * tile * d)
    own = 8 * q + 8 * excluded + 8 * pairs  # of SciPy's matrices, whose indptr becomes int64
    buffers = [
        Buffer("items", 4 * n * d, "input"),
        Buffer("queries, pairs, excluded items", 4 * q * d + own, "input"),
        Buffer("norms of the items, flags", (12 * m + 1) * n, "kept"),
        Buffer("order of the scan", 4 * n, "kept"),
        Buffer("order of the scan, being sorted", 4 * n, "build"),
        Buffer("norms and factors of the queries", (16 * m + 10) * q, "search"),
        Buffer("scores and ranks of the pairs", 16 * pairs, "search"),
        Buffer("indptr in int64, ranked items", (8 + 8 * (excluded > 0) + 4) * q, "search"),
        Buffer("items, packed on the way", 4 * packed, "search"),
        Buffer(
            "queries, packed",
            min(workers, panels) * 4 * d * min(q, _RANKED_PANELS * _PANEL_QUERIES),
            "search",
        ),
    ]
    return buffers, {"workers": workers, "items per tile": tile}


def _plan_on_gpu(n_queries: Any, n_items: Any, dims: Any, k: Any, device_bytes: Any) -> Plan:
    q, n = as_size(n_queries, "n_queries"), as_size(n_items, "n_items")
    free = None if device_bytes is None else as_size(device_bytes, "device_bytes")
    return search_on_gpu(q, n, as_dims(dims), as_size(k, "k", least=1), free)


def _plan_search(
    n_queries: Any, n_items: Any, dims: Any, k: Any, dtype: Any, num_threads: Any, *, again: bool
) -> Plan:
    q, n, k = as_size(n_queries, "n_queries"), as_size(n_items, "n_items"), as_size(k, "k", least=1)
    widths = as_dims(dims)
    m, d, item_size = len(widths), sum(widths), np.dtype(dtype).itemsize
    workers = as_workers(num_threads)
    kept = again and (d + 3 * m) * n <= most_kept_bytes(4 * n * d)
    rounded = n >= _LEAST_ITEMS and (kept or q >= _MANY_QUERIES) and _screens_integers()
    steps = sum(ceil(width, 4) for width in widths)  # of an item's bytes, in words
    best = max(min(k, n), 1)
    times = 2 if not rounded else 4 if d < _MANY_DIMS else clamp(3072 // best, 10, 24)
    # At most: whether items have neighbourhoods, only their vectors tell.
    near = kept and rounded and m == 1 and d < _MANY_DIMS and _LEAST_NEAR <= n <= _MOST_NEAR
    if near and best <= _MOST_NEAR_LIST:
        times = 16
    room = times * best + 64
    if rounded:
        tile = clamp(_ROUNDED_TILE // max(4 * steps, 1) // 64 * 64, 64, 4096)
    else:
        tile = clamp(_FLOAT_TILE // max(d, 1) // 64 * 64, 64, 512)
    n_tiles = ceil(n, tile)
    chunk = _ROUNDED_CHUNK if rounded else _FLOAT_CHUNK
    list_bytes = 12 * (room + _SPARE_CANDIDATES)
    block, blocks_at_once, by_queries = _cut(q, workers, list_bytes, one_chunk=n_tiles <= chunk)
    lists = block * (blocks_at_once if by_queries else min(workers, max(n_tiles, 1)))
    being_sorted = workers * block  # lists, of which no more is scored than bounds leave
    tiles_at_once = min(chunk if by_queries else workers, n_tiles)
    buffers = [
        Buffer("items", item_size * n * d, "input"),
        Buffer("queries", item_size * q * d, "input"),
        Buffer("norms of the items, flags", (12 * m + 1) * n, "kept"),
        Buffer("order of the scan", 4 * n, "kept"),
        Buffer("order of the scan, being sorted", 4 * n, "build"),
        Buffer("ids and scores", 8 * q * k, "search"),
        Buffer("norms and factors of the queries", (16 * m + 10) * q, "search"),
        Buffer("candidates", lists * (list_bytes + 12), "search"),
        Buffer("candidates to be scored", 8 * (lists + being_sorted) * min(2 * k, room), "search"),
    ]
    if np.dtype(dtype) != np.float32:
        buffers.append(Buffer("items in float32", 4 * n * d, "kept"))
        buffers.append(Buffer("queries in float32", 4 * q * d, "search"))
    if rounded:
        words = 4 * (tile + _PANEL_ITEMS) * steps
        buffers += [
            Buffer("order of the rounded scan", 4 * n, "kept" if again else "search"),
            Buffer("sizes of the items, to choose units", (8 * m + 9) * n, "rounding"),
            Buffer("neighbourhoods of the items", (n + 1024 * d) * near, "kept"),
            Buffer("queries in int16", lists * (2 * 32 * ceil(d, 32) + 8 * m), "search"),
            Buffer(
                "queries, rounded", blocks_at_once * block * (4 * steps + 16 * m + 24), "search"
            ),
            # Of those that look at a tile, where norms keep the others from it.
            Buffer("queries, rounded, of a tile", workers * block * (4 * steps + 16), "search"),
            Buffer(
                "norms of the items, by panels",
                4 * m * ceil(n, _PANEL_ITEMS),
                "kept" if again else "search",
            ),
        ]
        if kept:
            copy = 4 * steps * ceil(n, _PANEL_ITEMS) * _PANEL_ITEMS
            buffers.append(Buffer("items in int8", copy, "kept"))
        else:
            buffers.append(Buffer("tiles, rounded on the way", tiles_at_once * words, "search"))
    elif q > _FEW_QUERIES:
        buffers.append(Buffer("queries, packed", blocks_at_once * block * 4 * d, "search"))
        buffers.append(Buffer("tiles, packed on the way", tiles_at_once * 4 * tile * d, "search"))
    blocks = {"workers": workers, "queries per block": block, "items per tile": tile}
    return buffers, blocks


def _cut(q: int, workers: int, list_bytes: int, *, one_chunk: bool) -> tuple[int, int, bool]:
    """Return queries per block, blocks at once, and whether workers divide queries, not items."""
    q, workers = max(q, 1), min(workers, max(q, 1))
    most = max(1, _CANDIDATE_BYTES // list_bytes)
    by_queries = q >= workers * _PANEL_QUERIES
    panels = ceil(q, _PANEL_QUERIES)
    rounds = workers if by_queries else 1
    largest = min(most, _BLOCK_QUERIES if by_queries else _SHARED_QUERIES)
    n_blocks = min(panels, ceil(ceil(q, largest), rounds) * rounds)
    block = min(q, ceil(panels, n_blocks) * _PANEL_QUERIES)
    at_once = (_BLOCKS_PER_WORKER * workers if one_chunk else most // block) // workers * workers
    at_once = min(n_blocks, clamp(at_once, workers, max(workers, n_blocks)))
    return block, at_once if by_queries else 1, by_queries


@functools.cache
def _screens_integers() -> bool:
    """Whether this machine's instruction set has an integer screen: a small index tells."""
    probe = FusedIndex({"": np.zeros((_LEAST_ITEMS, 1), np.float32)}, device="cpu")
    return bool(probe.plan()["screen"] != "float32")
