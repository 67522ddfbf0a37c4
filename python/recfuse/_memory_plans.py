"""The buffers of every op, from its sizes: what the C++ below allocates."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from recfuse._buffers import Buffer, Plan
from recfuse._device_plans import als_on_gpu, cosine_on_gpu, search_on_gpu
from recfuse._inputs import as_int, as_num_threads
from recfuse._streamed import BLOCK_BYTES
from recfuse.backend import resolve_backend
from recfuse.index import FusedIndex, most_kept_bytes

__all__ = ["PLANS", "planned_device"]


# Of cpp/src/ops: search, candidates, float_screen, rounded_items, rounded_reach, screen_choice.
_BLOCK_QUERIES, _SHARED_QUERIES, _PANEL_QUERIES, _BLOCKS_PER_WORKER = 512, 64, 14, 4
_CANDIDATE_BYTES, _SPARE_CANDIDATES, _MANY_DIMS = 32 << 20, 48, 256
_FLOAT_CHUNK, _ROUNDED_CHUNK = 8, 32  # tiles
_FLOAT_TILE, _ROUNDED_TILE, _PANEL_ITEMS = 1 << 18, 256 << 10, 32
_FEW_QUERIES, _MANY_QUERIES, _LEAST_ITEMS = 6, 256, 1024
_MOST_THREADS = 512  # of parallel_for
# Of pair_search, pair_sums, byte_blocks, shared_topk.
_PAIRS_LEAST_ROWS, _LONGEST_RUN, _LONGEST_RANGES_RUN, _BLOCK_IDS = 4, 128, 512, 256
_FEW_ROWS, _RANGE_SIZE, _LEAST_RANGE_ENTRIES = 1 << 16, 1 << 14, 4
_RUN_BYTES, _RUN_BYTES_PER_ENTRY = 16 << 20, 4
_BLOCK_BYTES_PER_ENTRY, _MOST_FOUND, _SPARE_HITS, _TOUCHED_IDS = 8, 1 << 14, 16, 16
_MOST_GROUPS, _MANY_FINDS, _FIND_BYTES = 64, 4096, 16
# Of als_side, als_solve, als_cg, als_block, als_dual, als_cost.
_DUAL_SHARE = 0.8  # of the factors: rows with fewer entries have systems of their entries
_HUGE_ROW, _HUGE_FLOATS, _STRIP_FLOATS, _MICRO_ROWS = 1 << 16, 1 << 22, 4096, 256
_TURNED_ROWS, _KEPT_WORDS, _BLOCK_FACTORS, _KEPT_FLOATS = 8, 1 << 17, 64, 1 << 18


def _plan_topk(
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
    n, d = _size(n_items, "n_items"), sum(_dims(dims))
    if not mapped or np.dtype(dtype) == np.float32 or 4 * n * d <= BLOCK_BYTES:
        return _plan_search(n_queries, n_items, dims, k, dtype, num_threads, again=False)
    # Blocks of the file are converted, searched and forgotten; their lists are merged.
    rows = max(1, BLOCK_BYTES // (4 * d))
    buffers, blocks = _plan_search(n_queries, rows, dims, k, dtype, num_threads, again=False)
    buffers[0] = Buffer("items", np.dtype(dtype).itemsize * n * d, "input")
    buffers.append(Buffer("lists, being merged", 32 * n_queries * k, "kept"))
    return buffers, {**blocks, "items converted at a time": rows}


def _plan_index(
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


def _plan_on_gpu(n_queries: Any, n_items: Any, dims: Any, k: Any, device_bytes: Any) -> Plan:
    q, n = _size(n_queries, "n_queries"), _size(n_items, "n_items")
    free = None if device_bytes is None else _size(device_bytes, "device_bytes")
    return search_on_gpu(q, n, _dims(dims), _size(k, "k", least=1), free)


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


def _plan_search(
    n_queries: Any, n_items: Any, dims: Any, k: Any, dtype: Any, num_threads: Any, *, again: bool
) -> Plan:
    q, n, k = _size(n_queries, "n_queries"), _size(n_items, "n_items"), _size(k, "k", least=1)
    widths = _dims(dims)
    m, d, item_size = len(widths), sum(widths), np.dtype(dtype).itemsize
    workers = _workers(num_threads)
    kept = again and (d + 3 * m) * n <= most_kept_bytes(4 * n * d)
    rounded = n >= _LEAST_ITEMS and (kept or q >= _MANY_QUERIES) and _screens_integers()
    steps = sum(_ceil(width, 4) for width in widths)  # of an item's bytes, in words
    best = max(min(k, n), 1)
    times = 2 if not rounded else 4 if d < _MANY_DIMS else _clamp(3072 // best, 10, 24)
    room = times * best + 64
    if rounded:
        tile = _clamp(_ROUNDED_TILE // max(4 * steps, 1) // 64 * 64, 64, 4096)
    else:
        tile = _clamp(_FLOAT_TILE // max(d, 1) // 64 * 64, 64, 512)
    n_tiles = _ceil(n, tile)
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
            Buffer("sizes of the items, to choose units", (4 * m + 9) * n, "rounding"),
            Buffer("queries in int16", lists * (2 * 32 * _ceil(d, 32) + 8 * m), "search"),
            Buffer(
                "queries, rounded", blocks_at_once * block * (4 * steps + 16 * m + 24), "search"
            ),
            # Of those that look at a tile, where norms keep the others from it.
            Buffer("queries, rounded, of a tile", workers * block * (4 * steps + 16), "search"),
            Buffer(
                "norms of the items, by panels",
                4 * m * _ceil(n, _PANEL_ITEMS),
                "kept" if again else "search",
            ),
        ]
        if kept:
            copy = 4 * steps * _ceil(n, _PANEL_ITEMS) * _PANEL_ITEMS
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
    panels = _ceil(q, _PANEL_QUERIES)
    rounds = workers if by_queries else 1
    largest = min(most, _BLOCK_QUERIES if by_queries else _SHARED_QUERIES)
    n_blocks = min(panels, _ceil(_ceil(q, largest), rounds) * rounds)
    block = min(q, _ceil(panels, n_blocks) * _PANEL_QUERIES)
    at_once = (_BLOCKS_PER_WORKER * workers if one_chunk else most // block) // workers * workers
    at_once = min(n_blocks, _clamp(at_once, workers, max(workers, n_blocks)))
    return block, at_once if by_queries else 1, by_queries


@functools.cache
def _screens_integers() -> bool:
    """Whether this machine's instruction set has an integer screen: a small index tells."""
    probe = FusedIndex({"": np.zeros((_LEAST_ITEMS, 1), np.float32)}, device="cpu")
    return bool(probe.plan()["screen"] != "float32")


def _plan_cosine_knn(
    *,
    n_rows: int,
    n_cols: int,
    nnz: int,
    k: int,
    values: str = "real",
    norm: str = "full",
    device: str = "auto",
    num_threads: int = 0,
) -> Plan:
    rows, cols, e = _size(n_rows, "n_rows"), _size(n_cols, "n_cols"), _size(nnz, "nnz")
    k = min(_size(k, "k", least=1), max(rows, 1))
    _check_name(values, ("ones", "whole", "real"), "values")
    _check_name(norm, ("full", "corated"), "norm")
    if planned_device(device) == "cuda":
        return cosine_on_gpu(rows, cols, e, k, values, norm)
    workers = _workers(num_threads)
    by_pairs = norm == "full" and k <= rows // _PAIRS_LEAST_ROWS and e < 1 << 32
    # Of pairs, nothing is written before all are met, and what only the search needs is free.
    lists_in = ("write", "result") if by_pairs else ("kept",)
    buffers = [
        Buffer("matrix", 8 * e + 4 * (rows + 1), "input"),
        Buffer("indptr in int64", 8 * (rows + 1), "kept"),
        Buffer("norms of the rows", 8 * rows, "search"),
        *(_of_pairs if by_pairs else _of_rows)(rows, cols, e, k, values, norm, workers),
        *(Buffer("ids and scores, padded", 8 * rows * k, phase) for phase in lists_in),
        Buffer("ids and scores as CSR", 9 * rows * k + 12 * rows, "result"),
    ]
    return buffers, {"workers": workers}


def _of_pairs(
    rows: int, cols: int, e: int, k: int, values: str, _norm: str, workers: int
) -> list[Buffer]:
    """Of PairSearch: every pair of rows is met once."""
    counting = values != "real"
    reach = _range_size(rows, cols, e)
    ranges = _ceil(rows, reach)
    word = 8 if not counting else 2 if values == "ones" and reach <= 65536 else 4
    # Parts of the rows count their columns; later, columns tell where their blocks begin.
    parts = _clamp(e // max(cols, 1), 1, workers)
    sum_size = 4 if counting else 8
    found = min(_MOST_FOUND, reach)
    kept = 8 * (k + max(32, k // 2)) + 16  # of a row: its best
    group_rows = 1 << max(rows.bit_length() - _MOST_GROUPS.bit_length() + 1, 0)
    finds = (
        _FIND_BYTES * (rows // group_rows + 1) * (_MANY_FINDS + group_rows + k + max(32, k // 2))
    )
    buffers = [
        Buffer("order of the rows, their norms by it", (12 + sum_size) * rows, "search"),
        Buffer("places of the entries in the lists", 4 * e, "search"),
        Buffer("lists of the columns", word * e + 4 * max(ranges, 1) * (cols + 1), "search"),
        Buffer("counts of the columns", 4 * max(parts, 2 * counting) * cols, "search"),
        Buffer("best of every row", rows * (kept + 4), "search"),
        Buffer("best of every row", rows * (kept + 4), "write"),
        Buffer("order of the rows, their norms twice", 20 * rows, "write"),
        Buffer("sums", workers * (sum_size * reach + reach // _TOUCHED_IDS), "search"),
        Buffer("rows found", workers * (20 + sum_size) * (found + _SPARE_HITS), "search"),
        Buffer("finds to be shared, thresholds", workers * (finds + 4 * rows), "search"),
    ]
    longest = _LONGEST_RANGES_RUN if ranges > 1 else _LONGEST_RUN
    if ranges > 1:
        buffers.append(Buffer("best of the rows of a run", workers * kept * longest, "search"))
    if not counting:
        return buffers
    depth = _ceil(min(rows, reach), _BLOCK_IDS)
    block_bytes = min(_BLOCK_BYTES_PER_ENTRY * e, _BLOCK_IDS * depth * cols)
    run_bytes = min(_RUN_BYTES, _RUN_BYTES_PER_ENTRY * e)
    run = _clamp(min(rows // 64, run_bytes // (4 * _BLOCK_IDS * max(depth, 1))), 8, longest)
    return [
        *buffers,
        Buffer("busy columns as blocks of bytes", block_bytes, "search"),
        Buffer("sums of the blocks", workers * 4 * _BLOCK_IDS * depth * run, "search"),
        # Of rows of mean length: how long the longest are, no size tells.
        Buffer("columns of a run", workers * 9 * run * _ceil(e, max(rows, 1)), "search"),
    ]


def _range_size(rows: int, cols: int, e: int) -> int:
    """Rows that have lists of their own."""
    if rows <= _FEW_ROWS:
        return max(rows, 1)
    most = max(1, e // (_LEAST_RANGE_ENTRIES * (cols + 1)))
    return _ceil(_ceil(rows, most), _RANGE_SIZE) * _RANGE_SIZE


def _of_rows(
    rows: int, cols: int, e: int, k: int, values: str, norm: str, workers: int
) -> list[Buffer]:
    """Of NeighbourSearch: a row is compared with all."""
    counting = values == "ones" or (values == "whole" and norm == "full")
    value_size = {"ones": 0, "whole": 2}[values] if counting else 4
    sum_size = 4 if counting else 8 if norm == "full" else 32
    return [
        Buffer("transpose", ((2 if rows <= 65536 else 4) + value_size) * e + 8 * cols, "search"),
        Buffer("norms by the numbers of the rows", 24 * rows, "search"),
        Buffer("work of the rows, sorted", 20 * rows, "search"),
        Buffer("sums", workers * sum_size * rows, "search"),
    ]


def _plan_als(
    *,
    n_users: int,
    n_items: int,
    nnz: int,
    factors: int,
    solver: str = "auto",
    objective: str = "implicit",
    biases: bool = False,
    device: str = "auto",
    num_threads: int = 0,
) -> Plan:
    users, items, e = _size(n_users, "n_users"), _size(n_items, "n_items"), _size(nnz, "nnz")
    f = _size(factors, "factors", least=1)
    _check_name(solver, ("auto", "cholesky", "cg", "block"), "solver")
    _check_name(objective, ("implicit", "explicit"), "objective")
    if planned_device(device) == "cuda":
        return als_on_gpu(
            users, items, e, f, objective=objective, solver=solver, biases=bool(biases)
        )
    workers = _workers(num_threads)
    rows, most_rows = users + items, max(users, items)
    width = _ceil(f + bool(biases), 16) * 16
    stride = width + 16 if width % 256 == 0 else width
    square = width * stride
    longest = min(most_rows, e)  # entries of a row
    if solver == "auto":  # lengths of rows decide: room for either
        own, at_once = max(
            (
                _OF_SOLVERS[name](width, stride, most_rows, longest, workers)
                for name in ("cholesky", "cg")
            ),
            key=lambda plan: sum(buffer.n_bytes for buffer in plan[0]),
        )
    else:
        own, at_once = _OF_SOLVERS[solver](width, stride, most_rows, longest, workers)
    dual = objective == "implicit" and e < _DUAL_SHARE * f * most_rows
    if solver == "cholesky" and dual:
        own.append(Buffer("factors of the other side, turned", 4 * most_rows * stride, "kept"))
        own.append(Buffer("systems of entries", 8 * workers * square, "steps"))
    buffers = [
        Buffer("user_items", 8 * e + 4 * (users + 1), "input"),
        Buffer("indptr in int64", 8 * (users + 1), "kept"),
        Buffer("item_users, the transpose", 8 * e + 8 * (items + 1), "kept"),
        Buffer("factors", 4 * rows * stride, "kept"),
        Buffer("order of the rows, biases", 8 * rows, "kept"),
        Buffer("starting factors", 4 * f * rows, "start"),
        *own,
        Buffer("user_factors_, item_factors_", 4 * f * rows, "result"),
    ]
    if objective == "implicit":
        # In float64, and as it is added up: by each thread in float32, in two parts a thread.
        buffers.append(Buffer("Gram matrix, being added up", (12 + 20 * workers) * square, "Gram"))
        if solver != "cholesky" or dual:
            n = f + bool(biases)
            buffers.append(Buffer("Gram matrix", 12 * square, "eigenvectors"))
            buffers.append(Buffer("eigenvectors, being found", 24 * n * n, "eigenvectors"))
            buffers.append(Buffer("eigenvectors, there and back", 8 * square, "steps"))
    buffers.append(Buffer("Gram matrix, as systems begin", 12 * square, "steps"))
    return buffers, {"workers": workers, "entries gathered at once": at_once}


def _of_cholesky(
    width: int, stride: int, most_rows: int, longest: int, workers: int
) -> tuple[list[Buffer], int]:
    square = width * stride
    huge = longest > _HUGE_ROW
    gathered = max(_STRIP_FLOATS // width, 64, _MICRO_ROWS * huge)
    buffers = [
        Buffer("gathered rows", 4 * workers * gathered * (stride + 2), "steps"),
        Buffer("systems", 4 * workers * (square + 3 * width), "steps"),
        # One at a time: its own matrices, and two parts in float64 a thread.
        Buffer("system of a huge row", huge * (16 + 16 * workers) * square, "steps"),
    ]
    return buffers, gathered


def _of_cg(
    width: int, stride: int, most_rows: int, longest: int, workers: int
) -> tuple[list[Buffer], int]:
    packed = _ceil(width, 32) * 32
    entries = min(longest, _HUGE_ROW, _HUGE_FLOATS // stride)
    gathered = min(longest, _KEPT_WORDS // (packed // 2))
    buffers = [
        Buffer("factors of the other side, turned", 4 * most_rows * packed, "kept"),
        Buffer("gathered rows", workers * min(4 * _KEPT_WORDS, 4 * longest * packed), "steps"),
        Buffer("weights and targets", workers * 8 * entries, "steps"),
        _turned_rows(stride, workers),
        Buffer("vectors", 4 * workers * 7 * packed, "steps"),
    ]
    return buffers, gathered


def _of_block(
    width: int, stride: int, most_rows: int, longest: int, workers: int
) -> tuple[list[Buffer], int]:
    padded = _ceil(width, _BLOCK_FACTORS) * _BLOCK_FACTORS
    gathered = min(longest, _KEPT_FLOATS // padded)
    held = max(gathered * padded, _BLOCK_FACTORS * _BLOCK_FACTORS)
    buffers = [
        Buffer("factors of the other side, by blocks", 4 * most_rows * padded, "kept"),
        Buffer("gathered rows", 4 * workers * held, "steps"),
        Buffer("weights, targets, predictions", workers * 12 * longest, "steps"),
        _turned_rows(stride, workers),
        Buffer("system", 4 * workers * (_BLOCK_FACTORS**2 + 2 * padded), "steps"),
    ]
    return buffers, gathered


def _turned_rows(stride: int, workers: int) -> Buffer:
    """Of TurnScratch."""
    return Buffer("rows, being turned", 8 * workers * _TURNED_ROWS * stride, "steps")


_OF_SOLVERS = {"cholesky": _of_cholesky, "cg": _of_cg, "block": _of_block}

PLANS: dict[str, Callable[..., Plan]] = {
    "topk": _plan_topk,
    "fuse_topk": _plan_topk,
    "FusedIndex": _plan_index,
    "cosine_knn": _plan_cosine_knn,
    "als": _plan_als,
}


def _size(value: Any, name: str, *, least: int = 0) -> int:
    size = as_int(value, f"plan_memory: {name}")
    if size < least:
        raise ValueError(f"plan_memory: {name} must be at least {least}; got {size}")
    return size


def _dims(dims: Any) -> list[int]:
    """Return the columns of every modality."""
    if isinstance(dims, Mapping):
        dims = list(dims.values())
    several = dims if isinstance(dims, Sequence) else [dims]
    if len(several) == 0:
        raise ValueError("plan_memory: dims must have at least 1 modality; got 0")
    return [_size(width, "dims", least=1) for width in several]


def _workers(num_threads: Any) -> int:
    threads = as_num_threads(num_threads)
    if threads < 0:
        raise ValueError(f"plan_memory: num_threads must be at least 0; got {threads}")
    default: int = resolve_backend("cpu").ops.default_num_threads()
    return min(threads or default, _MOST_THREADS)


def _check_name(value: Any, names: tuple[str, ...], argument: str) -> None:
    if value not in names:
        raise ValueError(f"plan_memory: {argument} must be one of {names}; got {value!r}")


def _clamp(x: int, low: int, high: int) -> int:
    return max(low, min(x, high))


def _ceil(a: int, b: int) -> int:
    return -(-a // b)
