"""Draws how good an item might be, given how little is known of it: exploration as in Thompson sampling.

A model's score is an expectation. Of an item with three exposures the truth may lie far above it, of one with a
thousand it may not. A draw from what is uncertain lets such items come up now and then, the less the more is known.
"""

from __future__ import annotations

import numpy as np
from scipy import special

from recall.core.arrays import Float32s, Int64s

STRENGTH = 5.0


def sampled_lift(
    exposures: Int64s, clicks: Int64s, *, prior_ctr: float, rng: np.random.Generator, strength: float = STRENGTH
) -> Float32s:
    """Draw by how much the logit of each item's CTR may differ from its expectation.

    A CTR is drawn from Beta(clicks + prior_ctr * strength, exposures - clicks + (1 - prior_ctr) * strength), as
    Chapelle and Li (An empirical evaluation of Thompson sampling, 2011) do for an item's CTR; what is returned is its
    logit less the expectation of the logit, so that a model's score keeps its place on average.

    Args:
      exposures: int64 [items].
      clicks: int64 [items].
      prior_ctr: CTR of an item without exposures, in (0, 1).
      rng: source of randomness.
      strength: pseudo-exposures of the prior; few: a new item may be anything.

    Returns:
      float32 [items].
    """
    good = clicks + prior_ctr * strength
    bad = exposures - clicks + (1 - prior_ctr) * strength
    # The ratio of two gamma variables: a Beta variable itself may be rounded to 0 or 1.
    drawn = _log_gamma(rng, good) - _log_gamma(rng, bad)
    return (drawn - special.digamma(good) + special.digamma(bad)).astype(np.float32)


def _log_gamma(rng: np.random.Generator, shape: np.ndarray) -> np.ndarray:
    """Draw logarithms of gamma variables, small shapes included: G(a) = G(a + 1) U^(1/a)."""
    return np.log(rng.standard_gamma(shape + 1)) + np.log1p(-rng.random(len(shape))) / shape
