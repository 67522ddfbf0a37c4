"""How time grows: ``python benchmarks/growth.py measure [OP ...]``, then ``plot``.

Times the four ops while items, queries, the length of the lists or the interactions grow by
factors of two, the median of five. ``measure`` adds what it finds to ``results/growth.json``,
``plot`` draws that to ``docs/images/growth.png``: dashed, what the formula of each op says (the
floor of `recfuse bench`, through the largest point), so a steeper line of points would be a
regression in scale.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import recfuse
from recfuse.bench.case import Cost
from recfuse.bench.machine import default_threads, describe_machine, git_describe
from recfuse.bench.roofline import Ceilings, floor, measure_ceilings
from recfuse.datasets import synthetic

RESULTS = Path(__file__).parent / "results" / "growth.json"
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "growth.png"
OPS = ("topk", "fuse_topk", "cosine_knn", "als")
PANELS = {
    "items": "items",
    "queries": "queries",
    "k": "length of the lists",
    "nnz": "interactions",
}

_SAMPLES, _SAMPLE_SECONDS = 5, 0.02
_DIMS = {"topk": {"a": 64}, "fuse_topk": {"text": 128, "image": 64, "users": 32}}
_USERS, _ITEMS = 40_000, 10_000

# axis, label, and per point: its place on the axis, its cost, what is timed
Point = tuple[int, Cost, Callable[[], Any]]
Series = tuple[str, str, Iterator[Point]]


def dense_series(op: str) -> Iterator[Series]:
    """Yield searches of an index that has been asked before."""
    dims = _DIMS[op]
    rng = np.random.default_rng(0)
    n_most, q_most, n_usual, q_usual = 1 << (19 if op == "topk" else 18), 4096, 1 << 16, 256
    items = {m: rng.standard_normal((n_most, d), np.float32) for m, d in dims.items()}
    queries = {m: rng.standard_normal((q_most, d), np.float32) for m, d in dims.items()}
    weights = {m: rng.random(q_most) + 0.5 for m in dims}

    def point(x: int, q: int, n: int, k: int, index: recfuse.FusedIndex | None = None) -> Point:
        index = index or recfuse.FusedIndex({m: a[:n] for m, a in items.items()})
        asked = {m: a[:q] for m, a in queries.items()}
        of_queries = {m: w[:q] for m, w in weights.items()}
        width = sum(dims.values())
        others = 4.0 * q * width + 8.0 * q * k
        cost = Cost(2.0 * q * n * width, 4.0 * n * width + others, int8_bytes=n * width + others)
        return x, cost, lambda: index.topk(asked, k, weights=of_queries)

    usual = recfuse.FusedIndex({m: a[:n_usual] for m, a in items.items()})
    sizes = [1 << i for i in range(12, n_most.bit_length())]
    yield "items", op, (point(n, q_usual, n, 10) for n in sizes)
    batches = [1 << i for i in range(q_most.bit_length())]
    yield "queries", op, (point(q, q, n_usual, 10, usual) for q in batches)
    lengths = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]
    yield "k", op, (point(k, q_usual, n_usual, k, usual) for k in lengths)


def sparse_matrices() -> Iterator[Any]:
    for exponent in range(16, 22):
        data = synthetic(_USERS, _ITEMS, 1 << exponent, random_state=exponent, modalities={})
        yield data.interactions.to_csr()


def cosine_series() -> Iterator[Series]:
    """Yield similar items, by interactions and by the length of the lists."""

    def point(x: int, user_items: Any, k: int) -> Point:
        activity = np.diff(user_items.indptr).astype(float)
        cost = Cost(0, 8.0 * user_items.nnz + 8.0 * _ITEMS * k, float((activity**2).sum() / 2))
        item_users = user_items.T.tocsr()
        return x, cost, lambda: recfuse.cosine_knn(item_users, k)

    yield "nnz", "cosine_knn", (point(m.nnz, m, 50) for m in sparse_matrices())
    middle = synthetic(_USERS, _ITEMS, 1 << 19, random_state=19, modalities={})
    csr = middle.interactions.to_csr()
    yield "k", "cosine_knn", (point(k, csr, k) for k in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000))


def als_series() -> Iterator[Series]:
    """Yield an iteration, exact and by conjugate gradients; the formulas of kernels and solvers."""
    factors = 64

    def point(user_items: Any, solver: str) -> Point:
        model = recfuse.AlternatingLeastSquares(factors, solver=solver, random_state=0)
        handle = model._solver(user_items)
        handle.set_factors(*model._start(user_items.shape))
        handle.step()  # the first one starts far from the solution
        nnz, rows = user_items.nnz, _USERS + _ITEMS
        if solver == "cg":
            flops = rows * factors**2 * 9.0 + 2 * 16.0 * nnz * factors
        else:
            flops = rows * (factors**2 + factors**3 / 3) + 2.0 * nnz * factors**2
        cost = Cost(flops, 2.0 * nnz * (4 * factors + 8), working_set=4.0 * rows * factors)
        return nnz, cost, handle.step

    matrices = list(sparse_matrices())
    yield "nnz", "als, Cholesky", (point(m, "cholesky") for m in matrices)
    yield "nnz", "als, conjugate gradients", (point(m, "cg") for m in matrices)


def seconds_of(call: Callable[[], Any]) -> float:
    """Return the median of five samples; a short call is repeated within each."""
    for _ in range(2):
        call()
    samples = []
    while len(samples) < _SAMPLES:
        begun, calls = time.perf_counter(), 0
        while calls == 0 or time.perf_counter() - begun < _SAMPLE_SECONDS:
            call()
            calls += 1
        samples.append((time.perf_counter() - begun) / calls)
    return statistics.median(samples)


def measure(ops: list[str]) -> dict[str, Any]:
    """Return lines of points, with the machine."""
    threads = default_threads()
    ceilings = measure_ceilings(threads)
    makers: dict[str, Callable[[], Iterator[Series]]] = {
        "topk": lambda: dense_series("topk"),
        "fuse_topk": lambda: dense_series("fuse_topk"),
        "cosine_knn": cosine_series,
        "als": als_series,
    }
    lines = []
    for op in ops:
        for axis, label, points in makers[op]():
            line = {"op": op, "axis": axis, "label": label, "x": [], "seconds": [], "floor": []}
            for x, cost, call in points:
                line["x"].append(x)
                line["seconds"].append(seconds_of(call))
                line["floor"].append(floor_of(cost, ceilings))
            print(label, axis, *(f"{s * 1e3:.3g}" for s in line["seconds"]), "ms", flush=True)
            lines.append(line)
    machine = {**describe_machine(threads), "source": git_describe()}
    return {"machine": machine, "lines": lines}


def floor_of(cost: Cost, ceilings: Ceilings) -> float:
    return floor(cost, ceilings).seconds


def formula(line: dict[str, Any]) -> np.ndarray:
    """Return what the formula says for every point, given the time of the largest.

    The floor knows nothing of k: a list costs k (1 + ln(n / k)) candidates on the way.
    """
    x, seconds = np.array(line["x"], float), np.array(line["seconds"])
    if line["axis"] != "k":
        return np.array(line["floor"]) * (seconds[-1] / line["floor"][-1])
    n = _ITEMS if line["op"] == "cosine_knn" else 1 << 16
    candidates = x * (1 + np.log(n / x))
    share = (candidates - candidates[0]) / (candidates[-1] - candidates[0])
    return seconds[0] + share * (seconds[-1] - seconds[0])


def plot(results: dict[str, Any], path: Path) -> None:
    """Draw a panel per axis, both scales logarithmic."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7.5), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    colors = {}
    for line in results["lines"]:
        colors.setdefault(line["label"], f"C{len(colors)}")
    for axes, (axis, title) in zip(figure.subplots(2, 2).flat, PANELS.items(), strict=True):
        for line in results["lines"]:
            if line["axis"] != axis:
                continue
            milliseconds = np.array(line["seconds"]) * 1e3
            color = colors[line["label"]]
            axes.loglog(line["x"], milliseconds, "o-", color=color, label=line["label"], ms=4)
            axes.loglog(line["x"], formula(line) * 1e3, "--", color=color, lw=1, alpha=0.7)
        axes.set_xlabel(title)
        axes.set_ylabel("ms")
        axes.grid(True, which="major", color="#e3e6ea", lw=0.7)
        axes.legend(fontsize=8, frameon=False)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    machine = results["machine"]
    figure.suptitle(
        f"recfuse, {machine['threads']} threads of {machine['cpu']}, {machine['isa']}; "
        "dashed: the formula, through the largest point",
        fontsize=10,
    )
    figure.savefig(path)


def steepest(results: dict[str, Any]) -> list[str]:
    """Return lines of a table: the most that any growth was of what the formula lets it be."""
    rows = []
    for line in results["lines"]:
        excess = np.array(line["seconds"]) / formula(line)
        growth = max(b / a for i, a in enumerate(excess) for b in excess[i:])
        rows.append(f"| {line['label']} | {PANELS[line['axis']]} | {growth:.2f} |")
    return rows


def main(arguments: list[str] | None = None) -> int:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=("measure", "plot"))
    parser.add_argument("ops", nargs="*", help=f"{', '.join(OPS)}; all by default")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--picture", type=Path, default=PICTURE)
    options = parser.parse_args(arguments)
    unknown = [op for op in options.ops if op not in OPS]
    if unknown:
        parser.error(f"no such op: {', '.join(unknown)} (choose from {', '.join(OPS)})")
    known = json.loads(options.results.read_text()) if options.results.exists() else {"lines": []}
    if options.command == "plot":
        plot(known, options.picture)
        print(
            "\n".join(
                [
                    "| op | grows | steepest growth, of the formula's |",
                    "|---|---|---|",
                    *steepest(known),
                ]
            )
        )
        return 0
    ops = options.ops or list(OPS)
    results = measure(ops)
    kept = [line for line in known["lines"] if line["op"] not in ops]
    results["lines"] = sorted([*kept, *results["lines"]], key=lambda line: OPS.index(line["op"]))
    options.results.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
