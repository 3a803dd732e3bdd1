"""Puts figures into pages as inline SVG, in the look of the report: they take the ink of the page, light or dark.

A page has a comment `<!-- figure: NAME`, then the caption, then `-->`; `concepts.py` draws the figure of this name.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable

from docs.figures import concepts

_MARK = re.compile(r"^<!-- figure: (?P<name>\w+)\s+(?P<caption>.*?)\s*-->$", re.MULTILINE | re.DOTALL)


def fill_figures(markdown: str) -> str:
    """Draw the figures that a page names.

    Raises:
      ValueError: there is no figure of this name.
    """
    return _MARK.sub(lambda match: figure(match["name"], match["caption"]), markdown)


def figure(name: str, caption: str) -> str:
    """Draw a figure as HTML: the SVG and its caption, in which `code` is marked as in Markdown.

    Raises:
      ValueError: there is no figure of this name.
    """
    draw: Callable[[], str | None] | None = concepts.FIGURES.get(name)
    if draw is None:
        raise ValueError(f"there is no figure {name}; expected one of {', '.join(concepts.FIGURES)}")
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(" ".join(caption.split())))
    return f'<figure class="drawn" markdown="0">{draw()}<figcaption>{text}</figcaption></figure>'
