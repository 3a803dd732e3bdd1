"""Reads bodies: bytes -> JSON -> the request that a route asks for; what may take long runs beside the event loop.

`json_text.py` parses, `schemas.py` says what is valid, `limits.py` how much of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.json_schema import models_json_schema
from starlette.requests import Request

from recall.core.errors import shown
from recall.serving.http.json_text import read_json
from recall.serving.http.limits import check_limits
from recall.serving.http.problems import ServiceError, invalid
from recall.serving.http.settings import ServiceSettings

Model = TypeVar("Model", bound=BaseModel)

_AT_ONCE_BYTES = 1 << 14  # a body up to here is read in less than the hop to another thread and back costs
_BODIES_IN_MEMORY = 64  # of the largest size that the settings allow
_REFERENCE = "#/components/schemas/{model}"


class BodyReader:
    """Read the bodies of requests, within the settings' limits.

    One thread reads all large bodies, one after another: JSON and its checks hold the interpreter, so that several
    would only make the event loop wait for each of them.

    Args:
      settings: the limits.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self._settings = settings
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="bodies")
        self._held_bytes = 0

    async def read(self, request: Request, model: type[Model]) -> Model:
        """Return the request in a body.

        Raises:
          ServiceError: 413, it is too large; 422, it is not what the model describes, or over a limit; 503, too many
            bodies are under way.
          starlette.requests.ClientDisconnect: the client is gone.
        """
        self._require_size(_announced_bytes(request.headers))
        body = bytearray()
        try:
            async for part in request.stream():
                self._hold(len(part))
                body += part
                self._require_size(len(body))
            _require_json(request.headers)
            if len(body) <= _AT_ONCE_BYTES:
                return read_request(bytes(body), model, settings=self._settings)
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._executor, self._read_in_thread, bytes(body), model)
        finally:
            self._held_bytes -= len(body)

    def close(self) -> None:
        """Stop the thread after the body that it reads now."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _read_in_thread(self, body: bytes, model: type[Model]) -> Model:
        return read_request(body, model, settings=self._settings)

    def _hold(self, size: int) -> None:
        if self._held_bytes + size > _BODIES_IN_MEMORY * self._settings.max_body_bytes:
            raise ServiceError(503, "overloaded", "too many large bodies are under way", headers={"Retry-After": "1"})
        self._held_bytes += size

    def _require_size(self, size: int) -> None:
        limit = self._settings.max_body_bytes
        if size > limit:
            message = f"body: expected at most {limit:,} bytes, found {size:,} or more; split the request"
            raise ServiceError(413, "body_too_large", message)


def read_request(body: bytes, model: type[Model], *, settings: ServiceSettings) -> Model:
    """Parse and validate a body.

    Raises:
      ServiceError: 422; names the first mistakes.
    """
    if not body:
        raise invalid([{"loc": (), "msg": "Field required"}])
    content = read_json(body, most_values=settings.max_values, most_entries=max(settings.max_list, settings.max_batch))
    try:
        request = model.model_validate(content)
    except ValidationError as error:
        # Lists stop at their first mistake (schemas.py), so that these are few.
        raise invalid(error.errors(include_url=False, include_context=False, include_input=False)) from None
    check_limits(request, settings)
    return request


def body_of(model: type[BaseModel]) -> dict[str, Any]:
    """Return the entry of a route's body for the OpenAPI document."""
    content = {"application/json": {"schema": {"$ref": _REFERENCE.format(model=model.__name__)}}}
    return {"requestBody": {"required": True, "content": content}}


def body_schemas(*models: type[BaseModel]) -> dict[str, Any]:
    """Return JSON schemas by name, for the OpenAPI document's components."""
    _, schemas = models_json_schema([(model, "validation") for model in models], ref_template=_REFERENCE)
    return dict(schemas["$defs"])


def _require_json(headers: Mapping[str, str]) -> None:
    """Refuse a body of another type, which a page of any other site could send without being asked for leave."""
    kind, encoding = headers.get("content-type", ""), headers.get("content-encoding", "identity")
    name = kind.partition(";")[0].strip().lower()
    if not (name.startswith("application/") and (name == "application/json" or name.endswith("+json"))):
        found = shown(ascii(kind), most=40) if kind else "none"
        raise _wrong_header(f"Content-Type: expected application/json, found {found}")
    if encoding.strip().lower() != "identity":
        raise _wrong_header(
            f"Content-Encoding: expected a body as it is, found {shown(ascii(encoding), most=40)}; send it unpacked"
        )


def _wrong_header(message: str) -> ServiceError:
    return ServiceError(422, "malformed", message, details=[{"location": "header", "message": message}])


def _announced_bytes(headers: Mapping[str, str]) -> int:
    value = headers.get("content-length", "")
    return int(value) if value.isascii() and value.isdigit() and len(value) < 20 else 0
