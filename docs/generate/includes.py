"""Shows texts of the repository on the site, so that nothing is written twice.

A page has a line `<!-- include: CONTRIBUTING.md#the-map -->`; in its place comes the file, or the section of that
heading. Links between Markdown files of the repository become links between pages, pictures beside them become files
of the site.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from pymdownx.slugs import slugify

ROOT = Path(__file__).resolve().parents[2]
_INCLUDE = re.compile(r"^<!-- include: (?P<path>[\w./-]+)(?:#(?P<section>[\w-]+))? -->$", re.MULTILINE)
_LINK = re.compile(r"(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")
_slug = slugify(case="lower")

PAGES = {  # files of the repository -> pages on which they are shown whole, or else the page that has their content
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "design/index.md",
    "benchmarks/quality/README.md": "benchmarks/quality.md",
    "benchmarks/speed/README.md": "benchmarks/speed.md",
    "benchmarks/content/README.md": "benchmarks/content.md",
    "benchmarks/serving/README.md": "benchmarks/serving.md",
    "benchmarks/loop/README.md": "benchmarks/loop.md",
    "benchmarks/warm_up/README.md": "benchmarks/warm_up.md",
    "benchmarks/scale_out.md": "benchmarks/scale_out.md",
}


def pages() -> dict[str, str]:
    """Write the pages that are a file of the repository and nothing else: Markdown by path below pages/."""
    return {
        page: f"<!-- include: {source} -->\n"
        for source, page in PAGES.items()
        if page.startswith(("benchmarks/", "changelog"))
    }


def pictures() -> dict[str, Path]:
    """List the pictures of the benchmarks' pages: files by path below pages/."""
    return {f"benchmarks/plots/{_picture_name(path)}": path for path in sorted(ROOT.glob("benchmarks/*/plots/*.svg"))}


def include(markdown: str, page: str) -> str:
    """Fill in the texts that a page includes.

    Raises:
      FileNotFoundError: the file is not there.
      ValueError: it has no such section, or links to a file that the site does not show.
    """

    def text(match: re.Match[str]) -> str:
        source = match["path"]
        found = (ROOT / source).read_text(encoding="utf-8")
        if match["section"]:
            found = section(found, match["section"], of=source)
        found = re.sub(r"^<!-- (?:table: \w+|end) -->\n?", "", found, flags=re.MULTILINE)
        return rewritten(found, source=source, page=page)

    return _INCLUDE.sub(text, markdown)


def section(markdown: str, slug: str, *, of: str) -> str:
    """Cut a section without its heading, up to the next heading of its level or above.

    Raises:
      ValueError: no heading has this slug.
    """
    lines = markdown.splitlines()
    headings = list(_headings(lines))
    for number, level, title in headings:
        if _slug(title, "-") == slug:
            end = next((line for line, other, _ in headings if line > number and other <= level), len(lines))
            return "\n".join(lines[number + 1 : end]).strip() + "\n"
    raise ValueError(f"{of} has no section {slug}; there are {', '.join(_slug(t, '-') for _, _, t in headings)}")


def rewritten(markdown: str, *, source: str, page: str) -> str:
    """Rewrite the links of a file of the repository for a page of the site."""
    return _outside_code(markdown, lambda line: _LINK.sub(lambda match: _link(match, source, page), line))


def _link(match: re.Match[str], source: str, page: str) -> str:
    target, _, anchor = match["target"].partition("#")
    if not target or re.match(r"[a-z]+:", target):
        return match[0]
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    if match["picture"]:
        found = f"benchmarks/plots/{_picture_name(ROOT / path)}"
    elif path in PAGES:
        found = PAGES[path]
    elif (ROOT / path).exists():
        return f"{match['text']} (`{path}`)" if path not in match["text"] else match["text"]
    else:
        raise ValueError(f"{source} links to {match['target']}, which is not there")
    relative = posixpath.relpath(found, posixpath.dirname(page) or ".")
    return f"{match['picture']}[{match['text']}]({relative}{f'#{anchor}' if anchor else ''})"


def _picture_name(path: Path) -> str:
    return f"{path.parent.parent.name}-{path.name}"


def _headings(lines: list[str]) -> Iterator[tuple[int, int, str]]:
    fenced = False
    for number, line in enumerate(lines):
        if line.startswith("```"):
            fenced = not fenced
        if not fenced and (match := re.match(r"(#+) (.+)", line)):
            yield number, len(match[1]), match[2]


def _outside_code(markdown: str, change: Callable[[str], str]) -> str:
    lines, fenced = [], False
    for line in markdown.split("\n"):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        lines.append(line if fenced or line.startswith("    ") else change(line))
    return "\n".join(lines)
