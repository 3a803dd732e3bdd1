"""A click counts by how little its item had been shown: worked out by hand, and seen in the loss of a step."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from recall.model.batches.exposure_weights import weighed_by_exposures
from recall.model.batches.targets import Targets
from tests.helpers.untrained_models import PLAIN, Data

SHOWN = [0.0, 3.0, 99.0]


def targets(weights: list[float]) -> Targets:
    posterior = tf.constant([[shown, 0.0, 0.1, 0.0] for shown in SHOWN])
    nothing = tf.zeros([3], tf.int32)
    return Targets(nothing, tf.zeros([3], tf.int64), posterior, nothing, tf.constant(weights), nothing, nothing)


def test_weights_fall_with_a_power_of_exposures() -> None:
    # 1 / sqrt(1 + 0), 1 / sqrt(1 + 3), 1 / sqrt(1 + 99), each times its own weight.
    found = weighed_by_exposures(targets([1.0, 6.0, 5.0]), power=0.5).weights
    np.testing.assert_allclose(found, [1.0, 3.0, 0.5])


def test_power_0_changes_nothing() -> None:
    given = targets([1.0, 6.0, 5.0])
    assert weighed_by_exposures(given, power=0.0) is given


@pytest.mark.parametrize("layout", ["click", "user"])
def test_the_loss_is_the_loss_of_clicks_with_these_weights(data: Data, layout: str) -> None:
    with_power = data.model(*PLAIN, "model.loss.exposure_power=0.7", layout=layout, trains=False)
    plain = data.model(*PLAIN, layout=layout, trains=False)
    batch = data.batch(plain, size=12)
    exposures = batch["posterior"].numpy()[..., 0]
    assert len(np.unique(exposures)) > 3
    by_hand = {**batch, "weight": tf.constant(batch["weight"].numpy() / (1 + exposures) ** 0.7, tf.float32)}
    losses = []
    for model, given in ((with_power, batch), (plain, by_hand), (plain, batch)):
        tf.random.set_seed(3)
        losses.append(model.loss_terms(given, training=False)["item"].numpy())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0] != pytest.approx(losses[2], rel=1e-3)
