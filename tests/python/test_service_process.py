"""The service as a process: signals, crashes, reloads under load, clients that mean no good."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

import service_models as models

pytest.importorskip("uvicorn", reason="the extra serve is not installed")
pytest.importorskip("fastapi", reason="the extra serve is not installed")


class Running:
    """A service in a process of its own, on a free port of loopback."""

    def __init__(self, path, *arguments):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "recfuse", "serve", str(path), "--port", "0", *arguments],
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self.port = 0
        up = threading.Event()

        def read():
            for line in self.process.stderr:
                self.lines.append(line)
                found = re.search(r"running on http://127.0.0.1:(\d+)", line)
                if found:
                    self.port = int(found[1])
                    up.set()
            up.set()

        self._reader = threading.Thread(target=read, daemon=True)
        self._reader.start()
        up.wait(120)
        assert self.port, "".join(self.lines)

    def connection(self, timeout=60):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def ask(self, route, body=None, connection=None, headers=None):
        mine = connection or self.connection()
        method, content = ("GET", None) if body is None else ("POST", json.dumps(body))
        mine.request(method, route, content, headers or {})
        response = mine.getresponse()
        found = response.status, response.read()
        if connection is None:
            mine.close()
        return found

    def end(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        code = self.process.wait(120)
        self._reader.join(60)
        self.process.stderr.close()
        return code


@pytest.fixture
def start(tmp_path):
    path = tmp_path / "model.recfuse"
    models.als().save(path)
    begun = []

    def begin(*arguments):
        begun.append(Running(path, *arguments))
        return begun[-1]

    yield begin
    for service in begun:
        if not service.process.stderr.closed:
            service.end(signal.SIGKILL)


def test_kill_under_load_loses_nothing_acknowledged(start):
    service = start()
    acknowledged: list[tuple[str, str]] = []
    stop = threading.Event()

    def client(number):
        connection = service.connection()
        with contextlib.suppress(OSError, http.client.HTTPException):
            for i in range(100_000):
                if stop.is_set():
                    return
                user, item = f"new {number}.{i // 10}", f"i{i % 40}"
                body = {"user": user, "events": [{"item": item, "value": 1 + i % 3}]}
                status, _ = service.ask("/feedback", body, connection)
                if status == 200:
                    acknowledged.append((user, item))

    clients = [threading.Thread(target=client, args=(n,)) for n in range(4)]
    for one in clients:
        one.start()
    until = time.monotonic() + 60
    while len(acknowledged) < 300 and time.monotonic() < until:
        time.sleep(0.01)
    service.end(signal.SIGKILL)
    stop.set()
    for one in clients:
        one.join(60)
    assert len(acknowledged) >= 300
    again = start()
    connection = again.connection()
    of_user: dict[str, set[str]] = {}
    for user, item in acknowledged:
        of_user.setdefault(user, set()).add(item)
    for user, items in of_user.items():
        status, body = again.ask("/recommend", {"user": user, "k": 40}, connection)
        assert status == 200
        # What a session has is left out, so every item that is listed was lost.
        assert not items & {entry["item"] for entry in json.loads(body)["items"]}
    connection.close()


def test_reload_under_load_drops_no_request(start, tmp_path):
    service = start("--token-file", str(token_in(tmp_path)))
    headers = {"Authorization": "Bearer secret"}
    answers: list[int] = []
    failures: list[str] = []
    lists: set[bytes] = set()
    stop = threading.Event()

    def client():
        connection = service.connection()
        try:
            while not stop.is_set():
                body = {"user": "u1", "k": 5}
                status, body = service.ask("/recommend", body, connection, headers)
                answers.append(status)
                lists.add(body)
        except Exception as error:
            failures.append(repr(error))
        connection.close()

    clients = [threading.Thread(target=client) for _ in range(4)]
    for one in clients:
        one.start()
    for n in range(4):
        models.als(factors=2 + n, alpha=3.0).save(tmp_path / "model.recfuse")
        if n % 2:
            assert service.ask("/admin/reload", {}, headers=headers)[0] == 200
        else:
            before = len(reloads(service))
            service.process.send_signal(signal.SIGHUP)
            until = time.monotonic() + 60
            while len(reloads(service)) == before and time.monotonic() < until:
                time.sleep(0.02)
            assert len(reloads(service)) == before + 1
    stop.set()
    for one in clients:
        one.join(60)
    assert not failures and set(answers) == {200}
    assert len(lists) > 1
    assert service.end() == 0


def reloads(service):
    return [line for line in service.lines if '"model reloaded"' in line]


def token_in(folder):
    path = folder / "token"
    path.write_text("secret\n")
    return path


def test_a_new_file_is_seen(start, tmp_path):
    service = start("--watch", "0.1")
    before = service.ask("/recommend", {"user": "u1", "k": 3})
    models.als(factors=2, alpha=9.0).save(tmp_path / "model.recfuse")
    until = time.monotonic() + 60
    while not reloads(service) and time.monotonic() < until:
        time.sleep(0.02)
    assert service.ask("/recommend", {"user": "u1", "k": 3}) != before


def test_sigterm_answers_what_waits(start):
    """Requests that the service has taken are answered; it ends after that, with status 0."""
    service = start("--max-wait-ms", "2000")
    connections = [service.connection() for _ in range(13)]
    for one in connections:
        one.request("POST", "/recommend", json.dumps({"user": "u2", "k": 9}))
    assert connections[0].getresponse().status == 200  # the first is searched at once
    time.sleep(0.2)  # the others wait for two seconds, for as many as were there before
    service.process.send_signal(signal.SIGTERM)
    assert [one.getresponse().status for one in connections[1:]] == [200] * 12
    assert service.process.wait(120) == 0
    for one in connections:
        one.close()
    with pytest.raises(OSError):
        service.ask("/health")


def test_bad_clients_leave_it_serving(start):
    service = start("--request-timeout", "1", "--max-body", "10000", "--max-connections", "40")

    def raw(data, wait=30.0):
        with socket.create_connection(("127.0.0.1", service.port), wait) as client:
            client.sendall(data)
            found = b""
            with contextlib.suppress(ConnectionResetError):
                while part := client.recv(1 << 16):
                    found += part
            return found

    head = b"POST /recommend HTTP/1.1\r\nhost: a\r\n"
    assert b" 408 " in raw(b"")
    assert b" 408 " in raw(head)
    assert b" 408 " in raw(head + b"content-length: 50\r\n\r\n{")
    assert b" 408 " in raw(head + b"transfer-encoding: chunked\r\n\r\n5\r\n{")
    assert b" 400 " in raw(b"\x16\x03\x01 nonsense \r\n\r\n")
    assert b" 400 " in raw(head + b"content-length: -5\r\n\r\n")
    assert b" 413 " in raw(head + b"content-length: 999999999\r\n\r\n")
    chunk = b"1000\r\n" + b" " * 4096 + b"\r\n"
    assert b" 413 " in raw(head + b"transfer-encoding: chunked\r\n\r\n" + chunk * 5)
    long = b"".join(b"x-%d: %s\r\n" % (i, b"a" * 1000) for i in range(200))
    answer = send_slowly(service.port, head + long)
    assert b" 431 " in answer or answer == b""
    # One byte now and then: the end comes although the client is never silent for long.
    begun = time.monotonic()
    assert b" 408 " in dripped(service.port, head + b"x: " + b"a" * 10_000, 0.1)
    assert time.monotonic() - begun < 60
    idle = [socket.create_connection(("127.0.0.1", service.port), 30) for _ in range(60)]
    refused = 0
    for one in idle[45:]:
        with contextlib.suppress(ConnectionResetError):
            refused += b" 503 " in one.recv(1000)
    for one in idle:
        one.close()
    assert refused > 0
    until = time.monotonic() + 30
    while time.monotonic() < until:
        with contextlib.suppress(AssertionError, OSError):
            assert service.ask("/recommend", {"user": "u1", "k": 2})[0] == 200
            break
        time.sleep(0.1)
    else:
        pytest.fail("it does not serve any more")
    assert not [line for line in service.lines if '"error"' in line]
    assert service.end() == 0


def send_slowly(port, data):
    with socket.create_connection(("127.0.0.1", port), 30) as client:
        found = b""
        with contextlib.suppress(OSError):
            for begin in range(0, len(data), 20_000):
                client.sendall(data[begin : begin + 20_000])
                time.sleep(0.01)
            while part := client.recv(1 << 16):
                found += part
        return found


def dripped(port, data, pause):
    with socket.create_connection(("127.0.0.1", port), pause) as client:
        for byte in data:
            with contextlib.suppress(OSError):
                client.sendall(bytes([byte]))
            with contextlib.suppress(TimeoutError):
                return client.recv(1000)
    return b""


def test_two_processes_do_not_share_a_journal(start, tmp_path):
    start()
    assert "another process has" in refused(tmp_path / "model.recfuse", "--port", "0")


def refused(path, *arguments):
    """Return the line that a service which cannot begin ends with."""
    done = subprocess.run(
        [sys.executable, "-m", "recfuse", "serve", str(path), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    *log, last = done.stderr.splitlines()
    assert all(json.loads(line)["level"] == "info" for line in log)  # no traceback
    assert last.startswith("recfuse serve: ")
    return last


def test_a_service_that_cannot_begin_says_why_in_a_line(start, tmp_path):
    port = ("--port", "0")
    missing, text = tmp_path / "none.recfuse", tmp_path / "text.recfuse"
    text.write_text("no model\n")
    assert refused(missing, *port).endswith(f"No such file or directory: '{missing}'")
    assert f"{text} must be a recfuse file; got bytes" in refused(text, *port)
    assert "Is a directory" in refused(tmp_path, *port)
    titles = refused(text, *port, "--titles", str(missing))
    assert titles.endswith(f"No such file or directory: '{missing}'")
    used = start().port
    # Before the model is opened, which may take long.
    assert refused(missing, "--port", str(used)) == (
        "recfuse serve: serve: host and port must be free to listen on; "
        f"got 127.0.0.1:{used}: Address already in use"
    )
    nowhere = refused(text, *port, "--host", "nowhere.invalid")
    assert "must be free to listen on; got nowhere.invalid:0: " in nowhere
