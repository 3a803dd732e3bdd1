"""Tests what a writer is told when the disk is full or files cannot be used, and what the log says."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from structlog.testing import capture_logs

from recall.core.errors import ArtifactError, DataError
from recall.serving.http.app import create_app
from recall.serving.http.failures import problem_of, storage_problem, without_path
from recall.serving.http.settings import ServiceSettings
from recall.serving.http.snapshot import Snapshot

ROW = {"item_id": "new-1", "title": "Brand new", "category": "c0", "tags": ["t1"], "duration_s": 30.0}


@pytest.fixture(scope="module")
def own_run(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the run, for tests that write to it."""
    return Path(shutil.copytree(run, tmp_path_factory.mktemp("full") / "run"))


@pytest.fixture(scope="module")
def writer(own_run: Path) -> Iterator[TestClient]:
    """Return the client of a service that takes writes of everybody."""
    app = create_app(own_run, ServiceSettings(allow_writes=True), snapshot=Snapshot.load(own_run, living=True))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@contextlib.contextmanager
def limited(what: int, limit: int) -> Iterator[None]:
    """Lower a limit of this process for a while."""
    before = resource.getrlimit(what)
    resource.setrlimit(what, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(what, before)


def items(client: TestClient) -> int:
    return int(client.get("/readyz").json()["items"])


def write(client: TestClient, method: str, body: dict[str, Any], *, what: int, limit: int) -> Any:
    with limited(what, limit):
        return client.request(method, "/items", json=body)


@pytest.mark.parametrize(("method", "body"), [("POST", {"items": [ROW]}), ("DELETE", {"ids": ["i003"]})])
def test_a_full_disk_is_a_507_that_tells_no_path_and_is_logged(
    writer: TestClient, own_run: Path, method: str, body: dict[str, Any]
) -> None:
    before = items(writer)
    with capture_logs() as lines:
        response = write(writer, method, body, what=resource.RLIMIT_FSIZE, limit=4)
    assert response.status_code == 507, response.text
    assert response.json()["error"]["type"] == "storage"
    assert str(own_run) not in response.text
    assert "/" not in response.json()["error"]["message"]
    [line] = [line for line in lines if line["log_level"] == "error"]
    assert "File too large" in line["error"]  # what the system says of the limit
    assert items(writer) == before
    assert writer.request(method, "/items", json=body).status_code == 200, "space is free again"


@pytest.mark.parametrize(
    ("number", "status"),
    [(errno.ENOSPC, 507), (errno.EDQUOT, 507), (errno.EFBIG, 507), (errno.EROFS, 503), (errno.EACCES, 503),
     (errno.EMFILE, 503), (errno.ENFILE, 503), (errno.EIO, 503), (errno.ESTALE, 503), (errno.ENOENT, 503)],
)  # fmt: skip
def test_each_failure_of_files_is_the_services_and_never_the_clients(number: int, status: int) -> None:
    behind = OSError(number, os.strerror(number), "/a/secret/place")
    wrapped = ArtifactError(f"/a/secret/place: could not be written ({behind})")
    wrapped.__cause__ = behind
    for error in (storage_problem(wrapped), storage_problem(behind), problem_of(behind, run=Path("/a"))):
        assert (error.status, error.kind) == (status, "storage")
        assert "secret" not in error.message


def test_a_journal_in_doubt_is_a_503() -> None:
    assert storage_problem(ArtifactError("the journal is in doubt after a write that failed")).status == 503


def test_messages_tell_no_path_of_the_run() -> None:
    for run in (Path("/srv/runs/mine"), Path("runs/mine"), Path("mine")):
        for path in (run, run.absolute()):
            said = f"{path}/data: has no attributes; run `recall prepare --run {path}`, undermined"
            assert without_path(said, run) == "RUN/data: has no attributes; run `recall prepare --run RUN`, undermined"
    problem = problem_of(DataError("/srv/x/data: no"), run=Path("/srv/x"))
    assert (problem.status, problem.message) == (422, "RUN/data: no")
