"""The service on a socket: the short way of the protocol says what the long one says."""

from __future__ import annotations

import asyncio
import gc
import json
import socket

import pytest

import service_models as models

pytest.importorskip("uvicorn", reason="the extra serve is not installed")
pytest.importorskip("uvloop", reason="the extra serve is not installed")
pytest.importorskip("fastapi", reason="the extra serve is not installed")

import uvicorn
import uvloop
from uvicorn.server import ServerState

from recfuse.service import create_app
from recfuse.service.options import Options
from recfuse.service.protocol import service_protocol


@pytest.fixture
def on_socket(tmp_path):
    """Serve a model on loopback; call `run(connect, guard, state)`; check what the server keeps."""

    def serve(run, **options):
        path = tmp_path / "model.recfuse"
        models.als().save(path)
        chosen = Options(model=path, feedback=False, **options)

        async def main():
            guard = create_app(chosen)
            await guard.service.start()
            config = uvicorn.Config(
                guard, lifespan="off", ws="none", log_config=None, timeout_keep_alive=3600
            )
            config.load()
            state = ServerState()
            state.default_headers = [(b"date", b"today")]
            made = service_protocol(guard, chosen)
            server = await asyncio.get_running_loop().create_server(
                lambda: made(config=config, server_state=state, app_state={}), "127.0.0.1", 0
            )
            port = server.sockets[0].getsockname()[1]

            async def connect():
                return await asyncio.open_connection("127.0.0.1", port)

            try:
                return await asyncio.wait_for(run(connect, guard, state), 60)
            finally:
                server.close()
                await guard.service.close()

        # The loop that serves, which is stricter than asyncio's about transports that have gone.
        loop, problems = uvloop.new_event_loop(), []
        loop.set_exception_handler(lambda _, context: problems.append(context))
        try:
            found = loop.run_until_complete(main())
            gc.collect()
        finally:
            loop.close()
        assert not problems
        return found

    return serve


def post(route, body, *headers, length=True, version="1.1"):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"POST {route} HTTP/{version}", "host: here", *headers]
    if length:
        lines.append(f"content-length: {len(content)}")
    else:
        lines.append("transfer-encoding: chunked")
        chunk = b"%x\r\n%b\r\n" % (len(content), content) if content else b""
        content = chunk + b"0\r\n\r\n"
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


async def response(reader):
    """Return status, headers and body of the next response."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in head[1:-2])
    body = await reader.readexactly(int(headers["content-length"]))
    return int(head[0].split()[1]), headers, body


def counted(guard):
    """Count what goes the short way."""
    ways = []
    answer = guard.answer

    async def counting(route, body):
        ways.append(route)
        return await answer(route, body)

    guard.answer = counting
    return ways


GOOD = {"user": "u1", "k": 3}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (GOOD, 200),
        ({"user": "nobody"}, 404),
        ({"user": "u1", "k": 0}, 422),
        (b"{", 422),
        (b"", 422),
        ({"user": "u1", "k": 7}, 500),
    ],
)
def test_both_ways_answer_alike(on_socket, body, status):
    async def run(connect, guard, state):
        search, ways = guard.service.model.search, counted(guard)

        def failing(asks, contributions):
            if any(ask.k == 7 for ask in asks):
                raise RuntimeError("a bug")
            return search(asks, contributions)

        guard.service.model.search = failing
        reader, writer = await connect()
        answers = []
        # What is not as plain as can be goes the long way.
        for request, short in (
            (post("/recommend", body), True),
            (post("/recommend", body, length=False), False),
            (post("/recommend?", body), False),
            (post("/recommend", body), True),
        ):
            before = len(ways)
            writer.write(request)
            answers.append(await response(reader))
            assert len(ways) - before == short
        assert {answer[0] for answer in answers} == {status}
        assert all(answer[1:] == answers[0][1:] for answer in answers)
        assert answers[0][1]["content-type"] == "application/json"
        assert answers[0][1]["date"] == "today"
        text = guard.service.numbers().decode()
        line = f'recfuse_requests_total{{route="/recommend",status="{status}"}} 4.0'
        assert line in text
        assert state.total_requests == 4 and not state.tasks
        writer.close()

    on_socket(run)


def test_requests_in_one_packet_are_answered_in_order(on_socket):
    async def run(connect, guard, state):
        counted(guard)
        reader, writer = await connect()
        sizes = [1, 2, 3, 4, 5]
        get = b"GET /health HTTP/1.1\r\nhost: here\r\n\r\n"
        packet = b"".join(post("/recommend", {"user": "u1", "k": k}) + get for k in sizes)
        writer.write(packet)
        for k in sizes:
            assert len(json.loads((await response(reader))[2])["items"]) == k
            assert json.loads((await response(reader))[2]) == {"status": "alive"}
        # Byte by byte, too.
        for byte in post("/recommend", {"user": "u1", "k": 2}):
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        assert len(json.loads((await response(reader))[2])["items"]) == 2
        writer.close()

    on_socket(run)


def test_connections_end_as_asked(on_socket):
    async def run(connect, guard, state):
        ways = counted(guard)
        for request in (
            post("/recommend", GOOD, "connection: close"),
            post("/recommend", GOOD, version="1.0"),
            post("/recommend", GOOD, "connection: keep-alive", version="1.0"),
        ):
            reader, writer = await connect()
            writer.write(request)
            status, headers, _ = await response(reader)
            assert (status, headers["connection"]) == (200, "close")
            assert await reader.read() == b""
            writer.close()
        assert not ways
        # A server that ends lets a request that it has be answered, and closes then.
        release = asyncio.Event()
        answer = guard.answer

        async def slow(route, body):
            await release.wait()
            return await answer(route, body)

        guard.answer = slow
        reader, writer = await connect()
        writer.write(post("/recommend", GOOD))
        while not state.tasks:
            await asyncio.sleep(0.01)
        for connection in list(state.connections):
            connection.shutdown()
        release.set()
        status, headers, _ = await response(reader)
        assert (status, headers["connection"]) == (200, "close")
        assert await reader.read() == b"" and ways == ["/recommend"]
        writer.close()

    on_socket(run)


def test_clients_that_leave_are_forgotten(on_socket):
    async def run(connect, guard, state):
        release = asyncio.Event()
        answer = guard.answer

        async def slow(route, body):
            await release.wait()
            return await answer(route, body)

        guard.answer = slow
        for reset in (False, True):
            release.clear()
            _, writer = await connect()
            writer.write(post("/recommend", GOOD))
            while not state.tasks:
                await asyncio.sleep(0.01)
            (connection,) = state.connections
            if reset:
                connection.transport.abort()
            writer.close()
            while state.connections:
                await asyncio.sleep(0.01)
            release.set()
            while state.tasks:
                await asyncio.sleep(0.01)
        reader, writer = await connect()
        writer.write(post("/recommend", GOOD))
        assert (await response(reader))[0] == 200
        writer.close()

    on_socket(run)


def test_who_reads_nothing_is_waited_for_and_then_left(on_socket):
    """Answers are not heaped up for a client that sends and does not read."""

    async def run(connect, guard, state):
        ways = counted(guard)
        _, writer = await connect()
        writer.transport.pause_reading()
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        while not state.connections:
            await asyncio.sleep(0.01)
        (connection,) = state.connections
        held = connection.transport.get_extra_info("socket")
        held.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        asked = post("/recommend", {"user": "u1", "k": 40, "exclude_seen": False})
        while not connection.flow.write_paused:
            before = state.total_requests
            writer.write(asked)
            while state.total_requests == before:
                await asyncio.sleep(0)
        # The next is answered, but not written, until the time is up.
        before = state.total_requests
        writer.write(asked)
        while len(ways) == before:
            await asyncio.sleep(0.01)
        while state.connections:
            assert state.total_requests == before
            await asyncio.sleep(0.01)
        while state.tasks:
            await asyncio.sleep(0.01)
        writer.close()

    on_socket(run, request_timeout=0.5)


def test_what_is_refused_goes_the_long_way(on_socket):
    async def run(connect, guard, state):
        ways = counted(guard)
        token = "authorization: Bearer secret"
        for request, status in (
            (post("/recommend", GOOD), 401),
            (post("/recommend", GOOD, "authorization: Bearer secret2"), 401),
            (post("/recommend", GOOD, "authorization: Bearer secre"), 401),
            (post("/recommend", b" " * 65, token), 413),
            (post("/recommend", b" " * 65, token, length=False), 413),
            (post("/recommend", json.dumps(GOOD).encode().ljust(64), token), 200),
            (post("/recommend", json.dumps(GOOD).encode().ljust(64), token, length=False), 200),
            (post("/recommend", GOOD, token, "expect: 100-continue"), 100),
        ):
            reader, writer = await connect()
            writer.write(request)
            if status == 100:
                assert b" 100 " in await reader.readuntil(b"\r\n\r\n")
                status = 200
            assert (await response(reader))[0] == status
            writer.close()
        assert ways == ["/recommend"]

    on_socket(run, token="secret", max_body=64)


@pytest.mark.parametrize("size", [1 << 10, 1 << 17, 1 << 20])
@pytest.mark.parametrize("length", [True, False])
def test_long_bodies_are_read_to_their_end(on_socket, size, length):
    """uvicorn's protocol stops to read after 64 KiB, until somebody asks for more."""

    async def run(connect, guard, state):
        ways = counted(guard)
        reader, writer = await connect()
        for _ in range(2):
            writer.write(post("/recommend", json.dumps(GOOD).encode().ljust(size), length=length))
            assert (await response(reader))[0] == 200
        assert len(ways) == (2 if length else 0)
        writer.close()

    on_socket(run, request_timeout=2)


OFFER = ("connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAMAAABk")


@pytest.mark.parametrize("length", [True, False])
def test_who_offers_an_upgrade_is_answered_as_anybody(on_socket, length):
    """Java's client and `curl --http2` do. Bodies behind such headers used to be lost."""

    async def run(connect, guard, state):
        reader, writer = await connect()
        asked = post("/recommend", GOOD, *OFFER, length=length)
        plain = post("/recommend", GOOD, length=length)
        get = b"GET /health HTTP/1.1\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
        writer.write(plain)
        want = await response(reader)
        writer.write(asked + get + plain + asked)
        assert want[0] == 200 and await response(reader) == want
        assert (await response(reader))[::2] == (200, b'{"status":"alive"}')
        assert await response(reader) == want and await response(reader) == want
        for cut in (10, 60, len(asked) - 40, len(asked) - 3):
            writer.write(asked[:cut])
            await asyncio.sleep(0.01)
            writer.write(asked[cut:])
            assert await response(reader) == want
        for byte in asked:
            writer.write(bytes([byte]))
            await asyncio.sleep(0)
        assert await response(reader) == want
        assert state.total_requests == 10 and not state.tasks
        writer.close()

    on_socket(run)


@pytest.mark.parametrize(
    "what", [b"CONNECT here:80 HTTP/1.1\r\nhost: here\r\n\r\n", b"\x16\x03\x01\r\n"]
)
def test_what_is_no_request_is_told(on_socket, what):
    async def run(connect, guard, state):
        reader, writer = await connect()
        writer.write(what)
        status, headers, body = await response(reader)
        assert (status, headers["connection"]) == (400, "close")
        assert json.loads(body) == {"error": "the request must be valid HTTP/1.1"}
        assert await reader.read() == b""
        writer.close()

    on_socket(run)
