"""Attributes: values of the items file as they are, for any rows, new ones included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recall.config.experiment import Config, load_config
from recall.config.features import CategoryFeature, EmbeddingFeature, IdFeature, NumberFeature, TagsFeature
from recall.core.errors import DataError
from recall.data.catalogue import read_items
from recall.data.item_attributes import ItemAttributes, attribute_columns, separators_of
from recall.data.prepared import PreparedData
from tests.conftest import Experiment

FEATURES = (
    IdFeature(name="author", type="id", column="author_id", min_count=50),
    CategoryFeature(name="category", type="category"),
    TagsFeature(name="tags", type="tags", separator="|", max_tags=1),
    NumberFeature(name="seconds", type="number", log=True),
    EmbeddingFeature(name="text", type="embedding"),
)
RAW = pa.table(
    {
        "author_id": [7, 8, None],
        "category": [" news ", "", "sport"],
        "tags": ["a| b ", None, "c"],
        "seconds": ["12", "", "3.5"],
        "text": [[1.0], [2.0], [3.0]],
        "published": [100, 200, None],
    }
)


@pytest.fixture
def attributes() -> ItemAttributes:
    table = attribute_columns(RAW, FEATURES, further=["published"])
    return ItemAttributes(pa.array(["x", "y", "z"]), table, separators_of(FEATURES))


def test_values_are_those_of_the_file_whatever_the_features_make_of_them(attributes: ItemAttributes) -> None:
    assert attributes.table.to_pydict() == {
        "author_id": ["7", "8", None],
        "category": ["news", None, "sport"],
        "tags": [["a", "b"], [], ["c"]],
        "seconds": [12.0, None, 3.5],
        "published": [100, 200, None],
    }


def test_attributes_of_other_ids_are_missing_where_the_id_is_unknown(attributes: ItemAttributes) -> None:
    found = attributes.of(pa.array(["z", "nobody", "x"]))
    assert found.table["category"].to_pylist() == ["sport", None, "news"]
    assert found.table["tags"].to_pylist() == [["c"], None, ["a", "b"]]


def test_new_rows_join_and_take_the_place_of_old_ones(attributes: ItemAttributes) -> None:
    rows: list[dict[str, Any]] = [{"author_id": 9, "tags": "d|e", "seconds": 4, "color": "red"}, {"tags": "f"}]
    joined = attributes.take(np.array([2, 0])).joined(attributes.read(["y", "new"], rows))
    found = joined.of(pa.array(["x", "y", "z", "new"])).table
    assert found["author_id"].to_pylist() == ["7", "9", None, None]
    assert found["tags"].to_pylist() == [["a", "b"], ["d", "e"], ["c"], ["f"]]
    assert found["seconds"].to_pylist() == [12.0, 4.0, 3.5, None]
    assert found["category"].to_pylist() == ["news", None, "sport", None]
    assert attributes.table["seconds"].to_pylist() == [12.0, None, 3.5], "what was asked before stays as it was"


@pytest.mark.parametrize("wrong", [{"seconds": "long"}, {"category": {"a": 1}}, {"published": "yesterday"}])
def test_a_new_row_of_another_type_is_an_error_that_names_the_attribute(
    attributes: ItemAttributes, wrong: dict[str, Any]
) -> None:
    with pytest.raises(DataError, match=f"attribute {next(iter(wrong))}"):
        attributes.read(["new"], [wrong])


def test_an_unknown_attribute_lists_those_that_there_are(attributes: ItemAttributes) -> None:
    with pytest.raises(DataError, match="where: items have no attribute colour; they have author_id, category, tags, "):
        attributes.column("colour", what="where")


def test_prepared_data_keeps_attributes_that_no_feature_reads(experiment: Experiment, tmp_path: Path) -> None:
    from pipelines.training_data import prepare

    config = experiment("data.items.attributes=[published_ms]")
    prepare(config, tmp_path / "data")
    prepared = PreparedData.load(tmp_path / "data")
    raw = pd.read_parquet(config.data.items.path)
    assert prepared.attributes is not None
    found = prepared.attributes.to_pandas()
    assert list(found.published_ms) == list(raw.published_ms)
    assert list(found.author_id) == list(raw.author_id)
    assert [list(tags) for tags in found.tags] == [list(tags) for tags in raw.tags]
    assert "text" not in found.columns


@pytest.mark.parametrize(
    ("column", "problem"),
    [
        ("colour", r"data.items.attributes\[0\]: .* has no column colour"),
        ("text", r"attributes\[0\]: column text .* expected text, numbers"),
    ],
)
def test_attributes_that_cannot_be_kept_are_refused(experiment: Experiment, column: str, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        read_items(experiment(f"data.items.attributes=[{column}]"))


def test_attributes_of_an_s3rec_file_are_its_tags(tmp_path: Path) -> None:
    (tmp_path / "items.json").write_text('{"1": ["a", "b"], "2": []}')
    (tmp_path / "log.csv").write_text("user_id,item_id,time\nu,1,1\n")
    (tmp_path / "e.yaml").write_text(
        "data:\n  events: {path: log.csv}\n  items: {path: items.json, format: attributes}\n"
        "features: {user: [], behaviour: [{name: item_id, type: id}], meta: [{name: attributes, type: tags}]}\n"
    )
    config: Config = load_config(tmp_path / "e.yaml", ())
    table = attribute_columns(read_items(config).table, config.features.item)
    assert table.to_pydict() == {"item_id": ["1", "2"], "attributes": [["a", "b"], []]}
    pq.write_table(table, tmp_path / "kept.parquet")
    assert pq.read_table(tmp_path / "kept.parquet").equals(table)
