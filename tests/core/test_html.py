"""Tests that tables for notebooks show every cell as text, whatever it holds, and that they fetch nothing."""

from __future__ import annotations

from html.parser import HTMLParser

from recall.core.html import html_table


class Reader(HTMLParser):
    """Read the cells of a table as a browser does, and note every tag and attribute."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.open: list[str] = []
        self.feed(text)
        assert self.open == [], "a tag is not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


HOSTILE = "<script>alert('x')</script> & \"quoted\" 'too' </td><img src=x onerror=alert(1)>"


def test_hostile_text_is_shown_as_it_is_in_every_place() -> None:
    read = Reader(html_table(HOSTILE, [HOSTILE, "n"], [[HOSTILE, 3], [None, "ü 七"]], numbers=[1], note=HOSTILE))
    assert read.rows == [[HOSTILE, "n"], [HOSTILE, "3"], ["", "ü 七"]]
    assert set(read.tags) == {"div", "table", "thead", "tbody", "tr", "th", "td"}


def test_a_table_has_inline_style_and_nothing_else_that_a_page_could_load() -> None:
    text = html_table("Title", ["a"], [["b"]], note="note")
    assert Reader(text).attributes == {"style"}
    assert "url(" not in text
    assert "Title" in text
    assert "note" in text


def test_columns_without_names_have_no_head() -> None:
    assert "thead" not in Reader(html_table("Title", ["", ""], [["a", "b"]])).tags
