"""Executes the notebooks of examples/notebooks and writes them as pages: `make notebooks`.

    python -m docs.generate.execute [NAME ...]          # all without names; RECALL_NOTEBOOK_QUICK=1: small

A page is Markdown with the outputs of its cells, and lies with its pictures in docs/pages/notebooks, which git ignores;
`make docs` takes it from there. The notebooks themselves stay as they are, without outputs.
"""

from __future__ import annotations

import base64
import os
import re
import sys
import time
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import nbclient
import nbformat

ROOT = Path(__file__).resolve().parents[2]
STORED = ROOT / "examples" / "notebooks"
PAGES = ROOT / "docs" / "pages" / "notebooks"
_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def execute(path: Path, *, folder: Path = STORED, timeout: int = 3600) -> Any:
    """Run a stored notebook in a kernel of its own and return it with outputs.

    Args:
      path: the .ipynb.
      folder: working directory of the kernel.
      timeout: seconds for a cell.

    Raises:
      nbclient.exceptions.CellExecutionError: a cell failed; the message has the cell and its traceback.
    """
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=timeout, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    return client.execute()


def page(notebook: Any, name: str) -> tuple[str, dict[str, bytes]]:
    """Write an executed notebook as Markdown.

    Args:
      notebook: with outputs.
      name: of the notebook, without ending.

    Returns:
      The text, and its pictures by file name.
    """
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            if len(parts) == 1:
                parts.append(f"*Executed from `examples/notebooks/{name}.ipynb`.*")
            continue
        parts.append(f"```python\n{cell.source}\n```")
        for output in cell.outputs:
            for text, picture in _shown(output):
                if picture:
                    file = f"{name}-{len(pictures) + 1}.png"
                    pictures[file] = picture
                    text = f"![Output of the cell above]({file})"
                parts.append(text)
    return "\n\n".join(parts) + "\n", pictures


def _shown(output: Any) -> Iterator[tuple[str, bytes]]:
    """Yield the text of an output, or the bytes of its picture: the richest form that a page can show."""
    if output.output_type == "stream":
        yield _text(output.text), b""
        return
    data = output.get("data", {})
    if "image/png" in data:
        yield "", base64.b64decode(data["image/png"])
    elif "text/html" in data:
        # Markdown leaves a block of HTML alone up to its first empty line.
        lines = [line for line in data["text/html"].splitlines() if line.strip()]
        yield f'<div class="notebook-output">{" ".join(line.strip() for line in lines)}</div>', b""
    elif "text/plain" in data:
        yield _text(data["text/plain"]), b""


def _text(text: str) -> str:
    return f'<pre class="notebook-output">{escape(_COLOURS.sub("", text)).rstrip()}</pre>' if text.strip() else ""


def main(names: list[str]) -> None:
    """Execute notebooks, all without names, and write their pages; says how long each took."""
    PAGES.mkdir(parents=True, exist_ok=True)
    for path in sorted(STORED.glob("*.ipynb")):
        if names and path.stem not in names:
            continue
        started = time.perf_counter()
        text, pictures = page(execute(path), path.stem)
        for old in PAGES.glob(f"{path.stem}*"):
            old.unlink()
        for file, content in pictures.items():
            (PAGES / file).write_bytes(content)
        (PAGES / f"{path.stem}.md").write_text(text, encoding="utf-8")
        print(f"{path.name}: {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    os.environ.setdefault("RECALL_NOTEBOOK_RUNS", str(ROOT / "runs" / "notebooks"))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    main(sys.argv[1:])
