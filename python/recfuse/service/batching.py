"""Requests of many clients as few searches: one runs, and what comes meanwhile is the next one."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from recfuse.service.metrics import Metrics

__all__ = ["Batcher", "Busy"]

# Answers of all requests: one each, or what is wrong with it.
Solve = Callable[[Sequence[Any]], Sequence[Any]]


_LEAST_TOGETHER = 16  # fewer cost more each: their search, and taking turns with its thread


class Busy(Exception):
    """The queue is full."""


@dataclass
class _Waiting:
    request: Any
    answer: asyncio.Future[Any]
    since: float


class Batcher:
    """Gathers requests that one call can answer, and runs the calls in a thread.

    The thread takes what waits by itself: when a search ends, the next begins without a turn of the
    event loop, which may have a hundred requests to read before it comes to that.

    Parameters
    ----------
    max_batch, max_queue : int
        A search is of half of the requests that are under way, within `max_batch`, so that the
        other half is answered and made ready meanwhile.
    max_wait : float
        Seconds for which a request waits for others after a batch of several: those who were
        answered together ask again together. Nothing waits when nothing has run.
    metrics : Metrics
    """

    def __init__(
        self, *, max_batch: int, max_queue: int, max_wait: float, metrics: Metrics
    ) -> None:
        self._max_batch, self._max_queue, self._max_wait = max_batch, max_queue, max_wait
        self._metrics = metrics
        self._groups: dict[Hashable, tuple[Solve, list[_Waiting]]] = {}
        self._changed = threading.Condition()  # of groups, waiting and ending
        self._wanted = math.inf  # requests for which the thread is to be woken
        self._before = 0  # requests of the last batch; 0 after a pause
        self._thread = threading.Thread(target=self._run, name="search", daemon=True)
        self._loop: asyncio.AbstractEventLoop
        self._ending = False
        self.waiting = 0

    def start(self) -> None:
        """Begin to search; answers come in the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def close(self) -> None:
        """End when all that waits is answered."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        await asyncio.to_thread(self._thread.join)

    async def ask(self, key: Hashable, solve: Solve, request: Any) -> Any:
        """Return the answer of one request, searched with others of its key.

        Raises
        ------
        Busy
            If as many as may wait do.
        Exception
            What `solve` raised for this request.
        """
        if self.waiting >= self._max_queue:
            raise Busy
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        with self._changed:
            group = self._groups.get(key)
            if group is None:
                group = self._groups[key] = (solve, [])
            group[1].append(_Waiting(request, answer, time.perf_counter()))
            self.waiting += 1
            if self.waiting >= self._wanted:
                self._changed.notify()
        return await answer

    def _run(self) -> None:
        while self._search_next():
            pass

    def _search_next(self) -> bool:
        """Search for the next batch; False at the end. Nothing of it is held while none waits."""
        with self._changed:
            self._gather()
            if not self._groups:
                return False
            solve, batch = self._next(max(_LEAST_TOGETHER, (self.waiting + self._before) // 2))
            self._before = len(batch) or self._before
        if batch:
            begun = time.perf_counter()
            answers = _answers(solve, [one.request for one in batch])
            self._loop.call_soon_threadsafe(self._deliver, batch, answers, begun)
        return True

    def _gather(self) -> None:
        """Wait for a batch, as long as pays."""
        if not self._groups and not self._come(1, self._max_wait):
            self._before = 0
            self._come(1, None)
        if self._before > 1 and self.waiting < self._before:
            self._come(min(self._before, self._max_batch), self._max_wait)

    def _come(self, wanted: int, seconds: float | None) -> bool:
        """Wait until so many requests wait, or time is up, or all ends; say which."""
        self._wanted = wanted
        self._changed.wait_for(lambda: self.waiting >= wanted or self._ending, seconds)
        self._wanted = math.inf
        return self.waiting >= wanted

    def _deliver(self, batch: list[_Waiting], answers: Sequence[Any], begun: float) -> None:
        self._metrics.batch.observe(len(batch))
        for one, answer in zip(batch, answers, strict=True):
            self._metrics.queue.observe(begun - one.since)
            if one.answer.done():
                continue
            if isinstance(answer, BaseException):
                one.answer.set_exception(answer)
            else:
                one.answer.set_result(answer)

    def _next(self, most: int) -> tuple[Solve, list[_Waiting]]:
        """Take the requests of the group that has waited longest, without those who have gone."""
        key = next(iter(self._groups))
        solve, waiting = self._groups.pop(key)
        most = min(most, self._max_batch)
        taken, rest = waiting[:most], waiting[most:]
        if rest:
            self._groups[key] = (solve, rest)  # behind the others
        self.waiting -= len(taken)
        return solve, [one for one in taken if not one.answer.done()]


def _answers(solve: Solve, requests: Sequence[Any]) -> Sequence[Any]:
    """Return the answers; where all fail together, each is tried alone, so that one fails.

    A thread that ended by whatever was raised would leave all that ask after it waiting.
    """
    try:
        answers = solve(requests)
        if len(answers) != len(requests):
            raise RuntimeError(f"a search of {len(requests)} gave {len(answers)} answers")
        return answers
    except BaseException as raised:
        if len(requests) == 1:
            # What is no Exception, as a panic of a library in Rust, nobody on the way would answer.
            ended = RuntimeError(f"a search ended by {type(raised).__name__}")
            return [raised if isinstance(raised, Exception) else ended]
    return [answer for request in requests for answer in _answers(solve, [request])]
