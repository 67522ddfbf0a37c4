"""One part of the measurements on a GPU, added to a file of evidence.

    python benchmarks/gpu FILE PART [--rehearse]

PART: ceilings, an op of `recfuse bench`, pays (ops in growing sizes), encode. Each is a process of
its own, so that one that fails leaves the others their device. With --rehearse, PyTorch runs on the
CPU and recfuse on the emulator, on toy sizes: the same lines of code, and times that mean nothing.
"""

from __future__ import annotations

import argparse
import json
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import networks
import numpy as np
import torch
from evidence import add
from workloads import CASES, SERIES, TOY_SERIES, TOYS, key

import recfuse
from recfuse.bench import Case, Race, WrongAnswerError
from recfuse.bench.clock import Clock
from recfuse.bench.device import Site
from recfuse.bench.device_ceilings import as_ceilings, measure_rates, rates
from recfuse.bench.machine import default_threads

ROUNDS = 5


def tried(file: Path, name: str, measure: Callable[[], dict[str, Any]]) -> bool:
    """Add what `measure` returns as a case; its error where it fails."""
    try:
        found = measure()
    except Exception as error:
        traceback.print_exc()
        found = {"error": f"{type(error).__name__}: {error}"[:400]}
    add(file, {"cases": {name: found}})
    shown = {key: round(value["median"], 3) for key, value in found.items() if key.endswith("_ms")}
    print(name, found.get("error", shown), flush=True)
    return "error" not in found


def run_ceilings(file: Path, clock: Clock) -> bool:
    """Measure what the device can do."""
    good = True
    for name, measure in rates(clock):
        try:
            rate = measure()
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"[:300]
            add(file, {"missing": {name: reason}})
            print(name, "not measured:", reason, flush=True)
            good = good and isinstance(error, ImportError)
            continue
        add(file, {"ceilings": {name: rate}})
        print(f"{name} {rate:.3g}", flush=True)
    return good


def race(case: Case, site: Site, known: dict[str, float], *, peers: bool) -> dict[str, Any]:
    """Return the result of a race; its error where recfuse fails or is wrong."""
    try:
        with Race(
            case, num_threads=default_threads(), peers=peers, site=site, log=print
        ) as running:
            for _ in range(ROUNDS):
                running.round()
            return running.result(as_ceilings(known, site.cache_bytes))
    except WrongAnswerError as error:
        return {"error": str(error)[:400]}


def run_cases(file: Path, cases: Sequence[Case], site: Site) -> bool:
    """Race the cases of an op."""
    known = ceilings_of(file, site)
    good = True
    for case in cases:
        found = race(case, site, known, peers=True)
        add(file, {"cases": {key(case): found}})
        good = good and "error" not in found
        for one in found.get("contenders", []):
            reached = f"{1e3 * one['median']:.3f} ms" if "median" in one else one["reason"]
            print(f"{key(case)}: {one['name']} {reached}", flush=True)
    return good


def run_series(file: Path, series: dict[str, list[Case]], site: Site) -> bool:
    """Race the GPU against the CPU in growing sizes."""
    known = ceilings_of(file, site)
    good = True
    for name, cases in series.items():
        for case in cases:
            found = race(case, site, known, peers=False)
            good = good and "error" not in found
            times = {
                one["name"]: 1e3 * one["median"]
                for one in found.get("contenders", [])
                if "median" in one
            }
            add(file, {"pays": {name: {key(case): times}}})
            print(name, key(case), times, flush=True)
    return good


def ceilings_of(file: Path, site: Site) -> dict[str, float]:
    """Return the rates that are known already, measured now where they are not."""
    known: dict[str, float] = json.loads(file.read_text(encoding="utf-8"))["ceilings"]
    needed = {"copy_tb_s", "matmul_float16_tflop_s"}
    return known if needed <= known.keys() else measure_rates(site.clock)


def run_networks(file: Path, clock: Clock) -> bool:
    """Measure encode -> fuse -> top-k; by ONNX Runtime where it has CUDA."""
    sizes = networks.Sizes(clock.device)
    text = f"encode {sizes.batch} texts, fuse, top-k, n{sizes.n_items} d{sizes.width}"
    name = f"{text}+{sizes.factors} k10"
    good = tried(file, f"{name}, PyTorch", lambda: networks.by_torch(sizes, clock))
    reason = networks.obstacle(clock.device)
    if reason is not None:
        add(file, {"missing": {"ONNX Runtime on CUDA": reason}})
        print("ONNX Runtime is left out:", reason, flush=True)
        return good
    return tried(file, f"{name}, ONNX", lambda: networks.by_onnx(sizes, clock)) and good


def main() -> int:
    """Run the part that is asked for; 1 if anything of recfuse fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("part", choices=["ceilings", *CASES, "pays", "encode"])
    parser.add_argument("--rehearse", action="store_true")
    arguments = parser.parse_args()
    file, part = arguments.file, arguments.part
    if arguments.rehearse:
        add(file, {"rehearsal": True})
    versions = {"recfuse": recfuse.__version__, "numpy": np.__version__, "torch": torch.__version__}
    add(file, {"versions": versions})
    site = Site("emulator" if arguments.rehearse else "cuda")
    if part == "ceilings":
        good = run_ceilings(file, site.clock)
    elif part == "encode":
        good = run_networks(file, site.clock)
    elif part == "pays":
        good = run_series(file, TOY_SERIES if arguments.rehearse else SERIES, site)
    else:
        good = run_cases(file, (TOYS if arguments.rehearse else CASES)[part], site)
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
