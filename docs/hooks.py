"""Adds to the pages of mkdocs what is derived: settings, commands, notebooks, figures, numbers, included texts.

mkdocs calls the functions by their names; see mkdocs.yml.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # mkdocs loads this file by its path

from mkdocs.structure.files import File

from docs.figures.draw import fill_figures
from docs.generate import commands, configuration, includes, notebooks
from docs.generate.numbers import fill_numbers

ROOT = Path(__file__).resolve().parents[1]
_BENCHMARKS = ("quality", "loop", "warm_up", "content", "speed", "serving", "scale_out")


def on_config(config: Any) -> None:
    """Complete the navigation: the derived pages, and pages that it does not name at the end of their section."""
    pages = Path(config.docs_dir)
    nav = {title: part for entry in config.nav if isinstance(entry, dict) for title, part in entry.items()}
    nav["Configuration"] += [configuration.page_of(section) for section in configuration.sections()]
    nav["Benchmarks"] += [f"benchmarks/{name}.md" for name in _BENCHMARKS]
    named = set(_named(config.nav))
    for title, folder in (("Get started", "start"), ("Guides", "guides")):
        found = sorted(str(path.relative_to(pages)) for path in (pages / folder).glob("*.md"))
        nav[title] += [path for path in found if path not in named]
    shown = {*notebooks.pages(pages / notebooks.EXECUTED), *_written(pages, notebooks.EXECUTED)}
    if shown:
        place = next(number for number, entry in enumerate(config.nav) if isinstance(entry, dict) and "Guides" in entry)
        config.nav.insert(place + 1, {"Notebooks": sorted(shown)})


def on_files(files: Any, config: Any) -> None:
    """Add the derived pages and the pictures of the benchmarks' pages."""
    examples = {path.name: yaml.safe_load(path.read_text()) for path in sorted(ROOT.glob("examples/*.yaml"))}
    texts = {
        **configuration.pages(examples),
        **includes.pages(),
        **notebooks.pages(Path(config.docs_dir) / notebooks.EXECUTED),
        "commands.md": commands.page(),
    }
    for path, text in texts.items():
        files.append(File.generated(config, path, content=text))
    for path, source in includes.pictures().items():
        files.append(File.generated(config, path, abs_src_path=str(source)))


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Fill a page: included texts, numbers, figures, links from keys of the experiment file to their descriptions."""
    path = page.file.src_uri
    filled = fill_numbers(includes.include(markdown, path))
    describes_keys = path.startswith("configuration/") and page.file.generated_by
    return fill_figures(filled if describes_keys else configuration.link_keys(filled, path))


def _named(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    for part in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from _named(part)


def _written(pages: Path, folder: str) -> list[str]:
    return [str(path.relative_to(pages)) for path in (pages / folder).glob("*.md")]
