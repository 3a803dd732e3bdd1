"""Tests the guard: what speaks against publishing a model, and what does not."""

from __future__ import annotations

from math import nan
from typing import Any

import pytest

from recall.runs.daily.guard import Guard

GUARD = Guard(against_trending=0.9, against_before=0.8)


def _day(own: float, trending: float = 0.2, examples: int = 100) -> dict[str, Any]:
    return {"models": {"gated": {"recall@50": own, "examples": examples}, "trending": {"recall@50": trending}}}


def _problems(days: list[dict[str, Any]], learned: float | None = None) -> list[str]:
    return GUARD.problems(days, configured="gated", metric="recall@50", learned=learned)


@pytest.mark.parametrize(
    ("days", "learned", "found"),
    [
        ([_day(0.3)], None, ()),
        ([_day(0.181)], None, ()),
        ([_day(0.17)], None, ("below 0.9 x trending",)),
        ([_day(0.4), _day(0.5), _day(0.4), _day(0.33)], 0.4, ()),  # 1.65 of a median of 2.0
        ([_day(0.4), _day(0.5), _day(0.4), _day(0.31)], 0.4, ("1.55 times that of trending, below 0.8 x the 2.00",)),
        ([_day(0.4), _day(0.1, trending=0.05)], 0.4, ()),  # a hard day is hard for trending, too
        ([_day(0.3), _day(0.3)], 0.23, ("of the new model is 0.2300",)),
        ([_day(0.3), _day(0.3)], nan, ("of the new model is nan",)),
        ([_day(0.0, trending=0.0)], None, ()),
        ([_day(0.1, examples=0)], None, ()),  # nobody clicked: nothing is known
        ([_day(0.4), _day(0.1)], 0.01, ("x trending", "of the days before", "of the new model")),
    ],
)
def test_a_model_is_refused_when_it_falls_behind(
    days: list[dict[str, Any]], learned: float | None, found: tuple[str, ...]
) -> None:
    problems = _problems(days, learned)
    assert len(problems) == len(found)
    assert all(part in problem for part, problem in zip(found, problems, strict=True))


def test_only_the_last_seven_days_count() -> None:
    assert len(_problems([*[_day(0.8)] * 7, _day(0.4)])) == 1
    assert _problems([*[_day(0.8)] * 7, *[_day(0.4)] * 7, _day(0.4)]) == []


def test_without_a_clock_there_is_no_trending_and_nothing_to_guard() -> None:
    assert _problems([{"models": {"gated": {"recall@50": 0.1, "examples": 5}}}]) == []
