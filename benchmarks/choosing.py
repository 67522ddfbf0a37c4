"""What docs/choosing.md says in numbers.

``python benchmarks/choosing.py MovieLens`` (or ``newcomers``, ``last.fm``, ``scale``) measures one
part and keeps it in ``benchmarks/results/choosing.json``; each takes a minute or two. ``page``
writes what is kept into the page, between ``<!-- NAME -->`` and ``<!-- /NAME -->``. The data are
looked for in ``RECFUSE_DATA``.
"""

from __future__ import annotations

import json
import sys
import warnings
from datetime import date
from pathlib import Path
from typing import Any

from choices import models, rules, scale
from choices.data import DATA, everybody, newcomers

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results/choosing.json"
PAGE = ROOT / "docs/choosing.md"
COLUMNS = {"MovieLens": "MovieLens", "newcomers": "three likes known", "last.fm": "last.fm"}
Rows = list[dict[str, Any]]


def measure(part: str) -> dict[str, Any]:
    """Return what a part of the page shows."""
    if part == "scale":
        return {"scale": scale.measured()}
    data = DATA["MovieLens" if part == "newcomers" else part]()
    chosen = models.tuned(data)
    als = chosen["ALS, implicit"][1]
    if part == "newcomers":
        first, second = (newcomers(data, als(), part=half) for half in (0, 1))
        return {"rules": rules.measured(first, second)}
    before, after = (everybody(data, split, als()) for split in (data.validation, data.split))
    return {
        "rules": rules.measured(before, after),
        "models": models.measured(data, chosen),
        "explicit": models.explicit(data),
        "diversity": models.diversity(data, chosen),
        "split": data.split.name,
    }


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def megabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:,.0f}" if n_bytes >= 1e7 else f"{n_bytes / 1e6:.1f}"


def number(x: float) -> str:
    return f"{x:.3g}" if x < 100 else f"{x:,.0f}"


def alone(name: str) -> bool:
    return name.endswith(" alone")


def rules_table(kept: dict[str, Any]) -> str:
    """Return every rule, by how far it is behind the best, on average over the data sets."""
    by_set = {part: {row["rule"]: row for row in kept[part]["rules"]} for part in COLUMNS}
    shared = [name for name in by_set["MovieLens"] if all(name in rows for rows in by_set.values())]

    def loss(name: str) -> float:
        return sum(rows[name]["behind"] / _best(rows) for rows in by_set.values())

    lines = []
    for name in sorted((n for n in shared if not alone(n)), key=loss):
        cells = [_quality(rows[name], rows) for rows in by_set.values()]
        of = by_set["MovieLens"][name]
        costs = [number(of["batch_ms"]), number(of["one_ms"]), megabytes(of["bytes"])]
        lines.append([f"`{name}`", *cells, *costs])
    for part, rows in by_set.items():
        best = max((n for n in rows if alone(n)), key=lambda n: rows[n]["ndcg"])
        cells = [_quality(rows[best], rows) if p == part else "" for p in by_set]
        lines.append([f"best modality: `{best}`", *cells, "", "", ""])
    header = ["rule", *COLUMNS.values(), "ms a query", "ms, one alone", "MB"]
    return table(header, lines) + "\n" + _people(by_set)


def _best(rows: dict[str, dict[str, Any]]) -> float:
    return max(float(row["ndcg"]) for row in rows.values())


def _quality(row: dict[str, Any], rows: dict[str, dict[str, Any]]) -> str:
    text = f"{row['ndcg']:.4f}"
    if row["behind"] <= row["error"]:
        text = f"**{text}**"
    return f"{text} *" if row["suggested"] else text


def _people(by_set: dict[str, dict[str, dict[str, Any]]]) -> str:
    counts = [next(iter(rows.values()))["n_users"] for rows in by_set.values()]
    named = ", ".join(f"{name} {n:,}" for name, n in zip(COLUMNS.values(), counts, strict=True))
    return (
        f"NDCG@20; people: {named}. Bold: not behind the best by more than one standard error of "
        "the difference. *: what `suggest_fusion` suggests, which saw the validation alone. "
        "Costs are of MovieLens.\n"
    )


def models_table(kept: dict[str, Any]) -> str:
    sets = ("MovieLens", "last.fm")
    lines = []
    for rows in zip(*(kept[part]["models"] for part in sets), strict=True):
        cells = [f"`{rows[0]['model']}`"]
        for row in rows:
            said = f" ({row['chosen']})" if row["chosen"] else ""
            cells += [f"{row['ndcg']:.4f}{said}"]
        first = rows[0]
        cells.append(f"{first['coverage']:.2f}")
        cells += [
            number(1e3 * first["fit_seconds"]),
            number(first["milliseconds"]),
            megabytes(first["bytes"]),
        ]
        lines.append(cells)
    header = ["model", *(f"NDCG@20, {name}" for name in sets)]
    return table([*header, "coverage", "fit, ms", "ms, one alone", "MB of file"], lines)


def explicit_table(kept: dict[str, Any]) -> str:
    lines = [
        [
            row["model"],
            "-" if row["rmse"] is None else f"{row['rmse']:.3f}",
            "-" if row["ndcg"] is None else f"{row['ndcg']:.4f}",
        ]
        for row in kept["MovieLens"]["explicit"]
    ]
    return table(["model", "RMSE of stars", "NDCG@20 of likes"], lines)


def diversity_table(kept: dict[str, Any]) -> str:
    sets = ("MovieLens", "last.fm")
    lines = []
    for rows in zip(*(kept[part]["diversity"] for part in sets), strict=True):
        cells = [f"{rows[0]['trade_off']:g}"]
        for row in rows:
            cells += [f"{row['ndcg']:.4f}", f"{row['diversity']:.3f}"]
        lines.append(cells)
    header = [f"{what}, {name}" for name in sets for what in ("NDCG@20", "diversity")]
    return table(["`trade_off`", *header], lines)


def scale_table(kept: dict[str, Any]) -> str:
    lines = [
        [
            f"{row['n_items']:,}",
            str(row["dim"]),
            number(row["one_ms"]),
            number(row["batch_ms"]),
            megabytes(row["input_bytes"]),
            megabytes(row["peak_bytes"]),
        ]
        for row in kept["scale"]["scale"]
    ]
    header = ["items", "dimensions", "ms, one alone", "ms a query", "MB of vectors", "MB beyond"]
    return table(header, lines)


TABLES = {
    "rules": rules_table,
    "models": models_table,
    "explicit": explicit_table,
    "diversity": diversity_table,
    "scale": scale_table,
}


def page(kept: dict[str, Any], text: str) -> str:
    """Return the page with every table made anew."""
    for name, make in TABLES.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, rest = text.split(begin)
        text = before + begin + make(kept) + end + rest.split(end)[1]
    return text


def _kept() -> dict[str, Any]:
    return dict(json.loads(RESULTS.read_text("utf-8"))) if RESULTS.exists() else {}


def main(arguments: list[str]) -> None:
    warnings.filterwarnings("ignore", message="Stochastic Optimizer")  # 15 epochs are meant
    for part in arguments:
        if part == "page":
            PAGE.write_text(page(_kept(), PAGE.read_text("utf-8")), "utf-8")
            continue
        found = {"date": date.today().isoformat(), **measure(part)}
        kept = _kept() | {part: found}  # read again: another part may have been measured meanwhile
        RESULTS.write_text(json.dumps(kept, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
