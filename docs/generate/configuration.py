"""Makes the pages of the configuration from the settings' own types, defaults and descriptions (`recall.config`).

One page a section of the experiment file. A key has an anchor of its dotted name, `data.events.time_unit`, to which
`link_keys` leads wherever a page names the key.
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from recall.config import values
from recall.config.experiment import Config
from recall.config.features import Feature
from recall.config.tunable import Between, OneOf, Tunable
from recall.config.values import duration_text

_BOUNDS = {"gt": "> {}", "ge": "≥ {}", "lt": "< {}", "le": "≤ {}", "min_length": "at least {} entries"}
_NAMES = {str: "text", int: "whole number", float: "number", bool: "true or false", Any: "anything"}
_NAMED = {  # annotations that say more than their parts
    values.DurationMs: "duration, e.g. 30m, 1h or 7d",
    values.Refresh: "auto, none or a duration, e.g. 1h",
    values.AutoOrNumber: "auto or number",
    values.Decay: "auto, null or a number between 0 and 1",
    values.TimeZone: "name of a time zone",
    values.LocalPath: "path",
    values.HistoryName: "name",
}


@dataclass(frozen=True)
class Key:
    """Describe a key of the experiment file.

    Attributes:
      name: dotted, e.g. `data.events.path`; entries of a list have `[]` behind the list.
      field: pydantic's description.
      annotation: its type, with the metadata that pydantic takes apart.
      sections: classes of settings below the key, with their names in the file; empty for a leaf.
    """

    name: str
    field: FieldInfo
    annotation: Any
    sections: tuple[tuple[str, type[BaseModel]], ...]

    @property
    def anchor(self) -> str:
        """Return the anchor on the page of the section."""
        return self.name.replace("[]", "").replace(".*", "")


def sections() -> list[str]:
    """List the sections of the experiment file, in order; `seed` is no section."""
    return [name for name, field in Config.model_fields.items() if _models(field.annotation)]


def keys_of(model: type[BaseModel], prefix: str) -> list[Key]:
    """List the keys of a class of settings."""
    hints = typing.get_type_hints(model, include_extras=True)
    found = []
    for name, field in model.model_fields.items():
        dotted = f"{prefix}.{name}" if prefix else name
        found.append(Key(dotted, field, hints[name], tuple(_below(dotted, hints[name]))))
    return found


def all_keys() -> dict[str, str]:
    """Map every dotted key, without `[]`, to `PAGE#ANCHOR`; keys of features also by the features' place."""
    found = {"seed": "configuration/index.md#seed"}
    for section in sections():
        page = page_of(section)
        found[section] = page
        for key in _walk(section):
            found.setdefault(key.anchor, f"{page}#{key.anchor}")
            if section == "features" and key.name.startswith("features.meta."):
                for tower in ("user", "behaviour"):
                    found.setdefault(key.anchor.replace(".meta.", f".{tower}."), f"{page}#{key.anchor}")
    return found


def pages(examples: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Write a page for each section.

    Args:
      examples: the content of experiment files, by file name.

    Returns:
      Markdown by the path of the page below pages/.
    """
    return {page_of(section): _page(section, examples) for section in sections()}


def page_of(section: str) -> str:
    """Return the path of the page of a section; index.md is the overview of all."""
    return f"configuration/{'search' if section == 'index' else section}.md"


def link_keys(markdown: str, page: str) -> str:
    """Turn `code` that names a key, such as `model.dim` or `model.dim: 64`, into a link to the key's place.

    Fenced and indented blocks, headings and links stay as they are.
    """
    keys, root = all_keys(), "../" * page.count("/")

    def linked(match: re.Match[str]) -> str:
        if match["link"]:
            return match[0]
        name = match["key"].replace("[]", "")
        if "." not in name or name not in keys:
            return match[0]
        target, _, anchor = keys[name].partition("#")
        same = target == page
        return f"[{match[0]}]({'' if same else root + target}{f'#{anchor}' if anchor else ''})"

    pattern = re.compile(
        r"(?P<link>\[[^\]]*\]\([^)]*\)|``.*?``)|`(?P<key>[a-z_]+(?:\.[a-z_]+(?:\[\])?)+)(?::[^`\n]*)?`"
    )
    lines, fenced = [], False
    for line in markdown.split("\n"):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        is_text = not fenced and not line.startswith(("     ", "#"))
        lines.append(pattern.sub(linked, line) if is_text else line)
    return "\n".join(lines)


def _walk(section: str) -> Iterator[Key]:
    """Yield all keys of a section, each before those below it."""
    field = Config.model_fields[section]
    todo = [(section, model) for model in _models(field.annotation)]
    while todo:
        name, model = todo.pop(0)
        for key in keys_of(model, name):
            yield key
            todo += key.sections


def _page(section: str, examples: Mapping[str, Mapping[str, Any]]) -> str:
    model = _models(Config.model_fields[section].annotation)[0]
    lines = [f"# {section}", "", _prose(model), ""]
    if shown := _example(section, examples):
        lines += shown
    lines += _keys(section, model)
    todo = [below for key in keys_of(model, section) for below in key.sections]
    shown: set[type[BaseModel]] = set()
    while todo:
        name, below = todo.pop(0)
        if below in shown and section == "features":  # the types of features, which all towers have
            continue
        shown.add(below)
        heading, anchor = _heading(name, below)
        lines += [f"## {heading} {{ #{anchor} }}", "", _prose(below), "", *_short_forms(below)]
        lines += _keys(name, below)
        todo = [deeper for key in keys_of(below, name) for deeper in key.sections] + todo
    return "\n".join(lines)


def _short_forms(model: type[BaseModel]) -> list[str]:
    """Say which key a value or a list alone stands for."""
    forms = [("A value", getattr(model, "short_form", "")), ("A list", getattr(model, "list_form", ""))]
    lines = [f"{what} in the place of the section stands for `{key}` alone." for what, key in forms if key]
    return [*lines, ""] if lines else []


def _heading(name: str, model: type[BaseModel]) -> tuple[str, str]:
    if "type" in model.model_fields and name.startswith("features."):
        kind = typing.get_args(model.model_fields["type"].annotation)[0]
        return f"Features of type `{kind}`", f"type-{kind}"
    return f"`{name}`", f"section.{name.replace('[]', '')}"


def _keys(prefix: str, model: type[BaseModel]) -> list[str]:
    lines = []
    kinds = [name for name, kind in _below(prefix, Feature) if kind is model]
    for key in sorted(keys_of(model, prefix), key=lambda key: kinds != [] and not key.name.endswith(".type")):
        # The five types of features have keys in common; the first one has the anchor.
        own = "" if kinds and not _is_first(key, model) else f' id="{key.anchor}"'
        label = f'<code class="name">{key.name.rpartition(".")[2]}</code>'
        lines += [f'<div class="key"{own} markdown>', f"{label} {_type_line(key)}", ""]
        described = f"{_description(key)} {_tried(key)}".strip()
        if key.sections:
            described = f"{described} {_pointers(key)}".strip()
        lines += [described, "", "</div>", ""]
    return lines


def _is_first(key: Key, model: type[BaseModel]) -> bool:
    """Tell whether the first type of features that has the key is the one at hand."""
    name = key.name.rpartition(".")[2]
    return next(kind for _, kind in _below("", Feature) if name in kind.model_fields) is model


def _type_line(key: Key) -> str:
    kind = _type_text(key.annotation)
    if kind in _NAMES.values():
        kind = ", ".join([kind, *_bounds(key.field)])
    if key.field.is_required():
        return f"<span>{kind} · required</span>"
    default = key.field.get_default(call_default_factory=True)
    if isinstance(default, BaseModel):
        return f"<span>{kind}</span>"
    if default is None:
        return f"<span>{kind} · optional</span>"
    return f"<span>{kind} · default <code>{_escaped(_value_text(default, key.annotation))}</code></span>"


def _tried(key: Key) -> str:
    """Say what `recall tune` tries where nobody names the key in a search space of their own."""
    marks = typing.get_args(key.annotation)[1:] if typing.get_origin(key.annotation) is typing.Annotated else ()
    mark = next((mark for mark in marks if isinstance(mark, Tunable) and mark.by_default), None)
    if isinstance(mark, Between):
        return f"*Tuned between {mark.low} and {mark.high}.*"
    if isinstance(mark, OneOf):
        return f"*Tuned among {', '.join(_escaped(_written(value)) for value in mark.values)}.*"
    return ""


def _description(key: Key) -> str:
    text = (key.field.description or "").strip()
    if not text:
        return ""
    if re.match(r"a |[a-z][a-z-]", text) and not re.match(r"\w+[_.]\w", text):  # a word, and no formula or name
        text = text[0].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _pointers(key: Key) -> str:
    links = []
    for name, model in dict.fromkeys(key.sections):
        heading, anchor = _heading(name, model)
        links.append(f"[{heading if heading.startswith('`') else heading.rpartition(' ')[2]}](#{anchor})")
    return f"Its keys: {', '.join(links)}."


def _prose(model: type[BaseModel]) -> str:
    """Return the docstring of a class without its sections, in the voice of a page."""
    text = inspect.getdoc(model) or ""
    return re.split(r"^(?:Raises|Args|Attributes|Example):$", text, flags=re.MULTILINE)[0].strip()


def _example(section: str, examples: Mapping[str, Mapping[str, Any]]) -> list[str]:
    found = {name: content[section] for name, content in examples.items() if section in content}
    if not found:
        return []
    name = "demo.yaml" if "demo.yaml" in found else next(iter(found))
    text = yaml.safe_dump({section: found[name]}, sort_keys=False, default_flow_style=None, width=100)
    return [f"From `examples/{name}`:", "", "```yaml", text.rstrip(), "```", ""]


def _models(annotation: Any) -> list[type[BaseModel]]:
    """List the classes of settings in an annotation, inside unions, lists and mappings."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in typing.get_args(annotation) for model in _models(part)]


def _below(dotted: str, annotation: Any) -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield the classes of settings below a key, named as entries of a list or values of a mapping are."""
    bare = _bare(annotation)
    origin = typing.get_origin(bare)
    if origin in (tuple, list):
        dotted += "[]"
    elif origin is dict:
        dotted += ".*"
    for model in dict.fromkeys(_models(bare)):
        yield dotted, model


def _bare(annotation: Any) -> Any:
    """Strip metadata and `None` off an annotation."""
    if typing.get_origin(annotation) is typing.Annotated:
        return _bare(typing.get_args(annotation)[0])
    if _is_union(annotation):
        parts = [part for part in typing.get_args(annotation) if part is not type(None)]
        return _bare(parts[0]) if len(parts) == 1 else annotation
    return annotation


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


def _type_text(annotation: Any) -> str:
    for known, text in _NAMED.items():
        if _is_a(annotation, known):
            return text
    if typing.get_origin(annotation) is typing.Annotated:
        inner, *metadata = typing.get_args(annotation)
        bounds = [text for data in metadata for text in _bounds(data)]
        return ", ".join([_type_text(inner), *bounds])
    if _is_union(annotation):
        parts = [part for part in typing.get_args(annotation) if part is not type(None)]
        if parts and all(_models(part) for part in parts):
            return "section"
        return " or ".join(_type_text(part) for part in parts)
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        return ", ".join(f"<code>{value}</code>" for value in typing.get_args(annotation))
    if origin in (tuple, list):
        inner = typing.get_args(annotation)[0]
        return "list of sections" if _models(inner) else f"list of {_plural(_type_text(inner))}"
    if origin is dict:
        return "sections by name" if _models(annotation) else "mapping"
    if _models(annotation):
        return "section"
    return _NAMES.get(annotation, "path" if "Path" in str(annotation) else str(annotation))


def _is_a(annotation: Any, known: Any) -> bool:
    """Tell whether an annotation is a known one, with or without further metadata."""
    if annotation == known:
        return True
    if typing.get_origin(annotation) is not typing.Annotated:
        return False
    inner, *metadata = typing.get_args(annotation)
    known_inner, *known_metadata = typing.get_args(known)
    return bool(inner == known_inner and metadata[: len(known_metadata)] == known_metadata)


def _plural(text: str) -> str:
    first, comma, rest = text.partition(",")
    return (first if first in ("text", "anything") else f"{first}s") + comma + rest


def _bounds(data: Any) -> Iterator[str]:
    metadata = data.metadata if isinstance(data, FieldInfo) else [data]
    for entry in metadata:
        for attribute, text in _BOUNDS.items():
            if (bound := getattr(entry, attribute, None)) is not None:
                yield text.format(bound)


def _value_text(value: Any, annotation: Any) -> str:
    durations = (values.DurationMs, tuple[values.DurationMs, ...], values.DurationMs | None)
    plain = typing.get_args(annotation)[0] if typing.get_origin(annotation) is typing.Annotated else annotation
    is_duration = _is_a(annotation, values.DurationMs) or annotation in durations or plain in durations
    if is_duration and value is not None:
        return _written([duration_text(part) for part in value] if isinstance(value, tuple) else duration_text(value))
    return _written(value)


def _escaped(text: str) -> str:
    """Hide braces from the Markdown extension that reads attributes in them."""
    return text.replace("{", "&#123;").replace("}", "&#125;")


def _written(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_written, value))}]"
    return "{}" if value == {} else str(value)
