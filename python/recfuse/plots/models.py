"""Models side by side, and along their training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from recfuse.plots._figure import (
    COLOURS,
    INK,
    LINES,
    MARKERS,
    canvas,
    finished,
    legend_beside,
    row_height,
    tidy,
    wrapped,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["comparison_bars", "learning_curves", "quality_latency"]

_COSTS = {  # name in `Costs` -> label, factor to its unit
    "latency_p50": ("latency of one user, median (ms)", 1e3),
    "latency_p99": ("latency of one user, 99th percentile (ms)", 1e3),
    "fit_seconds": ("fit (s)", 1.0),
    "recommend_seconds": ("recommend to all users (s)", 1.0),
    "fit_peak_bytes": ("peak memory of the fit (MiB)", 2.0**-20),
    "recommend_peak_bytes": ("peak memory of the evaluation (MiB)", 2.0**-20),
}

_PANELS = {
    "fit_seconds": "fit (s)",
    "latency_p99": "one user, p99 (ms)",
    "fit_peak_bytes": "fit, peak (MiB)",
    "recommend_peak_bytes": "evaluation, peak (MiB)",
}


def quality_latency(
    comparison: Any,
    metric: str,
    *,
    cost: str = "latency_p99",
    title: str | None = None,
    axes: Any = None,
) -> Figure:
    """Draw the quality of models against what they cost; the line joins those that none beats.

    Parameters
    ----------
    comparison : Comparison
        Of ``compare(..., costs=True)``.
    metric : str
        As in `RankingMetrics`: 'ndcg@20'. Bars are its 95 % interval over users, 1.96 standard
        errors to both sides.
    cost : str, default='latency_p99'
        Another field of `Costs`.
    title : str, optional
    axes : matplotlib Axes, optional

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If the costs were not measured, or `cost` is unknown.
    KeyError
        If the metric is unknown.

    Examples
    --------
    See ``docs/evaluation.md``.
    """
    _check_costs(comparison, cost)
    unit, factor = _COSTS[cost]
    x = np.array([factor * getattr(costs, cost) for costs in comparison.costs.values()])
    y = np.array([comparison.results[name][metric] for name in comparison.costs])
    figure, axes = canvas(axes, (7.5, 4.2))
    best = [n for n in np.lexsort((-y, x)) if y[n] > y[x < x[n]].max(initial=-np.inf)]
    axes.plot(x[best], y[best], color="#b0b7bf", linewidth=1.2, zorder=1, drawstyle="steps-post")
    for n, (name, label) in enumerate(
        zip(comparison.costs, wrapped(comparison.costs), strict=True)
    ):
        axes.errorbar(
            x[n],
            y[n],
            yerr=1.96 * comparison.results[name].standard_errors[metric],
            fmt=MARKERS[n % len(MARKERS)],
            markersize=9,
            markeredgecolor="white",
            color=COLOURS[n % len(COLOURS)],
            capsize=3,
            label=label,
            zorder=3,
        )
    if 0 < 3 * x.min() < x.max():  # else a log scale has hardly a round number to show
        axes.set_xscale("log")
        within = (1, 2, 5) if x.max() < 1000 * x.min() else (1,)  # more labels would overlap
        axes.xaxis.get_major_locator().set_params(subs=within)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
    axes.set_xlabel(unit)
    axes.set_ylabel(metric)
    legend_beside(axes)  # names at the points would overlap where models are alike
    return finished(figure, axes, title or comparison.split, "both")


def comparison_bars(comparison: Any, metric: str, *, title: str | None = None) -> Figure:
    """Draw quality, seconds and bytes of all models side by side, a panel for each.

    Parameters
    ----------
    comparison : Comparison
        What was not measured for any model has no panel: without ``compare(..., costs=True)``
        there is the quality alone.
    metric : str
        As in `RankingMetrics`, with its 95 % interval over users.
    title : str, optional

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    KeyError
        If the metric is unknown.

    Examples
    --------
    See ``docs/evaluation.md``.
    """
    names = list(comparison.results)
    costs = list(comparison.costs.values())
    panels = {cost: [getattr(of_model, cost) for of_model in costs] for cost in _PANELS}
    panels = {cost: v for cost, v in panels.items() if any(x is not None for x in v)}
    labels = wrapped(names)
    height = row_height(labels, 0.45)
    size = (max(7.5, 3.2 + 2.3 * len(panels)), 1.5 + height * len(names))
    figure, _ = canvas(None, size, empty=True)
    every = figure.subplots(1, 1 + len(panels), sharey=True, squeeze=False)[0]
    quality = [comparison.results[name][metric] for name in names]
    errors = [1.96 * comparison.results[name].standard_errors[metric] for name in names]
    nbins = 3 if panels else 9  # more numbers would overlap in narrow panels
    _draw_panel(every[0], quality, metric, COLOURS[0], errors, nbins)
    for axes, (cost, values) in zip(every[1:], panels.items(), strict=True):
        _, factor = _COSTS[cost]
        scaled = [np.nan if value is None else factor * value for value in values]
        _draw_panel(axes, scaled, _PANELS[cost], COLOURS[4], None, nbins)
    every[0].set_yticks(range(len(names)), labels)
    every[0].invert_yaxis()
    figure.suptitle(title or comparison.split, fontsize=10, color=INK)
    made: Figure = figure
    return made


def _draw_panel(axes: Any, values: Any, label: str, colour: str, errors: Any, nbins: int) -> None:
    bars = axes.barh(
        range(len(values)),
        values,
        height=0.6,
        color=colour,
        xerr=errors,
        error_kw={"ecolor": INK, "capsize": 2, "linewidth": 1},
        zorder=2,
    )
    texts = ["-" if np.isnan(value) else f"{value:.3g}" for value in values]
    axes.bar_label(bars, texts, padding=4, fontsize=8, color=INK)
    axes.margins(x=0.3)
    axes.set_xlabel(label, fontsize=8)
    axes.locator_params(axis="x", nbins=nbins)
    tidy(axes, "x")


def learning_curves(
    curves: Mapping[str, Any],
    *,
    xlabel: str = "iteration",
    ylabel: str = "",
    title: str | None = None,
    axes: Any = None,
) -> Figure:
    """Draw how measures change along a training, or along the trials of `tune`.

    Parameters
    ----------
    curves : mapping of str to sequence of float, or to a pair (x, y) of them
        A sequence is drawn over 1, 2, ...; NaN leaves a gap.
    xlabel, ylabel, title : str, optional
    axes : matplotlib Axes, optional

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If there is no curve, or x and y differ in length.

    Examples
    --------
    >>> from recfuse.plots import learning_curves
    >>> figure = learning_curves({"train": [0.1, 0.2, 0.25], "validation": ([1, 3], [0.1, 0.15])})
    >>> [line.get_label() for line in figure.axes[0].lines]
    ['train', 'validation']
    """
    if not curves:
        raise ValueError("learning_curves: curves must not be empty; got {}")
    beside = axes is None  # axes of one's own may have neighbours
    figure, axes = canvas(axes, (7, 4))
    labels = wrapped(curves)
    for n, (name, curve) in enumerate(curves.items()):
        if isinstance(curve, tuple) and len(curve) == 2:
            x, y = (np.asarray(part, np.float64) for part in curve)
        else:
            y = np.asarray(curve, np.float64)
            x = np.arange(1.0, len(y) + 1)
        if x.shape != y.shape or y.ndim != 1:
            raise ValueError(
                f"learning_curves: curves[{name!r}] must have as many x as y; "
                f"got {x.shape} and {y.shape}"
            )
        axes.plot(
            x,
            y,
            linestyle=LINES[n % len(LINES)],
            marker=MARKERS[n % len(MARKERS)],
            markevery=max(1, len(y) // 15),
            markersize=5,
            color=COLOURS[n % len(COLOURS)],
            label=labels[n],
        )
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    if beside:
        legend_beside(axes)  # among many curves there is no room
    else:
        axes.legend(frameon=False, fontsize=9)
    return finished(figure, axes, title, "both")


def _check_costs(comparison: Any, cost: str) -> None:
    op = "quality_latency"
    if not comparison.costs:
        raise ValueError(f"{op}: comparison must have costs (compare(..., costs=True)); got none")
    if cost not in _COSTS:
        raise ValueError(f"{op}: cost must be one of {list(_COSTS)}; got {cost!r}")
    if any(getattr(costs, cost) is None for costs in comparison.costs.values()):
        raise ValueError(f"{op}: cost must have been measured for all models; got no {cost!r}")
