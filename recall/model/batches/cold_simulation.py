"""Shows items in training as they would look if they were new."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from recall.config.objectives import ColdSimulation
from recall.core.arrays import Float32s, Int32s, Int64s
from recall.data.features.vocabulary import OUT_OF_VOCABULARY
from recall.data.prepared import PreparedData
from recall.model.layers.features import Features
from recall.model.randomness import op_seed
from recall.model.towers.item import ItemContent, ItemSide


class Shown(NamedTuple):
    """Hold candidates as a step shows them."""

    content: ItemContent
    features: Features  # [candidates, ...]
    posterior: tf.Tensor  # float32 [candidates, width]


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
        self._exposures = tf.constant(prepared.posterior("validation").exposures.astype(np.float32))
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

    def candidates(self, content: ItemContent, features: Features, posterior: tf.Tensor, rows: tf.Tensor) -> Shown:
        """Hide ids of candidates, int32 [candidates], by their posterior as of the example."""
        settings = self._settings
        is_new, is_unseen = (
            tf.random.uniform(tf.shape(rows), seed=self._seeds[draw]) < getattr(settings, draw)
            for draw in ("brand_new", "unseen")
        )  # both [candidates]
        is_hidden = is_new | is_unseen | self._fades(posterior[:, 0], "faded")
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
