"""Names the extra of recall that brings a missing package, in one line.

The extras stand in setup.cfg. `pip install recall-towers` alone serves a finished run; what more a command needs, it
asks for here before its work begins.
"""

from __future__ import annotations

from importlib.util import find_spec

from recall.core.errors import ConfigError

_HOME = {  # module -> its package, and the extra that brings it
    "apache_beam": ("apache-beam", "train"),
    "jinja2": ("jinja2", "train"),
    "matplotlib": ("matplotlib", "train"),
    "sklearn": ("scikit-learn", "train"),
    "optuna": ("optuna", "tune"),
    "mlflow": ("mlflow-skinny", "track"),
    "sqlalchemy": ("sqlalchemy", "track"),
    "alembic": ("alembic", "track"),
    "fastapi": ("fastapi", "serve"),
    "prometheus_client": ("prometheus-client", "serve"),
    "starlette": ("starlette", "serve"),
    "structlog": ("structlog", "serve"),
    "uvicorn": ("uvicorn", "serve"),
}


def require_packages(command: str, *modules: str) -> None:
    """Check that the modules that a command imports are installed.

    Args:
      command: name of the command or step, for the message.
      modules: top-level names, all of one extra.

    Raises:
      ConfigError: some are missing; names their packages and the extra.
    """
    missing = [_HOME[module] for module in modules if find_spec(module) is None]
    if missing:
        packages = ", ".join(package for package, _ in missing)
        raise ConfigError(f"{command}: {packages} not installed; run `pip install 'recall-towers[{missing[0][1]}]'`")
