"""What users did since the fit: in memory for requests, in a journal for ever."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from recfuse.service.journal import Group, Journal, in_groups
from recfuse.service.labels import Label

__all__ = ["Full", "Session", "Sessions"]


class Full(Exception):
    """There is no room for more."""


@dataclass
class Session:
    """The events of one user: of every item the last strength, 0 for one that was taken back."""

    values: dict[Label, float] = field(default_factory=dict)
    version: int = 0
    # Not the model itself: one that a reload has replaced would stay for users who do not return.
    _rows: tuple[weakref.ref[Any], int, dict[int, float]] | None = None

    def rows(self, model: Any) -> Mapping[int, float]:
        """Return the items that a model knows, by row."""
        if self._rows is None or self._rows[0]() is not model or self._rows[1] != self.version:
            rows = {model.items.row(item): value for item, value in self.values.items()}
            rows.pop(None, None)
            self._rows = (weakref.ref(model), self.version, rows)
        return self._rows[2]


class Sessions:
    """The sessions of all users. For one event loop.

    Parameters
    ----------
    journal : Journal
        Replayed here.
    most_events : int
        Entries that are kept; more are refused, for none that was acknowledged is forgotten.
    """

    def __init__(self, journal: Journal, most_events: int) -> None:
        self._journal = journal
        self._most = most_events
        self._users: dict[Label, Session] = {}
        self._thread = ThreadPoolExecutor(1, "journal")
        self._waiting: list[tuple[Label, list[tuple[Label, float]], asyncio.Future[int]]] = []
        self._writer: asyncio.Task[None] | None = None
        self.events = 0
        self._promised = 0
        written = 0
        for group in journal.replay():
            written += sum(len(events) for _, events in group)
            self._apply(group)
        if written > 2 * self.events + 1000:
            journal.rewrite(in_groups((u, list(s.values.items())) for u, s in self._users.items()))

    def __len__(self) -> int:
        return len(self._users)

    def of(self, user: Label) -> Session | None:
        """Return the session of a user, if there is one."""
        return self._users.get(user)

    @property
    def failed(self) -> bool:
        """Whether the journal cannot be written any more."""
        return self._journal.failed is not None

    async def add(self, user: Label, events: list[tuple[Label, float]]) -> int:
        """Keep events, and return how many a user has when the disk has them.

        Raises
        ------
        Full
            If there is no room.
        OSError
            If the disk refuses.
        """
        if self.events + self._promised + len(events) > self._most:
            raise Full
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._promised += len(events)
        self._waiting.append((user, events, done))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        return await done

    async def _write(self) -> None:
        """Write what waits, in groups: one synchronisation is for all that came meanwhile."""
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch, self._waiting = self._waiting, []
            group = [(user, events) for user, events, _ in batch]
            failure: Exception | None = None
            try:
                await loop.run_in_executor(self._thread, self._journal.append, group)
                self._apply(group)
            except Exception as error:  # of any kind: somebody waits for an answer
                failure = error
            for user, events, done in batch:
                self._promised -= len(events)
                if done.done():
                    continue
                if failure is None:
                    done.set_result(len(self._users[user].values))
                else:
                    done.set_exception(failure)

    def _apply(self, group: Group) -> None:
        for user, events in group:
            session = self._users.setdefault(user, Session())
            before = len(session.values)
            session.values.update(events)
            session.version += 1
            self.events += len(session.values) - before

    async def close(self) -> None:
        """Write what waits, and close the journal."""
        if self._writer is not None:
            await asyncio.gather(self._writer, return_exceptions=True)
        self._thread.shutdown()
        self._journal.close()
