"""The README's quickstart runs as it is written, on a small community in place of the demo's."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from recall.core.errors import DataError
from recall.data.datasets import simulate
from recall.serving.items.posterior import checked_counts
from recall.serving.search.candidates import Candidates

ROOT = Path(__file__).resolve().parents[2]
PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture
def quickstart() -> str:
    blocks = [block for block in PYTHON_BLOCK.findall((ROOT / "README.md").read_text()) if "import recall\n" in block]
    if not blocks:
        pytest.skip("README.md has no python block that starts with `import recall`")
    return blocks[0]


@pytest.mark.slow
def test_the_quickstart_runs_as_it_is_written(
    quickstart: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    simulate(users=150, items=200, days=4, authors=30, topics=8, exposures=8_000).write(tmp_path / "runs" / "demo-data")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "quickstart"}
    exec(compile(quickstart, str(ROOT / "README.md"), "exec"), names)

    lines = [line for line in quickstart.splitlines() if line.strip()]
    assert len(lines) <= 20, "a dozen lines or so"
    for call in ("load_config", ".prepare()", ".train()", ".index()", ".recall(users=", ".similar(items=", ".vectors("):
        assert call in quickstart
    candidates = [value for value in names.values() if isinstance(value, Candidates)]
    assert candidates
    assert all(item is not None for found in candidates for item in found.ids.flat), "a stranger gets a list, too"
    assert "query" in capsys.readouterr().out


def test_commands_of_the_readme_exist() -> None:
    from typer.main import get_command

    from recall.cli.main import app

    commands = get_command(app).commands  # type: ignore[attr-defined]
    named = set(re.findall(r"^ {4}recall (\w+) ", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert named
    assert named <= set(commands)


def test_the_columns_of_refresh_posterior_are_the_ones_that_it_takes() -> None:
    guide = (ROOT / "docs" / "pages" / "guides" / "living-index-and-filters.md").read_text()
    (frame,) = re.findall(r"^recaller\.refresh_posterior\(\n *pd\.DataFrame\(\{(.*)\}\)$", guide, re.MULTILINE)
    named = re.findall(r'"(\w+)": \[', frame)
    with_clock = SimpleNamespace(manifest={"time_unit": "ms"})
    with pytest.raises(DataError) as refused:
        checked_counts(pd.DataFrame(), id_column="item_id", prepared=with_clock)  # type: ignore[arg-type]
    assert str(refused.value).endswith(f"expected {', '.join(named)}")
