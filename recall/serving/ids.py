"""Reads ids of users and items that callers give, in the way of the log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from recall.core.canonical import LONGEST_ID, id_list
from recall.core.errors import DataError, shown

Ids: TypeAlias = Iterable[str | int]


def ids_of(values: Iterable[Any], what: str) -> list[str]:
    """Read a list of ids: 12 and 12.0 are "12", text is stripped.

    Args:
      values: the ids.
      what: name of the list, for error messages.

    Raises:
      DataError: a text in place of a list, ids of several types, or an id that is missing or too long; begins
        with `what`.
    """
    if isinstance(values, str | bytes):
        raise DataError(
            f"{what}: expected a list of ids, found the text {shown(repr(values))}; write [{shown(repr(values))}]"
        )
    values = list(values)
    if all(type(value) is str and value.isascii() and _is_plain(value) for value in values):
        return values  # ids that were read before come so, and Arrow takes 95 us even for one
    ids = id_list(values, what=what)
    if ids.null_count:
        raise DataError(f"{what}: {ids.null_count:,} of {len(ids):,} ids are missing or empty; remove them")
    return list(ids.to_pylist())


def _is_plain(value: str) -> bool:
    return 0 < len(value.strip()) == len(value) <= LONGEST_ID


def by_id(values: Mapping[Any, Any] | None, what: str) -> dict[str, Any]:
    """Return a mapping with its keys read as `ids_of` reads them."""
    return dict(zip(ids_of(values or (), what), (values or {}).values(), strict=True))
