"""Draws from what is uncertain of a CTR, against SciPy's Beta distribution."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from recall.evaluation.exploration import sampled_lift

DRAWS = 20_000


@pytest.mark.parametrize(("exposures", "clicks"), [(0, 0), (3, 3), (100, 20), (5_000, 40)])
def test_a_draw_is_the_logit_of_a_beta_variable_less_its_expectation(exposures: int, clicks: int) -> None:
    lift = sampled_lift(np.full(DRAWS, exposures), np.full(DRAWS, clicks), prior_ctr=0.2, rng=np.random.default_rng(1))
    assert lift.dtype == np.float32
    posterior = stats.beta(clicks + 1, exposures - clicks + 4)
    ctr = posterior.rvs(DRAWS, random_state=2)
    expected = np.log(ctr / (1 - ctr))
    spread = expected.std()
    assert abs(lift.mean()) < 4 * spread / np.sqrt(DRAWS)
    assert stats.ks_2samp(lift, expected - expected.mean()).statistic < 0.02


def test_the_more_is_known_the_less_is_drawn() -> None:
    spreads = [
        sampled_lift(np.full(DRAWS, n), np.full(DRAWS, n // 5), prior_ctr=0.2, rng=np.random.default_rng(3)).std()
        for n in (0, 10, 100, 1_000)
    ]
    assert spreads == sorted(spreads, reverse=True)
    assert spreads[0] > 5 * spreads[-1]


def test_a_tiny_prior_gives_finite_numbers() -> None:
    lift = sampled_lift(
        np.zeros(1_000, np.int64), np.zeros(1_000, np.int64), prior_ctr=1e-4, rng=np.random.default_rng(1)
    )
    assert np.isfinite(lift).all()
