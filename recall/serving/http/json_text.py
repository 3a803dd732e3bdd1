"""Reads the JSON of a body: bounded before it is read, and refused at the first thing that no request can hold.

`bodies.py` calls it and makes requests of what it returns.
"""

from __future__ import annotations

import json
import re
from typing import Any

from recall.core.errors import shown
from recall.serving.http.problems import ServiceError, over_limit

_MAY_BE_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_LONGEST_KEY = 40  # characters that a message repeats

# A key or position, and the place around it: a tuple of all parts for each value would cost its depth again.
_Place = tuple[str | int, "_Place | None"]


def read_json(body: bytes, *, most_values: int, most_entries: int) -> Any:
    """Parse a body.

    The cost is bounded by the number of values, which is bounded from the bytes alone: each value but the first follows
    one of `,[{:`. Commas and brackets inside of texts count, too.

    Args:
      body: UTF-8 text, as RFC 8259 wants it.
      most_values: bound of lists, objects, and their entries.
      most_entries: bound of the entries of one list or object.

    Raises:
      ServiceError: 422; it is no JSON, holds too much, gives a key twice, or has text that is no Unicode.
    """
    found = body.count(b",") + body.count(b"[") + body.count(b"{")
    if found > most_values:
        raise over_limit("body", limit=most_values, found=found, what="values (commas and brackets are counted)")
    try:
        content = json.loads(body.decode("utf-8-sig"), object_pairs_hook=lambda pairs: _object(pairs, most_entries))
    except UnicodeDecodeError as error:
        raise _malformed(f"expected UTF-8, found the byte 0x{body[error.start]:02x} at {error.start:,}") from None
    except json.JSONDecodeError as error:
        raise _malformed(f"not JSON ({error.msg} at character {error.pos:,})") from None
    except RecursionError:
        raise _malformed("not JSON that can be read: lists or objects are nested too deeply") from None
    except ValueError:  # Python reads no number of more than some thousand digits, as its time is their square
        raise _malformed("not JSON that can be read: a number has thousands of digits") from None
    _require_short_lists(content, most_entries)
    if _MAY_BE_SURROGATE.search(body):
        _require_unicode(content)
    return content


def _object(pairs: list[tuple[str, Any]], most_entries: int) -> dict[str, Any]:
    """Make an object of its entries, and refuse too many of them and a key that stands twice."""
    if len(pairs) > most_entries:
        raise over_limit("body", limit=most_entries, found=len(pairs), what="keys in one object")
    content = dict(pairs)
    if len(content) < len(pairs):
        seen = set[str]()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        key = shown(ascii(twice), most=_LONGEST_KEY)
        raise _malformed(f"the key {key} stands twice in one object; only one of its values could count")
    return content


def _require_short_lists(content: Any, most_entries: int) -> None:
    """Refuse a list of too many entries, before each of them is validated."""
    left = [content]
    while left:
        value = left.pop()
        if isinstance(value, list) and len(value) > most_entries:
            raise over_limit("body", limit=most_entries, found=len(value), what="entries in one list")
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        left.extend(part for part in inner if isinstance(part, list | dict))


def _require_unicode(content: Any) -> None:
    """Refuse text with half of a surrogate pair, which no encoding, column or file can hold."""
    left: list[tuple[_Place, Any]] = [(("body", None), content)]
    while left:
        place, value = left.pop()
        if isinstance(value, str):
            if not _is_unicode(value):
                message = "expected text of whole Unicode characters, found half of a surrogate pair"
                details = [{"location": _shown_place(place), "message": message}]
                raise ServiceError(422, "invalid", f"{_shown_place(place)}: {message}", details=details)
        elif isinstance(value, list):
            left.extend(((position, place), inner) for position, inner in enumerate(value))
        elif isinstance(value, dict):
            left.extend((place, key) for key in value)
            left.extend(((key, place), inner) for key, inner in value.items())


def _shown_place(place: _Place) -> str:
    parts = list[str]()
    outer: _Place | None = place
    while outer is not None:
        part, outer = outer
        parts.append(str(part)[:_LONGEST_KEY].encode("utf-8", "backslashreplace").decode())
    return ".".join(reversed(parts[-8:]))


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _malformed(message: str) -> ServiceError:
    details = [{"location": "body", "message": message}]
    return ServiceError(422, "malformed", f"body: {message}", details=details)
