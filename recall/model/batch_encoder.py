"""Encodes a batch for its objectives: ranked against candidates, each distinct item once, then the queries."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from recall.config.model import ModelConfig
from recall.data.further_histories import PREFIX
from recall.model.batches.cold_simulation import ColdSimulator, Shown
from recall.model.batches.dataset import Batch
from recall.model.batches.exposure_weights import weighed_by_exposures
from recall.model.batches.negatives import NegativeSampler
from recall.model.batches.own_negatives import Refused, log_exposures
from recall.model.batches.seen import Seen
from recall.model.batches.targets import RankedAgainst, Targets, candidates_of
from recall.model.content_term.term import split_tokens
from recall.model.distributed.shared_candidates import of_all_workers, of_one_worker
from recall.model.distributed.workers import Workers
from recall.model.layers.features import Features, FeatureTable
from recall.model.layers.gathering import gather_rows
from recall.model.objectives.objective import Asking, EncodedBatch, OwnNegatives, Ranking
from recall.model.towers.audience import Audience
from recall.model.towers.item import ItemSide, ItemVectors
from recall.model.towers.query import TriggerTower
from recall.model.user_side import UserSide


class BatchEncoder:
    """Turn a batch into vectors: unique -> gather -> dense part, so that each distinct item is encoded once.

    Args:
      config: of the model.
      items: the item side.
      table: features of the catalogue.
      users: the user side, if users ask.
      triggers: the trigger tower, if triggers ask.
      sampler: draws negatives.
      simulator: hides ids in training, if the model asks for it.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        items: ItemSide,
        table: FeatureTable,
        users: UserSide | None,
        triggers: TriggerTower | None,
        sampler: NegativeSampler,
        simulator: ColdSimulator | None,
    ) -> None:
        self._config, self._items, self._table = config, items, table
        self._users, self._triggers = users, triggers
        self._sampler, self._simulator = sampler, simulator

    def __call__(
        self,
        batch: Batch,
        *,
        needs: frozenset[Asking],
        temperature: tf.Tensor,
        training: bool,
        dropout: bool,
        workers: Workers | None = None,
    ) -> EncodedBatch:
        """Encode a batch of either layout.

        Args:
          batch: of `training_dataset`.
          needs: the towers whose queries are asked.
          temperature: float32 scalar, what inner products are divided by.
          training: whether the cold simulation is on.
          dropout: whether dropout is on in the towers.
          workers: that train together, if there are several.
        """
        found = self._ranked_against(batch, needs, workers, training=training)
        candidates, pasts = found.candidates, found.pasts
        shown, features, tokens = self._shown(candidates, found.is_younger, training=training, dropout=dropout)
        vectors, known, refused = self._items.vectors(*shown, training=dropout), shown.content.known, None
        if found.refused is not None:
            count = tf.size(candidates.rows) - tf.size(found.refused.rows)
            refused = _own_negatives(found.refused, vectors, candidates, count)
            candidates, known = candidates.first(count), known[:count]
            vectors = vectors.first(count)
            features = {name: values[:count] for name, values in features.items()}
        ranked = vectors
        ranking = Ranking(candidates, found.seen, temperature, self._config)
        if workers is not None:
            ranking, ranked = of_all_workers(
                ranking, vectors, found.targets, past=pasts[0], sampler=self._sampler, workers=workers
            )
        history = user_queries = trigger_queries = None
        if self._users and "user" in needs:
            history, *further = (
                gather_rows(tokens, tf.reshape(places, tf.shape(past)))
                for places, past in zip(found.asking, pasts, strict=False)
            )
            shared = dict(zip(self._users.shared, further, strict=True))
            user_queries = self._users.batch_queries(batch, found.targets, history, shared, training=dropout)
        if self._triggers and "trigger" in needs:
            trigger_queries = self._triggers(gather_rows(tokens, found.asking[-1]), training=dropout)
        return EncodedBatch(
            batch=batch,
            targets=found.targets,
            features=features,
            known=known,  # no id is known that was hidden
            vectors=vectors,
            candidates=candidates,
            own=candidates.own,
            ranking=ranking,
            ranked=ranked,
            history=history,
            user_queries=user_queries,
            trigger_queries=trigger_queries,
            refused=refused,
            training=training,
            gathered=_alone if workers is None else workers.gathered,
            workers=1 if workers is None else workers.count,
        )

    def _ranked_against(
        self, batch: Batch, needs: frozenset[Asking], workers: Workers | None, *, training: bool
    ) -> _Found:
        """Find the clicks of a batch, their candidates, and the places of all items of the query side."""
        loss = self._config.loss
        targets = weighed_by_exposures(Targets.of(batch), power=loss.exposure_power)
        pasts = [batch["history"] if "history" in batch else batch["items"]]  # [batch, time]
        pasts += [batch[PREFIX + name] for name in (self._users.shared if self._users else ())]
        asked_by = [tf.reshape(past, [-1]) for past in pasts] if "user" in needs or loss.mask_seen else []
        asked_by += [targets.triggers] if "trigger" in needs else []
        drawn = loss if workers is None else of_one_worker(loss, workers)
        refused = Refused.of(batch, targets, most=loss.refused.count) if loss.refused.count else None
        younger = None
        if training and self._simulator and self._simulator.makes_younger:
            younger = self._simulator.younger(targets.items, targets.times_ms)
        candidates, asking = candidates_of(
            targets,
            asked_by,
            shown_ms=younger and younger.times_ms,
            sampler=self._sampler,
            loss=drawn,
            beside=refused and (tf.reshape(refused.rows, [-1]), tf.reshape(refused.times_ms, [-1])),
        )
        seen = None
        if loss.mask_seen:
            places = tf.where(pasts[0] >= 0, tf.reshape(asking[0], tf.shape(pasts[0])), -1)
            seen = Seen(targets.past(places), tf.size(candidates.distinct), candidates.place)
        return _Found(targets, candidates, refused, seen, pasts, asking, younger and younger.is_younger)

    def _shown(
        self, candidates: RankedAgainst, is_younger: tf.Tensor | None, *, training: bool, dropout: bool
    ) -> tuple[Shown, Features, tf.Tensor]:
        """Return the candidates as the step shows them, their features, and tokens of the distinct items."""
        simulator = self._simulator if training else None
        features = self._table.gather(candidates.distinct)
        content = self._items.content_of(features, training=dropout)
        tokens = self._items.tokens(simulator.asked_with(content, candidates.distinct) if simulator else content)
        if candidates.place is not None:
            features = self._table.gather(candidates.rows)
            content = content.at(candidates.place)
        posterior = candidates.posterior
        if candidates.sources is not None and candidates.source_places is not None:
            plain, _ = split_tokens(tokens, self._config.dim)
            of_sources = gather_rows(plain, tf.reshape(candidates.source_places, tf.shape(candidates.sources)))
            audience = Audience.of(of_sources, candidates.sources >= 0)
            posterior = tf.concat([posterior, audience.columns], axis=1)
        shown = Shown(content, features, posterior)
        if simulator:
            shown = simulator.candidates(*shown, candidates.rows, is_younger)
        return shown, features, tokens


class _Found(NamedTuple):
    """Hold the clicks of a batch and the items that they are ranked against."""

    targets: Targets
    candidates: RankedAgainst  # the refused items last
    refused: Refused | None
    seen: Seen | None
    pasts: list[tf.Tensor]  # int32 [batch, time] each: clicks, then further histories of the catalogue's items
    asking: list[tf.Tensor]  # places among the distinct items: of each of `pasts`, then of the triggers
    is_younger: tf.Tensor | None  # bool [targets], see `ColdSimulator.younger`


def _own_negatives(refused: Refused, vectors: ItemVectors, ranked: RankedAgainst, count: tf.Tensor) -> OwnNegatives:
    """Return the refused items with their vectors, which stand behind the `count` candidates."""
    log_q, shape = log_exposures(ranked.posterior), tf.shape(refused.rows)
    return OwnNegatives(
        tf.reshape(vectors.vector[count:], [*tf.unstack(shape), vectors.vector.shape[1]]),
        refused.is_there,
        log_q=tf.reshape(log_q[count:], shape),
        target_log_q=tf.gather(log_q, ranked.own),
    )


def _alone(*parts: tf.Tensor) -> list[tf.Tensor]:
    """Return the rows of the only worker."""
    return list(parts)
