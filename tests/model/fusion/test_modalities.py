"""Tests how encoded features become modalities: groups, missing values, and what concatenation leaves alone."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from recall.config.model import ModelConfig
from recall.data.features.table_encoder import EncodedColumn
from recall.model.fusion import content_input
from recall.model.fusion.modalities import FusedModalities
from recall.model.layers.features import FeatureInput, Features, FeatureTable
from recall.model.towers.item import ItemSide

COLUMNS = (
    EncodedColumn("tags", "tags", "meta", "codes", 6),
    EncodedColumn("length", "length", "meta", "number", 1),
    EncodedColumn("text", "text", "meta", "vector", 3),
    EncodedColumn("text_cluster_0", "text", "meta", "code", 4),
    EncodedColumn("genre", "genre", "meta", "code", 5),
)
MODALITIES = {"tags": "tags", "length": "attributes", "text": "text", "genre": "attributes"}
# A genre of code 1 is one that the vocabulary lacks: it is there. Item 2 has a length only, item 3 nothing at all.
ITEMS = pa.table(
    {
        "tags": pa.array([[2], [3, 4], [], None], pa.list_(pa.int32())),
        "length": pa.array([0.5, None, 2.0, None], pa.float32()),
        "text": pa.array([[1, 0, 0], None, None, None], pa.list_(pa.float32(), 3)),
        "text_cluster_0": pa.array([2, 0, 0, 0], pa.int32()),
        "genre": pa.array([3, 1, 0, 0], pa.int32()),
    }
)
PRESENT = {"tags": [1, 1, 0, 0], "attributes": [1, 1, 1, 0], "text": [1, 0, 0, 0]}


def features() -> Features:
    return FeatureTable(COLUMNS, ITEMS).gather(tf.range(ITEMS.num_rows))


def build(kind: str = "lmf") -> FusedModalities:
    tf.keras.utils.set_random_seed(2)
    config = ModelConfig(dim=4, fusion={"kind": kind})  # type: ignore[arg-type]
    layer = content_input(COLUMNS, modalities=MODALITIES, config=config)
    layer.fused(features())
    return layer


def test_columns_of_a_modality_are_read_together() -> None:
    layer = build()
    assert layer.modalities == ("tags", "attributes", "text")
    read = [[column.name for column in part.columns] for part in layer.inputs]
    assert read == [["tags"], ["length", "genre"], ["text", "text_cluster_0"]]


def test_a_modality_is_there_if_any_of_its_columns_is() -> None:
    layer = build()
    expected = np.array([PRESENT[name] for name in layer.modalities], bool).T
    np.testing.assert_array_equal(layer.present(features()), expected)
    np.testing.assert_array_equal(layer.fused(features()).weights > 0, expected)


@pytest.mark.parametrize("use", ["vector", "clusters"])
def test_half_of_an_embedding_is_enough(use: str) -> None:
    columns = [column for column in COLUMNS if column.name == {"vector": "text", "clusters": "text_cluster_0"}[use]]
    columns.append(COLUMNS[0])
    layer = content_input(columns, modalities={}, config=ModelConfig(dim=4, fusion={"kind": "lmf"}))  # type: ignore[arg-type]
    assert isinstance(layer, FusedModalities)
    np.testing.assert_array_equal(layer.present(features())[:, 0], [True, False, False, False])


def test_an_item_without_content_has_a_learned_vector() -> None:
    layer = build()
    vector, weights = layer.fused(features())
    np.testing.assert_array_equal(vector[3], layer.fusion.absent)
    np.testing.assert_array_equal(weights[3], np.zeros(3))


def test_concatenation_is_the_plain_input_under_another_name() -> None:
    tf.keras.utils.set_random_seed(2)
    plain = FeatureInput(COLUMNS, dim=4, name="content")
    expected = plain(features())
    concat = build("concat")
    found, weights = concat.fused(features())
    np.testing.assert_array_equal(found, expected)
    assert weights is None
    assert [variable.name for variable in concat.variables] == [variable.name for variable in plain.variables]


def test_the_item_side_tells_the_weights_of_items() -> None:
    for kind, names in (("lmf", ("tags", "attributes", "text")), ("concat", ())):
        config = ModelConfig(dim=4, structure="meta_only", fusion={"kind": kind})  # type: ignore[arg-type]
        side = ItemSide(COLUMNS, id_name=None, config=config, prior_ctr=0.2, modalities=MODALITIES)
        assert side.modalities == names
        weights = side.modality_weights(features())
        if weights is None:
            assert kind == "concat"
        else:
            np.testing.assert_allclose(tf.reduce_sum(weights, axis=1), [1, 1, 1, 0], rtol=1e-6)
