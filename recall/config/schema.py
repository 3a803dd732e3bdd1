"""Describes the experiment file as a JSON Schema, with which editors complete keys and mark mistakes.

The schema knows what a single key may hold. What several keys make impossible together, `load_config` alone tells.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from recall.config.experiment import Config
from recall.config.strict import Strict
from recall.config.values import DURATION_SCHEMA, duration_text

SCHEMA_FILE = "experiment.schema.json"
"""Name of the schema beside an experiment file, whose first line is `MODELINE`."""
MODELINE = f"# yaml-language-server: $schema={SCHEMA_FILE}"
# What every editor knows: later drafts only add.
_DRAFT = "http://json-schema.org/draft-07/schema#"
_NOISE = ("title", "discriminator")


def experiment_schema() -> dict[str, Any]:
    """Make the JSON Schema of the experiment file.

    Short forms (`fusion: lmf`), durations (`1h`) and `auto` are valid as in the file; unknown keys are not. Defaults
    and descriptions are the settings' own. A stage's `loss` takes the keys of `model.loss`.

    Returns:
      A schema of draft 7, as plain lists and dicts.
    """
    schema = Config.model_json_schema()
    definitions: dict[str, Any] = schema.pop("$defs")
    stage_loss = definitions["StageConfig"]["properties"]["loss"]
    definitions["StageConfig"]["properties"]["loss"] = {
        "$ref": "#/$defs/LossConfig",
        "description": stage_loss["description"],
    }
    definitions = {name: _tidy(section) for name, section in definitions.items()}
    for section in _sections(Strict):
        if section.__name__ in definitions:
            definitions[section.__name__] = _with_short_forms(section, definitions[section.__name__])
    about = {"title": "recall experiment", "description": "Where the data is, what the model sees, how it is judged."}
    return {"$schema": _DRAFT, **_tidy(schema), **about, "$defs": dict(sorted(definitions.items()))}


def schema_text() -> str:
    """Write the schema of the experiment file as JSON that people can read, and that differs line by line."""
    return json.dumps(experiment_schema(), indent=1, ensure_ascii=False) + "\n"


def _sections(base: type[Strict]) -> Iterator[type[Strict]]:
    for section in base.__subclasses__():
        yield section
        yield from _sections(section)


def _with_short_forms(section: type[Strict], schema: dict[str, Any]) -> dict[str, Any]:
    """Let a section be written as one value, or as a list, where it has such a form."""
    named = (name for name in (section.short_form, section.list_form) if name)
    short = [_without_null(schema["properties"][name]) for name in named]
    if not short:
        return schema
    description = {"description": schema.pop("description")}
    return {**description, "anyOf": [*short, schema]}


def _without_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a key may hold but null: as a whole section null means that there is none."""
    kept = {key: value for key, value in schema.items() if key != "default"}
    if "anyOf" in kept:
        kept["anyOf"] = [one for one in kept["anyOf"] if one.get("type") != "null"]
    return kept


def _tidy(schema: Any) -> Any:
    """Remove what helps nobody who writes a file, and write texts and durations as a file has them."""
    if isinstance(schema, list):
        return [_tidy(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    # Below `properties` keys are names of settings.
    found: dict[str, Any] = {
        key: {name: _tidy(one) for name, one in value.items()} if key == "properties" else _tidy(value)
        for key, value in schema.items()
        if key not in _NOISE
    }
    if "description" in found:  # of a class: its first sentence, without Args and Raises
        found["description"] = " ".join(found["description"].split("\n\n")[0].split())
    if "default" in found:
        default = _written(found, found.pop("default"))
        if not isinstance(default, dict):  # a section's own defaults stand at its keys
            found["default"] = default
    return found


def _written(schema: Mapping[str, Any], value: Any) -> Any:
    """Write a default as people do: 1h for 3600000 ms."""
    if isinstance(value, list) and "items" in schema:
        return [_written(schema["items"], one) for one in value]
    is_duration = DURATION_SCHEMA[0] in schema.get("anyOf", ())
    return duration_text(value) if is_duration and type(value) is int else value
