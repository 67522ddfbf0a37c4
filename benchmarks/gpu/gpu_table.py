"""The table of what ran on a GPU: ``python benchmarks/gpu/gpu_table.py``.

Puts what `results/gpu-*.json` show between the marks ``<!-- gpu -->`` and ``<!-- /gpu -->`` of the
READMEs and docs/performance.md, from which sizes a GPU pays into docs/gpu.md (`pays.py`), and one
line where other pages speak of the GPU. Evidence of other kernels than today's is called stale;
where there is none, that is what the pages say. Nobody writes there by hand.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pays import pays_table
from sources import ROOT, kernel_hash
from workloads import TARGETS, Target, key

from recfuse.bench.case import ON_CPU

DOCUMENTS = ("README.md", "README.zh-CN.md", "docs/performance.md")
MARKS = "<!-- gpu -->\n", "<!-- /gpu -->"
STATE_DOCUMENTS = ("docs/architecture.md", "docs/serving.md", "docs/gpu.md")
STATE_MARKS = "<!-- gpu state -->\n", "<!-- /gpu state -->"
PAYS_DOCUMENT, PAYS_MARKS = "docs/gpu.md", ("<!-- pays -->\n", "<!-- /pays -->")

_WORDS = {
    "en": {
        "none": "**Not run on a device yet.** The kernels of the GPU have run on an emulator only "
        "(`tools/gpu_check.sh` writes the evidence that belongs here).",
        "stale": "**Stale**: the kernels have changed since, and have not run on a device again.",
        "header": "| workload | recfuse, data resident | with copies over the bus "
        "| times as fast as | of the floor |",
        "encoder": "{ratio} the encoder alone",
        "failed": "failed: {what}",
        "rounds": " (rounds)",
        "none measured": "not measured",
        "below": "{device}, driver {driver}, CUDA {nvcc}; {date}; medians of CUDA events, caches "
        "flushed; lists checked to be the CPU's bytes first, ALS by its objective. {libraries}.",
        "ceilings": "Ceilings of the same run: {rates}.",
        "checks": "Passed: {passed}.",
        "not passed": "**Not passed**: {failed}.",
        "missing": "Left out: {missing}.",
        "targets": "Targets: {targets}.",
        "target": "{name} {reached} of {bound}: {verdict}",
        "met": "met",
        "missed": "**missed**",
        "between": (", ", "; "),
    },
    "zh": {
        "none": "**尚未在 GPU 上运行过。**GPU 内核目前只在模拟器上运行过"
        "（`tools/gpu_check.sh` 会写出这里所需的证据）。",
        "stale": "**已过期**：此后内核有改动，尚未重新在 GPU 上运行。",
        "header": "| 任务 | recfuse，数据常驻显存 | 含总线拷贝 | 快多少倍 | 达到下限的 |",
        "encoder": "仅编码器的 {ratio}",
        "failed": "失败：{what}",
        "rounds": "（有舍入）",
        "none measured": "未测",
        "below": "{device}，驱动 {driver}，CUDA {nvcc}；{date}；CUDA event 计时取中位数，"
        "缓存已清空；计时前先核对列表与 CPU 逐字节相同，ALS 核对目标函数。{libraries}。",
        "ceilings": "同一次运行测得的上限：{rates}。",
        "checks": "通过：{passed}。",
        "not passed": "**未通过**：{failed}。",
        "missing": "未包括：{missing}。",
        "targets": "目标：{targets}。",
        "target": "{name} {reached}，目标 {bound}：{verdict}",
        "met": "达到",
        "missed": "**未达到**",
        "between": ("、", "；"),
    },
}
_UNITS = {
    "copy_tb_s": "copy {:.2f} TB/s",
    "l2_tb_s": "L2 {:.2f} TB/s",
    "matmul_float16_tflop_s": "float16 {:.0f} TFLOP/s",
    "matmul_int8_top_s": "int8 {:.0f} TOP/s",
    "matmul_tf32_tflop_s": "tf32 {:.0f} TFLOP/s",
    "matmul_float32_tflop_s": "float32 {:.0f} TFLOP/s",
    "shared_atomics_g_s": "shared atomics {:.0f} G/s",
}


def gpu_table(results: Sequence[dict[str, Any]], kernels: str, language: str = "en") -> str:
    """Return what results show, one after the other, beside the hash of today's kernels."""
    words = _WORDS[language]
    if not results:
        return str(words["none"]) + "\n"
    return "\n".join(_one(result, kernels, words) for result in results)


def _one(result: dict[str, Any], kernels: str, words: dict[str, Any]) -> str:
    if result.get("rehearsal"):
        raise ValueError("a rehearsal is no evidence")
    comma, semicolon = words["between"]
    lines = [] if result["kernel_sources"] == kernels else [words["stale"], ""]
    rates = result["ceilings"]
    if result["cases"]:
        lines += [words["header"], "|---|---|---|---|---|"]
        lines += [_row(name, case, words) for name, case in result["cases"].items()]
        lines.append("")
    device, versions = result["device"], result["versions"]
    libraries = ("recfuse", "numpy", "torch")
    below = words["below"].format(
        device=device["name"],
        driver=device["driver"],
        nvcc=versions["nvcc"],
        date=result["created"][:10],
        libraries=comma.join(f"{x} {versions[x]}" for x in libraries if x in versions),
    )
    lines.append(below)
    reached = [said for said in (_reached(x, result["cases"], words) for x in TARGETS) if said]
    if reached:
        lines.append(words["targets"].format(targets=semicolon.join(reached)))
    shown = [text.format(rates[name]) for name, text in _UNITS.items() if name in rates]
    if shown:
        lines.append(words["ceilings"].format(rates=comma.join(shown)))
    passed = [name for name, step in result["checks"].items() if step["status"] == "ok"]
    failed = [
        f"{name} ({step['status']})"
        for name, step in result["checks"].items()
        if step["status"] not in ("ok", "left out")
    ]
    if passed:
        lines.append(words["checks"].format(passed=comma.join(passed)))
    if failed:
        lines.append(words["not passed"].format(failed=comma.join(failed)))
    missing = result.get("missing", {})
    if missing:
        told = (f"{name} ({reason})" for name, reason in missing.items())
        lines.append(words["missing"].format(missing=semicolon.join(told)))
    return "\n".join(lines) + "\n"


def _reached(target: Target, cases: dict[str, Any], words: dict[str, Any]) -> str | None:
    """Return how a target was met or missed; None where it was not measured."""
    contenders = cases.get(key(target.case), {}).get("contenders", [])
    timed = {one["name"]: 1e3 * one["median"] for one in contenders if "median" in one}
    if target.contender not in timed:
        return None
    time = timed[target.contender]
    ratio = time / 1e3 / contenders[0]["median"]
    met = time <= target.most_ms if target.most_ms else ratio >= target.least_ratio
    return str(
        words["target"].format(
            name=f"{key(target.case)}, {target.contender}",
            reached=_time(time) if target.most_ms else _times(ratio),
            bound=_time(target.most_ms) if target.most_ms else _times(target.least_ratio),
            verdict=words["met" if met else "missed"],
        )
    )


def _row(name: str, case: dict[str, Any], words: dict[str, Any]) -> str:
    if "error" in case:
        reason = words["failed"].format(what=case["error"].replace("|", "/").replace("\n", " "))
        return f"| {name} | {reason} | | | |"
    if "whole_ms" in case:  # a network and what follows
        ratio = case["whole_ms"]["median"] / case["encoder_ms"]["median"]
        encoder = words["encoder"].format(ratio=f"{ratio:.2f}x")
        return f"| {name} | {_time(case['whole_ms']['median'])} | | {encoder} | |"
    timed = {one["name"]: 1e3 * one["median"] for one in case["contenders"] if "median" in one}
    ours = timed[case["contenders"][0]["name"]]
    others = [
        f"{one['name']} {_times(timed[one['name']] / ours)}" + words["rounds"] * (not one["exact"])
        for one in case["contenders"]
        if one["name"] in timed and (one["package"] != "recfuse" or one["name"] == ON_CPU)
    ]
    resident = timed.get("recfuse")
    copies = timed.get("recfuse, host queries") or timed.get("recfuse, all from the host")
    shown = [words["none measured"] if ms is None else _time(ms) for ms in (resident, copies)]
    share = f"{100 * case['share_of_floor']:.0f} %"
    return f"| {name} | {' | '.join(shown)} | {', '.join(others)} | {share} |"


def _time(ms: float) -> str:
    return f"{1e3 * ms:.0f} us" if ms < 1 else f"{ms:.3g} ms"


def _times(ratio: float) -> str:
    return f"{ratio:.2f}x" if ratio < 2 else f"{ratio:.1f}x"


def evidence(folder: Path = ROOT / "benchmarks" / "results") -> list[dict[str, Any]]:
    """Read all that there is, the newest first."""
    files = folder.glob("gpu-*.json")
    found = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    return sorted(found, key=lambda result: str(result["created"]), reverse=True)


def state(results: Sequence[dict[str, Any]], kernels: str) -> str:
    """Return what pages say that have no table."""
    if not results:
        return "**The kernels of the GPU have not run on a device yet**, on an emulator only.\n"
    newest = results[0]
    ran = f"Run on {newest['device']['name']} on {newest['created'][:10]}"
    changed = newest["kernel_sources"] != kernels
    return f"{ran}{'; **stale**: the kernels have changed since' if changed else ''}.\n"


def table_of(document: str) -> str:
    """Return what a document has to show between its marks."""
    return gpu_table(evidence(), kernel_hash(), "zh" if ".zh" in document else "en")


def main() -> None:
    """Write what there is into the documents."""
    for name in DOCUMENTS:
        put(ROOT / name, MARKS, table_of(name))
    for name in STATE_DOCUMENTS:
        put(ROOT / name, STATE_MARKS, state(evidence(), kernel_hash()))
    put(ROOT / PAYS_DOCUMENT, PAYS_MARKS, pays_table(evidence(), kernel_hash()))


def put(document: Path, marks: tuple[str, str], text: str) -> None:
    """Write `text` between the marks of a document."""
    begin, end = marks
    before, rest = document.read_text(encoding="utf-8").split(begin)
    document.write_text(before + begin + text + end + rest.split(end)[1], encoding="utf-8")


if __name__ == "__main__":
    main()
