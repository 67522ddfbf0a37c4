"""One case: every contender ready in its own process, every answer checked, then timed in turn."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from recfuse.bench.case import Answer, Case, Contender, Inputs, Referee
from recfuse.bench.device import DeviceInputs, Site
from recfuse.bench.here import Here
from recfuse.bench.roofline import Ceilings, floor
from recfuse.bench.worker import Worker, WorkerError, save_arrays
from recfuse.errors import RecfuseError

__all__ = ["Race", "WrongAnswerError"]

_SAMPLE_SECONDS = 0.2  # calls shorter than this are repeated within a sample
_MOST_CALLS = 100
_PAUSE = 0.1  # idle threads of OpenMP and OpenBLAS spin for a while before they sleep
_HOPELESS = 4.0  # a peer that is this much slower than the fastest is not made to repeat it
_LONG = 5.0  # ... if a call takes this many seconds
_LONG_ON_DEVICE = 0.5


class WrongAnswerError(RecfuseError):
    """An answer of recfuse is not what the float64 definition says."""


class Race:
    """Times the contenders of a case against each other, as a context manager.

    Entering it generates the inputs, starts and prepares every contender one after the other, and
    checks the first answer of each: recfuse's by the definition in float64, other ways of recfuse
    by the bytes of that, a peer's against recfuse's. One that is not installed, fails or differs is
    reported and takes no part.

    Parameters
    ----------
    case : Case
    num_threads : int
        For every contender.
    peers : bool, default=True
        False times recfuse alone.
    site : Site, optional
        A GPU, for the case's contenders there; they share this process.
    log : callable, optional
        Gets a line of text for every step.

    Raises
    ------
    WrongAnswerError
        On entering, if recfuse fails or its answer is wrong.
    """

    def __init__(
        self,
        case: Case,
        *,
        num_threads: int,
        peers: bool = True,
        site: Site | None = None,
        log: Callable[[str], None] | None = None,
    ) -> None:
        self.case = case
        self._num_threads = num_threads
        self._site = site
        self._n_ours = len(case.ours() if site is None else case.ours_on_device())
        field = case.contenders(on_device=site is not None)
        # On a GPU, the CPU is no peer but who has the right answer.
        self._field = field if peers else field[: self._n_ours + (site is not None)]
        self._log = log or (lambda line: None)
        self._runners: list[_Runner] = []
        self._rounds = 0

    def __enter__(self) -> Race:
        self._folder = tempfile.TemporaryDirectory(prefix="recfuse-bench-")
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for runner in self._runners:
            runner.retire()
        self._folder.cleanup()

    def round(self) -> None:
        """Time every contender once, forwards and backwards in turn."""
        order = self._runners if self._rounds % 2 == 0 else self._runners[::-1]
        for runner in order:
            runner.sample()
        self._rounds += 1
        self._log(f"round {self._rounds} done")

    def sample_ours(self) -> float:
        """Time the first contender alone and return its seconds."""
        ours = self._runners[0]
        ours.sample()
        return ours.seconds[-1]

    def sample_others(self) -> None:
        """Time every contender but the first."""
        for runner in self._runners[1:]:
            runner.sample()

    def result(self, ceilings: Ceilings) -> dict[str, Any]:
        """Return what was measured, as `report.py` writes it."""
        ours, n_ours = self._runners[0], self._n_ours
        least = floor(self._cost, ceilings)
        contenders = [runner.result(ours) for runner in self._runners]
        timed = [c for c in contenders[n_ours:] if _is_rival(c)]
        return {
            "op": self.case.op,
            "name": self.case.name,
            "sizes": self.case.sizes(),
            "cost": {"flops": self._cost.flops, "bytes": self._cost.bytes}
            | {"updates": self._cost.updates},
            "floor_seconds": least.seconds,
            "floor_bound": least.bound,
            "share_of_floor": least.seconds / contenders[0]["median"],
            "best_peer": min(timed, key=lambda c: c["median"])["name"] if timed else None,
            "contenders": contenders,
        }

    def _start(self) -> None:
        start = time.perf_counter()
        inputs = self.case.inputs()
        self._cost = self.case.cost(inputs)
        referee = self.case.referee(inputs)
        start_worker = self._starter(inputs)
        self._log(f"generated the inputs in {time.perf_counter() - start:.1f} s")
        answer: Answer | None = None
        for contender in self._field:
            runner = _Runner(contender)
            self._runners.append(runner)
            absence = contender.absence()
            if absence is not None:
                runner.drop("absent", absence)
            else:
                checked = runner.start(start_worker(contender), referee, answer)
                answer = answer or checked
            if contender.package == "recfuse" and runner.status != "timed":
                raise WrongAnswerError(f"{self.case.op}, {self.case.name}: {runner.reason}")
            self._log(f"{contender.name}: {runner.reason or 'answer checked'}")
        self._let_go_of_the_hopeless()

    def _starter(self, inputs: Inputs) -> Callable[[Contender], Worker | Here]:
        site = self._site
        if site is not None:
            shared = DeviceInputs(inputs, site.torch_device)
            return lambda one: Here(self.case, one, shared, self._num_threads, site.clock)
        folder = Path(self._folder.name) / "inputs"
        save_arrays(folder, inputs)
        return lambda one: Worker(self.case, one, folder, self._num_threads)

    def _let_go_of_the_hopeless(self) -> None:
        peers = [r for r in self._runners[self._n_ours :] if r.status == "timed"]
        long = _LONG if self._site is None else _LONG_ON_DEVICE
        fastest = min((r.first_seconds for r in peers), default=0.0)
        for runner in peers:
            if runner.first_seconds > max(long, _HOPELESS * fastest):
                self._log(
                    f"{runner.contender.name}: one call of {runner.first_seconds:.1f} s is all"
                )
                runner.seconds.append(runner.first_seconds)
                runner.retire()


class _Runner:
    """A contender, its process and its times."""

    def __init__(self, contender: Contender) -> None:
        self.contender = contender
        self.status = "timed"
        self.reason: str | None = None
        self.seconds: list[float] = []
        self.cpu_seconds: list[float] = []
        self.first_seconds = 0.0
        self._worker: Worker | Here | None = None
        self._n_calls = 1
        self._description: dict[str, Any] = {}
        self._measures: dict[str, float] = {}

    def start(self, worker: Worker | Here, referee: Referee, ours: Answer | None) -> Answer | None:
        """Prepare and check; return the answer if it is right."""
        self._worker = worker
        try:
            self._description = worker.prepare()
            answer = worker.answer()
        except WorkerError as error:
            self.drop("failed", str(error))
            return None
        fault = self._fault(answer, referee, ours)
        if fault is not None and self.contender.exact:
            self.drop("differs", fault)
            return None
        self.reason = None if fault is None else f"not exact: {fault}"
        self._measures = referee.measures(answer)
        self.first_seconds = self._description["first_seconds"]
        wanted = _SAMPLE_SECONDS / max(self.first_seconds, 1e-9)
        self._n_calls = int(np.clip(np.ceil(wanted), 1, _MOST_CALLS))
        return answer

    def _fault(self, answer: Answer, referee: Referee, ours: Answer | None) -> str | None:
        if ours is None:
            return referee.verify(answer)
        of_recfuse = self.contender.package == "recfuse"
        return referee.equal(ours, answer) if of_recfuse else referee.compare(ours, answer)

    def sample(self) -> None:
        """Take one time, if the contender still takes part."""
        if self._worker is None:
            return
        time.sleep(_PAUSE)
        try:
            seconds, cpu_seconds = self._worker.time(self._n_calls)
            self.seconds.append(seconds)
            self.cpu_seconds.append(cpu_seconds)
        except WorkerError as error:
            self.drop("failed", str(error))

    def drop(self, status: str, reason: str) -> None:
        """Leave the race."""
        self.status, self.reason = status, reason
        self.retire()

    def retire(self) -> None:
        """End the process; times stay."""
        if self._worker is not None:
            self._worker.close()
        self._worker = None

    def result(self, ours: _Runner) -> dict[str, Any]:
        """Return the times, and those relative to ours of the same round."""
        contender = self.contender
        result: dict[str, Any] = {
            "name": contender.name,
            "package": contender.package,
            "version": contender.version(),
            "environment": dict(contender.environment),
            "once": contender.once,
            "per_call": contender.per_call,
            "status": self.status,
            "exact": contender.exact,
            "reason": self.reason,
        }
        if self.status != "timed":
            return result
        ratios = _pairwise(self.seconds, ours.seconds)
        return result | {
            "prepare_seconds": self._description["prepare_seconds"],
            "extra_bytes": self._description["extra_bytes"],
            "measures": self._measures,
            "calls_per_sample": self._n_calls,
            "seconds": self.seconds,
            "cpu_seconds": float(np.median(self.cpu_seconds)) if self.cpu_seconds else None,
            **_spread("", self.seconds),
            **_spread("ratio_", ratios),
        }


def _is_rival(result: dict[str, Any]) -> bool:
    """Whether a contender may be the best peer."""
    return bool(result["status"] == "timed" and result["exact"] and result["package"] != "recfuse")


def _pairwise(theirs: list[float], ours: list[float]) -> list[float]:
    """Return the ratio of every round; of the medians for one that was not repeated."""
    if len(theirs) != len(ours):
        return [float(np.median(theirs) / np.median(ours))]
    return [t / o for t, o in zip(theirs, ours, strict=True)]


def _spread(prefix: str, values: list[float]) -> dict[str, float]:
    """Return median and quartiles."""
    low, median, high = (float(q) for q in np.quantile(values, [0.25, 0.5, 0.75]))
    return {f"{prefix}median": median, f"{prefix}low": low, f"{prefix}high": high}
