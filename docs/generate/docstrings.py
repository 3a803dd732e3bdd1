"""Lets griffe read the docstrings of recall: an `Example:` section holds the lines of a doctest.

Griffe knows that section as `Examples:` alone, and would show `Example:` as prose.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_EXAMPLE = re.compile(r"^Example:$", re.MULTILINE)


class ExampleSections(griffe.Extension):
    """Rename the `Example:` sections of docstrings."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of a module, class or function before it is parsed."""
        if obj.docstring:
            obj.docstring.value = _EXAMPLE.sub("Examples:", obj.docstring.value)
