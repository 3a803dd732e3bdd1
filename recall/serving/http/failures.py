"""Translates exceptions into the errors that clients get, and logs the service's own failures."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from pathlib import Path

import structlog
from starlette.exceptions import HTTPException

from recall.core.errors import RecallError
from recall.serving.http.problems import Kind, ServiceError

_log = structlog.get_logger("recall.serving")
_KINDS: dict[int, Kind] = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def problem_of(error: Exception, *, run: Path) -> ServiceError:
    """Translate an exception into the error that the client gets; log one that is no fault of the request.

    Args:
      error: raised by a route.
      run: the run directory; no message tells where it is.
    """
    if isinstance(error, ServiceError):
        problem = error
    elif isinstance(error, HTTPException):
        kind = _KINDS.get(error.status_code, "malformed")
        problem = ServiceError(error.status_code, kind, str(error.detail), headers=error.headers)
    elif isinstance(error, OSError):
        problem = storage_problem(error)
    else:
        problem = ServiceError(422, "invalid", without_path(str(error), run))
    if problem.kind == "storage":
        cause = error.__cause__ if isinstance(error, ServiceError) and error.__cause__ else error
        _log.error("storage failed", error=str(cause), kind=type(cause).__name__, status=problem.status)
    return problem


def storage_problem(error: OSError | RecallError) -> ServiceError:
    """Return the error for files that cannot be written or read: 507 for a full disk, 503 for all else."""
    numbers = {cause.errno for cause in _causes(error) if isinstance(cause, OSError)}
    if numbers & set(_FULL):
        message = "the service's disk is full; nothing was changed. Free some space there, then try again"
        return ServiceError(507, "storage", message)
    message = "the service cannot use its files now; nothing was changed. Its log says why; try again later"
    return ServiceError(503, "storage", message, headers={"Retry-After": "10"})


def without_path(message: str, run: Path) -> str:
    """Write `RUN` for the run directory in a message."""
    for path in {str(run.absolute()), str(run.resolve()), str(run)} - {"."}:
        message = re.sub(rf"(?<![\w./-]){re.escape(path)}(?![\w.-])", "RUN", message)
    return message


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and the errors behind it."""
    seen = set[int]()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__
