"""Small fitted models of every kind that a service takes, and clients of a service."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np

import recfuse


def als(factors: int = 4, **options: Any) -> recfuse.LabelledModel:
    model = recfuse.AlternatingLeastSquares(factors=factors, random_state=0, **options)
    return recfuse.LabelledModel(model).fit(small())


def small() -> recfuse.Interactions:
    rng = np.random.default_rng(1)
    users, items = rng.integers(0, 30, 200), rng.integers(0, 40, 200)
    return recfuse.Interactions.from_arrays([f"u{u}" for u in users], [f"i{i}" for i in items])


def fused(behaviour: dict[str, Any] | None = None) -> recfuse.LabelledModel:
    """Return a multimodal model; of vectors alone, unless told otherwise."""
    data = small()
    rng = np.random.default_rng(2)
    content = {"text": rng.standard_normal((len(data.items), 6)).astype(np.float32)}
    behaviour = behaviour or {"als": recfuse.AlternatingLeastSquares(factors=4, random_state=0)}
    weights = dict.fromkeys(behaviour, 1.0) | {"text": 0.5, "popularity": 0.25}
    model = recfuse.MultimodalRecommender(behaviour, weights=weights)
    return recfuse.LabelledModel(model).fit(data, items=content)


def with_neighbours() -> recfuse.LabelledModel:
    return fused(
        {
            "als": recfuse.AlternatingLeastSquares(factors=4, random_state=0),
            "neighbours": recfuse.ItemNeighbours(k=5),
        }
    )


def with_client(options: Any, run: Callable[[Any, Any], Awaitable[Any]]) -> Any:
    """Run `run(client, service)` against the application, without a socket."""
    import httpx

    from recfuse.service import create_app

    async def main() -> Any:
        app = create_app(options)
        await app.service.start()
        transport = httpx.ASGITransport(app)
        try:
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await run(client, app.service)
        finally:
            await app.service.close()

    return asyncio.run(main())


def ask(folder: Path, model: Any, *requests: Any, **options: Any) -> list[tuple[int, Any]]:
    """Save a model, serve it, send requests in order; return (status, body) of each."""
    from recfuse.service.options import Options

    path = folder / "model.recfuse"
    model.save(path)

    async def run(client: Any, service: Any) -> list[tuple[int, Any]]:
        answers = []
        for route, body in requests:
            if body is None:
                response = await client.get(route)
            else:
                content = body if isinstance(body, bytes) else json.dumps(body).encode()
                response = await client.post(route, content=content)
            answers.append((response.status_code, response.json()))
        return answers

    found: list[tuple[int, Any]] = with_client(Options(model=path, **options), run)
    return found
