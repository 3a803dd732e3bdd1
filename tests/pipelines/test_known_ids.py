"""What prepare says of ids: one form in every kind of file, what was assumed, and how many the files know."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from pipelines.training_data import prepare, print_counts
from recall.config.experiment import Config
from recall.core.errors import DataError
from recall.data.prepared import PreparedData

START = 1_700_000_000_000
FEATURES: dict[str, Any] = {
    "user": [{"name": "user", "type": "id"}, {"name": "region", "type": "category"}],
    "behaviour": [{"name": "item", "type": "id"}],
    "meta": [{"name": "grade", "type": "category"}, {"name": "is_new", "type": "category"}],
}


def frames(users: list[Any], items: list[Any]) -> dict[str, pd.DataFrame]:
    """A log of four users and ten items, with a gap among the users, and what the files say of them."""
    n = np.arange(60)
    log = {"user": [users[k % 4] for k in n], "item": [items[k * 7 % 10] for k in n], "at": START + 60_000 * n}
    gap = pd.DataFrame({"user": [np.nan], "item": [items[0]], "at": [START], "click": [1]})
    grades = [None, *(k % 3 for k in range(1, 10))]
    return {
        "log": pd.concat([pd.DataFrame({**log, "click": (n % 3 > 0).astype(int)}), gap]),
        "items": pd.DataFrame({"item": items, "grade": grades, "is_new": [k % 2 == 0 for k in range(10)]}),
        "users": pd.DataFrame({"user": users, "region": ["r", "s"] * 2}),
    }


@pytest.fixture
def described(tmp_path: Path) -> Callable[..., Config]:
    """Write the files in a format and describe them."""

    def make(ending: str, **files: pd.DataFrame | pa.Table) -> Config:
        for name, frame in files.items():
            path = tmp_path / f"{name}.{ending}"
            if ending == "parquet":
                table = frame if isinstance(frame, pa.Table) else pa.Table.from_pandas(frame, preserve_index=False)
                pq.write_table(table, path)
            elif ending == "jsonl":
                frame.to_json(path, orient="records", lines=True)
            else:
                frame.to_csv(path, index=False, sep="\t" if ending == "tsv" else ",")
        columns = {"user": "user", "item": "item", "time": "at", "click": "click"}
        data = {
            "events": {"path": str(tmp_path / f"log.{ending}"), **columns},
            "items": {"path": str(tmp_path / f"items.{ending}"), "id": "item"},
            "users": {"path": str(tmp_path / f"users.{ending}"), "id": "user"},
            "split": {"validation": 0.2, "test": 0.2},
        }
        return Config.model_validate({"data": data, "features": FEATURES})

    return make


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_ids_and_categories_are_the_same_in_every_kind_of_file(
    ending: str, described: Callable[..., Config], tmp_path: Path
) -> None:
    manifest = prepare(described(ending, **frames([*range(4)], [*range(10)])), tmp_path / "data")
    data = PreparedData.load(tmp_path / "data")
    assert data.item_ids.to_pylist() == [str(item) for item in range(10)]
    assert manifest["counts"]["known"] == {"items": {"in_log": 10, "known": 10}, "users": {"in_log": 4, "known": 4}}
    assert len(pq.read_table(tmp_path / "data" / "users.parquet")) == 4, "no user is there twice"
    words = data.item_encoder.vocabularies
    assert sorted(words["grade"].values.to_pylist()) == ["0", "1", "2"]
    assert sorted(words["is_new"].values.to_pylist()) == ["false", "true"]
    row = data.item_encoder.encode([{"grade": 1, "is_new": True}, {"grade": "1.0", "is_new": "True"}]).to_pylist()
    assert row[0] == row[1]
    assert min(row[0]["grade"], row[0]["is_new"]) > 1, "in the vocabulary"
    notes = [note for note in manifest["notes"] if "read as" in note or "knows" in note]
    if ending in ("csv", "tsv"):
        assert notes == [
            f"column grade of {tmp_path / f'items.{ending}'}: its values are read as numbers: 1.0 is 1",
            f"column is_new of {tmp_path / f'items.{ending}'}: its values are read as truth values: True is true",
            f"column user of log.{ending}: its values are read as numbers: 0.0 is 0",
        ]
    else:
        assert notes == []


def test_texts_that_look_like_numbers_and_dates_stay_apart_where_the_file_has_types(
    described: Callable[..., Config], tmp_path: Path
) -> None:
    items = ["12", "12.0", "012", "1e5", "100000", "2024-01-01", "2024-01-01 00:00:00", "True", "true", "nan"]
    for ending in ("parquet", "jsonl", "csv"):
        files = frames(["7", "7.0", "07", "x"], items)
        prepare(described(ending, **files), tmp_path / ending)
        data = PreparedData.load(tmp_path / ending)
        assert data.item_ids.to_pylist() == items
        assert data.manifest["counts"]["users"] == 4


def test_a_file_that_knows_few_of_the_log_is_said_with_one_id_of_each_side(
    described: Callable[..., Config], tmp_path: Path
) -> None:
    files = frames([f"u{n}" for n in range(4)], [f"i{n}" for n in range(10)])
    files["users"]["user"] = [f"U{n}" for n in range(4)]
    files["items"]["item"] = [*(f"i{n}" for n in range(3)), *(f"I{n}" for n in range(3, 10))]
    manifest = prepare(described("csv", **files), tmp_path / "data")
    assert manifest["counts"]["known"] == {"items": {"in_log": 10, "known": 3}, "users": {"in_log": 4, "known": 0}}
    console = Console(record=True, width=200)
    print_counts(manifest, console)
    text = console.export_text()
    assert "users of the log that the users file knows" in text
    lines = [line for line in text.splitlines() if line.startswith("note") and " knows " in line]
    assert lines[0].startswith("note: items.csv knows 3 of the 10 items of the log: the log has, for example, 'i")
    assert "the file 'I3'; check data.items.id and data.events.item" in lines[0]
    assert lines[1].startswith("note: users.csv knows 0 of the 4 users of the log: the log has, for example, 'u")
    assert "the file 'U0'" in lines[1]


def test_a_log_of_items_that_no_file_knows_shows_one_id_of_each_side(
    described: Callable[..., Config], tmp_path: Path
) -> None:
    files = frames([f"u{n}" for n in range(4)], [f"i{n}" for n in range(10)])
    files["items"]["item"] = [f"I{n}" for n in range(10)]
    with pytest.raises(DataError, match=r"item is not in the items file .*\(the log has item 'i0', the file 'I0'\)"):
        prepare(described("csv", **files), tmp_path / "data")


NAMES = [f"i{n}" for n in range(10)]
UUIDS = [uuid.uuid5(uuid.NAMESPACE_DNS, str(n)) for n in range(10)]
DAYS = [datetime.date(2024, 1, 1 + n) for n in range(10)]
TYPED: dict[str, tuple[pa.Array, list[str]]] = {
    "UUID": (pa.array(UUIDS), [str(one) for one in UUIDS]),
    "bytes of one length": (
        pa.array([name.encode() for name in NAMES], pa.binary(2)),
        NAMES,
    ),
    "binary": (pa.array([name.encode() for name in NAMES]), NAMES),
    "string view": (pa.array(NAMES, pa.string_view()), NAMES),
    "large string": (pa.array(NAMES, pa.large_string()), NAMES),
    "float16": (pa.array(np.arange(10, dtype=np.float16)), [f"{n}" for n in range(10)]),
    "decimal": (pa.array([Decimal(f"{n}.00") for n in range(10)]), [f"{n}" for n in range(10)]),
    "large decimal": (pa.array([Decimal(2**64 + n) for n in range(10)]), [f"{2**64 + n}" for n in range(10)]),
    "unsigned": (pa.array([2**63 + n for n in range(10)], pa.uint64()), [f"{2**63 + n}" for n in range(10)]),
    "date": (pa.array(DAYS), [str(day) for day in DAYS]),
    "categorical": (pa.array(NAMES).dictionary_encode(), NAMES),
}


@pytest.mark.parametrize("name", TYPED)
def test_ids_and_categories_of_every_type_of_parquet_are_read(
    name: str, described: Callable[..., Config], tmp_path: Path
) -> None:
    ids, expected = TYPED[name]
    places = np.arange(60)

    def chosen(rows: Any) -> pa.Array:
        return pa.concat_arrays([ids.slice(int(row), 1) for row in rows])  # Arrow cannot take from views of text

    log = pa.table(
        {
            "user": chosen(places % 4),
            "item": chosen(places * 7 % 10),
            "at": START + 60_000 * places,
            "click": (places % 3 > 0).astype(int),
        }
    )
    items = pa.table({"item": ids, "grade": chosen(np.arange(10) % 3), "is_new": [True] * 10})
    users = pa.table({"user": ids.slice(0, 4), "region": ids.slice(0, 4)})
    manifest = prepare(described("parquet", log=log, items=items, users=users), tmp_path / "data")
    data = PreparedData.load(tmp_path / "data")
    assert data.item_ids.to_pylist() == expected
    assert sorted(data.item_encoder.vocabularies["grade"].values.to_pylist()) == sorted(expected[:3])
    assert manifest["counts"]["known"]["users"] == {"in_log": 4, "known": 4}
    assert manifest["counts"]["rejected"] == {}


@pytest.mark.parametrize(
    ("file", "column", "key"),
    [
        ("log", "user", "data.events.user"),
        ("log", "item", "data.events.item"),
        ("items", "item", "data.items.id"),
        ("items", "grade", r"features.meta\[0\]"),
        ("users", "user", "data.users.id"),
        ("users", "region", r"features.user\[1\]"),
    ],
)
@pytest.mark.parametrize("values", [[b"\xff" * 16], [2.0**60], [[1]], [{"a": 1}]])
def test_ids_and_categories_that_cannot_be_read_exactly_are_refused_with_file_and_key(
    values: list[Any], file: str, column: str, key: str, described: Callable[..., Config], tmp_path: Path
) -> None:
    files = {
        name: pa.Table.from_pandas(frame, preserve_index=False)
        for name, frame in frames([f"u{n}" for n in range(4)], [f"i{n}" for n in range(10)]).items()
    }
    table = files[file]
    kind = pa.binary(16) if isinstance(values[0], bytes) else None
    files[file] = table.set_column(table.column_names.index(column), column, pa.array(values * len(table), kind))
    with pytest.raises(DataError, match=rf"{key}.*{file}\.parquet"):
        prepare(described("parquet", **files), tmp_path / "data")
