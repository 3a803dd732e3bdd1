"""Builds the ASGI application: its routes, its errors and its background tasks.

Routes check a request and its limits -> `batching.py` joins requests -> `service.py` answers them.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

import recall as library
from recall.core.errors import RecallError
from recall.serving.http.batching import Batcher
from recall.serving.http.bodies import BodyReader, body_of, body_schemas
from recall.serving.http.disconnects import while_connected
from recall.serving.http.docs import docs_page
from recall.serving.http.failures import problem_of
from recall.serving.http.limits import show_limits
from recall.serving.http.metrics import CONTENT_TYPE, Metrics
from recall.serving.http.middleware import GONE, Guard, Observe
from recall.serving.http.page import page, page_headers
from recall.serving.http.parts import Answered, Question, QuestionParts
from recall.serving.http.problems import ErrorAnswer, ServiceError
from recall.serving.http.reload import Reloader
from recall.serving.http.schemas import (
    AddItemsRequest,
    DeleteItemsRequest,
    HealthAnswer,
    ReadyAnswer,
    RecallAnswer,
    RecallRequest,
    SimilarRequest,
    WriteAnswer,
)
from recall.serving.http.service import Service
from recall.serving.http.settings import ServiceSettings
from recall.serving.http.snapshot import Snapshot
from recall.serving.http.work import queries_per_call

_log = structlog.get_logger("recall.serving")
_MEANINGS = {
    401: "the token is missing or wrong",
    403: "writes are off",
    413: "the body is too large",
    422: "the request is malformed, not valid, over a limit, or names what the run does not have",
    503: "the run is being loaded, too many requests wait, or files cannot be used; Retry-After says when to try again",
    504: "no answer in time",
    507: "the disk is full; nothing was changed",
}


@dataclass
class State:
    """Hold the objects that the routes of one application share."""

    settings: ServiceSettings
    bodies: BodyReader
    service: Service
    metrics: Metrics
    questions: Batcher[Question, Answered]
    writes: Batcher[Callable[[], WriteAnswer], WriteAnswer]


def create_app(
    run: Path,
    settings: ServiceSettings | None = None,
    *,
    snapshot: Snapshot | None = None,
    on_failure: Callable[[Exception], None] | None = None,
) -> FastAPI:
    """Create the service of a run.

    Args:
      run: the run directory.
      settings: default: all defaults, which allow no writes.
      snapshot: the loaded run, if it is loaded already. Else it is loaded when the application starts; /readyz says
        when this is done.
      on_failure: called with the error if the first load fails; the application will not become ready then.
    """
    settings = settings or ServiceSettings()
    metrics = Metrics()
    service = Service(metrics, rebalancing=settings.rebalancing)
    reloader = Reloader(run, service, settings=settings, metrics=metrics)
    if snapshot is not None:
        reloader.start_from(snapshot)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        questions = Batcher[Question, Answered](
            service.answer, wait_ms=settings.batch_wait_ms, batch_queries=settings.batch_queries,
            queue_queries=settings.queue_queries, threads=settings.model_threads, parts=QuestionParts(),
            metrics=metrics,
        )  # fmt: skip
        # One writer at a time, and as bounded a queue.
        writes = Batcher[Callable[[], WriteAnswer], WriteAnswer](
            lambda requests: [request() for request in requests], wait_ms=0, batch_queries=1,
            queue_queries=settings.queue_queries, threads=1,
        )  # fmt: skip
        bodies = BodyReader(settings)
        app.state.serving = State(settings, bodies, service, metrics, questions, writes)
        watching = asyncio.create_task(_load_and_watch(reloader, service, on_failure))
        yield
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        bodies.close()
        await questions.close(seconds=1)  # nobody waits any more
        await writes.close()
        service.close()

    app = FastAPI(
        title="recall", version=library.__version__, lifespan=lifespan, docs_url=None, redoc_url=None,
        redirect_slashes=False, description="Candidate recall that does not forget new content.",
    )  # fmt: skip
    app.include_router(_router)
    app.openapi = lambda: _openapi(app, settings)  # type: ignore[method-assign]
    for kind in (ServiceError, RecallError, HTTPException, OSError):
        app.add_exception_handler(kind, lambda _, error: problem_of(error, run=run).response())
    app.add_exception_handler(ClientDisconnect, lambda _, error: Response(status_code=GONE))
    app.add_middleware(Guard, timeout_seconds=settings.timeout_seconds, hosts=settings.hosts)
    app.add_middleware(Observe, metrics=metrics, paths=_paths(app))
    return app


async def _load_and_watch(reloader: Reloader, service: Service, on_failure: Callable[[Exception], None] | None) -> None:
    if not service.is_ready:
        try:
            await reloader.load()
        except Exception as error:
            reloader.note(error)
            if on_failure is not None:
                on_failure(error)
                return
    await reloader.watch()


def _openapi(app: FastAPI, settings: ServiceSettings) -> dict[str, Any]:
    if app.openapi_schema is None:
        whole = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        whole["components"]["schemas"].update(body_schemas(*_REQUESTS))
        app.openapi_schema = show_limits(whole, settings)
    return app.openapi_schema


def _paths(app: FastAPI) -> set[str]:
    own = {route.path for route in _router.routes if isinstance(route, APIRoute)}
    return own | {path for path in (app.openapi_url,) if path}


def _serving(request: Request) -> State:
    state: State = request.app.state.serving
    return state


def _answers(model: Any, *statuses: int) -> dict[int | str, dict[str, Any]]:
    errors: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorAnswer, "description": _MEANINGS[status]} for status in sorted(statuses)
    }
    return {200: {"model": model, "description": "the answer"}, **errors}


def require_writer(headers: Mapping[str, str], settings: ServiceSettings) -> None:
    """Check that a request may write.

    Args:
      headers: of the request, by lower-case name.
      settings: whether writes are on, and the token.

    Raises:
      ServiceError: 403, writes are off; 401, the token is missing or wrong.
    """
    if not settings.allow_writes:
        raise ServiceError(403, "writes_disabled", "this service takes no writes; start it with --allow-writes")
    if settings.token is None:
        return
    scheme, _, given = headers.get("authorization", "").partition(" ")
    expected = settings.token.get_secret_value().encode()
    # Compares all bytes, however early the first difference is: the time tells nothing about the token.
    if not (hmac.compare_digest(given.strip().encode("utf-8"), expected) and scheme.lower() == "bearer"):
        message = "expected the header `Authorization: Bearer TOKEN` with the token that the service was started with"
        raise ServiceError(401, "unauthorized", message, headers={"WWW-Authenticate": "Bearer"})


_router = APIRouter()
_REQUESTS = (RecallRequest, SimilarRequest, AddItemsRequest, DeleteItemsRequest)
_Serving = Annotated[State, Depends(_serving)]
_Writer = Depends(HTTPBearer(auto_error=False, description="needed where the service has a token"))


@_router.post(
    "/recall", tags=["candidates"], response_class=JSONResponse, openapi_extra=body_of(RecallRequest),
    responses=_answers(RecallAnswer, 413, 422, 503, 504),
)  # fmt: skip
async def recall(request: Request, serving: _Serving) -> Response:
    """Recall candidates for users: ids, or raw features of users whom no file knows."""
    return await _answer(request, serving, RecallRequest)


@_router.post(
    "/similar", tags=["candidates"], response_class=JSONResponse, openapi_extra=body_of(SimilarRequest),
    responses=_answers(RecallAnswer, 413, 422, 503, 504),
)  # fmt: skip
async def similar(request: Request, serving: _Serving) -> Response:
    """Recall candidates for items. An item that the index lacks is a 422 that names it."""
    return await _answer(request, serving, SimilarRequest)


async def _answer(request: Request, serving: State, model: type[Question]) -> Response:
    _ = serving.service.snapshot  # nothing queues up before there is something to ask
    question = await serving.bodies.read(request, model)
    most = queries_per_call(question, serving.settings, items=len(serving.service.snapshot.recaller.index))
    asked = serving.questions.submit(question, key=question.shared(), queries=question.queries, most=most)
    answered = await (asked if question.queries <= most else while_connected(request.receive, asked))
    return Response(answered.body(), media_type="application/json")


@_router.post(
    "/items", tags=["items"], response_class=JSONResponse, dependencies=[_Writer],
    openapi_extra=body_of(AddItemsRequest), responses=_answers(WriteAnswer, 401, 403, 413, 422, 503, 504, 507),
)  # fmt: skip
async def add_items(request: Request, serving: _Serving) -> Response:
    """Add items from their raw features; an item with a known id replaces the earlier one.

    The items are durable and can be found when the answer arrives. To repeat a request is harmless; repeat it after a
    time-out.
    """
    require_writer(request.headers, serving.settings)  # before a byte of the body is read
    _ = serving.service.snapshot
    rows = await serving.bodies.read(request, AddItemsRequest)
    write = partial(serving.service.add, rows.items)
    return JSONResponse(await serving.writes.submit(write, key=object(), queries=len(rows.items)))


@_router.delete(
    "/items", tags=["items"], response_class=JSONResponse, dependencies=[_Writer],
    openapi_extra=body_of(DeleteItemsRequest), responses=_answers(WriteAnswer, 401, 403, 413, 422, 503, 504, 507),
)  # fmt: skip
async def delete_items(request: Request, serving: _Serving) -> Response:
    """Delete items: no request that comes after the answer finds them."""
    require_writer(request.headers, serving.settings)
    _ = serving.service.snapshot
    items = await serving.bodies.read(request, DeleteItemsRequest)
    write = partial(serving.service.delete, items.ids)
    return JSONResponse(await serving.writes.submit(write, key=object(), queries=len(items.ids)))


@_router.get("/healthz", tags=["operation"], responses=_answers(HealthAnswer))
async def healthz() -> JSONResponse:
    """Tell whether the process lives: a supervisor restarts it if not."""
    return JSONResponse({"status": "ok"})


@_router.get("/readyz", tags=["operation"], responses=_answers(ReadyAnswer, 503))
async def readyz(serving: _Serving) -> JSONResponse:
    """Tell whether a version is loaded and warm: a load balancer sends requests if so."""
    snapshot = serving.service.snapshot
    background = {name: state._asdict() for name, state in serving.metrics.background.items()}
    items = len(snapshot.recaller.index)
    return JSONResponse({"status": "ready", "version": snapshot.version, "items": items, "background": background})


@_router.get("/metrics", tags=["operation"], response_class=Response, responses={200: {"content": {CONTENT_TYPE: {}}}})
async def metrics(serving: _Serving) -> Response:
    """Return the counters for Prometheus."""
    return Response(serving.metrics.text(), headers={"Content-Type": CONTENT_TYPE})


@_router.get("/", include_in_schema=False)
async def front_page() -> HTMLResponse:
    """Return the page on which a person asks for a user or an item."""
    return HTMLResponse(page(), headers=page_headers(page()))


@_router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> HTMLResponse:
    """Return the API as a page, from the OpenAPI document."""
    text = docs_page(request.app.openapi())
    return HTMLResponse(text, headers=page_headers(text))
