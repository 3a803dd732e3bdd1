"""The notebooks of examples/ run from the first cell to the last, small, and are stored without outputs.

Each runs in a kernel of its own, as a reader runs it; the third and the fourth go on with the run of the first.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat", reason="pip install 'recall-towers[notebooks]'")
pytest.importorskip("nbclient", reason="pip install 'recall-towers[notebooks]'")
pytest.importorskip("ipykernel", reason="pip install 'recall-towers[notebooks]'")

from docs.generate.execute import STORED, execute, page  # noqa: E402

NAMES = ("1_quickstart", "2_movielens", "3_what_the_gate_learned", "4_living_index")
CELL = '<div class="notebook-output">'


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("notebooks")


@pytest.fixture(autouse=True)
def small(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the kernels write into the test's folder, take little data, and find the library in this tree."""
    monkeypatch.setenv("RECALL_NOTEBOOK_RUNS", str(runs))
    monkeypatch.setenv("RECALL_NOTEBOOK_QUICK", "1")
    paths = [str(STORED.parents[1]), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))


def executed(name: str) -> tuple[Any, str, dict[str, bytes]]:
    notebook = execute(STORED / f"{name}.ipynb", timeout=500)
    return notebook, *page(notebook, name)


def printed(notebook: Any) -> str:
    return "".join(output.text for cell in notebook.cells for output in cell.get("outputs", ()) if "text" in output)


def test_these_and_no_other_notebooks_exist() -> None:
    assert sorted(path.stem for path in STORED.glob("*.ipynb")) == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_stored_without_outputs_and_begins_with_its_title(name: str) -> None:
    notebook = nbformat.read(STORED / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not [cell for cell in code if cell.outputs or cell.execution_count is not None]
    assert notebook.cells[0].source.startswith("# ")
    assert max(len(line) for cell in code for line in cell.source.splitlines()) <= 120


def test_the_quickstart_trains_shows_tables_and_draws(runs: Path) -> None:
    _, text, pictures = executed("1_quickstart")
    assert len(pictures) == 2
    assert all(picture.startswith(b"\x89PNG") for picture in pictures.values())
    for shown in ("Experiment", "Test, @50", "Candidates", "content_knn"):
        assert shown in text
    assert (runs / "demo" / "report.html").exists()


def test_what_the_gate_learned_is_drawn_of_the_run_of_the_quickstart(runs: Path) -> None:
    _, text, pictures = executed("3_what_the_gate_learned")
    assert len(pictures) == 3
    assert f"Run {runs / 'demo'}" in text
    assert "share of behaviour" in text


def test_new_items_are_found_refreshed_and_gone(runs: Path) -> None:
    notebook, text, pictures = executed("4_living_index")
    assert len(pictures) == 2
    said = printed(notebook)
    assert re.search(r"searchable after \d+ ms", said)
    assert "still in somebody's list: False" in said
    filtered = text[text.rindex(f"{CELL}<div") :]
    assert "<table" in filtered


def test_movielens_stands_beside_als_and_single(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (shared_data / "ml-100k").is_dir():
        pytest.skip(f"MovieLens 100k is not in {shared_data}")
    monkeypatch.setenv("RECALL_SHARED_DATA", str(shared_data))
    notebook, text, pictures = executed("2_movielens")
    assert len(pictures) == 1
    recall_of_als = float(re.findall(r"test recall@50 (0\.\d+)", printed(notebook))[0])
    assert recall_of_als > 0.1  # of 1,682 films; chance is 0.03
    for name in ("gated", "single", "ALS", "item_knn", "popularity"):
        assert name in text


def test_a_page_escapes_what_was_printed_and_keeps_html_in_one_block() -> None:
    new = nbformat.v4
    outputs = [
        new.new_output("stream", text="\x1b[31m<b>\x1b[0m & more\n"),
        new.new_output("display_data", data={"text/html": "<table>\n\n<tr></tr>\n</table>", "text/plain": "no"}),
        new.new_output("display_data", data={"image/png": "iVBORw0KGgo=", "text/plain": "no"}),
    ]
    cells = [new.new_markdown_cell("# Title"), new.new_code_cell("1 < 2", outputs=outputs)]
    text, pictures = page(new.new_notebook(cells=cells), "name")
    assert text.startswith("# Title\n")
    assert '<pre class="notebook-output">&lt;b&gt; &amp; more</pre>' in text
    assert f"{CELL}<table> <tr></tr> </table></div>" in text
    assert "![Output of the cell above](name-1.png)" in text
    assert pictures == {"name-1.png": b"\x89PNG\r\n\x1a\n"}
    assert "```python\n1 < 2\n```" in text
