"""Requests made up from the OpenAPI document: none is answered with a 500."""

from __future__ import annotations

import asyncio

import hypothesis
import pytest

import service_models as models

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
pytest.importorskip("fastapi", reason="the extra serve is not installed")

from recfuse.service.options import Options  # noqa: E402


@pytest.mark.parametrize("make", [models.als, models.with_neighbours])
@pytest.mark.filterwarnings("ignore")
def test_no_request_of_the_document_fails(tmp_path, make):
    path = tmp_path / "model.recfuse"
    make().save(path)
    options = Options(model=path, token="secret", max_k=100)
    models.with_client(options, lambda client, service: attacked(client))


async def attacked(client):
    good = {"authorization": "Bearer secret"}
    document = (await client.get("/openapi.json", headers=good)).json()
    schema = schemathesis.openapi.from_dict(document)
    loop = asyncio.get_running_loop()
    asked: dict[int, int] = {}

    def send(case):
        kwargs = case.as_transport_kwargs(base_url="http://test")
        kwargs.pop("cookies", None)
        headers = {**kwargs.pop("headers", {}), **good}
        sent = asyncio.run_coroutine_threadsafe(client.request(headers=headers, **kwargs), loop)
        status = sent.result(60).status_code
        asked[status] = asked.get(status, 0) + 1
        assert status != 500, case

    def attack():
        for operation in schema.get_all_operations():
            for mode in schemathesis.GenerationMode:
                strategy = operation.ok().as_strategy(generation_mode=mode)

                @hypothesis.settings(
                    max_examples=8,
                    deadline=None,
                    derandomize=True,
                    suppress_health_check=list(hypothesis.HealthCheck),
                )
                @hypothesis.given(case=strategy)
                def hit(case):
                    send(case)

                try:
                    hit()
                except hypothesis.errors.Unsatisfiable:
                    continue  # a route without arguments has none that are wrong

    await asyncio.to_thread(attack)
    assert sum(asked.values()) > 60 and asked[200] > 5 and asked[422] > 5
