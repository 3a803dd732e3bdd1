"""Tests the gate of the item side, which mixes both towers, and the appeal at the end of its vectors."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from recall.config.model import ModelConfig
from recall.model.layers.features import FeatureTable
from recall.model.towers.item import ItemSide
from tests.helpers.item_sides import (
    COLUMNS,
    COUNT,
    DIM,
    ID_CLICKS,
    ITEMS,
    LATER,
    POSTERIOR,
    VARIANTS,
    build_item_side,
    every_variant,
    features_of,
    item_side,
    norms,
    vectors_of,
    without_appeal,
)

gated_variants = pytest.mark.parametrize("variant", [name for name in VARIANTS if name.startswith("gated")])


# The gate


def set_share(side: ItemSide, logit: float) -> None:
    for weight in side.gate.weights:
        weight.assign(tf.zeros_like(weight))
    side.gate.second_bias.assign(tf.fill(side.gate.second_bias.shape, logit))


@gated_variants
def test_gate_that_trusts_behaviour_alone_serves_the_behaviour_vector(variant: str) -> None:
    side = build_item_side(variant)
    set_share(side, 60.0)
    vectors = vectors_of(side, features_of())
    np.testing.assert_allclose(vectors.share, np.ones(COUNT))
    np.testing.assert_allclose(vectors.vector[:, :DIM], vectors.behaviour, atol=1e-6)
    if side.is_concat:
        np.testing.assert_allclose(without_appeal(vectors)[:, DIM:], np.zeros((COUNT, DIM)), atol=1e-6)


@gated_variants
def test_gate_that_trusts_content_alone_serves_all_of_the_meta_vector(variant: str) -> None:
    side = build_item_side(variant)
    set_share(side, -60.0)
    vectors = vectors_of(side, features_of())
    np.testing.assert_allclose(vectors.share, np.zeros(COUNT), atol=1e-6)
    if side.is_concat:  # the half for behaviour is whole at any share
        np.testing.assert_array_equal(vectors.vector[:, :DIM], vectors.behaviour)
        np.testing.assert_allclose(without_appeal(vectors)[:, DIM:], vectors.meta, atol=1e-6)
        return
    served = vectors.meta.numpy()
    if variant == "gated_residual":  # so is what the behaviour vector adds
        served = served + vectors.behaviour.numpy()
    np.testing.assert_allclose(without_appeal(vectors), served / norms(served)[:, np.newaxis], rtol=1e-4, atol=1e-5)


def test_gate_between_mixes_both_in_its_share() -> None:
    side = build_item_side("gated")
    set_share(side, float(np.log(0.25 / 0.75)))
    vectors = vectors_of(side, features_of())
    mixed = 0.25 * vectors.behaviour.numpy() + 0.75 * vectors.meta.numpy()
    np.testing.assert_allclose(vectors.share, np.full(COUNT, 0.25), rtol=1e-5)
    np.testing.assert_allclose(without_appeal(vectors), mixed / norms(mixed)[:, np.newaxis], atol=1e-5)


def test_dot_product_lets_both_towers_keep_their_lengths() -> None:
    cosine, dot = (build_item_side("gated", similarity=kind) for kind in ("cosine", "dot"))
    for side in (cosine, dot):
        set_share(side, float(np.log(0.25 / 0.75)))
    directions, vectors = vectors_of(cosine, features_of()), vectors_of(dot, features_of())
    for tower in (vectors.behaviour, vectors.meta):
        assert np.ptp(norms(tower)) > 0.1
    np.testing.assert_allclose(directions.meta, vectors.meta / norms(vectors.meta)[:, np.newaxis], rtol=1e-4, atol=1e-5)
    mixed = 0.25 * vectors.behaviour.numpy() + 0.75 * vectors.meta.numpy()
    np.testing.assert_allclose(without_appeal(vectors), mixed, rtol=1e-4, atol=1e-5)


def test_residual_adds_the_rest_of_the_share_times_meta_to_behaviour() -> None:
    vectors = vectors_of(item_side("gated_residual", similarity="dot"), features_of())
    rest = (1 - vectors.share.numpy())[:, np.newaxis]
    expected = vectors.behaviour.numpy() + rest * vectors.meta.numpy()
    np.testing.assert_allclose(without_appeal(vectors), expected, rtol=1e-4, atol=1e-5)
    assert np.ptp(vectors.share) > 0.01


def test_concat_is_behaviour_and_the_rest_of_the_share_times_meta() -> None:
    vectors = vectors_of(item_side("gated_concat"), features_of())
    np.testing.assert_array_equal(vectors.vector[:, :DIM], vectors.behaviour)
    rest = (1 - vectors.share.numpy())[:, np.newaxis]
    np.testing.assert_allclose(without_appeal(vectors)[:, DIM:], rest * vectors.meta.numpy(), atol=1e-6)
    assert np.ptp(vectors.share) > 0.01


def test_gate_per_dimension_weighs_dimensions_differently_and_reports_their_mean() -> None:
    vectors = vectors_of(item_side("gated_concat_per_dimension"), features_of())
    rest = without_appeal(vectors)[:, DIM:] / vectors.meta.numpy()  # 1 - g, [items, dim]
    assert (np.ptp(rest, axis=1) > 0.01).all()
    np.testing.assert_allclose(vectors.share, 1 - rest.mean(axis=1), atol=1e-4)


def test_monotone_gate_gives_an_item_no_less_share_after_more_exposures() -> None:
    side = item_side("gated", gate_monotone=True)
    exposures = np.array([0, 1, 5, 20, 100, 1e5])
    posterior = tf.constant(np.stack([exposures, exposures * 0, 4 / (exposures + 20), exposures * 0], 1), tf.float32)
    one_item = FeatureTable(COLUMNS, ITEMS).gather(tf.zeros([COUNT], tf.int32))
    shares = vectors_of(side, one_item, posterior).share.numpy()
    assert (np.diff(shares) >= 0).all()
    assert shares[-1] > shares[0]


def test_gate_looks_at_the_training_clicks_of_known_ids_alone() -> None:
    side, features = build_item_side("gated", gate_monotone=True), features_of()
    before = vectors_of(side, features).share.numpy()
    side.id_clicks.assign(side.id_clicks + 1000.0)
    after = vectors_of(side, features).share.numpy()
    assert (after[:3] > before[:3] + 1e-3).all()
    # Out of vocabulary and missing: whatever all unknown ids were trained on together says nothing of this one.
    np.testing.assert_array_equal(after[3:], before[3:])


# Appeal


@every_variant
def test_served_vectors_end_in_appeal_where_there_is_a_gate_and_in_0_elsewhere(variant: str) -> None:
    for has_appeal in (True, False):
        last = vectors_of(item_side(variant, appeal=has_appeal), features_of()).vector.numpy()[:, -1]
        if has_appeal and variant.startswith("gated"):
            assert np.ptp(last) > 0.01
        else:
            np.testing.assert_array_equal(last, np.zeros(COUNT))


def test_appeal_follows_from_the_posterior_and_whether_the_id_is_known_and_from_nothing_else() -> None:
    side, features = item_side("gated"), features_of()
    same = tf.tile(POSTERIOR[:1], [COUNT, 1])
    appeal = vectors_of(side, features, same).vector.numpy()[:, -1]
    known, unknown = appeal[:3], appeal[3:]  # of six items with other ids, authors and contents
    assert np.ptp(known) < 1e-6
    assert np.ptp(unknown) < 1e-6
    assert abs(known[0] - unknown[0]) > 1e-3
    later = vectors_of(side, features, LATER).vector.numpy()[:, -1]
    assert (np.abs(later - vectors_of(side, features).vector.numpy()[:, -1]) > 1e-4).all()


def test_fresh_model_has_no_appeal_so_that_tastes_come_first() -> None:
    tf.keras.utils.set_random_seed(2)
    config = ModelConfig(dim=DIM, hidden=(10,), similarity="cosine")
    side = ItemSide(COLUMNS, id_name="item_id", config=config, prior_ctr=0.2, id_clicks=ID_CLICKS)
    np.testing.assert_array_equal(vectors_of(side, features_of()).vector[:, -1], np.zeros(COUNT))


def test_a_blind_gate_divides_all_items_alike_and_the_seeing_one_does_not() -> None:
    shares = {
        blind: vectors_of(item_side("gated", gate_blind=blind), features_of()).share.numpy() for blind in (False, True)
    }
    assert np.ptp(shares[True]) < 1e-6
    assert np.ptp(shares[False]) > 0.01
