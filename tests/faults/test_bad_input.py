"""Unusable input, from the command line: rejected rows with their reason, or one clear error and no output."""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

if TYPE_CHECKING:
    from tests.helpers.finished_run import Outcome


EXPERIMENT = """\
data:
  events: {path: log.csv, user: user, item: item, time: at, time_unit: s, click: click}
  items: {path: items.csv, id: item, title: name}
  users: {path: users.csv, id: user}
  split: {validation: 0.2, test: 0.2}
features:
  user: [{name: user, type: id}, {name: region, type: category}]
  behaviour: [{name: item, type: id}]
  meta:
    - {name: kind, type: category}
    - {name: length, type: number}
    - {name: text, type: embedding, path: text.npy}
model: {dim: 4, hidden: [8], loss: {uniform_negatives: 8}}
training: {epochs: 1, batch_size: 16}
"""
HEADER = "user,item,at,click\n"
START = 1_700_000_000  # 14 November 2023, 22:13 UTC
ROWS = [f"u{n % 4},i{n * 7 % 10},{START + n * 60},{int(n % 3 > 0)}\n" for n in range(60)]


class Inputs:
    """The files of a small experiment that works: an hour of four users and ten items."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.experiment, self.log, self.items, self.users, self.text = (
            folder / name for name in ("experiment.yaml", "log.csv", "items.csv", "users.csv", "text.npy")
        )
        self.experiment.write_text(EXPERIMENT)
        self.write_log(*ROWS)
        self.items.write_text("item,name,kind,length\n" + "".join(f"i{n},Item {n},k{n % 3},{n}.5\n" for n in range(10)))
        self.users.write_text("user,region\n" + "".join(f"u{n},r{n % 2}\n" for n in range(4)))
        np.save(self.text, np.random.default_rng(0).normal(size=(10, 6)).astype(np.float32))

    def write_log(self, *rows: str) -> None:
        self.log.write_text(HEADER + "".join(rows))

    def replace(self, path: Path, old: str, new: str) -> None:
        text = path.read_text()
        assert old in text, f"{old!r} is not in {path.name}"
        path.write_text(text.replace(old, new, 1))

    def log_as(self, name: str, content: bytes | pa.Table) -> None:
        """The log under another name, which the experiment then reads."""
        path = self.folder / name
        pq.write_table(content, path) if isinstance(content, pa.Table) else path.write_bytes(content)
        self.replace(self.experiment, "path: log.csv", f"path: {name}")

    def items_as_parquet(self, **columns: pa.Array) -> None:
        """The catalogue as Parquet, with some columns replaced."""
        values = {"item": [f"i{n}" for n in range(10)], "name": ["x"] * 10, "kind": ["k"] * 10, "length": [1.0] * 10}
        pq.write_table(pa.table(values | columns), self.folder / "items.parquet")
        self.replace(self.experiment, "path: items.csv", "path: items.parquet")

    def split_by_last_click(self) -> None:
        self.replace(self.experiment, "{validation: 0.2, test: 0.2}", "{by: last_click}")


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    return Inputs(tmp_path)


@pytest.fixture
def prepare(command: Callable[..., Outcome], inputs: Inputs) -> Callable[[], Outcome]:
    return lambda: command("prepare", "--config", inputs.experiment, "--run", inputs.folder / "run")


# One clear error

Spoil = Callable[[Inputs], object]


def without_vector(inputs: Inputs, *rows: int) -> None:
    vectors = np.load(inputs.text)
    vectors[list(rows)] = np.nan
    np.save(inputs.text, vectors)


def vectors_in_the_items_file(inputs: Inputs, vectors: list[list[float] | None]) -> None:
    inputs.items_as_parquet(text=pa.array(vectors, pa.list_(pa.float32())))
    inputs.replace(inputs.experiment, ", path: text.npy", "")


FOUND_AT_ONCE: dict[str, tuple[Spoil, str]] = {
    "missing column in the log": (
        lambda i: i.replace(i.log, "user,item,at,click", "user,item,at,clicked"),
        r"data\.events\.click: .*log\.csv has no column click; its columns are user, item, at, clicked",
    ),
    "missing column in the items file": (
        lambda i: i.replace(i.items, "length", "seconds"),
        r"features\.meta\[1\]: .*items\.csv has no column length; its columns are item, name, kind, seconds; set",
    ),
    "missing column in the users file": (
        lambda i: i.replace(i.users, "user,", "member,"),
        r"data\.users\.id: .*users\.csv has no column user; its columns are member, region",
    ),
    "text in a column of numbers": (
        lambda i: i.replace(i.items, "k1,1.5", "k1,short"),
        r"features\.meta\[1\]: column length of .*items\.csv: expected numbers, found 1 other values, "
        r"the first in data row 2: 'short'; correct them or leave them empty",
    ),
    "lists in a column of categories": (
        lambda i: i.items_as_parquet(kind=pa.array([["a", "b"]] * 10)),
        r"features\.meta\[0\]: column kind of .*items\.parquet holds values of type list<.*; expected one category per "
        r"row; use type: tags",
    ),
    "duplicate item ids": (
        lambda i: i.replace(i.items, "i3,", "i2,"),
        r"data\.items\.id: .*items\.csv has 1 ids more than once: i2 \(lines 4 and 5\); keep one row of each",
    ),
    "an item without an id": (
        lambda i: i.replace(i.items, "i3,", ","),
        r"data\.items\.id: .*items\.csv has 1 rows without an id \(lines 5\); fill them in or remove them",
    ),
    "embedding file with another number of rows": (
        lambda i: np.save(i.text, np.ones((9, 6), np.float32)),
        r"features\.meta\[2\]\.path: text\.npy has 9 rows but items\.csv has 10; row i must be the vector of line i",
    ),
    "NaN in an embedding file": (
        lambda i: without_vector(i, 2, 5),
        r"features\.meta\[2\]\.path: text\.npy: NaN or infinity in 2 rows \(counted from 0\): 2, 5; write zeros",
    ),
    "NaN in a list column of vectors": (
        lambda i: vectors_in_the_items_file(i, [[1.0, float("nan")], *[[1.0, 2.0]] * 9]),
        r"features\.meta\[2\]: column text of items\.parquet: NaN or infinity in 1 rows .*: 0; use null rows",
    ),
    "vectors of several lengths": (
        lambda i: vectors_in_the_items_file(i, [[1.0, 2.0], [1.0], *[None] * 8]),
        r"column text of items\.parquet: the first vector has 2 numbers, 1 rows have another length",
    ),
    "an embedding file that is none": (
        lambda i: i.text.write_bytes(b"0.1 0.2 0.3"),
        r"text\.npy cannot be read as \.npy \(it does not begin like a \.npy file\); write it again with numpy\.save",
    ),
    "a truncated embedding file": (
        lambda i: i.text.write_bytes(i.text.read_bytes()[:-20]),
        r"features\.meta\[2\]\.path: .*text\.npy cannot be read as \.npy",
    ),
    "an empty log": (lambda i: i.log.write_text(""), r"log\.csv: is empty; expected a header line with the column"),
    "an empty catalogue": (
        lambda i: i.items.write_text("item,name,kind,length\n"),
        r"items\.csv: has no rows; expected at least one",
    ),
    "a log that is not there": (
        lambda i: i.log.unlink(),
        r"data\.events\.path: .*log\.csv: matches no file; expected a file, a folder, or a glob like logs/\*\.csv",
    ),
    "an embedding file that is not there": (
        lambda i: i.text.unlink(),
        r"features\.meta\[2\]\.path: .*text\.npy: no such file; paths are relative to the folder of the",
    ),
    "a log that is no Parquet file": (
        lambda i: i.log_as("log.parquet", HEADER.encode() * 9),
        r"log\.parquet: cannot be read as parquet .*; the file may be truncated or of another format",
    ),
    "a truncated Parquet log": (
        lambda i: i.log_as("log.parquet", parquet_bytes(["u1"] * 99)[:300]),
        r"log\.parquet: cannot be read as parquet .*; the file may be truncated or of another format",
    ),
    "items that are not UTF-8": (
        lambda i: i.items.write_bytes(i.items.read_bytes().replace(b"Item 3", b"Caf\xe9")),
        r"items\.csv: is not UTF-8 text; convert it, e\.g\. with iconv -f latin1 -t utf-8",
    ),
    "quotes that do not close": (
        lambda i: i.replace(i.items, "Item 9", '"Item 9'),
        r"items\.csv: (the quotes of the record|cannot be read as csv)",
    ),
}
FOUND_WHEN_THE_LOG_IS_READ: dict[str, tuple[Spoil, str]] = {
    "a log of a header only": (lambda i: i.write_log(), r"log\.csv: the log has no rows; expected at least some"),
    "lists in the column of users": (
        lambda i: i.log_as("log.parquet", pa.table(columns([["u1"]] * 9))),
        r"data\.events\.user: .*log\.parquet: expected ids, found values of type list<.*>$",
    ),
    "a truncated gzip log": (
        lambda i: i.log_as("log.csv.gz", gzip.compress((HEADER + "".join(ROWS)).encode())[:-50]),
        r"log\.csv\.gz: cannot be read as csv \(.*\); the file may be truncated or of another format$",
    ),
    "a line with another number of values": (
        lambda i: i.replace(i.log, ROWS[1], ROWS[1].strip() + ",7\n"),
        r"log\.csv: cannot be read as csv \(.*Expected 4 columns, got 5: u1,i7,1700000060,1,7\)",
    ),
    "no time that can be read": (
        lambda i: i.write_log(*(f"u1,i1,2024-01-01T00:{n}:00,1\n" for n in range(10, 50))),
        r"none of the 40 rows can be used: time cannot be read \(40\); check the columns and the time_unit that",
    ),
    "no item that the catalogue knows": (
        lambda i: i.write_log(*(row.replace(",i", ",x") for row in ROWS)),
        r"none of the 60 rows can be used: item is not in the items file \(60\)",
    ),
    "no clicks": (
        lambda i: i.write_log(*(row[:-2] + "0\n" for row in ROWS)),
        r"log\.csv: none of the 60 events is a click; check data\.events\.click",
    ),
    "all events in one moment": (
        lambda i: i.write_log(*(f"u{n % 4},i{n % 10},{START},1\n" for n in range(40))),
        r"all 20 events happen in one moment \(1700000000000 ms\), so a split by time has nothing to hold out; "
        r"check data\.events\.time and time_unit, or use split: \{by: last_click\}",
    ),
    "two events": (
        lambda i: i.write_log(f"u0,i1,{START},1\n", f"u0,i2,{START + 1},1\n"),
        r"validation has no event, as the log is too small or too many share one time .* change validation and test",
    ),
    "one user who clicked twice": (
        lambda i: [i.write_log(f"u0,i1,{START},1\n", f"u0,i2,{START + 1},1\n"), i.split_by_last_click()],
        r"no user has three clicks or more \(1 users in the log\), so nothing can be held out; use more of the log",
    ),
}


def columns(users: list[object]) -> dict[str, list[object]]:
    return {"user": users, "item": ["i1"] * len(users), "at": [START] * len(users), "click": [1] * len(users)}


def parquet_bytes(users: list[object]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns(users)), sink)
    return bytes(sink.getvalue())


def assert_one_clear_error(outcome: Outcome, message: str) -> None:
    lines = outcome.err.splitlines()
    assert outcome.code == 1
    assert [line for line in lines if not line.startswith("error: ")] in ([], ["prepare ..."])
    assert len([line for line in lines if line.startswith("error: ")]) == 1
    assert outcome.out == ""
    assert re.search(message, lines[-1]), lines[-1]


@pytest.mark.parametrize("case", FOUND_AT_ONCE)
def test_what_a_look_at_the_files_shows_is_one_error_before_the_log_is_read(
    case: str, inputs: Inputs, prepare: Callable[[], Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_late(*args: object, **kwargs: object) -> None:
        raise AssertionError("the log is being read")

    monkeypatch.setattr("pipelines.training_data.collect_events", too_late)
    spoil, message = FOUND_AT_ONCE[case]
    spoil(inputs)
    assert_one_clear_error(prepare(), message)
    assert not (inputs.folder / "run").exists()


@pytest.mark.parametrize("case", FOUND_WHEN_THE_LOG_IS_READ)
def test_what_only_reading_the_log_shows_is_one_error_and_leaves_nothing(
    case: str, inputs: Inputs, prepare: Callable[[], Outcome]
) -> None:
    spoil, message = FOUND_WHEN_THE_LOG_IS_READ[case]
    spoil(inputs)
    assert_one_clear_error(prepare(), message)
    assert not (inputs.folder / "run").exists()


def test_bad_input_leaves_what_an_earlier_run_prepared(inputs: Inputs, prepare: Callable[[], Outcome]) -> None:
    assert prepare().code == 0
    run = inputs.folder / "run"
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    inputs.write_log()
    assert prepare().code == 1
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


# Rows that are set aside


def test_rows_that_cannot_be_used_are_kept_with_their_reason_and_counted(
    inputs: Inputs, prepare: Callable[[], Outcome]
) -> None:
    bad = [
        (f",i1,{START},1\n", "user is missing"),
        (f"u1,,{START},1\n", "item is missing"),
        ("u1,i1,,1\n", "time is missing"),
        ("u1,i1,yesterday,1\n", "time cannot be read"),
        (f"u1,i1,{START},\n", "click is missing"),
        (f"u1,i1,{START},maybe\n", "click is not a number"),
        (f"u1,new,{START},1\n", "item is not in the items file"),
    ]
    inputs.write_log(*(row for row, _ in bad), *ROWS, *ROWS[:3], bad[3][0])
    outcome = prepare()
    assert outcome.code == 0, outcome.err
    rejected = pq.read_table(inputs.folder / "run" / "data" / "rejected.parquet").to_pylist()
    assert [(row["row"], row["reason"]) for row in rejected] == [
        *((number, reason) for number, (_, reason) in enumerate(bad)),
        (7 + 60 + 3, "time cannot be read"),
    ]
    found = [rejected[3][name] for name in ("user", "item", "time", "click")]
    assert found == ["u1", "i1", "yesterday", "1"]
    assert {Path(row["file"]) for row in rejected} == {inputs.log}

    counts = json.loads((inputs.folder / "run" / "data" / "manifest.json").read_text())["counts"]
    assert counts["rows_read"] == 7 + 60 + 3 + 1
    assert counts["duplicates"] == 3
    assert counts["rejected"] == {reason: 1 + (reason == "time cannot be read") for _, reason in bad}
    for _, reason in bad:
        assert f"rejected: {reason}" in outcome.err
    assert sum(counts["examples"].values()) == counts["clicks"] == 40


# Small logs that are fine


def test_events_of_one_day_are_split_within_the_day(inputs: Inputs, prepare: Callable[[], Outcome]) -> None:
    # 60 events, one a minute: with 0.2 and 0.2 validation begins with event 36 (from 0), test with event 48.
    assert prepare().code == 0
    manifest = json.loads((inputs.folder / "run" / "data" / "manifest.json").read_text())
    assert manifest["split"]["validation_start_ms"] == (START + 36 * 60) * 1000
    assert manifest["split"]["test_start_ms"] == (START + 48 * 60) * 1000
    assert manifest["counts"]["examples"] == {"train": 24, "validation": 8, "test": 8}


# A full disk: no file may grow beyond a limit


LIMIT = 4_000


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """Let no file of this process grow beyond the limit within the block."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_while_preparing_is_one_error_and_leaves_nothing(inputs: Inputs) -> None:
    arguments = ["prepare", "--config", str(inputs.experiment), "--run", str(inputs.folder / "run")]
    result = subprocess.run(
        [sys.executable, "-m", "recall.cli", *arguments],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT)),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 1
    error = result.stderr.splitlines()[-1]
    assert error.startswith(f"error: {inputs.folder / 'run' / 'data'}: could not be written")
    assert "Free some space or choose another --out" in error
    assert "Traceback" not in result.stderr
    assert not (inputs.folder / "run").exists()


@pytest.mark.slow
def test_a_full_disk_while_training_is_one_error_and_leaves_no_model(
    inputs: Inputs, prepare: Callable[[], Outcome], command: Callable[..., Outcome]
) -> None:
    run = inputs.folder / "run"
    inputs.replace(inputs.experiment, "model: {", "model: {structure: behaviour_only, ")
    assert prepare().code == 0
    with limited():
        result = command("train", "--run", run)  # the weights have more
    assert result.code == 1
    assert "Traceback" not in result.err
    assert "train behaviour_only could not read or write its files (File too large); free some space" in result.err
    assert not list(run.glob("model*"))


def test_a_place_that_cannot_be_written_is_one_error(inputs: Inputs, command: Callable[..., Outcome]) -> None:
    (inputs.folder / "file").write_text("in the way")
    outcome = command("prepare", "--config", inputs.experiment, "--run", inputs.folder / "file" / "run")
    assert outcome.code == 1
    assert "could not be written" in outcome.err
    assert "choose another --out" in outcome.err
