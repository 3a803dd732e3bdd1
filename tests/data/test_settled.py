"""Tests of what is kept of users for a run that goes on, worked out by hand."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from recall.config.data import DataConfig
from recall.data.examples import UserEvents
from recall.data.further_histories import ENTRY_SCHEMA
from recall.data.settled import (
    SETTLED,
    USER_SCHEMA,
    after_settled,
    after_shown,
    keeps_state,
    kept_entries,
    shown_in_open_sessions,
    tail_start,
)

HOUR = 3_600_000
ITEMS = pa.array(["a", "b", "c", "d"])


def events_of(rows: list[tuple[int, int, float, bool]], *, users: list[str]) -> UserEvents:
    user, item, hours, click = (np.array(column) for column in zip(*rows, strict=True))
    return UserEvents(
        pa.array(users), user.astype(np.int32), item.astype(np.int64), (hours * HOUR).astype(np.int64), click,
        np.full(len(rows), -1), np.zeros(len(rows), np.int8),
    )  # fmt: skip


def test_the_last_entries_before_the_tail_and_all_in_it_are_kept() -> None:
    rows = [("u", "a", 1), ("u", "b", 2), ("u", "c", 3), ("u", "d", 10), ("u", "a", 11), ("v", "b", 9), ("w", "c", 2)]
    entries = pa.table([pa.array(column) for column in zip(*rows, strict=True)], schema=ENTRY_SCHEMA)
    kept = kept_entries(entries, tail_ms=10, length=2)
    assert [tuple(row.values()) for row in kept.to_pylist()] == [row for row in rows if row != ("u", "a", 1)]


def test_what_was_shown_in_sessions_that_may_go_on_is_kept() -> None:
    # u: a session that ended at hour 1, and one from 5 to 6 that may go on at 6.5; v: nothing for two hours.
    rows = [(0, 0, 1, False), (0, 1, 5, False), (0, 2, 5.5, True), (0, 3, 6, False), (0, 0, 7, False)]
    rows += [(1, 0, 4.5, False), (1, 1, 7, True)]
    events = events_of(rows, users=["u", "v"])
    shown = shown_in_open_sessions(events, before_ms=int(6.5 * HOUR), gap_ms=HOUR, item_ids=ITEMS)
    assert shown.to_pylist() == [
        {"user": "u", "item": "b", "time_ms": 6 * HOUR},
        {"user": "u", "item": "d", "time_ms": 6 * HOUR},
    ]


def test_settled_events_stand_in_front_of_those_of_their_users() -> None:
    events = events_of([(0, 0, 10, True), (1, 1, 11, False)], users=["u", "x"])
    shown = pa.table([["t", "u"], ["c", "gone"], [5 * HOUR, 6 * HOUR]], schema=ENTRY_SCHEMA)
    with_shown = after_shown(events, shown, item_ids=ITEMS)
    assert with_shown.users.to_pylist() == ["t", "u", "x"]
    assert with_shown.rows.tolist() == [2, 0, 1]
    assert with_shown.click.tolist() == [False, True, False]
    users = pa.table(
        [["t", "u"], [[3], [1, 2]], [[3], [0, 1, 2]], [[2 * HOUR], [HOUR, 2 * HOUR]], [1, 5]], schema=USER_SCHEMA
    )
    whole = after_settled(with_shown, users)
    # u clicked five times, of which two are kept: what was seen stands in front once more.
    assert whole.user.tolist() == [0, 0, 1, 1, 1, 1, 1, 1, 2]
    assert whole.rows.tolist() == [3, 2, 0, 1, 2, 1, 2, 0, 1]
    assert whole.split.tolist() == [SETTLED] * 7 + [0, 0]
    assert (np.diff(whole.time_ms[whole.user == 1]) >= 0).all()


@pytest.mark.parametrize(
    ("settings", "is_kept"),
    [
        ({}, True),
        ({"histories": {"likes": {"column": "like"}}}, True),
        ({"histories": {"reads": {"path": "reads.parquet", "domain": "own"}}}, False),
        ({"layout": "user"}, False),
        ({"split": {"by": "last_click"}}, False),
        ({"posterior": {"content_prior": {"enabled": True}}}, False),
    ],
)
def test_logs_that_can_be_gone_on_from(settings: dict[str, object], is_kept: bool) -> None:
    data = DataConfig.model_validate({"events": {"path": "e.csv"}, "items": {"path": "i.csv"}, **settings})
    assert keeps_state(data) is is_kept


def test_the_tail_begins_at_the_edge_of_a_bucket() -> None:
    data = DataConfig.model_validate({"events": {"path": "e.csv"}, "items": {"path": "i.csv"}, "tail": "90m"})
    assert tail_start(10 * HOUR + 1, data) == 8 * HOUR
