"""A request for users: by id or by features, as one object or as keywords."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from recall.core.errors import DataError
from recall.serving.recaller import Recaller
from recall.serving.search.options import SearchOptions
from recall.serving.users.asked import Asked, UserQuery


def test_objects_and_keywords_give_the_same_lists(recaller: Recaller) -> None:
    given: dict[str, Any] = {"histories": {"u001": ["i010", "i020"]}, "history_times_ms": {"u001": [1, 2]}}
    wanted: dict[str, Any] = {"k": 7, "filters": {"deny": ["i003"]}, "caps": {"author_id": 1}, "fallback": True}
    short = recaller.recall(["u001", "nobody"], **given, **wanted)
    query, options = UserQuery(["u001", "nobody"], **given), SearchOptions(**wanted)
    for _ in range(2):
        found = recaller.recall(query, options=options)
        assert found.ids.tolist() == short.ids.tolist()
        assert found.sources == short.sources == ("model", "fallback")
    by_features = recaller.recall(UserQuery(features=[{"history": ["i010"]}]), options=SearchOptions(k=3))
    assert by_features.ids.tolist() == recaller.recall(features=[{"history": ["i010"]}], k=3).ids.tolist()
    similar = recaller.similar(["i001"], options=SearchOptions(k=4))
    assert similar.ids.tolist() == recaller.similar(["i001"], k=4).ids.tolist()


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"options": SearchOptions(k=3), "k": 3}, "options: SearchOptions and k beside them"),
        ({"users": UserQuery(["u001"]), "histories": {"u001": []}}, "users: a UserQuery and histories beside it"),
        ({"users": UserQuery(["u001"]), "features": [{}]}, "users: a UserQuery and features beside it"),
    ],
)
def test_a_setting_that_is_given_twice_is_one_clear_error(
    recaller: Recaller, given: dict[str, Any], problem: str
) -> None:
    with pytest.raises(DataError, match=problem):
        recaller.recall(**{"users": ["u001"], **given})


def test_a_query_reads_its_ids_once_and_may_be_asked_again() -> None:
    assert UserQuery(iter([12, 7.0])).ids == ["12", "7"]  # type: ignore[list-item]
    own = UserQuery(["a"], histories={"a": iter([1, 2]), "not asked for": ["x"]}, history_times_ms={"a": [5, 6]})
    assert own.histories == {"a": ["1", "2"]}
    with pytest.raises(DataError, match="users: expected a list of ids"):
        UserQuery("u001")


@pytest.mark.parametrize("time", [float("nan"), float("inf"), 2**63, 1e300, "5", None, True, [5]])
def test_a_time_that_is_no_whole_number_of_milliseconds_is_refused(time: Any) -> None:
    with pytest.raises(DataError, match=r"history_times_ms\['u'\]: expected Unix milliseconds"):
        UserQuery(["u"], histories={"u": ["i1", "i2"]}, history_times_ms={"u": [5, time]})
    asked = Asked(["u"], ["u"], [["i1", "i2"]], [[3_600_000, time]], {})
    assert asked.ages_hours(7_200_000) == [[1.0, -1.0]], "where it comes all the same, it counts as unknown"


def test_whole_numbers_of_every_type_are_times() -> None:
    times = [5, np.int64(6), 7.0, np.float32(8)]
    query = UserQuery(["u"], histories={"u": ["i1"] * 4}, history_times_ms={"u": times})
    assert query.history_times_ms == {"u": times}


@pytest.mark.parametrize("large", [2**63 + 5, np.uint64(2**63 + 5)])
def test_ids_beyond_int64_are_their_digits(large: Any) -> None:
    digits = str(2**63 + 5)
    query = UserQuery([large], histories={large: [large, 3]})
    assert query.ids == [digits]
    assert query.histories == {digits: [digits, "3"]}


@pytest.mark.parametrize("ids", [[2.0**60], [b"\xff"], [[1]], [1, "a"], [float("nan")], [object()]])
def test_ids_that_are_none_are_refused(ids: list[Any]) -> None:
    for ask in (lambda: UserQuery(ids), lambda: UserQuery(["u"], histories={"u": ids})):
        with pytest.raises(DataError, match=r"^(users|histories\['u'\]): "):
            ask()


@pytest.mark.parametrize("k", [1.0, "3", None, True, [3], float("nan"), 0, -1])
def test_how_many_candidates_is_a_whole_number(k: Any, recaller: Recaller) -> None:
    asked: list[Callable[[], object]] = [
        lambda: SearchOptions(k=k),
        lambda: recaller.recall(["u001"], k=k),
        lambda: recaller.similar(["i001"], k=k),
        lambda: recaller.index.search(recaller.vectors(["i001"]), k),
    ]
    if k is not None:  # the mean of all clicks
        asked.append(lambda: recaller.recall(["u001"], k=3, by="content", last=k))
    for ask in asked:
        with pytest.raises(DataError, match=r"^(k|last): expected (a whole number of )?at least 1, found "):
            ask()


def test_a_misspelt_keyword_is_refused(recaller: Recaller) -> None:
    with pytest.raises(TypeError, match="exclude_sen"):
        recaller.recall(["u001"], exclude_sen=False)  # type: ignore[call-arg]


@pytest.mark.parametrize("time", [float("nan"), float("inf"), None, 2**63, "now", "1700000000000", True])
def test_a_time_of_a_click_that_is_no_moment_is_one_clear_error(time: Any) -> None:
    with pytest.raises(DataError, match=r"history_times_ms\['a'\]: expected Unix milliseconds, found "):
        UserQuery(["a"], histories={"a": ["x", "y"]}, history_times_ms={"a": [5, time]})


@pytest.mark.parametrize("time", [-(2**63), -1, 0, 2**63 - 1, 1.5])
def test_clicks_at_the_ends_of_time_are_answered(recaller: Recaller, time: Any) -> None:
    found = recaller.recall(["a"], histories={"a": ["i003"]}, history_times_ms={"a": [time]}, k=5)
    assert all(score == score and abs(score) < 1e6 for score in found.scores[0])
    row = {"history": ["i003"], "history_times_ms": [time]}
    assert recaller.recall(features=[row], k=5).ids.tolist() == found.ids.tolist()
