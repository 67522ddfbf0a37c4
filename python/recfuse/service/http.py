"""The edge of the service: tokens, limits, errors as JSON, numbers and logs of every request."""

from __future__ import annotations

import hmac
import json
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any, NamedTuple

from recfuse.service.metrics import Metrics
from recfuse.service.options import Options

__all__ = ["Guard", "JsonLines", "Reply", "error_body", "logger"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]

logger = logging.getLogger("recfuse.service")
_OPEN = ("/health", "/ready", "/")  # for those without the token; the page asks for it
_LOGGED = ("event", "method", "route", "status", "ms", "error")


class JsonLines(logging.Formatter):
    """A line of JSON per record: what happened, without what users sent."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        for name in _LOGGED:
            if hasattr(record, name):
                fields[name] = getattr(record, name)
        if record.exc_info and record.exc_info[0] is not None:
            # Where, not with what: messages may hold what a client sent.
            fields["error"] = record.exc_info[0].__name__
            fields["at"] = _place(record.exc_info[2])
        return json.dumps(fields)


def _place(traceback: Any) -> str:
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None:
        return ""
    return f"{traceback.tb_frame.f_code.co_filename}:{traceback.tb_lineno}"


def error_body(message: str) -> bytes:
    """Return an error as JSON."""
    return json.dumps({"error": message}).encode()


class Reply(NamedTuple):
    """A whole response of JSON, and the headers that it has besides."""

    body: bytes
    status: int = 200
    more: tuple[tuple[bytes, bytes], ...] = ()

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return all headers but those of the server."""
        return [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(self.body)),
            *self.more,
        ]


class Guard:
    """ASGI around the application: it gets whole bodies within limits, from whom may send them."""

    def __init__(
        self,
        app: App,
        service: Any,
        routes: set[str],
        ready: Mapping[str, Callable[[bytes], Awaitable[Reply]]],
    ) -> None:
        options: Options = service.options
        metrics: Metrics = service.metrics
        self.service = service
        self._app, self._metrics, self._routes, self._ready = app, metrics, routes, ready
        self._max_body, self._log = options.max_body, options.log_requests
        self._wanted = None if options.token is None else f"Bearer {options.token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        path, method = scope["path"], scope["method"]
        route = path if path in self._routes else "other"
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            reply = self._refusal(path, *_told(scope["headers"]))
            if reply is None:
                body = await self._body(scope, receive)
                if body is None:
                    return  # the client has gone
                if len(body) > self._max_body:
                    reply = self._too_long()
                elif path in self._ready and method == "POST":
                    reply = await self._ready[path](body)
                else:
                    await self._app(scope, _whole(body, receive), sending)
            if reply is not None:
                await _send(sending, reply)
        except Exception:
            reply = _failure(route)
            if status == 0:
                await _send(sending, reply)
        finally:
            self._count(method, route, status or 499, begun)

    def ready_route(self, method: bytes, url: bytes, headers: Headers) -> str | None:
        """Return the route whose answer needs nothing but the body that is announced, if it is one.

        None, too, for what is refused: the long way says why.
        """
        route = url.decode("latin-1")
        if method != b"POST" or route not in self._ready:
            return None
        length, given = _told(headers)
        if length is None or self._refusal(route, length, given) is not None:
            return None
        return route

    async def answer(self, route: str, body: bytes) -> Reply:
        """Answer what `ready_route` lets pass."""
        begun = time.perf_counter()
        try:
            reply = await self._ready[route](body)
        except Exception:
            reply = _failure(route)
        self._count("POST", route, reply.status, begun)
        return reply

    def _refusal(self, path: str, length: bytes | None, given: bytes | None) -> Reply | None:
        if self._wanted is None:
            if path.startswith("/admin/"):
                return _refused(403, "the service has no token, without which nobody may do this")
        elif path not in _OPEN and not hmac.compare_digest(given or b"", self._wanted):
            message = "Authorization must be Bearer and the token of the service"
            return _refused(401, message, (b"www-authenticate", b"Bearer"))
        # The parser has checked that it is a number.
        if length is not None and length.isdigit() and int(length[:20]) > self._max_body:
            return self._too_long()
        return None

    def _too_long(self) -> Reply:
        # What is left of the body is not read.
        message = f"body must have at most {self._max_body} bytes"
        return _refused(413, message, (b"connection", b"close"))

    def _count(self, method: str, route: str, status: int, begun: float) -> None:
        seconds = time.perf_counter() - begun
        self._metrics.request(route, status, seconds)
        if self._log or status >= 500:
            logger.info(
                "request",
                extra={
                    "event": "request",
                    "method": method,
                    "route": route,
                    "status": status,
                    "ms": round(1000 * seconds, 3),
                },
            )

    async def _body(self, scope: Scope, receive: Receive) -> bytes | None:
        """Return the whole body, or the beginning of one that is too long; None without a client.

        How long a client may take over it is the server's business.
        """
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            part = message.get("body", b"")
            parts.append(part)
            size += len(part)
            if not message.get("more_body", False) or size > self._max_body:
                return b"".join(parts) if len(parts) > 1 else part


def _whole(body: bytes, receive: Receive) -> Receive:
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _told(headers: Headers) -> tuple[bytes | None, bytes | None]:
    """Return how long a body is said to be, and who is said to send it."""
    length = given = None
    for name, value in headers:
        if name == b"content-length":
            length = value
        elif name == b"authorization":
            given = value
    return length, given


def _refused(status: int, message: str, *more: tuple[bytes, bytes]) -> Reply:
    return Reply(error_body(message), status, more)


def _failure(route: str) -> Reply:
    """Log the exception of the moment, and return what a client may know of it."""
    logger.exception("failed", extra={"event": "error", "route": route})
    return _refused(500, "the service failed; its log says where")


async def _send(send: Send, reply: Reply) -> None:
    await send({"type": "http.response.start", "status": reply.status, "headers": reply.headers()})
    await send({"type": "http.response.body", "body": reply.body})
