"""The buffers of a fit of ALS, from its sizes: what the C++ below allocates."""

from __future__ import annotations

from recfuse._buffers import Buffer, Plan
from recfuse._device_plans import als_on_gpu
from recfuse._plan_sizes import as_size, as_workers, ceil, check_name, planned_device

__all__ = ["plan_als"]

# Of als_side, als_solve, als_cg, als_block, als_dual, als_cost.
_DUAL_SHARE = 0.8  # of the factors: rows with fewer entries have systems of their entries
_HUGE_ROW, _HUGE_FLOATS, _STRIP_FLOATS, _MICRO_ROWS = 1 << 16, 1 << 22, 4096, 256
_TURNED_ROWS, _KEPT_WORDS, _BLOCK_FACTORS, _KEPT_FLOATS = 12, 1 << 17, 64, 1 << 18


def plan_als(
    *,
    n_users: int,
    n_items: int,
    nnz: int,
    factors: int,
    solver: str = "auto",
    objective: str = "implicit",
    biases: bool = False,
    device: str = "auto",
    device_bytes: int | None = None,
    num_threads: int = 0,
) -> Plan:
    users, items, e = as_size(n_users, "n_users"), as_size(n_items, "n_items"), as_size(nnz, "nnz")
    f = as_size(factors, "factors", least=1)
    check_name(solver, ("auto", "cholesky", "cg", "block"), "solver")
    check_name(objective, ("implicit", "explicit"), "objective")
    if planned_device(device) == "cuda":
        return als_on_gpu(
            users,
            items,
            e,
            f,
            objective=objective,
            solver=solver,
            biases=bool(biases),
            free_bytes=None if device_bytes is None else as_size(device_bytes, "device_bytes"),
        )
    workers = as_workers(num_threads)
    rows, most_rows = users + items, max(users, items)
    width = ceil(f + bool(biases), 16) * 16
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
            buffers.append(Buffer("coordinates, there and back", 12 * square, "steps"))
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
    packed = ceil(width, 32) * 32
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
    padded = ceil(width, _BLOCK_FACTORS) * _BLOCK_FACTORS
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
