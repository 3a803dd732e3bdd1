"""Tests the account of the runs of a folder: what is current, and what may go."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path

import pytest

from recall.runs.daily.published import RunsByDay

DAYS = [date(2024, 1, number) for number in range(1, 7)]


def _runs(folder: Path, *, published: str) -> RunsByDay:
    runs = RunsByDay(folder)
    for day, sign in zip(DAYS, published, strict=False):
        runs.run_of(day).mkdir()
        if sign in "+-":
            runs.decide(day, {"problems": []}, publish=sign == "+")
    return runs


def test_current_is_the_last_published_run(tmp_path: Path) -> None:
    runs = _runs(tmp_path, published="++-?")
    assert (tmp_path / "current").resolve() == runs.run_of(DAYS[1])
    assert [found.is_published for found in runs.decided()] == [True, True, False]
    last = runs.last_published(DAYS[3])
    assert last is not None
    assert last.day == DAYS[1]
    assert runs.last_published(DAYS[0]) is None


def test_the_latest_published_runs_stay_and_all_that_came_after_them(tmp_path: Path) -> None:
    runs = _runs(tmp_path, published="+-+-+?")
    assert [path.name for path in runs.collect(keep=2)] == ["2024-01-01", "2024-01-02"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "2024-01-03", "2024-01-04", "2024-01-05", "2024-01-06", "current",
    ]  # fmt: skip
    assert runs.collect(keep=2) == []


def test_a_kill_between_link_and_decision_leaves_the_day_to_be_decided_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = _runs(tmp_path, published="+")
    runs.run_of(DAYS[1]).mkdir()
    replace = os.replace

    def die(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        runs.decide(DAYS[1], {"problems": []}, publish=True)
    monkeypatch.setattr(os, "replace", replace)
    assert (tmp_path / "current").resolve() == runs.run_of(DAYS[0])
    assert [found.day for found in runs.decided()] == DAYS[:1]
    runs.decide(DAYS[1], {"problems": []}, publish=True)
    runs.collect(keep=2)  # and the link of the killed process goes
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2024-01-01", "2024-01-02", "current"]
