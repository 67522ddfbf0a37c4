"""One split: tune everybody on the validation part, fit on all of training, look at the test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from contenders import Contender, valued
from search import Budget, Notes, search

import recfuse
from recfuse.evaluation import RankingMetrics, evaluate, paired_bootstrap

__all__ = [
    "METRICS",
    "K",
    "Parts",
    "difference",
    "fused",
    "interval",
    "judge",
    "label",
    "rows",
    "score",
    "tune_all",
]

K = 20
METRICS = ("recall@20", "ndcg@20")
FUSION = "ALS + neighbours, fused"
FUSED = {"als": "recfuse: ALS", "neighbours": "recfuse: item neighbours"}


@dataclass(frozen=True)
class Parts:
    """Matrices of (users, items): `fit` and `validation` are what `train` is cut into."""

    fit: sp.csr_array
    validation: sp.csr_array
    train: sp.csr_array
    test: sp.csr_array


def label(contender: Contender) -> str:
    return f"{contender.package}: {contender.name}"


def model_of(contender: Contender, params: Mapping[str, Any]) -> Any:
    return contender.make({name: v for name, v in params.items() if name != "values"})


def score(
    contender: Contender, params: Mapping[str, Any], known: sp.csr_array, wanted: sp.csr_array
) -> RankingMetrics:
    """Fit on `known`, and compare with what is `wanted`."""
    matrix = valued(known, params.get("values", "ones"))
    model = model_of(contender, params).fit(matrix)
    return evaluate(model.recommend, matrix, wanted, k=K)


def tune_all(
    field: Sequence[Contender], parts: Parts, notes: Notes, *, budget: Budget, graded: bool
) -> dict[str, Any]:
    """Return parameters, validation and trials by label; `graded`: values may count or not."""
    found = {}
    for contender in field:

        def suggest(trial: Any, contender: Contender = contender) -> dict[str, Any]:
            params = contender.suggest(trial)
            if graded:
                params["values"] = trial.suggest_categorical("values", ["ones", "given"])
            return params

        def objective(params: dict[str, Any], contender: Contender = contender) -> float:
            return score(contender, params, parts.fit, parts.validation)["ndcg@20"]

        name = label(contender)
        own = budget if contender.n_trials is None else Budget(contender.n_trials, 0)
        found[name] = search(name, suggest, objective, notes, sizes=contender.sizes, budget=own)
    return found


def fused(
    title: str,
    field: Sequence[Contender],
    tuned: Mapping[str, Any],
    parts: Parts,
    notes: Notes,
    content: Mapping[str, Any] | None = None,
    *,
    members: Mapping[str, str] = FUSED,
    fitted: Mapping[str, Any] | None = None,
) -> tuple[RankingMetrics, dict[str, Any]]:
    """Return what the tuned `members` find together, by default ALS and neighbours; the weights.

    The weights are fitted on the validation part, unless they are given as this returned them;
    then all is fitted on all of training.
    """
    by_label = {label(c): c for c in field}
    params = {name: tuned[name]["params"] for name in members.values()}
    how = params[members["als"]].get("values", "ones")

    def models() -> dict[str, Any]:
        return {m: model_of(by_label[name], params[name]) for m, name in members.items()}

    def compute() -> RankingMetrics:
        if fitted is not None:
            model = recfuse.MultimodalRecommender(models(), k=K, weights=fitted["weights"])
            model.fit(valued(parts.train, how), content)
            return evaluate(model, parts.train, parts.test, k=K)
        model = recfuse.MultimodalRecommender(models(), k=K)
        known, later = valued(parts.fit, how), valued(parts.validation, how)
        model.fit(known, content, validation=later)
        found = {"weights": model.weights_, "title": title}
        notes.value("weights", found, lambda: model.validation_["cross_validated"])
        if parts.fit.nnz + parts.validation.nnz < parts.train.nnz:  # else it has seen all of it
            model = recfuse.MultimodalRecommender(models(), k=K, weights=model.weights_)
            model.fit(valued(parts.train, how), content)
        return evaluate(model, parts.train, parts.test, k=K)

    result = notes.result(title, params, compute)
    if fitted is not None:
        return result, dict(fitted)
    line = notes.noted("weights", title)
    return result, {"weights": line["params"]["weights"], "cross_validated": line["value"]}


def judge(
    field: Sequence[Contender], tuned: Mapping[str, Any], parts: Parts, notes: Notes
) -> dict[str, RankingMetrics]:
    """Return what everybody finds of the test, with the parameters of the validation."""
    found = {}
    for contender in field:
        name = label(contender)
        params = tuned[name]["params"]

        def compute(contender: Contender = contender, params: Any = params) -> RankingMetrics:
            return score(contender, params, parts.train, parts.test)

        found[name] = notes.result(name, params, compute)
    return found


def interval(result: RankingMetrics, metric: str) -> list[float]:
    """Return mean and 95 % bootstrap interval over users."""
    nothing = RankingMetrics(
        result.k, result.user_ids, {metric: np.zeros(result.n_users)}, result.coverage
    )
    found = paired_bootstrap(result, nothing, metric)
    return [found.mean, found.low, found.high]


def difference(a: RankingMetrics, b: RankingMetrics, metric: str) -> list[float]:
    """Return mean and 95 % interval of a - b."""
    found = paired_bootstrap(a, b, metric)
    return [found.mean, found.low, found.high]


def rows(
    results: Mapping[str, RankingMetrics], against: str | None = None
) -> dict[str, dict[str, Any]]:
    """Return for every model its metrics, and its difference to the one that is named."""
    table: dict[str, dict[str, Any]] = {}
    for name, result in results.items():
        row: dict[str, Any] = {m: interval(result, m) for m in METRICS}
        row["coverage@20"], row["n_users"] = result["coverage@20"], result.n_users
        if against is not None and name != against:
            row["against"] = {m: difference(results[against], result, m) for m in METRICS}
        table[name] = row
    return table
