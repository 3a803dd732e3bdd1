"""Tests adding and deleting items over HTTP: who may write, and what readers see of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from recall.core.artifacts import read_json, read_manifest, write_json
from recall.index import load_index, save_index
from recall.serving.http.app import create_app
from recall.serving.http.settings import ServiceSettings
from recall.serving.http.snapshot import Snapshot

TOKEN = "a token of forty characters, more or less"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def own_run(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the run, for tests that write to it; each has items of its own."""
    return Path(shutil.copytree(run, tmp_path_factory.mktemp("written") / "run"))


@pytest.fixture(scope="module")
def writer(own_run: Path) -> Iterator[TestClient]:
    """Return the client of a service that takes writes with a token."""
    # A version that is loaded has the garbage of the whole process collected: seconds, after thousands of other tests.
    settings = ServiceSettings(allow_writes=True, token=SecretStr(TOKEN), reload_seconds=0.05, timeout_seconds=60)
    app = create_app(own_run, settings, snapshot=Snapshot.load(own_run, living=True))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def new(item: str) -> dict[str, Any]:
    return {"item_id": item, "title": "Brand new", "category": "c0", "tags": ["t1"], "duration_s": 30.0}


def items(client: TestClient) -> int:
    return int(client.get("/readyz").json()["items"])


def loads(client: TestClient) -> str:
    lines = client.get("/metrics").text.splitlines()
    return next(line for line in lines if line.startswith('recall_reloads_total{outcome="loaded"}'))


def change(client: TestClient, method: str, body: dict[str, Any], headers: dict[str, str] = BEARER) -> Any:
    return client.request(method, "/items", json=body, headers=headers)


def like(client: TestClient, item: str, k: int = 5) -> Any:
    return client.post("/similar", json={"items": [item], "k": k, "details": True})


def is_found(client: TestClient, item: str) -> bool:
    found = client.post("/recall", json={"users": ["u001"], "k": 1000, "exclude_seen": False}).json()["results"][0]
    return item in {candidate["id"] for candidate in found["items"]}


def test_writes_are_off_unless_they_are_allowed(client: TestClient) -> None:
    for method, body in (("POST", {"items": [new("new-0")]}), ("DELETE", {"ids": ["i003"]})):
        response = change(client, method, body)
        assert response.status_code == 403
        assert response.json()["error"]["type"] == "writes_disabled"
    assert is_found(client, "i003")


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer guess"}, {"Authorization": f"Basic {TOKEN}"}, {"Authorization": TOKEN}]
)
def test_only_who_knows_the_token_may_write(writer: TestClient, headers: dict[str, str]) -> None:
    for method, body in (("POST", {"items": [new("new-0")]}), ("DELETE", {"ids": ["i003"]})):
        response = change(writer, method, body, headers)
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"] == "Bearer"
    assert is_found(writer, "i003")
    assert not is_found(writer, "new-0")


def test_a_new_item_is_found_at_once_and_a_deleted_one_never_again(writer: TestClient) -> None:
    before = items(writer)
    answer = change(writer, "POST", {"items": [new("new-1")]})
    assert answer.status_code == 200, answer.text
    assert answer.json()["items"] == 1
    assert is_found(writer, "new-1")
    assert like(writer, "new-1").status_code == 200
    assert items(writer) == before + 1
    assert change(writer, "DELETE", {"ids": ["new-1", "i004"]}).json()["items"] == 2
    assert not is_found(writer, "new-1")
    assert not is_found(writer, "i004")
    assert like(writer, "i004").status_code == 422
    assert items(writer) == before - 1


def test_a_new_item_has_its_details_at_once(writer: TestClient) -> None:
    assert change(writer, "POST", {"items": [new("new-d")]}).status_code == 200
    body = {"users": ["u001"], "k": 9, "filters": {"allow": ["new-d"]}, "details": True}
    [item] = writer.post("/recall", json=body).json()["results"][0]["items"]
    assert (item["title"], item["exposures"]) == ("Brand new", 0)
    assert 0 <= item["gate_share"] <= 1
    assert change(writer, "DELETE", {"ids": ["new-d"]}).status_code == 200


def test_what_can_be_added_can_be_asked_for_left_out_and_deleted_however_long_its_id(writer: TestClient) -> None:
    longest = "x" * 512
    assert change(writer, "POST", {"items": [new(longest + "x")]}).status_code == 422
    assert change(writer, "POST", {"items": [new(longest)]}).status_code == 200
    assert is_found(writer, longest)
    assert like(writer, longest).status_code == 200
    for without in ({"exclude": [longest]}, {"filters": {"deny": [longest]}}):
        body = {"users": ["u001"], "k": 1000, "exclude_seen": False, **without}
        assert longest not in writer.post("/recall", json=body).text
    assert change(writer, "DELETE", {"ids": [longest]}).status_code == 200


def test_a_service_that_takes_no_writes_shows_those_of_another(writer: TestClient, own_run: Path) -> None:
    settings = ServiceSettings(reload_seconds=0.05, timeout_seconds=60)
    with TestClient(create_app(own_run, settings), raise_server_exceptions=False) as reader:
        while reader.get("/readyz").status_code != 200:
            pass
        assert change(writer, "POST", {"items": [new("new-r")]}).status_code == 200
        assert change(writer, "DELETE", {"ids": ["i008"]}).status_code == 200
        while is_found(reader, "i008"):
            pass
        assert is_found(reader, "new-r")
        assert items(reader) == items(writer)
        assert change(reader, "DELETE", {"ids": ["i009"]}).status_code == 403
    assert change(writer, "DELETE", {"ids": ["new-r"]}).status_code == 200


def test_a_service_that_cannot_follow_says_so_and_follows_again_when_it_can(writer: TestClient, own_run: Path) -> None:
    assert change(writer, "POST", {"items": [new("new-f")]}).status_code == 200
    settings = ServiceSettings(reload_seconds=0.02, retry_seconds=0.02, timeout_seconds=60)
    app = create_app(own_run, settings, snapshot=Snapshot.load(own_run, living="read_only"))
    with TestClient(app, raise_server_exceptions=False) as reader:
        assert is_found(reader, "new-f")
        listed = own_run / "index" / "journal" / "files.json"
        whole = listed.read_bytes()
        listed.write_bytes(b"damaged")
        assert change(writer, "DELETE", {"ids": ["new-f"]}).status_code == 200

        def work() -> dict[str, Any]:
            return dict(reader.get("/readyz").json()["background"]["reload"])

        while work()["failures"] < 2:
            assert is_found(reader, "new-f"), "it answers as before"
        assert work()["error"] == "ArtifactError"
        assert 'recall_background_consecutive_failures{work="reload"} 0.0' not in reader.get("/metrics").text
        listed.write_bytes(whole)
        while is_found(reader, "new-f"):
            pass
        while work()["failures"]:
            pass
        assert 'recall_background_consecutive_failures{work="reload"} 0.0' in reader.get("/metrics").text


def test_changes_stay_when_a_new_version_of_the_index_is_published(writer: TestClient, own_run: Path) -> None:
    assert change(writer, "POST", {"items": [new("new-2")]}).status_code == 200
    assert change(writer, "DELETE", {"ids": ["i005"]}).status_code == 200
    fingerprint = read_manifest(own_run / "model", made_by="")["fingerprint"]
    version = save_index(load_index(own_run / "index"), own_run / "index", fingerprint=fingerprint)
    while writer.get("/readyz").json()["version"] != f"{fingerprint}/{version.name}":
        assert is_found(writer, "new-2")
    assert is_found(writer, "new-2")
    assert not is_found(writer, "i005")
    assert change(writer, "DELETE", {"ids": ["new-2"]}).status_code == 200


def test_a_new_model_takes_over_from_one_that_can_be_written_to(writer: TestClient, own_run: Path) -> None:
    assert change(writer, "DELETE", {"ids": ["i006"]}).status_code == 200
    manifest, before = own_run / "model" / "manifest.json", loads(writer)
    write_json(manifest, read_json(manifest), checksummed=True)  # published again, with the same content
    while loads(writer) == before:
        assert like(writer, "i010").status_code == 200
    assert not is_found(writer, "i006")
    assert change(writer, "POST", {"items": [new("new-3")]}).status_code == 200
    assert is_found(writer, "new-3")


@pytest.mark.parametrize(
    "row",
    [{"title": "no id"}, {**new("new-4"), "duration_s": "long"}, new("i007"), {**new("new-4"), "text": [1.0]}, {}],
)
def test_a_row_that_is_not_as_the_items_file_has_them_is_a_422_and_changes_nothing(
    writer: TestClient, row: dict[str, Any]
) -> None:
    before = items(writer)
    response = change(writer, "POST", {"items": [row]})
    assert response.status_code == 422, response.text
    assert items(writer) == before


def test_the_service_builds_its_index_anew_as_often_as_it_is_told(run: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(run, tmp_path / "run"))
    settings = ServiceSettings(
        allow_writes=True, reload_seconds=0.05, rebalance_seconds=0.05, rebalance_share=0, rebalance_changes=1
    )
    app = create_app(copied, settings, snapshot=Snapshot.load(copied, living=True))
    with TestClient(app, raise_server_exceptions=False) as client:
        before = client.get("/readyz").json()["version"]
        assert change(client, "POST", {"items": [new("new-1")]}).status_code == 200
        while client.get("/readyz").json()["version"] == before:
            assert like(client, "new-1").status_code == 200
        assert like(client, "new-1").status_code == 200
    assert "new-1" in load_index(copied / "index").ids, "it was compared one by one only until then"
