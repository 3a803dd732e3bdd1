"""The items and users files, and what is wrong with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from recall.config.experiment import Config, load_config
from recall.core.errors import ConfigError, DataError
from recall.data.catalogue import check_files, read_items, read_users

GENRES = {"name": "genre", "type": "category"}
TEXT = {"name": "text", "type": "embedding", "path": "text.npy"}
Experiment = Callable[..., Config]


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    """Builds a config in a folder with a small catalogue; keyword arguments replace parts."""
    (tmp_path / "log.csv").write_text("user_id,item_id,time\nu,a,1\n")
    (tmp_path / "items.csv").write_text("item_id,title,genre\na,Alpha,x\nb,Beta,\nc,Gamma,x\n")
    np.save(tmp_path / "text.npy", np.array([[1, 0], [0, 0], [0.5, 2]], np.float16))

    def build(
        *,
        meta: list[dict[str, Any]] | None = None,
        items: dict[str, Any] | None = None,
        users: dict[str, Any] | None = None,
        user: list[dict[str, Any]] | None = None,
        **features: Any,
    ) -> Config:
        content: dict[str, Any] = {
            "data": {"events": {"path": "log*.csv"}, "items": {"path": "items.csv", **(items or {})}},
            "features": {
                "user": user or [],
                "behaviour": [{"name": "item_id", "type": "id"}],
                "meta": [GENRES] if meta is None else meta,
                **features,
            },
        }
        if users:
            content["data"]["users"] = users
        (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(content))
        return load_config(tmp_path / "experiment.yaml")

    return build


class TestItems:
    def test_ids_title_and_feature_columns_are_kept_in_file_order(self, experiment: Experiment) -> None:
        items = read_items(experiment(items={"title": "title"}))
        assert len(items) == 3
        assert items.ids.to_pylist() == ["a", "b", "c"]
        assert items.table.to_pydict() == {
            "item_id": ["a", "b", "c"],
            "title": ["Alpha", "Beta", "Gamma"],
            "genre": ["x", None, "x"],
        }

    def test_only_needed_columns_are_read(self, experiment: Experiment) -> None:
        assert read_items(experiment()).table.column_names == ["item_id", "genre"]

    def test_features_may_share_a_column(self, experiment: Experiment) -> None:
        meta = [GENRES, {"name": "genre_tags", "column": "genre", "type": "tags"}]
        assert read_items(experiment(meta=meta)).table.column_names == ["item_id", "genre"]

    def test_unknown_items_of_the_log_are_appended_sorted_without_content(self, experiment: Experiment) -> None:
        items = read_items(experiment(meta=[GENRES, TEXT]), extra_ids={"z", "b", "m"})
        assert items.ids.to_pylist() == ["a", "b", "c", "m", "z"]
        assert items.table["item_id"].to_pylist() == items.ids.to_pylist()
        assert items.table["genre"].to_pylist() == ["x", None, "x", None, None]
        assert items.table["text"].to_pylist()[3:] == [None, None]

    def test_integer_ids_and_extra_ids_meet_as_text(self, experiment: Experiment, tmp_path: Path) -> None:
        pq.write_table(pa.table({"item_id": [7, 9], "genre": ["x", "y"]}), tmp_path / "items.parquet")
        items = read_items(experiment(items={"path": "items.parquet"}), extra_ids=["9", "8"])
        assert items.ids.to_pylist() == ["7", "9", "8"]
        assert items.table["item_id"].to_pylist() == ["7", "9", "8"]

    def test_attributes_file_gives_ids_and_lists(self, experiment: Experiment, tmp_path: Path) -> None:
        (tmp_path / "items.json").write_text(json.dumps({"4": [1, 2], "83": [], "9": ["x"]}))
        meta = [{"name": "attributes", "type": "tags"}]
        items = read_items(experiment(items={"path": "items.json", "format": "attributes"}, meta=meta))
        assert items.table.to_pydict() == {"item_id": ["4", "83", "9"], "attributes": [["1", "2"], [], ["x"]]}

    def test_json_lines_keep_lists_and_late_fields(self, experiment: Experiment, tmp_path: Path) -> None:
        (tmp_path / "items.jsonl").write_text('{"item_id": "a", "tags": ["x", "y"]}\n{"item_id": "b", "genre": "g"}\n')
        meta = [GENRES, {"name": "tags", "type": "tags"}]
        table = read_items(experiment(items={"path": "items.jsonl"}, meta=meta)).table
        assert table["tags"].to_pylist() == [["x", "y"], None]
        assert table["genre"].to_pylist() == [None, "g"]


class TestBadItems:
    def test_duplicate_ids_are_named_with_their_lines(self, experiment: Experiment, tmp_path: Path) -> None:
        # The header is line 1, so the two rows of a are lines 2 and 4.
        (tmp_path / "items.csv").write_text("item_id,genre\na,x\nb,y\na,z\n")
        with pytest.raises(
            DataError, match=r"data\.items\.id: .*items\.csv has 1 ids more than once: a \(lines 2 and 4\)"
        ):
            read_items(experiment())

    def test_missing_ids_are_named_by_line(self, experiment: Experiment, tmp_path: Path) -> None:
        (tmp_path / "items.csv").write_text("item_id,genre\na,x\n,y\n ,z\n")
        with pytest.raises(DataError, match=r"2 rows without an id \(lines 3 and 4\)"):
            read_items(experiment())

    def test_header_alone_is_no_catalogue(self, experiment: Experiment, tmp_path: Path) -> None:
        (tmp_path / "items.csv").write_text("item_id,genre\n")
        with pytest.raises(DataError, match="has no rows"):
            read_items(experiment())

    @pytest.mark.parametrize(
        ("parts", "key"),
        [
            ({"items": {"id": "nope"}}, r"data\.items\.id"),
            ({"items": {"title": "nope"}}, r"data\.items\.title"),
            ({"meta": [GENRES, {"name": "x", "column": "nope", "type": "tags"}]}, r"features\.meta\[1\]"),
        ],
    )
    def test_missing_column_names_its_key_and_the_columns(
        self, experiment: Experiment, parts: dict[str, Any], key: str
    ) -> None:
        with pytest.raises(DataError, match=rf"{key}: .* no column nope; its columns are item_id, title, genre"):
            read_items(experiment(**parts))

    @pytest.mark.parametrize(
        "content", ["[1, 2]", '{"a": 3}', '{"a": {"b": [1]}}', '{"a": [[1]]}', '{"a": [1]', "", '"text"']
    )
    def test_attributes_of_another_shape_are_refused(
        self, experiment: Experiment, tmp_path: Path, content: str
    ) -> None:
        (tmp_path / "items.json").write_text(content)
        meta = [{"name": "attributes", "type": "tags"}]
        with pytest.raises(DataError, match=r"items\.json: .*expected"):
            read_items(experiment(items={"path": "items.json", "format": "attributes"}, meta=meta))

    def test_duplicate_keys_of_attributes_do_not_overwrite_each_other(
        self, experiment: Experiment, tmp_path: Path
    ) -> None:
        (tmp_path / "items.json").write_text('{"a": [1], "b": [2], "a": [3]}')
        meta = [{"name": "attributes", "type": "tags"}]
        with pytest.raises(DataError, match="1 ids more than once: a"):
            read_items(experiment(items={"path": "items.json", "format": "attributes"}, meta=meta))


class TestDisguisedIds:
    def _write(self, folder: Path, rows: int, distinct: int) -> None:
        lines = [f"i{row},v{row % distinct}" for row in range(rows)]
        (folder / "items.csv").write_text("\n".join(["item_id,genre", *lines, ""]))

    def test_category_that_names_items_is_refused(self, experiment: Experiment, tmp_path: Path) -> None:
        self._write(tmp_path, rows=200, distinct=120)
        with pytest.raises(
            DataError, match=r"features\.meta\[0\]: genre has 120 distinct values in 200 rows.*behaviour"
        ):
            read_items(experiment())

    def test_allow_mixed_lets_it_in(self, experiment: Experiment, tmp_path: Path) -> None:
        self._write(tmp_path, rows=200, distinct=120)
        assert len(read_items(experiment(allow_mixed=True))) == 200

    @pytest.mark.parametrize(("rows", "distinct"), [(200, 100), (99, 99)])
    def test_describing_categories_and_small_tables_pass(
        self, experiment: Experiment, tmp_path: Path, rows: int, distinct: int
    ) -> None:
        self._write(tmp_path, rows=rows, distinct=distinct)
        assert len(read_items(experiment())) == rows


class TestEmbeddings:
    def test_npy_rows_follow_the_lines_and_zeros_are_missing(self, experiment: Experiment) -> None:
        column = read_items(experiment(meta=[TEXT])).table["text"]
        assert column.type == pa.list_(pa.float32(), 2)
        assert column.to_pylist() == [[1.0, 0.0], None, [0.5, 2.0]]

    def test_list_column_of_parquet_is_an_embedding(self, experiment: Experiment, tmp_path: Path) -> None:
        pq.write_table(
            pa.table({"item_id": ["a", "b", "c"], "v": [[1.0, 2.0], None, [0.0, 0.0]]}), tmp_path / "items.parquet"
        )
        meta = [{"name": "text", "column": "v", "type": "embedding"}]
        items = read_items(experiment(items={"path": "items.parquet"}, meta=meta))
        assert items.table["v"].to_pylist() == [[1.0, 2.0], None, None]

    def test_list_column_of_differing_lengths_is_refused(self, experiment: Experiment, tmp_path: Path) -> None:
        pq.write_table(pa.table({"item_id": ["a", "b"], "v": [[1.0, 2.0], [1.0]]}), tmp_path / "items.parquet")
        meta = [{"name": "text", "column": "v", "type": "embedding"}]
        with pytest.raises(DataError, match=r"features\.meta\[0\]: column v of items\.parquet: .*another length"):
            read_items(experiment(items={"path": "items.parquet"}, meta=meta))

    def test_another_number_of_rows_says_both(self, experiment: Experiment, tmp_path: Path) -> None:
        np.save(tmp_path / "text.npy", np.ones((1234, 2)))
        message = (
            r"features\.meta\[1\]\.path: text\.npy has 1,234 rows but items\.csv has 3; "
            r"row i must be the vector of line i of items\.csv"
        )
        with pytest.raises(DataError, match=message):
            read_items(experiment(meta=[GENRES, TEXT]))

    @pytest.mark.parametrize(
        ("vectors", "message"),
        [
            (np.ones(3), r"float64 of shape \(3,\)"),
            (np.array([["a"], ["b"], ["c"]]), "expected one array of numbers"),
            (np.array([[1, np.nan], [0, 1], [np.inf, 1]]), r"NaN or infinity in 2 rows \(counted from 0\): 0, 2"),
        ],
    )
    def test_other_arrays_are_refused(
        self, experiment: Experiment, tmp_path: Path, vectors: npt.NDArray[Any], message: str
    ) -> None:
        np.save(tmp_path / "text.npy", vectors)
        with pytest.raises(DataError, match=message):
            read_items(experiment(meta=[TEXT]))

    @pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00", b"not numpy"])
    def test_damaged_npy_is_refused(self, experiment: Experiment, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "text.npy").write_bytes(content)
        with pytest.raises(DataError, match=r"features\.meta\[0\]\.path: .*text\.npy cannot be read"):
            read_items(experiment(meta=[TEXT]))

    def test_truncated_npy_is_refused(self, experiment: Experiment, tmp_path: Path) -> None:
        content = (tmp_path / "text.npy").read_bytes()
        (tmp_path / "text.npy").write_bytes(content[:-3])
        with pytest.raises(DataError, match="cannot be read"):
            read_items(experiment(meta=[TEXT]))

    def test_pickled_objects_are_never_loaded(self, experiment: Experiment, tmp_path: Path) -> None:
        np.save(tmp_path / "text.npy", np.array([[{"a": 1}]] * 3, object), allow_pickle=True)
        with pytest.raises(DataError, match="cannot be read"):
            read_items(experiment(meta=[TEXT]))

    def test_embedding_named_like_a_column_in_use_is_refused(self, experiment: Experiment) -> None:
        with pytest.raises(DataError, match="give the embedding another name"):
            read_items(experiment(meta=[{**TEXT, "name": "title"}], items={"title": "title"}))

    def test_one_file_may_serve_two_features(self, experiment: Experiment) -> None:
        meta = [TEXT, {**TEXT, "name": "clusters", "column": "text", "clusters": [2], "use": "clusters"}]
        assert read_items(experiment(meta=meta)).table.column_names == ["item_id", "text"]


class TestUsers:
    def test_no_users_file_means_no_table(self, experiment: Experiment) -> None:
        assert read_users(experiment()) is None

    def test_profiles_are_read(self, experiment: Experiment, tmp_path: Path) -> None:
        (tmp_path / "users.tsv").write_text("uid\tage\n1\t30\n2\t\n")
        users = read_users(
            experiment(users={"path": "users.tsv", "id": "uid"}, user=[{"name": "age", "type": "number"}])
        )
        assert users is not None
        assert users.table.to_pydict() == {"uid": ["1", "2"], "age": ["30", None]}

    def test_duplicate_users_and_missing_columns_name_their_key(self, experiment: Experiment, tmp_path: Path) -> None:
        (tmp_path / "users.tsv").write_text("user_id\tage\n1\t30\n1\t31\n")
        with pytest.raises(DataError, match=r"data\.users\.id: .*1 \(lines 2 and 3\)"):
            read_users(experiment(users={"path": "users.tsv"}, user=[{"name": "age", "type": "number"}]))
        with pytest.raises(DataError, match=r"features\.user\[0\]: .*no column sex"):
            read_users(experiment(users={"path": "users.tsv"}, user=[{"name": "sex", "type": "category"}]))


class TestCheckFiles:
    def test_complete_experiment_passes(self, experiment: Experiment) -> None:
        check_files(experiment(meta=[TEXT]))

    @pytest.mark.parametrize(
        ("name", "key"),
        [
            ("log.csv", r"data\.events\.path: .*matches no file"),
            ("items.csv", r"data\.items\.path: .*items\.csv: no such file; paths are relative"),
            ("users.csv", r"data\.users\.path: .*users\.csv: no such file"),
            ("text.npy", r"features\.meta\[0\]\.path: .*text\.npy: no such file"),
        ],
    )
    def test_each_missing_file_names_its_key(self, experiment: Experiment, tmp_path: Path, name: str, key: str) -> None:
        (tmp_path / "users.csv").write_text("user_id\n1\n")
        config = experiment(meta=[TEXT], users={"path": "users.csv"})
        (tmp_path / name).unlink()
        with pytest.raises(ConfigError, match=key):
            check_files(config)

    def test_all_missing_files_are_listed_at_once(self, experiment: Experiment, tmp_path: Path) -> None:
        config = experiment(meta=[TEXT])
        for name in ("items.csv", "text.npy"):
            (tmp_path / name).unlink()
        with pytest.raises(ConfigError, match=r"(?s)data\.items\.path.*features\.meta\[0\]\.path"):
            check_files(config)

    def test_folder_is_no_items_file(self, experiment: Experiment, tmp_path: Path) -> None:
        (tmp_path / "folder").mkdir()
        with pytest.raises(ConfigError, match="is a folder; expected one file"):
            check_files(experiment(items={"path": "folder"}))


def test_movielens_vectors_stand_beside_their_movies(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "ml-100k"
    content = {
        "data": {"events": {"path": str(folder / "ratings.tsv")}, "items": {"path": str(folder / "movies.tsv")}},
        "features": {"meta": [{"name": "text", "type": "embedding", "path": str(folder / "text_embedding.npy")}]},
        "model": {"structure": "meta_only"},
    }
    (tmp_path / "movies.yaml").write_text(yaml.safe_dump(content))
    items = read_items(load_config(tmp_path / "movies.yaml"))
    raw = np.load(folder / "text_embedding.npy")
    assert len(items) == 1682
    for row in (0, 266, 1681):
        np.testing.assert_array_equal(items.table["text"][row].as_py(), raw[row].astype(np.float32))
