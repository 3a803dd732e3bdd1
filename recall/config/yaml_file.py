"""Handles the text of the experiment file: YAML, overrides from the command line, paths, and error messages."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from recall.core.errors import ConfigError
from recall.core.tables import is_uri

_TYPES = ("id", "category", "tags", "number", "embedding")
_EXPECTED = {
    "tuple_type": "expected a list, e.g. [1, 2]",
    "model_type": "expected a section with keys",
    "model_attributes_type": "expected a section with keys",
    "path_type": "expected a path",
    "string_type": "expected text; quote it if it looks like a number",
    "too_short": "expected at least one entry",
}


class _UniqueKeys(yaml.SafeLoader):
    """Load YAML whose mappings hold each key once; a second `meta:` would silently replace the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.MarkedYAMLError(problem=f"{key.value} is listed twice", problem_mark=key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read the mapping in a YAML file.

    Raises:
      ConfigError: the file cannot be read, is not YAML, lists a key twice, or holds something else.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give the path of an experiment file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a mapping with `data` and `features`, found {type(content).__name__}")
    return content


def apply_override(content: dict[str, Any], override: str) -> None:
    """Set one `dotted.key=value` in place.

    The value is YAML. Numbers in the key count entries of a list from 0.

    Raises:
      ConfigError: the key leads nowhere, or the value is not YAML.
    """
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {override}: expected dotted.key=value, e.g. --set training.epochs=5")
    *parents, leaf = key.strip().split(".")
    node: Any = content
    for parent in parents:
        if isinstance(node, list) and parent.isdigit() and int(parent) < len(node):
            node = node[int(parent)]
        elif isinstance(node, dict):
            node = node.setdefault(parent, {})
        else:
            raise ConfigError(f"--set {override}: {parent} is not a section")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override}: {text!r} is not valid YAML") from error
    if isinstance(node, list) and leaf.isdigit() and int(leaf) < len(node):
        node[int(leaf)] = value
    elif isinstance(node, dict):
        node[leaf] = value
    else:
        raise ConfigError(f"--set {override}: {'.'.join(parents)} is not a section")


def resolve_paths(node: Any, folder: Path) -> None:
    """Make every `path` relative to a folder, in place; URIs stay as they are."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "path" and isinstance(value, str):
                if is_uri(value):
                    continue
                node[key] = str(folder / value)
            else:
                resolve_paths(value, folder)
    elif isinstance(node, list):
        for value in node:
            resolve_paths(value, folder)


def plain(node: Any) -> Any:
    """Turn dates back into text: YAML reads 2024-01-01 as a date, but names and paths need the text."""
    if isinstance(node, Mapping):
        return {str(key): plain(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [plain(value) for value in node]
    return str(node) if isinstance(node, datetime.date) else node


def describe(problem: Any) -> str:
    """Describe one of pydantic's errors in a line: the key as written in the file, the problem, and the value found."""
    where = _where(problem["loc"])
    found = problem["input"]
    kind = problem["type"]
    if kind == "missing":
        return f"{where}: is missing; add it"
    if kind == "extra_forbidden":
        return f"{where}: unknown key; check the spelling, or remove it"
    if kind == "union_tag_not_found":
        return f"{where}: has no type; write type: id, category, tags, number or embedding"
    if kind == "union_tag_invalid":
        return f"{where}.type: found {problem['ctx']['tag']}; expected id, category, tags, number or embedding"
    if kind == "value_error":
        shown = f", found {found!r}" if not isinstance(found, Mapping) else ""
        return f"{where}: {problem['ctx']['error']}{shown}"
    expected = _EXPECTED.get(kind) or problem["msg"][0].lower() + problem["msg"][1:]
    shown = repr(found)
    return f"{where}: {expected}, found {shown if len(shown) < 80 else type(found).__name__}"


def _where(location: tuple[int | str, ...]) -> str:
    where = ""
    for index, part in enumerate(location):
        if isinstance(part, int):
            where += f"[{part}]"
        # pydantic puts the type of a feature between its place and its key; a reader never wrote it.
        elif not (part in _TYPES and index and isinstance(location[index - 1], int)):
            where += f".{part}" if where else part
    return where or "experiment"
