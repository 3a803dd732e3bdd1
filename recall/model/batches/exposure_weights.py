"""Weighs the clicks of a batch by how little their items had been shown: `model.loss.exposure_power`."""

from __future__ import annotations

import tensorflow as tf

from recall.model.batches.targets import Targets


def weighed_by_exposures(targets: Targets, *, power: float) -> Targets:
    """Multiply the weights of targets by (1 + exposures)^-power, of the exposures of the item as of its click.

    Clicks on items of many exposures are most of the clicks, so that a plain mean is their loss. Inverse propensity
    scoring (Schnabel et al., ICML 2016, eq. 3) has power 1; less of it, as here, has less variance. Losses are weighted
    means, so that the scale of the weights has no effect.

    Args:
      targets: the clicks of a batch.
      power: >= 0; 0 changes nothing.
    """
    if not power:
        return targets
    exposures = targets.posterior[:, 0]  # [targets]
    return targets._replace(weights=targets.weights * tf.pow(1.0 + exposures, -power))
