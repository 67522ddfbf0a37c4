"""The tables of docs/quality.md, out of the results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["README_MARKS", "headline", "rounded", "table", "write"]

ROOT = Path(__file__).parents[2]
EXACT = ("params", "weights")
README_MARKS = ("<!-- quality -->\n", "<!-- /quality -->")


def rounded(value: Any) -> Any:
    """Return the document with floats of six digits; parameters as they were, to fit the same."""
    if isinstance(value, dict):
        return {name: v if name in EXACT else rounded(v) for name, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(v) for v in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def table(found: dict[str, Any]) -> str:
    """Return all tables of one data set."""
    parts = [_everybody(found)]
    if "newcomers" in found:
        parts.append(_newcomers(found["newcomers"]))
    if "cold items" in found:
        parts.append(_cold_items(found["cold items"]))
    return "\n".join(parts)


def write(results: Path, root: Path = ROOT) -> None:
    """Put the tables of all results into the page, and lines into the READMEs."""
    by_name = {}
    for file in sorted(results.glob("quality-*.json")):
        found = json.loads(file.read_text(encoding="utf-8"))
        by_name[found["data"]] = found
        marks = f"<!-- {found['data']} -->\n", f"<!-- /{found['data']} -->"
        _between(root / "docs" / "quality.md", marks, table(found))
    for document in HEADLINES:
        _between(root / document, README_MARKS, headline(by_name, document))


def _between(document: Path, marks: tuple[str, str], new: str) -> None:
    before, rest = document.read_text(encoding="utf-8").split(marks[0])
    after = rest.split(marks[1])[1]
    document.write_text(before + marks[0] + new + marks[1] + after, encoding="utf-8")


# What the READMEs say of each data set.
HEADLINES = {
    "README.md": {
        "gowalla": "Gowalla, the split that LightGCN was published with: {model}, tuned on "
        "validation, Recall@20 {recall:.4f} and NDCG@20 {ndcg:.4f}, LightGCN {their_recall:.4f} "
        "and {their_ndcg:.4f}.",
        "lastfm": "Last.fm, users of whom one artist is known: NDCG@20 {before:.3f} by behaviour "
        "alone, {after:.3f} with friends and tags (difference {gain}).",
        "movielens-small": "MovieLens small, films that nobody has rated yet: {before:.3f} by "
        "chance, which is all that behaviour has to offer, {after:.3f} by content (difference "
        "{gain}).",
    },
    "README.zh-CN.md": {
        "gowalla": "Gowalla（LightGCN 论文所用的划分）：{model}，参数在验证集上选定，"
        "Recall@20 {recall:.4f}、NDCG@20 {ndcg:.4f}；"
        "LightGCN 为 {their_recall:.4f} 和 {their_ndcg:.4f}。",
        "lastfm": "Last.fm，只知道用户听过一位艺人时：仅用行为 NDCG@20 为 {before:.3f}，"
        "加上好友和标签为 {after:.3f}（差值 {gain}）。",
        "movielens-small": "MovieLens small，还没有人评过分的电影："
        "随机（行为数据在这里只能做到这样）为 {before:.3f}，"
        "用内容为 {after:.3f}（差值 {gain}）。",
    },
}


# Models in Chinese; those that are not here keep their names.
CHINESE = {"ALS + item and user neighbours fused": "ALS、物品近邻与用户近邻融合"}


def headline(by_name: dict[str, dict[str, Any]], document: str = "README.md") -> str:
    """Return what a README says of the results there are."""
    said = []
    for name, sentence in HEADLINES[document].items():
        if name in by_name:
            facts = _FACTS[name](by_name[name])
            if "zh" in document and "model" in facts:
                facts["model"] = CHINESE.get(facts["model"], facts["model"])
            said.append(sentence.format(**facts))
    return "".join(f"{line}\n" for line in said)


def _of_gowalla(found: dict[str, Any]) -> dict[str, Any]:
    ours = [name for name in found["results"] if _is_ours(name)]
    best = max(ours, key=lambda name: _validation(found, name))
    row, then = found["results"][best], found["published"]
    return {
        "model": best.removeprefix("recfuse: ").replace(", fused", " fused"),
        "recall": row["recall@20"][0],
        "ndcg": row["ndcg@20"][0],
        "their_recall": then["recall@20"],
        "their_ndcg": then["ndcg@20"],
    }


def _of_lastfm(found: dict[str, Any]) -> dict[str, Any]:
    variants = found["newcomers"]["1"]
    return _more(variants["behaviour"], variants["+ friends and tags"])


def _of_movielens(found: dict[str, Any]) -> dict[str, Any]:
    cold = found["cold items"]
    return _more(cold["behaviour (chance)"], cold["both"])


def _more(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    gain = _interval(after["gain"]["ndcg@20"])
    return {"before": before["ndcg@20"][0], "after": after["ndcg@20"][0], "gain": gain}


_FACTS = {"gowalla": _of_gowalla, "lastfm": _of_lastfm, "movielens-small": _of_movielens}


def _validation(found: dict[str, Any], name: str) -> float:
    """Return by what a model is chosen: the test must not choose."""
    tuned, fused = found["tuned"].get(name, {}), found["fusion"].get(name, {})
    return float(tuned.get("validation", fused.get("cross_validated", 0.0)))


def _is_ours(name: str) -> bool:
    return name.startswith("recfuse") or "fused" in name


def _interval(found: list[float]) -> str:
    return f"{found[0]:+.3f} [{found[1]:+.3f}, {found[2]:+.3f}]"


def _everybody(found: dict[str, Any]) -> str:
    tuned = found["tuned"].get("everybody", found["tuned"])
    against = next(name for name, row in found["results"].items() if "against" not in row)
    sizes = ", ".join(f"{n:,} {name}" for name, n in found["sizes"].items())
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    lines = [
        f"{sizes}. Split: {found['split']}. {found['budget']} trials each, unless said below.",
        "",
        f"| model | validation NDCG@20 | Recall@20 | NDCG@20 | {against}: NDCG@20 more |",
        "|---|---|---|---|---|",
    ]
    ranked = sorted(found["results"].items(), key=lambda item: -item[1]["ndcg@20"][0])
    for name, row in ranked:
        weights = found["fusion"].get(name, {})
        value = tuned.get(name, {}).get("validation", weights.get("cross_validated"))
        more = _signed(row["against"]["ndcg@20"]) if "against" in row else ""
        cells = [name, f"{value:.4f}", _mean(row["recall@20"]), _mean(row["ndcg@20"]), more]
        lines.append(f"| {' | '.join(cells)} |")
    for name, search in tuned.items():
        if "validation" in search and name not in found["results"]:
            lines.append(f"| {name} | {search['validation']:.4f} | not tested yet | | |")
    if "published" in found:
        recall, ndcg = found["published"]["recall@20"], found["published"]["ndcg@20"]
        lines.append(f"| LightGCN, as published | | {recall:.4f} | {ndcg:.4f} | |")
    users = next(iter(found["results"].values()))["n_users"]
    lines += ["", f"{users:,} users with test items. {versions}; {found['created']}.", ""]
    return "\n".join(lines)


def _newcomers(by_length: dict[str, Any]) -> str:
    lines = ["| items known | what is used | Recall@20 | NDCG@20 | NDCG@20 more than behaviour |"]
    lines.append("|---|---|---|---|---|")
    for n, variants in by_length.items():
        for name, row in variants.items():
            more = "" if name == "behaviour" else _signed(row["gain"]["ndcg@20"])
            cells = [n, name, _mean(row["recall@20"]), _mean(row["ndcg@20"]), more]
            lines.append(f"| {' | '.join(cells)} |")
    users = next(iter(next(iter(by_length.values())).values()))["n_users"]
    lines += ["", f"{users:,} users.", ""]
    return "\n".join(lines)


def _cold_items(variants: dict[str, Any]) -> str:
    lines = ["| what is used | Recall@20 | NDCG@20 | NDCG@20 more than chance |"]
    lines.append("|---|---|---|---|")
    for name, row in variants.items():
        more = "" if name.startswith("behaviour") else _signed(row["gain"]["ndcg@20"])
        cells = [name, _mean(row["recall@20"]), _mean(row["ndcg@20"]), more]
        lines.append(f"| {' | '.join(cells)} |")
    row = next(iter(variants.values()))
    lines += ["", f"{row['n_items']:,} cold items, {row['n_users']:,} users who liked some.", ""]
    return "\n".join(lines)


def _mean(found: list[float]) -> str:
    mean, low, high = found
    return f"{mean:.4f} [{low:.4f}, {high:.4f}]"


def _signed(found: list[float]) -> str:
    mean, low, high = found
    text = f"{mean:+.4f} [{low:+.4f}, {high:+.4f}]"
    return f"**{text}**" if low > 0 or high < 0 else text
