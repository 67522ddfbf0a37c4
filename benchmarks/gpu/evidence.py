"""What a run on a GPU has shown so far: a JSON file that every step adds to.

    python benchmarks/gpu/evidence.py FILE start
    python benchmarks/gpu/evidence.py FILE step NAME STATUS SECONDS [WORDS]

Written anew after each step, in one move, so that a step that fails or hangs costs nothing of the
others. Needs nothing but Python: there is evidence even where nothing compiles.
"""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from sources import kernel_hash


def add(file: Path, found: dict[str, Any]) -> None:
    """Merge `found` into what is there."""
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    whole = file.with_suffix(".new")
    whole.write_text(json.dumps(merged(known, found), indent=1) + "\n", encoding="utf-8")
    whole.replace(file)


def merged(known: Any, found: Any) -> Any:
    """Return the union of mappings, of those in them, too; what is found anew counts."""
    if isinstance(known, dict) and isinstance(found, dict):
        both = {key: merged(known[key], found[key]) for key in known.keys() & found.keys()}
        return {**known, **found, **both}
    return found


def said(*command: str) -> str | None:
    """Return what a command prints; None where there is none or it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def device() -> dict[str, str | None]:
    """Return what nvidia-smi says of the first GPU."""
    names = ("name", "driver_version", "compute_cap", "memory.total")
    line = said("nvidia-smi", f"--query-gpu={','.join(names)}", "--format=csv,noheader", "-i", "0")
    values = [value.strip() for value in line.split(",")] if line else [None] * len(names)
    return dict(zip(("name", "driver", "capability", "memory"), values, strict=False))


def start(file: Path) -> None:
    """Begin a file: what runs, and on what."""
    file.unlink(missing_ok=True)
    nvcc = re.search(r"release ([\d.]+)", said("nvcc", "--version") or "")
    versions = {"python": platform.python_version(), "nvcc": nvcc[1] if nvcc else None}
    begun = {
        "schema": 1,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "kernel_sources": kernel_hash(),
        "device": device(),
        "versions": versions,
        "checks": {},
        "ceilings": {},
        "cases": {},
        "missing": {},
    }
    add(file, begun)


def main(arguments: list[str]) -> None:
    """Do what the command line says."""
    file, verb, *rest = arguments
    if verb == "start":
        start(Path(file))
        return
    name, status, seconds, *words = rest
    step = {"status": status, "seconds": float(seconds), "said": " ".join(words)}
    add(Path(file), {"checks": {name: step}})


if __name__ == "__main__":
    main(sys.argv[1:])
