"""recfuse.compat.implicit against implicit, through the same calls, in one process.

``python benchmarks/compat_implicit.py measure`` times both, in turn, and writes
``results/compat-implicit.json``; ``... table`` puts that into ``docs/compat.md``. Set
OPENBLAS_NUM_THREADS=1, as implicit wants it. One minute for each shape:
``measure --shape 0``, then ``--shape 1``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
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
SHAPES = ((50_000, 20_000, 5_000_000), (20_000, 50_000, 1_000_000))  # users, items, entries
FACTORS = (64, 128)
ROUNDS = 5
ITERATIONS = 3
SEARCHED = 15  # iterations, the default, before lists are made of the factors
USERS = 5_000  # of "recommend all", in one call
REQUESTS = 400  # of one user, in a round


def data(shape: tuple[int, int, int]) -> sp.csr_matrix:
    """Return counts from 1 on, with long tails."""
    drawn = user_items(draw_interactions(*shape, 0))
    return sp.csr_matrix((drawn.data, drawn.indices, drawn.indptr), shape=drawn.shape)


def models(factors: int) -> dict[str, Any]:
    """Return one model of each library with its best settings, which are its defaults."""
    import implicit

    how = {"factors": factors, "iterations": ITERATIONS, "random_state": 0, "use_cg": True}
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
    """Return how long calls of single users take."""
    return [seconds(lambda user=user: call(user)) for user in range(REQUESTS)]  # type: ignore[misc]


def measure(shape: tuple[int, int, int], factors: int) -> dict[str, Any]:
    """Time both libraries in turn: fits, then searches of the same factors."""
    plays, pair = data(shape), models(factors)
    times: dict[str, dict[str, list[float]]] = {name: {} for name in pair}
    for _ in range(ROUNDS):
        for name, model in pair.items():
            times[name].setdefault("fit", []).append(fit(model, plays))
    objectives = {
        name: ours.cpu.als.calculate_loss(plays, model.user_factors, model.item_factors, 0.01)
        for name, model in pair.items()
    }
    pair["implicit"].iterations = SEARCHED
    fit(pair["implicit"], plays)
    for side in ("user_factors", "item_factors"):
        setattr(pair["recfuse"], side, getattr(pair["implicit"], side).copy())
    everybody = np.arange(USERS)
    rows, one = plays[everybody], [plays[user] for user in range(REQUESTS)]
    lists = [model.recommend(everybody, rows)[0] for model in pair.values()]
    calls: dict[str, Callable[[Any], list[float]]] = {
        "recommend all": lambda m: [seconds(lambda: m.recommend(everybody, rows))],
        "similar_items": lambda m: [seconds(lambda: m.similar_items(everybody))],
        "recommend one": lambda m: requests(lambda user: m.recommend(user, one[user])),
        "similar_items of one": lambda m: requests(m.similar_items),
    }
    for call, run in calls.items():
        for model in pair.values():
            run(model)  # once, to warm up
        for _ in range(ROUNDS):
            for name, model in pair.items():
                times[name].setdefault(call, []).extend(run(model))
    return {
        "shape": shape,
        "factors": factors,
        "objectives": objectives,
        "equal_ids": float((lists[0] == lists[1]).mean()),
        "times": {
            name: {call: summary(values) for call, values in every.items()}
            for name, every in times.items()
        },
    }


def summary(values: list[float]) -> dict[str, float]:
    """Return median and 99th percentile, in seconds."""
    return {"median": statistics.median(values), "p99": float(np.percentile(values, 99))}


def table(result: dict[str, Any]) -> str:
    """Return the cases as a table: recfuse's times, and implicit's as multiples of them."""
    lines = ["| call | users x items, entries | factors | recfuse | implicit | times as fast |"]
    lines.append("|---|---|---|---|---|---|")
    for case in result["cases"]:
        users, items, entries = case["shape"]
        where = f"{users:,} x {items:,}, {entries:,} | {case['factors']}"
        mine, peer = case["times"]["recfuse"], case["times"]["implicit"]
        for call in mine:
            single = call.endswith("one")
            for what in ("median", "p99") if single else ("median",):
                a, b = mine[call][what], peer[call][what]
                name = f"{call}, {'p50' if what == 'median' else what}" if single else call
                lines.append(f"| {name} | {where} | {shown(a)} | {shown(b)} | {b / a:.1f}x |")
    machine, versions = result["machine"], result["versions"]
    lines += [
        "",
        f"{machine['cores']} cores of an {machine['cpu']}, {machine['isa']}; generated counts from "
        f"1 on; fits of {ITERATIONS} iterations from the same start, recfuse's objective the lower "
        f"one; lists from the same factors, of {SEARCHED} iterations, {USERS:,} users or items in "
        f"a call of many, equal in "
        f"{100 * min(case['equal_ids'] for case in result['cases']):.2f} % of the ids; "
        f"{ROUNDS} rounds in turn; OPENBLAS_NUM_THREADS=1. implicit {versions['implicit']}, "
        f"NumPy {versions['numpy']}, {result['date']} "
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
    parser.add_argument("--shape", type=int, choices=range(len(SHAPES)))
    parser.add_argument("--factors", type=int, choices=FACTORS)
    arguments = parser.parse_args()
    if arguments.what == "table":
        text = DOCUMENT.read_text(encoding="utf-8")
        made = table(json.loads(RESULT.read_text(encoding="utf-8")))
        DOCUMENT.write_text(with_table(text, made), encoding="utf-8")
        return
    if os.environ.get("OPENBLAS_NUM_THREADS") != "1":
        parser.error("set OPENBLAS_NUM_THREADS=1 first: implicit has threads of its own")
    import implicit

    known = json.loads(RESULT.read_text(encoding="utf-8"))["cases"] if RESULT.exists() else []
    cases = {(tuple(case["shape"]), case["factors"]): case for case in known}
    for shape in SHAPES if arguments.shape is None else [SHAPES[arguments.shape]]:
        for factors in FACTORS if arguments.factors is None else [arguments.factors]:
            cases[shape, factors] = measure(shape, factors)
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": describe_machine(os.cpu_count() or 1),
        "source": git_describe(),
        "versions": {"implicit": implicit.__version__, "numpy": np.__version__},
        "cases": [cases[key] for key in sorted(cases, key=lambda k: (SHAPES.index(k[0]), k[1]))],
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
