"""Serves a finished run over HTTP: `pip install 'recall[serve]'`, then `recall serve --run DIR`.

Imports the other packages of `recall.serving`; the only home of FastAPI. Start at `app.py`, whose routes call
`service.py`; `server.py` runs them.
"""

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
