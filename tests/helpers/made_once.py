"""Makes what many tests look at once per run of the suite, for all of its processes."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

MakeOnce = Callable[[str, str, Callable[[Path], object]], Path]


def shared_folder(factory: pytest.TempPathFactory) -> Path:
    """Return the folder that all processes of this run of the suite see, and no other run."""
    base = factory.getbasetemp()
    # Below pytest-xdist each process has a folder of its own inside the folder of the run.
    folder = (base.parent if base.name.startswith("popen-") else base) / "made_once"
    folder.mkdir(exist_ok=True)
    return folder


def make_once(root: Path, name: str, key: str, make: Callable[[Path], object]) -> Path:
    """Return the folder that `make(folder)` filled, or fills now; other processes wait for it meanwhile.

    A marker beside the folder says that it is whole: what a killed process left is removed and made again.

    Args:
        root: folder that the processes share.
        name: name of the folder, for people.
        key: whatever the content depends on, e.g. the YAML of an experiment; another key is another folder.
        make: fills the folder, which does not exist yet.
    """
    folder = root / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    whole = folder.with_suffix(".whole")
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not whole.exists():
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            whole.touch()
    return folder


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> MakeOnce:
    """Make a folder once per run of the suite: `made_once(name, key, make)`; it is read, and never written."""
    root = shared_folder(tmp_path_factory)
    return lambda name, key, make: make_once(root, name, key, make)
