"""Compare two files of results: ``python benchmarks/compare.py old.json new.json``.

Reads what ``recfuse bench`` and ``pytest benchmarks --benchmark-json=FILE`` write. Prints a line
per case that both files have. On the same machine the times of recfuse are compared; on different
ones, its share of the best peer's time. A case is a regression if its quartiles no longer meet the
old ones and its median is worse by more than the tolerance. Exits 1 on a regression, 2 if nothing
can be compared.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# What must agree for seconds to be comparable.
_SAME = ("cpu", "threads", "isa")


@dataclass(frozen=True)
class Spread:
    """A median and its quartiles, of something of which less is better."""

    low: float
    median: float
    high: float

    def worse_than(self, old: Spread, tolerance: float) -> bool:
        """Whether the ranges do not meet, and more than the tolerance apart."""
        return self.low > old.high and self.median > old.median * (1 + tolerance)


@dataclass(frozen=True)
class Line:
    """One case in both files."""

    op: str
    name: str
    old: Spread
    new: Spread
    unit: str
    regression: bool


def load(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the machine and the cases of a file.

    Raises
    ------
    ValueError
        If it is neither kind of file.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if "cases" in document:
            return document["machine"], document["cases"]
        cases = [benchmark["extra_info"]["recfuse"] for benchmark in document["benchmarks"]]
        return document["machine_info"]["recfuse"], cases
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} holds no results of recfuse bench: {error!r}") from None


def compare(
    old: tuple[dict[str, Any], list[dict[str, Any]]],
    new: tuple[dict[str, Any], list[dict[str, Any]]],
    tolerance: float,
) -> list[Line]:
    """Return a line per case that both have."""
    same_machine = all(old[0].get(key) == new[0].get(key) for key in _SAME)
    before = {(case["op"], case["name"]): case for case in old[1]}
    lines = []
    for case in new[1]:
        key = case["op"], case["name"]
        if key not in before:
            continue
        spreads = [seconds(c) if same_machine else inverse_ratio(c) for c in (before[key], case)]
        if spreads[0] is None or spreads[1] is None:
            continue
        regression = spreads[1].worse_than(spreads[0], tolerance)
        unit = "ms" if same_machine else "of the best peer's time"
        lines.append(Line(*key, spreads[0], spreads[1], unit, regression))
    return lines


def seconds(case: dict[str, Any]) -> Spread:
    """Return the times of recfuse in milliseconds."""
    ours = case["contenders"][0]
    return Spread(*(1e3 * ours[key] for key in ("low", "median", "high")))


def inverse_ratio(case: dict[str, Any]) -> Spread | None:
    """Return recfuse's share of the best peer's time; None without a peer."""
    best = next((c for c in case["contenders"] if c["name"] == case["best_peer"]), None)
    if best is None:
        return None
    return Spread(*(1 / best[f"ratio_{key}"] for key in ("high", "median", "low")))


def table(lines: list[Line]) -> str:
    """Return the lines as text."""
    rows = [("op", "workload", "old", "new", "new/old", "")]
    for line in lines:
        factor = line.new.median / line.old.median
        rows.append(
            (
                line.op,
                line.name,
                shown(line.old),
                shown(line.new),
                f"{factor:.2f}",
                "REGRESSION" if line.regression else "",
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def shown(spread: Spread) -> str:
    return f"{spread.median:.4g} ({spread.low:.4g}..{spread.high:.4g})"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument(
        "--tolerance", type=float, default=0.05, help="change of the median to overlook (0.05)"
    )
    options = parser.parse_args(arguments)
    try:
        lines = compare(load(options.old), load(options.new), options.tolerance)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    if not lines:
        print("the files have no case in common that can be compared", file=sys.stderr)
        return 2
    print(f"recfuse, in {lines[0].unit}: median (quartiles); less is better")
    print(table(lines))
    return int(any(line.regression for line in lines))


if __name__ == "__main__":
    sys.exit(main())
