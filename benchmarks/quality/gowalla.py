"""Gowalla, the split that LightGCN was published with: behaviour alone.

The split is by time: the last fifth of every user's items is the test, say its authors [1]_. So the
validation is the last tenth of what is left, in the order of the published text file: a tenth at
random would choose other models and weights, as neighbours of items find it more easily.

References
----------
.. [1] https://github.com/xiangwang1223/neural_graph_collaborative_filtering/issues/19
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from contenders import Contender, contenders
from numpy.typing import NDArray
from search import Budget, Notes, OutOfTime
from study import FUSED, Parts, fused, judge, label, rows, score, tune_all

from recfuse.evaluation import Trial, user_time_split
from recfuse.interactions import Interactions

__all__ = ["PUBLISHED", "run"]

BUDGET = Budget(6, 1)
FIELD = (
    "recfuse: ALS",
    "recfuse: item neighbours",
    "recfuse: user neighbours",
    "irspack: iALS",
    "implicit: ALS",
    "implicit: BM25",
)
SMALLER = {"implicit: ALS": (128, 192, 256)}  # 512 factors take it several minutes a fit
# Tried after the search: 1,024 factors are too slow to search for what they want.
FURTHER = {
    "recfuse: ALS": [
        {"factors": 1024, "regularization": weight, "alpha": alpha, "iterations": iterations}
        for weight, alpha, iterations in (
            (0.0023903736384853326, 22.742638028639995, 8),
            (0.004, 22.742638028639995, 4),
            (0.0024, 50.0, 4),
            (0.0024, 110.0, 6),
        )
    ]
}
PUBLISHED = {"recall@20": 0.1824, "ndcg@20": 0.1547}  # LightGCN, 3 layers of 64
FUSION = "ALS + item and user neighbours, fused"
MEMBERS = FUSED | {"users": "recfuse: user neighbours"}
PARTS = ("train", "test")

Ids = NDArray[np.int64]


def _users(trial: Trial) -> dict[str, Any]:
    return {
        "k": trial.suggest_int("k", 50, 300, log=True),
        "weighting": "bm25",
        "bm25_k1": trial.suggest_float("bm25_k1", 0.2, 1, log=True),
        "bm25_b": trial.suggest_float("bm25_b", 0.3, 0.8),
        "asymmetry": trial.suggest_float("asymmetry", 0.2, 0.5),
    }


def _items(trial: Trial) -> dict[str, Any]:
    return {
        "k": trial.suggest_int("k", 100, 1000, log=True),
        "weighting": trial.suggest_categorical("weighting", ["tfidf", "l2"]),
        "asymmetry": trial.suggest_float("asymmetry", 0.6, 1),
    }


# Narrower than those of other data sets, and of peers: see docs/quality.md.
RANGES = {"recfuse: item neighbours": _items, "recfuse: user neighbours": _users}


def parts_of(folder: Path, order: Path | None) -> Parts:
    """Return the published split; without `order`, which only tuning needs, no validation."""
    with np.load(folder / "gowalla" / "interactions.npz") as data:
        shape = len(data["user_org_id"]), len(data["item_org_id"])
        users, items = data["train_user"], data["train_item"]
        train, test = (_matrix(data[f"{p}_user"], data[f"{p}_item"], shape) for p in PARTS)
    if order is None:
        return Parts(train, sp.csr_array(shape, dtype=np.float32), train, test)
    space = {"user_labels": np.arange(shape[0]), "item_labels": np.arange(shape[1])}
    times = _times(order, users, items, shape[1])
    events = Interactions.from_arrays(users, items, timestamps=times, **space)
    inner = user_time_split(events, test_fraction=0.1)
    return Parts(inner.train.to_csr(), inner.test.to_csr(), train, test)


def _matrix(users: Ids, items: Ids, shape: tuple[int, int]) -> sp.csr_array:
    return sp.csr_array((np.ones(len(users), np.float32), (users, items)), shape=shape)


def _times(order: Path, users: Ids, items: Ids, n_items: int) -> Ids:
    """Return where the file has each event, -1 where it lacks it: before all others, then."""
    place = np.full(len(users), -1)
    keys = users.astype(np.int64) * n_items + items
    sort = np.argsort(keys)
    listed = []
    for line in order.read_text(encoding="utf-8").splitlines():
        user, *own = (int(word) for word in line.split())
        listed += [user * n_items + item for item in own]
    at = np.searchsorted(keys, listed, sorter=sort).clip(max=len(keys) - 1)
    found = keys[sort[at]] == listed
    place[sort[at[found]]] = np.flatnonzero(found)
    return place


def _adapted(contender: Contender) -> Contender:
    name = label(contender)
    sizes = SMALLER.get(name, contender.sizes)
    return replace(contender, sizes=sizes, suggest=RANGES.get(name, contender.suggest))


def _tuned(contender: Contender, parts: Parts, notes: Notes) -> dict[str, Any]:
    name = label(contender)
    found = tune_all([contender], parts, notes, budget=BUDGET, graded=False)[name]
    for params in FURTHER.get(name, ()):

        def objective(params: dict[str, Any] = params) -> float:
            return score(contender, params, parts.fit, parts.validation)["ndcg@20"]

        value = notes.value(name, params, objective)
        found["trials"].append({"params": params, "value": value})
        if value > found["validation"]:
            found |= {"params": params, "validation": value}
    return found


def run(
    folder: Path,
    notes: Notes,
    tuned: dict[str, Any] | None,
    *,
    partial: bool = False,
    order: Path | None = None,
    again: Sequence[str] = (),
) -> dict[str, Any]:
    """Tune where nothing is tuned yet, or those named `again`, and look at the test."""
    parts, field = parts_of(folder, order), [c for c in contenders() if label(c) in FIELD]
    field = [_adapted(c) for c in field]
    found: dict[str, Any] = {} if tuned is None else dict(tuned)
    for name in (*again, FUSION) if again else ():
        found.pop(name, None)
    results: dict[str, Any] = {}
    weights: dict[str, Any] = {}
    for contender in field:
        name = label(contender)
        if tuned is not None and name not in {*tuned, *again}:
            continue  # those results were written before all were tuned
        try:
            if name not in found:
                found[name] = _tuned(contender, parts, notes)
            results |= judge([contender], found, parts, notes)
        except OutOfTime:
            if not partial:
                raise
    try:
        results[FUSION], found[FUSION] = fused(
            FUSION, field, found, parts, notes, members=MEMBERS, fitted=found.get(FUSION)
        )
        weights[FUSION] = found[FUSION]
    except OutOfTime:
        if not partial:
            raise
    return {
        "split": "as published with LightGCN, by time; validation: the last tenth of every user's "
        "training items",
        "sizes": {
            "users": parts.train.shape[0],
            "items": parts.train.shape[1],
            "train": parts.train.nnz,
            "test": parts.test.nnz,
        },
        "published": PUBLISHED,
        "tuned": found,
        "budget": BUDGET.trials,
        "fusion": weights,
        "results": rows(results, against="recfuse: ALS"),
    }
