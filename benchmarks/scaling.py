"""What a second thread gives: ``python benchmarks/scaling.py [OP ...]``.

Runs every workload of `recfuse bench` with one thread and with all, in turn, five times, and prints
how many times as fast all threads are: the median of the pairs, and their quartiles. The answers of
searches and similarities are checked to be the same, bit by bit. Beside it, from the same minute,
what the machine gives a loop that touches nothing but registers, and one that only reads memory:
the first is not 2 on two cores that are shared, the second not on any. Adds what it finds to
``results/scaling.json``.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from recfuse import _core as core
from recfuse.bench.case import Case
from recfuse.bench.cases import OPS, cases_of
from recfuse.bench.machine import default_threads, describe_machine, git_describe

RESULTS = Path(__file__).parent / "results" / "scaling.json"
_ROUNDS = 5
_CALLS_BEFORE = (
    20  # an index that is asked for one query at a time keeps its items in int8 after 16
)
_FAR_LARGER = 1 << 29  # bytes, than any cache
_RATES: dict[str, Callable[[int], float]] = {
    "registers": core.measure_int8_operations,
    "memory": lambda threads: core.measure_bandwidth(_FAR_LARGER, threads),
}


def seconds_of(call: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def gain(rate: Callable[[int], float], threads: int) -> float:
    one, many = (rate(n) for n in (1, threads))
    return many / one


def measure(case: Case, threads: int) -> dict[str, Any]:
    """Return medians and quartiles of a workload."""
    inputs = case.inputs()
    one, all_threads = (case.ours()[0].prepare(case, inputs, n) for n in (1, threads))
    calls_before = _CALLS_BEFORE if getattr(case, "n_queries", 0) == 1 else 1
    for ready in (one, all_threads):
        for _ in range(calls_before):
            ready.call()
    answers = [ready.answer(ready.call()) for ready in (one, all_threads)]
    if case.op != "als":  # whose steps go on from different factors
        for key, expected in answers[0].items():
            np.testing.assert_array_equal(answers[1][key], expected)
    seconds, of_machine = [], []
    for turn in range(_ROUNDS):
        of_machine.append([gain(rate, threads) for rate in _RATES.values()])
        calls = [one.call, all_threads.call]
        order = (0, 1) if turn % 2 else (1, 0)
        taken = {which: seconds_of(calls[which]) for which in order}
        seconds.append((taken[0], taken[1]))
    times = np.array(seconds)
    low, middle, high = np.quantile(times[:, 0] / times[:, 1], (0.25, 0.5, 0.75))
    return {
        "name": case.name,
        "seconds": [float(s) for s in np.median(times, axis=0)],
        "ratio": [float(low), float(middle), float(high)],
        "machine": dict(zip(_RATES, np.median(of_machine, axis=0).tolist(), strict=True)),
    }


def main(ops: list[str]) -> int:
    threads = default_threads()
    results = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {"ops": {}}
    results["machine"] = {**describe_machine(threads), "source": git_describe()}
    for op in ops:
        results["ops"][op] = []
        for case in cases_of(op, quick=False):
            line = measure(case, threads)
            results["ops"][op].append(line)
            one, many = line["seconds"]
            low, middle, high = line["ratio"]
            print(
                f"{op} {line['name']}: {one * 1e3:.4g} to {many * 1e3:.4g} ms, "
                f"{middle:.2f}x ({low:.2f} .. {high:.2f}) with {threads} threads; the machine: "
                + ", ".join(f"{what} {ratio:.2f}x" for what, ratio in line["machine"].items()),
                flush=True,
            )
            RESULTS.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:] or list(OPS)))
