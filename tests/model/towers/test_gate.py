"""Tests the gate's promises: a share between 0 and 1, which with `monotone` never falls as counts grow."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from recall.model.towers.evidence import posterior_features
from recall.model.towers.gate import Gate, gate_features, learned_feature

PRIOR_CTR, STRENGTH = 0.2, 20.0
Array = np.ndarray


def posterior(exposures: Array, clicks: Array, age_hours: Array) -> tf.Tensor:
    """Build posteriors, float32 [..., 4], as the pipeline does, with the smoothed CTR."""
    ctr = (clicks + PRIOR_CTR * STRENGTH) / (exposures + STRENGTH)
    return tf.constant(np.stack([exposures, clicks, ctr, age_hours], axis=-1), tf.float32)


def random_gate(width: int, *, monotone: bool, seed: int) -> Gate:
    """Build a gate with weights of every sign, large ones too."""
    gate = Gate(width, hidden=5, monotone=monotone)
    random = np.random.default_rng(seed)
    gate.set_weights([random.normal(scale=random.choice([0.3, 1, 3]), size=weight.shape) for weight in gate.weights])
    return gate


def features(exposures: Array, clicks: Array, age_hours: Array, *, trained_on: Array | None = None) -> tf.Tensor:
    """Build the features of the gate; without `trained_on` the ids were trained on all clicks so far."""
    learned = learned_feature(tf.constant(clicks if trained_on is None else trained_on, tf.float32))
    return gate_features(posterior_features(posterior(exposures, clicks, age_hours), prior_ctr=PRIOR_CTR), learned)


def shares(gate: Gate, exposures: Array, clicks: Array, age_hours: Array, *, trained_on: Array | None = None) -> Array:
    return gate(features(exposures, clicks, age_hours, trained_on=trained_on)).numpy()


def journeys(seed: int, *, with_clicks: bool) -> tuple[Array, Array, Array]:
    """Build [50, 30] posteriors: exposures grow along the second axis, clicks grow or stay, the age stays."""
    random = np.random.default_rng(seed)
    shown = np.cumsum(random.integers(0, 2 ** random.integers(1, 16, (50, 1)), (50, 30)), axis=1)
    first = random.integers(0, shown[:, :1] + 1)
    share = random.uniform(size=(50, 1)) if with_clicks else np.zeros((50, 1))
    clicks = first + np.floor(share * (shown - shown[:, :1]))
    return shown, clicks, np.broadcast_to(random.uniform(0, 5000, (50, 1)), shown.shape)


def test_features_are_zero_for_an_item_that_nobody_saw() -> None:
    nothing = posterior(np.zeros(1), np.zeros(1), np.zeros(1))
    np.testing.assert_allclose(posterior_features(nothing, prior_ctr=PRIOR_CTR), np.zeros((1, 4)), atol=1e-6)


def test_features_are_logs_of_counts_ctr_and_age() -> None:
    # CTR (30 + 0.2 * 20) / (80 + 20) = 0.34, 1.7 times the prior.
    found = posterior_features(posterior(np.array([80.0]), np.array([30.0]), np.array([47.0])), prior_ctr=PRIOR_CTR)
    expected = [math.log(81) / 5, math.log(31) / 5, math.log(1.7), math.log(48) / 5]
    np.testing.assert_allclose(found[0], expected, rtol=1e-5)


def test_features_are_finite_for_extreme_posteriors() -> None:
    extreme = tf.constant([[1e9, 0, 0, 1e6], [1e9, 1e9, 1, 0], [0, 0, 1e-9, 0]])
    assert np.isfinite(posterior_features(extreme, prior_ctr=1e-6)).all()


def test_gate_sees_the_log_of_what_the_id_was_trained_on_beside_the_posterior() -> None:
    found = features(
        np.array([80.0, 80.0]), np.array([30.0, 30.0]), np.array([47.0, 47.0]), trained_on=np.array([0, 9])
    )
    assert found.shape == (2, 5)
    np.testing.assert_allclose(found[0, :4], found[1, :4])
    np.testing.assert_allclose(found[:, 4], [0, math.log(10) / 5], rtol=1e-5)


@pytest.mark.parametrize("monotone", [False, True])
@pytest.mark.parametrize("width", [1, 7])
def test_share_lies_between_0_and_1_for_one_item_and_for_many(width: int, monotone: bool) -> None:
    for seed in range(20):
        found = shares(random_gate(width, monotone=monotone, seed=seed), *journeys(seed, with_clicks=True))
        assert found.shape == (50, 30, width)
        assert found.min() >= 0
        assert found.max() <= 1


@pytest.mark.parametrize("with_clicks", [False, True])
@pytest.mark.parametrize("width", [1, 7])
def test_monotone_share_never_falls_when_exposures_grow(width: int, with_clicks: bool) -> None:
    risen = 0
    for seed in range(60):
        gate = random_gate(width, monotone=True, seed=seed)
        steps = np.diff(shares(gate, *journeys(1000 + seed, with_clicks=with_clicks)), axis=1)
        assert steps.min() >= -1e-6  # rounding of float32
        risen += steps.max() > 0.01
    assert risen > 30  # and it does not get there by standing still


def test_monotone_share_never_falls_when_clicks_grow_alone() -> None:
    clicks = np.arange(0, 301, 10)
    for seed in range(60):
        found = shares(random_gate(1, monotone=True, seed=seed), np.full(31, 300), clicks, np.full(31, 24.0))
        assert np.diff(found, axis=0).min() >= -1e-6


def test_monotone_share_never_falls_when_an_id_was_trained_on_more() -> None:
    trained_on, risen = np.arange(0, 301, 10), 0
    for seed in range(60):
        gate = random_gate(1, monotone=True, seed=seed)
        found = shares(gate, np.full(31, 900), np.full(31, 300), np.full(31, 24.0), trained_on=trained_on)
        assert np.diff(found, axis=0).min() >= -1e-6
        risen += found[-1] > found[0] + 0.01
    assert risen > 20


def test_monotone_gate_may_still_trust_old_items_less() -> None:
    age_hours = 4.0 ** np.arange(9)
    gates = [random_gate(1, monotone=True, seed=seed) for seed in range(40)]
    steps = [np.diff(shares(gate, np.full(9, 50), np.full(9, 5), age_hours), axis=0) for gate in gates]
    assert min(step.min() for step in steps) < -0.01
    assert max(step.max() for step in steps) > 0.01


def test_share_can_fall_when_exposures_grow_unless_the_gate_is_monotone() -> None:
    # Exposures without clicks lower the smoothed CTR; a gate that trusts what is clicked then trusts less.
    exposures, clicks, age = np.array([0.0, 1000.0]), np.zeros(2), np.zeros(2)
    found = []
    for monotone in (False, True):
        gate = Gate(1, hidden=1, monotone=monotone)
        gate.set_weights([np.zeros(weight.shape) for weight in gate.weights])
        gate.first.assign([[0.0], [0.0], [1.0], [0.0], [0.0]])
        gate.second.assign([[1.0]])
        found.append(shares(gate, exposures, clicks, age)[:, 0])
    assert found[0][1] < found[0][0] - 0.1
    assert found[1][1] == pytest.approx(found[1][0])


@pytest.mark.slow
@pytest.mark.parametrize("monotone", [False, True])
@pytest.mark.parametrize("width", [1, 7])
def test_fresh_gate_trusts_content_of_new_items_and_behaviour_of_items_seen_often(width: int, monotone: bool) -> None:
    exposures = np.array([0.0, 10_000.0])
    for seed in range(20):
        tf.keras.utils.set_random_seed(seed)
        new, often = shares(Gate(width, hidden=16, monotone=monotone), exposures, exposures / 5, exposures / 20)
        np.testing.assert_allclose(new, 1 / (1 + np.exp(2)), rtol=1e-5)  # a logit of -2
        assert often.mean() > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("monotone", [False, True])
def test_fresh_gate_trusts_the_behaviour_of_an_id_less_that_training_never_saw(monotone: bool) -> None:
    crowd = np.array([20.0, 20.0]), np.array([4.0, 4.0]), np.array([20.0, 20.0])
    for seed in range(20):
        tf.keras.utils.set_random_seed(seed)
        unseen, trained = shares(Gate(1, hidden=16, monotone=monotone), *crowd, trained_on=np.array([0, 100]))[:, 0]
        assert unseen < trained - 0.1


@pytest.mark.slow
@pytest.mark.parametrize("monotone", [False, True])
def test_gate_can_be_trained_towards_more_share_for_exposed_items(monotone: bool) -> None:
    tf.keras.utils.set_random_seed(3)
    gate, optimizer = Gate(1, hidden=8, monotone=monotone), tf.keras.optimizers.Adam(0.05)
    exposures = np.array([0, 0, 2, 10, 1000, 10_000])
    inputs = features(exposures, exposures // 5, exposures * 0.0)
    target = tf.constant([[0.1], [0.1], [0.1], [0.5], [0.9], [0.9]])
    for _ in range(100):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(gate(inputs) - target))
        gradients = tape.gradient(loss, gate.trainable_variables)
        optimizer.apply_gradients(zip(gradients, gate.trainable_variables, strict=True))
    assert loss.numpy() < 0.01
