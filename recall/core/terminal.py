"""Opens consoles whose tables are whole: folded on a terminal, and as wide as they need in a file or a pipe."""

from __future__ import annotations

import os

from rich.console import Console

# Wider than any line: where nobody looks at a screen, nothing may be cut or folded for one of 80 columns.
_UNLIMITED = 10_000


def open_console(*, stderr: bool = False) -> Console:
    """Open the console of stdout or stderr. Where it is no terminal lines are not folded, unless COLUMNS is set."""
    console = Console(stderr=stderr, highlight=False)
    if not console.file.isatty() and "COLUMNS" not in os.environ:
        console.width = _UNLIMITED
    return console
