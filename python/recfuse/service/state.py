"""What a running service has: the model of the moment, sessions, the queue, its numbers."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from pathlib import Path
from typing import Any

from recfuse.service.answers import read_titles
from recfuse.service.asks import Ask
from recfuse.service.batching import Batcher
from recfuse.service.http import logger
from recfuse.service.journal import Journal
from recfuse.service.metrics import Metrics
from recfuse.service.opening import Served, open_model
from recfuse.service.options import Options
from recfuse.service.sessions import Sessions

__all__ = ["CannotLoad", "Service"]


class CannotLoad(Exception):
    """The new file is not taken; the model stays."""


class Service:
    """The parts of a service, and their beginning and end."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.metrics = Metrics()
        self.titles: dict[str, str] = {}
        self.sessions: Sessions | None = None
        self.batcher = Batcher(
            max_batch=options.max_batch,
            max_queue=options.max_queue,
            max_wait=options.max_wait_ms / 1000,
            metrics=self.metrics,
        )
        self._model: Served | None = None
        self._loading = asyncio.Lock()
        self._reloads: set[asyncio.Task[None]] = set()
        self._watcher: asyncio.Task[None] | None = None
        self._stamp: tuple[int, ...] | None = None
        self.ending = False
        count = self.metrics.watch
        count("recfuse_queue_length", "Requests that wait", lambda: float(self.batcher.waiting))
        count("recfuse_sessions", "Users with feedback", lambda: float(len(self.sessions or ())))
        count(
            "recfuse_session_events",
            "Items in all sessions",
            lambda: float(0 if self.sessions is None else self.sessions.events),
        )

    @property
    def model(self) -> Served:
        """The model that new requests are answered from."""
        assert self._model is not None
        return self._model

    @property
    def ready(self) -> bool:
        failed = self.sessions is not None and self.sessions.failed
        return self._model is not None and not self.ending and not failed

    async def start(self) -> None:
        """Open the model and the journal, and begin to answer."""
        begun = time.perf_counter()
        self.titles = await asyncio.to_thread(read_titles, self.options.titles)
        async with self._loading:  # who asks for a reload already, waits
            self._stamp = _stamp(self.options.model)
            self._model = await asyncio.to_thread(self._opened)
        if self.options.feedback:
            self.sessions = await asyncio.to_thread(self._replayed)
        self.batcher.start()
        if self.options.watch > 0:
            self._watcher = asyncio.create_task(self._watch())
        logger.info(
            "model loaded",
            extra={"event": "start", "ms": round(1000 * (time.perf_counter() - begun), 1)},
        )

    async def close(self) -> None:
        """Answer what waits, and end."""
        self.ending = True
        if self._watcher is not None:
            self._watcher.cancel()
        await self.batcher.close()
        if self.sessions is not None:
            await self.sessions.close()
        logger.info("ended", extra={"event": "end"})

    def _replayed(self) -> Sessions:
        journal = Journal(self.options.journal_path)
        try:
            return Sessions(journal, self.options.max_events)
        except BaseException:
            journal.close()
            raise

    def _opened(self) -> Served:
        model = open_model(self.options.model, self.options.threads)
        # Buffers and pages are in place before the first client comes.
        model.search([Ask(1, None if model.users.n == 0 else 0)], False)
        return model

    async def reload(self) -> Served:
        """Load the file anew beside the model, and put it in its place between two searches.

        Raises
        ------
        CannotLoad
            If the file cannot be served.
        """
        async with self._loading:
            self._stamp = _stamp(self.options.model)
            try:
                model = await asyncio.to_thread(self._opened)
            except Exception as error:  # whatever is wrong with it: the old model goes on
                self.metrics.reloads.labels("refused").inc()
                logger.error(
                    "model refused", extra={"event": "reload", "error": type(error).__name__}
                )
                raise CannotLoad(str(error)) from error
            self._model = model
            self.metrics.reloads.labels("done").inc()
            logger.info("model reloaded", extra={"event": "reload"})
            return model

    def reload_soon(self) -> None:
        """Reload, as a signal asks for; what is wrong is in the log."""
        task = asyncio.get_running_loop().create_task(self._quietly())
        self._reloads.add(task)  # the loop alone would let go of it
        task.add_done_callback(self._reloads.discard)

    async def _quietly(self) -> None:
        with contextlib.suppress(CannotLoad):  # logged
            await self.reload()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self.options.watch)
            if _stamp(self.options.model) != self._stamp:
                await self._quietly()

    def numbers(self) -> bytes:
        """Return all numbers as Prometheus reads them."""
        scored: Any = None if self._model is None else self._model.rescored()
        # A new model has not been tried; 0 would say that nothing had to be scored.
        self.metrics.rescored.set(math.nan if scored is None else scored)
        return self.metrics.text()


def _stamp(path: Path) -> tuple[int, ...] | None:
    """Return what changes when a file is replaced."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_ino, found.st_mtime_ns, found.st_size)
