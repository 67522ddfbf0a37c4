"""What the scenarios share: options, data, newcomers, and what a modality is worth."""

from __future__ import annotations

import argparse
import copy
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from recfuse import Explanation, Interactions, MultimodalRecommender
from recfuse.evaluation import Comparison, Difference, Split, compare

BEHAVIOUR, EVERYTHING = "behaviour", "+ all of them"


@dataclass(frozen=True)
class Protocol:
    """What is learned from, chosen on and tested on; a run looks at the test once, at its end."""

    train: Interactions
    validation: Interactions
    test: Split
    newcomers: Split


def options(description: str) -> argparse.ArgumentParser:
    """Return the options that every scenario has; a scenario may add its own."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--small", action="store_true", help="less data, for a first look")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the result: .png or .svg")
    return parser


class Steps:
    """Says what is done, numbered, and how long all of it took.

    >>> steps = Steps()
    >>> steps("Load the events")
    <BLANKLINE>
    1. Load the events
    """

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._n = 0

    def __call__(self, title: str) -> None:
        self._n += 1
        print(f"\n{self._n}. {title}", flush=True)

    def done(self) -> None:
        print(f"\n{time.perf_counter() - self._started:.0f} s in all")


def find_data(folder: str) -> Path | None:
    """Return where a data set lies: in RECFUSE_DATA, else ../shared/data; None if it does not."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    found = Path(os.environ.get("RECFUSE_DATA", beside)) / folder
    return found if found.is_dir() else None


def newcomers(
    events: Interactions, share: float = 0.15, n_known: int = 5
) -> tuple[Interactions, Split]:
    """Take out the people who came last; all that is known of each are the first `n_known` events.

    Returns
    -------
    established : Interactions
        The events of all others: what models are fitted on.
    split : Split
        Known events of the newcomers, and those that are to be found.
    """
    first = np.full(events.n_users, np.iinfo(np.int64).max)
    np.minimum.at(first, events.user_index, events.timestamps)
    with_events = np.unique(events.user_index)
    n_new = round(share * len(with_events))
    new = np.zeros(events.n_users, bool)
    by_arrival = with_events[np.argsort(first[with_events], kind="stable")]
    new[by_arrival[len(with_events) - n_new :]] = True
    theirs = events.select(new[events.user_index])
    order = np.lexsort((theirs.timestamps, theirs.user_index))
    sizes = np.bincount(theirs.user_index, minlength=events.n_users)
    begins = np.cumsum(sizes) - sizes
    rank = np.empty(len(theirs), np.int64)
    rank[order] = np.arange(len(theirs)) - begins[theirs.user_index[order]]
    known = rank < n_known
    name = f"the {n_new} people who came last, by their first {n_known} events"
    split = Split(theirs.select(known), theirs.select(~known), name)
    return events.select(~new[events.user_index]), split


def at_random(candidates: np.ndarray, seed: int = 0) -> Any:
    """Return what recommends some of the items by chance: what there is without any knowledge."""

    def recommend(users: Any, k: int, *, user_items: Any = None) -> Any:
        rng = np.random.default_rng(seed)
        padded = np.full((len(users), max(k, len(candidates))), -1)
        padded[:, : len(candidates)] = rng.permuted(np.tile(candidates, (len(users), 1)), axis=1)
        ids = padded[:, :k]
        return ids, np.tile(-np.arange(ids.shape[1], dtype=float), (len(ids), 1))

    return recommend


def fuse_each(
    protocol: Protocol,
    behaviour: Mapping[str, Any],
    content: Mapping[str, np.ndarray],
    *,
    k: int,
    cold_items: float | None,
) -> dict[str, MultimodalRecommender]:
    """Return behaviour alone, with each modality and with all, each with weights of its own.

    The weights are those with the best NDCG on the validation part.
    """
    kinds = {BEHAVIOUR: {}, **{f"+ {name}": {name: x} for name, x in content.items()}}
    models = {}
    for name, vectors in {**kinds, EVERYTHING: content}.items():
        model = MultimodalRecommender(copy.deepcopy(behaviour), k=k, cold_items=cold_items)
        models[name] = model.fit(protocol.train, vectors, validation=protocol.validation)
        weights = ", ".join(f"{m} {w:.2f}" for m, w in model.weights_.items())
        found = model.validation_["cross_validated"]
        print(f"   {name}: ndcg@{k} {found:.4f} by {weights}")
    return models


def alone(model: MultimodalRecommender) -> dict[str, Any]:
    """Return every modality alone, and all, as what `compare` asks."""
    single = {name: partial(model.recommend, weights={name: 1.0}) for name in model.modalities_}
    return {**single, "fused": model.recommend}


def only_among(split: Split, items: np.ndarray) -> Split:
    """Return the split with the test events of some items alone."""
    kept = np.isin(split.test.item_index, items)
    return Split(split.train, split.test.select(kept), f"{split.name}, {len(items):,} items")


def by_group(
    models: Mapping[str, MultimodalRecommender],
    protocol: Protocol,
    *,
    k: int,
    few: int,
    rare: int,
    item: str,
    event: str,
) -> dict[str, Comparison]:
    """Compare the models on all people, and where behaviour knows little or nothing.

    Items with few events, and those without, are ranked among themselves: among all they would
    hardly be seen. Of those without, behaviour knows nothing, so it draws lots. A group that the
    test has nothing of is left out, and that is said.
    """
    test = protocol.test
    of_person = np.bincount(test.train.user_index, minlength=test.train.n_users)
    of_item = np.bincount(test.train.item_index, minlength=test.train.n_items)
    quiet = np.flatnonzero((of_person > 0) & (of_person < few))
    scarce = np.flatnonzero((of_item > 0) & (of_item < rare))
    new = np.flatnonzero(of_item == 0)
    newcomers = {name: _as_newcomers(model) for name, model in models.items()}
    some = {name: partial(model.recommend, allow=scarce) for name, model in models.items()}
    latest = {name: partial(model.recommend, allow=new) for name, model in models.items()}
    latest[BEHAVIOUR] = at_random(new)
    groups = {
        "all people": (models, test, None),
        f"people with less than {few} {event}": (models, test, quiet),
        "new people": (newcomers, protocol.newcomers, None),
        f"{item} with less than {rare} {event}": (some, only_among(test, scarce), None),
        f"new {item}": (latest, only_among(test, new), None),
    }
    found = {}
    for name, (candidates, split, people) in groups.items():
        asked = split.test.user_index
        if len(asked if people is None else np.intersect1d(asked, people)) == 0:
            print(f"   {name}: left out, for the test has nothing of them")
            continue
        found[name] = compare(candidates, split, k=k, user_ids=people)
    return found


def _as_newcomers(model: MultimodalRecommender) -> Any:
    def recommend(users: Any, k: int, *, user_items: Any) -> Any:
        return model.recommend_new_users(user_items, k)

    return recommend


def explained(title: str, why: Explanation, names: Sequence[str]) -> str:
    """Return what each modality adds to a score, and which two items of the past add most to it."""
    lines = [f"   {title}: {why.score:.2f}"]
    for modality, part in why.contributions.items():
        past = [f"{names[item][:38]} {share:+.2f}" for item, share in why.past.get(modality, [])]
        lines.append(f"      {modality:11s}{part:+.2f}   {'; '.join(past[:2])}".rstrip())
    return "\n".join(lines)


def gains(
    comparisons: Mapping[str, Comparison], baseline: str, metric: str
) -> dict[str, dict[str, Difference]]:
    """Return by group and model what it gains over the baseline, with its 95 % interval."""
    return {
        where: {
            model: comparison.difference(model, baseline, metric)
            for model in comparison.results
            if model != baseline
        }
        for where, comparison in comparisons.items()
    }


def verdict(gain: Difference) -> str:
    """Say what an interval allows to say."""
    if gain.low > 0:
        return "helps"
    return "harms" if gain.high < 0 else "chance"


def gain_table(comparisons: Mapping[str, Comparison], baseline: str, metric: str) -> str:
    """Return what every model is worth over the baseline, for each group of users or items."""
    found = gains(comparisons, baseline, metric)
    header = ["", "", metric, "gain", "95 % interval", ""]
    rows = []
    for where, comparison in comparisons.items():
        n = comparison.results[baseline].n_users
        rows.append([f"{where} ({n} users)", "", "", "", "", ""])
        rows.append(["", baseline, f"{comparison.results[baseline][metric]:.4f}", "", "", ""])
        for model, gain in found[where].items():
            mean = comparison.results[model][metric]
            interval = f"[{gain.low:+.4f}, {gain.high:+.4f}]"
            rows.append(["", model, f"{mean:.4f}", f"{gain.mean:+.4f}", interval, verdict(gain)])
    widths = [max(len(row[c]) for row in [header, *rows]) for c in range(1, len(header))]
    lines = [row[0] or _indented(row[1:], widths) for row in [header, *rows]]
    return "\n".join([*lines, "helps, harms: the interval is on one side of 0; chance: it is not"])


def _indented(cells: list[str], widths: list[int]) -> str:
    name, *numbers, last = cells
    middle = [cell.rjust(width) for cell, width in zip(numbers, widths[1:], strict=False)]
    return "  ".join(["  " + name.ljust(widths[0]), *middle, last]).rstrip()


def in_words(
    comparisons: Mapping[str, Comparison], baseline: str, metric: str, *, combined: str
) -> str:
    """Say in words whom each modality helps, and where `combined`, all of them, adds most."""
    found = gains(comparisons, baseline, metric)
    models = next(iter(found.values()))
    parts = [
        f"{model} {_whom({group: gain[model] for group, gain in found.items()})}"
        for model in models
        if model != combined
    ]
    together = {group: gain[combined].mean for group, gain in found.items()}
    ends = [max(together, key=together.__getitem__), min(together, key=together.__getitem__)]
    most, least = (
        f"{group} ({comparisons[group].results[baseline][metric]:.4f} by {baseline}, "
        f"{together[group]:+.4f})"
        for group in ends
    )
    return "\n".join([*parts, f"{combined} adds most for {most}, least for {least}"])


def _whom(by_group: Mapping[str, Difference]) -> str:
    helped = [f"{group} ({g.mean:+.4f})" for group, g in by_group.items() if verdict(g) == "helps"]
    harmed = [f"{group} ({g.mean:+.4f})" for group, g in by_group.items() if verdict(g) == "harms"]
    said = f"helps {', '.join(helped) or 'nobody beyond chance'}"
    return said + (f" and harms {', '.join(harmed)}" if harmed else "")
