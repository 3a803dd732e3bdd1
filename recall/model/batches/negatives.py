"""Draws uniform negatives inside the graph, with the posterior that they had at the moment of the example."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from recall.data.posterior import PosteriorHistory
from recall.data.prepared import PreparedData
from recall.model.batches.logq import log_expected_draws
from recall.model.randomness import op_seed


class Negatives(NamedTuple):
    """Hold items drawn uniformly, one per moment."""

    rows: tf.Tensor  # int32 [draws]
    posterior: tf.Tensor  # float32 [draws, 4]
    pool_sizes: tf.Tensor  # int32 [draws], how many items each draw chose from


class Catalogue(NamedTuple):
    """Hold all items at one moment, in the order in which they enter the pool of negatives."""

    rows: tf.Tensor  # int32 [items]
    posterior: tf.Tensor  # float32 [items, 4]
    places: tf.Tensor  # int32 [items], place in `rows` of each item of the catalogue


class AsOfPosterior:
    """Look up the posterior of any item at any moment: one binary search per pair.

    Holds the cumulative counts per (item, bucket) as one sorted int64 key each, item * buckets + rank of the bucket.
    The same lookup in NumPy is `PosteriorHistory.as_of`.
    """

    def __init__(self, history: PosteriorHistory) -> None:
        self.bucket_ms, self.delay_ms, self.prior = history.bucket_ms, history.delay_ms, history.prior
        # Ranks of buckets, not buckets: item * (largest bucket) may not fit into int64.
        buckets, rank = np.unique(history.bucket, return_inverse=True)
        self._stride = len(buckets) + 1
        self._buckets = tf.constant(buckets, tf.int64)
        # An entry in front of the first item: the search may land before its first bucket.
        self._keys = tf.constant(np.r_[-1, history.item.astype(np.int64) * self._stride + rank], tf.int64)
        self._items = tf.constant(np.r_[-1, history.item], tf.int32)
        self._exposures = tf.constant(np.r_[0, history.exposures], tf.float32)
        self._clicks = tf.constant(np.r_[0, history.clicks], tf.float32)
        self._first_time_ms = tf.constant(np.r_[0, history.first_time_ms], tf.int64)
        self._own_priors: tuple[tf.Tensor, tf.Tensor] | None = None  # from when, int64 [moments]; CTRs [moments, items]
        if own := history.prior.items:
            self._own_priors = tf.constant(own.from_ms), tf.constant(own.ctr)

    def visible_before(self, times_ms: tf.Tensor) -> tf.Tensor:
        """Start of the first bucket that is still invisible: int64 [n], in buckets since the epoch."""
        return (times_ms - self.delay_ms) // self.bucket_ms

    def __call__(self, rows: tf.Tensor, times_ms: tf.Tensor) -> tf.Tensor:
        """Look up the posterior of int32 [n] items at int64 [n] moments.

        Returns:
          float32 [n, 4]: exposures, clicks, smoothed CTR, hours since first exposure.
        """
        visible = tf.searchsorted(self._buckets, self.visible_before(times_ms), side="left", out_type=tf.int64)
        key = tf.cast(rows, tf.int64) * self._stride + visible
        place = tf.searchsorted(self._keys, key, side="left") - 1
        found = tf.gather(self._items, place) == rows
        exposures = tf.where(found, tf.gather(self._exposures, place), 0.0)
        clicks = tf.where(found, tf.gather(self._clicks, place), 0.0)
        age_ms = times_ms - tf.gather(self._first_time_ms, place)
        age_hours = tf.where(found, tf.cast(age_ms, tf.float32) / 3.6e6, 0.0)
        prior_ctr = self._prior_ctr(rows, times_ms)
        ctr = (clicks + prior_ctr * self.prior.strength) / (exposures + self.prior.strength)
        return tf.stack([exposures, clicks, ctr, age_hours], axis=1)

    def _prior_ctr(self, rows: tf.Tensor, times_ms: tf.Tensor) -> tf.Tensor | float:
        """Look up prior CTRs, float32 [n] or one for all; the same lookup in NumPy is `Prior.ctr_of`."""
        if self._own_priors is None:
            return self.prior.ctr
        from_ms, ctr = self._own_priors
        moment = tf.searchsorted(from_ms, times_ms, side="right") - 1
        return tf.gather_nd(ctr, tf.stack([moment, rows], axis=1))


class FixedPosterior:
    """Give the training totals at every moment, where events have no clock."""

    def __init__(self, posterior: np.ndarray) -> None:
        self._posterior = tf.constant(posterior)

    def __call__(self, rows: tf.Tensor, times_ms: tf.Tensor) -> tf.Tensor:
        """Look up int32 [n] items at any [n] moments -> float32 [n, 4]."""
        del times_ms
        return tf.gather(self._posterior, rows)


class NegativeSampler:
    """Draw items uniformly from those that had been exposed by a moment, and give every candidate's logQ.

    Only exposed items: nobody rejected what nobody saw, and content vectors would let the meta tower
    learn "this item is never a positive". `pool: catalogue` draws from all items, for comparison.
    """

    def __init__(self, prepared: PreparedData, *, pool: str) -> None:
        self._seeds = op_seed(), op_seed()  # of draws, and of moments
        counts = prepared.sampling_counts.astype(np.float64)
        self._frequency = tf.constant((counts / max(counts.sum(), 1.0)).astype(np.float32))
        history, totals = prepared.posterior_history, prepared.posterior("validation")
        self.posterior: AsOfPosterior | FixedPosterior = (
            AsOfPosterior(history) if history.clock else FixedPosterior(totals.stacked())
        )
        always, never = np.iinfo(np.int64).min, np.iinfo(np.int64).max
        if pool == "catalogue":
            entered_at = np.full(len(counts), always)
        elif history.clock:
            entered_at = np.full(len(counts), never)
            entered_at[history.item] = history.first_time_ms // history.bucket_ms
        else:
            entered_at = np.where(totals.exposures > 0, always, never)
        order = np.argsort(entered_at, kind="stable")
        rank = np.empty(len(order), np.int32)
        rank[order] = np.arange(len(order), dtype=np.int32)
        self._order, self._rank = tf.constant(order.astype(np.int32)), tf.constant(rank)
        self._entered_at = tf.constant(entered_at[order])

    def draw(self, times_ms: tf.Tensor) -> Negatives:
        """Draw one item for each moment, int64 [draws], from the items exposed (and visible) by then."""
        pool_sizes = self.pool_sizes(times_ms)
        uniform = tf.random.uniform(tf.shape(pool_sizes), dtype=tf.float64, seed=self._seeds[0])
        place = tf.cast(uniform * tf.cast(pool_sizes, tf.float64), tf.int32)
        # Before the first exposure the pool is empty; the earliest item stands in.
        rows = tf.gather(self._order, tf.minimum(place, tf.maximum(pool_sizes - 1, 0)))
        return Negatives(rows, self.posterior(rows, times_ms), pool_sizes)

    def catalogue(self, times_ms: tf.Tensor) -> Catalogue:
        """Return every item with its posterior as of one of the moments, int64 [moments], drawn at random.

        One moment for all: a posterior per pair of example and item would make the item vectors as many. Whatever
        an example sees of later events lies within its batch's spread in time, and over the batches as many
        examples see a past posterior as a future one.
        """
        moment = times_ms[tf.random.uniform([], 0, tf.size(times_ms), tf.int32, seed=self._seeds[1])]
        return Catalogue(self._order, self.posterior(self._order, tf.fill(tf.shape(self._order), moment)), self._rank)

    def pool_sizes(self, times_ms: tf.Tensor) -> tf.Tensor:
        """Count the items exposed (and visible) by each moment: int64 [moments] -> int32 [moments]."""
        before = tf.zeros_like(times_ms)
        if isinstance(self.posterior, AsOfPosterior):
            before = self.posterior.visible_before(times_ms)
        return tf.searchsorted(self._entered_at, before, side="left")

    def log_q(self, rows: tf.Tensor, *, batch_size: tf.Tensor, pool_sizes: tf.Tensor) -> tf.Tensor:
        """Return logQ of candidates; see `log_expected_draws`. int32 [candidates] -> float32 [candidates]."""
        return log_expected_draws(
            tf.gather(self._frequency, rows),
            batch_size=batch_size,
            ranks=tf.gather(self._rank, rows),
            pool_sizes=pool_sizes,
        )
