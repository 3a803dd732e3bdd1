"""Renders the OpenAPI document as one HTML page, which loads nothing: the service may run where there is no network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from importlib import resources
from typing import Any

_TEMPLATE = resources.files("recall.serving.http") / "templates" / "docs.html"
_BOUNDS = {
    "minimum": "from {}", "exclusiveMinimum": "above {}", "maximum": "to {}", "exclusiveMaximum": "below {}",
    "minItems": "at least {} entries", "maxItems": "at most {} entries", "minLength": "at least {} characters",
    "maxLength": "at most {} characters", "minProperties": "at least {} keys", "maxProperties": "at most {} keys",
    "default": "default {}",
}  # fmt: skip
_PREFIX = "#/components/schemas/"


def docs_page(openapi: Mapping[str, Any]) -> str:
    """Return the page of an OpenAPI document: its operations, then its schemas."""
    operations = "\n".join(
        _operation(method, path, operation)
        for path, methods in openapi["paths"].items()
        for method, operation in methods.items()
    )
    schemas = openapi.get("components", {}).get("schemas", {})
    parts = {
        "TITLE": escape(f"{openapi['info']['title']} {openapi['info']['version']}"),
        "OPERATIONS": operations,
        "SCHEMAS": "\n".join(_schema(name, schema) for name, schema in sorted(schemas.items())),
    }
    page = _TEMPLATE.read_text(encoding="utf-8")
    for name, content in parts.items():
        page = page.replace(f"{{{{{name}}}}}", content)
    return page


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> str:
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    text = operation.get("description") or operation.get("summary", "")
    rows = [
        f"<tr><th>{escape(status)}</th><td>{escape(answer.get('description', ''))}</td><td>{_answer(answer)}</td></tr>"
        for status, answer in operation.get("responses", {}).items()
    ]
    needs = "<p>Needs the header <code>Authorization: Bearer TOKEN</code> where the service has a token.</p>"
    return (
        f"<section><h2><code>{escape(method.upper())} {escape(path)}</code></h2>\n<p>{escape(text)}</p>\n"
        + (needs if operation.get("security") else "")
        + (f"<p>Body (<code>application/json</code>): {_type(body)}</p>\n" if body else "")
        + "<table><thead><tr><th>status</th><th>meaning</th><th>answer</th></tr></thead>\n<tbody>"
        + "\n".join(rows)
        + "</tbody></table></section>"
    )


def _answer(answer: Mapping[str, Any]) -> str:
    kinds = answer.get("content", {})
    return ", ".join(_type(kind["schema"]) if kind.get("schema") else escape(name) for name, kind in kinds.items())


def _schema(name: str, schema: Mapping[str, Any]) -> str:
    required = schema.get("required", ())
    rows = [
        f"<tr><th><code>{escape(key)}</code>{' (required)' if key in required else ''}</th><td>{_type(value)}</td>"
        f"<td>{escape('; '.join(_notes(value)))}</td></tr>"
        for key, value in schema.get("properties", {}).items()
    ]
    further = schema.get("additionalProperties")
    if isinstance(further, Mapping):
        rows.append(f"<tr><th>any other key</th><td>{_type(further)}</td><td></td></tr>")
    table = f"<table><tbody>{''.join(rows)}</tbody></table>" if rows else f"<p>{_type(schema)}</p>"
    return (
        f'<section id="{escape(name)}"><h3>{escape(name)}</h3>\n<p>{escape(schema.get("description", ""))}</p>\n{table}'
        "</section>"
    )


def _type(schema: Mapping[str, Any]) -> str:
    """Describe the type of a value in words, with links to schemas."""
    if "$ref" in schema:
        name = escape(schema["$ref"].removeprefix(_PREFIX))
        return f'<a href="#{name}">{name}</a>'
    for several in ("anyOf", "oneOf", "allOf"):
        if schema.get(several) and "type" not in schema:
            return " or ".join(dict.fromkeys(_type(variant) for variant in schema[several]))
    if "const" in schema or "enum" in schema:
        return " or ".join(f"<code>{escape(repr(value))}</code>" for value in schema.get("enum", [schema.get("const")]))
    kind = str(schema.get("type", "anything"))
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), Mapping):
        return f"object, each value {_type(schema['additionalProperties'])}"
    return escape({"string": "text", "null": "null"}.get(kind, kind))


def _notes(schema: Mapping[str, Any]) -> Iterator[str]:
    """Yield the description and the bounds of a value, those of its variants included."""
    if schema.get("description"):
        yield str(schema["description"])
    for variant in (schema, *schema.get("anyOf", ())):
        for name, words in _BOUNDS.items():
            value = variant.get(name)
            if value is not None and value not in ([], {}):
                yield words.format(f"{value:,}" if type(value) in (int, float) else value)
