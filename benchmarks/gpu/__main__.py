"""One part of the measurements on a GPU, added to a file of evidence.

    python benchmarks/gpu FILE PART [--rehearse]

PART: ceilings, one, batch, fusion (searches), encode. Each is a process of its own, so that one
that fails leaves the others their device. With --rehearse, PyTorch runs on the CPU and recfuse on
the emulator, on toy sizes: the same lines of code, and times that mean nothing.
"""

from __future__ import annotations

import argparse
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networks
import numpy as np
import torch
from ceilings import ceilings
from evidence import add
from measuring import Clock
from searches import Case, Workload, measure_peer, measure_recfuse, peers

import recfuse
from recfuse import backend

SEARCHES = {
    "one": Case(1, 1_000_000, (128,), 10),
    "batch": Case(10_240, 1_000_000, (128,), 100),
    "fusion": Case(10_240, 1_000_000, (64, 384, 512), 100),
}
TOYS = {
    "one": Case(1, 2_000, (12,), 10),
    "batch": Case(70, 2_000, (12,), 20),
    "fusion": Case(70, 2_000, (6, 12), 20),
}


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
    for name, measure in ceilings(clock):
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


def run_search(file: Path, case: Case, clock: Clock) -> bool:
    """Measure recfuse first: it is what the time on the device is for."""
    work = Workload(case, clock.device)
    good = tried(file, case.name, lambda: {"sizes": vars(case), **measure_recfuse(work, clock)})
    for name, make in peers(work).items():
        found = measure_peer(make, clock)
        add(file, {"cases": {case.name: {"peers": {name: found}}}})
        print(f"  {name}", found.get("ms", found), flush=True)
    return good


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
    parser.add_argument("part", choices=["ceilings", *SEARCHES, "encode"])
    parser.add_argument("--rehearse", action="store_true")
    arguments = parser.parse_args()
    if arguments.rehearse:
        backend._MODULES["cuda"] = "_cuda_emulated"
        add(arguments.file, {"rehearsal": True})
    versions = {"recfuse": recfuse.__version__, "numpy": np.__version__, "torch": torch.__version__}
    add(arguments.file, {"versions": versions})
    device = "cpu" if arguments.rehearse else "cuda"
    clock = Clock(device)
    if arguments.part == "ceilings":
        good = run_ceilings(arguments.file, clock)
    elif arguments.part == "encode":
        good = run_networks(arguments.file, clock)
    else:
        cases = TOYS if arguments.rehearse else SEARCHES
        good = run_search(arguments.file, cases[arguments.part], clock)
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
