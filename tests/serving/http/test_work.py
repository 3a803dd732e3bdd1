"""A request may cost so much work and no more; a costly one is cut, and answers are the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from recall.serving.http.parts import Answered, QuestionParts
from recall.serving.http.problems import ServiceError
from recall.serving.http.schemas import RecallRequest, SimilarRequest
from recall.serving.http.settings import ServiceSettings
from recall.serving.http.work import queries_per_call
from recall.serving.recaller import Recaller

USERS = [f"u{number:03d}" for number in range(60)]
HEAVY: dict[str, Any] = {"k": 1000, "caps": {"author_id": 1, "tags": 1}, "min_cold_share": 0.5}


@pytest.fixture(scope="module")
def recaller(run: Path) -> Recaller:
    """Load the recaller that the service should agree with, apart from it."""
    return Recaller.load(run)


def per_call(question: RecallRequest | SimilarRequest, *, items: int = 3000, **settings: Any) -> int:
    return queries_per_call(question, ServiceSettings(**settings), items=items)


def test_a_full_request_with_caps_and_a_cold_share_is_legal_and_cut() -> None:
    full = RecallRequest(users=[f"u{number}" for number in range(256)], **HEAVY)
    assert 8 <= per_call(full) <= 64
    assert per_call(full.model_copy(update={"exclude": [str(number) for number in range(10_000)]})) <= 16
    assert per_call(RecallRequest(users=full.users)) >= 256, "an ordinary one is asked whole"


def test_a_request_that_costs_too_much_is_refused_with_a_remedy() -> None:
    caps = {f"column_{number}": 1 for number in range(8)}
    question = SimilarRequest(items=[f"i{number}" for number in range(256)], k=1000, caps=caps, min_cold_share=0.5)
    with pytest.raises(
        ServiceError, match=r"work: expected at most 8,000,000 looks .* found about .*256 items"
    ) as refused:
        per_call(question)
    assert "k 1,000, 8 caps, a cold share; ask for " in refused.value.message
    assert (refused.value.status, refused.value.kind) == (422, "over_limit")
    several = int(refused.value.message.split("ask for ")[1].split(" ")[0])
    assert per_call(question.model_copy(update={"items": question.items[:several]})) >= 1


def test_predicates_cost_by_their_number_and_the_catalogue() -> None:
    where = [{"column": "category", "in": ["news"]}] * 1000
    question = RecallRequest(users=["u"], filters={"where": where})
    assert per_call(question, items=3000) >= 1
    with pytest.raises(ServiceError, match=r"filters.where: expected at most \d\d such predicates over 1,000,000"):
        per_call(question, items=10**6)
    ages = [{"newer_than_hours": hours} for hours in range(1, 400)]
    assert per_call(RecallRequest(users=["u"], filters={"where": ages}), items=3000) >= 1
    with pytest.raises(ServiceError, match=r"work: .*256 users, k 1,000, 399 predicates; ask for \d+ users"):
        per_call(RecallRequest(users=["u"] * 256, k=1000, filters={"where": ages}), items=3000)


def test_the_work_of_a_list_is_bounded_by_the_catalogue() -> None:
    few, many = (
        per_call(RecallRequest(users=["u"], k=1000, caps={"author_id": 1}), items=items) for items in (50, 10**6)
    )
    assert few > 10 * many


def test_parts_have_the_histories_of_their_own_users() -> None:
    question = RecallRequest(users=["a", "b", "c", "a"], histories={"a": ["i1"], "c": ["i2"]}, k=3)
    parts = [QuestionParts().cut(question, start, start + 2) for start in (0, 2)]
    assert [part.users for part in parts] == [["a", "b"], ["c", "a"]]
    assert [part.histories for part in parts] == [{"a": ["i1"]}, {"c": ["i2"], "a": ["i1"]}]
    assert {part.shared() for part in parts} == {question.shared()}
    rows = RecallRequest(features=[{"age_band": "18-24"}, {"history": ["i3"]}])
    assert [row.history for row in QuestionParts().cut(rows, 1, 2).features or []] == [["i3"]]


def test_answers_of_parts_join_to_json_and_the_older_ones_are_outdated() -> None:
    answers = [
        Answered.of({"results": [{"items": [{"id": item, "score": 1.0}], "source": "model"}], "version": version})
        for item, version in (("ä", "1"), ("b", "2"), ("c", "2"))
    ]
    assert QuestionParts().outdated(answers) == [0]
    joined = QuestionParts().joined(answers[1:]).body().decode()
    result = '{"items":[{"id":"%s","score":1.0}],"source":"model"}'
    assert joined == f'{{"results":[{result % "b"},{result % "c"}],"version":"2"}}'


@pytest.mark.parametrize("options", [{"k": 9}, {"k": 40, "caps": {"author_id": 2}, "min_cold_share": 0.3}])
def test_a_request_that_is_cut_gets_the_answers_of_the_whole(
    service: Callable[..., TestClient], recaller: Recaller, options: dict[str, Any]
) -> None:
    body = {"users": USERS, "histories": {"u003": ["i003", "i010"]}, "exclude": ["i001"], **options}
    response = service(call_work=1).post("/recall", json=body)  # a user a call
    assert response.status_code == 200, response.text
    found = recaller.recall(USERS, histories=body["histories"], exclude=["i001"], fallback=True, **options)
    for result, ids in zip(response.json()["results"], found.ids, strict=True):
        assert [item["id"] for item in result["items"]] == [item for item in ids if item is not None]
    items = {"items": ["i003", "i010", "i003"], "k": 4}
    cut, whole = (service(call_work=work).post("/similar", json=items).json()["results"] for work in (1, 10**6))
    for one, other in zip(cut, whole, strict=True):
        assert [item["id"] for item in one["items"]] == [item["id"] for item in other["items"]]


def test_too_much_work_is_a_422_that_names_the_setting_and_the_rest_goes_on(service: Callable[..., TestClient]) -> None:
    client = service(max_work=10_000)
    refused = client.post("/recall", json={"users": USERS, "k": 50}).json()["error"]
    assert refused["type"] == "over_limit"
    assert "expected at most 10,000 looks" in refused["message"]
    assert client.post("/recall", json={"users": USERS[:20], "k": 50}).status_code == 200
