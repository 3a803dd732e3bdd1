"""Checks the Host header: a page of another site, whose name was made to lead here, has that name in it.

Such a page (DNS rebinding) may send anything to a service that listens for its own machine alone.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable

from recall.serving.http.problems import ServiceError

LOOPBACK = ("localhost", "127.0.0.1", "::1")


def require_host(headers: Iterable[tuple[bytes, bytes]], hosts: Collection[str]) -> None:
    """Check that a request is meant for this service.

    Args:
      headers: of the request. One without Host, as HTTP/1.0 allows, comes from no browser, and passes.
      hosts: the names and addresses that requests may give, lower case, without port.

    Raises:
      ServiceError: 421, the request names another host.
    """
    for name, value in headers:
        if name == b"host" and host_name(value.decode("latin-1")) not in hosts:
            message = "Host: expected a name of this service; if it is one, start it with --set hosts=[NAME]"
            raise ServiceError(421, "wrong_host", message)


def host_name(host: str) -> str:
    """Return the name or address in a Host header: without port and brackets, lower case."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    name, colon, port = host.partition(":")
    return (name if colon and port.isdigit() else host).rstrip(".")  # an address with more colons stays as it is


def is_loopback(address: str) -> bool:
    """Tell whether an address is reached from its own machine alone."""
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback
