"""Shows the notebooks of examples/notebooks: as `make notebooks` executed them, or else as they are stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
STORED = ROOT / "examples" / "notebooks"
EXECUTED = "notebooks"
"""The folder below pages/ into which executed notebooks are written; git ignores it."""


def pages(written: Path) -> dict[str, str]:
    """Write a page for each stored notebook that no page of an executed one shows already.

    Args:
      written: pages/notebooks, which may be missing.

    Returns:
      Markdown by path below pages/.
    """
    return {
        f"{EXECUTED}/{path.stem}.md": markdown(json.loads(path.read_text(encoding="utf-8")), path.name)
        for path in sorted(STORED.glob("*.ipynb"))
        if not (written / f"{path.stem}.md").exists()
    }


def markdown(notebook: dict[str, Any], name: str) -> str:
    """Write a notebook without its outputs: texts as they are, code in blocks."""
    parts = []
    for cell in notebook["cells"]:
        text = "".join(cell["source"]).strip()
        if cell["cell_type"] == "markdown":
            parts.append(text)
        elif cell["cell_type"] == "code" and text:
            parts.append(f"```python\n{text}\n```")
    note = f"*From `examples/notebooks/{name}`. Run it, or `make notebooks`, which adds its results to this page.*"
    return "\n\n".join([*parts[:1], note, *parts[1:]]) + "\n"
