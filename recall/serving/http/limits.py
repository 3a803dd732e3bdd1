"""Bounds how much one request may ask for.

One table serves the check and the OpenAPI page.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from recall.serving.http.problems import over_limit
from recall.serving.http.settings import ServiceSettings

# Key of a request -> the setting that bounds it, and what it counts. Every other list is bounded by max_list.
_LIMITS: Mapping[str, tuple[str, str]] = {
    "k": ("max_k", "candidates per query"),
    "users": ("max_batch", "users"),
    "features": ("max_batch", "rows"),
    "items": ("max_batch", "items"),
    "ids": ("max_batch", "ids"),
}
_ANY_LIST = ("max_list", "entries")


def check_limits(request: BaseModel, settings: ServiceSettings) -> None:
    """Refuse a request that asks for too much at once.

    Args:
      request: k and lists of any names.
      settings: the limits.

    Raises:
      ServiceError: 422; names the key, the limit and the size found.
    """
    for name in type(request).model_fields:
        value = getattr(request, name)
        setting, what = _LIMITS.get(name, _ANY_LIST)
        size = value if name == "k" else len(value) if isinstance(value, list) else 0
        if size > (limit := getattr(settings, setting)):
            raise over_limit(name, limit=limit, found=size, what=what)
        _check_lists(name, value, settings.max_list)


def _check_lists(location: str, value: Any, limit: int) -> None:
    """Bound the lists and mappings inside a value; of a list, only the first entry tells whether it holds lists."""
    if isinstance(value, BaseModel):
        value = {name: getattr(value, name) for name in type(value).model_fields} | (value.model_extra or {})
    elif isinstance(value, list | tuple | dict) and len(value) > limit:
        raise over_limit(location, limit=limit, found=len(value), what=_ANY_LIST[1])
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(inner, str):
                _check_lists(f"{location}.{key[:100]}", inner, limit)
    elif isinstance(value, list | tuple) and value and not isinstance(value[0], str | int | float):
        for position, inner in enumerate(value):
            _check_lists(f"{location}.{position}", inner, limit)


def show_limits(openapi: dict[str, Any], settings: ServiceSettings) -> dict[str, Any]:
    """Write the limits of this service into the request schemas of an OpenAPI document; return the document."""
    for title, schema in openapi.get("components", {}).get("schemas", {}).items():
        if not title.endswith("Request"):
            continue
        for name, found in schema.get("properties", {}).items():
            limit = getattr(settings, _LIMITS.get(name, _ANY_LIST)[0])
            for variant in found.get("anyOf", [found]):
                if variant.get("type") == "array":
                    variant["maxItems"] = limit
                elif variant.get("type") == "integer" and name in _LIMITS:
                    variant["maximum"] = limit
    return openapi
