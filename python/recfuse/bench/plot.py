"""One picture of a run: how many times faster than whom, and how near to the machine's limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["save_plot"]

_OURS, _SLOWER, _PEER, _INK = "#1f6f8b", "#c4623a", "#b0b7bf", "#2b2f36"


def save_plot(results: dict[str, Any], path: Path) -> None:
    """Draw the results of a run to a PNG file.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("the plot needs matplotlib: pip install 'recfuse[plot]'") from error
    cases = results["cases"]
    figure = Figure(figsize=(13, 3.2 + 0.42 * max(len(cases), 4)), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    _draw_ratios(left, cases)
    _draw_roofline(right, cases, results["ceilings"], "device" in results)
    figure.suptitle(
        f"recfuse {results['versions']['recfuse']} on {_where(results)}; generated data",
        color=_INK,
        fontsize=10,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _where(results: dict[str, Any]) -> str:
    if "device" in results:
        return str(results["device"]["name"])
    machine = results["machine"]
    return f"{machine['cpu']}, {machine['threads']} threads, {machine['isa']}"


def _draw_ratios(axes: Any, cases: list[dict[str, Any]]) -> None:
    """Draw a bar per case for the best peer, a dot for every other one."""
    axes.set_xscale("log")
    seen = [1.0]
    for row, case in enumerate(cases):
        peers = [c for c in case["contenders"] if _is_timed_peer(c)]
        best = next((c for c in peers if c["name"] == case["best_peer"]), None)
        if best is None:
            axes.text(1.02, row, "no peer installed", va="center", fontsize=8, color=_INK)
            continue
        ratio = best["ratio_median"]
        others = [c["ratio_median"] for c in peers if c is not best]
        seen += [ratio, best["ratio_low"], best["ratio_high"], *others]
        color = _OURS if ratio >= 1 else _SLOWER
        axes.barh(row, ratio - 1, left=1, height=0.5, color=color, zorder=2)
        axes.hlines(row, best["ratio_low"], best["ratio_high"], color=_INK, linewidth=1.5, zorder=4)
        axes.plot(
            others,
            [row] * len(others),
            "o",
            markersize=4,
            color=_PEER,
            markeredgecolor=_INK,
            markeredgewidth=0.5,
            zorder=3,
        )
        axes.annotate(
            f"{ratio:.2f}x  {best['name']}",
            (max(1.0, ratio, best["ratio_high"], *others), row),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=_INK,
        )
    axes.axvline(1.0, color=_INK, linewidth=1, zorder=5)
    axes.set_yticks(
        range(len(cases)),
        [f"{case['op']}\n{case['name']}  [{n}]" for n, case in enumerate(cases, 1)],
    )
    axes.set_ylim(max(len(cases), 3) - 0.5, -0.5)
    low, high = min(0.8, min(seen) / 1.2), max(2.0, *seen)
    axes.set_xlim(low, high * (high / low) ** 0.5)  # room for the names
    ticks = [t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500) if low <= t <= high]
    axes.set_xticks(ticks, [f"{tick:g}x" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlabel(
        "time of the peer / time of recfuse; beyond 1x recfuse is faster\n"
        "bar: the fastest peer, with quartiles; dots: the other peers",
        fontsize=8,
    )
    axes.set_title("Against the best peer at its best", fontsize=10, loc="left", color=_INK)
    _tidy(axes, "x")


def _is_timed_peer(contender: dict[str, Any]) -> bool:
    return bool(contender["status"] == "timed" and contender["package"] != "recfuse")


def _draw_roofline(
    axes: Any, cases: list[dict[str, Any]], ceilings: dict[str, float], on_device: bool
) -> None:
    """Draw the ceilings, and recfuse and its best peer below them."""
    arithmetic = {
        "float16" if on_device else "float32": ceilings["flops_per_second"],
        "int8": ceilings["int8_operations_per_second"],
    }
    arithmetic = {name: rate for name, rate in arithmetic.items() if rate > 0}
    points = []
    for number, case in enumerate(cases, 1):
        work = case["cost"]["flops"] or 2 * case["cost"]["updates"]
        best = next((c for c in case["contenders"] if c["name"] == case["best_peer"]), None)
        points.append((number, work / case["cost"]["bytes"], work, case["contenders"][0], best))
    intensities = [point[1] for point in points]
    x = np.geomspace(min(0.1, *intensities, 1) / 2, max(1e3, *intensities, 1) * 3, 200)
    for name, rate, style in (
        ("memory", ceilings["memory_bytes_per_second"], "-"),
        ("last cache", ceilings["cache_bytes_per_second"], ":"),
    ):
        roof = np.minimum(x * rate, max(arithmetic.values()))
        axes.loglog(x, roof / 1e9, style, color=_INK, linewidth=1.2)
        axes.text(
            x[0] * 0.85,
            x[0] * rate / 1e9,
            f"{name} {rate / 1e9:.0f} GB/s",
            ha="right",
            va="center",
            fontsize=7,
            color=_INK,
        )
    for name, rate in arithmetic.items():
        if rate < max(arithmetic.values()):
            axes.axhline(rate / 1e9, color=_INK, linewidth=1, linestyle="-.")
        label = f"{name} multiply-adds {rate / 1e9:.0f} G operations/s"
        axes.text(x[-1], rate / 1e9 * 1.08, label, ha="right", fontsize=7, color=_INK)
    if any(case["cost"]["updates"] for case in cases):
        updates = 2 * ceilings["updates_per_second"] / 1e9
        axes.axhline(updates, color=_INK, linewidth=1, linestyle="--")
        axes.text(x[-1], updates * 1.08, "scattered updates", ha="right", fontsize=7, color=_INK)
    axes.plot([], [], "o", color=_OURS, label="recfuse, [n] as on the left")
    axes.plot([], [], "o", color="white", markeredgecolor=_INK, label="its best peer")
    axes.legend(loc="upper left", fontsize=8, frameon=False)
    for number, intensity, work, ours, best in points:
        rates = [work / ours["median"] / 1e9]
        if best is not None:
            rates.append(work / best["median"] / 1e9)
            axes.plot([intensity] * 2, rates, color=_PEER, linewidth=1, zorder=2)
            axes.plot(intensity, rates[1], "o", color="white", markeredgecolor=_INK, zorder=3)
        axes.plot(intensity, rates[0], "o", color=_OURS, zorder=4)
        axes.annotate(
            f"[{number}]",
            (intensity, rates[0]),
            xytext=(6, 2),
            textcoords="offset points",
            fontsize=8,
            color=_OURS,
        )
    axes.set_xlim(left=x[0] / 40)  # room for the names of the slopes
    axes.set_xlabel("operations per byte that must move", fontsize=8)
    axes.set_ylabel("G operations per second", fontsize=8)
    axes.set_title("Against the limits of the machine", fontsize=10, loc="left", color=_INK)
    _tidy(axes, "both")


def _tidy(axes: Any, grid: str) -> None:
    axes.grid(True, axis=grid, color="#e3e6ea", linewidth=0.7, zorder=0)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
