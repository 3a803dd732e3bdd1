"""Reading files of every format, and what their ids and numbers mean."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recall.core.canonical import id_list, id_strings
from recall.core.errors import DataError
from recall.core.tables import expand_paths, numbers, parse_numbers, read_header, read_table

ROWS = [{"id": "1", "text": "plain"}, {"id": "2", "text": None}, {"id": "3", "text": "ünï"}]


def _write_delimited(path: Path, separator: str) -> None:
    lines = [separator.join((row["id"] or "", row["text"] or "")) for row in ROWS]
    content = "\n".join([f"id{separator}text", *lines, ""]).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def _write_json(path: Path) -> None:
    content = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


WRITERS: dict[str, Callable[[Path], None]] = {
    "t.csv": lambda path: _write_delimited(path, ","),
    "t.csv.gz": lambda path: _write_delimited(path, ","),
    "t.tsv": lambda path: _write_delimited(path, "\t"),
    "t.tsv.gz": lambda path: _write_delimited(path, "\t"),
    "t.jsonl": _write_json,
    "t.jsonl.gz": _write_json,
    "t.parquet": lambda path: pq.write_table(pa.Table.from_pylist(ROWS), path),
}


@pytest.fixture(params=WRITERS)
def table_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / request.param
    WRITERS[request.param](path)
    return path


class TestEveryFormat:
    def test_reads_back_what_was_written(self, table_file: Path) -> None:
        assert read_table(table_file).to_pylist() == ROWS

    def test_header_lists_the_columns(self, table_file: Path) -> None:
        assert read_header(table_file) == ["id", "text"]

    def test_columns_come_in_the_order_asked_for_and_once(self, table_file: Path) -> None:
        assert read_table(table_file, columns=["text", "id", "text"]).column_names == ["text", "id"]

    def test_missing_column_is_named_with_those_that_exist(self, table_file: Path) -> None:
        with pytest.raises(DataError, match=rf"{table_file.name}: has no column price; its columns are id, text"):
            read_table(table_file, columns=["id", "price"])

    def test_truncated_file_is_one_clear_error(self, table_file: Path) -> None:
        content = table_file.read_bytes()
        cut = content.index(b"\n3") + 2 if table_file.suffix in (".csv", ".tsv") else len(content) - 9
        table_file.write_bytes(content[:cut])
        with pytest.raises(DataError, match=rf"{table_file.name}: cannot be read as .*truncated"):
            read_table(table_file)

    def test_file_without_bytes_is_called_empty(self, table_file: Path) -> None:
        table_file.write_bytes(b"")
        with pytest.raises(DataError, match=rf"{table_file.name}: is empty"):
            read_table(table_file)

    def test_missing_file_is_named(self, table_file: Path) -> None:
        table_file.unlink()
        with pytest.raises(DataError, match="no such file"):
            read_table(table_file)

    def test_format_may_be_declared_where_the_ending_says_nothing(self, table_file: Path) -> None:
        kind = next(kind for kind in ("csv", "tsv", "jsonl", "parquet") if f".{kind}" in table_file.name)
        renamed = table_file.rename(table_file.with_name("data" + (".gz" if table_file.suffix == ".gz" else "")))
        with pytest.raises(DataError, match="ending"):
            read_table(renamed)
        assert read_table(renamed, format=kind).to_pylist() == ROWS


class TestDelimited:
    def test_csv_quotes_hold_separators_newlines_and_doubled_quotes(self, tmp_path: Path) -> None:
        path = tmp_path / "t.csv"
        path.write_text('a,b\n1,"x, ""y""\nz"\n2,""\n')
        assert read_table(path).to_pylist() == [{"a": "1", "b": 'x, "y"\nz'}, {"a": "2", "b": None}]

    def test_tsv_takes_quotes_as_text(self, tmp_path: Path) -> None:
        path = tmp_path / "t.tsv"
        path.write_text('a\tb\n1\t"Great Escape, The\n2\t5" reel\n')
        assert read_table(path)["b"].to_pylist() == ['"Great Escape, The', '5" reel']

    def test_csv_values_stay_text_whatever_they_look_like(self, tmp_path: Path) -> None:
        path = tmp_path / "t.csv"
        path.write_text("a,b\n007,2024-01-01\n1e5,true\n")
        assert read_table(path).to_pylist() == [{"a": "007", "b": "2024-01-01"}, {"a": "1e5", "b": "true"}]

    def test_byte_order_mark_and_windows_line_ends_are_not_data(self, tmp_path: Path) -> None:
        path = tmp_path / "t.csv"
        path.write_bytes(b"\xef\xbb\xbfa,b\r\n1,2\r\n")
        assert read_table(path, columns=["a", "b"]).to_pylist() == [{"a": "1", "b": "2"}]

    def test_header_without_rows_gives_a_table_without_rows(self, tmp_path: Path) -> None:
        path = tmp_path / "t.csv"
        path.write_text("a,b\n")
        assert read_table(path).to_pydict() == {"a": [], "b": []}

    def test_quote_that_never_closes_is_an_error_with_its_line(self, tmp_path: Path) -> None:
        path = tmp_path / "t.csv"
        path.write_text('a,b\n1,x\n2,"y\n3,z\n')
        with pytest.raises(DataError, match=r"record that starts in line 3 do not close"):
            read_table(path)

    def test_lone_quote_inside_an_unquoted_value_is_text(self, tmp_path: Path) -> None:
        path = tmp_path / "t.csv"
        path.write_text('a,b\n1,5" reel\n')
        assert read_table(path)["b"].to_pylist() == ['5" reel']

    def test_latin1_file_says_how_to_convert_it(self, tmp_path: Path) -> None:
        path = tmp_path / "t.csv"
        path.write_bytes("a,b\n1,Misérables\n".encode("latin1"))
        with pytest.raises(DataError, match="not UTF-8"):
            read_table(path)

    def test_column_name_that_is_there_twice_is_refused_only_when_used(self, tmp_path: Path) -> None:
        path = tmp_path / "t.csv"
        path.write_text("a,b,a\n1,2,3\n")
        assert read_table(path, columns=["b"])["b"].to_pylist() == ["2"]
        with pytest.raises(DataError, match="2 columns called a"):
            read_table(path, columns=["a"])


class TestRealFiles:
    def test_kuairand_items_agree_with_pandas(self, shared_data: Path) -> None:
        path = shared_data / "kuairand" / "video_features_basic_pure.csv"
        expected = pd.read_csv(path, dtype=str)
        actual = read_table(path)
        assert len(actual) == 7583
        for name in expected:
            assert (
                actual[name].to_pylist() == expected[name].astype(object).where(expected[name].notna(), None).tolist()
            )

    def test_kuairand_users_keep_quoted_ranges(self, shared_data: Path) -> None:
        users = read_table(shared_data / "kuairand" / "user_features_pure.csv.gz", columns=["fans_user_num_range"])
        assert len(users) == 27285
        assert "[100,1k)" in users["fans_user_num_range"].unique().to_pylist()

    def test_movielens_rows_end_at_line_ends(self, shared_data: Path) -> None:
        path = shared_data / "ml-100k" / "movies.tsv"
        lines = path.read_text(encoding="utf-8").split("\n")[1:-1]
        movies = read_table(path, columns=["item_id", "plot"])
        assert movies["item_id"].to_pylist() == [line.split("\t")[0] for line in lines]
        assert movies["plot"].null_count == 11


class TestPaths:
    def test_glob_lists_files_sorted(self, tmp_path: Path) -> None:
        for name in ("b.csv", "a.csv", "c.txt"):
            (tmp_path / name).write_text("x\n")
        assert [path.name for path in expand_paths(tmp_path / "*.csv")] == ["a.csv", "b.csv"]

    def test_glob_descends_with_two_stars(self, tmp_path: Path) -> None:
        (tmp_path / "day").mkdir()
        (tmp_path / "day" / "a.csv").write_text("x\n")
        assert expand_paths(str(tmp_path / "**" / "*.csv")) == [tmp_path / "day" / "a.csv"]

    def test_existing_file_needs_no_escaping(self, tmp_path: Path) -> None:
        path = tmp_path / "log[1].csv"
        path.write_text("x\n")
        assert expand_paths(path) == [path]

    def test_nothing_found_and_folder_are_errors(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="matches no file"):
            expand_paths(tmp_path / "*.csv")
        with pytest.raises(DataError, match="is a folder"):
            expand_paths(tmp_path)


class TestIds:
    @pytest.mark.parametrize(
        ("column", "expected"),
        [
            (pa.array([7, None, -1]), ["7", None, "-1"]),
            (pa.array([12.0, float("nan"), None, 2.5]), ["12", None, None, "2.5"]),
            (pa.array([2.0**52]), [str(2**52)]),
            (pa.array([" a ", "", "  ", None, "12.0"]), ["a", None, None, None, "12.0"]),
            (pa.array(["x", "y", "x"]).dictionary_encode(), ["x", "y", "x"]),
            (pa.array(["x", None], pa.large_string()), ["x", None]),
            (pa.nulls(2), [None, None]),
            (pa.chunked_array([[1], [2, None]]), ["1", "2", None]),
            (pa.chunked_array([], pa.int64()), []),
        ],
    )
    def test_ids_become_text(self, column: pa.Array, expected: list[str | None]) -> None:
        ids = id_strings(column)
        assert ids.type == pa.string()
        assert ids.to_pylist() == expected

    def test_ids_of_a_csv_and_of_a_float_parquet_column_meet(self) -> None:
        values = np.random.default_rng(0).integers(0, 2**50, 1000)
        text = id_strings(pa.array([str(value) for value in values]))
        assert text == id_strings(pa.array(values)) == id_strings(pa.array(values.astype(np.float64)))

    def test_lists_are_no_ids(self) -> None:
        with pytest.raises(DataError, match="expected ids"):
            id_strings(pa.array([[1]]))


class TestNumbers:
    def test_text_is_parsed_and_missing_is_nan(self) -> None:
        text = ["1", " 2.5 ", "+3", "-1e3", ".5", "5.", "True", "false", "nan", "", None]
        expected = [1, 2.5, 3, -1000, 0.5, 5, 1, 0, np.nan, np.nan, np.nan]
        np.testing.assert_array_equal(numbers(pa.array(text)), expected)

    def test_python_and_we_read_the_same_numbers(self) -> None:
        values = np.random.default_rng(1).normal(size=500) * 10.0 ** np.arange(-250, 250)
        np.testing.assert_array_equal(numbers(pa.array([repr(float(value)) for value in values])), values)

    @pytest.mark.parametrize("column", [pa.array([True, False]), pa.array([1, 0]), pa.array([1.0, 0.0])])
    def test_typed_columns_are_numbers_already(self, column: pa.Array) -> None:
        np.testing.assert_array_equal(numbers(column), [1.0, 0.0])

    def test_other_values_are_marked_one_by_one(self) -> None:
        values, wrong = parse_numbers(pa.array(["1", "abc", "inf", "1_0", "0x1f", "--1", None]))
        assert wrong.tolist() == [False, True, True, True, True, True, False]
        assert np.isnan(values[1:]).all()

    def test_error_counts_them_and_shows_the_first(self) -> None:
        with pytest.raises(DataError, match=r"duration: .*2 other values, the first in data row 2: 'abc'"):
            numbers(pa.array(["1", "abc", "x"]), what="duration")

    def test_timestamps_are_not_numbers(self) -> None:
        with pytest.raises(DataError, match="expected numbers"):
            numbers(pa.array([0], pa.timestamp("ms")))


@pytest.mark.parametrize("character", ["x", "ß", "🦉"])
def test_ids_have_at_most_512_characters(character: str) -> None:
    assert id_list([character * 512], what="ids").to_pylist() == [character * 512]
    with pytest.raises(DataError, match="ids: expected ids of at most 512 characters, found"):
        id_list(["a", character * 513], what="ids")


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_file_whose_name_is_no_utf8_is_refused_by_name(tmp_path: Path, ending: str) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/log\xff." + ending.encode())).touch()
    with pytest.raises(DataError, match=r"log\\udcff\.\w+': the file's name is no UTF-8"):
        expand_paths(tmp_path / "log*")
