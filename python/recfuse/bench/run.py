"""The benchmark as a command: races, tables, one JSON file, one plot."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from recfuse.bench import report
from recfuse.bench.case import Case
from recfuse.bench.cases import OPS, cases_of
from recfuse.bench.device import DEVICES, Site
from recfuse.bench.device_ceilings import as_ceilings, measure_rates
from recfuse.bench.machine import default_threads
from recfuse.bench.race import Race, WrongAnswerError
from recfuse.bench.roofline import Ceilings, measure_ceilings

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
    device: str = "cpu",
) -> int:
    """Race recfuse against its peers on generated data, print the tables and save them.

    Writes ``bench.json`` and, where matplotlib is installed, ``bench.png`` to `out_dir`; of a GPU,
    ``bench-cuda.json`` and a picture per op. Progress goes to standard error.

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
    device : {'cpu', 'cuda', 'emulator'}, default='cpu'
        'cuda' races on the GPU at hand, with inputs that lie there and with inputs of the host,
        against peers there; larger cases come in addition. 'emulator' rehearses that without a
        GPU: its times mean nothing.

    Returns
    -------
    int
        0, or 1 if an answer of recfuse was wrong.

    Raises
    ------
    ValueError
        If an op or `device` is unknown, or `rounds` or `threads` is out of range.
    DeviceError
        If there is no GPU at hand, or no PyTorch with CUDA.
    """
    if device not in DEVICES:
        raise ValueError(f"bench: device must be one of {', '.join(DEVICES)}; got {device!r}")
    if rounds < 1:
        raise ValueError(f"bench: rounds must be at least 1; got {rounds}")
    if threads < 0:
        raise ValueError(f"bench: threads must be at least 0; got {threads}")
    ops = ops or OPS
    cases = [case for op in ops for case in cases_of(op, quick=quick, device=device)]
    try:
        results = run_cases(
            cases,
            threads=threads,
            rounds=rounds,
            peers=peers,
            site=None if device == "cpu" else Site(device),
            show=lambda result: print(report.details(result) + "\n", flush=True),
        )
    except WrongAnswerError as error:
        print(f"wrong answer: {error}", file=sys.stderr)
        return 1
    print(report.headline(results), report.summary(results), sep="\n\n")
    out_dir = Path(out_dir)
    stem = "bench" if device == "cpu" else f"bench-{device}"
    report.write_json(results, out_dir / f"{stem}.json")
    print(f"\nwrote {out_dir / stem}.json")
    if plot and device == "cpu":
        _plot(results, out_dir / "bench.png")
    elif plot:
        for op in ops:
            of_op = [case for case in results["cases"] if case["op"] == op]
            _plot({**results, "cases": of_op}, out_dir / f"{stem}-{op}.png")
    return 0


def run_cases(
    cases: Sequence[Case],
    *,
    threads: int = 0,
    rounds: int = 5,
    peers: bool = True,
    site: Site | None = None,
    rates: Mapping[str, float] | None = None,
    show: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Race every case and return the document that `report.document` describes.

    `show` gets the result of each case when it is there; `rates` are those of the GPU of `site`
    where they are known already.
    """
    threads = threads or default_threads()
    ceilings = _ceilings(site, threads, rates)
    races = []
    for place, case in enumerate(cases, 1):
        _say(f"[{place}/{len(cases)}] {case.op}, {case.name}")
        with Race(
            case, num_threads=threads, peers=peers, site=site, log=lambda line: _say(f"  {line}")
        ) as race:
            for _ in range(rounds):
                race.round()
        races.append(race)
        if site is None:
            # The ceilings of the run are the best that any moment of it showed.
            ceilings = ceilings.best(measure_ceilings(threads))
        if show is not None:
            show(race.result(ceilings))
    results = [race.result(ceilings) for race in races]
    return report.document(results, ceilings, threads, None if site is None else site.describe())


def _ceilings(site: Site | None, threads: int, rates: Mapping[str, float] | None) -> Ceilings:
    if site is None:
        return measure_ceilings(threads)
    if rates is None:
        rates = measure_rates(
            site.clock, lambda name, error: _say(f"{name} is not measured: {error}")
        )
    return as_ceilings(rates, site.cache_bytes)


def list_cases(ops: Sequence[str] = (), device: str = "cpu") -> str:
    """Return the ops, their workloads and who takes part, as text."""
    lines = []
    for op in ops or OPS:
        full, quick = (cases_of(op, quick=quick, device=device) for quick in (False, True))
        lines += [
            op,
            *(f"  {case.name}" for case in full),
            *(f"  {case.name} (quick)" for case in quick),
        ]
        named = {c.name: c for case in full for c in case.contenders(on_device=device != "cpu")}
        for contender in named.values():
            state = contender.absence() or contender.version() or "installed"
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
