"""Converts what is known of items at a moment into inputs of about unit scale: `posterior_features`."""

from __future__ import annotations

import tensorflow as tf

from recall.data import fresh_evidence, posterior

TOTALS = len(posterior.COLUMNS)
PER_HALF_LIFE = 4
"""Inputs of each half-life: log exposures, log clicks, log relative CTR, log lift."""

# Pseudo-exposures of the CTR of a half-life, clicked at the CTR of the next longer one. With fewer, a single click of
# the last hours would count as a change of the item's CTR.
_STRENGTH = 20.0


def posterior_width(half_lives: int) -> int:
    """Return the number of columns of a posterior as `Posterior.stacked` makes it."""
    return TOTALS + len(fresh_evidence.COLUMNS) * half_lives


def feature_count(half_lives: int) -> int:
    """Return the number of inputs that `posterior_features` makes."""
    return TOTALS + PER_HALF_LIFE * half_lives


def posterior_features(values: tf.Tensor, *, prior_ctr: float) -> tf.Tensor:
    """Convert posteriors to inputs of gate and appeal, of about unit scale.

    Of the totals: log counts, log relative CTR, log age. Of each half-life, the shortest first: log counts; the CTR
    relative to the CTR of the next longer half-life (of the longest: the smoothed CTR of the totals), and shrunk to
    it; the log of the lift, which is the item's share of what the whole feed clicked.

    Args:
      values: float32 [..., 4 + 3 * half-lives]: exposures, clicks, smoothed CTR, hours since the first exposure, and
        decayed exposures, decayed clicks, lift of each half-life.
      prior_ctr: the CTR to which an item without exposures is smoothed; the feature of this CTR is 0.

    Returns:
      float32 [..., 4 + 4 * half-lives]; zeros for an item without exposures that has the prior CTR.
    """
    exposures, clicks, ctr, age_hours, *fresh = tf.unstack(values, axis=-1)
    ctr = tf.maximum(ctr, 1e-6)
    relative_ctr = tf.math.log(ctr / prior_ctr)
    features = [_log(exposures), _log(clicks), relative_ctr, _log(age_hours)]
    of_half_lives: list[tf.Tensor] = []
    longer = ctr
    for start in reversed(range(0, len(fresh), len(fresh_evidence.COLUMNS))):
        exposures, clicks, lift = fresh[start : start + len(fresh_evidence.COLUMNS)]
        own = (clicks + _STRENGTH * longer) / (exposures + _STRENGTH)
        of_half_lives = [_log(exposures), _log(clicks), tf.math.log(own / longer), _log(lift), *of_half_lives]
        longer = own
    return tf.stack([*features, *of_half_lives], axis=-1)


def _log(values: tf.Tensor) -> tf.Tensor:
    return tf.math.log1p(values) / 5
