"""The edge of the service: limits, the token, reloads, readiness, numbers and logs."""

from __future__ import annotations

import asyncio
import functools
import gc
import json
import logging
import os
import weakref

import pytest

import service_models as models

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("httpx", reason="httpx is not installed")

from recfuse.errors import FormatError
from recfuse.service.options import Options
from recfuse.service.state import CannotLoad


@pytest.fixture
def ask(tmp_path):
    return functools.partial(models.ask, tmp_path)


def test_limits_of_bodies_lists_and_sessions(tmp_path):
    path = tmp_path / "model.recfuse"
    models.als().save(path)

    sent = 0

    async def chunks(n):
        nonlocal sent
        for _ in range(n):
            sent += 1
            yield b" " * 1000

    async def run(client, service):
        long = await client.post("/recommend", content=b" " * 5000)
        assert long.status_code == 413
        chunked = await client.post("/recommend", content=chunks(50))
        assert chunked.status_code == 413 and sent == 5  # what comes after the limit is not read
        many = await client.post("/recommend", json={"user": "u1", "exclude": ["i1"] * 11})
        assert many.status_code == 422
        for user, status in (("a", 200), ("b", 200), ("c", 503), ("a", 503)):
            body = {"user": user, "events": [{"item": "i1"}, {"item": "i2"}]}
            answer = await client.post("/feedback", json=body)
            assert answer.status_code == status
            assert answer.headers.get("retry-after") == ("60" if status == 503 else None)
        text = (await client.get("/metrics")).text
        assert "\nrecfuse_sessions 2.0\n" in text and "\nrecfuse_session_events 4.0\n" in text

    options = Options(model=path, max_body=4096, max_ids=10, max_events=4)
    models.with_client(options, run)


def test_the_token(tmp_path):
    path = tmp_path / "model.recfuse"
    models.als().save(path)

    async def run(client, service):
        wrong = (
            "Bearer other",
            "secret",
            "Bearer secre",
            "Bearer secret2",
            "Bearer ",
            "Basic secret",
        )
        for headers in ({}, *({"authorization": one} for one in wrong)):
            for route in ("/recommend", "/admin/reload", "/metrics", "/nowhere"):
                assert (await client.post(route, headers=headers)).status_code == 401
        assert (await client.get("/health")).status_code == 200
        good = {"authorization": "Bearer secret"}
        answer = await client.post("/recommend", json={"user": "u1"}, headers=good)
        assert answer.status_code == 200
        assert (await client.post("/admin/reload", headers=good)).json()["users"] == 30

    models.with_client(Options(model=path, token="secret"), run)


def test_routes_and_methods_that_do_not_exist_are_errors_like_others(tmp_path):
    path = tmp_path / "model.recfuse"
    models.als().save(path)

    async def run(client, service):
        for method, route, status, error in (
            ("GET", "/nowhere", 404, "Not Found"),
            ("GET", "/recommend", 405, "Method Not Allowed"),
            ("PUT", "/model", 405, "Method Not Allowed"),
        ):
            answer = await client.request(method, route)
            assert (answer.status_code, answer.json()) == (status, {"error": error})
            assert answer.headers["content-type"] == "application/json"
            assert ("allow" in answer.headers) == (status == 405)

    models.with_client(Options(model=path, feedback=False), run)


def test_nobody_reloads_without_a_token(ask):
    ((status, _),) = ask(models.als(), ("/admin/reload", {}))
    assert status == 403


def test_the_watch_goes_on_after_a_file_that_it_cannot_read(tmp_path, monkeypatch):
    """Whatever that raises."""
    path = tmp_path / "model.recfuse"
    models.als().save(path)

    async def run(client, service):
        opened = service._opened

        def fails():
            raise RuntimeError("no such kernel")

        monkeypatch.setattr(service, "_opened", fails)
        old = service.model
        models.als(factors=2).save(path)
        await until(lambda: 'outcome="refused"} 1.0' in service.numbers().decode())
        assert service.model is old
        monkeypatch.setattr(service, "_opened", opened)
        models.als(factors=3).save(path)
        await until(lambda: service.model is not old)

    async def until(holds):
        for _ in range(1000):
            if holds():
                return
            await asyncio.sleep(0.01)
        raise AssertionError("never")

    models.with_client(Options(model=path, feedback=False, watch=0.02), run)


def test_reload_takes_a_new_file_or_keeps_the_old(tmp_path):
    path = tmp_path / "model.recfuse"
    models.als().save(path)

    async def run(client, service):
        async def best():
            answer = await client.post("/recommend", json={"user": "u1", "k": 3})
            return [entry["item"] for entry in answer.json()["items"]]

        before = await best()
        other = models.als(factors=3, alpha=40.0)
        other.save(path)
        await service.reload()
        after = await best()
        assert after == other.recommend(["u1"], k=3)[0][0].tolist() != before
        # In one step: a mapped file that is overwritten in place ends the process.
        damaged = path.with_suffix(".new")
        damaged.write_bytes(b"no model")
        damaged.replace(path)
        with pytest.raises(CannotLoad):
            await service.reload()
        assert await best() == after and service.ready
        text = (await client.get("/metrics")).text
        for outcome in ("done", "refused"):
            assert f'recfuse_reloads_total{{outcome="{outcome}"}} 1.0' in text

    models.with_client(Options(model=path, feedback=False), run)


def test_a_replaced_model_is_given_back(tmp_path):
    """Its memory, too, when it was asked in every way and a session was shown in its rows."""
    path = tmp_path / "model.recfuse"
    models.als().save(path)

    async def run(client, service):
        async def ask_all():
            for route, body in (
                ("/recommend", {"user": user}),
                ("/recommend", {"user": user, "contributions": True}),
                ("/similar", {"item": "i1"}),
                ("/explain", {"user": user, "item": "i1"}),
                ("/feedback", {"user": user, "events": [{"item": "i1"}]}),
                ("/recommend", {"user": user}),
            ):
                assert (await client.post(route, json=body)).status_code == 200

        user = "u1"
        await ask_all()
        old = weakref.ref(service.model)
        await service.reload()
        user = "u2"
        await ask_all()
        gc.collect()
        assert old() is None

    models.with_client(Options(model=path), run)


def test_a_damaged_model_is_not_the_fault_of_who_asks(tmp_path):
    """Of a large file, damage is noticed when it is used."""
    path = tmp_path / "model.recfuse"
    models.als().save(path)

    async def run(client, service):
        def damaged(*args):
            raise FormatError(f"load: {str(path)!r} must be undamaged")

        service.model.search = damaged
        answer = await client.post("/recommend", json={"user": "u1"})
        assert answer.status_code == 500
        assert answer.json() == {"error": "the service failed; its log says where"}

    models.with_client(Options(model=path, feedback=False), run)


def test_logs_have_no_user_data(tmp_path, caplog, ask):
    from recfuse.service.http import JsonLines

    with caplog.at_level(logging.INFO):
        ask(
            models.als(),
            ("/recommend", {"user": "u1"}),
            ("/recommend", {"user": "a very private person"}),
            ("/feedback", {"user": "another private person", "events": [{"item": "i1"}]}),
            ("/items?q=private", None),
            log_requests=True,
        )
    lines = [JsonLines().format(r) for r in caplog.records if r.name == "recfuse.service"]
    told = [json.loads(line) for line in lines]
    assert not any("private" in line or "u1" in line for line in lines)
    requests = [line for line in told if line.get("event") == "request"]
    assert [(r["route"], r["status"]) for r in requests] == [
        ("/recommend", 200),
        ("/recommend", 404),
        ("/feedback", 200),
        ("/items", 200),
    ]


def test_the_document_has_every_route(ask):
    ((status, document),) = ask(models.als(), ("/openapi.json", None))
    assert status == 200
    routes = {"/recommend", "/similar", "/explain", "/fuse", "/feedback", "/health", "/ready"}
    assert routes <= set(document["paths"])
    body = document["paths"]["/recommend"]["post"]["requestBody"]["content"]["application/json"]
    assert body["schema"] == {"$ref": "#/components/schemas/RecommendRequest"}


@pytest.mark.parametrize(
    "wrong", [{"max_k": 0}, {"port": 70_000}, {"max_wait_ms": -1.0}, {"token": ""}]
)
def test_wrong_options(tmp_path, wrong):
    with pytest.raises(ValueError, match=r"^serve: "):
        Options(model=tmp_path / "m", **wrong)


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("/recommend", {"user": "u1", "exclude": None}),
        ("/recommend", {"user": "u1", "allow": None}),
        ("/fuse", {"items": None}),
        ("/explain", {"items": None, "item": "i1"}),
        ("/feedback", {"user": "u1", "events": None}),
    ],
)
def test_lists_may_be_as_long_as_is_said(ask, route, body):
    def filled(n):
        entry = {"item": "i2"} if "events" in body else "i2"
        return {name: [entry] * n if value is None else value for name, value in body.items()}

    within, beyond = ask(models.als(), (route, filled(10)), (route, filled(11)), max_ids=10)
    assert within[0] == 200 and beyond[0] == 422 and "at most 10" in beyond[1]["error"]


def test_k_may_be_as_large_as_is_said(ask):
    within, beyond = ask(
        models.als(),
        ("/recommend", {"user": "u1", "k": 7}),
        ("/recommend", {"user": "u1", "k": 8}),
        max_k=7,
    )
    assert within[0] == 200 and beyond == (422, {"error": "k must be at most 7; got 8"})


def test_feedback_of_what_the_model_does_not_know_is_refused_whole(ask):
    events = [{"item": "i1"}, {"item": "nothing"}]
    answers = ask(
        models.als(),
        ("/feedback", {"user": "new", "events": events}),
        ("/recommend", {"user": "new"}),
    )
    assert [status for status, _ in answers] == [404, 404]


@pytest.mark.parametrize("make", [models.als, models.with_neighbours])
def test_weights_have_to_name_something_and_be_something(ask, make):
    model = make()
    name = ask(model, ("/model", None))[0][1]["modalities"][0]
    told = [
        body["error"]
        for status, body in ask(
            model,
            ("/fuse", {"user": "u1", "weights": {name: 0}}),
            ("/fuse", {"user": "u1", "weights": {}}),
            ("/fuse", {"user": "u1", "weights": {name: 1, "smell": 1}}),
        )
        if status == 422
    ]
    assert told[:2] == ["weights must not all be 0"] * 2 and "got ['smell']" in told[2]


def test_a_journal_that_fails_is_told_and_makes_it_unready(tmp_path, monkeypatch):
    path = tmp_path / "model.recfuse"
    models.als().save(path)

    def full(*_):
        raise OSError(28, "No space left on device")

    async def run(client, service):
        async def statuses():
            body = {"user": "new", "events": [{"item": "i1"}]}
            found = await client.post("/feedback", json=body)
            assert found.headers.get("retry-after") == ("10" if found.status_code == 503 else None)
            known = await client.post("/recommend", json={"user": "new"})
            ready = await client.get("/ready")
            assert ready.json()["status"] == ("ready" if ready.status_code == 200 else "not ready")
            return found.status_code, known.status_code, ready.status_code

        # A disk that is full may have room later; one that loses what it has is not trusted again.
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", full)
            assert await statuses() == (503, 404, 200)
        assert await statuses() == (200, 200, 200)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            assert await statuses() == (503, 200, 503)
        assert await statuses() == (503, 200, 503)
        assert service.sessions.events == 1

    models.with_client(Options(model=path), run)


def test_a_service_that_ends_is_not_ready(tmp_path):
    path = tmp_path / "model.recfuse"
    models.als().save(path)

    async def run(client, service):
        assert (await client.get("/ready")).status_code == 200
        service.ending = True
        assert (await client.get("/ready")).status_code == 503
        assert (await client.get("/health")).status_code == 200

    models.with_client(Options(model=path, feedback=False), run)
