"""Tests the item side with codes: the vectors of items, the use of their mean, and the vectors for an index."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from recall.config.model import ModelConfig
from recall.data.features.table_encoder import EncodedColumn
from recall.model.layers.features import Features, FeatureTable
from recall.model.towers.item import ItemSide, ItemVectors

DIM, CODES, COUNT = 6, 3, 5
COLUMNS = (
    EncodedColumn("item_id", "item_id", "behaviour", "code", 7),
    EncodedColumn("tags", "tags", "meta", "codes", 6),
    EncodedColumn("text", "text", "meta", "vector", 3),
)
# Rows 0 to 2 are known items; row 2 has tags alone, row 4 no content at all.
ITEMS = pa.table(
    {
        "item_id": pa.array([2, 3, 6, 1, 1], pa.int32()),
        "tags": pa.array([[2], [3, 4], [2, 5], [4], None], pa.list_(pa.int32())),
        "text": pa.array([[1, 0, 0], [0, 2, 1], None, [0, -1, 0], None], pa.list_(pa.float32(), 3)),
    }
)
POSTERIOR = tf.constant(
    [[900, 90, 0.12, 300], [10, 4, 0.3, 5], [0, 0, 0.2, 0], [0, 0, 0.2, 0], [3, 1, 0.22, 1]], tf.float32
)
STRUCTURES: dict[str, dict[str, Any]] = {
    "sum": {"gate": "sum"},
    "residual": {"gate": "residual"},
    "concat": {"gate": "concat", "gate_shape": "per_dimension"},
    "base": {"structure": "base"},
    "meta_only": {"structure": "meta_only"},
}
every_structure = pytest.mark.parametrize("structure", list(STRUCTURES))
every_similarity = pytest.mark.parametrize("similarity", ["dot", "cosine"])


def build(codes: Any, *, structure: str = "residual", **settings: Any) -> ItemSide:
    tf.keras.utils.set_random_seed(21)
    settings = {"fusion": "weighted_sum", **STRUCTURES[structure], **settings}
    config = ModelConfig(dim=DIM, hidden=(10,), gate_hidden=4, item_codes=codes, **settings)
    side = ItemSide(
        COLUMNS, id_name="item_id", config=config, prior_ctr=0.2, id_clicks=np.array([7, 5, 40, 3, 0, 0, 9])
    )
    vectors_of(side), side.tokens(side.content_of(features()))  # creates all weights
    random = np.random.default_rng(5)
    for variable in side.trainable_variables:
        variable.assign(random.normal(scale=0.6, size=variable.shape))
    return side


def features() -> Features:
    return FeatureTable(COLUMNS, ITEMS).gather(tf.range(COUNT))


def vectors_of(side: ItemSide) -> ItemVectors:
    return side.vectors(side.content_of(features()), features(), POSTERIOR)


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@every_similarity
@every_structure
def test_each_code_makes_the_vector_that_an_item_of_its_meta_vector_alone_would_have(
    structure: str, similarity: str
) -> None:
    side = build(CODES, structure=structure, similarity=similarity)
    content, vectors = side.content_of(features()), vectors_of(side)
    assert vectors.vectors.shape == (COUNT, CODES, side.width)
    assert vectors.metas.shape == (COUNT, CODES, DIM)
    for code in range(CODES):
        alone = content._replace(meta=content.metas[:, code], metas=None)
        expected = side.vectors(alone, features(), POSTERIOR)
        np.testing.assert_allclose(vectors.vectors[:, code], expected.vector, rtol=1e-5, atol=1e-6)
    distances = np.linalg.norm(vectors.vectors[:, 0] - vectors.vectors[:, 1], axis=1)
    if structure != "base":
        assert (distances > 1e-3).all(), "codes differ, of an item with one modality and of one without content, too"


@every_similarity
def test_meta_vectors_are_what_the_meta_tower_makes_of_each_code(similarity: str) -> None:
    side = build(CODES, similarity=similarity)
    inputs = side.content_of(features()).content  # [items, codes, dim]
    metas = vectors_of(side).metas.numpy()
    for code in range(CODES):
        expected = (side.meta_stack(inputs[:, code]) + side.meta_shortcut(inputs[:, code])).numpy()
        expected = unit(expected) if similarity == "cosine" else expected
        np.testing.assert_allclose(metas[:, code], expected, rtol=1e-4, atol=1e-5)


@every_similarity
def test_whoever_wants_one_meta_vector_gets_the_mean(similarity: str) -> None:
    side = build(CODES, similarity=similarity)
    vectors = vectors_of(side)
    mean = vectors.metas.numpy().mean(axis=1)
    mean = unit(mean) if similarity == "cosine" else mean
    np.testing.assert_allclose(vectors.meta, mean, rtol=1e-4, atol=1e-6)
    content = side.content_of(features())
    expected = side.identity(features()["item_id"]) + side.token_projection(mean)
    np.testing.assert_allclose(side.tokens(content), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_the_mean_vector_is_the_mean_of_the_vectors_where_lengths_are_free() -> None:
    for structure in ("sum", "residual", "concat", "meta_only"):
        vectors = vectors_of(build(CODES, structure=structure, similarity="dot"))
        np.testing.assert_allclose(vectors.vector, tf.reduce_mean(vectors.vectors, axis=1), rtol=1e-4, atol=1e-5)


def test_all_vectors_of_an_item_have_its_appeal_and_lose_its_id_with_it() -> None:
    side = build(CODES)
    vectors = vectors_of(side).vectors.numpy()
    assert np.ptp(vectors[..., -1], axis=1) == pytest.approx(np.zeros(COUNT), abs=1e-6)
    assert np.abs(vectors[..., -1]).max() > 0.01
    hidden = side.hide_ids(side.content_of(features()), tf.ones([COUNT], tf.bool))
    without = side.vectors(hidden, features(), POSTERIOR).vectors.numpy()
    changed = np.abs(without - vectors).max(axis=2) > 1e-4
    np.testing.assert_array_equal(changed, np.repeat([[True], [True], [True], [False], [False]], CODES, axis=1))


@pytest.mark.parametrize(
    ("codes", "apart"),
    [
        (CODES, True),
        ({"count": CODES, "pick": "attention"}, True),
        ({"count": CODES, "index": "mean"}, False),
        ({"count": CODES, "pick": "mean"}, False),
        (1, False),
    ],
)
def test_an_index_gets_all_vectors_or_their_mean(codes: Any, apart: bool) -> None:
    side = build(codes)
    vectors = vectors_of(side)
    served = side.served(vectors)
    assert served.shape == ((COUNT, CODES, DIM + 1) if apart else (COUNT, DIM + 1))
    np.testing.assert_array_equal(served, vectors.vectors if apart else vectors.vector)


@pytest.mark.slow
def test_one_code_and_a_mean_are_trained_as_one_vector() -> None:
    for codes in (1, {"count": CODES, "pick": "mean"}):
        vectors = vectors_of(build(codes))
        assert vectors.vectors is None
        assert vectors.per_code() is vectors
    trained = vectors_of(build({"count": CODES, "index": "mean"})).per_code()
    assert (trained.vector.shape, trained.meta.shape) == ((COUNT, CODES, DIM + 1), (COUNT, CODES, DIM))


def test_without_codes_there_is_nothing_of_them() -> None:
    plain, coded = build(None), build(CODES)
    assert vectors_of(plain).vectors is None
    assert len(coded.trainable_variables) == len(plain.trainable_variables) + 2
    assert not [variable.name for variable in plain.trainable_variables if "codes" in variable.name]
