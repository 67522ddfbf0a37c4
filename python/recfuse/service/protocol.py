"""HTTP on one connection: uvicorn's, with limits for slow clients and a short way for searches."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from recfuse.service.http import Guard, Reply, error_body
from recfuse.service.options import Options

__all__ = ["service_protocol"]

_MOST_HEADERS = 64 << 10  # bytes before a body
_STATUS_LINES = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode() for s in HTTPStatus}


def service_protocol(guard: Guard, options: Options) -> type[HttpToolsProtocol]:
    """Return uvicorn's protocol with an end to what one connection may take, and less to do.

    A request has to be there, headers and body, within `request_timeout` of its first byte, and a
    first one within that of the connection; a response has to be taken within that.

    Scopes, messages and their checks are half of what a request costs this thread. One that needs
    nothing but its body (`Guard.ready_route`) is answered without them; all others by uvicorn.
    """
    seconds, most = options.request_timeout, options.max_connections

    class ServiceProtocol(HttpToolsProtocol):
        cycle: Any  # of uvicorn, or a `_Ready`
        _timer: asyncio.TimerHandle | None = None
        _stuck: asyncio.TimerHandle | None = None
        _header_bytes = 0
        _in_headers = True
        _whole = False

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
            before, self._whole = self._in_headers, False
            self._feed(data)
            if self._whole:
                return
            if self._timer is None and not self.transport.is_closing():
                self._timer = self.loop.call_later(seconds, self._late)
            if before and self._in_headers:
                self._header_bytes += len(data)
                if self._header_bytes > _MOST_HEADERS and not self.transport.is_closing():
                    self._answer(431, "headers are too long")

        def _feed(self, data: bytes) -> None:
            """Parse. No connection is upgraded, and no body is lost because of the offer.

            The parser stops behind the headers of a request that offers an upgrade, as `curl
            --http2` and Java's client do. Another one then takes them without the offer.
            """
            self._unset_keepalive_if_required()
            left = memoryview(data)
            try:
                while left:
                    try:
                        self.parser.feed_data(left)
                        return
                    except httptools.HttpParserUpgrade as stopped:
                        left = left[stopped.args[0] :]
                        head = self._without_offer()
                        self.parser = type(self.parser)(self)
                        self.parser.feed_data(head)
            except (httptools.HttpParserError, httptools.HttpParserUpgrade):  # again: to CONNECT
                if not self.transport.is_closing():
                    self._answer(400, "the request must be valid HTTP/1.1")

        def _without_offer(self) -> bytes:
            line = (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
            others = [b"%b: %b\r\n" % one for one in self.headers if one[0] != b"upgrade"]
            return b"%b %b HTTP/%b\r\n%b\r\n" % (*line, b"".join(others))

        def on_message_begin(self) -> None:
            self._in_headers, self._header_bytes, self._whole = True, 0, False
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            self._in_headers, self._header_bytes = False, 0
            parser, running = self.parser, self.cycle
            if parser.should_upgrade():  # the next one will not
                return
            if (
                (running is None or running.response_complete)
                and parser.get_http_version() == "1.1"
                and parser.should_keep_alive()
                and not self.expect_100_continue
            ):
                route = guard.ready_route(parser.get_method(), self.url, self.headers)
                if route is not None:
                    self.cycle = _Ready(route)
                    return
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            if type(self.cycle) is _Ready:
                # All of it: uvicorn's stops to read until a part is asked for, and nobody asks.
                self.cycle.body += body
            else:
                super().on_body(body)

        def on_message_complete(self) -> None:
            if self.parser.should_upgrade():
                return
            self._in_headers, self._whole = True, True
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            super().on_message_complete()
            if type(self.cycle) is _Ready:
                task = self.loop.create_task(self._answer_ready(self.cycle))
                task.add_done_callback(self.tasks.discard)
                self.tasks.add(task)  # a server that ends waits for it

        async def _answer_ready(self, request: _Ready) -> None:
            reply: Reply = await guard.answer(request.route, bytes(request.body))
            if self.flow.write_paused:
                await self.flow.drain()
            if self.transport.is_closing():
                return
            parts = [_STATUS_LINES[reply.status]]
            for name, value in [*self.server_state.default_headers, *reply.headers()]:
                parts += (name, b": ", value, b"\r\n")
            if not request.keep_alive:
                parts.append(b"connection: close\r\n")
            parts += (b"\r\n", reply.body)
            self.transport.write(b"".join(parts))
            request.response_started = request.response_complete = True
            if not request.keep_alive:
                self.transport.close()
            self.on_response_complete()

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

    return ServiceProtocol


class _Ready:
    """A request on the short way, with what uvicorn's protocol asks and tells of any."""

    response_started = False
    response_complete = False
    disconnected = False
    more_body = True

    def __init__(self, route: str) -> None:
        self.route = route
        self.body = bytearray()
        self.keep_alive = True  # until the server ends
        self.message_event = self  # nobody waits for parts of it

    def set(self) -> None:
        pass
