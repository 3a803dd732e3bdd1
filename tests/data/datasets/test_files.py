"""Writing data sets and reading delimited text."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recall.core.errors import ArtifactError, DataError
from recall.data.datasets import Dataset
from recall.data.datasets.files import as_number, read_delimited


def small() -> Dataset:
    return Dataset(
        events=pa.table({"user_id": [1, 1], "item_id": [7, 8]}),
        items=pa.table({"item_id": [7, 8], "tags": [["a"], None]}),
        extras={"history": pa.table({"user_id": [1]})},
    )


def test_written_files_hold_the_tables_and_nothing_else_is_left(tmp_path: Path) -> None:
    written = small().write(tmp_path / "new" / "folder")
    assert sorted(path.name for path in written) == ["events.parquet", "history.parquet", "items.parquet"]
    assert sorted((tmp_path / "new" / "folder").iterdir()) == sorted(written)
    assert pq.read_table(tmp_path / "new" / "folder" / "items.parquet").equals(small().items)


def test_other_files_of_the_folder_survive_a_write(tmp_path: Path) -> None:
    (tmp_path / "u.data").write_text("as published")
    small().write(tmp_path)
    small().write(tmp_path)
    assert (tmp_path / "u.data").read_text() == "as published"


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ArtifactError, match="could not be written"):
        small().write(tmp_path / "file")


def test_a_failed_write_leaves_the_old_files_and_no_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [events, *_] = small().write(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    write_table = pq.write_table

    def full_disk(table: pa.Table, path: Path) -> None:
        write_table(table, path)
        if "items" in str(path):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full_disk)
    with pytest.raises(ArtifactError, match="No space left"):
        Dataset(events=pa.table({"user_id": [9]}), items=pa.table({"item_id": [9]})).write(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert pq.read_table(events).equals(small().events)


def test_a_line_with_another_number_of_values_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ratings.dat"
    path.write_text("1::2::3\n4::5\n6::7::8\n")
    with pytest.raises(DataError, match=r"ratings\.dat, line 2: expected 3 columns \(a, b, c\), found 2"):
        read_delimited(path, ("a", "b", "c"), delimiter="::")


@pytest.mark.parametrize("content", ["", "a,b\n"])
def test_an_empty_file_is_an_error_but_a_header_alone_is_an_empty_table(tmp_path: Path, content: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(content)
    if content:
        assert read_delimited(path, ("a", "b"), delimiter=",", header=True).num_rows == 0
    else:
        with pytest.raises(DataError, match="cannot be read"):
            read_delimited(path, ("a", "b"), delimiter=",", header=True)


def test_another_header_is_an_error_that_shows_both(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("x,y\n1,2\n")
    with pytest.raises(DataError, match="expected the header a,b, found 'x,y'"):
        read_delimited(path, ("a", "b"), delimiter=",", header=True)


@pytest.mark.parametrize(("text", "found"), [("many", "'many'"), (None, "nothing"), ("2.5", "'2.5'")])
def test_a_value_that_is_no_whole_number_is_named_with_its_line(text: str | None, found: str) -> None:
    table = pa.table({"age": pa.array(["31", text, "x"])})
    with pytest.raises(DataError, match=f"users, line 3: age is {found}"):
        as_number(table, "age", pa.int64(), path=Path("users"), first_line=2)
