"""Tests which Host headers are answered."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient

from recall.serving.http.hosts import LOOPBACK
from tests.helpers.served_run import Server


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost", 200), ("LOCALHOST:8080", 200), ("localhost.", 200), ("127.0.0.1:1", 200), ("[::1]", 200),
     ("[::1]:8080", 200), ("evil.example", 421), ("localhost.evil.example", 421), ("127.0.0.1.evil.example:80", 421),
     ("evil.example:80@localhost", 421), ("", 421), ("[::2]:80", 421)],
)  # fmt: skip
def test_only_names_of_the_service_are_answered(service: Callable[..., TestClient], host: str, status: int) -> None:
    client = service(hosts=LOOPBACK)
    for path in ("/healthz", "/", "/docs"):
        response = client.get(path, headers={"Host": host})
        assert response.status_code == status
        if status == 421:
            assert response.json()["error"]["type"] == "wrong_host"


def test_a_service_for_its_own_machine_answers_to_its_own_names_alone(
    serve: Callable[..., Server], run: Path, http: httpx.Client
) -> None:
    server = serve(run)
    assert http.get(f"{server.url}/healthz").status_code == 200
    assert http.get(f"{server.url}/healthz", headers={"Host": "rebound.example"}).status_code == 421
