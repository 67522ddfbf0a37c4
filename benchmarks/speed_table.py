"""The speed table: ``python benchmarks/speed_table.py README.md README.zh-CN.md result.json ...``.

Puts the table of files that ``recfuse bench`` wrote between the two marks ``<!-- speed -->`` and
``<!-- /speed -->`` of every document, in its language. Of a case that several files have, the last
one counts.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_WORDS = {
    "en": {
        "header": "| workload | recfuse | times as fast as | of the floor |",
        "machine": "{cores} cores of an {cpu}, {isa}",
        "below": "{machines}; generated data, {dates}; medians, in turn, "
        "answers checked equal first. {versions}.",
        "between": ("; ", ", "),
    },
    "zh": {
        "header": "| 任务 | recfuse | 快多少倍 | 达到下限的 |",
        "machine": "{cpu}，{cores} 核，{isa}",
        "below": "{machines}；数据为随机生成，{dates}；各库轮流计时，取中位数，"
        "计时前先核对答案一致。{versions}。",
        "between": ("；", "、"),
    },
}
_BEGIN, _END = "<!-- speed -->\n", "<!-- /speed -->"


def speed_table(results: Sequence[dict[str, Any]], language: str = "en") -> str:
    """Return the cases of results as a table, with the machines below."""
    words = _WORDS[language]
    cases = {(case["op"], case["name"]): case for result in results for case in result["cases"]}
    lines = [str(words["header"]), "|---|---|---|---|"]
    lines += [_line(case) for case in cases.values()]
    versions = results[-1]["versions"]
    named = ", ".join(f"{name} {version}" for name, version in versions.items() if name != "python")
    machines = {str(words["machine"]).format(**result["machine"]) for result in results}
    dates = sorted({result["created"][:10] for result in results})
    between_machines, between_dates = words["between"]
    below = str(words["below"]).format(
        machines=between_machines.join(sorted(machines)),
        dates=between_dates.join(dates),
        versions=named,
    )
    return "\n".join([*lines, "", below]) + "\n"


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


def language_of(document: Path) -> str:
    """Return "zh" for ``README.zh-CN.md``, "en" where the name says nothing."""
    return "zh" if ".zh" in document.name else "en"


def main(arguments: list[str]) -> None:
    """Write the table into documents."""
    documents = [Path(name) for name in arguments if name.endswith(".md")]
    files = [Path(name) for name in arguments if not name.endswith(".md")]
    results = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    for document in documents:
        table = speed_table(results, language_of(document))
        before, rest = document.read_text(encoding="utf-8").split(_BEGIN)
        after = rest.split(_END)[1]
        document.write_text(before + _BEGIN + table + _END + after, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
