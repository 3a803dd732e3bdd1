"""Renders templates, and writes pages: HTML files that need nothing else."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

from recall.core.errors import ArtifactError


def rendered(template: str, **content: Any) -> str:
    """Render a file of templates/ as text.

    Args:
      template: its name.
      content: the names that it uses; one that is missing is an error.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("recall.runs.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**content)


def write_page(path: str | Path, page: str, *, command: str) -> None:
    """Write a page beside its place and rename it, so that a reader sees a whole page or the one before.

    Args:
      path: the file.
      page: its text.
      command: makes it again, for the error.

    Raises:
      ArtifactError: the file cannot be written; nothing is left behind.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        temporary.write_text(page, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise ArtifactError(
            f"{path}: could not be written ({error}); free some space, then run `{command}` again"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
