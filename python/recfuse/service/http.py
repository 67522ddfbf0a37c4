"""The edge of the service: tokens, limits, errors as JSON, numbers and logs of every request."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from recfuse.service.metrics import Metrics
from recfuse.service.options import Options

__all__ = ["Guard", "JsonLines", "error_body", "logger"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

logger = logging.getLogger("recfuse.service")
_OPEN = ("/health", "/ready", "/")  # for those without the token; the page asks for it
_LOGGED = ("event", "method", "route", "status", "ms", "error", "detail")


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


class Guard:
    """ASGI around the application: it gets whole bodies within limits, from whom may send them."""

    def __init__(
        self,
        app: App,
        service: Any,
        routes: set[str],
        ready: Mapping[str, Callable[[bytes], Awaitable[Any]]],
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
        path = scope["path"]
        route = path if path in self._routes else "other"
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            refused = self._refusal(scope, path)
            if refused is None:
                body = await self._body(scope, receive)
                if body is None:
                    return  # the client has gone
                if len(body) > self._max_body:
                    refused = (413, f"body must have at most {self._max_body} bytes")
                elif path in self._ready and scope["method"] == "POST":
                    response = await self._ready[path](body)
                    await response(scope, receive, sending)
                else:
                    await self._app(scope, _whole(body, receive), sending)
            if refused is not None:
                await _refuse(sending, *refused)
        except Exception:
            logger.exception("failed", extra={"event": "error", "route": route})
            if status == 0:
                await _refuse(sending, 500, "the service failed; its log says where")
        finally:
            seconds = time.perf_counter() - begun
            self._metrics.request(route, status or 499, seconds)
            if self._log or status >= 500:
                logger.info(
                    "request",
                    extra={
                        "event": "request",
                        "method": scope["method"],
                        "route": route,
                        "status": status or 499,
                        "ms": round(1000 * seconds, 3),
                    },
                )

    def _refusal(self, scope: Scope, path: str) -> tuple[int, str] | None:
        length = given = None
        for name, value in scope["headers"]:
            if name == b"content-length":
                length = value
            elif name == b"authorization":
                given = value
        if self._wanted is None:
            if path.startswith("/admin/"):
                return 403, "the service has no token, without which nobody may do this"
        elif path not in _OPEN and not hmac.compare_digest(given or b"", self._wanted):
            return 401, "Authorization must be Bearer and the token of the service"
        # The parser has checked that it is a number.
        if length is not None and length.isdigit() and int(length[:20]) > self._max_body:
            return 413, f"body must have at most {self._max_body} bytes"
        return None

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


async def _refuse(send: Send, status: int, message: str) -> None:
    headers = [(b"content-type", b"application/json")]
    body = error_body(message)
    headers.append((b"content-length", str(len(body)).encode()))
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if status == 413:
        headers.append((b"connection", b"close"))  # what is left of the body is not read
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
    await asyncio.sleep(0)
