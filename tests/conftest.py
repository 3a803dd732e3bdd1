"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with the real data sets; the test is skipped, saying so, where it is absent."""
    default = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"
    folder = Path(os.environ.get("RECALL_SHARED_DATA", default)).resolve()
    if not folder.is_dir():
        pytest.skip(f"real data sets are not at {folder}; set RECALL_SHARED_DATA")
    return folder
