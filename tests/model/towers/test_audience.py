"""The audience vector and the gate of three, on items with random weights."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from recall.data.audience import audience_columns
from recall.model.towers.audience import Audience, AudienceGate, Shares
from tests.helpers.item_sides import COUNT, DIM, POSTERIOR, build_item_side, features_of, vectors_of

RNG = np.random.default_rng(9)
TOKENS = RNG.normal(size=(20, DIM)).astype(np.float32)
SOURCES = np.array([[1, 4, -1], [2, 2, 2], [-1] * 3, [7, -1, -1], [0, 9, 3], [-1] * 3], np.int32)
NOBODY = np.zeros((COUNT, DIM + 1), np.float32)


def posterior(columns: np.ndarray) -> tf.Tensor:
    return tf.concat([POSTERIOR, columns], axis=1)


def test_the_graph_averages_as_numpy_does() -> None:
    of_sources = tf.gather(TOKENS, np.maximum(SOURCES, 0))
    found = Audience.of(of_sources, tf.constant(SOURCES >= 0))
    np.testing.assert_allclose(found.columns, audience_columns(TOKENS, SOURCES), rtol=1e-5, atol=1e-6)
    again = Audience.of_columns(found.columns)
    np.testing.assert_array_equal(again.mean, found.mean)
    np.testing.assert_array_equal(again.size, [2, 3, 0, 1, 3, 0])


def test_shares_sum_to_one_and_without_an_audience_are_those_of_the_gate_of_two() -> None:
    behaviour, audience = (tf.constant(RNG.normal(size=(5, 1)), tf.float32) for _ in range(2))
    shares = Shares.of_three(behaviour, audience, tf.constant([3.0, 0, 1, 0, 50]))
    assert shares.audience is not None
    np.testing.assert_allclose(shares.behaviour + shares.content + shares.audience, np.ones((5, 1)), rtol=1e-6)
    nobody = [1, 3]
    np.testing.assert_allclose(shares.audience.numpy()[nobody], 0)
    np.testing.assert_allclose(shares.behaviour.numpy()[nobody], tf.sigmoid(behaviour).numpy()[nobody], rtol=1e-6)
    expected = np.exp([behaviour[0, 0], 0, audience[0, 0]])
    found = [float(part[0, 0]) for part in shares]
    np.testing.assert_allclose(found, expected / expected.sum(), rtol=1e-5)


@pytest.mark.parametrize("variant", ["gated", "gated_residual", "gated_concat", "gated_per_dimension"])
def test_vectors_follow_the_formula(variant: str) -> None:
    side, features = build_item_side(variant, similarity="dot", has_audience=True), features_of()
    found = vectors_of(side, features, posterior(audience_columns(TOKENS, SOURCES)))
    shares = found.shares
    assert shares is not None
    others = shares.content * found.meta + shares.audience * found.audience
    expected = {
        "gated": shares.behaviour * found.behaviour + others,
        "gated_residual": found.behaviour + others,
        "gated_concat": tf.concat([found.behaviour, others], axis=-1),
        "gated_per_dimension": shares.behaviour * found.behaviour + others,
    }[variant]
    np.testing.assert_allclose(found.vector[:, :-1], expected, rtol=1e-4, atol=1e-5)
    assert np.ptp(found.audience_share_or_nan()) > 0.01


def test_a_monotone_gate_gives_a_growing_audience_no_less_share_against_the_content() -> None:
    features = tf.constant(np.repeat(RNG.normal(size=(1, 4)), 60, axis=0), tf.float32)
    audience = Audience(tf.zeros([60, DIM]), tf.range(0.0, 60))
    falls = {}
    for monotone in (False, True):
        gate = AudienceGate(hidden=5, monotone=monotone)
        gate(features, audience)
        steps = []
        for seed in range(20):
            random = np.random.default_rng(seed)
            gate.set_weights([random.normal(scale=2, size=weight.shape) for weight in gate.weights])
            steps.append(np.diff(gate(features, audience)[:, 0]))
        falls[monotone] = bool((np.array(steps) < -1e-5).any())
    assert falls == {False: True, True: False}


def test_an_audience_moves_the_vector_of_its_item_alone() -> None:
    side, features = build_item_side("gated_residual", similarity="dot", has_audience=True), features_of()
    columns = audience_columns(TOKENS, SOURCES)
    moved = columns.copy()
    moved[3] = audience_columns(TOKENS, np.array([[11, 12, -1]], np.int32))
    before, after = (vectors_of(side, features, posterior(part)).vector.numpy() for part in (columns, moved))
    changed = np.abs(after - before).max(axis=1) > 1e-4
    assert changed.tolist() == [False, False, False, True, False, False]


def test_a_new_item_has_nobody() -> None:
    side = build_item_side("gated_residual", has_audience=True)
    assert side.posterior_width == POSTERIOR.shape[1] + DIM + 1
    np.testing.assert_array_equal(side.new_posterior[POSTERIOR.shape[1] :], np.zeros(DIM + 1))
    hidden = tf.broadcast_to(side.as_new(posterior(audience_columns(TOKENS, SOURCES))), [COUNT, side.posterior_width])
    shares = vectors_of(side, features_of(), hidden).audience_share_or_nan()
    np.testing.assert_array_equal(shares, np.zeros(COUNT))


def test_other_structures_read_no_audience() -> None:
    side = build_item_side("base", has_audience=True)
    assert not side.has_audience
    assert side.posterior_width == POSTERIOR.shape[1]
