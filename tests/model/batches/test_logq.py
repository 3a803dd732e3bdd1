"""logQ, the log of how often a candidate is expected to be drawn: beside sums over pools and simulated sampling."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from recall.model.batches.logq import log_expected_draws

Array = np.ndarray


def expected_draws(frequency: Array, ranks: Array, *, batch_size: int, pools: list[int]) -> Array:
    """Positives of a batch, plus a chance of 1/n in each pool of n items that the item has entered."""
    draws = [
        batch_size * share + sum(1 / max(n, 1) for n in pools if rank < max(n, 1))
        for share, rank in zip(frequency, ranks, strict=True)
    ]
    return np.array(draws)


def log_q(frequency: Array, ranks: Array, *, batch_size: int, pools: list[int]) -> Array:
    return log_expected_draws(
        tf.constant(frequency, tf.float32),
        batch_size=tf.constant(batch_size),
        ranks=tf.constant(ranks, tf.int32),
        pool_sizes=tf.constant(pools, tf.int32),
    ).numpy()


FREQUENCY = np.array([0.4, 0.0, 0.25, 0.05, 0.0, 0.3])
RANKS = np.array([2, 0, 5, 1, 3, 4])


@pytest.mark.parametrize("pools", [[6], [1, 6, 3, 3, 2, 6, 4], [6] * 40, [3, 5, 0, 0, 6]])
def test_logq_is_the_log_of_the_expected_draws_from_both_sources(pools: list[int]) -> None:
    expected = expected_draws(FREQUENCY, RANKS, batch_size=8, pools=pools)
    np.testing.assert_allclose(log_q(FREQUENCY, RANKS, batch_size=8, pools=pools), np.log(expected), rtol=1e-5)


def test_logq_agrees_with_the_sampling_it_describes() -> None:
    random = np.random.default_rng(0)
    rounds, batch_size, pools = 40_000, 5, [2, 6, 4, 4, 0]
    item_of_rank = np.argsort(RANKS)
    drawn = np.bincount(random.choice(6, size=rounds * batch_size, p=FREQUENCY), minlength=6).astype(float)
    for size in pools:  # an empty pool is served by the first item of the order
        places = (random.uniform(size=rounds) * size).astype(int)
        drawn += np.bincount(item_of_rank[places], minlength=6)
    found = np.exp(log_q(FREQUENCY, RANKS, batch_size=batch_size, pools=pools))
    # A mean of 40,000 counts with a standard deviation of about 1 errs by 0.005; 0.02 is four times that.
    np.testing.assert_allclose(found, drawn / rounds, atol=0.02)


def test_logq_without_uniform_draws_is_the_log_of_the_in_batch_counts() -> None:
    found = log_q(np.array([0.5, 1e-9]), np.array([0, 1]), batch_size=1000, pools=[])
    np.testing.assert_allclose(found, np.log([500, 1e-6]), rtol=1e-5)


def test_logq_of_a_never_clicked_item_comes_from_the_pools_that_hold_it() -> None:
    # Rank 2 is in the pools of 4 and 8 items, not in that of 2.
    found = log_q(np.array([0.0]), np.array([2]), batch_size=64, pools=[8, 2, 4])
    np.testing.assert_allclose(found, np.log([1 / 4 + 1 / 8]), rtol=1e-6)


def test_logq_of_the_item_that_stands_in_for_empty_pools_counts_these_draws() -> None:
    # Otherwise a never-clicked stand-in would get the logQ of an impossible candidate and outweigh all others.
    found = log_q(np.array([0.0]), np.array([0]), batch_size=64, pools=[0, 0, 0])
    np.testing.assert_allclose(found, np.log([3.0]), rtol=1e-6)


def test_logq_of_a_candidate_that_cannot_be_drawn_is_finite() -> None:
    assert np.isfinite(log_q(np.array([0.0]), np.array([5]), batch_size=64, pools=[2])).all()
