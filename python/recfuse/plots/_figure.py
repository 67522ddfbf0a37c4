"""What all plots share: the figure, colours that everybody can tell apart, tidy axes."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "COLOURS",
    "INK",
    "LINES",
    "MARKERS",
    "canvas",
    "colormap",
    "finished",
    "legend_above",
    "legend_beside",
    "row_height",
    "tidy",
    "wrapped",
]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX*"
LINES = ("-", "--", "-.", ":")
INK, GRID = "#2b2f36", "#e3e6ea"


def canvas(axes: Any, size: tuple[float, float], *, empty: bool = False) -> tuple[Any, Any]:
    """Return a figure without pyplot and its axes, or the axes given and their figure."""
    if axes is not None:
        return axes.figure, axes
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'recfuse[plot]'") from error
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, None if empty else figure.add_subplot()


def colormap(name: str) -> Any:
    """Return a colour map that shows NaN in grey."""
    import matplotlib

    return matplotlib.colormaps[name].with_extremes(bad="#c8ccd1")


def legend_above(axes: Any) -> None:
    """Put the legend above the axes, lines after bars."""
    handles, labels = axes.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda n: hasattr(handles[n], "get_marker"))
    axes.legend(
        [handles[n] for n in order],
        [labels[n] for n in order],
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=4,
        frameon=False,
        fontsize=9,
    )


def legend_beside(axes: Any) -> None:
    """Put the legend to the right of the axes, where it hides nothing."""
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9)


def wrapped(names: Iterable[Any]) -> list[str]:
    """Return names in lines short enough to leave room for the axes: estimators may be labels."""
    return [
        "\n".join(textwrap.wrap(str(name), 36, max_lines=4, placeholder=" ...")) for name in names
    ]


def row_height(labels: Sequence[str], least: float) -> float:
    """Return the inches that a row needs for its label."""
    lines = 1 + max((label.count("\n") for label in labels), default=0)
    return max(least, 0.1 + 0.15 * lines)


def finished(figure: Figure, axes: Any, title: str | None, grid: str | None) -> Figure:
    """Add the title and return the figure."""
    if title:
        figure.suptitle(title, fontsize=10, color=INK)
    tidy(axes, grid)
    return figure


def tidy(axes: Any, grid: str | None) -> None:
    """Leave what is read, and a pale grid."""
    if grid:
        axes.grid(True, axis=grid, color=GRID, linewidth=0.7, zorder=0)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    axes.tick_params(labelsize=9)
