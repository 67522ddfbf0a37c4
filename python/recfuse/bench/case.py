"""What a benchmark consists of: workloads, contenders, and the least that a workload costs."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["Answer", "Case", "Contender", "Cost", "Inputs", "Ready", "Referee", "ids_and_scores"]

Inputs = Mapping[str, NDArray[Any]]
Answer = dict[str, NDArray[Any]]


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


@dataclass(frozen=True)
class Ready:
    """A contender that has its inputs: `call` is timed, `answer` turns its result into arrays."""

    call: Callable[[], Any]
    answer: Callable[[Any], Answer]


def ids_and_scores(result: Any) -> Answer:
    """Return the answer of a retrieval; `result` is a pair of arrays or of tensors."""
    ids, scores = result
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
    """

    name: str
    package: str
    module: str
    prepare: Callable[[Any, Inputs, int], Ready]
    once: str
    per_call: str
    environment: Mapping[str, str] = field(default_factory=dict)

    def missing(self) -> bool:
        """Whether the package is not installed."""
        return importlib.util.find_spec(self.module) is None

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

    def contenders(self) -> list[Contender]:
        """Return ours, then the peers."""
        return [*self.ours(), *self.peers()]

    def sizes(self) -> dict[str, Any]:
        """Return the fields, as JSON takes them."""
        return asdict(self)
