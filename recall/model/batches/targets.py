"""Finds what the clicks of a batch are ranked against: sampled candidates, or the whole catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from recall.config.objectives import LossConfig
from recall.model.batches.dataset import Batch
from recall.model.batches.negatives import ABSENT, NegativeSampler

_PER_CLICK = ("time_ms", "posterior", "trigger", "weight")
_PER_CANDIDATE = ("rows", "posterior", "frequency", "is_there", "log_q", "place", "sources")


class Targets(NamedTuple):
    """Hold the clicks that a batch is to predict."""

    items: tf.Tensor  # int32 [targets]
    times_ms: tf.Tensor  # int64 [targets]
    posterior: tf.Tensor  # float32 [targets, 4], as of the click
    triggers: tf.Tensor  # int32 [targets], -1 where there is none
    weights: tf.Tensor  # float32 [targets], how much each counts among the targets
    owners: tf.Tensor  # int32 [targets], row of the batch that each is of
    before: tf.Tensor  # int32 [targets], last position of that row's past that is strictly earlier, -1 for none

    @classmethod
    def of(cls, batch: Batch) -> Targets:
        """Find the targets of a batch of either layout."""
        if "history" in batch:
            items, owners = batch["item"], tf.range(tf.size(batch["item"]))
            before = tf.fill(tf.shape(owners), tf.shape(batch["history"])[1] - 1)
            time_ms, posterior, trigger, weight = (batch[name] for name in _PER_CLICK)
        else:
            mask = batch["is_target"]
            owners = tf.cast(tf.where(mask)[:, 0], tf.int32)
            items, before = tf.boolean_mask(batch["items"], mask), tf.boolean_mask(batch["before"], mask)
            time_ms, posterior, trigger, weight = (tf.boolean_mask(batch[name], mask) for name in _PER_CLICK)
        return cls(items, time_ms, posterior, trigger, weight, owners, before)

    def past(self, past: tf.Tensor) -> tf.Tensor:
        """Return what each target follows in its row: int32 [batch, time] -> int32 [targets, time], -1 for the rest."""
        is_past = tf.range(tf.shape(past)[1])[tf.newaxis, :] <= self.before[:, tf.newaxis]
        return tf.where(is_past, tf.gather(past, self.owners), -1)


class RankedAgainst(NamedTuple):
    """Hold the candidates of the targets of a batch; one entry may stand for several occurrences.

    Drawn are: the items of the targets as they were when they were clicked, the same items as they were at another
    moment, and the uniform negatives.
    """

    rows: tf.Tensor  # int32 [candidates]
    posterior: tf.Tensor  # float32 [candidates, width], with the fresh evidence
    own: tf.Tensor  # int32 [targets], place of each target among the candidates
    pool_sizes: tf.Tensor  # int32, sizes of the pools of exposed items: of each draw, or of each target
    frequency: tf.Tensor | None  # float32 [candidates], expected draws for each click of the batch, as of its moment
    is_there: tf.Tensor | None  # bool [candidates], whether it takes part
    log_q: tf.Tensor | None  # float32 [candidates]
    distinct: tf.Tensor  # int32 [distinct], each item of the batch once, those of the query side included
    place: tf.Tensor | None  # int32 [candidates], places in `distinct`; None where it is `rows` itself
    sources: tf.Tensor | None = None  # int32 [candidates, last], of `AsOfAudience`, where the model reads audiences
    source_places: tf.Tensor | None = None  # int32 [candidates * last], places of these in `distinct`

    def first(self, count: tf.Tensor) -> RankedAgainst:
        """Return the first `count` candidates alone."""
        parts = {name: part[:count] for name in _PER_CANDIDATE if (part := getattr(self, name)) is not None}
        if self.source_places is not None:
            parts["source_places"] = self.source_places[: count * tf.shape(self.sources)[1]]
        return self._replace(**parts)


def candidates_of(
    targets: Targets,
    asked_by: Sequence[tf.Tensor],
    *,
    sampler: NegativeSampler,
    loss: LossConfig,
    shown_ms: tf.Tensor | None = None,
    beside: tuple[tf.Tensor, tf.Tensor] | None = None,
) -> tuple[RankedAgainst, list[tf.Tensor]]:
    """Return the candidates of targets, and the places of the items of `asked_by` (-1: none) in `distinct`.

    Behind the candidates stand the items of `beside`, int32 [n] rows at int64 [n] moments, which are encoded as
    candidates are and take no part in their softmax. With `shown_ms`, int64 [targets], the items of the targets are
    shown as of other moments than their clicks. Both with `softmax: sampled` alone.
    """
    count = tf.size(targets.items)
    if loss.softmax == "full":
        catalogue = sampler.catalogue(targets.times_ms)
        own = tf.gather(catalogue.places, targets.items)
        pool_sizes = sampler.pool_sizes(targets.times_ms)
        asking = [tf.gather(catalogue.places, tf.maximum(part, 0)) for part in asked_by]
        rows = catalogue.rows
        ranked = RankedAgainst(
            rows,
            catalogue.posterior,
            own,
            pool_sizes,
            frequency=None,
            is_there=None,
            log_q=None,
            distinct=rows,
            place=None,
        )
        if sampler.audience:
            sources = sampler.audience(rows, tf.fill(tf.shape(rows), catalogue.moment_ms))
            places = tf.gather(catalogue.places, tf.maximum(tf.reshape(sources, [-1]), 0))
            ranked = ranked._replace(sources=sources, source_places=places)
        return ranked, asking
    draws = loss.uniform_negatives if loss.negatives != "none" else 0
    # Negative j is drawn as of the moment of example j mod batch, and brings its posterior of that moment.
    moments = tf.gather(targets.times_ms, tf.range(draws) % tf.maximum(count, 1))
    negatives = sampler.draw(moments)
    again = sampler.shown_again(targets.items, targets.times_ms)
    beside_rows, beside_ms = (targets.items[:0], targets.times_ms[:0]) if beside is None else beside
    rows = tf.concat([targets.items, again.rows, negatives.rows, beside_rows], axis=0)  # [candidates]
    own_posterior = (
        sampler.posterior.with_fresh(targets.posterior, targets.items, targets.times_ms)
        if shown_ms is None
        else sampler.posterior(targets.items, shown_ms)
    )
    posteriors = [own_posterior, again.posterior, negatives.posterior]
    if beside is not None:
        posteriors.append(sampler.posterior(beside_rows, beside_ms))
    posterior = tf.concat(posteriors, axis=0)  # [candidates, width]
    always = tf.ones_like(targets.items, tf.bool), tf.ones_like(negatives.rows, tf.bool)
    is_there = tf.concat([always[0], again.is_there, always[1], tf.zeros_like(beside_rows, tf.bool)], axis=0)
    times_ms = tf.concat([targets.times_ms, again.times_ms, moments, beside_ms], axis=0)
    sources = None
    if sampler.audience:
        own_ms = targets.times_ms if shown_ms is None else shown_ms
        sources = sampler.audience(rows, tf.concat([own_ms, times_ms[count:]], axis=0))
    asked_by = [*asked_by, *([] if sources is None else [tf.reshape(sources, [-1])])]
    # Padding points at a row of the batch: the optimizer of the tables would move a row that only padding names.
    asked_by = [tf.where(part >= 0, part, rows[0]) for part in asked_by]
    distinct, places = tf.unique(tf.concat([rows, *asked_by], axis=0))
    place, *asking = tf.split(places, [tf.size(rows), *map(tf.size, asked_by)])
    frequency = sampler.frequency(rows, times_ms)
    log_q = tf.where(is_there, 0.0, ABSENT)
    if loss.logq:
        log_q = sampler.log_q(rows, frequency, is_there=is_there, batch_size=count, pool_sizes=negatives.pool_sizes)
    own = tf.range(count)
    ranked = RankedAgainst(rows, posterior, own, negatives.pool_sizes, frequency, is_there, log_q, distinct, place)
    if sources is not None:
        *asking, source_places = asking
        ranked = ranked._replace(sources=sources, source_places=source_places)
    return ranked, asking
