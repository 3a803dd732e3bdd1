"""Makes the item side in all its structures with random weights, and six items: known, new and empty ones."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from recall.config.model import ModelConfig
from recall.data.features.table_encoder import EncodedColumn
from recall.model.layers.features import Features, FeatureTable
from recall.model.towers.item import ItemSide, ItemVectors

DIM = 8
ITEM = EncodedColumn("item_id", "item_id", "behaviour", "code", 7)
AUTHOR = EncodedColumn("author_id", "author_id", "behaviour", "code", 4)
BEHAVIOUR = (ITEM, AUTHOR)
META = (
    EncodedColumn("tags", "tags", "meta", "codes", 6),
    EncodedColumn("length", "length", "meta", "number", 1),
    EncodedColumn("text", "text", "meta", "vector", 3),
    EncodedColumn("text_cluster_0", "text", "meta", "code", 4),
)
COLUMNS = BEHAVIOUR + META

# Rows 0 to 2 are known items, 3 and 4 are out of vocabulary, 5 has no id. Row 4 has no content, row 5 nothing at all.
ITEMS = pa.table(
    {
        "item_id": pa.array([2, 3, 6, 1, 1, 0], pa.int32()),
        "author_id": pa.array([2, 3, 2, 1, 2, 0], pa.int32()),
        "tags": pa.array([[2], [3, 4], [2, 5], [4], [], None], pa.list_(pa.int32())),
        "length": pa.array([0.5, -1.0, 2.0, 0.0, None, None], pa.float32()),
        "text": pa.array([[1, 0, 0], [0, 2, 1], [3, 3, 1], [0, -1, 0], None, None], pa.list_(pa.float32(), 3)),
        "text_cluster_0": pa.array([2, 3, 3, 2, 0, 0], pa.int32()),
    }
)
COUNT = ITEMS.num_rows
# exposures, clicks, smoothed CTR, age in hours
POSTERIOR = tf.constant(
    [[900, 90, 0.12, 300], [10, 4, 0.3, 5], [0, 0, 0.2, 0], [0, 0, 0.2, 0], [3, 1, 0.22, 1], [0, 0, 0.2, 0]], tf.float32
)
# By code of the id: 40 clicks of code 2, none of codes that no item has; codes 0 and 1 are missing and unknown ids.
ID_CLICKS = np.array([7, 500, 40, 3, 0, 0, 120])
LATER = POSTERIOR + tf.constant([500.0, 100.0, 0.1, 48.0])

VARIANTS: dict[str, dict[str, Any]] = {
    "gated": {"structure": "gated", "gate": "sum"},
    "gated_residual": {"structure": "gated", "gate": "residual"},
    "gated_concat": {"structure": "gated", "gate": "concat"},
    "gated_per_dimension": {"structure": "gated", "gate": "sum", "gate_shape": "per_dimension"},
    "gated_concat_per_dimension": {"structure": "gated", "gate": "concat", "gate_shape": "per_dimension"},
    "gated_shared_space": {"structure": "gated", "gate": "sum", "shared_space": True},
    "base": {"structure": "base"},
    "single": {"structure": "single"},
    "behaviour_only": {"structure": "behaviour_only"},
    "meta_only": {"structure": "meta_only"},
}
every_variant = pytest.mark.parametrize("variant", list(VARIANTS))


def build_item_side(
    variant: str, *, columns: Sequence[EncodedColumn] = COLUMNS, has_audience: bool = False, **settings: Any
) -> ItemSide:
    tf.keras.utils.set_random_seed(21)
    settings = {"similarity": "cosine", **VARIANTS[variant], **settings}
    config = ModelConfig(dim=DIM, hidden=(10,), gate_hidden=4, **settings)
    id_name = "item_id" if ITEM in columns else None
    side = ItemSide(
        columns, id_name=id_name, config=config, prior_ctr=0.2, id_clicks=ID_CLICKS, has_audience=has_audience
    )
    features = features_of(columns)
    nothing_else = tf.zeros([COUNT, side.posterior_width - POSTERIOR.shape[1]])
    vectors_of(side, features, tf.concat([POSTERIOR, nothing_else], axis=1))
    side.tokens(side.content_of(features))  # all weights are there now
    # Fresh tables are so small and biases so alike that a forgotten input might not show.
    random = np.random.default_rng(5)
    for variable in side.trainable_variables:
        variable.assign(random.normal(scale=0.6, size=variable.shape))
    return side


# Shared by the tests that leave its weights alone: building one takes longer than most of them.
item_side = functools.cache(build_item_side)


def features_of(columns: Sequence[EncodedColumn] = COLUMNS) -> Features:
    return FeatureTable(columns, ITEMS).gather(tf.range(COUNT))


def vectors_of(side: ItemSide, features: Features, posterior: tf.Tensor = POSTERIOR) -> ItemVectors:
    return side.vectors(side.content_of(features), features, posterior)


def without_appeal(vectors: ItemVectors) -> np.ndarray:
    """Cut the last dimension off served vectors."""
    return vectors.vector.numpy()[:, :-1]


def norms(vectors: tf.Tensor | np.ndarray) -> np.ndarray:
    return np.linalg.norm(np.asarray(vectors), axis=-1)
