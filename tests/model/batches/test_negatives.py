"""Uniform negatives: only what had been shown by then, all equally likely, with the posterior of the moment."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from pipelines.training_data import prepare
from recall.data.event_counts import BucketCounts
from recall.data.posterior import Posterior, PosteriorHistory, Prior
from recall.data.prepared import PreparedData
from recall.model.batches.negatives import ABSENT, AsOfPosterior, NegativeSampler
from tests.conftest import Experiment

HOUR_MS = 3_600_000
Times = npt.NDArray[np.int64]


@pytest.fixture(scope="module")
def without_clock(experiment: Experiment, tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    directory = tmp_path_factory.mktemp("order") / "data"
    prepare(experiment("data.events.time_unit=order", "data.split={by: last_click}"), directory)
    return PreparedData.load(directory)


@pytest.fixture
def moments(prepared: PreparedData) -> Times:
    """Random moments from a day before the first exposure to a day after the last one."""
    history = prepared.posterior_history
    first, last = int(history.first_time_ms.min()), prepared.manifest["last_time_ms"]
    return np.random.default_rng(1).integers(first - 24 * HOUR_MS, last + 24 * HOUR_MS, size=4_000)


def visible_items(prepared: PreparedData, time_ms: int) -> npt.NDArray[np.int64]:
    """Rows of the items of which at least one exposure was known at a moment."""
    rows = np.arange(len(prepared.item_ids))
    known = prepared.posterior_history.as_of(rows, np.full(len(rows), time_ms))
    return np.flatnonzero(known.exposures)


def assert_same_posterior(found: npt.NDArray[np.float32], expected: Posterior) -> None:
    # float32 against float64 that is rounded at the end: totals may differ in the last bit, decayed counts in some.
    np.testing.assert_allclose(found, expected.stacked(), rtol=2e-6)


def test_lookup_in_the_graph_equals_the_lookup_in_numpy(prepared: PreparedData, moments: Times) -> None:
    rows = np.random.default_rng(2).integers(len(prepared.item_ids), size=len(moments))
    expected = prepared.posterior_history.as_of(rows, moments)
    assert (expected.exposures == 0).any()
    assert (expected.exposures > 10).any()
    lookup = tf.function(AsOfPosterior(prepared.posterior_history))
    assert_same_posterior(lookup(tf.constant(rows, tf.int32), tf.constant(moments)).numpy(), expected)


def test_lookup_sees_a_bucket_once_it_closed_and_the_delay_is_over() -> None:
    # Item 3 is shown at 0 h 30 (clicked) and at 2 h 10; its neighbours are there to be confused with. An event of
    # hour h is known from h + 1 + delay on.
    events = [(2, 0, 0.1, 0), (3, 0, 0.5, 1), (3, 2, 2 + 1 / 6, 0), (4, 0, 0.2, 1)]
    item, bucket, hours, click = (np.array(column) for column in zip(*events, strict=True))
    counts = BucketCounts(item, bucket, np.ones(4, np.int64), click, (hours * HOUR_MS).astype(np.int64))
    prior = Prior(0.25, 4.0)
    history = PosteriorHistory.from_counts(counts, bucket_ms=HOUR_MS, delay_ms=HOUR_MS // 2, prior=prior)
    times = np.array([-3.0, 1.49, 1.5, 3.49, 3.5, 99.0]) * HOUR_MS
    found = AsOfPosterior(history)(tf.fill([6], 3), tf.constant(times.astype(np.int64))).numpy()
    assert found[:, 0].tolist() == [0, 0, 1, 1, 2, 2]
    assert found[:, 1].tolist() == [0, 0, 1, 1, 1, 1]
    np.testing.assert_allclose(found[:, 2], [0.25, 0.25, 2 / 5, 2 / 5, 2 / 6, 2 / 6])
    np.testing.assert_allclose(found[:, 3], [0, 0, 1.0, 2.99, 3.0, 98.5], atol=1e-5)


def test_only_items_that_were_visible_by_then_are_drawn(prepared: PreparedData, moments: Times) -> None:
    tf.random.set_seed(3)
    drawn = NegativeSampler(prepared, pool="exposed").draw(tf.constant(moments))
    known = prepared.posterior_history.as_of(drawn.rows.numpy(), moments)
    expected_sizes = np.array([len(visible_items(prepared, time_ms)) for time_ms in moments[:500]])
    np.testing.assert_array_equal(drawn.pool_sizes.numpy()[:500], expected_sizes)
    assert 0 < (expected_sizes == 0).sum() < 500
    assert (known.exposures[drawn.pool_sizes.numpy() > 0] > 0).all()
    assert_same_posterior(drawn.posterior.numpy(), known)


def test_before_the_first_exposure_some_valid_item_stands_in(prepared: PreparedData) -> None:
    drawn = NegativeSampler(prepared, pool="exposed").draw(tf.zeros([5], tf.int64))
    assert drawn.pool_sizes.numpy().tolist() == [0] * 5
    assert ((drawn.rows.numpy() >= 0) & (drawn.rows.numpy() < len(prepared.item_ids))).all()
    assert np.isfinite(drawn.posterior.numpy()).all()


def assert_uniform(rows: npt.NDArray[np.int32], pool: npt.NDArray[np.int64]) -> None:
    """Chi-square of the counts: its mean is the degrees of freedom, its deviation sqrt(2 freedom)."""
    assert set(rows.tolist()) <= set(pool.tolist())
    counts = np.bincount(rows, minlength=pool.max() + 1)[pool]
    expected, freedom = len(rows) / len(pool), len(pool) - 1
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert abs(chi_square - freedom) < 4 * np.sqrt(2 * freedom)


@pytest.mark.parametrize("share", [0.3, 0.6, 1.0])
def test_every_visible_item_is_drawn_equally_often(share: float, prepared: PreparedData) -> None:
    tf.random.set_seed(4)
    first, last = prepared.posterior_history.first_time_ms.min(), prepared.manifest["last_time_ms"]
    time_ms = int(first + share * (last - first))
    pool = visible_items(prepared, time_ms)
    assert 20 < len(pool) < len(prepared.item_ids)
    drawn = NegativeSampler(prepared, pool="exposed").draw(tf.fill([20_000], tf.constant(time_ms, tf.int64)))
    assert_uniform(drawn.rows.numpy(), pool)


def test_the_catalogue_pool_draws_items_that_nobody_had_seen(prepared: PreparedData) -> None:
    tf.random.set_seed(5)
    time_ms = int(prepared.posterior_history.first_time_ms.min())
    items = np.arange(len(prepared.item_ids))
    drawn = NegativeSampler(prepared, pool="catalogue").draw(tf.fill([20_000], tf.constant(time_ms, tf.int64)))
    assert_uniform(drawn.rows.numpy(), items)
    assert set(drawn.pool_sizes.numpy()) == {len(items)}
    assert (drawn.posterior.numpy()[:, 0] == 0).all()


def of_training(prepared: PreparedData) -> tf.Tensor:
    """Share of each item in the training clicks, float32 [items]."""
    counts = prepared.sampling_counts
    return tf.constant(counts / counts.sum(), tf.float32)


def expected_draws(prepared: PreparedData, moments: Times, batch_size: int) -> npt.NDArray[np.float64]:
    """How often each item is expected among the positives of a batch and the uniform draws at some moments."""
    counts = prepared.sampling_counts
    expected = batch_size * counts / counts.sum()
    for time_ms in moments:
        pool = visible_items(prepared, time_ms)
        expected[pool] += 1 / len(pool)
    return expected


def late_moments(prepared: PreparedData, draws: int) -> Times:
    """Random moments at which something is visible."""
    last = prepared.manifest["last_time_ms"]
    return np.random.default_rng(6).integers(last - 60 * HOUR_MS, last, size=draws)


def test_log_q_is_the_log_of_the_expected_draws(prepared: PreparedData) -> None:
    moments = late_moments(prepared, 300)
    sampler = NegativeSampler(prepared, pool="exposed")
    rows = tf.range(len(prepared.item_ids))
    drawn = sampler.draw(tf.constant(moments))
    there = tf.ones_like(rows, tf.bool)
    log_q = sampler.log_q(
        rows, of_training(prepared), is_there=there, batch_size=tf.constant(128), pool_sizes=drawn.pool_sizes
    ).numpy()
    expected = expected_draws(prepared, moments, 128)
    assert expected.sum() == pytest.approx(128 + 300)
    # The last items of the log are never drawn: a probability of practically 0, but one that has a logarithm.
    np.testing.assert_allclose(np.exp(log_q), expected, rtol=1e-4, atol=1e-30)
    assert np.isfinite(log_q).all()


def test_log_q_is_how_often_items_are_really_drawn(prepared: PreparedData) -> None:
    tf.random.set_seed(7)
    repeats, moments = 400, late_moments(prepared, 100)
    sampler = NegativeSampler(prepared, pool="exposed")
    drawn = sampler.draw(tf.constant(np.tile(moments, repeats)))
    rows = tf.range(len(prepared.item_ids))
    there = tf.ones_like(rows, tf.bool)
    log_q = sampler.log_q(
        rows, of_training(prepared), is_there=there, batch_size=tf.constant(0), pool_sizes=drawn.pool_sizes[:100]
    ).numpy()
    found = np.bincount(drawn.rows.numpy(), minlength=len(rows))
    expected = repeats * np.exp(log_q)
    # Sums of many rare draws are close to Poisson: their deviation is the root of the mean.
    assert (np.abs(found - expected) < 5 * np.sqrt(expected)).all()


def test_without_uniform_draws_log_q_is_that_of_the_batch(prepared: PreparedData) -> None:
    counts = prepared.sampling_counts
    clicked = np.flatnonzero(counts)
    sampler = NegativeSampler(prepared, pool="none")
    log_q = sampler.log_q(
        tf.constant(clicked, tf.int32),
        tf.gather(of_training(prepared), clicked),
        is_there=tf.ones([len(clicked)], tf.bool),
        batch_size=tf.constant(64),
        pool_sizes=tf.zeros([0], tf.int32),
    )
    np.testing.assert_allclose(np.exp(log_q), 64 * counts[clicked] / counts.sum(), rtol=1e-5)


def test_items_of_a_batch_are_shown_again_as_they_were_at_the_moment_of_another_example(
    prepared: PreparedData,
) -> None:
    tf.random.set_seed(10)
    rng = np.random.default_rng(9)
    times = prepared.manifest["last_time_ms"] - np.arange(300) * HOUR_MS
    rows = rng.integers(len(prepared.item_ids), size=len(times))
    again = NegativeSampler(prepared, pool="exposed").shown_again(tf.constant(rows, tf.int32), tf.constant(times))
    assert again.rows.numpy().tolist() == rows.tolist()
    moments = again.times_ms.numpy()
    assert sorted(moments) == sorted(times)
    assert (moments != times).mean() > 0.9
    expected = prepared.posterior_history.as_of(rows, moments)
    assert_same_posterior(again.posterior.numpy(), expected)
    is_there = again.is_there.numpy()
    assert is_there.tolist() == (expected.exposures > 0).tolist(), "only what had been exposed by then"
    assert 0 < is_there.sum() < len(times)


def test_what_takes_no_part_is_hidden_by_its_log_q(prepared: PreparedData) -> None:
    rows = tf.range(20)
    is_there = rows % 2 == 0
    found = NegativeSampler(prepared, pool="exposed").log_q(
        rows, of_training(prepared)[:20], is_there=is_there, batch_size=tf.constant(64), pool_sizes=tf.constant([150])
    )
    assert (found.numpy()[1::2] == ABSENT).all()
    assert (found.numpy()[::2] < 10).all()


def test_the_frequency_of_a_moment_follows_the_decayed_clicks(prepared: PreparedData, moments: Times) -> None:
    rows = np.random.default_rng(9).integers(len(prepared.item_ids), size=len(moments))
    found = NegativeSampler(prepared, pool="exposed").frequency(tf.constant(rows, tf.int32), tf.constant(moments))
    history = prepared.posterior_history
    decayed = history.as_of(rows, moments).fresh.reshape(len(rows), -1, 3)[:, :, 1]
    # The clicks of the feed are the clicks of all its items.
    everything = np.arange(len(prepared.item_ids))
    items = len(np.unique(history.item))
    of_all = [
        history.as_of(everything, np.full(len(everything), time)).fresh.reshape(len(everything), -1, 3)[:, :, 1].sum(0)
        for time in moments[:50]
    ]
    share = of_training(prepared).numpy()[rows] * items
    for lookup, totals in enumerate(of_all):
        relative = share[lookup]
        for life in reversed(range(decayed.shape[1])):
            relative = (decayed[lookup, life] + 0.5 * relative) / (totals[life] / items + 0.5)
        # Once as it was when it was clicked, once at any moment.
        assert found[lookup].numpy() == pytest.approx((relative + share[lookup]) / items, rel=1e-4)


def test_without_a_clock_the_frequency_is_that_of_all_training_clicks(without_clock: PreparedData) -> None:
    rows = tf.range(len(without_clock.item_ids))
    found = NegativeSampler(without_clock, pool="exposed").frequency(rows, tf.cast(rows, tf.int64))
    np.testing.assert_allclose(found, 2 * of_training(without_clock), rtol=1e-6)


def test_without_a_clock_items_of_the_training_events_are_drawn_with_their_totals(
    without_clock: PreparedData,
) -> None:
    tf.random.set_seed(8)
    totals = without_clock.posterior("validation")
    pool = np.flatnonzero(totals.exposures)
    assert (without_clock.sampling_counts[pool] == 0).any(), "exposed, but never clicked: a negative all the same"
    drawn = NegativeSampler(without_clock, pool="exposed").draw(tf.range(20_000, dtype=tf.int64))
    assert_uniform(drawn.rows.numpy(), pool)
    np.testing.assert_array_equal(drawn.posterior.numpy(), totals.stacked()[drawn.rows.numpy()])
    np.testing.assert_array_equal(totals.clicks, without_clock.sampling_counts)


def test_the_catalogue_is_seen_as_of_one_moment_of_the_batch(prepared: PreparedData, moments: Times) -> None:
    tf.random.set_seed(9)
    sampler, chosen = NegativeSampler(prepared, pool="exposed"), moments[-3:]
    found = set()
    for _ in range(20):
        catalogue = sampler.catalogue(tf.constant(chosen))
        rows = catalogue.rows.numpy()
        assert sorted(rows.tolist()) == list(range(len(prepared.item_ids)))
        np.testing.assert_array_equal(rows[catalogue.places.numpy()], np.arange(len(rows)))
        as_of = [prepared.posterior_history.as_of(rows, np.full(len(rows), time_ms)) for time_ms in chosen]
        exposures = catalogue.posterior.numpy()[:, 0].tolist()
        found.add([known.exposures.tolist() for known in as_of].index(exposures))
    assert found == {0, 1, 2}, "each moment of the batch has its turn"


def test_what_was_visible_by_a_moment_leads_the_catalogue(prepared: PreparedData) -> None:
    moments = late_moments(prepared, 20)
    sampler = NegativeSampler(prepared, pool="exposed")
    rows = sampler.catalogue(tf.constant(moments)).rows.numpy()
    for time_ms, size in zip(moments, sampler.pool_sizes(tf.constant(moments)).numpy(), strict=True):
        assert set(rows[:size]) == set(visible_items(prepared, time_ms).tolist())


def test_without_a_clock_the_catalogue_shows_the_training_totals(without_clock: PreparedData) -> None:
    totals = without_clock.posterior("validation")
    sampler = NegativeSampler(without_clock, pool="exposed")
    catalogue = sampler.catalogue(tf.constant([3, 1], tf.int64))
    np.testing.assert_array_equal(catalogue.posterior.numpy(), totals.stacked()[catalogue.rows.numpy()])
    sizes = sampler.pool_sizes(tf.constant([3, 1], tf.int64)).numpy()
    assert sizes.tolist() == [np.count_nonzero(totals.exposures)] * 2
