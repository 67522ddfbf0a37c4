"""The table of speed in the README: ``python benchmarks/speed_table.py result.json [README.md]``.

Prints the table of a file that ``recfuse bench`` wrote, or puts it between the two marks
``<!-- speed -->`` and ``<!-- /speed -->`` of a document.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

_BEGIN, _END = "<!-- speed -->\n", "<!-- /speed -->"


def speed_table(result: dict[str, Any]) -> str:
    """Return the cases of a result as a table, with the machine below."""
    lines = ["| workload | recfuse | times as fast as | of the floor |", "|---|---|---|---|"]
    lines += [_line(case) for case in result["cases"]]
    machine, versions = result["machine"], result["versions"]
    named = ", ".join(f"{name} {version}" for name, version in versions.items() if name != "python")
    lines += [
        "",
        f"{machine['cores']} cores of an {machine['cpu']}, {machine['isa']}, generated data, "
        f"{result['created'][:10]}; medians, in turn, answers checked equal first. {named}.",
    ]
    return "\n".join(lines) + "\n"


def _line(case: dict[str, Any]) -> str:
    ours = next(c for c in case["contenders"] if c["name"] == "recfuse")
    fastest: dict[str, dict[str, Any]] = {}  # of what one package can do in several ways
    for peer in sorted(case["contenders"], key=lambda c: c.get("ratio_median") or 0):
        if peer["package"] != "recfuse" and peer["status"] == "timed":
            fastest.setdefault(peer["package"], peer)
    named = ", ".join(f"{c['name']} {_ratio(c['ratio_median'])}" for c in fastest.values())
    share = f"{100 * case['share_of_floor']:.0f} %"
    return f"| `{case['op']}` {case['name']} | {_seconds(ours['median'])} | {named} | {share} |"


def _ratio(ratio: float) -> str:
    return f"{ratio:.2f}x" if ratio < 2 else f"{ratio:.1f}x"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def main(arguments: list[str]) -> None:
    """Print the table, or write it into a document."""
    table = speed_table(json.loads(Path(arguments[0]).read_text(encoding="utf-8")))
    if len(arguments) == 1:
        print(table, end="")
        return
    document = Path(arguments[1])
    text = document.read_text(encoding="utf-8")
    before, rest = text.split(_BEGIN)
    document.write_text(before + _BEGIN + table + _END + rest.split(_END)[1], encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
