"""Reads the sweep file: which arms run the feed side by side, at which sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, PositiveInt, ValidationError

from recall.config.strict import Strict
from recall.config.yaml_file import describe, read_yaml
from recall.core.errors import ConfigError

SWEEP = Path(__file__).with_name("sweep.yaml")


class Group(Strict):
    """Arms that fill the feeds of the same communities."""

    arms: tuple[str, ...] = Field(min_length=1, description="as `recall loop --arms` takes them")
    seeds: PositiveInt = Field(default=5, description="communities")
    sizes: dict[str, Any] = Field(default={}, description="arguments of run_loop in place of its defaults")


class Sweep(Strict):
    """All groups by name."""

    groups: dict[str, Group]
    labels: dict[str, str] = Field(default={}, description="arm -> how tables and plots call it")


def load_sweep(path: Path = SWEEP) -> Sweep:
    """Read and validate a sweep file.

    Raises:
      ConfigError: says which key, what was found, and what to write.
    """
    try:
        return Sweep.model_validate(read_yaml(path))
    except ValidationError as error:
        raise ConfigError("\n  ".join([f"{path}:", *map(describe, error.errors())])) from None
