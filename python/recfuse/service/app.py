"""The routes of the service, and the document that describes them."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError

from recfuse.errors import RecfuseError
from recfuse.service.answers import (
    ask_of,
    check_length,
    explained,
    filters_of,
    lists_of,
    solver,
)
from recfuse.service.batching import Busy
from recfuse.service.http import Guard, Reply, error_body
from recfuse.service.options import Options
from recfuse.service.schemas import (
    Error,
    Explained,
    ExplainRequest,
    Feedback,
    FeedbackTaken,
    FuseRequest,
    Lists,
    ModelFacts,
    RecommendRequest,
    Reloaded,
    SimilarRequest,
    State,
    Titled,
)
from recfuse.service.sessions import Full
from recfuse.service.state import CannotLoad, Service

__all__ = ["create_app"]

_JSON = "application/json"
Text = Annotated[str, Query(max_length=200)]
Limit = Annotated[int, Query(ge=1, le=50)]


class ReadyRoute(APIRoute):
    """A route whose function gets a validated body and returns the bytes of the response.

    The document has what its signature says; a request costs one validation, by pydantic from
    bytes, and nothing that FastAPI would look up for it.
    """

    def answerer(self) -> Callable[[bytes], Awaitable[Reply]]:
        """Return what makes a response of a body."""
        assert self.body_field is not None
        model: type[BaseModel] = self.body_field.field_info.annotation  # type: ignore[assignment]
        validate, endpoint = model.model_validate_json, self.endpoint

        async def answer(body: bytes) -> Reply:
            try:
                return Reply(await endpoint(validate(body)))
            except Exception as error:
                return failure(error)

        return answer


def failure(error: Exception) -> Reply:
    """Return what a request gets that cannot be answered; raise what is nobody's fault."""
    later = 0
    if isinstance(
        error, RecfuseError
    ):  # of the model file, say: a ValueError, but not the client's
        raise error
    if isinstance(error, ValidationError):
        status, message = 422, _first_of(error.errors(include_url=False, include_input=False))
    elif isinstance(error, KeyError):
        status, message = 404, str(error.args[0]) if error.args else "unknown"
    elif isinstance(error, (ValueError, IndexError)):
        status, message = 422, str(error)
    elif isinstance(error, Busy):
        status, message, later = 503, "the queue is full", 1
    elif isinstance(error, Full):
        status, message, later = 503, "there is no room for feedback", 60
    elif isinstance(error, OSError):  # of the journal
        status, message, later = 503, "feedback cannot be kept", 10
    elif isinstance(error, CannotLoad):
        status, message = 409, str(error)
    else:
        raise error
    more = ((b"retry-after", b"%d" % later),) if later else ()
    return Reply(error_body(message), status, more)


def _first_of(errors: Any) -> str:
    first = errors[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else str(first["msg"])


def create_app(options: Options) -> Guard:
    """Return the service as an ASGI application; see `recfuse.service.create_app`."""
    service = Service(options)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if not service.ready:  # as it is where `recfuse serve` runs it
            await service.start()
        yield
        await service.close()

    app = FastAPI(
        title="recfuse",
        description="Exact multimodal recommendations from a model file.",
        version=_version(),
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
        responses={
            code: {"model": Error, "description": text}
            for code, text in (
                (401, "No token, or another one"),
                (413, "The body is too long"),
                (422, "A part of the request is wrong"),
                (503, "Too much waits; come again"),
            )
        },
    )
    app.state.service = service
    _add_searches(app, service)
    _add_facts(app, service)
    _add_feedback(app, service)
    _add_operations(app, service)

    @app.exception_handler(RequestValidationError)
    async def wrong(request: Request, error: RequestValidationError) -> Response:
        return Response(error_body(_first_of(error.errors())), 422, media_type=_JSON)

    async def no_route(request: Request, error: Any) -> Response:
        body = error_body(str(error.detail))
        return Response(body, error.status_code, error.headers, media_type=_JSON)

    for status in (404, 405):
        app.exception_handler(status)(no_route)

    for known in (ValueError, KeyError, CannotLoad):
        app.exception_handler(known)(_handled)
    routes = {route.path for route in app.routes if hasattr(route, "path")}
    # Routing, middleware and stacks of FastAPI take twice the time of everything else here.
    ready = {r.path: r.answerer() for r in app.routes if isinstance(r, ReadyRoute)}
    return Guard(app, service, routes, ready)


async def _handled(request: Request, error: Exception) -> Response:
    reply = failure(error)
    return Response(reply.body, reply.status, media_type=_JSON)


def _version() -> str:
    import recfuse

    return recfuse.__version__


_UNKNOWN: dict[int | str, dict[str, Any]] = {404: {"model": Error, "description": "An unknown id"}}


def _add_searches(app: FastAPI, service: Service) -> None:
    options, batcher = service.options, service.batcher

    async def searched(model: Any, ask: Any, contributions: bool) -> bytes:
        solve = solver(  # not kept: it would keep a model that a reload has replaced
            lambda asks: model.search(asks, contributions),
            lambda found, asks: lists_of(model, found, [ask.k for ask in asks], service.titles),
            service.metrics,
        )
        # Lists of different lengths are one search, as long as the longest: not too different.
        key = (id(model), contributions, ask.allow is None, ask.k.bit_length() > 7)
        found: bytes = await batcher.ask(key, solve, ask)
        return found

    post = functools.partial(_add_ready, app, responses=_UNKNOWN)

    async def recommend(body: RecommendRequest) -> bytes:
        """Recommend items to a user of the model or of a session."""
        model = service.model
        filters = filters_of(body, model, options)
        ask = ask_of(model, service.sessions, body.user, exclude_seen=body.exclude_seen, **filters)
        return await searched(model, ask, body.contributions)

    async def fuse(body: FuseRequest) -> bytes:
        """Recommend by a user, by items, or by vectors, with weights of the request."""
        model = service.model
        if body.user is None and not body.items and not body.vectors:
            raise ValueError("user, items or vectors must be given; got none of them")
        check_length(body.items, "items", options)
        ask = ask_of(
            model,
            service.sessions,
            body.user,
            body.items,
            body.vectors,
            weights=body.weights,
            exclude_seen=body.exclude_seen,
            **filters_of(body, model, options),
        )
        return await searched(model, ask, body.contributions)

    async def similar(body: SimilarRequest) -> bytes:
        """Find the items most like one."""
        model = service.model
        filters = filters_of(body, model, options)
        row = model.items.rows([body.item], "item")[0]

        k, exclude, allow = filters["k"], filters.get("exclude"), filters.get("allow")
        solve = solver(
            lambda rows: model.similar(rows, k, body.weights, exclude, allow),
            lambda found, rows: lists_of(model, found, [k] * len(rows), service.titles),
            service.metrics,
        )
        alike = body.weights is None and body.exclude is None and body.allow is None
        key = (id(model), "similar", body.k) if alike else object()
        found: bytes = await batcher.ask(key, solve, int(row))
        return found

    async def explain(body: ExplainRequest) -> bytes:
        """Say what every modality, and every item of the history, adds to a score."""
        model = service.model
        if body.user is None and not body.items:
            raise ValueError("user or items must be given; got neither")
        check_length(body.items, "items", options)
        ask = ask_of(model, service.sessions, body.user, body.items, k=1, weights=body.weights)
        item = int(model.items.rows([body.item], "item")[0])
        solve = solver(
            lambda asks: [model.explain(ask, item) for ask in asks],
            lambda found, _: [explained(model, body.item, *one) for one in found],
            service.metrics,
        )
        found: bytes = await batcher.ask(object(), solve, ask)
        return found

    post("/recommend", recommend, Lists)
    post("/fuse", fuse, Lists)
    post("/similar", similar, Lists)
    post("/explain", explain, Explained)


def _add_ready(app: FastAPI, path: str, endpoint: Any, returns: Any, **more: Any) -> None:
    app.router.add_api_route(
        path,
        endpoint,
        methods=["POST"],
        response_model=returns,
        route_class_override=ReadyRoute,
        **more,
    )


def _add_feedback(app: FastAPI, service: Service) -> None:
    if not service.options.feedback:
        return

    async def feedback(body: Feedback) -> bytes:
        """Keep what a user did. The answer comes when it is on disk, and counts from then on."""
        check_length(body.events, "events", service.options)
        known = service.model.items.row
        unknown = [event.item for event in body.events if known(event.item) is None]
        if unknown:
            raise KeyError(f"item must be known; got {unknown[0]!r:.99}")
        assert service.sessions is not None
        kept = await service.sessions.add(
            body.user, [(event.item, event.value) for event in body.events]
        )
        return b'{"kept":%d}' % kept

    _add_ready(app, "/feedback", feedback, FeedbackTaken, responses=_UNKNOWN)


def _add_facts(app: FastAPI, service: Service) -> None:
    page = Path(__file__).with_name("page.html").read_bytes()

    @app.get("/model", response_model=ModelFacts)
    async def model() -> Any:
        """Return what requests may name."""
        return {**service.model.describe(), "feedback": service.options.feedback}

    @app.get("/items", response_model=list[Titled])
    def items(q: Text = "", limit: Limit = 10) -> Any:  # not async: in a thread
        """Find items by a part of their title or id, in the order of the file."""
        found = service.model.items.matching(q, limit, service.titles)
        return [{"item": label, "title": title} for label, title in found]

    @app.get("/users", response_model=list[int | str])
    def users(q: Text = "", limit: Limit = 10) -> Any:
        """Find users by a part of their id, in the order of the file."""
        return [label for label, _ in service.model.users.matching(q, limit, {})]

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        headers = {
            "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
            "script-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; form-action 'none'",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
        }
        return Response(page, headers=headers, media_type="text/html; charset=utf-8")


def _add_operations(app: FastAPI, service: Service) -> None:
    @app.get("/health", response_model=State)
    async def health() -> Any:
        """Say that the process answers."""
        return {"status": "alive"}

    @app.get("/ready", response_model=State)
    async def ready(response: Response) -> Any:
        """Say whether requests may be sent."""
        if not service.ready:
            response.status_code = 503
            return {"status": "not ready"}
        return {"status": "ready"}

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Return numbers in Prometheus' text format."""
        return Response(service.numbers(), media_type="text/plain; version=0.0.4; charset=utf-8")

    refused: dict[int | str, dict[str, Any]] = {
        403: {"model": Error, "description": "The service has no token"},
        409: {"model": Error, "description": "The file cannot be served; the model stays"},
    }

    @app.post("/admin/reload", response_model=Reloaded, responses=refused)
    async def reload() -> Any:
        """Load the model file anew, and answer from it when it is there."""
        model = await service.reload()
        return {"users": model.users.n, "items": model.items.n}
