"""Reading and validating logs of every format and with every kind of bad row; ordering and duplicates."""

from __future__ import annotations

import datetime
import gzip
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recall.config.data import EventsConfig
from recall.core.errors import DataError
from recall.core.times import parse_times
from recall.data.events import EVENT_SCHEMA, plan_pieces, read_events, sort_events
from tests.helpers import oracle

KNOWN = pa.array(["1", "2", "x"])


def log(path: Path, **settings: Any) -> EventsConfig:
    return EventsConfig.model_validate({"path": str(path)} | settings)


def read(events: EventsConfig, known: pa.Array | None = KNOWN) -> tuple[list[tuple[Any, ...]], list[dict[str, Any]]]:
    pieces = [read_events(piece, events, known_items=known) for piece in plan_pieces(events)]
    accepted = pa.concat_tables([part[0] for part in pieces])
    assert accepted.schema == EVENT_SCHEMA
    return [tuple(row.values()) for row in accepted.to_pylist()], [
        row for part in pieces for row in part[1].to_pylist()
    ]


def test_the_same_log_in_every_format_gives_the_same_events(tmp_path: Path) -> None:
    text = "user_id,item_id,time,click\n7,1,1000,1\n7,2,2000,0\n"
    (tmp_path / "a.csv").write_text(text)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "a.tsv").write_text(text.replace(",", "\t"))
    (tmp_path / "a.jsonl").write_text(
        '{"user_id": 7, "item_id": 1, "time": 1000, "click": true}\n'
        '{"user_id": "7", "item_id": 2, "time": 2000, "click": 0}\n'.replace('"7"', "7").replace("0}", "false}")
    )
    columns = {"user_id": [7.0, 7.0], "item_id": pa.array([1, 2], pa.int8()), "time": [1000, 2000], "click": [1.5, 0.5]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    for name in ("a.csv", "a.csv.gz", "a.tsv", "a.jsonl", "a.parquet"):
        accepted, rejected = read(log(tmp_path / name, click="click"))
        assert accepted == [("7", "1", 1000, True, None), ("7", "2", 2000, False, None)], name
        assert rejected == []


def test_bad_rows_are_kept_with_the_first_reason_that_applies(tmp_path: Path) -> None:
    values: dict[str, list[Any]] = {
        "user": ["u", "", None, " u ", "u", "u", "u", "u", "u", "u"],
        "item": ["1", "1", "2", " ", "1", "1", "1", "1", "1", "nine"],
        "time": ["5", "5", "soon", "5", "", "inf", "5", "5", "5.9", "-5"],
        "click": ["1", "1", "1", "1", "1", "1", None, "often", "TRUE", "1"],
    }
    pq.write_table(pa.table(values), tmp_path / "a.parquet")
    events = log(tmp_path / "a.parquet", user="user", item="item", click="click")
    accepted, rejected = read(events)
    rows = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    expected_rejected, kept = oracle.validate(rows, {"1": 0, "2": 1}, oracle.Settings())
    assert [(row["row"], row["reason"]) for row in rejected] == expected_rejected
    assert [row["reason"] for row in rejected] == [
        "user is missing",
        "user is missing",
        "item is missing",
        "time is missing",
        "time cannot be read",
        "click is missing",
        "click is not a number",
        "item is not in the items file",
    ]
    assert accepted == [(one.user, one.item, one.time, one.click, None) for one in kept]
    assert rejected[4] == {
        "file": str(tmp_path / "a.parquet"),
        "row": 5,
        "reason": "time cannot be read",
        "user": "u",
        "item": "1",
        "time": "inf",
        "click": "1",
    }
    assert rejected[5]["click"] is None
    assert read(events, known=None)[0][-1] == ("u", "nine", -5, True, None)


def test_a_weight_is_a_number_above_zero_and_only_clicks_have_one(tmp_path: Path) -> None:
    values: dict[str, list[Any]] = {
        "user": [f"u{row}" for row in range(10)],
        "item": ["1"] * 8 + ["nine", "1"],
        "time": ["5"] * 10,
        "click": ["1", "1", "1", "1", "1", "1", "1", "0", "1", "0"],
        "weight": ["2.5", "", "much", "0", "-1", "1e300", "1e-300", None, "0", "wrong"],
    }
    pq.write_table(pa.table(values), tmp_path / "a.parquet")
    events = log(tmp_path / "a.parquet", user="user", item="item", click="click", weight="weight")
    [piece] = plan_pieces(events)
    accepted, rejected = read_events(piece, events, known_items=KNOWN)
    rows = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    expected_rejected, kept = oracle.validate(rows, {"1": 0, "2": 1}, oracle.Settings(weight="weight"))
    found = list(zip(rejected["row"].to_pylist(), rejected["reason"].to_pylist(), strict=True))
    assert found == expected_rejected
    assert [reason for _, reason in found] == [
        "weight is missing",
        "weight is not a number",
        *["weight is not above 0"] * 4,
        "item is not in the items file",
    ]
    assert accepted["weight"].to_pylist() == [one.weight for one in kept] == [2.5, 1, 1]


def test_a_weight_that_would_be_all_of_the_loss_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user_id,item_id,time,stars\nu,1,1,3\nu,1,2,1000000\nu,1,3,99999999\n")
    events = log(tmp_path / "a.csv", weight="stars")
    accepted, rejected = read_events(*plan_pieces(events), events)
    assert accepted["weight"].to_pylist() == [3, 1_000_000]
    assert rejected["reason"].to_pylist() == ["weight is above 1,000,000"]


def test_the_largest_weight_whose_rule_holds_counts_and_one_without_any_is_one(tmp_path: Path) -> None:
    lines = ["user_id,item_id,time,click,view,like", "a,1,5,1,0,0", "b,1,5,1,1,", "c,1,5,1,1,3", "d,1,5,1,,2"]
    (tmp_path / "a.csv").write_text("\n".join([*lines, "e,1,5,0,1,3", "f,1,5,1,1,often"]) + "\n")
    rules = [{"column": "like", "at_least": 3, "weight": 0.5}, {"column": "view", "weight": 2}]
    events = log(tmp_path / "a.csv", click="click", weight=rules)
    [piece] = plan_pieces(events)
    accepted, rejected = read_events(piece, events)
    # d's two likes are too few for the rule; e is no click; c follows both rules.
    assert accepted["weight"].to_pylist() == [1, 2, 2, 1, 1]
    assert rejected.to_pylist()[0]["reason"] == "weight is not a number"


def test_a_column_of_a_weight_rule_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user_id,item_id,time\nu,1,5\n")
    rules = [{"column": "time", "weight": 2}, {"column": "stars", "weight": 2}]
    with pytest.raises(DataError, match=r"data.events.weight\[1\]: .* has no column stars; its columns are user_id"):
        plan_pieces(log(tmp_path / "a.csv", weight=rules))


def test_of_duplicates_the_largest_weight_is_kept() -> None:
    columns = {"user": ["u", "v", "u", "u"], "item": ["1"] * 4, "time_ms": [5] * 4, "click": [True] * 4}
    schema = EVENT_SCHEMA.append(pa.field("weight", pa.float32()))
    weights = {"trigger": [None] * 4, "weight": [2.0, 1.0, 3.0, 0.5]}
    events, duplicates = sort_events(pa.table({**columns, **weights}, schema=schema))
    assert duplicates == 2
    kept = dict(zip(events["user"].to_pylist(), events["weight"].to_pylist(), strict=True))
    assert kept == {"u": 3.0, "v": 1.0}


def test_without_a_click_column_every_row_is_a_click(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user_id,item_id,time\nu,1,5\n")
    accepted, _ = read(log(tmp_path / "a.csv"))
    assert accepted == [("u", "1", 5, True, None)]


def test_row_groups_read_apart_keep_their_row_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    users = [f"u{row}" if row % 3 else None for row in range(20)]
    table = pa.table({"user_id": users, "item_id": ["1"] * 20, "time": range(20)})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=4)
    events = log(tmp_path / "a.parquet")
    whole = read(events)
    monkeypatch.setattr("recall.data.events._ROWS_PER_PIECE", 7)
    assert [piece.row_groups for piece in plan_pieces(events)] == [(0, 1), (2, 3), (4,)]
    assert read(events) == whole
    assert [row["row"] for row in whole[1]] == list(range(0, 20, 3))


def test_ids_that_no_request_could_name_are_set_aside_and_counted(tmp_path: Path) -> None:
    table = pa.table({"user_id": ["u" * 513, "u1", "u" * 512], "item_id": ["1", "i" * 513, "1"], "time": range(3)})
    pq.write_table(table, tmp_path / "a.parquet")
    accepted, rejected = read(log(tmp_path / "a.parquet"))
    assert [row[0] for row in accepted] == ["u" * 512]
    said = "{} id is longer than 512 characters"
    assert [(row["row"], row["reason"]) for row in rejected] == [(0, said.format("user")), (1, said.format("item"))]


def test_sequences_are_one_user_a_line_with_positions_as_time(tmp_path: Path) -> None:
    (tmp_path / "s.txt").write_text("u 1 2\n\n  v\tx  \nalone\nw 9 1\n")
    events = log(tmp_path / "s.txt", format="sequences")
    accepted, rejected = read(events)
    assert accepted == [
        ("u", "1", 0, True, None),
        ("u", "2", 1, True, None),
        ("v", "x", 0, True, None),
        ("w", "1", 1, True, None),
    ]
    assert [(row["row"], row["reason"], row["user"]) for row in rejected] == [
        (3, "item is missing", "alone"),
        (4, "item is not in the items file", "w"),
    ]


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_a_sequences_file_without_lines_has_no_events(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "s.txt").write_bytes(content)
    assert read(log(tmp_path / "s.txt", format="sequences")) == ([], [])


def test_a_truncated_sequences_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "s.txt.gz").write_bytes(gzip.compress(b"u 1 2\n" * 1000)[:-10])
    with pytest.raises(DataError, match=r"s\.txt\.gz: cannot be read"):
        read(log(tmp_path / "s.txt.gz", format="sequences"))


def test_a_truncated_gzip_file_is_an_error(tmp_path: Path) -> None:
    text = "user_id,item_id,time\n" + "".join(f"u{row},1,{row}\n" for row in range(2000))
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(text.encode())[:-10])
    with pytest.raises(DataError, match=r"a\.csv\.gz: cannot be read"):
        read(log(tmp_path / "a.csv.gz"))


def test_a_missing_column_of_any_file_is_found_before_reading(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user_id,item_id,time\nu,1,5\n")
    (tmp_path / "b.csv").write_text("user_id,item,time\nu,1,5\n")
    with pytest.raises(
        DataError, match=r"data\.events\.item: .*b\.csv has no column item_id; its columns are user_id, item"
    ):
        plan_pieces(log(tmp_path / "*.csv"))


@pytest.mark.parametrize("values", [[b"\xff"], [[1]], [{"a": 1}]])
@pytest.mark.parametrize("role", ["time", "user", "item", "trigger", "click", "weight"])
def test_a_column_that_cannot_be_read_is_refused_by_key_and_file_or_set_aside(
    role: str, values: list[Any], tmp_path: Path
) -> None:
    columns: dict[str, Any] = {"user": ["u"], "item": ["1"], "time": [5], "trigger": ["2"], "click": [1], "weight": [1]}
    pq.write_table(pa.table(columns | {role: values}), tmp_path / "a.parquet")
    names = {"user": "user", "item": "item", "trigger": "trigger", "weight": "weight"}
    events = log(tmp_path / "a.parquet", **names, click={"column": "click"})
    (piece,) = plan_pieces(events)
    if role in ("click", "weight") and not isinstance(values[0], bytes):
        _, rejected = read_events(piece, events)
        assert rejected["reason"].to_pylist() == [f"{role} is not a number"]
        return
    with pytest.raises(DataError, match=rf"data\.events\.{role}: column {role} of .*a\.parquet: expected "):
        read_events(piece, events)


@pytest.mark.parametrize(
    "kind", [pa.null(), pa.string(), pa.float16(), pa.uuid(), pa.string_view(), pa.decimal128(9, 2)]
)
@pytest.mark.parametrize("role", ["user", "item", "time", "trigger", "click", "weight"])
def test_a_column_of_gaps_alone_is_a_column_of_gaps_whatever_its_type(
    role: str, kind: pa.DataType, tmp_path: Path
) -> None:
    columns: dict[str, Any] = {"user": ["u"], "item": ["1"], "time": [5], "trigger": ["2"], "click": [1], "weight": [1]}
    names = {"user": "user", "item": "item", "trigger": "trigger", "weight": "weight"}
    gap = pa.array([None], kind) if not isinstance(kind, pa.BaseExtensionType) else pa.nulls(1, kind)
    for rows in (0, 1):
        table = pa.table(columns | {role: gap}).slice(0, rows)
        pq.write_table(table, tmp_path / "a.parquet")
        events = log(tmp_path / "a.parquet", **names, click={"column": "click"})
        found = [read_events(piece, events) for piece in plan_pieces(events)]
        reasons = [reason for _, rejected in found for reason in rejected["reason"].to_pylist()]
        assert reasons == ([f"{role} is missing"] * rows if role != "trigger" else [])


def test_a_column_of_lists_is_refused_by_key(tmp_path: Path) -> None:
    pq.write_table(pa.table({"user_id": [["u"]], "item_id": ["1"], "time": [5]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"data\.events\.user: .*a\.parquet: expected ids"):
        read(log(tmp_path / "a.parquet"))


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns", "order"])
@pytest.mark.parametrize(
    "values",
    [
        [1_650_812_741, -1, 0, None, 2**62],
        ["1650812741", " -7 ", "", None, "+3", "x", "1.5e3", "-0.0001", "1650812741.4369", "inf", "1e400", "99" * 20],
        [1650812741.436, -0.5, 12.0, math.nan, math.inf, 1e300],
        pa.array([3, 2**64 - 1], pa.uint64()),
    ],
    ids=["integers", "text", "floats", "unsigned"],
)
def test_times_are_floored_exactly(values: Any, unit: Any) -> None:
    column = values if isinstance(values, pa.Array) else pa.array(values)
    found = parse_times(column, unit)
    for row, value in enumerate(column.to_pylist()):
        expected = oracle.to_ms(value, unit)
        if expected is None:
            assert found.missing[row]
        elif expected == "unreadable" or abs(expected) > 2**63 - 1:
            assert found.unreadable[row], value
        else:
            assert (found.ms[row], found.missing[row], found.unreadable[row]) == (expected, False, False), value


def test_iso_times_are_utc_unless_they_say_otherwise() -> None:
    texts = [
        "1970-01-01",
        "1970-01-01T00:00:01.2345",
        "1970-01-01 01:00:00+01:00",
        "1969-12-31T23:59:59.9999Z",
        "x",
        "",
    ]
    found = parse_times(pa.array(texts), "iso")
    assert found.ms.tolist() == [0, 1234, 0, -1, 0, 0]
    assert found.unreadable.tolist() == [False] * 4 + [True, False]
    assert found.missing.tolist() == [False] * 5 + [True]


@pytest.mark.parametrize(
    "kind", [pa.timestamp("ns"), pa.timestamp("us", "Europe/Berlin"), pa.timestamp("s"), pa.date32()]
)
def test_arrow_timestamps_are_moments_whatever_the_unit_says(kind: pa.DataType) -> None:
    day = datetime.datetime(2024, 2, 29, tzinfo=datetime.timezone.utc)
    column = pa.array([day, None], pa.timestamp("us", "UTC")).cast(pa.timestamp("us")).cast(kind, safe=False)
    if pa.types.is_timestamp(kind) and kind.tz:
        column = pa.array([day, None], kind)
    found = parse_times(column, "iso")
    assert found.ms[0] == day.timestamp() * 1000
    assert found.missing.tolist() == [False, True]


def test_events_are_ordered_within_users_and_exact_duplicates_dropped() -> None:
    rng = np.random.default_rng(11)
    rows = [
        (f"u{user}", f"i{item}", int(time), bool(click), None if trigger == 2 else f"t{trigger}")
        for user, item, time, click, trigger in rng.integers(0, [5, 12, 4, 2, 3], (3000, 5))
    ]
    columns = [list(column) for column in zip(*rows, strict=True)]
    ordered, dropped = sort_events(pa.table(columns, schema=EVENT_SCHEMA))
    expected = sorted(set(rows), key=lambda row: (row[0], row[2], row[1], row[3], row[4] or ""))
    assert [tuple(row.values()) for row in ordered.to_pylist()] == expected
    assert dropped == 3000 - len(expected)


def test_events_that_differ_in_anything_are_no_duplicates() -> None:
    rows = [("u", "a", 1, True, None), ("u", "a", 1, False, None), ("u", "a", 2, True, None), ("u", "a", 1, True, "t")]
    columns = [list(column) for column in zip(*rows, strict=True)]
    _, dropped = sort_events(pa.table(columns, schema=EVENT_SCHEMA))
    assert dropped == 0
