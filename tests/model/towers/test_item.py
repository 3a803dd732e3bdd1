"""Tests the item side in all its structures: the promises of each for its vectors, and the inputs it must not read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import tensorflow as tf

from recall.config.model import ModelConfig
from recall.core.errors import ConfigError
from recall.data.features.table_encoder import EncodedColumn
from recall.model.layers.features import Features, FeatureTable
from recall.model.towers.item import ItemSide
from tests.helpers.item_sides import (
    AUTHOR,
    BEHAVIOUR,
    COLUMNS,
    COUNT,
    DIM,
    ITEM,
    ITEMS,
    LATER,
    META,
    POSTERIOR,
    VARIANTS,
    every_variant,
    features_of,
    item_side,
    norms,
    vectors_of,
    without_appeal,
)

META_NAMES = [column.name for column in META]
BEHAVIOUR_NAMES = [column.name for column in BEHAVIOUR]


def changed(features: Features, names: Sequence[str]) -> Features:
    """Roll the named features by one item, which gives nearly every item other values."""
    return {name: tf.roll(values, 1, axis=0) if name in names else values for name, values in features.items()}


# What every structure promises


@every_variant
def test_vectors_have_their_width_and_no_nan(variant: str) -> None:
    side = item_side(variant)
    vectors = vectors_of(side, features_of())
    assert vectors.vector.shape == (COUNT, side.width)
    assert side.width == (2 * DIM if "concat" in variant else DIM) + 1
    for part in tf.nest.flatten(vectors):
        assert part is None or np.isfinite(part).all()
    for tower in (vectors.behaviour, vectors.meta):
        assert tower is None or tower.shape == (COUNT, DIM)


@every_variant
def test_vectors_have_unit_length_even_of_items_without_content(variant: str) -> None:
    side = item_side(variant)
    vectors = vectors_of(side, features_of())
    for tower in (vectors.behaviour, vectors.meta):
        assert tower is None or norms(tower) == pytest.approx(np.ones(COUNT), abs=1e-5)
    if not side.is_concat:
        assert norms(without_appeal(vectors)) == pytest.approx(np.ones(COUNT), abs=1e-5)


def test_item_whose_only_content_is_an_empty_set_of_tags_has_a_meta_vector_from_the_start() -> None:
    columns = (ITEM, META[0])
    for variant in ("gated", "meta_only"):
        tf.keras.utils.set_random_seed(2)
        config = ModelConfig(dim=DIM, hidden=(10,), similarity="cosine", **VARIANTS[variant])
        side = ItemSide(columns, id_name="item_id", config=config, prior_ctr=0.2)
        vectors = vectors_of(side, features_of(columns))
        assert norms(vectors.meta) == pytest.approx(np.ones(COUNT), abs=1e-5)


@every_variant
def test_vectors_of_an_item_do_not_depend_on_the_items_beside_it(variant: str) -> None:
    side, table = item_side(variant), FeatureTable(COLUMNS, ITEMS)
    together = vectors_of(side, features_of()).vector
    for row in range(COUNT):
        alone = vectors_of(side, table.gather(tf.constant([row])), POSTERIOR[row : row + 1]).vector
        np.testing.assert_allclose(alone[0], together[row], atol=1e-5)


@every_variant
def test_tokens_have_the_width_of_the_towers_and_no_nan(variant: str) -> None:
    side = item_side(variant)
    tokens = side.tokens(side.content_of(features_of()))
    assert tokens.shape == (COUNT, DIM)
    assert np.isfinite(tokens).all()


@every_variant
def test_posterior_matters_to_the_gate_and_to_the_single_tower_alone(variant: str) -> None:
    side, features = item_side(variant), features_of()
    now, later = vectors_of(side, features), vectors_of(side, features, LATER)
    differs = not np.allclose(now.vector, later.vector, atol=1e-4)
    assert differs == (variant.startswith("gated") or variant == "single")
    if now.behaviour is not None:
        np.testing.assert_array_equal(now.behaviour, later.behaviour)
    if now.meta is not None:
        np.testing.assert_array_equal(now.meta, later.meta)


# What each tower sees


@every_variant
def test_each_tower_sees_its_own_features_alone(variant: str) -> None:
    side, features = item_side(variant), features_of()
    vectors = vectors_of(side, features)
    other_meta = vectors_of(side, changed(features, META_NAMES))
    other_behaviour = vectors_of(side, changed(features, BEHAVIOUR_NAMES))
    if vectors.behaviour is not None:
        np.testing.assert_array_equal(other_meta.behaviour, vectors.behaviour)
        assert not np.allclose(other_behaviour.behaviour, vectors.behaviour, atol=1e-3)
    if vectors.meta is not None:
        np.testing.assert_array_equal(other_behaviour.meta, vectors.meta)
        assert not np.allclose(other_meta.meta, vectors.meta, atol=1e-3)


@every_variant
def test_every_feature_that_a_structure_serves_moves_its_vectors_and_no_other_does(variant: str) -> None:
    side, features = item_side(variant), features_of()
    before = vectors_of(side, features).vector
    after = {column.name: vectors_of(side, changed(features, [column.name])).vector for column in COLUMNS}
    moving = {name for name, vector in after.items() if not np.allclose(vector, before, atol=1e-4)}
    assert moving == {"behaviour_only": {*BEHAVIOUR_NAMES}, "meta_only": {*META_NAMES}}.get(variant, {*features})


@pytest.mark.parametrize(
    ("variant", "present"),
    [
        ("gated", {"behaviour", "meta", "share"}),
        ("base", {"behaviour", "meta"}),
        ("single", set()),
        ("behaviour_only", {"behaviour"}),
        ("meta_only", {"meta"}),
    ],
)
def test_structure_gives_the_parts_that_it_is_made_of(variant: str, present: set[str]) -> None:
    vectors = vectors_of(item_side(variant), features_of())
    assert {name for name in ("behaviour", "meta", "share") if getattr(vectors, name) is not None} == present


def test_towers_alone_serve_their_own_vector() -> None:
    behaviour_only = vectors_of(item_side("behaviour_only"), features_of())
    np.testing.assert_array_equal(without_appeal(behaviour_only), behaviour_only.behaviour)
    meta_only = vectors_of(item_side("meta_only"), features_of())
    np.testing.assert_array_equal(without_appeal(meta_only), meta_only.meta)


def test_base_serves_the_sum_of_both_towers_where_the_id_is_known_and_content_elsewhere() -> None:
    vectors = vectors_of(item_side("base"), features_of())
    total = (vectors.behaviour + vectors.meta).numpy()
    joined = total / np.linalg.norm(total, axis=1, keepdims=True)
    np.testing.assert_allclose(without_appeal(vectors)[:3], joined[:3], atol=1e-5)
    np.testing.assert_array_equal(without_appeal(vectors)[3:], vectors.meta[3:])


# Ids: known, hidden, absent


@every_variant
def test_hidden_id_looks_like_an_item_out_of_vocabulary(variant: str) -> None:
    side, features = item_side(variant), features_of()
    hidden = tf.constant([True, False, True, False, True, True])
    content = side.hide_ids(side.content_of(features), hidden)
    unknown = {**features, "item_id": tf.where(hidden, 1, features["item_id"])}
    expected = side.content_of(unknown)
    np.testing.assert_array_equal(content.known, expected.known)
    np.testing.assert_array_equal(content.learned, expected.learned)
    np.testing.assert_array_equal(side.tokens(content), side.tokens(expected))
    vectors = side.vectors(content, features, POSTERIOR), side.vectors(expected, unknown, POSTERIOR)
    for found, wanted in zip(*map(tf.nest.flatten, vectors), strict=True):
        assert (found is None) == (wanted is None)
        if found is not None:
            np.testing.assert_array_equal(found, wanted)


def test_ids_with_an_embedding_of_their_own_are_known() -> None:
    content = item_side("gated").content_of(features_of())
    assert content.known.numpy().tolist() == [True, True, True, False, False, False]
    # Codes 2, 3 and 6 with 40, 3 and 120 clicks.
    np.testing.assert_allclose(content.learned, np.log([41, 4, 121, 1, 1, 1]) / 5, rtol=1e-5)


def test_hiding_ids_keeps_the_gradient_of_their_table_sparse() -> None:
    side, features = item_side("gated"), features_of()
    with tf.GradientTape() as tape:
        content = side.hide_ids(side.content_of(features), tf.constant([True] + [False] * 5))
        loss = tf.reduce_sum(side.vectors(content, features, POSTERIOR).vector[:, 0])
    gradient = tape.gradient(loss, side.identity.weight)
    assert isinstance(gradient, tf.IndexedSlices)
    dense = np.abs(tf.convert_to_tensor(gradient).numpy()).max(axis=1)
    # Item 0 (code 2) hides behind code 1; codes 4 and 5 belong to no item here.
    np.testing.assert_array_equal(dense > 1e-7, [True, True, False, True, False, False, True])


@pytest.mark.parametrize("variant", ["gated", "gated_concat", "base", "single", "meta_only"])
def test_items_without_an_id_feature_are_described_by_the_rest(variant: str) -> None:
    columns = (AUTHOR, *META)
    side, features = item_side(variant, columns=columns), features_of(columns)
    content = side.content_of(features)
    assert content.identity is None
    assert content.learned.numpy().tolist() == [0] * COUNT
    assert side.hide_ids(content, tf.ones([COUNT], tf.bool)) is content
    vectors = vectors_of(side, features)
    assert np.isfinite(vectors.vector).all()
    assert side.tokens(content).shape == (COUNT, DIM)
    if variant == "base":  # the behaviour of authors counts: there is no id that could be unknown
        total = (vectors.behaviour + vectors.meta).numpy()
        np.testing.assert_allclose(without_appeal(vectors), total / norms(total)[:, np.newaxis], atol=1e-5)


@pytest.mark.parametrize("columns", [(ITEM,), (ITEM, AUTHOR)])
@pytest.mark.parametrize("variant", ["behaviour_only", "single"])
def test_items_without_meta_features_are_described_by_their_ids(
    variant: str, columns: tuple[EncodedColumn, ...]
) -> None:
    side, features = item_side(variant, columns=columns), features_of(columns)
    content = side.content_of(features)
    assert content.content is None
    assert content.meta is None
    assert norms(without_appeal(vectors_of(side, features))) == pytest.approx(np.ones(COUNT), abs=1e-5)
    np.testing.assert_array_equal(side.tokens(content), content.identity)


def test_items_with_neither_id_nor_content_are_refused_as_nothing_could_represent_a_history() -> None:
    with pytest.raises(ConfigError, match=r"neither the item id .* list at least one"):
        ItemSide((AUTHOR,), id_name=None, config=ModelConfig(structure="behaviour_only"), prior_ctr=0.2)


# How items enter the query side


def test_tokens_are_the_id_embedding_plus_a_projection_of_the_meta_vector() -> None:
    side = item_side("gated")
    content = side.content_of(features_of())
    kernel, bias = (weight.numpy() for weight in side.token_projection.weights)
    expected = content.identity.numpy() + content.meta.numpy() @ kernel + bias
    np.testing.assert_allclose(side.tokens(content), expected, rtol=1e-4, atol=1e-5)


def test_in_a_shared_space_tokens_are_what_the_item_vector_mixes() -> None:
    tf.keras.utils.set_random_seed(23)
    config = ModelConfig(dim=DIM, hidden=(10,), shared_space=True, similarity="dot")
    side = ItemSide(COLUMNS, id_name="item_id", config=config, prior_ctr=0.2)
    features = features_of()
    content, vectors = side.content_of(features), vectors_of(side, features)
    np.testing.assert_allclose(side.tokens(content), content.identity + content.meta, rtol=1e-6)
    # Fresh, the behaviour vector is the id embedding and one bias for all, whatever the author is.
    bias = vectors.behaviour.numpy() - content.identity.numpy()
    np.testing.assert_allclose(bias, np.broadcast_to(bias[0], bias.shape), atol=1e-6)
    assert np.ptp(content.identity, axis=0).max() > 0.05


def test_dropout_acts_in_training_only() -> None:
    side, features = item_side("gated", dropout=0.5), features_of()
    np.testing.assert_array_equal(vectors_of(side, features).vector, vectors_of(side, features).vector)
    content = side.content_of(features, training=True)
    assert not np.allclose(content.meta, side.content_of(features).meta)
    trained = side.vectors(side.content_of(features), features, POSTERIOR, training=True)
    assert not np.allclose(trained.behaviour, vectors_of(side, features).behaviour)


@every_variant
def test_every_weight_that_serves_or_represents_items_is_trained(variant: str) -> None:
    side, features = item_side(variant), features_of()
    with tf.GradientTape() as tape:
        content = side.content_of(features)
        vectors = side.vectors(content, features, POSTERIOR)
        loss = tf.reduce_sum(vectors.vector[:, 0] + vectors.vector[:, -1]) + tf.reduce_sum(
            tf.square(side.tokens(content))
        )
    for variable, gradient in zip(side.trainable_variables, tape.gradient(loss, side.trainable_variables), strict=True):
        assert gradient is not None, variable.name
