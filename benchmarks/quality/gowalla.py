"""Gowalla, the split that LightGCN was published with: behaviour alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from contenders import contenders
from search import Budget, Notes, OutOfTime
from study import FUSION, Parts, fused, judge, label, rows, tune_all

from recfuse.evaluation import user_time_split
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
PUBLISHED = {"recall@20": 0.1824, "ndcg@20": 0.1547}  # LightGCN, 3 layers of 64


def parts_of(folder: Path) -> Parts:
    """Return the published split; the validation is a tenth of every user's training items."""
    with np.load(folder / "gowalla" / "interactions.npz") as data:
        space = {
            "user_labels": np.arange(len(data["user_org_id"])),
            "item_labels": np.arange(len(data["item_org_id"])),
        }
        test = Interactions.from_arrays(data["test_user"], data["test_item"], **space)
        # Times at random make the last tenth of a user a tenth at random.
        order = np.random.default_rng(0).permutation(len(data["train_user"]))
        train = Interactions.from_arrays(
            data["train_user"], data["train_item"], timestamps=order, **space
        )
    inner = user_time_split(train, test_fraction=0.1)
    matrices = (inner.train, inner.test, train, test)
    return Parts(*(part.to_csr() for part in matrices))


def run(
    folder: Path, notes: Notes, tuned: dict[str, Any] | None, *, partial: bool = False
) -> dict[str, Any]:
    """Tune where nothing is tuned yet, and look at the test."""
    parts, field = parts_of(folder), [c for c in contenders() if label(c) in FIELD]
    field = [replace(c, sizes=SMALLER.get(label(c), c.sizes)) for c in field]
    found: dict[str, Any] = {} if tuned is None else tuned
    results: dict[str, Any] = {}
    weights: dict[str, Any] = {}
    for contender in field:
        if tuned is not None and label(contender) not in tuned:
            continue  # those results were written before all were tuned
        try:
            if tuned is None:
                found |= tune_all([contender], parts, notes, budget=BUDGET, graded=False)
            results |= judge([contender], found, parts, notes)
        except OutOfTime:
            if not partial:
                raise
    try:
        results[FUSION], weights[FUSION] = fused(FUSION, field, found, parts, notes)
    except OutOfTime:
        if not partial:
            raise
    return {
        "split": "as published with LightGCN; validation: a tenth of every user's training items",
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
