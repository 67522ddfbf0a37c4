"""What the figures show is what they were given, and no label lies on another."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

from recfuse import Explanation
from recfuse.datasets import synthetic
from recfuse.evaluation import compare, random_split

pytest.importorskip("matplotlib")

from recfuse import plots

EXPLANATIONS = {
    "a film with a rather long name": Explanation(
        0.9, {"als": 1.1, "text": -0.2, "image": 0.0}, {}
    ),
    "another": Explanation(-0.1, {"als": -0.5, "text": 0.1, "image": 0.3}, {}),
    "unknown": Explanation(-np.inf, {"als": 0.0, "text": 0.0, "image": 0.0}, {}),
}


@pytest.fixture(scope="module")
def comparison():
    split = random_split(synthetic(60, 40, 900, random_state=0).interactions, random_state=0)

    def by_id(user_ids, k, *, user_items):
        return np.tile(np.arange(k), (len(user_ids), 1)), np.ones((len(user_ids), k))

    def by_falling_id(user_ids, k, *, user_items):
        return np.tile(39 - np.arange(k), (len(user_ids), 1)), np.ones((len(user_ids), k))

    models = {"by id": by_id, "by falling id, of which there are many": by_falling_id}
    return compare(models, split, k=5, costs=True, n_requests=5)


def assert_readable(figure):
    """No two texts overlap, and none leaves the figure."""
    figure.canvas.draw()
    page = figure.bbox
    for axes in figure.axes:
        texts = [*axes.texts, axes.xaxis.label, axes.yaxis.label]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            texts += [t.label1 for t in axis.get_major_ticks() if low <= t.get_loc() <= high]
            texts += [t.label2 for t in axis.get_major_ticks() if low <= t.get_loc() <= high]
        if axes.get_legend():
            texts += axes.get_legend().get_texts()
        shown = [t for t in texts if t.get_text() and t.get_visible()]
        boxes = [t.get_window_extent() for t in shown]
        x0, y0, x1, y1 = np.array([box.extents for box in boxes]).T
        assert (x0 >= page.x0 - 1).all() and (x1 <= page.x1 + 1).all()
        assert (y0 >= page.y0 - 1).all() and (y1 <= page.y1 + 1).all()
        apart = (x1[:, None] <= x0 + 1) | (y1[:, None] <= y0 + 1)
        apart |= apart.T | np.eye(len(boxes), dtype=bool)
        assert apart.all(), [(shown[a], shown[b]) for a, b in np.argwhere(~apart)]


def test_bars_of_one_explanation():
    figure = plots.contribution_bars(EXPLANATIONS["another"], title="why")
    (axes,) = figure.axes
    assert [bar.get_width() for bar in axes.patches] == [-0.5, 0.1, 0.3]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["als", "text", "image"]
    assert [text.get_text() for text in axes.texts] == ["-0.50", "+0.10", "+0.30"]
    assert axes.get_xlabel() == "contribution to the score, -0.1 in all"
    assert_readable(figure)


def test_stacks_end_at_what_speaks_for_and_against():
    figure = plots.contribution_bars(EXPLANATIONS)
    (axes,) = figure.axes
    ends = [
        [f(bar.get_x() + bar.get_width() for bar in axes.patches if round(bar.get_y() + 0.3) == row)
         for f in (min, max)]
        for row in range(3)
    ]  # fmt: skip
    np.testing.assert_allclose(ends, [[-0.2, 1.1], [-0.5, 0.4], [0, 0]], atol=1e-12)
    scores = axes.lines[0].get_xydata()
    np.testing.assert_allclose(scores, [[0.9, 0], [-0.1, 1]])  # none for the unknown item
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["als", "text", "image", "score"]
    assert_readable(figure)


def test_stacks_without_anything_against_have_one_legend():
    parts = {"als": 1.0, "text": 0.5}
    figure = plots.contribution_bars({f"film {n}": Explanation(1.5, parts, {}) for n in range(3)})
    labels = figure.axes[0].get_legend_handles_labels()[1]
    assert sorted(labels) == ["als", "score", "text"]


@pytest.mark.parametrize("n_rows", [1, 30, 100])
@pytest.mark.parametrize("least", [-1.0, 0.0])
def test_heat_maps(n_rows, least):
    values = np.random.default_rng(0).uniform(least, 1, (n_rows, 4))
    values[0, 1] = np.nan
    names = ["als", "neighbours", "text", "popularity"]
    rows = [f"user {n}" for n in range(n_rows)]
    figure = plots.modality_heatmap(values, names, rows, title="users")
    axes = figure.axes[0]
    np.testing.assert_array_equal(axes.images[0].get_array().filled(np.nan), values)
    low, high = axes.images[0].get_clim()
    assert high == np.nanmax(np.abs(values)) and low == (-high if least < 0 else 0)
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert labels == rows[:: -(-n_rows // 30)]
    assert len(axes.texts) == (4 * n_rows - 1 if n_rows <= 30 else 0)
    assert_readable(figure)


def test_a_heat_map_of_zeros():
    assert_readable(plots.modality_heatmap(np.zeros((2, 2)), ["a", "b"]))


@pytest.mark.parametrize("cost", ["latency_p99", "recommend_seconds"])
@pytest.mark.parametrize("factor", [1.01, 40.0, 990.0, 1e6])
def test_quality_against_costs(comparison, cost, factor):
    seconds = [0.00612, 0.00612 * factor]
    costs = {
        name: replace(costs, **{cost: x})
        for (name, costs), x in zip(comparison.costs.items(), seconds, strict=True)
    }
    comparison = type(comparison)(comparison.split, comparison.results, costs)
    figure = plots.quality_latency(comparison, "ndcg@5", cost=cost)
    (axes,) = figure.axes
    for name, (line, _, _) in zip(comparison.results, axes.containers, strict=True):
        seconds = getattr(comparison.costs[name], cost)
        expected = [
            [seconds * (1e3 if "latency" in cost else 1), comparison.results[name]["ndcg@5"]]
        ]
        np.testing.assert_allclose(line.get_xydata(), expected)
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert [label.replace("\n", " ") for label in labels] == list(comparison.results)
    assert_readable(figure)


def test_a_comparison_in_panels(comparison, tmp_path):
    figure = plots.comparison_bars(comparison, "ndcg@5")
    assert [bar.get_width() for bar in figure.axes[0].patches] == [
        result["ndcg@5"] for result in comparison.results.values()
    ]
    labels = [axes.get_xlabel() for axes in figure.axes]
    assert labels[0] == "ndcg@5" and "one user, p99 (ms)" in labels
    assert not any("fit" in label for label in labels)  # nothing was fitted here
    assert_readable(figure)
    figure.savefig(tmp_path / "bars.png")
    assert (tmp_path / "bars.png").read_bytes().startswith(b"\x89PNG")


def test_a_comparison_without_costs(comparison):
    bare = type(comparison)(comparison.split, comparison.results)
    figure = plots.comparison_bars(bare, "ndcg@5")
    assert [axes.get_xlabel() for axes in figure.axes] == ["ndcg@5"]
    assert len(figure.axes[0].patches) == len(comparison.results)
    assert_readable(figure)
    with pytest.raises(ValueError, match="comparison must have costs"):
        plots.quality_latency(bare, "ndcg@5")


def test_learning_curves():
    figure = plots.learning_curves(
        {"train": [0.1, np.nan, 0.3], "validation": ([2, 4], [0.1, 0.2])}, ylabel="NDCG@20"
    )
    train, validation = figure.axes[0].lines
    np.testing.assert_array_equal(train.get_xydata(), [[1, 0.1], [2, np.nan], [3, 0.3]])
    np.testing.assert_array_equal(validation.get_xydata(), [[2, 0.1], [4, 0.2]])
    assert train.get_color() != validation.get_color()
    assert train.get_linestyle() != validation.get_linestyle()
    assert_readable(figure)


LONG = (
    "AlternatingLeastSquares(factors=16, regularization=30.0, frequency_scaling=0.5, "
    "random_state=0)",
    "AlternatingLeastSquares(factors=128, regularization=10.0, alpha=40.0, random_state=0)",
)


@pytest.mark.parametrize(
    ("draw", "costs"),
    [
        (plots.comparison_bars, True),
        (plots.comparison_bars, False),
        (plots.quality_latency, True),
    ],
)
def test_models_named_by_their_parameters_leave_room(draw, costs, comparison):
    """As `compare` names the models of a list."""
    results = dict(zip(LONG, comparison.results.values(), strict=True))
    measured = {
        name: replace(of_model, latency_p99=seconds, recommend_peak_bytes=2441)
        for name, of_model, seconds in zip(
            LONG, comparison.costs.values(), (0.00456, 0.00548), strict=True
        )
    }
    named = type(comparison)(comparison.split, results, measured if costs else {})
    figure = draw(named, "ndcg@5")
    assert_readable(figure)
    assert figure.axes[0].get_window_extent().width > 0.1 * figure.bbox.width
    legend = figure.axes[0].get_legend()
    shown = legend.get_texts() if legend else figure.axes[0].get_yticklabels()
    assert [text.get_text().replace("\n", " ") for text in shown] == list(LONG)


def test_long_titles_leave_room():
    title = "Borat: Cultural Learnings of America for Make Benefit Glorious Nation of Kazakhstan"
    explained = {title: EXPLANATIONS["another"], "Alien": EXPLANATIONS["another"]}
    for figure in (
        plots.contribution_bars(explained),
        plots.modality_heatmap([[1, 2], [3, 4]], ["als", "text"], list(explained)),
    ):
        assert_readable(figure)
        assert figure.axes[0].get_window_extent().width > 0.3 * figure.bbox.width
        shown = figure.axes[0].get_yticklabels()[0].get_text()
        assert shown.replace("\n", " ") == title


def test_the_legend_of_many_learning_curves_hides_none():
    rising = 0.2 - 0.1 * np.exp(-np.arange(30) / 9)
    curves = {f"ALS, {n} factors, regularization 0.1": rising - n / 1000 for n in range(12)}
    figure = plots.learning_curves(curves, title="validation")
    assert_readable(figure)
    (axes,) = figure.axes
    assert axes.get_legend().get_window_extent().x0 >= axes.get_window_extent().x1


def test_iterations_are_whole_numbers():
    figure = plots.learning_curves({"one trial": [0.3]}, xlabel="trial")
    figure.canvas.draw()
    labels = [t.get_text() for t in figure.axes[0].get_xticklabels()]
    assert labels and all(float(label) == int(float(label)) for label in labels)


def test_axes_of_ones_own():
    from matplotlib.figure import Figure

    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert plots.learning_curves({"a": [1, 2]}, axes=left) is figure
    assert plots.contribution_bars(EXPLANATIONS, axes=right) is figure
    assert left.lines and right.patches


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'recfuse\[plot\]'"):
        plots.learning_curves({"a": [1]})


def test_plots_leave_pyplot_alone():
    assert "matplotlib.pyplot" not in vars(plots.models)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: plots.contribution_bars({}), "contribution_bars: explanations must not be"),
        (
            lambda c: plots.contribution_bars(
                {**EXPLANATIONS, "x": Explanation(0, {"als": 0.0}, {})}
            ),
            "explanations must have the modalities .* for 'x'",
        ),
        (
            lambda c: plots.modality_heatmap([[1, 2]], ["a"]),
            r"shape \(n_rows, 1\), .*\(1, 2\)",
        ),
        (
            lambda c: plots.modality_heatmap([[1]], ["a"], ["b", "c"]),
            "a label for each of 1; got 2",
        ),
        (lambda c: plots.quality_latency(c, "ndcg@5", cost="x"), "cost must be one of .* got 'x'"),
        (lambda c: plots.quality_latency(c, "ndcg@5", cost="fit_seconds"), "no 'fit_seconds'"),
        (lambda c: plots.learning_curves({}), "learning_curves: curves must not be empty"),
        (lambda c: plots.learning_curves({"a": ([1], [1, 2])}), "as many x as y"),
    ],
)
def test_wrong_plots(call, message, comparison):
    with pytest.raises(ValueError, match=message):
        call(comparison)
