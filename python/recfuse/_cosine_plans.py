"""The buffers of `cosine_knn`, from its sizes: what the C++ below allocates."""

from __future__ import annotations

from recfuse._buffers import Buffer, Plan
from recfuse._device_plans import cosine_on_gpu
from recfuse._plan_sizes import as_size, as_workers, ceil, check_name, clamp, planned_device

__all__ = ["plan_cosine_knn"]

# Of pair_search, pair_sums, byte_blocks, shared_topk.
_PAIRS_LEAST_ROWS, _LONGEST_RUN, _LONGEST_RANGES_RUN, _BLOCK_IDS = 4, 128, 512, 256
_FEW_ROWS, _RANGE_SIZE, _LEAST_RANGE_ENTRIES = 1 << 16, 1 << 14, 4
_RUN_BYTES, _RUN_BYTES_PER_ENTRY = 16 << 20, 4
_BLOCK_BYTES_PER_ENTRY, _MOST_FOUND, _SPARE_HITS, _TOUCHED_IDS = 8, 1 << 14, 16, 16
_MOST_GROUPS, _MANY_FINDS, _FIND_BYTES = 64, 4096, 16


def plan_cosine_knn(
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
    rows, cols, e = as_size(n_rows, "n_rows"), as_size(n_cols, "n_cols"), as_size(nnz, "nnz")
    k = min(as_size(k, "k", least=1), max(rows, 1))
    check_name(values, ("ones", "whole", "real"), "values")
    check_name(norm, ("full", "corated"), "norm")
    if planned_device(device) == "cuda":
        return cosine_on_gpu(rows, cols, e, k, values, norm)
    workers = as_workers(num_threads)
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
    ranges = ceil(rows, reach)
    word = 8 if not counting else 2 if values == "ones" and reach <= 65536 else 4
    # Parts of the rows count their columns; later, columns tell where their blocks begin.
    parts = clamp(e // max(cols, 1), 1, workers)
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
    depth = ceil(min(rows, reach), _BLOCK_IDS)
    block_bytes = min(_BLOCK_BYTES_PER_ENTRY * e, _BLOCK_IDS * depth * cols)
    run_bytes = min(_RUN_BYTES, _RUN_BYTES_PER_ENTRY * e)
    run = clamp(min(rows // 64, run_bytes // (4 * _BLOCK_IDS * max(depth, 1))), 8, longest)
    return [
        *buffers,
        Buffer("busy columns as blocks of bytes", block_bytes, "search"),
        Buffer("sums of the blocks", workers * 4 * _BLOCK_IDS * depth * run, "search"),
        # Of rows of mean length: how long the longest are, no size tells.
        Buffer("columns of a run", workers * 9 * run * ceil(e, max(rows, 1)), "search"),
    ]


def _range_size(rows: int, cols: int, e: int) -> int:
    """Rows that have lists of their own."""
    if rows <= _FEW_ROWS:
        return max(rows, 1)
    most = max(1, e // (_LEAST_RANGE_ENTRIES * (cols + 1)))
    return ceil(ceil(rows, most), _RANGE_SIZE) * _RANGE_SIZE


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
