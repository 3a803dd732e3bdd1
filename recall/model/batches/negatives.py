"""Draws uniform negatives inside the graph, with the posterior that they had at the moment of the example."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from recall.core.arrays import Int64s
from recall.data.fresh_evidence import FreshEvidence
from recall.data.posterior import PosteriorHistory
from recall.data.prepared import PreparedData
from recall.model.batches.audience import AsOfAudience
from recall.model.batches.logq import log_expected_draws
from recall.model.randomness import op_seed

# Of the mean item, behind the share of a half-life in the clicks of a moment.
_PSEUDO_CLICKS = 0.5


ABSENT = 60.0
"""LogQ of a candidate that takes no part: exp(-60) of any other."""


class Negatives(NamedTuple):
    """Hold items drawn uniformly, one per moment."""

    rows: tf.Tensor  # int32 [draws]
    posterior: tf.Tensor  # float32 [draws, width], as of `AsOfPosterior`
    pool_sizes: tf.Tensor  # int32 [draws], how many items each draw chose from


class ShownAgain(NamedTuple):
    """Hold the clicked items of a batch at other moments."""

    rows: tf.Tensor  # int32 [targets]
    times_ms: tf.Tensor  # int64 [targets]
    posterior: tf.Tensor  # float32 [targets, width]
    is_there: tf.Tensor  # bool [targets], whether the item is in the pool of negatives at its moment


class Catalogue(NamedTuple):
    """Hold all items at one moment, in the order in which they enter the pool of negatives."""

    rows: tf.Tensor  # int32 [items]
    posterior: tf.Tensor  # float32 [items, width]
    places: tf.Tensor  # int32 [items], place in `rows` of each item of the catalogue
    moment_ms: tf.Tensor  # int64 scalar


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
        self._evidence: AsOfEvidence | None = None
        if evidence := history.fresh_evidence:
            self._evidence = AsOfEvidence(evidence, buckets=history.bucket)

    def visible_before(self, times_ms: tf.Tensor) -> tf.Tensor:
        """Start of the first bucket that is still invisible: int64 [n], in buckets since the epoch."""
        return (times_ms - self.delay_ms) // self.bucket_ms

    def __call__(self, rows: tf.Tensor, times_ms: tf.Tensor) -> tf.Tensor:
        """Look up the posterior of int32 [n] items at int64 [n] moments.

        Returns:
          float32 [n, 4 + 3 * half-lives]: exposures, clicks, smoothed CTR, hours since first exposure, then the fresh
          evidence.
        """
        place, found, visible = self._visible(rows, times_ms)
        exposures = tf.where(found, tf.gather(self._exposures, place), 0.0)
        clicks = tf.where(found, tf.gather(self._clicks, place), 0.0)
        age_ms = times_ms - tf.gather(self._first_time_ms, place)
        age_hours = tf.where(found, tf.cast(age_ms, tf.float32) / 3.6e6, 0.0)
        prior_ctr = self._prior_ctr(rows, times_ms)
        ctr = (clicks + prior_ctr * self.prior.strength) / (exposures + self.prior.strength)
        posterior = tf.stack([exposures, clicks, ctr, age_hours], axis=1)
        if self._evidence is None:
            return posterior
        return tf.concat([posterior, self._evidence(place, found, visible, times_ms)], axis=1)

    def with_fresh(self, posterior: tf.Tensor, rows: tf.Tensor, times_ms: tf.Tensor) -> tf.Tensor:
        """Append the fresh evidence of items, int32 [n], at moments, int64 [n], to posteriors, float32 [n, 4]."""
        if self._evidence is None:
            return posterior
        place, found, visible = self._visible(rows, times_ms)
        return tf.concat([posterior, self._evidence(place, found, visible, times_ms)], axis=1)

    def frequency(self, of_training: tf.Tensor, rows: tf.Tensor, times_ms: tf.Tensor) -> tf.Tensor:
        """Estimate how often items are clicked at moments, as a share of all clicks then.

        Args:
          of_training: float32 [n], share of all training clicks.
          rows: int32 [n], the items.
          times_ms: int64 [n].
        """
        if self._evidence is None:
            return of_training
        return self._evidence.frequency(of_training, *self._visible(rows, times_ms), times_ms)

    def _visible(self, rows: tf.Tensor, times_ms: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Find the last visible entry of each item, whether there is one, and the rank of the first unseen bucket."""
        visible = tf.searchsorted(self._buckets, self.visible_before(times_ms), side="left", out_type=tf.int64)
        key = tf.cast(rows, tf.int64) * self._stride + visible
        place = tf.searchsorted(self._keys, key, side="left") - 1
        return place, tf.gather(self._items, place) == rows, visible

    def _prior_ctr(self, rows: tf.Tensor, times_ms: tf.Tensor) -> tf.Tensor | float:
        """Look up prior CTRs, float32 [n] or one for all; the same lookup in NumPy is `Prior.ctr_of`."""
        if self._own_priors is None:
            return self.prior.ctr
        from_ms, ctr = self._own_priors
        moment = tf.searchsorted(from_ms, times_ms, side="right") - 1
        return tf.gather_nd(ctr, tf.stack([moment, rows], axis=1))


class AsOfEvidence:
    """Look up the fresh evidence of items as `FreshEvidence.as_of` does.

    Args:
      evidence: of the entries of a history.
      buckets: int64 [entries], the buckets of the entries.
    """

    def __init__(self, evidence: FreshEvidence, *, buckets: Int64s) -> None:
        counts = np.stack([evidence.exposures, evidence.clicks], axis=2)  # [entries, half-lives, 2]
        first = np.zeros((1, *counts.shape[1:]), counts.dtype)  # in front of the first item, as in `AsOfPosterior`
        self._counts = tf.constant(np.concatenate([first, counts]), tf.float32)
        self._ends_ms = tf.constant((np.r_[0, buckets] + 1) * evidence.bucket_ms)
        self._feed_ends_ms = tf.constant((np.r_[0, evidence.feed.buckets] + 1) * evidence.bucket_ms)
        self._feed = tf.constant(np.concatenate([first[:, :, 0], evidence.feed.clicks]), tf.float32)
        self._half_lives_ms = evidence.half_lives_ms
        self._rates = tf.constant(1 / np.array(evidence.half_lives_ms), tf.float32)
        self._items = float(evidence.feed.items)

    def __call__(self, place: tf.Tensor, found: tf.Tensor, visible: tf.Tensor, times_ms: tf.Tensor) -> tf.Tensor:
        """Look up the evidence at places of entries.

        Args:
          place: int [n], last visible entry of each item, of `AsOfPosterior`.
          found: bool [n], whether it is of the item.
          visible: int64 [n], buckets of the log that are visible, as ranks.
          times_ms: int64 [n].

        Returns:
          float32 [n, 3 * half-lives].
        """
        counts, of_feed = self._decayed(place, found, visible, times_ms)
        lift = counts[:, :, 1] * self._items / tf.maximum(of_feed, 1.0)
        evidence = tf.concat([counts, lift[:, :, tf.newaxis]], axis=2)
        return tf.reshape(evidence, [-1, evidence.shape[1] * evidence.shape[2]])

    def frequency(
        self, of_training: tf.Tensor, place: tf.Tensor, found: tf.Tensor, visible: tf.Tensor, times_ms: tf.Tensor
    ) -> tf.Tensor:
        """Estimate the share of items in the clicks of a moment, float32 [n]; arguments as of a call.

        The share of each half-life is shrunk to that of the next longer one, and of the longest to the share of all
        training clicks: as if the mean item had `_PSEUDO_CLICKS` more of them.
        """
        counts, of_feed = self._decayed(place, found, visible, times_ms)
        mean = of_feed / self._items  # clicks of the mean item
        relative = of_training * self._items
        for life in reversed(range(len(self._half_lives_ms))):
            relative = (counts[:, life, 1] + _PSEUDO_CLICKS * relative) / (mean[:, life] + _PSEUDO_CLICKS)
        return relative / self._items

    def _decayed(
        self, place: tf.Tensor, found: tf.Tensor, visible: tf.Tensor, times_ms: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Decay the counts of entries, [n, half-lives, 2], and the clicks of the feed, [n, half-lives], to moments."""
        weights = self._weights(times_ms - tf.gather(self._ends_ms, place))  # [n, half-lives]
        weights = tf.where(found[:, tf.newaxis], weights, 0.0)
        counts = weights[:, :, tf.newaxis] * tf.gather(self._counts, place)
        ages_ms = times_ms - tf.gather(self._feed_ends_ms, visible)
        return counts, self._weights(ages_ms) * tf.gather(self._feed, visible)

    def _weights(self, ages_ms: tf.Tensor) -> tf.Tensor:
        ages = tf.cast(tf.maximum(ages_ms, 0), tf.float32)[:, tf.newaxis]
        return tf.pow(2.0, -ages * self._rates)


class FixedPosterior:
    """Give the training totals at every moment, where events have no clock."""

    def __init__(self, posterior: np.ndarray) -> None:
        self._posterior = tf.constant(posterior)

    def __call__(self, rows: tf.Tensor, times_ms: tf.Tensor) -> tf.Tensor:
        """Look up int32 [n] items at any [n] moments -> float32 [n, 4]."""
        del times_ms
        return tf.gather(self._posterior, rows)

    def with_fresh(self, posterior: tf.Tensor, rows: tf.Tensor, times_ms: tf.Tensor) -> tf.Tensor:
        """Return posteriors as they are: without a clock there is no fresh evidence."""
        del rows, times_ms
        return posterior


class NegativeSampler:
    """Draw items uniformly from those that had been exposed by a moment, and give every candidate's logQ.

    Only exposed items: nobody rejected what nobody saw, and content vectors would let the meta tower
    learn "this item is never a positive". `pool: catalogue` draws from all items, for comparison.
    """

    def __init__(
        self, prepared: PreparedData, *, pool: str, shown_again: bool = True, reads_audience: bool = False
    ) -> None:
        self._shows_again = shown_again
        self.audience = AsOfAudience(prepared.audience_history, last=prepared.audience) if reads_audience else None
        self._seeds = op_seed(), op_seed(), op_seed()  # of draws, of a moment, and of the moments of items shown again
        counts = prepared.sampling_counts.astype(np.float64)
        self._frequency = tf.constant((counts / max(counts.sum(), 1.0)).astype(np.float32))
        history, totals = prepared.posterior_history, prepared.learned_posterior
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

    def shown_again(self, rows: tf.Tensor, times_ms: tf.Tensor) -> ShownAgain:
        """Show the clicked items of a batch again, each as it was at the moment of another example.

        As they were when they were clicked they are no sample of what the feed holds: items are clicked while they are
        the talk of the day.

        Args:
          rows: int32 [targets].
          times_ms: int64 [targets].

        Returns:
          One entry for each target; none without `model.loss.shown_again`.
        """
        if not self._shows_again:
            rows, times_ms = rows[:0], times_ms[:0]
        moments = tf.random.shuffle(times_ms, seed=self._seeds[2])
        is_there = tf.gather(self._rank, rows) < self.pool_sizes(moments)
        return ShownAgain(rows, moments, self.posterior(rows, moments), is_there)

    def catalogue(self, times_ms: tf.Tensor) -> Catalogue:
        """Return every item with its posterior as of one of the moments, int64 [moments], drawn at random.

        One moment for all: a posterior per pair of example and item would make the item vectors as many. Whatever
        an example sees of later events lies within its batch's spread in time, and over the batches as many
        examples see a past posterior as a future one.
        """
        moment = times_ms[tf.random.uniform([], 0, tf.size(times_ms), tf.int32, seed=self._seeds[1])]
        posterior = self.posterior(self._order, tf.fill(tf.shape(self._order), moment))
        return Catalogue(self._order, posterior, self._rank, moment)

    def pool_sizes(self, times_ms: tf.Tensor) -> tf.Tensor:
        """Count the items exposed (and visible) by each moment: int64 [moments] -> int32 [moments]."""
        before = tf.zeros_like(times_ms)
        if isinstance(self.posterior, AsOfPosterior):
            before = self.posterior.visible_before(times_ms)
        return tf.searchsorted(self._entered_at, before, side="left")

    def frequency(self, rows: tf.Tensor, times_ms: tf.Tensor) -> tf.Tensor:
        """Return how often items are drawn at moments for each click of a batch, float32 [candidates].

        A candidate is an item as it was at a moment. A clicked item is drawn as it was when it was clicked, most often
        while it is the talk of the day, and a second time as it was at any moment (`model.loss.shown_again`), by its
        share of all training clicks. By that share alone a candidate would count as rarer than it is just then, and the
        model would learn that what is clicked now is clicked less. The share of a moment alone is an estimate, whose
        errors the other bounds from below (defensive mixture sampling, Hesterberg, Technometrics 1995).
        """
        of_training = tf.gather(self._frequency, rows)
        of_moment = of_training
        if isinstance(self.posterior, AsOfPosterior):
            of_moment = self.posterior.frequency(of_training, rows, times_ms)
        return of_training + of_moment if self._shows_again else of_moment

    def log_q(
        self,
        rows: tf.Tensor,
        frequency: tf.Tensor,
        *,
        is_there: tf.Tensor,
        batch_size: tf.Tensor,
        pool_sizes: tf.Tensor,
    ) -> tf.Tensor:
        """Return logQ of candidates, float32 [candidates]; see `log_expected_draws`.

        Args:
          rows: int32 [candidates].
          frequency: float32 [candidates], of `frequency`.
          is_there: bool [candidates], False where a candidate takes no part: its logQ hides it from any softmax.
          batch_size: int scalar, clicks of the batch.
          pool_sizes: int32 [draws].
        """
        log_q = log_expected_draws(
            frequency,
            batch_size=batch_size,
            ranks=tf.gather(self._rank, rows),
            pool_sizes=pool_sizes,
        )
        return tf.where(is_there, log_q, ABSENT)
