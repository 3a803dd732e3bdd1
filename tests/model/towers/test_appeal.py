"""Tests the appeal: one number per item, from its posterior, that moves its score alike for every query."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from recall.config.model import ModelConfig
from recall.model.towers.appeal import Appeal, with_appeal, with_appeal_factor
from recall.model.towers.structures import JoinInputs, join

FEATURES = tf.constant(np.random.default_rng(3).normal(size=(6, 4)), tf.float32)
KNOWN = tf.constant([True, False, True, False, True, False])
QUERIES = tf.constant(np.random.default_rng(4).normal(size=(5, 3)), tf.float32)
ITEMS = tf.constant(np.random.default_rng(5).normal(size=(6, 3)), tf.float32)


def random_appeal(seed: int = 1) -> Appeal:
    appeal = Appeal(hidden=5)
    appeal(FEATURES, KNOWN)
    random = np.random.default_rng(seed)
    appeal.set_weights([random.normal(size=weight.shape) for weight in appeal.weights])
    return appeal


def test_appeal_adds_the_same_to_an_items_score_for_every_query() -> None:
    appeal = random_appeal()(FEATURES, KNOWN)  # [items, 1]
    scores = tf.matmul(with_appeal_factor(QUERIES), with_appeal(ITEMS, appeal), transpose_b=True)
    without = QUERIES.numpy() @ ITEMS.numpy().T
    np.testing.assert_allclose(scores, without + appeal.numpy().T, rtol=1e-5, atol=1e-6)
    assert np.ptp(appeal) > 0.1


def test_vectors_without_appeal_score_as_if_there_was_no_such_dimension() -> None:
    scores = tf.matmul(with_appeal_factor(QUERIES), with_appeal(ITEMS), transpose_b=True)
    np.testing.assert_allclose(scores, QUERIES.numpy() @ ITEMS.numpy().T, rtol=1e-5, atol=1e-6)


def test_dimension_is_the_last_one_whatever_comes_before_the_vectors() -> None:
    sequences = tf.reshape(tf.range(24.0), [2, 4, 3])
    for longer, last in ((with_appeal(sequences), 0.0), (with_appeal_factor(sequences), 1.0)):
        assert longer.shape == (2, 4, 4)
        np.testing.assert_array_equal(longer[..., :3], sequences)
        np.testing.assert_array_equal(longer[..., 3], np.full((2, 4), last))


@pytest.mark.slow
def test_appeal_starts_at_zero_and_can_be_learned_from_there() -> None:
    tf.keras.utils.set_random_seed(7)
    appeal, optimizer = Appeal(hidden=8), tf.keras.optimizers.Adam(0.05)
    np.testing.assert_array_equal(appeal(FEATURES, KNOWN), np.zeros((6, 1)))
    # The same posterior is worth more where the id is unknown.
    twice = tf.concat([FEATURES, FEATURES], axis=0)
    known = tf.concat([tf.ones([6], tf.bool), tf.zeros([6], tf.bool)], axis=0)
    target = 0.2 * twice[:, :1] + tf.where(known, 0.0, 0.3)[:, tf.newaxis]
    for _ in range(300):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(appeal(twice, known) - target))
        gradients = tape.gradient(loss, appeal.trainable_variables)
        optimizer.apply_gradients(zip(gradients, appeal.trainable_variables, strict=True))
    assert loss.numpy() < 0.002


def test_appeal_depends_on_the_posterior_and_on_whether_the_id_is_known() -> None:
    appeal = random_appeal()
    before = appeal(FEATURES, KNOWN).numpy()
    for feature in range(4):
        moved = FEATURES.numpy()
        moved[:, feature] += 1
        assert (np.abs(appeal(tf.constant(moved), KNOWN).numpy() - before) > 1e-4).all(), feature
    assert (np.abs(appeal(FEATURES, ~KNOWN).numpy() - before) > 1e-4).all()


def test_the_score_of_base_is_the_sum_of_both_towers_with_their_appeal() -> None:
    config = ModelConfig(structure="base", base_appeal=True, dim=3)
    appeal, meta = (
        random_appeal()(FEATURES, KNOWN),
        tf.constant(np.random.default_rng(6).normal(size=(6, 3)), tf.float32),
    )
    vectors = join(meta, JoinInputs(ITEMS, None, appeal, KNOWN), config=config)
    scores = tf.matmul(with_appeal_factor(QUERIES), vectors, transpose_b=True).numpy()
    of_meta = QUERIES.numpy() @ meta.numpy().T + appeal.numpy().T
    of_behaviour = QUERIES.numpy() @ ITEMS.numpy().T + appeal.numpy().T
    np.testing.assert_allclose(scores, np.where(KNOWN, of_meta + of_behaviour, of_meta), rtol=1e-4, atol=1e-5)
