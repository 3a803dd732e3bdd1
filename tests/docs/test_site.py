"""The site builds strictly and without a network, and what it says of names, keys and commands is true."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import recall
from recall.config.experiment import Config

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site as `make docs` does, elsewhere."""
    out = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-f", "docs/mkdocs.yml", "-d", str(out)],
        cwd=ROOT, capture_output=True, text=True, timeout=500, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert built.returncode == 0, built.stdout + built.stderr
    return out


def read(site: Path, folder: str) -> str:
    return "\n".join(path.read_text() for path in (site / folder).glob("*.html"))


def leaves(schema: dict, definitions: dict, name: str = "") -> set[str]:
    """Dotted names of all keys that a JSON Schema knows, list entries without `[]`."""
    found = set()
    for part in [schema, *schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())]:
        if "$ref" in part:
            found |= leaves(definitions[part["$ref"].rpartition("/")[2]], definitions, name)
        for key, below in part.get("properties", {}).items():
            dotted = f"{name}.{key}" if name else key
            found |= {dotted} | leaves(below, definitions, dotted)
        if "items" in part:
            found |= leaves(part["items"], definitions, name)
        if isinstance(part.get("additionalProperties"), dict):
            found |= leaves(part["additionalProperties"], definitions, name)
    return found


def test_the_site_asks_no_other_host(site: Path) -> None:
    loaded = r'<(?:script|img|iframe|source)[^>]+src="?(https?:)?//'
    asks = re.compile(rf'{loaded}|<link[^>]+stylesheet[^>]+href="?(https?:)?//')
    for path in site.rglob("*.html"):
        assert not asks.search(path.read_text()), path


def test_every_public_name_has_its_place_on_a_page_of_the_api(site: Path) -> None:
    pages = read(site, "api")
    for name in recall.__all__:
        assert re.search(rf'<h\d id="recall\.[\w.]+\.{name}"', pages), name


def test_every_key_of_the_experiment_file_has_a_place_and_a_description(site: Path) -> None:
    pages = read(site, "configuration")
    schema = Config.model_json_schema()
    keys = leaves(schema, schema["$defs"])
    assert {"data.events.time_unit", "features.meta.clusters", "training.stages.initialise.path", "seed"} <= keys
    sections = {key for key in keys if "." not in key and key != "seed"}  # each has a page of its own
    for key in sorted(keys - sections):
        place = re.sub(r"^features\.(user|behaviour)\.", "features.meta.", key)
        shared = re.sub(r"^features\.meta\.", "features.user.", place)
        found = re.search(rf'id="(?:{re.escape(place)}|{re.escape(shared)})"[^>]*>(.*?)</div>', pages, re.DOTALL)
        assert found, f"{key} has no place"
        described = re.sub(r"<[^>]+>", "", found[1].partition("</p>")[2])  # after the line of its type
        assert len(html.unescape(described).strip()) > 5, f"{key} has no description"


def test_a_key_in_a_text_leads_to_its_description(site: Path) -> None:
    page = (site / "concepts" / "posterior.html").read_text()
    assert re.search(r'href="\.\./configuration/data\.html#data\.posterior\.half_lives"', page)


def test_pages_of_the_repository_are_shown_with_their_tables_and_plots(site: Path) -> None:
    quality = (site / "benchmarks" / "quality.html").read_text()
    assert "<table>" in quality
    assert "plots/quality-gate.svg" in quality
    assert (site / "benchmarks" / "plots" / "quality-gate.svg").exists()
    first = next(line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line.startswith("* "))
    assert html.escape(first[2:30].replace("`", ""), quote=False) in re.sub(
        r"<[^>]+>", "", (site / "changelog.html").read_text()
    )
