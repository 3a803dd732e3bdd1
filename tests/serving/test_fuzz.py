"""Whatever is sent, the service answers: never with a 5xx, never with what its OpenAPI page does not promise."""

from __future__ import annotations

import contextlib
import functools
import json
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from recall.serving.app import create_app
from recall.serving.schemas import RecallRequest, SimilarRequest
from recall.serving.service import recall, similar
from recall.serving.settings import ServiceSettings
from recall.serving.snapshot import Snapshot

pytest_plugins = ("finished_run", "served_run")

bounded = functools.partial(
    settings, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
ids = st.one_of(st.sampled_from(["u001", "u002", "i003", "i010"]), st.text(min_size=1, max_size=12), st.integers())
few_ids = st.lists(ids, min_size=1, max_size=3)
values = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12), st.just([1.5, 2]))
rows = st.dictionaries(
    st.sampled_from(["user_id", "age_band", "history", "history_times_ms", "x"]), values | st.lists(ids)
)
predicates = st.dictionaries(
    st.sampled_from(["column", "in", "not_in", "at_least", "at_most", "newer_than_hours"]),
    st.sampled_from(["category", "tags", "duration_s", "x"]) | values | st.lists(values, max_size=2),
)
plausible = st.fixed_dictionaries(
    {},
    optional={
        "users": st.lists(ids, max_size=3),
        "features": st.lists(rows, max_size=3),
        "items": st.lists(ids, max_size=3),
        "k": st.integers(-1, 2000) | st.floats(),
        "histories": st.dictionaries(st.sampled_from(["u001", "u002"]), st.lists(ids, max_size=3)),
        "exclude": st.lists(ids, max_size=3),
        "filters": st.fixed_dictionaries(
            {}, optional={"allow": st.lists(ids, max_size=3), "deny": st.lists(ids), "where": st.lists(predicates)}
        ),
        "caps": st.dictionaries(st.sampled_from(["author_id", "tags", "x"]), st.integers(0, 3)),
        "min_cold_share": st.floats(-0.1, 1.1),
        "fallback": st.booleans(),
        "exclude_seen": st.booleans() | st.none(),
        "details": st.booleans(),
    },
)
anything = st.recursive(
    values, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)


CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def fuzzed(run: Path, snapshot: Snapshot) -> Any:
    """Client of an application for all examples."""
    with TestClient(create_app(run, snapshot=snapshot), raise_server_exceptions=False) as client:
        yield client


def post(client: TestClient, path: str, content: bytes) -> None:
    response = client.post(path, content=content, headers={"Content-Type": "application/json"})
    assert response.status_code in (200, 413, 422), response.text
    body = response.json()
    assert set(body) == ({"results", "version"} if response.status_code == 200 else {"error"})


@bounded(max_examples=150)
@given(path=st.sampled_from(["/recall", "/similar"]), body=plausible | anything)
def test_any_json_gets_an_answer(fuzzed: TestClient, path: str, body: Any) -> None:
    post(fuzzed, path, json.dumps(body).encode())  # NaN and lone surrogates included, as Python writes them


@bounded(max_examples=60)
@given(path=st.sampled_from(["/recall", "/similar"]), body=st.binary(max_size=200))
def test_any_bytes_get_an_answer(fuzzed: TestClient, path: str, body: bytes) -> None:
    post(fuzzed, path, body)


@bounded(max_examples=25)
@given(
    chosen=st.lists(st.tuples(st.lists(ids, min_size=1, max_size=3), st.lists(ids, max_size=2)), min_size=1, max_size=4)
)
def test_joined_requests_are_answered_as_each_alone(
    snapshot: Snapshot, chosen: list[tuple[list[Any], list[Any]]]
) -> None:
    requests = []
    for users, history in chosen:
        try:
            body = {"users": users, "histories": {users[0]: history}, "k": 5}
            requests.append(RecallRequest.model_validate(body))
        except ValueError:  # blank ids and those of more than 64 bits
            continue
    joined = [_names(answer) for answer in recall(snapshot, requests)] if requests else []
    assert joined == [_names(recall(snapshot, [request])[0]) for request in requests]


def test_an_unknown_item_spoils_no_other_request(snapshot: Snapshot) -> None:
    requests = [SimilarRequest(items=[item], k=5) for item in ("i003", "nope", "i010")]
    first, unknown, last = similar(snapshot, requests)
    assert "nope" in str(unknown)
    for answer, request in ((first, requests[0]), (last, requests[2])):
        assert _names(answer) == _names(similar(snapshot, [request])[0])


def _names(answer: Any) -> list[list[str]]:
    return [[item["id"] for item in result["items"]] for result in answer["results"]]


def test_the_openapi_page_keeps_its_promises(run: Path, snapshot: Snapshot) -> None:
    app = create_app(run, ServiceSettings(max_k=100, max_batch=5), snapshot=snapshot)
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    asked = set()
    with TestClient(app):  # starts the application
        for operation in schema.get_all_operations():
            for mode in GenerationMode.POSITIVE, GenerationMode.NEGATIVE:

                @bounded(max_examples=20)
                @given(case=operation.ok().as_strategy(generation_mode=mode))
                def ask(case: Any) -> None:
                    case.call_and_validate(checks=CHECKS)
                    asked.add((case.method, case.path))

                with contextlib.suppress(Unsatisfiable):  # nothing can be wrong about a request without parameters
                    ask()
    assert {("POST", "/recall"), ("POST", "/similar"), ("POST", "/items"), ("DELETE", "/items")} <= asked
    assert {("GET", path) for path in ("/healthz", "/readyz", "/metrics")} <= asked
