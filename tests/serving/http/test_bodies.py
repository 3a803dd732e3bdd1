"""Tests what becomes of hostile bodies: a short refusal that names the place, at a cost that the limits bound."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from recall.serving.http.bodies import read_request
from recall.serving.http.problems import ServiceError
from recall.serving.http.schemas import AddItemsRequest, DeleteItemsRequest, RecallRequest, SimilarRequest
from recall.serving.http.settings import ServiceSettings

LONE = b"\\ud800"
JSON = {"Content-Type": "application/json"}


def many(value: bytes, count: int) -> bytes:
    return b",".join([value] * count)


def refusal(body: bytes, model: Any = RecallRequest, **settings: Any) -> ServiceError:
    with pytest.raises(ServiceError) as refused:
        read_request(body, model, settings=ServiceSettings(**settings))
    return refused.value


@pytest.mark.parametrize(
    ("body", "model"),
    [
        (b'{"features":[{"a":[' + many(b"{}", 340_000) + b"]}]}", RecallRequest),
        (b'{"users":[' + many(b"0.1", 250_000) + b"]}", RecallRequest),
        (b'{"users":["a"],"filters":{"deny":[' + many(b"null", 200_000) + b"]}}", RecallRequest),
        (b'{"users":["a"],"filters":{"where":[' + many(b"{}", 300_000) + b"]}}", RecallRequest),
        (b'{"users":["a"],"histories":{' + b",".join(b'"%d":0' % n for n in range(90_000)) + b"}}", RecallRequest),
        (b'{"users":["a"],"caps":{' + b",".join(b'"%d":0' % n for n in range(90_000)) + b"}}", RecallRequest),
        (b'{"features":[{' + b",".join(b'"%d":{}' % n for n in range(90_000)) + b"}]}", RecallRequest),
        (b"{" + b",".join(b'"%d":0' % n for n in range(90_000)) + b"}", RecallRequest),
        (b'{"items":[' + many(b"1e999", 150_000) + b"]}", SimilarRequest),
        (b'{"items":[' + many(b"{}", 300_000) + b"]}", AddItemsRequest),
        (b'{"ids":[' + many(b"[]", 300_000) + b"]}", DeleteItemsRequest),
        (b"[" * 1_000_000, RecallRequest),
        (b"[" * 150_000 + b"]" * 150_000, RecallRequest),
    ],
)
def test_a_body_of_hundreds_of_thousands_of_mistakes_is_refused_before_they_are_counted(
    body: bytes, model: Any
) -> None:
    assert len(refusal(body, model).body()) < 1_000


@pytest.mark.parametrize("place", ["users", "exclude", "filters.allow", "filters.deny", "history", "items", "value"])
def test_a_list_is_read_up_to_its_first_mistake_only(place: str) -> None:
    wrong: list[Any] = ["fine"] * 3 + [{}] * 5_000
    body, model = {
        "users": ({"users": wrong}, RecallRequest),
        "exclude": ({"users": ["u"], "exclude": wrong}, RecallRequest),
        "filters.allow": ({"users": ["u"], "filters": {"allow": wrong}}, RecallRequest),
        "filters.deny": ({"users": ["u"], "filters": {"deny": wrong}}, RecallRequest),
        "history": ({"features": [{"history": wrong}]}, RecallRequest),
        "items": ({"items": wrong}, SimilarRequest),
        "value": ({"items": [{"tags": wrong}]}, AddItemsRequest),
    }[place]
    error = refusal(json.dumps(body).encode(), model)
    assert "more)" not in error.message
    assert len(error.details) == 1
    assert place == "value" or "3" in error.details[0]["location"].split(".")


def test_mistakes_are_named_by_few_and_short_lines() -> None:
    error = refusal(json.dumps({f"key {number}": 0 for number in range(9_000)} | {"x" * 9_000: 0}).encode())
    assert len(error.details) <= 5
    assert all(len(line["message"]) <= 200 for line in error.details)
    assert "(and 9,000 more)" in error.message


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b'{"users":["%s"]}', "body.users.0"),
        (b'{"users":["a"],"exclude":["b","%s"]}', "body.exclude.1"),
        (b'{"users":["a"],"filters":{"deny":["%s"]}}', "body.filters.deny.0"),
        (b'{"users":["a"],"filters":{"where":[{"column":"category","in":["%s"]}]}}', "body.filters.where.0.in.0"),
        (b'{"users":["a"],"filters":{"where":[{"column":"%s","in":["a"]}]}}', "body.filters.where.0.column"),
        (b'{"users":["a"],"histories":{"%s":["i"]}}', "body.histories"),
        (b'{"users":["a"],"caps":{"%s":1}}', "body.caps"),
        (b'{"features":[{"%s":[1]}]}', "body.features.0"),
        (b'{"features":[{"a":"x%s"}]}', "body.features.0.a"),
        (b'{"%s":{"%s":["%s"]}}', "body"),
        (b'"%s"', "body"),
    ],
)
@pytest.mark.parametrize("half", [b"\\ud800", b"\\uDFFF", b"\\udc00\\ud800"])
def test_half_of_a_surrogate_pair_is_refused_wherever_it_stands(body: bytes, place: str, half: bytes) -> None:
    error = refusal(body.replace(b"%s", half))
    assert error.status == 422
    assert error.details[0]["location"].startswith(place)
    json.loads(error.body())


def test_whole_pairs_and_escaped_backslashes_are_text() -> None:
    body = b'{"users":["\\ud83e\\udd89","\\\\ud800"]}'
    assert read_request(body, RecallRequest, settings=ServiceSettings()).users == ["🦉", "\\ud800"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"users":["a"],"users":["b"]}', "'users' stands twice"),
        (b'{"users":["\xff"]}', "expected UTF-8, found the byte 0xff at 11"),
        ('{"users":["a"]}'.encode("utf-16"), "expected UTF-8"),
        (b'{"k":' + b"9" * 100_000 + b"}", "a number has thousands of digits"),
        (b'{"users":["a"]} {}', "not JSON (Extra data at character 16)"),
    ],
)
def test_what_is_no_plain_json_is_malformed(body: bytes, said: str) -> None:
    error = refusal(body)
    assert (error.status, error.kind) == (422, "malformed")
    assert said in error.message


@pytest.mark.parametrize("digits", [19, 20, 400, 4_299])
def test_long_numbers_are_refused_or_read_and_never_cut(digits: int) -> None:
    for body in (
        {"users": ["u"], "k": int("9" * digits)},
        {"features": [{"a": int("9" * digits)}]},
        {"users": ["u"], "filters": {"where": [{"column": "a", "at_least": -int("9" * digits)}]}},
        {"users": ["u"], "min_cold_share": int("9" * digits)},
        {"users": [int("9" * digits)]},
    ):
        try:
            read = read_request(json.dumps(body).encode(), RecallRequest, settings=ServiceSettings())
        except ServiceError as refused:
            status, length = refused.status, len(refused.body())
            assert (status, length < 1_000) == (422, True)
        else:  # a bound of a filter is a float
            assert read.filters.where[0].at_least == -float("9" * digits)


@pytest.mark.parametrize(
    "headers",
    [{}, {"Content-Type": "text/plain"}, {"Content-Type": "application/x-www-form-urlencoded"},
     {"Content-Type": "application/jsonp"}, {**JSON, "Content-Encoding": "gzip"}],
)  # fmt: skip
def test_a_body_that_is_not_announced_as_plain_json_is_refused(client: TestClient, headers: dict[str, str]) -> None:
    response = client.post("/recall", content=b'{"users":["u001"]}', headers=headers)
    assert response.status_code == 422
    assert response.json()["error"]["type"] == "malformed"


def test_a_large_sound_body_is_answered(client: TestClient) -> None:
    body = {"users": ["u001"], "exclude": [f"item-{number:06d}" for number in range(9_999)], "k": 5}
    assert client.post("/recall", json=body).status_code == 200


def test_other_requests_are_answered_while_a_large_body_is_read(service: Callable[..., TestClient]) -> None:
    client = service(timeout_seconds=60)
    body = (
        b'{"users":["a"],"histories":{' + b",".join(b'"%d":[%s]' % (n, many(b'"i"', 18)) for n in range(9_000)) + b"}}"
    )
    answered = threading.Event()
    statuses = list[int]()

    def ask() -> None:
        statuses.extend(client.post("/recall", content=body, headers=JSON).status_code for _ in range(3))
        answered.set()

    asking, others = threading.Thread(target=ask), 0
    asking.start()
    while not answered.is_set():
        assert client.get("/healthz").status_code == 200
        others += 1
    asking.join()
    assert statuses == [200] * 3
    assert others > 3


def test_the_token_is_asked_for_before_the_body_is_read(service: Callable[..., TestClient]) -> None:
    client = service(allow_writes=True, token="a secret")
    for method in ("POST", "DELETE"):
        for body in (b"not JSON", b"x" * 2_000_000, b""):
            assert client.request(method, "/items", content=body).status_code == 401
