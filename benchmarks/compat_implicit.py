"""recfuse.compat.implicit against implicit, through the same calls, in one process.

``python benchmarks/compat_implicit.py measure`` times both, in turn, and writes
``results/compat-implicit.json``; ``... table`` puts that into ``docs/compat.md``. Set
OPENBLAS_NUM_THREADS=1, as implicit wants it. Some minutes for all; ``measure --only als 0 64``,
``--only weights`` or ``--only neighbours 1`` measures these cases and keeps the others.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

import recfuse.compat.implicit as ours
from recfuse.bench.interactions import draw_interactions, user_items
from recfuse.bench.machine import describe_machine, git_describe

RESULT = Path(__file__).parent / "results" / "compat-implicit.json"
DOCUMENT = Path(__file__).parents[1] / "docs" / "compat.md"
BEGIN, END = "<!-- speed -->\n", "<!-- /speed -->"
# users, items, entries
SHAPES = ((50_000, 20_000, 5_000_000), (20_000, 50_000, 1_000_000), (20_000, 10_000, 1_000_000))
CASES = (
    *(f"als {shape} {factors}" for shape in (0, 1) for factors in (64, 128)),
    *(f"weights 2 {factors} {by}" for by in ("1", "0.1") for factors in (64, 128)),
    *(f"neighbours {shape}" for shape in (1, 2)),
)
ROUNDS = 5
ITERATIONS = 3
SEARCHED = 15  # iterations, the default, before lists are made of the factors
USERS = 5_000  # of "recommend all", in one call
REQUESTS = 400  # of one user, in a round
WARM = 100  # requests before them, which nobody counts: a service has been asked before

Times = dict[str, dict[str, list[Any]]]


def data(shape: tuple[int, int, int]) -> sp.csr_matrix:
    """Return counts from 1 on, with long tails."""
    drawn = user_items(draw_interactions(*shape, 0))
    return sp.csr_matrix((drawn.data, drawn.indices, drawn.indptr), shape=drawn.shape)


def models(factors: int, use_cg: bool = True) -> dict[str, Any]:
    """Return one model of each library with its best settings, which are its defaults."""
    import implicit

    how = {"factors": factors, "iterations": ITERATIONS, "random_state": 0, "use_cg": use_cg}
    return {
        name: module.als.AlternatingLeastSquares(use_gpu=False, **how)
        for name, module in (("recfuse", ours), ("implicit", implicit))
    }


def fit(model: Any, plays: sp.csr_matrix) -> float:
    """Return the seconds of a fit from new factors."""
    model.user_factors = model.item_factors = None
    return seconds(lambda: model.fit(plays, show_progress=False))


def seconds(call: Callable[[], Any]) -> float:
    """Return how long a call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def requests(call: Callable[[int], Any]) -> list[float]:
    """Return how long calls for single users take, in a run of their own."""
    for user in range(WARM):
        call(user)
    return [seconds(lambda user=user: call(user)) for user in range(REQUESTS)]  # type: ignore[misc]


def in_turn(pair: dict[str, Any], calls: dict[str, Callable[[Any], Any]], times: Times) -> None:
    """Add what each round of each call takes: a number, or one per request."""
    for call, run in calls.items():
        for model in pair.values():
            run(model)  # once, to warm up
        for _ in range(ROUNDS):
            for name, model in pair.items():
                times[name].setdefault(call, []).append(run(model))


def searches(rows: sp.csr_matrix, one: list[sp.csr_matrix]) -> dict[str, Callable[[Any], Any]]:
    """Return the calls that lists are made by."""
    everybody = np.arange(USERS)
    return {
        "recommend all": lambda m: seconds(lambda: m.recommend(everybody, rows)),
        "similar_items": lambda m: seconds(lambda: m.similar_items(everybody)),
        "recommend one": lambda m: requests(lambda user: m.recommend(user, one[user])),
        "similar_items of one": lambda m: requests(m.similar_items),
    }


def losses(pair: dict[str, Any], plays: sp.csr_matrix) -> dict[str, float]:
    """Return the objective of either."""
    return {
        name: ours.cpu.als.calculate_loss(plays, model.user_factors, model.item_factors, 0.01)
        for name, model in pair.items()
    }


def measure_als(shape: int, factors: int) -> dict[str, Any]:
    """Time both libraries in turn: fits, then searches of the same factors."""
    plays, pair = data(SHAPES[shape]), models(factors)
    times: Times = {name: {} for name in pair}
    in_turn(pair, {"fit": lambda m: fit(m, plays)}, times)
    objectives = losses(pair, plays)
    pair["implicit"].iterations = SEARCHED
    fit(pair["implicit"], plays)
    for side in ("user_factors", "item_factors"):
        setattr(pair["recfuse"], side, getattr(pair["implicit"], side).copy())
    everybody = np.arange(USERS)
    rows, one = plays[everybody], [plays[user] for user in range(REQUESTS)]
    lists = [model.recommend(everybody, rows)[0] for model in pair.values()]
    in_turn(pair, searches(rows, one), times)
    return {
        "objectives": objectives,
        "equal_ids": float((lists[0] == lists[1]).mean()),
        "times": summaries(times),
    }


def measure_weights(shape: int, factors: int, by: float) -> dict[str, Any]:
    """Time fits of weights of BM25, of which some are below 1."""
    weights = ours.nearest_neighbours.bm25_weight(data(SHAPES[shape])).tocsr() * by
    plays = sp.csr_matrix(weights, dtype=np.float32)
    times: Times = {name: {} for name in ("recfuse", "implicit")}
    objectives = {}
    for call, use_cg in (("fit", True), ("fit, use_cg=False", False)):
        pair = models(factors, use_cg)
        in_turn(pair, {call: lambda m: fit(m, plays)}, times)
        objectives[call] = losses(pair, plays)
    small = float((plays.data < 1).mean())
    return {"below_1": small, "objectives": objectives, "times": summaries(times)}


def measure_neighbours(shape: int) -> dict[str, Any]:
    """Time the models of neighbours: fits of each, lists of one."""
    import implicit.nearest_neighbours as theirs

    plays = data(SHAPES[shape]).astype(np.float64)  # as theirs wants it
    times: Times = {name: {} for name in ("recfuse", "implicit")}
    libraries = {"recfuse": ours.nearest_neighbours, "implicit": theirs}
    warnings.simplefilter("ignore")  # theirs, of its own conversions
    for kind in ("CosineRecommender", "TFIDFRecommender", "BM25Recommender"):
        pair = {name: getattr(library, kind)() for name, library in libraries.items()}
        fits = {kind: lambda m: seconds(lambda: m.fit(plays, show_progress=False))}
        in_turn(pair, fits, times)
    rows, one = plays[np.arange(USERS)], [plays[user] for user in range(REQUESTS)]
    in_turn(pair, searches(rows, one), times)
    mine, peer = (model.similarity.tocsr() for model in pair.values())
    return {
        # Where equal ones are cut off, either has others.
        "difference": float(abs(mine.multiply(peer != 0) - peer.multiply(mine != 0)).max()),
        "times": summaries(times),
    }


def summaries(times: Times) -> dict[str, dict[str, dict[str, float]]]:
    """Return medians over the rounds, of requests those of every round's percentiles."""

    def summary(rounds: list[Any]) -> dict[str, float]:
        if not isinstance(rounds[0], list):
            return {"median": statistics.median(rounds)}
        return {
            name: statistics.median(float(np.percentile(values, share)) for values in rounds)
            for name, share in (("median", 50), ("p99", 99))
        }

    return {name: {call: summary(v) for call, v in calls.items()} for name, calls in times.items()}


MEASURE = {"als": measure_als, "weights": measure_weights, "neighbours": measure_neighbours}
COLUMNS = {
    "als": "factors",
    "weights": "confidences below 1, factors",
    "neighbours": "model",
}


def rows_of(name: str, case: dict[str, Any]) -> list[str]:
    """Return the rows of a case."""
    kind, shape, *how = name.split()
    users, items, entries = SHAPES[int(shape)]
    where = f"{users:,} x {items:,}, {entries:,}"
    mine, peer = case["times"]["recfuse"], case["times"]["implicit"]
    rows = []
    for call in mine:
        label, what = call, " ".join(how[:1])
        if kind == "weights":
            what = f"{100 * case['below_1']:.0f} %, {how[0]}"
        if kind == "neighbours":
            label, what = ("fit", call[:-11]) if call.endswith("Recommender") else (call, "BM25")
        for percentile in ("median", "p99") if "p99" in mine[call] else ("median",):
            a, b = mine[call][percentile], peer[call][percentile]
            shown_call = label
            if "p99" in mine[call]:
                shown_call += ", p50" if percentile == "median" else ", p99"
            rows.append(
                f"| {shown_call} | {where} | {what} | {shown(a)} | {shown(b)} | {b / a:.1f}x |"
            )
    return rows


def table(result: dict[str, Any]) -> str:
    """Return the cases as tables: recfuse's times, and implicit's as multiples of them."""
    lines = []
    for kind, column in COLUMNS.items():
        lines += [
            f"| call | users x items, entries | {column} | recfuse | implicit | times as fast |"
        ]
        lines += ["|---|---|---|---|---|---|"]
        for name, case in result["cases"].items():
            lines += rows_of(name, case) if name.split()[0] == kind else []
        lines.append("")
    machine, versions = result["machine"], result["versions"]
    equal = min(case["equal_ids"] for case in result["cases"].values() if "equal_ids" in case)
    lines += [
        f"{machine['cores']} cores of an {machine['cpu']}, {machine['isa']}; generated counts from "
        f"1 on; fits of {ITERATIONS} iterations from the same start, recfuse's objective the lower "
        f"one; lists from the same factors, of {SEARCHED} iterations, {USERS:,} users or items in "
        f"a call of many, equal in {100 * equal:.3f} % of the ids. Weights are those of BM25, as "
        "they are and times 0.1. Neighbours: K = 20. "
        f"{ROUNDS} rounds in turn, medians; {REQUESTS} requests of one in a round, after "
        f"{WARM} that are not counted, and percentiles of each round. OPENBLAS_NUM_THREADS=1. "
        f"implicit {versions['implicit']}, NumPy {versions['numpy']}, {result['date']} "
        "(`benchmarks/results/compat-implicit.json`).",
    ]
    return "\n".join(lines) + "\n"


def shown(value: float) -> str:
    """Return a time for people."""
    return f"{value:.2f} s" if value >= 1 else f"{1e3 * value:.3g} ms"


def with_table(text: str, made: str) -> str:
    """Return a document with the table between its marks."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}{made}{END}{rest.split(END)[1]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=["measure", "table"])
    parser.add_argument("--only", nargs="+", help="the beginning of a case: " + ", ".join(CASES))
    arguments = parser.parse_args()
    if arguments.what == "table":
        text = DOCUMENT.read_text(encoding="utf-8")
        made = table(json.loads(RESULT.read_text(encoding="utf-8")))
        DOCUMENT.write_text(with_table(text, made), encoding="utf-8")
        return
    if os.environ.get("OPENBLAS_NUM_THREADS") != "1":
        parser.error("set OPENBLAS_NUM_THREADS=1 first: implicit has threads of its own")
    import implicit

    cases = json.loads(RESULT.read_text(encoding="utf-8"))["cases"] if RESULT.exists() else {}
    for name in CASES:
        kind, *how = name.split()
        if name.split()[: len(arguments.only or [])] != (arguments.only or []):
            continue
        cases[name] = MEASURE[kind](*map(json.loads, how))
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": describe_machine(os.cpu_count() or 1),
        "source": git_describe(),
        "versions": {"implicit": implicit.__version__, "numpy": np.__version__},
        "cases": {name: cases[name] for name in CASES if name in cases},
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
