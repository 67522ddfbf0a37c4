"""The table of speed in the README: ``python benchmarks/speed_table.py README.md result.json ...``.

Puts the table of files that ``recfuse bench`` wrote between the two marks ``<!-- speed -->`` and
``<!-- /speed -->`` of a document. Of a case that several files have, the last one counts.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_BEGIN, _END = "<!-- speed -->\n", "<!-- /speed -->"


def speed_table(results: Sequence[dict[str, Any]]) -> str:
    """Return the cases of results as a table, with the machines below."""
    cases = {(case["op"], case["name"]): case for result in results for case in result["cases"]}
    lines = ["| workload | recfuse | times as fast as | of the floor |", "|---|---|---|---|"]
    lines += [_line(case) for case in cases.values()]
    versions = results[-1]["versions"]
    named = ", ".join(f"{name} {version}" for name, version in versions.items() if name != "python")
    machines = {
        f"{m['cores']} cores of an {m['cpu']}, {m['isa']}"
        for m in (result["machine"] for result in results)
    }
    dates = sorted({result["created"][:10] for result in results})
    lines += [
        "",
        f"{'; '.join(sorted(machines))}; generated data, {', '.join(dates)}; medians, in turn, "
        f"answers checked equal first. {named}.",
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
    """Write the table into a document."""
    document, *files = map(Path, arguments)
    table = speed_table([json.loads(file.read_text(encoding="utf-8")) for file in files])
    before, rest = document.read_text(encoding="utf-8").split(_BEGIN)
    document.write_text(before + _BEGIN + table + _END + rest.split(_END)[1], encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
