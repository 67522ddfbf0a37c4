"""The benchmark as a command: races, tables, one JSON file, one plot."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from recfuse.bench import report
from recfuse.bench.case import Case
from recfuse.bench.cases import OPS, cases_of
from recfuse.bench.machine import default_threads
from recfuse.bench.race import Race, WrongAnswerError
from recfuse.bench.roofline import measure_ceilings

__all__ = ["list_cases", "main_bench", "run_cases"]


def main_bench(
    ops: Sequence[str] = (),
    *,
    quick: bool = False,
    threads: int = 0,
    rounds: int = 5,
    out_dir: str | Path = "bench-output",
    peers: bool = True,
    plot: bool = True,
) -> int:
    """Race recfuse against its peers on generated data, print the tables and save them.

    Writes ``bench.json`` and, where matplotlib is installed, ``bench.png`` to `out_dir`. Progress
    goes to standard error.

    Parameters
    ----------
    ops : sequence of str, optional
        Some of 'topk', 'fuse_topk', 'cosine_knn', 'als'; all by default.
    quick : bool, default=False
        Small sizes, seconds each.
    threads : int, default=0
        For every contender; 0 takes recfuse's default number.
    rounds : int, default=5
        Times per contender; a median needs at least 5.
    out_dir : str or Path, default='bench-output'
    peers : bool, default=True
        False times recfuse alone.
    plot : bool, default=True

    Returns
    -------
    int
        0, or 1 if an answer of recfuse was wrong.

    Raises
    ------
    ValueError
        If an op is unknown, or `rounds` or `threads` is out of range.
    """
    if rounds < 1:
        raise ValueError(f"bench: rounds must be at least 1; got {rounds}")
    if threads < 0:
        raise ValueError(f"bench: threads must be at least 0; got {threads}")
    cases = [case for op in ops or OPS for case in cases_of(op, quick=quick)]
    try:
        results = run_cases(
            cases,
            threads=threads,
            rounds=rounds,
            peers=peers,
            show=lambda result: print(report.details(result) + "\n", flush=True),
        )
    except WrongAnswerError as error:
        print(f"wrong answer: {error}", file=sys.stderr)
        return 1
    print(report.headline(results), report.summary(results), sep="\n\n")
    out_dir = Path(out_dir)
    report.write_json(results, out_dir / "bench.json")
    print(f"\nwrote {out_dir / 'bench.json'}")
    if plot:
        _plot(results, out_dir / "bench.png")
    return 0


def run_cases(
    cases: Sequence[Case],
    *,
    threads: int = 0,
    rounds: int = 5,
    peers: bool = True,
    show: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Race every case and return the document that `report.document` describes.

    `show` gets the result of each case when it is there.
    """
    threads = threads or default_threads()
    ceilings = measure_ceilings(threads)
    races = []
    for place, case in enumerate(cases, 1):
        _say(f"[{place}/{len(cases)}] {case.op}, {case.name}")
        with Race(
            case, num_threads=threads, peers=peers, log=lambda line: _say(f"  {line}")
        ) as race:
            for _ in range(rounds):
                race.round()
        races.append(race)
        # The ceilings of the run are the best that any moment of it showed.
        ceilings = ceilings.best(measure_ceilings(threads))
        if show is not None:
            show(race.result(ceilings))
    return report.document([race.result(ceilings) for race in races], ceilings, threads)


def list_cases(ops: Sequence[str] = ()) -> str:
    """Return the ops, their workloads and who takes part, as text."""
    lines = []
    for op in ops or OPS:
        full, quick = cases_of(op, quick=False), cases_of(op, quick=True)
        lines += [
            op,
            *(f"  {case.name}" for case in full),
            *(f"  {case.name} (quick)" for case in quick),
        ]
        for contender in {c.name: c for case in full for c in case.contenders()}.values():
            state = "not installed" if contender.missing() else contender.version() or "installed"
            lines.append(f"    {contender.name} ({state})")
            lines.append(f"      once: {contender.once}; timed: {contender.per_call}")
    return "\n".join(lines)


def _plot(results: dict[str, Any], path: Path) -> None:
    from recfuse.bench.plot import save_plot

    try:
        save_plot(results, path)
    except ImportError as error:
        _say(str(error))
    else:
        print(f"wrote {path}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
