"""Draws the figures of the pages: inline SVG whose text and axes take the colours of the page, light or dark.

A page has a line `<!-- figure: NAME -->`.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable

from matplotlib import rc_context
from matplotlib.figure import Figure

_MARK = re.compile(r"^<!-- figure: (?P<name>\w+) -->$", re.MULTILINE)
_INK = "#010203"  # becomes currentColor
FIGURES: dict[str, Callable[[], tuple[Figure, str]]] = {}


def fill_figures(markdown: str) -> str:
    """Draw the figures that a page names.

    Raises:
      KeyError: there is no figure of this name.
    """
    return _MARK.sub(lambda match: svg(match["name"]), markdown)


def svg(name: str) -> str:
    """Draw a figure as HTML: the SVG and its caption."""
    with rc_context():
        figure, caption = FIGURES[name]()
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "currentColor")
    return f'<figure class="drawn" markdown="0">{text}<figcaption>{caption}</figcaption></figure>'
