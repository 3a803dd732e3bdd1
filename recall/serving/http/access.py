"""Who may write."""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from recall.serving.http.problems import ServiceError
from recall.serving.http.settings import ServiceSettings


def require_writer(headers: Mapping[str, str], settings: ServiceSettings) -> None:
    """Lets a request pass that may write.

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
