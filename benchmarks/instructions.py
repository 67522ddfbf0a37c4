"""Count the instructions of small calls: ``python benchmarks/instructions.py PROGRAM [--update]``.

Seconds are noisy on a shared machine; the number of instructions of one thread is not. PROGRAM is
``recfuse_instructions`` (``instructions.cpp``), which runs under ``valgrind --tool=callgrind`` with
AVX2, the widest instruction set that valgrind knows. A case is a regression if it takes more
instructions than ``results/instructions.json`` says, by more than the tolerance. Exits 1 on a
regression; says so and exits 0 where the counts cannot be compared, because the compiler or the C
library is another one. ``--update`` writes the file anew, for a change that is meant.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BASELINE = Path(__file__).parent / "results" / "instructions.json"
ISA = "avx2"
TOLERANCE = 0.02  # of the instructions; they repeat to one in 10,000


@dataclass(frozen=True)
class Line:
    """A case: its instructions, and those of the baseline, None where it is new."""

    name: str
    old: int | None
    new: int

    @property
    def factor(self) -> float | None:
        return None if self.old is None else self.new / self.old


def environment(program: Path) -> tuple[dict[str, str], list[str]]:
    """Return what the counts depend on, and the names of the cases."""
    said = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    compiler, *cases = said.splitlines()
    libc = " ".join(platform.libc_ver())
    return {"machine": platform.machine(), "isa": ISA, "compiler": compiler, "libc": libc}, cases


def count(program: Path, case: str) -> int:
    """Return the instructions of one case.

    Raises
    ------
    RuntimeError
        If the program fails under valgrind.
    """
    command = [
        "valgrind",
        "--tool=callgrind",
        "--callgrind-out-file=/dev/null",
        "--toggle-collect=recfuse_measured",
        str(program),
        case,
    ]
    done = subprocess.run(
        command,
        env={**os.environ, "RECFUSE_ISA": ISA, "RECFUSE_SCREEN": "", "RECFUSE_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"Collected\s*:\s*(\d+)", done.stderr)
    if done.returncode != 0 or found is None or int(found[1]) == 0:
        raise RuntimeError(f"{case} failed under valgrind:\n{done.stderr}")
    return int(found[1])


def count_all(program: Path, cases: list[str]) -> dict[str, int]:
    """Return the instructions of every case, counting several at the same time."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(cases, pool.map(lambda case: count(program, case), cases), strict=True))


def why_not_comparable(old: dict[str, Any], new: dict[str, str]) -> str:
    """Return what differs between the two environments; empty where nothing does."""
    return "; ".join(
        f"{key} is {value}, in the baseline {old.get(key)}"
        for key, value in new.items()
        if old.get(key) != value
    )


def compare(old: dict[str, int], new: dict[str, int]) -> list[Line]:
    return [Line(name, old.get(name), n) for name, n in new.items()]


def verdict(line: Line, tolerance: float) -> str:
    """Return a word on the case; 'REGRESSION' fails the check."""
    if line.factor is None:
        return "new: --update"
    if line.factor > 1 + tolerance:
        return "REGRESSION"
    return "better: --update" if line.factor < 1 - tolerance else ""


def table(lines: list[Line], tolerance: float) -> str:
    """Return the lines as text."""
    rows = [("case", "old", "new", "new/old", "")]
    for line in lines:
        old = "" if line.old is None else f"{line.old:,}"
        factor = "" if line.factor is None else f"{line.factor:.4f}"
        rows.append((line.name, old, f"{line.new:,}", factor, verdict(line, tolerance)))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def main(arguments: list[str] | None = None) -> int:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", type=Path)
    parser.add_argument("--update", action="store_true", help="write the baseline anew")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE)
    parser.add_argument("--baseline", type=Path, default=BASELINE)
    options = parser.parse_args(arguments)
    if platform.machine() != "x86_64" or shutil.which("valgrind") is None:
        print(f"no counts: valgrind with {ISA} is needed, on x86_64 (Debian: apt install valgrind)")
        return 2 if options.update else 0
    here, cases = environment(options.program)
    if options.update:
        document = {**here, "instructions": count_all(options.program, cases)}
        options.baseline.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        return 0
    baseline = json.loads(options.baseline.read_text(encoding="utf-8"))
    if reason := why_not_comparable(baseline, here):
        print(f"not compared with the baseline: {reason}")
        return 0
    lines = compare(baseline["instructions"], count_all(options.program, cases))
    print(table(lines, options.tolerance))
    return int(any(verdict(line, options.tolerance) == "REGRESSION" for line in lines))


if __name__ == "__main__":
    sys.exit(main())
