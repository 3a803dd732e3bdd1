"""Reads ids of users and items that callers give, in the way of the log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from recall.core.canonical import id_list
from recall.core.errors import DataError, shown

Ids: TypeAlias = Iterable[str | int]


def ids_of(values: Iterable[Any], what: str) -> list[str]:
    """Read a list of ids: 12 and 12.0 are "12", text is stripped.

    Args:
      values: the ids.
      what: name of the list, for error messages.

    Raises:
      DataError: a text in place of a list, ids of several types, or a missing id; begins with `what`.
    """
    if isinstance(values, str | bytes):
        raise DataError(
            f"{what}: expected a list of ids, found the text {shown(repr(values))}; write [{shown(repr(values))}]"
        )
    values = list(values)
    if all(type(value) is str and value.isascii() and value and value == value.strip() for value in values):
        return values  # ids that were read before come so, and Arrow takes 95 us even for one
    ids = id_list(values, what=what)
    if ids.null_count:
        raise DataError(f"{what}: {ids.null_count:,} of {len(ids):,} ids are missing or empty; remove them")
    return list(ids.to_pylist())


def by_id(values: Mapping[Any, Any] | None, what: str) -> dict[str, Any]:
    """Return a mapping with its keys read as `ids_of` reads them."""
    return dict(zip(ids_of(values or (), what), (values or {}).values(), strict=True))
