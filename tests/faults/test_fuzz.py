"""Whatever is sent, the service answers: never with a 5xx, never with what its OpenAPI page does not promise."""

from __future__ import annotations

import collections
import contextlib
import functools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
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

from recall.serving.http.app import create_app
from recall.serving.http.schemas import RecallRequest, SimilarRequest
from recall.serving.http.service import recall, similar
from recall.serving.http.settings import ServiceSettings
from recall.serving.http.snapshot import Snapshot

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
known_users, known_items = st.sampled_from(["u001", "u002", "nobody"]), st.sampled_from(["i003", "i010", "i020"])
wanted: dict[str, Any] = {
    "k": st.integers(1, 50),
    "exclude": st.lists(ids, max_size=3),
    "filters": st.fixed_dictionaries(
        {},
        optional={
            "allow": st.lists(known_items | ids, max_size=3),
            "deny": st.lists(ids, max_size=3),
            "where": st.lists(
                st.fixed_dictionaries({"column": st.just("category"), "in": st.lists(st.text(max_size=3), max_size=2)})
                | st.fixed_dictionaries({"newer_than_hours": st.floats(0, 100)}),
                max_size=2,
            ),
        },
    ),
    "caps": st.fixed_dictionaries({}, optional={"author_id": st.integers(1, 3), "tags": st.integers(1, 3)}),
    "min_cold_share": st.floats(0, 1),
    "fallback": st.booleans(),
    "details": st.booleans(),
}
# What a careful client sends, and then some.
sound = {
    "/recall": st.fixed_dictionaries(
        {"users": st.lists(known_users, min_size=1, max_size=3)}, optional={**wanted, "exclude_seen": st.booleans()}
    )
    | st.fixed_dictionaries(
        {"features": st.lists(st.just({"history": ["i003"]}), min_size=1, max_size=3)}, optional=wanted
    ),
    "/similar": st.fixed_dictionaries({"items": st.lists(known_items, min_size=1, max_size=3)}, optional=wanted),
}
contents = st.fixed_dictionaries(
    {"item_id": st.text(min_size=1, max_size=12)},
    optional={
        "title": st.text(max_size=9),
        "category": st.text(max_size=9),
        "tags": st.lists(st.text(max_size=3), max_size=3),
        "duration_s": st.floats(0, 1e6) | st.none(),
    },
)
anything = st.recursive(
    values, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)


_answers: collections.Counter[tuple[str, int]] = collections.Counter()  # by what was sent, and status

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module", autouse=True)
def counted(account: Callable[..., None]) -> Iterator[None]:
    """Notes what was sent, and with which status it was answered."""
    yield
    for sent in sorted({sent for sent, _ in _answers}):
        statuses = {status: times for (own, status), times in sorted(_answers.items()) if own == sent}
        found = ", ".join(f"{times} x {status}" for status, times in statuses.items())
        account(f"fuzz: {sent}", sum(statuses.values()), "nothing", f"no 5xx: {found}")


@pytest.fixture(scope="module")
def fuzzed(run: Path, snapshot: Snapshot) -> Any:
    """Client of an application for all examples."""
    with TestClient(create_app(run, snapshot=snapshot), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def writable(run: Path, tmp_path: Path) -> FastAPI:
    """An application that takes writes, on a run of its own."""
    own = Path(shutil.copytree(run, tmp_path / "run"))
    settings = ServiceSettings(max_k=100, max_batch=5, allow_writes=True)
    return create_app(own, settings, snapshot=Snapshot.load(own, living=True))


def post(client: TestClient, path: str, content: bytes, *, kind: str) -> None:
    response = client.post(path, content=content, headers={"Content-Type": "application/json"})
    assert response.status_code in (200, 413, 422), response.text
    body = response.json()
    assert set(body) == ({"results", "version"} if response.status_code == 200 else {"error"})
    _answers[f"{kind} to POST {path}", response.status_code] += 1


@bounded(max_examples=150)
@given(path=st.sampled_from(["/recall", "/similar"]), body=plausible | anything)
def test_any_json_gets_an_answer(fuzzed: TestClient, path: str, body: Any) -> None:
    # NaN and lone surrogates included, as Python writes them.
    post(fuzzed, path, json.dumps(body).encode(), kind="any JSON")


@pytest.mark.parametrize("path", sound)
def test_what_a_client_may_ask_is_answered(fuzzed: TestClient, path: str) -> None:
    @bounded(max_examples=60)
    @given(body=sound[path])
    def ask(body: Any) -> None:
        post(fuzzed, path, json.dumps(body).encode(), kind="sound JSON")

    ask()
    answers = {status: times for (sent, status), times in _answers.items() if sent == f"sound JSON to POST {path}"}
    assert answers[200] > sum(answers.values()) / 2


@bounded(max_examples=60)
@given(path=st.sampled_from(["/recall", "/similar"]), body=st.binary(max_size=200))
def test_any_bytes_get_an_answer(fuzzed: TestClient, path: str, body: bytes) -> None:
    post(fuzzed, path, body, kind="any bytes")


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


def test_items_of_any_content_come_and_go(writable: FastAPI) -> None:
    kind, added = "sound JSON to {} /items", set[str]()
    with TestClient(writable, raise_server_exceptions=False) as client:

        @bounded(max_examples=40)
        @given(items=st.lists(contents, min_size=1, max_size=3, unique_by=lambda row: row["item_id"].strip()))
        def change(items: list[dict[str, Any]]) -> None:
            answer = client.post("/items", json={"items": items})
            assert answer.status_code in (200, 422), answer.text
            _answers[kind.format("POST"), answer.status_code] += 1
            if answer.status_code == 200:
                added.update(row["item_id"] for row in items)
            if len(gone := sorted(added)[:5]) == 5:
                answer = client.request("DELETE", "/items", json={"ids": gone})
                assert answer.status_code == 200, answer.text
                _answers[kind.format("DELETE"), answer.status_code] += 1
                added.difference_update(gone)

        change()
    assert _answers[kind.format("POST"), 200] > _answers[kind.format("POST"), 422]
    assert _answers[kind.format("DELETE"), 200]


def test_the_openapi_page_keeps_its_promises(writable: FastAPI) -> None:
    app = writable
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    asked = set()
    with TestClient(app):  # starts the application
        for operation in schema.get_all_operations():
            for mode in GenerationMode.POSITIVE, GenerationMode.NEGATIVE:

                @bounded(max_examples=20)
                @given(case=operation.ok().as_strategy(generation_mode=mode))
                def ask(case: Any) -> None:
                    answer = case.call_and_validate(checks=CHECKS)
                    asked.add((case.method, case.path))
                    _answers[f"the OpenAPI page's {case.method} {case.path}", answer.status_code] += 1

                with contextlib.suppress(Unsatisfiable):  # nothing can be wrong about a request without parameters
                    ask()
    assert {("POST", "/recall"), ("POST", "/similar"), ("POST", "/items"), ("DELETE", "/items")} <= asked
    assert {("GET", path) for path in ("/healthz", "/readyz", "/metrics")} <= asked
