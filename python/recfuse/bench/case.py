"""What a benchmark consists of: workloads, contenders, and the least that a workload costs."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ON_CPU",
    "Answer",
    "Case",
    "Contender",
    "Cost",
    "Inputs",
    "Ready",
    "Referee",
    "ids_and_scores",
]

Inputs = Mapping[str, NDArray[Any]]
Answer = dict[str, NDArray[Any]]
ON_CPU = "recfuse on the CPU"


@dataclass(frozen=True)
class Cost:
    """The least that any program does for a workload.

    Attributes
    ----------
    flops : float
        float32 operations, a multiply-add counted as two.
    bytes : float
        Memory traffic: inputs read once, results written once, and gathers where they are part
        of the method.
    updates : float, default=0
        Additions to scattered counters, for sparse products.
    working_set : float, default=0
        Bytes that are read again and again; 0 means `bytes`. Decides between the bandwidth of the
        last cache and that of the memory.
    int8_bytes : float, default=0
        `bytes` where the items may be read and multiplied in int8; 0 where they may not.
    """

    flops: float
    bytes: float
    updates: float = 0.0
    working_set: float = 0.0
    int8_bytes: float = 0.0

    @property
    def float16_bytes(self) -> float:
        """`bytes` where what may be read in int8 is read in float16."""
        rounded = self.bytes - self.int8_bytes if self.int8_bytes > 0 else 0.0  # 3 of 4 bytes
        return self.bytes - rounded * 2 / 3


@dataclass(frozen=True)
class Ready:
    """A contender that has its inputs: `call` is timed, `answer` turns its result into arrays."""

    call: Callable[[], Any]
    answer: Callable[[Any], Answer]


def ids_and_scores(result: Any) -> Answer:
    """Return the answer of a retrieval; `result` is a pair of arrays or of tensors."""
    ids, scores = (x.cpu() if hasattr(x, "cpu") else x for x in result)
    return {"ids": np.asarray(ids), "scores": np.asarray(scores)}


@dataclass(frozen=True)
class Contender:
    """One way to compute a case.

    Attributes
    ----------
    name : str
        As tables show it.
    package, module : str
        The distribution, whose version is recorded, and what must be importable.
    prepare : callable
        ``prepare(case, inputs, num_threads)`` returns a `Ready`. What a user pays once belongs
        here and is not timed.
    once, per_call : str
        What is prepared once, and what every timed call does.
    environment : mapping of str to str
        Set before the contender's process starts.
    exact : bool, default=True
        False for one that rounds on purpose: it is timed whatever its answer, which `measures`
        compare with ours, and is never the best peer.
    obstacle : callable, optional
        Says why it cannot run here although its package is installed, None if it can.
    """

    name: str
    package: str
    module: str
    prepare: Callable[[Any, Any, int], Ready]
    once: str
    per_call: str
    environment: Mapping[str, str] = field(default_factory=dict)
    exact: bool = True
    obstacle: Callable[[], str | None] | None = None

    def missing(self) -> bool:
        """Whether the package is not installed."""
        return importlib.util.find_spec(self.module) is None

    def absence(self) -> str | None:
        """Say why it cannot take part, None if it can."""
        if self.missing():
            return f"{self.package} is not installed"
        return None if self.obstacle is None else self.obstacle()

    def version(self) -> str | None:
        """Return the version of the package, None for one that was not installed by a tool."""
        try:
            return metadata.version(self.package)
        except metadata.PackageNotFoundError:
            return None


class Referee(ABC):
    """Judges answers to one case by the float64 definition."""

    @abstractmethod
    def verify(self, answer: Answer) -> str | None:
        """Say what is wrong with an answer of recfuse, None if nothing is."""

    @abstractmethod
    def compare(self, ours: Answer, theirs: Answer) -> str | None:
        """Say how an answer differs from ours beyond rounding, None if it does not."""

    def equal(self, ours: Answer, theirs: Answer) -> str | None:
        """Say how another answer of recfuse differs from ours at all, None if it does not."""
        for name, values in ours.items():
            if values.tobytes() != theirs[name].tobytes():
                return f"{name} are not the same bytes"
        return None

    def measures(self, answer: Answer) -> dict[str, float]:
        """Return what else an answer should be known by."""
        return {}


@dataclass(frozen=True, kw_only=True)
class Case(ABC):
    """One workload of one op; its fields are its sizes. Inputs are generated from `seed`."""

    op: ClassVar[str]
    warm_up_calls: ClassVar[int] = 1

    seed: int = 20261121

    @property
    @abstractmethod
    def name(self) -> str:
        """Sizes in one line."""

    @abstractmethod
    def inputs(self) -> Inputs:
        """Generate the arrays that every contender gets."""

    @abstractmethod
    def ours(self) -> list[Contender]:
        """Return recfuse's ways to compute it; the first is the one that ratios speak of."""

    @abstractmethod
    def peers(self) -> list[Contender]:
        """Return the others, installed or not."""

    @abstractmethod
    def cost(self, inputs: Inputs) -> Cost:
        """Return the least work."""

    @abstractmethod
    def referee(self, inputs: Inputs) -> Referee:
        """Return who judges the answers."""

    def ours_on_device(self) -> list[Contender]:
        """Return recfuse's ways to compute it on a GPU; the first is what ratios speak of."""
        return []

    def peers_on_device(self) -> list[Contender]:
        """Return the others there."""
        return []

    def contenders(self, *, on_device: bool = False) -> list[Contender]:
        """Return ours, then the peers; on a GPU, recfuse on the CPU is the first of them."""
        if not on_device:
            return [*self.ours(), *self.peers()]
        ours = self.ours()[0]
        environment = {**ours.environment, "RECFUSE_DEVICE": "cpu"}
        on_cpu = replace(ours, name=ON_CPU, environment=environment)
        return [*self.ours_on_device(), on_cpu, *self.peers_on_device()]

    def sizes(self) -> dict[str, Any]:
        """Return the fields, as JSON takes them."""
        return asdict(self)
