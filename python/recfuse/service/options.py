"""What a service can be told when it starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Options"]


@dataclass(frozen=True)
class Options:
    """Limits and places of a service.

    Attributes
    ----------
    model : Path
        A model file.
    host : str
    port : int
        0 takes a free one, which the log names.
    titles : Path, optional
        CSV of item ids and titles, in this order, with a header: for the page and its search.
    journal : Path, optional
        Where feedback is kept; beside the model, with ``.journal`` after its name, by default.
    feedback : bool
        Whether feedback is taken at all.
    token : str, optional
        What clients have to send as ``Authorization: Bearer``; nobody may reload without one.
    threads : int
        Of a search; 0 takes what this process may use.
    max_wait_ms : float
        How long a request may wait for others to be searched with; not at all when nothing runs.
    max_batch, max_queue : int
        Requests of one search, and requests that may wait.
    max_body : int
        Bytes of a request.
    max_k : int
        Length of a list.
    max_ids : int
        Items of a filter, a history or a feedback.
    max_events : int
        Entries of all sessions together, which stay in memory.
    max_connections : int
    request_timeout : float
        Seconds in which a client has to send a request, and to take a response.
    shutdown_timeout : float
        Seconds that a graceful end may take.
    watch : float
        Seconds between looks at the model file for a new one; 0 does not look.
    log_requests : bool
        A line for every request, instead of those alone that went wrong.
    """

    model: Path
    host: str = "127.0.0.1"
    port: int = 8000
    titles: Path | None = None
    journal: Path | None = None
    feedback: bool = True
    token: str | None = None
    threads: int = 0
    max_wait_ms: float = 1.0
    max_batch: int = 64
    max_queue: int = 4096
    max_body: int = 1 << 20
    max_k: int = 1000
    max_ids: int = 10_000
    max_events: int = 5_000_000
    max_connections: int = 4096
    request_timeout: float = 10.0
    shutdown_timeout: float = 30.0
    watch: float = 0.0
    log_requests: bool = False

    def __post_init__(self) -> None:
        for name in (
            "max_batch",
            "max_queue",
            "max_body",
            "max_k",
            "max_ids",
            "max_events",
            "max_connections",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"serve: {name} must be at least 1; got {getattr(self, name)}")
        for name in ("max_wait_ms", "watch", "threads"):
            if not 0 <= getattr(self, name) < 1e9:
                raise ValueError(f"serve: {name} must be at least 0; got {getattr(self, name)}")
        for name in ("request_timeout", "shutdown_timeout"):
            if not 0 < getattr(self, name) < 1e9:
                raise ValueError(f"serve: {name} must be above 0; got {getattr(self, name)}")
        if not 0 <= self.port <= 65535:
            raise ValueError(f"serve: port must be in [0, 65535]; got {self.port}")
        if self.token is not None and (not self.token or not self.token.isascii()):
            raise ValueError("serve: token must be ASCII and not empty; got another one")

    @property
    def journal_path(self) -> Path:
        """Where feedback is kept."""
        return self.journal or self.model.with_name(self.model.name + ".journal")
