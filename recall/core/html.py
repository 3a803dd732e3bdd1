"""Writes small HTML tables, as which notebooks show objects: escaped text, nothing fetched, no script.

Colours are the page's own, and lines a half-transparent grey, so that a table is readable on light and dark pages.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

_LINE = "1px solid rgba(128,128,128,.35)"
_CELL = f"padding:.15em .8em .15em 0;border:0;border-bottom:{_LINE};vertical-align:top;white-space:normal;"
_BESIDE = "font-size:85%;opacity:.75;"


def html_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: Iterable[int] = (), note: str = ""
) -> str:
    """Write a table with a title above and a note below it.

    Args:
      title: the line above; it and every other text may hold any character.
      columns: names of the columns; all empty: no head.
      rows: cells by column; None is an empty cell.
      numbers: positions of the columns that are aligned to the right.
      note: the line below; empty: none.

    Returns:
      One `<div>`.
    """
    sides = ["right" if place in set(numbers) else "left" for place in range(len(columns))]
    head = "".join(_cell("th", name, side, weight="600") for name, side in zip(columns, sides, strict=True))
    body = "".join(
        "<tr style='background:none'>"
        + "".join(_cell("td", value, side) for value, side in zip(row, sides, strict=True))
        + "</tr>"
        for row in rows
    )
    return (
        f"<div style='overflow-x:auto'><div style='font-weight:600;margin:.3em 0'>{escape(title)}</div>"
        "<table style='border-collapse:collapse;border:0;font-variant-numeric:tabular-nums;margin:0'>"
        + (f"<thead><tr style='background:none'>{head}</tr></thead>" if any(columns) else "")
        + f"<tbody>{body}</tbody></table>"
        + (f"<div style='{_BESIDE}margin:.3em 0;max-width:60em'>{escape(note)}</div>" if note else "")
        + "</div>"
    )


def _cell(tag: str, value: object, side: str, *, weight: str = "400") -> str:
    text = "" if value is None else escape(str(value))
    return f"<{tag} style='{_CELL}text-align:{side};font-weight:{weight}'>{text}</{tag}>"
