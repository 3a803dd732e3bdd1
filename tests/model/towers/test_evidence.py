"""Tests what gate and appeal read: about unit scale, zero where nothing is known, the shorter against the longer."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from recall.model.towers.evidence import feature_count, posterior_features, posterior_width

PRIOR_CTR = 0.2


def test_totals_come_first_and_each_half_life_has_counts_ctr_and_lift() -> None:
    # 80 exposures, 30 clicks, CTR .34, 47 h; of the short half-life 10, 6 and lift 3; of the long 40, 10 and 2.
    values = tf.constant([[80.0, 30.0, 0.34, 47.0, 10.0, 6.0, 3.0, 40.0, 10.0, 2.0]])
    longer = (10 + 20 * 0.34) / (40 + 20)
    shorter = (6 + 20 * longer) / (10 + 20)
    expected = [
        *(math.log(81) / 5, math.log(31) / 5, math.log(1.7), math.log(48) / 5),
        *(math.log(11) / 5, math.log(7) / 5, math.log(shorter / longer), math.log(4) / 5),
        *(math.log(41) / 5, math.log(11) / 5, math.log(longer / 0.34), math.log(3) / 5),
    ]
    found = posterior_features(values, prior_ctr=PRIOR_CTR)
    np.testing.assert_allclose(found[0], expected, rtol=1e-5)
    assert (posterior_width(2), feature_count(2)) == (values.shape[1], found.shape[1])


def test_an_item_that_nobody_saw_has_zeros_whatever_the_half_lives() -> None:
    for half_lives in (0, 1, 3):
        nothing = np.zeros((1, posterior_width(half_lives)), np.float32)
        nothing[0, 2] = PRIOR_CTR
        found = posterior_features(tf.constant(nothing), prior_ctr=PRIOR_CTR)
        np.testing.assert_allclose(found, np.zeros((1, feature_count(half_lives))), atol=1e-6)


def test_extreme_counts_give_finite_features() -> None:
    extreme = tf.constant([[1e9, 0, 0, 1e6, 1e9, 0, 0], [1e9, 1e9, 1, 0, 1e9, 1e9, 1e9], [0, 0, 1e-9, 0, 0, 0, 0]])
    assert np.isfinite(posterior_features(extreme, prior_ctr=1e-6)).all()
