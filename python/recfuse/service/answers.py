"""Requests to rows, and rows to JSON: what the routes have in common."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from recfuse.service.asks import Ask, Lists
from recfuse.service.folding import Shares
from recfuse.service.labels import Label
from recfuse.service.metrics import Metrics
from recfuse.service.options import Options
from recfuse.service.schemas import ListRequest
from recfuse.service.sessions import Sessions

__all__ = ["ask_of", "check_length", "explained", "filters_of", "lists_of", "read_titles", "solver"]


def read_titles(path: Path | None) -> dict[str, str]:
    """Read a CSV of ids and titles, after a header; ids as text."""
    if path is None:
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        next(rows, None)
        return {row[0]: row[1] for row in rows if len(row) > 1}


def check_length(labels: Sequence[Any] | None, name: str, options: Options) -> None:
    """Raise ValueError for a list that is too long."""
    if labels is not None and len(labels) > options.max_ids:
        raise ValueError(f"{name} must have at most {options.max_ids} entries; got {len(labels)}")


def check_k(k: int, options: Options) -> None:
    if k > options.max_k:
        raise ValueError(f"k must be at most {options.max_k}; got {k}")


def filters_of(request: ListRequest, model: Any, options: Options) -> dict[str, Any]:
    """Return k and filters in rows."""
    check_k(request.k, options)
    found: dict[str, Any] = {"k": request.k}
    for name in ("exclude", "allow"):
        labels = getattr(request, name)
        if labels is not None:
            check_length(labels, name, options)
            found[name] = model.items.rows(labels, name)
    return found


def ask_of(
    model: Any,
    sessions: Sessions | None,
    user: Label | None,
    items: Sequence[Label] | None = None,
    vectors: dict[str, list[float]] | None = None,
    **more: Any,
) -> Ask:
    """Return what a request asks for; KeyError for a user of whom nothing is known."""
    given: dict[str, Any] = {}
    if user is not None:
        row, session = model.users.row(user), None
        if sessions is not None:
            session = sessions.of(user)
        if row is None and session is None:
            raise KeyError(f"user must be known; got {user!r:.99}")
        given["row"] = row
        if session is not None:
            given["changes"] = session.rows(model)
            given["version"] = (user, session.version)
    if items is not None:
        given["changes"] = dict.fromkeys(model.items.rows(items, "items").tolist(), 1.0)
        given.pop("version", None)
    if vectors is not None:
        given["vectors"] = {m: np.array(v, np.float32) for m, v in vectors.items()}
    ask = Ask(**given, **more)
    model.check(ask)
    return ask


def solver(
    search: Callable[[Sequence[Any]], Any],
    render: Callable[[Any, Sequence[Any]], list[bytes]],
    metrics: Metrics,
) -> Callable[[Sequence[Any]], list[bytes]]:
    """Return what answers many requests at once, with the bytes of their responses."""

    def solve(requests: Sequence[Any]) -> list[bytes]:
        begun = time.perf_counter()
        found = search(requests)
        searched = time.perf_counter()
        responses = render(found, requests)
        metrics.search.observe(searched - begun)
        metrics.respond.observe(time.perf_counter() - searched)
        return responses

    return solve


def lists_of(
    model: Any, found: Lists, lengths: Sequence[int], titles: dict[str, str]
) -> list[bytes]:
    """Return lists as JSON."""
    ids, scores, parts = found
    label, rounded = model.items.label, scores.astype(np.float64)
    lists: list[bytes] = []
    for i, (row_ids, row_scores, k) in enumerate(
        zip(ids.tolist(), rounded.tolist(), lengths, strict=True)
    ):
        # Of every request a list of some ten: nothing is asked in this loop that can be asked once.
        items: list[dict[str, Any]] = [
            {"item": label(item), "score": score}
            for item, score in zip(row_ids[:k], row_scores, strict=False)
            if item >= 0
        ]
        if titles:
            for entry in items:
                if (title := titles.get(str(entry["item"]))) is not None:
                    entry["title"] = title
        if parts is not None:
            for entry, terms in zip(items, parts[i].tolist(), strict=False):
                entry["contributions"] = dict(
                    zip(model.modalities, map(_finite, terms), strict=True)
                )
        lists.append(orjson.dumps({"items": items}))
    return lists


def explained(
    model: Any, item: Label, score: float, terms: dict[str, float], past: Shares
) -> bytes:
    """Return an explanation as JSON."""
    label = model.items.label
    history = {
        name: [{"item": label(row), "adds": adds} for row, adds in shares]
        for name, shares in past.items()
    }
    return orjson.dumps(
        {
            "item": item,
            "score": score if terms else None,
            "contributions": terms,
            "history": history,
        }
    )


def _finite(x: float) -> float:
    return x if math.isfinite(x) else 0.0
