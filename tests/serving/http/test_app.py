"""Tests the routes: answers, errors, limits, tokens, measurements."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from recall.config.experiment import Config
from recall.core.errors import ConfigError
from recall.serving.http.app import create_app
from recall.serving.http.settings import ServiceSettings, read_settings
from recall.serving.http.snapshot import Snapshot
from recall.serving.recaller import Recaller

JSON = {"Content-Type": "application/json"}
TOKEN = "a token of forty characters, more or less"


@pytest.fixture(scope="module")
def recaller(run: Path) -> Recaller:
    """Load the recaller that the service should agree with, apart from it."""
    return Recaller.load(run)


def metric(client: TestClient, name: str, **labels: str) -> float:
    """Read the value of one series as Prometheus does."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    [value] = [
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    return float(value)


# Candidates


def test_users_get_what_the_recaller_gives_them(client: TestClient, recaller: Recaller) -> None:
    users = ["u001", "u017", "never seen", "Ünïcödé 用户 🦉"]
    response = client.post("/recall", json={"users": users, "k": 7})
    assert response.status_code == 200, response.text
    expected = recaller.recall(users, k=7, fallback=True)
    for result, ids, scores in zip(response.json()["results"], expected.ids, expected.scores, strict=True):
        assert [item["id"] for item in result["items"]] == list(ids)
        np.testing.assert_allclose([item["score"] for item in result["items"]], scores, rtol=1e-5)
        assert set(result["items"][0]) == {"id", "score"}


def test_ages_count_from_the_moment_of_the_request_and_not_from_the_end_of_the_log(
    client: TestClient, recaller: Recaller, run: Path
) -> None:
    where = [{"newer_than_hours": 24}]
    end_ms = json.loads((run / "data" / "manifest.json").read_text())["last_time_ms"]

    def ids(filters: dict[str, Any]) -> list[list[str]]:
        response = client.post("/recall", json={"users": ["u001"], "k": 300, "filters": filters, "fallback": False})
        assert response.status_code == 200, response.text
        return [[item["id"] for item in result["items"]] for result in response.json()["results"]]

    def expected(at_ms: int) -> list[list[str]]:
        found = recaller.recall(["u001"], k=300, filters={"where": where, "at_ms": at_ms}).ids
        return [[name for name in row if name is not None] for row in found]

    assert ids({"where": where, "at_ms": end_ms}) == expected(end_ms)
    # The log ended long ago, so that by now only items without exposures are new, as they will be in 2099.
    assert ids({"where": where}) == expected(4_070_908_800_000) != expected(end_ms)


def test_clicks_after_the_end_of_the_log_have_an_age(client: TestClient, run: Path) -> None:
    end_ms = json.loads((run / "data" / "manifest.json").read_text())["last_time_ms"]

    def scores(**times: list[int]) -> list[float]:
        response = client.post("/recall", json={"features": [{"history": ["i003", "i007"], **times}], "k": 20})
        assert response.status_code == 200, response.text
        return [item["score"] for item in response.json()["results"][0]["items"]]

    # The model reads times. Counted from the end of the log, these would be unknown, as those that are not given.
    assert scores(history_times_ms=[end_ms + 3_600_000, end_ms + 7_200_000]) != scores()


def test_version_is_the_models_fingerprint_and_the_number_of_the_index(client: TestClient, run: Path) -> None:
    version = client.post("/similar", json={"items": ["i003"]}).json()["version"]
    assert re.fullmatch(r"[0-9a-f]{16}/0001", version)
    ready = client.get("/readyz").json()
    assert {name: ready[name] for name in ("status", "version", "items")} == {
        "status": "ready", "version": version, "items": 150
    }  # fmt: skip
    assert {name: (work["failures"], work["error"]) for name, work in ready["background"].items()} == {
        "reload": (0, None)
    }


def test_whole_numbers_are_ids(client: TestClient) -> None:
    as_number, as_text = (client.post("/recall", json={"users": [user]}).json() for user in (12, "12"))
    assert as_number == as_text


def test_a_history_in_the_request_takes_the_place_of_the_log(client: TestClient, recaller: Recaller) -> None:
    clicked = ["i003", "i010", "i021"]
    body = {"users": ["u001"], "histories": {"u001": clicked}, "k": 20}
    found = [item["id"] for item in client.post("/recall", json=body).json()["results"][0]["items"]]
    assert found == list(recaller.recall(["u001"], histories={"u001": clicked}, k=20).ids[0])
    assert not set(clicked) & set(found)


def test_users_whom_no_file_knows_are_asked_for_by_features(client: TestClient, recaller: Recaller) -> None:
    rows: list[dict[str, Any]] = [{"age_band": "18-24", "history": ["i003", "i010"]}, {"age_band": None}]
    response = client.post("/recall", json={"features": rows, "k": 5})
    assert response.status_code == 200, response.text
    expected = recaller.recall(features=rows, k=5).ids
    assert [[item["id"] for item in result["items"]] for result in response.json()["results"]] == expected.tolist()


@pytest.mark.parametrize(
    "options",
    [
        {"filters": {"where": [{"column": "category", "in": ["c0", "c1", "c2"]}], "deny": ["i003"]}},
        {"exclude": ["i003", "i010", "i021", "unheard of"]},
        {"caps": {"author_id": 1}},
        {"min_cold_share": 0.5},
        {"exclude_seen": False},
    ],
)
def test_options_mean_what_they_mean_to_the_recaller(
    client: TestClient, recaller: Recaller, options: dict[str, Any]
) -> None:
    response = client.post("/recall", json={"users": ["u001", "u002"], "k": 10, **options})
    assert response.status_code == 200, response.text
    expected = recaller.recall(["u001", "u002"], k=10, fallback=True, **options).ids
    found = [[item["id"] for item in result["items"]] for result in response.json()["results"]]
    assert found == [[item for item in ids if item is not None] for ids in expected]
    if "exclude_seen" not in options:
        similar = client.post("/similar", json={"items": ["i100"], "k": 10, **options})
        expected = recaller.similar(["i100"], k=10, fallback=True, **options).ids
        assert [item["id"] for item in similar.json()["results"][0]["items"]] == [
            i for i in expected[0] if i is not None
        ]


def test_who_clicked_nothing_gets_the_fallback_unless_it_is_not_wanted(client: TestClient) -> None:
    sources = [
        [result["source"] for result in client.post("/recall", json=body).json()["results"]]
        for body in ({"users": ["u001", "nobody"]}, {"users": ["nobody"], "fallback": False})
    ]
    assert sources == [["model", "fallback"], ["model"]]


def test_predicates_that_leave_nothing_are_given_up_if_the_caller_lets_them_and_lists_of_ids_never(
    client: TestClient,
) -> None:
    lists = {"allow": ["i003", "i010", "i011"], "deny": ["i011"]}
    nothing = {"users": ["u001"], "exclude_seen": False}
    nothing["filters"] = {**lists, "where": [{"column": "duration_s", "at_least": 1e9}]}
    for fallback, source, relaxed in ((True, "fallback", True), ("filtered", "model", None), (False, "model", None)):
        [result] = client.post("/recall", json={**nothing, "fallback": fallback}).json()["results"]
        assert {item["id"] for item in result["items"]} == ({"i003", "i010"} if relaxed else set())
        assert (result["source"], result.get("relaxed")) == (source, relaxed)
    for user in ("u001", "nobody"):
        body = {"users": [user], "filters": lists, "exclude_seen": False}
        [result] = client.post("/recall", json=body).json()["results"]
        assert {item["id"] for item in result["items"]} == {"i003", "i010"}
        assert "relaxed" not in result
    response = client.post("/recall", json={**nothing, "fallback": "sometimes"})
    assert response.status_code == 422
    assert "body.fallback" in response.json()["error"]["message"]


def test_items_get_what_the_recaller_gives_them(client: TestClient, recaller: Recaller) -> None:
    found = client.post("/similar", json={"items": ["i003", "i100"], "k": 4}).json()["results"]
    expected = recaller.similar(["i003", "i100"], k=4).ids
    assert [[item["id"] for item in result["items"]] for result in found] == expected.tolist()


def test_details_are_title_gate_share_and_exposures(client: TestClient, run: Path, settings: Config) -> None:
    titles = pd.read_parquet(settings.data.items.path).set_index("item_id").title
    vectors = pd.read_parquet(run / "vectors" / "vectors.parquet").set_index("item_id")
    found = client.post("/recall", json={"users": ["u001"], "k": 30, "details": True}).json()["results"][0]["items"]
    assert len(found) == 30
    for item in found:
        assert item["title"] == titles[item["id"]]
        assert item["gate_share"] == pytest.approx(vectors.behaviour_share[item["id"]])
        assert item["exposures"] == vectors.exposures[item["id"]]


# Errors


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/recall", b"", "body: Field required"),
        ("/recall", b"{", "JSON"),
        ("/recall", b"\xff\xfe\x00", ""),
        ("/recall", b"[" * 100_000, ""),
        ("/recall", b'{"k": ' + b"1" * 5_000 + b"}", ""),
        ("/recall", b"{}", "expected either users or features, found neither"),
        ("/recall", b'{"users": ["u"], "features": [{}]}', "expected either users or features, found both"),
        ("/recall", b'{"users": []}', "body.users: List should have at least 1 item"),
        ("/recall", b'{"users": "u001"}', "body.users"),
        ("/recall", b'{"users": [NaN]}', "body.users.0"),
        ("/recall", b'{"users": [null]}', "body.users.0"),
        ("/recall", b'{"users": [true]}', "body.users.0"),
        ("/recall", b'{"users": [" "]}', "body.users.0"),
        ("/recall", b'{"users": ["\\ud800"]}', "body.users.0"),
        ("/recall", b'{"users": ["' + b"u" * 513 + b'"]}', "at most 512 characters"),
        ("/recall", b'{"users": ["u"], "k": 0}', "body.k"),
        ("/recall", b'{"users": ["u"], "k": 1e3}', "body.k"),
        ("/recall", b'{"users": ["u"], "k": Infinity}', "body.k"),
        ("/recall", b'{"users": ["u"], "limit": 5}', "body.limit: Extra inputs are not permitted"),
        ("/recall", b'{"features": [{"age_band": NaN}]}', "body.features.0.age_band"),
        ("/recall", b'{"features": [{"age_band": {"of": []}}]}', "body.features.0.age_band"),
        ("/recall", b'{"features": [{"history": ["i003"], "history_times_ms": []}]}', "one time for each"),
        ("/recall", b'{"features": [{"history_times_ms": "now"}]}', "history_times_ms"),
        ("/recall", b'{"users": ["u"], "filters": {"were": []}}', "body.filters.were"),
        ("/recall", b'{"users": ["u"], "filters": {"where": [{"column": "nope", "in": [1]}]}}', "nope"),
        ("/recall", b'{"users": ["u"], "filters": {"where": [{"column": "category", "at_least": NaN}]}}', "at_least"),
        ("/recall", b'{"users": ["u"], "caps": {"nope": 1}}', "nope"),
        ("/recall", b'{"users": ["u"], "caps": {"author_id": 0}}', "body.caps.author_id"),
        ("/recall", b'{"users": ["u"], "min_cold_share": 1.5}', "body.min_cold_share"),
        ("/similar", b'{"items": ["i003", "nope"]}', "nope"),
        ("/similar", b'{"items": 3}', "body.items"),
    ],
)
def test_bad_input_is_a_422_of_one_shape(client: TestClient, path: str, body: bytes, said: str) -> None:
    response = client.post(path, content=body, headers=JSON)
    assert response.status_code == 422, response.text
    error = response.json()["error"]
    assert set(response.json()) == {"error"}
    assert set(error) == {"type", "message", "details"}
    assert error["type"] in ("invalid", "malformed")
    assert said in error["message"]
    assert len(response.content) < 5_000


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [("GET", "/nope", 404, "not_found"), ("GET", "/recall", 405, "method_not_allowed")],
)
def test_what_is_not_there_has_the_same_shape(
    client: TestClient, method: str, path: str, status: int, kind: str
) -> None:
    response = client.request(method, path)
    assert response.status_code == status
    assert response.json()["error"]["type"] == kind


def test_a_bug_is_a_500_that_tells_nothing_of_it(run: Path, snapshot: Snapshot) -> None:
    app = create_app(run, snapshot=snapshot)

    @app.get("/bug")
    async def bug() -> None:
        raise ZeroDivisionError("secret")

    with TestClient(app, raise_server_exceptions=False) as client:
        response = client.get("/bug", headers={"X-Request-ID": "asked-1"})
    assert response.status_code == 500
    assert response.json()["error"]["type"] == "internal"
    assert "secret" not in response.text
    assert response.headers["X-Request-ID"] == "asked-1"


def test_a_request_has_the_id_that_it_brings_if_that_is_a_plain_one(client: TestClient) -> None:
    assert client.get("/healthz", headers={"X-Request-ID": "abc-1"}).headers["X-Request-ID"] == "abc-1"
    made = client.get("/healthz", headers={"X-Request-ID": 'a"b'}).headers["X-Request-ID"]
    assert re.fullmatch("[0-9a-f]{32}", made)


# Limits


@pytest.mark.parametrize(
    ("limit", "within", "beyond"),
    [
        ({"max_k": 5}, {"users": ["u"], "k": 5}, {"users": ["u"], "k": 6}),
        ({"max_batch": 2}, {"users": ["a", "b"]}, {"users": ["a", "b", "c"]}),
        ({"max_batch": 2}, {"features": [{}, {}]}, {"features": [{}, {}, {}]}),
        ({"max_list": 2}, {"users": ["a"], "exclude": ["i", "j"]}, {"users": ["a"], "exclude": ["i", "j", "k"]}),
        (
            {"max_list": 2},
            {"users": ["a"], "histories": {"a": ["i", "j"]}},
            {"users": ["a"], "histories": {"a": ["i", "j", "k"]}},
        ),
        ({"max_list": 2}, {"features": [{"history": ["i"]}]}, {"features": [{"history": ["i"]}, {"x": [1, 2, 3]}]}),
    ],
)
def test_limits_let_through_what_they_say_and_no_more(
    service: Callable[..., TestClient], limit: dict[str, int], within: dict[str, Any], beyond: dict[str, Any]
) -> None:
    client = service(**limit)
    assert client.post("/recall", json=within).status_code == 200
    refused = client.post("/recall", json=beyond)
    assert refused.status_code == 422
    assert refused.json()["error"]["type"] == "over_limit"


def test_a_body_may_have_as_many_bytes_as_the_limit_says(service: Callable[..., TestClient]) -> None:
    client, body = service(max_body_bytes=100), b'{"users": ["u001"]}'
    assert client.post("/recall", content=body.ljust(100), headers=JSON).status_code == 200
    for content in (body.ljust(101), (part for part in (body, b" " * 90))):  # with its length announced, and without
        response = client.post("/recall", content=content, headers=JSON)
        assert response.status_code == 413
        assert response.json()["error"]["type"] == "body_too_large"


def test_a_million_ids_or_one_of_ten_megabytes_are_refused_unread(client: TestClient) -> None:
    for users in (["u"] * 1_000_000, ["u" * 10_000_000]):
        assert client.post("/recall", json={"users": users}).status_code == 413


def test_what_takes_too_long_is_a_504(service: Callable[..., TestClient]) -> None:
    client = service(timeout_seconds=0.02, batch_wait_ms=1000)
    response = client.post("/recall", json={"users": ["u001"]})
    assert response.status_code == 504
    assert response.json()["error"]["type"] == "timeout"


def test_the_openapi_page_shows_the_limits(service: Callable[..., TestClient]) -> None:
    schemas = service(max_k=77, max_batch=33).get("/openapi.json").json()["components"]["schemas"]
    assert schemas["RecallRequest"]["properties"]["k"]["maximum"] == 77
    assert schemas["SimilarRequest"]["properties"]["items"]["maxItems"] == 33


# Readiness and measurements


def test_a_run_that_does_not_load_is_alive_but_never_ready_and_says_why(tmp_path: Path) -> None:
    failures: list[Exception] = []
    with TestClient(create_app(tmp_path, on_failure=failures.append)) as client:
        assert client.get("/healthz").status_code == 200
        response = client.get("/readyz")
        assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
        assert client.post("/recall", json={"users": ["u"]}).json()["error"]["type"] == "not_ready"
        while not failures:
            client.get("/healthz")
    assert "not there yet; run `recall run" in str(failures[0])


def test_metrics_count_requests_results_and_batches(client: TestClient) -> None:
    for _ in range(3):
        client.post("/recall", json={"users": ["u001", "u002"]})
    client.post("/recall", json={})
    client.get("/a/path/that/nobody/offers")
    assert metric(client, "recall_requests_total", route="/recall", status="200") == 3
    assert metric(client, "recall_requests_total", route="/recall", status="422") == 1
    assert metric(client, "recall_requests_total", route="other", status="404") == 1
    assert metric(client, "recall_request_seconds_count", route="/recall") == 4
    assert metric(client, "recall_results_total", source="model") == 6
    assert metric(client, "recall_batch_queries_sum") == 6
    assert metric(client, "recall_requests_in_flight") == 1  # the one that asks
    assert metric(client, "recall_index_items") == 150


# Settings


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["max_q=3"], "max_q: unknown key"),
        (["max_k=0"], "max_k: input should be greater than or equal to 1, found 0"),
        (["max_k=true"], "max_k cannot be true"),
        (["timeout_seconds=.nan"], "timeout_seconds"),
        (["queue_queries=10"], "queue_queries (10) is below max_batch (256)"),
        (["token=abc"], "--token-file"),
        (["writes_without_token=true"], "--writes-without-token"),
        (["hosts=[]x"], "hosts"),
    ],
)
def test_settings_that_make_no_sense_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        read_settings(overrides)


def test_the_token_comes_from_a_file_or_from_the_environment(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    environment = {"RECALL_TOKEN": "of the environment"}
    for path, expected in ((tmp_path / "token", TOKEN), (None, "of the environment")):
        settings = read_settings(allow_writes=True, token_file=path, environment=environment)
        assert settings.token is not None
        assert settings.token.get_secret_value() == expected
        assert expected not in repr(settings)
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(ConfigError, match="empty: is empty"):
        read_settings(allow_writes=True, token_file=tmp_path / "empty")


@pytest.mark.parametrize("empty", ["", " ", "\n"])
def test_a_token_that_is_empty_lets_nobody_write(empty: str) -> None:
    with pytest.raises(ConfigError, match="RECALL_TOKEN: is empty"):
        read_settings(allow_writes=True, environment={"RECALL_TOKEN": empty})
    assert read_settings(environment={"RECALL_TOKEN": empty}).token is None
    with pytest.raises(ValueError, match="the token is empty"):
        ServiceSettings(allow_writes=True, token=empty)


def test_white_space_around_the_token_of_the_environment_is_no_part_of_it() -> None:
    token = read_settings(allow_writes=True, environment={"RECALL_TOKEN": f"{TOKEN}\n"}).token
    assert token is not None
    assert token.get_secret_value() == TOKEN


def test_writes_of_everybody_have_to_be_asked_for_and_make_sense() -> None:
    assert read_settings(allow_writes=True, writes_without_token=True).writes_without_token
    with pytest.raises(ConfigError, match="writes are off"):
        read_settings(writes_without_token=True)
    with pytest.raises(ConfigError, match="a token is given"):
        read_settings(allow_writes=True, writes_without_token=True, environment={"RECALL_TOKEN": TOKEN})


def test_defaults_allow_no_writes() -> None:
    assert not ServiceSettings().allow_writes
