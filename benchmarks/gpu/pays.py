"""From which sizes a GPU pays: measured where it ran, and predicted from bytes and ceilings."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from sources import ROOT
from workloads import SERIES, key, ratings_of

from recfuse.bench import Case, Ceilings
from recfuse.bench.case import ON_CPU
from recfuse.bench.cases.als import Als
from recfuse.bench.cases.cosine_knn import CosineKnn
from recfuse.bench.cases.dense import DenseCase
from recfuse.bench.roofline import floor

# An H200's data sheet; of shared memory, an addition per bank and clock.
GPU = Ceilings(
    flops=989e12,
    memory=4.8e12,
    cache=4.8e12,
    updates=132 * 32 * 1.98e9,
    cache_bytes=50 << 20,
    in_float16=True,
)
BUS = 64e9  # bytes/s: PCIe 5.0 x16, one direction
CALL = 1e-4  # seconds that a call takes whatever its size: a guess
CPU_RESULTS = ROOT / "benchmarks" / "results" / "unreleased-amd-epyc-zen4-2-cores.json"
MOST = 1 << 24  # items or interactions that are looked at

_HEADER = """\
| call | sooner than the CPU, from the host | data on the GPU | predicted, from the host |
|---|---|---|---|
"""


def pays_table(results: Sequence[dict[str, Any]], kernels: str) -> str:
    """Return a row per series: what the newest results show, and what ceilings say."""
    newest = results[0] if results else {}
    if newest.get("rehearsal"):
        raise ValueError("a rehearsal is no evidence")
    measured = newest.get("pays", {})
    cpu = cpu_ceilings()
    rows = [
        [name, *_measured(cases, measured.get(name, {})), _predicted(cases, cpu)]
        for name, cases in SERIES.items()
    ]
    lines = [f"| {' | '.join(row)} |\n" for row in rows]
    return _HEADER + "".join(lines) + "\n" + _source(newest, kernels) + _assumed(cpu)


def _measured(cases: Sequence[Case], times: dict[str, dict[str, float]]) -> tuple[str, str]:
    """Return from which size on each way is sooner than the CPU, at all larger ones, too."""
    known = [(case, times[key(case)]) for case in cases if times.get(key(case))]
    if not known:
        return "not measured on a device yet", "not measured on a device yet"
    ways = ("recfuse, host queries", "recfuse, all from the host"), ("recfuse",)
    return _from(known, ways[0]), _from(known, ways[1])


def _from(known: Sequence[tuple[Case, dict[str, float]]], ways: Sequence[str]) -> str:
    first = None
    for case, times in reversed(known):
        ours = next((times[way] for way in ways if way in times), None)
        if ours is None:
            return "always from the host"
        if ours >= times[ON_CPU]:
            break
        first = case
    if first is None:
        return f"not up to {_size(known[-1][0])}"
    return f"from {_size(first)}"


def _predicted(cases: Sequence[Case], cpu: Ceilings) -> str:
    first = True
    for case in _grown(cases[0]):
        inputs = _even(case)
        cost = case.cost(inputs)
        on_gpu = CALL + floor(cost, GPU).seconds + bus_bytes(case) / BUS
        if on_gpu < floor(cost, cpu).seconds:
            return f"at {_size(case)} already" if first else f"from about {_size(case)}"
        first = False
    return f"not up to {_size(case)}"


def _grown(case: Case) -> Iterator[Case]:
    """Yield the case in doubling sizes."""
    n = 1000
    while n <= MOST:
        if isinstance(case, DenseCase):
            yield replace(case, n_items=n)
        else:
            yield replace(case, **ratings_of(n))
        n *= 2


def _even(case: Case) -> dict[str, Any]:
    """Return what costs depend on beside sizes: here, as many entries of every user."""
    if not isinstance(case, CosineKnn):
        return {}
    return {"indptr": np.linspace(0, case.nnz, case.n_users + 1)}


def bus_bytes(case: Case) -> float:
    """Return what a call moves between host and device; items of a search are there already."""
    if isinstance(case, DenseCase):
        return float((4 * case.width + 8 * case.k) * case.n_queries)
    if isinstance(case, Als):
        return float(8 * case.nnz + 8 * (case.n_users + case.n_items) * case.factors)
    assert isinstance(case, CosineKnn)
    return float(8 * case.nnz + 8 * case.n_items * case.k)


def cpu_ceilings() -> Ceilings:
    """Return what was measured of the CPU of the published results."""
    found = json.loads(CPU_RESULTS.read_text(encoding="utf-8"))
    rates, machine = found["ceilings"], found["machine"]
    return Ceilings(
        flops=rates["flops_per_second"],
        int8=rates["int8_operations_per_second"],
        memory=rates["memory_bytes_per_second"],
        cache=rates["cache_bytes_per_second"],
        updates=rates["updates_per_second"],
        cache_bytes=machine["last_cache_bytes"],
    )


def _size(case: Case) -> str:
    if isinstance(case, DenseCase):
        return f"{case.n_items:,} items"
    assert isinstance(case, Als | CosineKnn)
    return f"{case.nnz:,} interactions"


def _source(newest: dict[str, Any], kernels: str) -> str:
    if not newest.get("pays"):
        return "Measured: nothing yet; the kernels of the GPU have run on an emulator only.\n"
    stale = "" if newest["kernel_sources"] == kernels else "; **stale**: the kernels have changed"
    return (
        f"Measured on {newest['device']['name']} on {newest['created'][:10]}{stale}, beside the "
        "CPU of the same machine.\n"
    )


def _assumed(cpu: Ceilings) -> str:
    return (
        f"Predicted, not measured: bytes and operations that nobody can save, at the ceilings of "
        f"two cores of an AMD EPYC ({cpu.flops / 1e9:.0f} GFLOP/s float32, "
        f"{cpu.int8 / 1e9:.0f} GOP/s int8, {cpu.memory / 1e9:.0f} GB/s) and at those of an H200's "
        f"data sheet ({GPU.flops / 1e12:.0f} TFLOP/s float16, {GPU.memory / 1e12:.1f} TB/s), with "
        f"{BUS / 1e9:.0f} GB/s of the bus and a guess of {1e3 * CALL:.1f} ms for a call of any "
        "size. Neither reaches its ceilings.\n"
    )
