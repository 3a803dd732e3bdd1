"""Pages whose prose is written by hand and whose tables are derived from results."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from recall.core.errors import ArtifactError

NOTHING = "–"


def replace_tables(page: Path, tables: Mapping[str, str]) -> None:
    """Puts tables between their markers, `<!-- table: NAME -->` and `<!-- end -->`.

    Raises:
      ArtifactError: the page is missing, or a marker names no table.
    """
    if not page.exists():
        raise ArtifactError(f"{page}: is missing; it holds the prose around the tables, restore it from the repository")

    def filled(match: re.Match[str]) -> str:
        if match[1] not in tables:
            raise ArtifactError(f"{page}: there is no table {match[1]}; expected one of {', '.join(tables)}")
        return f"<!-- table: {match[1]} -->\n\n{tables[match[1]]}\n\n<!-- end -->"

    text = page.read_text(encoding="utf-8")
    page.write_text(
        re.sub(r"<!-- table: (\w+) -->.*?<!-- end -->", filled, text, flags=re.DOTALL), encoding="utf-8"
    )  # fmt: skip


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown, the first column to the left; empty without rows."""
    if not rows:
        return ""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def environments_table(environments: Iterable[Mapping[str, Any]]) -> str:
    """What results were made with (`benchmarks.common.machine.environment`), and how many of them."""
    counts: Counter[tuple[str, ...]] = Counter()
    for made in environments:
        packages = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
        counts[made["commit"], made["cpu"], f"{made['threads']} of {made['cores']}", packages] += 1
    rows = [[str(count), *key] for key, count in sorted(counts.items())]
    return markdown_table(["results", "commit", "CPU", "threads", "versions"], rows)
