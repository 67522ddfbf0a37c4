"""Races of the benchmark, with contenders of the test in this process."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from recfuse.bench import race as race_module
from recfuse.bench import run as run_module
from recfuse.bench.case import Case, Contender, Cost, Ready, Referee
from recfuse.bench.race import Race, WrongAnswerError
from recfuse.bench.roofline import Ceilings
from recfuse.bench.run import main_bench
from recfuse.bench.worker import WorkerError


@dataclass(frozen=True, kw_only=True)
class Toy(Case):
    """Contenders answer with a number; 1 is right."""

    op: ClassVar[str] = "toy"
    field_: tuple[Contender, ...] = field(default=())

    @property
    def name(self) -> str:
        return "toy"

    def inputs(self) -> dict[str, np.ndarray]:
        return {"one": np.ones(1)}

    def ours(self) -> list[Contender]:
        return list(self.field_[:1])

    def peers(self) -> list[Contender]:
        return list(self.field_[1:])

    def cost(self, inputs: Any) -> Cost:
        return Cost(flops=100.0, bytes=1.0)

    def referee(self, inputs: Any) -> Referee:
        return ToyReferee()

    def sizes(self) -> dict[str, Any]:
        return {}


class ToyReferee(Referee):
    def verify(self, answer: Any) -> str | None:
        return None if answer["value"] == 1 else "not 1"

    def compare(self, ours: Any, theirs: Any) -> str | None:
        return None if theirs["value"] == ours["value"] else "not ours"


class WorkerHere:
    """Does what `Worker` does, in this process; every call takes the contender's `seconds`."""

    calls: ClassVar[list[str]] = []

    def __init__(self, case: Case, contender: Contender, inputs: Path, num_threads: int) -> None:
        self.name = contender.name
        self.ready = contender.prepare(case, {}, num_threads)

    def prepare(self) -> dict[str, Any]:
        self.result = self.ready.call()
        return {"prepare_seconds": 0.0, "first_seconds": self.result[1], "extra_bytes": 5}

    def answer(self) -> dict[str, Any]:
        return self.ready.answer(self.result)

    def time(self, n_calls: int) -> tuple[float, float]:
        self.calls.append(self.name)
        seconds = float(self.ready.call()[1])
        return seconds, 2 * seconds

    def close(self) -> None:
        pass


def contender(name: str, value: float, *seconds: float, module: str = "numpy") -> Contender:
    """Return one that answers `value` and takes these seconds, the first ones to warm up."""

    def prepare(case: Any, inputs: Any, num_threads: int) -> Ready:
        times = iter(seconds)

        def call() -> tuple[float, float]:
            taken = next(times)
            if taken < 0:
                raise WorkerError("it broke")
            return value, taken

        return Ready(call, lambda result: {"value": np.array(result[0])})

    package = "recfuse" if name.startswith("recfuse") else name
    return Contender(name, package, module, prepare, "", "")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(race_module, "Worker", WorkerHere)
    monkeypatch.setattr(race_module, "_PAUSE", 0.0)
    monkeypatch.setattr(WorkerHere, "calls", [])
    return WorkerHere.calls


def raced(*field_: Contender, rounds: int = 2) -> dict[str, Any]:
    with Race(Toy(field_=field_), num_threads=1) as race:
        for _ in range(rounds):
            race.round()
    return race.result(Ceilings(flops=100, memory=10, cache=50, updates=5, cache_bytes=1000))


def test_contenders_alternate_and_ratios_are_taken_round_by_round(here: list[str]) -> None:
    result = raced(contender("recfuse", 1, 9, 1.0, 2.0), contender("a", 1, 9, 3.0, 8.0))
    assert here == ["recfuse", "a", "a", "recfuse"]
    ours, peer = result["contenders"]
    assert ours["seconds"] == [1.0, 2.0]
    assert ours["cpu_seconds"] == 3.0
    assert peer["ratio_median"] == pytest.approx(3.5)  # of 3 / 1 and 8 / 2
    assert (peer["ratio_low"], peer["ratio_high"]) == pytest.approx((3.25, 3.75))
    assert result["best_peer"] == "a"
    assert result["floor_seconds"] == 1.0
    assert result["share_of_floor"] == pytest.approx(1 / 1.5)


def test_the_best_peer_is_the_fastest_that_is_right(here: list[str]) -> None:
    result = raced(
        contender("recfuse", 1, 9, 2.0, 2.0),
        contender("slow", 1, 9, 5.0, 5.0),
        contender("wrong", 3, 9, 0.1, 0.1),
        contender("broken", 1, -1.0),
        contender("breaks later", 1, 9, 0.1, -1.0),
        contender("absent", 1, module="no_such_module"),
        contender("fast", 1, 9, 4.0, 4.0),
    )
    assert result["best_peer"] == "fast"
    found = {c["name"]: (c["status"], c["reason"]) for c in result["contenders"]}
    assert found == {
        "recfuse": ("timed", None),
        "slow": ("timed", None),
        "wrong": ("differs", "not ours"),
        "broken": ("failed", "it broke"),
        "breaks later": ("failed", "it broke"),
        "absent": ("absent", "absent is not installed"),
        "fast": ("timed", None),
    }
    assert "wrong" not in here


def test_a_peer_far_behind_keeps_its_first_time(here: list[str]) -> None:
    result = raced(
        contender("recfuse", 1, 1, 1.0, 1.0),
        contender("fast", 1, 2.0, 2.0, 2.0),
        contender("far behind", 1, 17.0, 17.0),
    )
    assert here.count("far behind") == 0
    last = result["contenders"][2]
    assert last["seconds"] == [17.0]
    assert last["ratio_median"] == 17.0


def test_without_peers_there_is_no_best_one(here: list[str]) -> None:
    assert raced(contender("recfuse", 1, 1, 1.0, 1.0))["best_peer"] is None


def test_a_wrong_answer_of_recfuse_ends_the_race(here: list[str]) -> None:
    with pytest.raises(WrongAnswerError, match="toy, toy: not 1"):
        raced(contender("recfuse", 2, 1, 1.0))


def test_a_wrong_answer_makes_the_command_fail(
    here: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    wrong = Toy(field_=(contender("recfuse", 2, 1, 1.0),))
    monkeypatch.setattr(run_module, "cases_of", lambda op, quick, device: [wrong])
    assert main_bench(["topk"], out_dir=tmp_path) == 1
    assert "wrong answer: toy, toy: not 1" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
