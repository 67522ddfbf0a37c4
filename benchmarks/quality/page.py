"""The tables of docs/quality.md, out of the results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["rounded", "table", "write"]

PAGE = Path(__file__).parents[2] / "docs" / "quality.md"


def rounded(value: Any) -> Any:
    """Return the document with floats of six digits."""
    if isinstance(value, dict):
        return {name: rounded(v) for name, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(v) for v in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def table(found: dict[str, Any]) -> str:
    """Return all tables of one data set."""
    return json.dumps(found["results"], indent=1)


def write(results: Path) -> None:
    """Put the tables of all results into the page, between their marks."""
    text = PAGE.read_text(encoding="utf-8")
    for file in sorted(results.glob("quality-*.json")):
        found = json.loads(file.read_text(encoding="utf-8"))
        begin, end = f"<!-- {found['data']} -->\n", f"<!-- /{found['data']} -->"
        before, rest = text.split(begin)
        text = before + begin + table(found) + end + rest.split(end)[1]
    PAGE.write_text(text, encoding="utf-8")
