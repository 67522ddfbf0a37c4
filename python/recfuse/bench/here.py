"""A contender on a GPU, in this process: all of them share the device and what lies on it."""

from __future__ import annotations

import contextlib
import os
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np

from recfuse.bench.case import Answer, Case, Contender
from recfuse.bench.clock import Clock
from recfuse.bench.device import DeviceInputs
from recfuse.bench.worker import WorkerError

__all__ = ["Here"]

T = TypeVar("T")


class Here:
    """Does what `Worker` does; calls are timed by the device's clock, with its cache flushed.

    A process each would cost every contender the copies of the inputs; what a process is for on
    the CPU, threads and their libraries, a device does not have.
    """

    def __init__(
        self,
        case: Case,
        contender: Contender,
        inputs: DeviceInputs,
        num_threads: int,
        clock: Clock,
    ) -> None:
        self._case, self._contender = case, contender
        self._inputs, self._num_threads, self._clock = inputs, num_threads, clock

    def prepare(self) -> dict[str, Any]:
        """Prepare and call once (or as often as the case warms up), as `Worker.prepare`."""
        before = self._clock.free_bytes()
        begun = time.perf_counter()
        self._ready = self._tried(
            lambda: self._contender.prepare(self._case, self._inputs, self._num_threads)
        )
        prepared = time.perf_counter() - begun
        for _ in range(self._case.warm_up_calls):
            first, self._result = self._tried(lambda: self._clock.once(self._ready.call))
        after = self._clock.free_bytes()
        extra = None if before is None or after is None else max(before - after, 0)
        return {"prepare_seconds": prepared, "first_seconds": first, "extra_bytes": extra}

    def answer(self) -> Answer:
        """Return what the latest call resulted in."""
        return self._tried(lambda: self._ready.answer(self._result))

    def time(self, n_calls: int) -> tuple[float, float]:
        """Call; return the seconds of one on the device and of the CPUs, medians of several."""
        samples = []
        for _ in range(n_calls):
            begun = time.process_time()
            seconds, self._result = self._tried(lambda: self._clock.once(self._ready.call))
            samples.append((seconds, time.process_time() - begun))
        seconds, cpu_seconds = (float(np.median(times)) for times in zip(*samples, strict=True))
        return seconds, cpu_seconds

    def kernels(self) -> dict[str, Any]:
        """Return what one call does on the device."""
        with _environment(self._contender.environment):
            return self._clock.kernels(self._ready.call)

    def close(self) -> None:
        """Let go of what the contender keeps."""
        for held in ("_ready", "_result"):  # neither is there where it could not prepare
            self.__dict__.pop(held, None)
        self._clock.free_bytes()

    def _tried(self, call: Callable[[], T]) -> T:
        try:
            with _environment(self._contender.environment):
                return call()
        except Exception as error:  # whatever a peer raises is its result
            traceback.print_exc()
            raise WorkerError(f"{type(error).__name__}: {error}"[:400]) from error


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
