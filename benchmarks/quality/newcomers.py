"""Users of whom little is known: fitted without them, asked with n of their items.

Users are dealt to five folds. Those of a fold are left out of the fit, and so, while weights are
chosen, are those of the next fold, on which they are chosen: with the same number of trials for
every variant. Every user is in the test once, with parameters that others chose.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from search import Budget, Notes, search
from study import METRICS, K, difference, interval

import recfuse
from recfuse.evaluation import RankingMetrics, Trial, evaluate

__all__ = ["People", "Variant", "newcomers"]

N_FOLDS, N_TRIALS = 5, 10
N_VALIDATION = 120  # users that parameters are chosen on


@dataclass(frozen=True)
class Variant:
    """Which modalities of content and whose tastes count, beside behaviour."""

    content: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class People:
    """A population: all matrices have a row per user.

    `history` is what a fit may see of a user who is no newcomer; `known` what is known of
    newcomers, by its length; `hidden` what is never recommended to them; `truth` what should be.
    `content(warm)` and `sources(users, warm)` may look at the users of the fit alone.
    """

    history: sp.csr_array
    known: Mapping[int, sp.csr_array]
    hidden: sp.csr_array
    truth: sp.csr_array
    content: Callable[[Any], Mapping[str, Any]]
    sources: Callable[[Any, Any], Mapping[str, sp.csr_array]]
    als: tuple[Mapping[str, Any], ...]
    neighbours: Mapping[str, Any] | None


def newcomers(
    people: People, variants: Mapping[str, Variant], notes: Notes, tuned: dict[str, Any] | None
) -> dict[str, Any]:
    """Return the parameters chosen, and by length of the history what every variant finds."""
    fold_of = np.random.default_rng(0).permutation(people.history.shape[0]) % N_FOLDS
    chosen: dict[str, Any] = {} if tuned is None else tuned
    parts: dict[int, dict[str, list[RankingMetrics]]] = {}
    for fold in range(N_FOLDS):
        following = (fold + 1) % N_FOLDS
        now = _Asked(people, fold_of == fold, fold_of != fold)
        few = (fold_of == following) & (np.cumsum(fold_of == following) <= N_VALIDATION)
        before = _Asked(people, few, (fold_of != fold) & (fold_of != following))
        for n, (name, variant) in itertools.product(people.known, variants.items()):
            title = f"fold {fold} {n} {name}"
            if tuned is None:
                chosen[title] = _choose(fold, name, before, n, variants, notes)
            params = chosen[title]

            def compute(
                now: Any = now, n: int = n, variant: Variant = variant, params: Any = params
            ) -> RankingMetrics:
                return now.metrics(n, variant, params)

            found = notes.result(title, params, compute)
            parts.setdefault(n, {}).setdefault(name, []).append(found)
    table = {}
    for n, by_name in parts.items():
        results = {name: _together(folds) for name, folds in by_name.items()}
        first = results[next(iter(variants))]
        table[str(n)] = {
            name: {m: interval(result, m) for m in METRICS}
            | {"n_users": result.n_users}
            | {"gain": {m: difference(result, first, m) for m in METRICS}}
            for name, result in results.items()
        }
    return {"tuned": chosen, "results": table}


def _choose(
    fold: int, name: str, asked: Any, n: int, variants: Mapping[str, Variant], notes: Notes
) -> dict[str, Any]:
    """Return the best of 20 trials: of behaviour, or of 10 of behaviour and 10 beyond its best."""
    variant, first = variants[name], next(iter(variants))

    def at_random(trial: Trial) -> dict[str, Any]:
        trial.suggest_categorical("als", list(range(len(asked.people.als))))
        _how_much_to_borrow(trial)
        behaviour = ["als"] + ["neighbours"] * (asked.people.neighbours is not None)
        for m in (*behaviour, "popularity"):
            trial.suggest_float(f"weight {m}", 0, 1)
        return trial.params

    def best(of: str, suggest: Any, n_trials: int) -> dict[str, Any]:
        def objective(params: dict[str, Any]) -> float:
            return float(asked.metrics(n, variants[of], params)["ndcg@20"])

        title = f"fold {fold} {n} {of}"
        budget = Budget(n_trials, 0)
        found: dict[str, Any] = search(title, suggest, objective, notes, budget=budget)["params"]
        return found

    if name == first:
        return best(first, at_random, 2 * N_TRIALS)
    start = best(first, at_random, N_TRIALS)

    def beyond(trial: Trial) -> dict[str, Any]:
        if trial.number == 0:
            return start | {f"weight {m}": 0.0 for m in variant.content}
        if variant.sources:
            _how_much_to_borrow(trial)
        for m in variant.content:  # in the logarithm: small ones are what a large one hides
            trial.suggest_float(f"weight {m}", 0.02, 1, log=True)
        return start | trial.params

    return best(name, beyond, N_TRIALS)


def _how_much_to_borrow(trial: Trial) -> None:
    trial.suggest_float("own", 0.5, 20, log=True)
    trial.suggest_categorical("shrink", [0, 1, 5])


class _Asked:
    """Newcomers and models that were fitted without them."""

    def __init__(self, people: People, asked: Any, warm: Any) -> None:
        self.people, self.users, self.warm = people, np.flatnonzero(asked), np.flatnonzero(warm)
        self.models: dict[int, Any] = {}

    @cached_property
    def sources(self) -> Mapping[str, sp.csr_array]:
        return self.people.sources(self.users, self.warm)

    @cached_property
    def content(self) -> Mapping[str, Any]:
        return self.people.content(self.warm)

    def model(self, which: int) -> Any:
        """Return the recommender with one of the factorisations, fitted at first use."""
        if which not in self.models:
            als = recfuse.AlternatingLeastSquares(random_state=0, **self.people.als[which])
            behaviour: dict[str, Any] = {"als": als}
            if self.people.neighbours is not None:
                behaviour["neighbours"] = recfuse.ItemNeighbours(**self.people.neighbours)
            equal = dict.fromkeys([*behaviour, *self.content], 1.0)
            model = recfuse.MultimodalRecommender(behaviour, weights=equal, k=K)
            self.models[which] = model.fit(self.people.history[self.warm], self.content)
        return self.models[which]

    def metrics(self, n: int, variant: Variant, params: Mapping[str, Any]) -> RankingMetrics:
        known = self.people.known[n][self.users]
        like = {name: self.sources[name] for name in variant.sources}
        weights = {
            name.removeprefix("weight "): value
            for name, value in params.items()
            if name.startswith("weight ")
        }

        def recommend(users: Any, k: int, *, user_items: Any) -> Any:
            return self.model(params["als"]).recommend_new_users(
                known[users],
                k,
                like={name: matrix[users] for name, matrix in like.items()} or None,
                own=params["own"],
                popularity=params["shrink"],
                weights=weights,
                exclude=user_items,
            )

        rows = self.users
        return evaluate(recommend, self.people.hidden[rows], self.people.truth[rows], k=K)


def _together(folds: list[RankingMetrics]) -> RankingMetrics:
    users = np.concatenate([f.user_ids + i * 10**7 for i, f in enumerate(folds)])
    values = {m: np.concatenate([f.per_user[m] for f in folds]) for m in METRICS}
    return RankingMetrics(folds[0].k, users, values, {})
