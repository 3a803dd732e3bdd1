"""Shows an experiment in a notebook: its data, its features, and each setting that is not at its default."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from recall.config.strict import Strict
from recall.core.html import html_table
from recall.core.tables import is_uri


def config_html(config: Strict, *, structure: str) -> str:
    """Write an experiment as an HTML table with a row per setting that is not at its default.

    Files go by their names, without folders; features by name and type.

    Args:
      config: the experiment, a `Config`.
      structure: its `model.structure`, which is shown at its default, too.
    """
    settings = config.model_dump(mode="json", exclude_defaults=True)
    features = settings.pop("features")
    rows = list(_flat(settings, ""))
    for tower in ("user", "behaviour", "meta"):
        if listed := features.pop(tower, ()):
            types = [f"{feature['name']} ({feature['type']})" for feature in listed]
            rows.append((f"features.{tower}", ", ".join(types)))
    rows += _flat(features, "features.")
    named = {"model.structure": structure} | {name: value for name, value in rows if value is not None}
    order = {section: place for place, section in enumerate(type(config).model_fields)}
    shown = sorted(named.items(), key=lambda row: order[row[0].partition(".")[0]])
    return html_table(
        "Experiment", ["setting", "value"], shown, note="Settings that are not listed have their default."
    )


def _flat(settings: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Yield dotted keys and values of nested settings."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif key == "path" and isinstance(value, str) and not is_uri(value):
            yield f"{prefix}{key}", Path(value).name
        else:
            yield f"{prefix}{key}", value
