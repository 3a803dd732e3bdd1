"""Raw columns to the columns that towers read."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from recall.config.features import FeatureSchema
from recall.core.errors import DataError
from recall.core.tables import read_table
from recall.data.features.table_encoder import EncodedColumn, TableEncoder


def _fit(meta: list[dict[str, Any]], table: dict[str, Any], **arguments: Any) -> TableEncoder:
    schema = FeatureSchema.model_validate({"meta": meta, "allow_mixed": True})
    return TableEncoder.fit({"meta": schema.meta}, pa.table(table), **arguments)


def _encode(meta: dict[str, Any], values: Any, new: Any = None) -> list[Any]:
    """Fits one feature called x on a column and returns the encoded column of the same or of new rows."""
    encoder = _fit([{"name": "x", **meta}], {"x": values})
    encoded: list[Any] = encoder.encode(pa.table({"x": values if new is None else new}))["x"].to_pylist()
    return encoded


class TestIdsAndCategories:
    def test_category_counts_rows_and_unknown_is_one(self) -> None:
        assert _encode({"type": "category"}, ["a", "b", "b", None, ""]) == [3, 2, 2, 0, 0]
        assert _encode({"type": "category"}, ["a", "b"], ["b", "new", None]) == [3, 1, 0]

    def test_category_may_be_a_number_or_text_of_it(self) -> None:
        assert _encode({"type": "category"}, [720.0, None, 1280.0], ["1280", "720"]) == [2, 3]

    def test_id_counts_the_training_clicks_of_all_its_rows(self) -> None:
        # ann: 2 + 3 clicks, bob: 6, cid: 0 (never clicked: out of vocabulary like an unknown author)
        authors = {"author": ["ann", "bob", "ann", "cid"]}
        encoder = _fit([{"name": "author", "type": "id"}], authors, clicks=np.array([2, 6, 3, 0]))
        assert encoder.encode(pa.table(authors))["author"].to_pylist() == [3, 2, 3, 1]
        assert encoder.vocabularies["author"].counts.tolist() == [6, 5]

    def test_min_count_sends_rare_values_out_of_vocabulary(self) -> None:
        assert _encode({"type": "category", "min_count": 2}, ["a", "a", "b"]) == [2, 2, 1]

    def test_lists_are_refused_with_the_remedy(self) -> None:
        with pytest.raises(DataError, match=r"feature x: .*type: tags"):
            _encode({"type": "category"}, [["a"]])


class TestTags:
    def test_text_is_split_stripped_and_each_tag_kept_once(self) -> None:
        # a in three rows, b in two, c in one
        values = ["a| b |a", "b|a", "", None, "|", "c|a"]
        assert _encode({"type": "tags", "separator": "|"}, values) == [[2, 3], [3, 2], [], [], [], [4, 2]]

    def test_list_column_gives_the_same_codes_as_joined_text(self) -> None:
        random = np.random.default_rng(0)
        lists = [[f"t{tag}" for tag in random.integers(0, 30, random.integers(0, 8))] for _ in range(300)]
        text = [",".join(tags) for tags in lists]
        assert _encode({"type": "tags"}, lists) == _encode({"type": "tags"}, text)

    def test_codes_agree_with_a_plain_loop(self) -> None:
        random = np.random.default_rng(1)
        lists = [[f"t{tag}" for tag in random.integers(0, 30, random.integers(0, 8))] for _ in range(300)]
        unique = [list(dict.fromkeys(tags)) for tags in lists]
        counted = Counter(tag for tags in unique for tag in tags)
        order = sorted(counted, key=lambda tag: (-counted[tag], tag))
        assert _encode({"type": "tags"}, lists) == [[order.index(tag) + 2 for tag in tags] for tags in unique]

    def test_tags_beyond_the_limit_are_cut_off_row_by_row(self) -> None:
        assert [len(tags) for tags in _encode({"type": "tags", "max_tags": 2}, ["a,a,b,c", "a", "c,b,a"])] == [2, 1, 2]

    def test_new_rows_may_hold_lists_and_unknown_tags(self) -> None:
        assert _encode({"type": "tags"}, ["a,b", "a"], [["b", "zzz"], None, ["a", None]]) == [[3, 1], [], [2]]

    def test_numbers_are_tags_too(self) -> None:
        assert _encode({"type": "tags"}, ["7,8", "7"], pa.array([[7, 8], [8]])) == [[2, 3], [3]]


class TestNumbers:
    def test_standardised_with_mean_and_deviation_of_the_present(self) -> None:
        # mean 4, population deviation 2
        assert _encode({"type": "number"}, ["2", "", "6"], [4.0, 8.0, None]) == [0.0, 2.0, None]

    def test_log_keeps_the_sign(self) -> None:
        encoded = _encode({"type": "number", "log": True}, [-10.0, 0.0, 10.0])
        # log(11) is 1.2247 standard deviations of (-log 11, 0, log 11): sqrt(3/2)
        np.testing.assert_allclose(encoded, [-math.sqrt(1.5), 0.0, math.sqrt(1.5)], rtol=1e-6)

    @pytest.mark.parametrize("values", [[0.1] * 7, [5.0], [None, 3.0]])
    def test_constant_becomes_zero(self, values: list[float]) -> None:
        assert {value for value in _encode({"type": "number"}, values) if value is not None} == {0.0}

    def test_column_without_any_number_stays_missing(self) -> None:
        assert _encode({"type": "number"}, [None, ""], ["3", None]) == [3.0, None]
        assert _encode({"type": "number", "transform": "bucketise"}, [None, ""], ["3", None]) == [2, 0]

    def test_buckets_hold_equally_many_rows(self) -> None:
        values = np.random.default_rng(0).lognormal(size=1000)
        codes = _encode({"type": "number", "transform": "bucketise", "buckets": 5}, values)
        assert Counter(codes) == {2: 200, 3: 200, 4: 200, 5: 200, 6: 200}
        assert np.argsort(values, kind="stable")[:200].tolist() == [
            row for row in np.argsort(values, kind="stable") if codes[row] == 2
        ]

    def test_buckets_of_new_values_reach_beyond_the_range_seen(self) -> None:
        meta = {"type": "number", "transform": "bucketise", "buckets": 2}
        assert _encode(meta, [1.0, 2.0, 3.0, 4.0], [-1e9, 1e9, None]) == [2, 3, 0]

    def test_repeating_quantiles_are_merged_and_counted(self) -> None:
        encoder = _fit([{"name": "x", "type": "number", "transform": "bucketise"}], {"x": [1.0] * 99 + [2.0]})
        (column,) = encoder.columns
        codes = encoder.encode(pa.table({"x": [0.0, 1.0, 2.0]}))["x"].to_pylist()
        assert codes == [2, 3, 3]
        assert column.size == 4

    def test_text_among_numbers_is_an_error_that_names_the_feature(self) -> None:
        with pytest.raises(DataError, match=r"feature length \(column x\): .*'long'"):
            _fit([{"name": "length", "column": "x", "type": "number"}], {"x": ["1", "long"]})


class TestEmbeddings:
    VECTORS = np.random.default_rng(3).normal(size=(80, 6)).astype(np.float32)

    def _table(self) -> dict[str, Any]:
        rows: list[Any] = self.VECTORS.tolist()
        rows[5], rows[6] = None, [0.0] * 6
        return {"x": rows}

    def test_vector_stays_and_zeros_are_missing(self) -> None:
        encoded = _encode({"type": "embedding"}, self._table()["x"])
        assert [row for row, vector in enumerate(encoded) if vector is None] == [5, 6]
        np.testing.assert_array_equal(np.array(encoded[10]), self.VECTORS[10])

    @pytest.mark.parametrize(
        ("use", "expected"),
        [
            ("vector", ["x"]),
            ("clusters", ["x_cluster_0", "x_cluster_1"]),
            ("both", ["x", "x_cluster_0", "x_cluster_1"]),
        ],
    )
    def test_use_decides_which_columns_exist(self, use: str, expected: list[str]) -> None:
        encoder = _fit([{"name": "x", "type": "embedding", "clusters": [4, 8], "use": use}], self._table())
        assert encoder.encode(pa.table(self._table())).column_names == expected

    def test_cluster_codes_start_at_two_and_missing_is_zero(self) -> None:
        encoder = _fit([{"name": "x", "type": "embedding", "clusters": [4, 8]}], self._table())
        encoded = encoder.encode(pa.table(self._table()))
        coarse, fine = (np.array(encoded[f"x_cluster_{level}"]) for level in (0, 1))
        assert coarse[[5, 6]].tolist() == fine[[5, 6]].tolist() == [0, 0]
        there = np.delete(np.arange(80), [5, 6])
        assert set(coarse[there]) <= {2, 3, 4, 5}
        np.testing.assert_array_equal((fine[there] - 2) // 2, coarse[there] - 2)
        assert [column.size for column in encoder.columns] == [6, 6, 10]

    def test_clusters_are_placed_on_the_chosen_rows_only(self) -> None:
        near, far = np.tile([1.0, 0.0], (20, 1)), np.tile([100.0, 0.0], (20, 1))
        near[10:, 1] = 5
        table = {"x": np.concatenate([near, far]).tolist()}
        feature = [{"name": "x", "type": "embedding", "clusters": [2], "use": "clusters"}]
        chosen = _fit(feature, table, fit_rows=np.arange(40) < 20).encode(pa.table(table))["x_cluster_0"].to_pylist()
        everywhere = _fit(feature, table).encode(pa.table(table))["x_cluster_0"].to_pylist()
        assert len(set(chosen[:20])) == 2
        assert len(set(everywhere[:20])) == 1

    def test_another_dimension_is_refused(self) -> None:
        encoder = _fit([{"name": "x", "type": "embedding"}], self._table())
        with pytest.raises(DataError, match=r"feature x: vectors have 3 numbers, the model was trained on 6"):
            encoder.encode([{"x": [1.0, 2.0, 3.0]}])

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ([[1.0, 2.0], [1.0]], r"first vector has 2 numbers, 1 rows have another length \(counted from 0: 1\)"),
            ([[1.0, math.nan], [1.0, 2.0]], "NaN or infinity in 1 rows .*: 0"),
            ([[1.0, None], [1.0, 2.0]], "NaN or infinity in 1 rows"),
            (["[1, 2]"], "expected lists of numbers"),
            ([None, None], "no row has a vector"),
        ],
    )
    def test_what_is_no_vector_is_refused(self, values: list[Any], message: str) -> None:
        with pytest.raises(DataError, match=message):
            _fit([{"name": "x", "type": "embedding"}], {"x": values})


ITEMS: dict[str, Any] = {
    "id": ["i1", "i2", "i3", "i4"],
    "author": ["ann", "bob", "ann", None],
    "genre": ["x", "y", None, "x"],
    "tags": ["a|b", None, "b", "b|c"],
    "length": ["10", "20", None, "60"],
    "text": [[1.0, 0.0], [0.0, 1.0], None, [0.5, 0.5]],
}
FEATURES = FeatureSchema.model_validate(
    {
        "behaviour": [{"name": "id", "type": "id"}, {"name": "author", "type": "id"}],
        "meta": [
            {"name": "genre", "type": "category"},
            {"name": "tags", "type": "tags", "separator": "|"},
            {"name": "length", "type": "number"},
            {"name": "length_bucket", "column": "length", "type": "number", "transform": "bucketise", "buckets": 2},
            {"name": "text", "type": "embedding", "clusters": [2], "path": "/somewhere/text.npy"},
        ],
    }
)


@pytest.fixture
def encoder() -> TableEncoder:
    features = {"behaviour": FEATURES.behaviour, "meta": FEATURES.meta}
    return TableEncoder.fit(features, pa.table(ITEMS), clicks=np.array([3, 1, 0, 0]))


class TestWholeTable:
    def test_columns_tell_tower_kind_and_size(self, encoder: TableEncoder) -> None:
        assert encoder.columns == (
            EncodedColumn("id", "id", "behaviour", "code", 4),
            EncodedColumn("author", "author", "behaviour", "code", 4),
            EncodedColumn("genre", "genre", "meta", "code", 4),
            EncodedColumn("tags", "tags", "meta", "codes", 5),
            EncodedColumn("length", "length", "meta", "number", 1),
            EncodedColumn("length_bucket", "length_bucket", "meta", "code", 4),
            EncodedColumn("text", "text", "meta", "vector", 2),
            EncodedColumn("text_cluster_0", "text", "meta", "code", 4),
        )

    def test_types_are_as_promised(self, encoder: TableEncoder) -> None:
        encoded = encoder.encode(pa.table(ITEMS))
        types = {
            "code": pa.int32(),
            "codes": pa.list_(pa.int32()),
            "number": pa.float32(),
            "vector": pa.list_(pa.float32(), 2),
        }
        assert encoded.column_names == [column.name for column in encoder.columns]
        for column in encoder.columns:
            assert encoded.schema.field(column.name).type == types[column.kind], column

    def test_codes_stay_below_their_size(self, encoder: TableEncoder) -> None:
        encoded = encoder.encode(pa.table(ITEMS))
        for column in encoder.columns:
            if column.kind in ("code", "codes"):
                values = encoded[column.name].combine_chunks()
                flat = np.array(values.flatten() if column.kind == "codes" else values)
                assert flat.min() >= 0
                assert flat.max() < column.size

    def test_new_item_with_some_columns_has_the_others_missing(self, encoder: TableEncoder) -> None:
        (row,) = encoder.encode([{"genre": "y", "id": "brand-new"}]).to_pylist()
        assert row["genre"] == 3
        assert row["id"] == 1
        assert row["author"] == row["length_bucket"] == row["text_cluster_0"] == 0
        assert row["tags"] == []
        assert row["length"] is None
        assert row["text"] is None

    def test_rows_as_mappings_encode_like_the_table(self, encoder: TableEncoder) -> None:
        mappings = [{name: values[row] for name, values in ITEMS.items()} for row in range(4)]
        assert encoder.encode(mappings).equals(encoder.encode(pa.table(ITEMS)))

    def test_mappings_without_any_known_key_are_rows_of_nothing(self, encoder: TableEncoder) -> None:
        assert len(encoder.encode([{}, {"weather": 1}])) == 2
        assert len(encoder.encode([])) == 0
        assert len(encoder.encode(pa.table(ITEMS).slice(0, 0))) == 0

    def test_mappings_of_mixed_types_are_encoded_as_each_would_be_alone(self, encoder: TableEncoder) -> None:
        rows: list[dict[str, Any]] = [{"id": 1, "length": 3}, {"id": "b", "length": "3"}]
        together, alone = encoder.encode(rows), [encoder.encode([row]) for row in rows]
        assert together.to_pylist() == pa.concat_tables(alone).to_pylist()
        with pytest.raises(DataError, match=r"row 1 \(counted from 0\), column length: expected a finite number"):
            encoder.encode([{"length": 3}, {"length": "long"}])

    def test_saved_encoder_gives_the_same_table(self, encoder: TableEncoder, tmp_path: Path) -> None:
        encoder.save(tmp_path / "items")
        loaded = TableEncoder.load(tmp_path / "items")
        assert loaded.columns == encoder.columns
        new = [{"author": "bob", "length": 33.3, "text": [3.0, 1.0], "tags": ["c", "q"]}]
        for rows in (pa.table(ITEMS), new):
            assert loaded.encode(rows).equals(encoder.encode(rows))

    def test_saved_encoder_names_no_path_of_this_machine(self, encoder: TableEncoder, tmp_path: Path) -> None:
        encoder.save(tmp_path)
        assert "somewhere" not in (tmp_path / "encoder.json").read_text()

    def test_column_that_the_table_lacks_is_an_error_when_fitting(self) -> None:
        with pytest.raises(DataError, match="feature tags: no column tags; the table has id"):
            TableEncoder.fit({"meta": FEATURES.meta[1:2]}, pa.table({"id": ["a"]}))


def test_kuairand_videos_encode_with_every_value_accounted_for(shared_data: Path) -> None:
    videos = read_table(shared_data / "kuairand" / "video_features_basic_pure.csv")
    encoder = _fit(
        [
            {"name": "tag", "type": "tags"},
            {"name": "video_duration", "type": "number", "log": True},
            {"name": "upload_type", "type": "category", "min_count": 10},
        ],
        {name: videos[name] for name in ("tag", "video_duration", "upload_type")},
    )
    encoded = encoder.encode(videos)
    tags = [sorted({tag for tag in (text or "").split(",") if tag}) for text in videos["tag"].to_pylist()]
    decoded = [
        sorted(encoder.vocabularies["tag"].decode(np.array(codes, np.int32)).to_pylist())
        for codes in encoded["tag"].to_pylist()
    ]
    assert decoded == tags
    durations = np.array(encoded["video_duration"].to_numpy(), np.float64)
    assert encoded["video_duration"].null_count == videos["video_duration"].null_count
    assert abs(np.nanmean(durations)) < 1e-4
    assert abs(np.nanstd(durations) - 1) < 1e-4
    counts = Counter(videos["upload_type"].to_pylist())
    rare = sum(count for value, count in counts.items() if value is not None and count < 10)
    assert Counter(encoded["upload_type"].to_pylist())[1] == rare
