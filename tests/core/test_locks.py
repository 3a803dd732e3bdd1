"""One process at a time writes a part of a run; a second is refused, and the first goes on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from recall.core.artifacts import publish, read_manifest
from recall.core.errors import ArtifactError
from recall.core.locks import sole_writer

HOLDER = """
import sys
from pathlib import Path
from recall.core.artifacts import publish
with publish(Path(sys.argv[1]), manifest={}) as scratch:
    (scratch / "file").write_text("of the first")
    print("held", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def publishing(directory: Path) -> Iterator[subprocess.Popen[str]]:
    """Hold a publication open in another process, until a line is written to it."""
    command = [sys.executable, "-c", HOLDER, str(directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_second_process_is_refused_and_the_first_publishes_what_it_made(tmp_path: Path) -> None:
    with publishing(tmp_path / "data") as first:
        expected = rf"data: another process \(pid {first.pid}\) is writing it; wait until it is done, or choose another"
        with pytest.raises(ArtifactError, match=expected), publish(tmp_path / "data", manifest={}):
            pytest.fail("the second one began")
        first.communicate("go on\n")
        assert first.returncode == 0
    read_manifest(tmp_path / "data", made_by="this test", verify=True)
    assert (tmp_path / "data" / "file").read_text() == "of the first"
    assert [path.name for path in tmp_path.iterdir()] == ["data"], "neither lock nor scratch is left"


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    with publishing(tmp_path / "data") as first:
        first.kill()
        first.wait()
    with publish(tmp_path / "data", manifest={}) as scratch:
        (scratch / "file").write_text("of the second")
    assert (tmp_path / "data" / "file").read_text() == "of the second"
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_parts_and_steps_have_locks_of_their_own(tmp_path: Path) -> None:
    with (
        sole_writer(tmp_path / "data"),
        sole_writer(tmp_path / "model"),
        sole_writer(tmp_path / "data", step="training"),
    ):
        with pytest.raises(ArtifactError, match="data: another process"), sole_writer(tmp_path / "data"):
            pytest.fail("held twice")
        with pytest.raises(ArtifactError, match="data: "), sole_writer(tmp_path / "data", step="training"):
            pytest.fail("held twice")
    with sole_writer(tmp_path / "data"):
        pass
    assert not list(tmp_path.iterdir())
