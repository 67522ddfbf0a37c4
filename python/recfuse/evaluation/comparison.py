"""Models side by side: the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from recfuse.evaluation._costs import COLUMNS, Costs
from recfuse.evaluation._table import aligned, split_title
from recfuse.evaluation.bootstrap import Difference, paired_bootstrap
from recfuse.evaluation.report import RankingMetrics, cell

__all__ = ["Comparison"]


class Comparison:
    """Models side by side on one split; prints as a table that names it.

    Attributes
    ----------
    split : str
        Name of the split.
    results : dict of str to RankingMetrics
        By name of the model, in the order given. All are over the same users.
    costs : dict of str to Costs
        Seconds and bytes by name of the model; empty where they were not asked for.
    """

    def __init__(
        self,
        split: str,
        results: Mapping[str, RankingMetrics],
        costs: Mapping[str, Costs] | None = None,
    ) -> None:
        self.split = split
        self.results = dict(results)
        self.costs = dict(costs or {})

    def difference(self, a: str, b: str, metric: str, **options: Any) -> Difference:
        """Say by how much model `a` is better than `b`; options as in `paired_bootstrap`.

        Raises
        ------
        KeyError
            If a model is unknown.
        """
        for name in (a, b):
            if name not in self.results:
                raise KeyError(
                    f"Comparison: model must be one of {list(self.results)}; got {name!r}"
                )
        return paired_bootstrap(self.results[a], self.results[b], metric, **options)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One dict per model and cut-off: 'model', 'k', and the mean of each metric by name."""
        return [
            {"model": name, "k": k, **{m: means[result.key(m, k)] for m in result.names}}
            for name, result in self.results.items()
            for means in [result.means]
            for k in result.k
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return the split and `RankingMetrics.to_dict` of each model, ready for JSON.

        With 'costs' in it where they were measured.
        """
        models = {name: result.to_dict() for name, result in self.results.items()}
        for name, costs in self.costs.items():
            models[name]["costs"] = asdict(costs)
        return {"split": self.split, "models": models}

    def to_text(
        self, metrics: Sequence[str] | None = None, *, standard_errors: bool = False
    ) -> str:
        """Return the table as text, with costs where they were measured.

        Parameters
        ----------
        metrics : sequence of str, optional
            Columns to show, such as ``["recall", "ndcg", "coverage"]``; all by default.
        standard_errors : bool, default=False
            Show the standard error beside each mean.

        Raises
        ------
        ValueError
            If a metric is unknown.
        """
        first = next(iter(self.results.values()))
        shown = first.names if metrics is None else tuple(metrics)
        unknown = [name for name in shown if name not in first.names]
        if unknown:
            raise ValueError(
                f"Comparison: metrics must be among {list(first.names)}; got {unknown[0]!r}"
            )
        table = []
        for name, result in self.results.items():
            means, errors = result.means, result.standard_errors
            for k in result.k:
                keys = [result.key(metric, k) for metric in shown]
                cells = [
                    cell(means[key], errors[key]) if standard_errors else cell(means[key])
                    for key in keys
                ]
                if self.costs:
                    cells += self.costs[name].cells()
                table.append([name, str(k), *cells])
        header = ["model", "k", *shown, *(COLUMNS if self.costs else ())]
        body = aligned(header, table)
        return "\n".join([split_title(self.split), first.population(), body])

    def __repr__(self) -> str:
        """Show the table of all metrics."""
        return self.to_text()
