"""The service: a finished run behind HTTP. `pip install 'recall[serve]'`; `recall serve --run DIR`."""

from __future__ import annotations

from importlib.util import find_spec

from recall.core.errors import ConfigError

_NEEDED = {
    "fastapi": "fastapi",
    "uvicorn": "uvicorn",
    "prometheus_client": "prometheus-client",
    "structlog": "structlog",
}


def require_packages() -> None:
    """Raises ConfigError, naming the extra, where a package is missing that only the service needs."""
    if missing := [package for module, package in _NEEDED.items() if find_spec(module) is None]:
        raise ConfigError(f"serve: {', '.join(missing)} not installed; run `pip install 'recall[serve]'`")
