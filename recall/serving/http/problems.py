"""Defines the errors of a request and the JSON object that tells a client."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, Field
from starlette.responses import Response

Kind = Literal[
    "malformed",
    "invalid",
    "over_limit",
    "unauthorized",
    "writes_disabled",
    "not_found",
    "method_not_allowed",
    "wrong_host",
    "body_too_large",
    "storage",
    "overloaded",
    "not_ready",
    "timeout",
    "internal",
]


class ServiceError(Exception):
    """Report a request that gets no result.

    Attributes:
      status: HTTP status.
      kind: stable name, for programs.
      message: for people: expected, found, what to do.
      details: further lines, each with its place in the request if there is one.
      headers: headers of the answer.
    """

    def __init__(
        self,
        status: int,
        kind: Kind,
        message: str,
        *,
        details: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.kind, self.message = status, kind, message
        self.details, self.headers = list(details), dict(headers or {})

    def body(self) -> bytes:
        """Return the JSON of the answer; it repeats nothing of the request but names of keys."""
        content = {"error": {"type": self.kind, "message": self.message, "details": self.details}}
        # Half of a surrogate pair in a message, for which UTF-8 has no bytes, becomes its escape in JSON.
        return json.dumps(content, ensure_ascii=False).encode("utf-8", "backslashreplace")

    def response(self) -> Response:
        """Return the answer to send."""
        return Response(self.body(), status_code=self.status, headers=self.headers, media_type="application/json")


class ErrorDetail(BaseModel):
    """Name one mistake and its place."""

    location: str = Field(description="place in the request, e.g. body.users.3")
    message: str


class ErrorBody(BaseModel):
    """Say what went wrong."""

    type: Kind
    message: str
    details: list[ErrorDetail] = Field(default_factory=list)


class ErrorAnswer(BaseModel):
    """Wrap an error: the shape of every answer that is no result."""

    error: ErrorBody


def over_limit(location: str, *, limit: int, found: int, what: str) -> ServiceError:
    """Return the error for a request that asks for more than the service gives at once."""
    message = f"{location}: expected at most {limit:,} {what}, found {found:,}; ask for less, or split the request"
    place = location if location == "body" else f"body.{location}"
    return ServiceError(422, "over_limit", message, details=[{"location": place, "message": message}])


def overloaded(*, waiting: int, retry_seconds: float) -> ServiceError:
    """Return the error for a full queue: the only 503 of a service that is ready."""
    message = f"{waiting:,} queries wait for the model already; try again"
    return ServiceError(503, "overloaded", message, headers={"Retry-After": str(max(1, math.ceil(retry_seconds)))})


def invalid(errors: Sequence[Mapping[str, Any]]) -> ServiceError:
    """Return the error for pydantic's findings: places and messages, no values, which may be secret or huge."""
    details = [
        {
            "location": ".".join(["body", *(str(part)[:100] for part in error["loc"])]),
            "message": str(error["msg"]).removeprefix("Value error, ")[:200],
        }
        for error in errors[:_SHOWN]
    ]
    more = f" (and {len(errors) - 1:,} more)" if len(errors) > 1 else ""
    return ServiceError(422, "invalid", f"{details[0]['location']}: {details[0]['message']}{more}", details=details)


_SHOWN = 5
