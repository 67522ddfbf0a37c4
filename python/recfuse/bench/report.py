"""Results as a JSON file and as tables in plain text."""

from __future__ import annotations

import json
import platform
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import scipy

import recfuse
from recfuse.bench.machine import describe_machine, git_describe
from recfuse.bench.roofline import Ceilings

__all__ = ["SCHEMA", "details", "document", "headline", "summary", "write_json"]

SCHEMA = 1


def document(
    cases: list[dict[str, Any]],
    ceilings: Ceilings,
    num_threads: int,
    device: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return everything about a run: machine, versions, ceilings, and the results of its races.

    `device` describes the GPU that the ceilings are of, if any.
    """
    versions = {
        "recfuse": recfuse.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
    }
    for case in cases:
        for contender in case["contenders"]:
            if contender["version"] is not None:
                versions.setdefault(contender["package"], contender["version"])
    of_device = {} if device is None else {"device": device}
    return {
        **of_device,
        "schema": SCHEMA,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "data": "generated",
        "machine": describe_machine(num_threads),
        "versions": versions,
        "git": git_describe(),
        "ceilings": {
            "flops_per_second": ceilings.flops,
            "int8_operations_per_second": ceilings.int8,
            "memory_bytes_per_second": ceilings.memory,
            "cache_bytes_per_second": ceilings.cache,
            "updates_per_second": ceilings.updates,
        },
        "cases": cases,
    }


def write_json(results: dict[str, Any], path: Path) -> None:
    """Write it, indented."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")


def headline(results: dict[str, Any]) -> str:
    """Return where and on what this was measured, in a few lines."""
    machine, ceilings = results["machine"], results["ceilings"]
    arithmetic = "float32" if "device" not in results else "float16"
    int8 = f"{ceilings['int8_operations_per_second'] / 1e9:.0f} GOP/s int8, "
    return "\n".join(
        [
            *([] if "device" not in results else [str(results["device"]["name"])]),
            f"{machine['cpu']}, {machine['threads']} threads, {machine['isa']}; generated data; "
            f"recfuse {results['versions']['recfuse']}"
            + (f" ({results['git']})" if results["git"] else ""),
            f"ceilings: {ceilings['flops_per_second'] / 1e9:.0f} GFLOP/s {arithmetic}, "
            + (int8 if ceilings["int8_operations_per_second"] else "")
            + f"{ceilings['memory_bytes_per_second'] / 1e9:.1f} GB/s memory, "
            f"{ceilings['cache_bytes_per_second'] / 1e9:.1f} GB/s last cache, "
            f"{ceilings['updates_per_second'] / 1e9:.2f} G updates/s",
        ]
    )


def summary(results: dict[str, Any]) -> str:
    """Return one line per case: recfuse, the best peer at its best, and the floor."""
    header = ["op", "workload", "recfuse", "best peer", "", "ratio", "floor", "% of floor", "extra"]
    rows = []
    for case in results["cases"]:
        ours = case["contenders"][0]
        best = next((c for c in case["contenders"] if c["name"] == case["best_peer"]), None)
        rows.append(
            [
                case["op"],
                case["name"],
                _time(ours["median"]),
                best["name"] if best else "none",
                _time(best["median"]) if best else "",
                _ratio(best) if best else "",
                _time(case["floor_seconds"]),
                f"{100 * case['share_of_floor']:.0f}",
                _megabytes(ours["extra_bytes"]),
            ]
        )
    notes = (
        "ratio: the peer's time / recfuse's, in the same round: median (quartiles). "
        "floor: the least time\nat the ceilings above. "
        "extra: memory beside the inputs at the peak, index included."
    )
    return _table(header, rows, left={0, 1, 3}) + "\n" + notes


def details(case: dict[str, Any]) -> str:
    """Return one line per contender of a case."""
    header = ["", "time", "quartiles", "ratio", "CPU time", "samples", "prepared in", "extra"]
    rows, others = [], []
    for contender in case["contenders"]:
        if contender["status"] != "timed":
            others.append(f"  {contender['name']}: {contender['status']}: {contender['reason']}")
            continue
        rows.append(
            [
                f"  {contender['name']}",
                _time(contender["median"]),
                f"{_time(contender['low'])} .. {_time(contender['high'])}",
                _ratio(contender),
                _time(contender["cpu_seconds"]) if contender["cpu_seconds"] is not None else "",
                str(len(contender["seconds"])),
                _time(contender["prepare_seconds"]),
                _megabytes(contender["extra_bytes"]),
            ]
        )
        for name, value in contender["measures"].items():
            others.append(f"  {contender['name']}: {name} {value:.6g}")
    title = f"{case['op']}, {case['name']} (floor set by {case['floor_bound']})"
    return "\n".join([title, _table(header, rows, left={0}), *others])


def _ratio(contender: dict[str, Any]) -> str:
    low, high = contender["ratio_low"], contender["ratio_high"]
    spread = f" ({low:.2f}..{high:.2f})" if len(contender["seconds"]) > 1 else ""
    return f"{contender['ratio_median']:.2f}x{spread}"


def _time(seconds: float) -> str:
    milliseconds = seconds * 1e3
    digits = 0 if milliseconds >= 1000 else 1 if milliseconds >= 10 else 3
    return f"{milliseconds:.{digits}f} ms"


def _megabytes(size: int | None) -> str:
    return "" if size is None else f"{max(size, 0) / 1e6:.0f} MB"


def _table(header: list[str], rows: list[list[str]], left: set[int]) -> str:
    """Return aligned columns; numbers to the right."""
    lines = [header, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
