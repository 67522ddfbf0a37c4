"""Tuning that every contender gets alike, and that goes on where it stopped."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recfuse.evaluation import RankingMetrics, Trial, tune

__all__ = ["Budget", "Notes", "OutOfTime", "search"]


@dataclass(frozen=True)
class Budget:
    """Trials of every contender: for factorisations, `random` ones at the least of three sizes.

    The best `grown` of those are tried at the second size, and again at the third. Everybody else
    has as many, all of them random.
    """

    random: int = 12
    grown: int = 2

    @property
    def trials(self) -> int:
        """How many that is."""
        return self.random + 2 * self.grown


class OutOfTime(Exception):
    """The seconds given are over; the trials done are in the notes."""


class Notes:
    """Values of trials by contender and parameters: a file with one JSON line for each."""

    def __init__(self, path: Path, seconds: float = float("inf")) -> None:
        self.path, self.deadline = path, time.monotonic() + seconds
        self.tested = path.with_suffix(".tested")  # the folder of results of the test
        self.lines: list[dict[str, Any]] = []
        if path.exists():
            text = path.read_text(encoding="utf-8")
            self.lines = [json.loads(line) for line in text.splitlines()]

    def value(self, name: str, params: Mapping[str, Any], objective: Callable[[], float]) -> float:
        """Return the value noted, or find it out and note it."""
        for line in self.lines:
            if line["name"] == name and line["params"] == params:
                return float(line["value"])
        if time.monotonic() > self.deadline:
            raise OutOfTime
        started = time.perf_counter()
        value = float(objective())
        seconds = round(time.perf_counter() - started, 2)
        line = {"name": name, "params": dict(params), "value": value, "seconds": seconds}
        self.lines.append(line)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(f"{name} {value:.4f} {seconds} s {json.dumps(params)}", flush=True)
        return value

    def noted(self, name: str, title: str) -> dict[str, Any]:
        """Return the last line of a name with a title among its parameters."""
        lines = [line for line in self.lines if line["name"] == name]
        return [line for line in lines if line["params"].get("title") == title][-1]

    def result(
        self, name: str, params: Mapping[str, Any], compute: Callable[[], RankingMetrics]
    ) -> RankingMetrics:
        """Return what a contender found of the test, noted or computed and noted."""
        digest = zlib.crc32(json.dumps(params, sort_keys=True).encode())
        file = self.tested / f"{name.replace(' ', '-').replace(':', '')}-{digest:08x}.npz"
        if not file.exists():
            if time.monotonic() > self.deadline:
                raise OutOfTime
            found = compute()
            self.tested.mkdir(exist_ok=True)
            extra = {f"coverage {key}": value for key, value in found.coverage.items()}
            np.savez(file, k=found.k, users=found.user_ids, **found.per_user, **extra)
            print(f"{name}: tested", flush=True)
        with np.load(file) as data:
            arrays = dict(data)
        coverage = {key[9:]: float(arrays[key]) for key in arrays if key.startswith("coverage ")}
        per_user = {key: arrays[key] for key in arrays if "@" in key and " " not in key}
        cutoffs = tuple(int(k) for k in arrays["k"])
        return RankingMetrics(cutoffs, arrays["users"], per_user, coverage)


def search(
    name: str,
    suggest: Callable[[Trial], dict[str, Any]],
    objective: Callable[[dict[str, Any]], float],
    notes: Notes,
    *,
    sizes: tuple[int, ...] = (),
    budget: Budget,
) -> dict[str, Any]:
    """Return the parameters that did best, their value and all trials."""
    tried: list[dict[str, Any]] = []

    def attempt(params: dict[str, Any]) -> float:
        value = notes.value(name, params, lambda: objective(params))
        tried.append({"params": params, "value": value})
        return value

    def random(trial: Trial) -> float:
        return attempt(({"factors": sizes[0]} if sizes else {}) | suggest(trial))

    tune(random, n_trials=budget.random if sizes else budget.trials)
    for size in sizes[1:]:
        smaller = [t for t in tried if t["params"]["factors"] == sizes[0]]
        best = sorted(smaller, key=lambda t: -t["value"])[: budget.grown]
        for trial in best:
            attempt(trial["params"] | {"factors": size})
    winner = max(tried, key=lambda t: t["value"])
    return {"params": winner["params"], "validation": winner["value"], "trials": tried}
