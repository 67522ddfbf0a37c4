"""The server: uvicorn, with limits for slow clients, and signals."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from recfuse.service.app import create_app
from recfuse.service.http import JsonLines, error_body
from recfuse.service.options import Options

__all__ = ["run"]

_MOST_HEADERS = 64 << 10  # bytes before a body


def run(options: Options) -> int:
    """Serve until a signal ends it; return the exit status."""
    # A thread that has searched wants the interpreter back soon, not after 5 ms.
    sys.setswitchinterval(0.0005)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    config = uvicorn.Config(
        create_app(options),
        host=options.host,
        port=options.port,
        http=limited_protocol(options),
        loop="auto",
        ws="none",
        lifespan="on",
        access_log=False,
        proxy_headers=False,
        log_config=None,
        server_header=False,
        date_header=True,
        timeout_keep_alive=int(max(options.request_timeout, 1)),
        timeout_graceful_shutdown=int(max(options.shutdown_timeout, 1)),
        backlog=2048,
    )
    # uvicorn ends gracefully and then sends itself the signal again, for a parent to see.
    signal.signal(signal.SIGTERM, lambda *_: None)
    server = _Server(config)
    server.run()
    return 0 if server.started else 3


class _Server(uvicorn.Server):
    """Reloads on SIGHUP."""

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if not self.started:
            return
        service = self.config.loaded_app.service
        with contextlib.suppress(NotImplementedError, ValueError):  # not in the main thread
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, service.reload_soon)


def limited_protocol(options: Options) -> type[HttpToolsProtocol]:
    """Return uvicorn's protocol with an end to what one connection may take.

    A request has to be there, headers and body, within `request_timeout` of its first byte, and a
    first one within that of the connection; a response has to be taken within that.
    """
    seconds, most = options.request_timeout, options.max_connections

    class LimitedProtocol(HttpToolsProtocol):
        _timer: asyncio.TimerHandle | None = None
        _stuck: asyncio.TimerHandle | None = None
        _header_bytes = 0
        _in_headers = True

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(self.connections) > most:
                self._answer(503, "too many connections", b"retry-after: 1\r\n")
                return
            self._timer = self.loop.call_later(seconds, self._late)

        def connection_lost(self, exc: Exception | None) -> None:
            for timer in (self._timer, self._stuck):
                if timer is not None:
                    timer.cancel()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self.transport.is_closing():
                return
            if self._timer is None:
                self._timer = self.loop.call_later(seconds, self._late)
            before = self._in_headers
            super().data_received(data)
            if before and self._in_headers:
                self._header_bytes += len(data)
                if self._header_bytes > _MOST_HEADERS and not self.transport.is_closing():
                    self._answer(431, "headers are too long")

        def on_message_begin(self) -> None:
            self._in_headers, self._header_bytes = True, 0
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            self._in_headers, self._header_bytes = False, 0
            super().on_headers_complete()

        def on_message_complete(self) -> None:
            self._in_headers = True
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            super().on_message_complete()

        def pause_writing(self) -> None:
            super().pause_writing()
            if self._stuck is None:
                self._stuck = self.loop.call_later(seconds, self._abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            if self._stuck is not None:
                self._stuck.cancel()
                self._stuck = None

        def _late(self) -> None:
            self._timer = None
            if self.transport.is_closing():
                return
            begun = self.cycle is not None and self.cycle.response_started
            if begun and not self.cycle.response_complete:
                self._abort()
            else:
                self._answer(408, "the request must be sent sooner")

        def _abort(self) -> None:
            self.transport.abort()

        def _answer(self, status: int, message: str, header: bytes = b"") -> None:
            body = error_body(message)
            self.transport.write(
                b"HTTP/1.1 %d \r\ncontent-type: application/json\r\ncontent-length: %d\r\n%b"
                b"connection: close\r\n\r\n%b" % (status, len(body), header, body)
            )
            self.transport.close()

    return LimitedProtocol
