"""Why items are recommended: contributions of modalities."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from recfuse.plots._figure import (
    COLOURS,
    INK,
    canvas,
    colormap,
    finished,
    legend_above,
    row_height,
    wrapped,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["contribution_bars", "modality_heatmap"]


def contribution_bars(explanations: Any, *, title: str | None = None, axes: Any = None) -> Figure:
    """Draw what each modality adds to a score: a bar per modality, or a stack per item.

    Parameters
    ----------
    explanations : Explanation, or mapping of str to Explanation
        Of `MultimodalRecommender.explain`; several ones by the label to show. In a stack, what
        speaks against an item lies left of 0, and a diamond marks the score.
    title : str, optional
    axes : matplotlib Axes, optional
        Drawn into these; a new figure by default.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If there is no explanation, or several have different modalities.

    Examples
    --------
    >>> from recfuse import Explanation
    >>> from recfuse.plots import contribution_bars
    >>> figure = contribution_bars(Explanation(0.9, {"als": 1.1, "text": -0.2}, {}))
    >>> [float(bar.get_width()) for bar in figure.axes[0].patches]
    [1.1, -0.2]
    """
    one = not isinstance(explanations, Mapping)
    by_label = {"": explanations} if one else dict(explanations)
    if not by_label:
        raise ValueError("contribution_bars: explanations must not be empty; got {}")
    names = list(next(iter(by_label.values())).contributions)
    values = []
    for label, explanation in by_label.items():
        if list(explanation.contributions) != names:
            raise ValueError(
                f"contribution_bars: explanations must have the modalities {names}; "
                f"got {list(explanation.contributions)} for {label!r}"
            )
        values.append([explanation.contributions[name] for name in names])
    table = np.array(values, np.float64)
    labels = wrapped(by_label)
    n_bars = len(names) if one else len(table)
    height = row_height(labels, 0.42) * n_bars
    figure, axes = canvas(axes, (7, 1.4 + height + (0 if one else 0.4)))
    if one:
        _draw_modalities(axes, names, table[0])
        score = next(iter(by_label.values())).score
        axes.set_xlabel(f"contribution to the score, {score:.3g} in all")
    else:
        _draw_stacks(axes, names, table)
        totals = [explanation.score for explanation in by_label.values()]
        finite = [(score, row) for row, score in enumerate(totals) if np.isfinite(score)]
        axes.plot(*np.array(finite).T.reshape(2, -1), "D", color=INK, mec="white", label="score")
        axes.set_yticks(range(len(table)), labels)
        axes.set_xlabel("contribution to the score")
        axes.use_sticky_edges = False  # or the longest bar meets the frame
        axes.margins(x=0.05)
        legend_above(axes)
    axes.invert_yaxis()
    axes.axvline(0, color=INK, linewidth=0.8)
    return finished(figure, axes, title, "x")


def _draw_modalities(axes: Any, names: Sequence[str], values: Any) -> None:
    colours = [COLOURS[0] if value >= 0 else COLOURS[1] for value in values]
    bars = axes.barh(range(len(names)), values, height=0.6, color=colours, zorder=2)
    axes.bar_label(bars, fmt="%+.2f", padding=4, fontsize=9, color=INK)
    axes.set_yticks(range(len(names)), names)
    axes.margins(x=0.15)  # room for the numbers


def _draw_stacks(axes: Any, names: Sequence[str], table: Any) -> None:
    rows = np.arange(len(table))
    for sign, signed in ((1, np.clip(table, 0, None)), (-1, np.clip(table, None, 0))):
        left = np.zeros(len(table))
        for column, name in enumerate(names):
            axes.barh(
                rows,
                signed[:, column],
                left=left,
                height=0.6,
                color=COLOURS[column % len(COLOURS)],
                edgecolor="white",
                hatch="//" if column >= len(COLOURS) else None,
                label=name if sign > 0 else None,
                zorder=2,
            )
            left += signed[:, column]


def modality_heatmap(
    values: ArrayLike,
    modalities: Sequence[str],
    rows: Sequence[str] | None = None,
    *,
    label: str = "contribution to the score",
    title: str | None = None,
    axes: Any = None,
) -> Figure:
    """Draw users x modalities, or items x modalities, as colours.

    Parameters
    ----------
    values : array-like of shape (n_rows, n_modalities)
        Contributions (``parts[0]`` of ``recommend(..., contributions=True)`` for the items of one
        user, ``parts.mean(axis=1)`` for users), or weights. With negative values the colours part
        at 0; NaN is grey.
    modalities : sequence of str
    rows : sequence of str, optional
        Labels of users or items; their positions by default.
    label : str
        What the colours stand for.
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
        If shapes disagree.

    Examples
    --------
    >>> from recfuse.plots import modality_heatmap
    >>> figure = modality_heatmap([[0.2, 0.8], [0.5, 0.5]], ["als", "text"], ["ann", "bo"])
    >>> [tick.get_text() for tick in figure.axes[0].get_xticklabels()]
    ['als', 'text']
    """
    table = np.asarray(values, np.float64)
    if table.ndim != 2 or not table.size or table.shape[1] != len(modalities):
        raise ValueError(
            f"modality_heatmap: values must have shape (n_rows, {len(modalities)}), a column per "
            f"modality; got {table.shape}"
        )
    labels = wrapped(range(len(table)) if rows is None else rows)
    if len(labels) != len(table):
        raise ValueError(
            f"modality_heatmap: rows must have a label for each of {len(table)}; got {len(labels)}"
        )
    height = 1.6 + row_height(labels, 0.34) * min(len(table), 30)
    width = 3.2 + 0.95 * len(modalities)
    figure, axes = canvas(axes, (width, height))
    finite = table[np.isfinite(table)]
    largest = float(np.abs(finite).max(initial=0)) or 1.0
    signed = bool((finite < 0).any())
    colours = colormap("PuOr_r" if signed else "cividis")
    low = -largest if signed else 0.0
    image = axes.imshow(table, cmap=colours, vmin=low, vmax=largest, aspect="auto")
    axes.set_xticks(range(len(modalities)), list(modalities))
    if max(map(len, modalities), default=0) > 10:
        axes.tick_params(axis="x", rotation=30)
    step = -(-len(table) // 30)  # more labels than that would overlap
    axes.set_yticks(range(0, len(table), step), labels[::step])
    if step == 1 and len(modalities) <= 12:
        _write_numbers(axes, table, image)
    bar = figure.colorbar(image, ax=axes)
    bar.set_label(label, fontsize=9, color=INK)
    bar.ax.tick_params(labelsize=8)
    return finished(figure, axes, title, None)


def _write_numbers(axes: Any, table: Any, image: Any) -> None:
    largest = float(np.abs(table[np.isfinite(table)]).max(initial=0)) or 1.0
    decimals = max(0, 2 - math.floor(math.log10(largest)))
    for (row, column), value in np.ndenumerate(table):
        if np.isfinite(value):
            red, green, blue, _ = image.cmap(image.norm(value))
            bright = 0.299 * red + 0.587 * green + 0.114 * blue > 0.5
            axes.text(
                column,
                row,
                f"{value:.{decimals}f}",
                ha="center",
                va="center",
                color="black" if bright else "white",
                fontsize=8,
            )
