"""Shows items in training as they would look if they were new."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from recall.config.objectives import ColdSimulation
from recall.core.arrays import Float32s, Int32s, Int64s
from recall.data.features.vocabulary import OUT_OF_VOCABULARY
from recall.data.posterior import PosteriorHistory
from recall.data.prepared import PreparedData
from recall.model.layers.features import Features
from recall.model.randomness import op_seed
from recall.model.towers.item import ItemContent, ItemSide


class Shown(NamedTuple):
    """Hold candidates as a step shows them."""

    content: ItemContent
    features: Features  # [candidates, ...]
    posterior: tf.Tensor  # float32 [candidates, width]


YOUNG = (1, 3, 10)
"""The clicks after which items are shown as younger than they were."""


class Younger(NamedTuple):
    """Hold the moments as of which clicked items are shown."""

    times_ms: tf.Tensor  # int64 [targets]
    is_younger: tf.Tensor  # bool [targets], whether that is earlier than the click


class ColdSimulator:
    """Hide the ids of some items of a batch, as `ColdSimulation` asks.

    With an id goes what others of its features learned from that item alone. The embedding of an author with one item
    is a second id of the item: with it in place the simulation would teach to trust all authors that much, and items
    that are new indeed, by authors of others, would be ranked by how popular those are. So the code of each feature of
    the behaviour tower is hidden with the id, with a probability of the item's share in the code's training clicks: as
    often as what it has learned is the item's own.

    Args:
      prepared: the data.
      items: what makes vectors of the items.
      settings: how many are hidden.
    """

    def __init__(self, prepared: PreparedData, items: ItemSide, settings: ColdSimulation) -> None:
        self._items, self._settings = items, settings
        self._seeds = {draw: op_seed() for draw in ("asked", "faded", "brand_new", "unseen")}
        self._young_ms: tf.Tensor | None = None
        if settings.younger:
            self._seeds |= {draw: op_seed() for draw in ("younger", "young_clicks")}
            known_at = moments_of_clicks(prepared.posterior_history, YOUNG, items=len(prepared.item_ids))
            self._young_ms = tf.constant(known_at)
        self._exposures = tf.constant(prepared.learned_posterior.exposures.astype(np.float32))
        columns = items.context.columns if items.context and settings.own_share else ()
        self._own_shares = {
            column.name: tf.constant(
                own_shares(np.asarray(prepared.items[column.name].combine_chunks()), prepared.sampling_counts)
            )
            for column in columns
            if column.kind == "code"
        }
        self._own_seeds = {name: op_seed() for name in self._own_shares}

    def asked_with(self, content: ItemContent, rows: tf.Tensor) -> ItemContent:
        """Hide ids of the items of histories and triggers, int32 [items], by their exposures in all of the training."""
        return self._items.hide_ids(content, self._fades(tf.gather(self._exposures, rows), "asked"))

    @property
    def makes_younger(self) -> bool:
        """Tell whether some clicked items are shown as of an earlier moment."""
        return self._young_ms is not None

    def younger(self, rows: tf.Tensor, times_ms: tf.Tensor) -> Younger:
        """Choose clicked items, int32 [targets], that are shown as of an earlier moment than their int64 [targets]."""
        count = tf.shape(rows)
        is_chosen = tf.random.uniform(count, seed=self._seeds["younger"]) < self._settings.younger
        which = tf.random.uniform(count, 0, len(YOUNG), tf.int32, seed=self._seeds["young_clicks"])
        young_ms = tf.gather_nd(self._young_ms, tf.stack([rows, which], axis=1))
        is_younger = is_chosen & (young_ms < times_ms)
        return Younger(tf.where(is_younger, young_ms, times_ms), is_younger)

    def candidates(
        self,
        content: ItemContent,
        features: Features,
        posterior: tf.Tensor,
        rows: tf.Tensor,
        is_younger: tf.Tensor | None = None,
    ) -> Shown:
        """Hide ids of candidates, int32 [candidates], by their posterior as of the example, and of the younger ones.

        Args:
          content: content of the candidates.
          features: features of the same.
          posterior: float32 [candidates, width].
          rows: int32 [candidates].
          is_younger: bool [targets], of the first candidates, see `younger`.
        """
        settings = self._settings
        is_new, is_unseen = (
            tf.random.uniform(tf.shape(rows), seed=self._seeds[draw]) < getattr(settings, draw)
            for draw in ("brand_new", "unseen")
        )  # both [candidates]
        is_hidden = is_new | is_unseen | self._fades(posterior[:, 0], "faded")
        if is_younger is not None:
            others = tf.zeros([tf.size(rows) - tf.size(is_younger)], tf.bool)
            is_hidden |= tf.concat([is_younger, others], axis=0)
        posterior = tf.where(is_new[:, tf.newaxis], self._items.as_new(posterior), posterior)
        shown = dict(features)
        for name, own_share in self._own_shares.items():
            draws = tf.random.uniform(tf.shape(rows), seed=self._own_seeds[name])  # [candidates]
            is_own = draws < tf.gather(own_share, rows)  # [candidates]
            shown[name] = tf.where(is_hidden & is_own, OUT_OF_VOCABULARY, features[name])
        return Shown(self._items.hide_ids(content, is_hidden), shown, posterior)

    def _fades(self, exposures: tf.Tensor, draw: str) -> tf.Tensor:
        probability = self._settings.max_probability / (1.0 + exposures / self._settings.half_exposures)
        return tf.random.uniform(tf.shape(exposures), seed=self._seeds[draw]) < probability


def moments_of_clicks(history: PosteriorHistory, numbers: Sequence[int], *, items: int) -> Int64s:
    """Find when the first so many clicks of each item had become known.

    Args:
      history: the counts; it has a clock.
      numbers: of clicks, each at least 1.
      items: size of the catalogue.

    Returns:
      int64 [items, numbers], Unix milliseconds; the largest int64 where the item has fewer clicks, or where the moment
      lies in what is compacted of the history.
    """
    result = np.full((items, len(numbers)), np.iinfo(np.int64).max)
    for column, number in enumerate(numbers):
        entries = np.flatnonzero(history.clicks >= number)
        rows, first = np.unique(history.item[entries], return_index=True)
        found = history.bucket[entries[first]]
        is_known = np.full(len(rows), True) if history.base is None else found > history.base.bucket
        result[rows[is_known], column] = (found[is_known] + 1) * history.bucket_ms + history.delay_ms
    return result


def own_shares(codes: Int32s, clicks: Int64s) -> Float32s:
    """Return each item's share in the training clicks of its code.

    Args:
      codes: int32 [items], e.g. of their authors.
      clicks: int64 [items].

    Returns:
      float32 [items], 0 to 1; 0 where the code stands for no value in particular, or was never clicked.
    """
    of_codes = np.bincount(codes, weights=clicks)[codes]  # [items]
    return np.where(codes > OUT_OF_VOCABULARY, clicks / np.maximum(of_codes, 1), 0).astype(np.float32)
