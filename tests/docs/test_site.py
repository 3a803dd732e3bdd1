"""The site: it builds strictly and without a network, and what it says of names, keys and commands is true."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs" / "pages"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site as `make docs` does, elsewhere."""
    out = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-f", "docs/mkdocs.yml", "-d", str(out)],
        cwd=ROOT, capture_output=True, text=True, timeout=300, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert built.returncode == 0, built.stdout + built.stderr
    return out


def test_the_site_asks_no_other_host(site: Path) -> None:
    asks = re.compile(
        r'<(?:script|img|iframe|source)[^>]+src="?(https?:)?//|<link[^>]+stylesheet[^>]+href="?(https?:)?//'
    )
    for path in site.rglob("*.html"):
        assert not asks.search(path.read_text()), path
