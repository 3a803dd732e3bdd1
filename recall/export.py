"""What leaves training: SavedModels of both sides, and the table of item vectors."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf

from recall.artifacts import HIDDEN_MANIFEST, publish, read_manifest
from recall.model import RecallModel
from recall.prepared import PreparedData
from recall.towers.features import Features

_VECTORS = "vectors.parquet"


class QueryModule(tf.Module):
    """The query side by itself: ids in, query vectors out. Items and users travel with it.

    Signatures (those of towers that the model has; the first is the default):
      user: user_id string [batch], history string [batch, time] (item ids, oldest first, padded with "") -> vector
        float32 [batch, width]. Unknown users have no profile; unknown items are left out of the history.
      trigger: item_id string [batch] -> vector float32 [batch, width]. Item ids have to be known.
    """

    def __init__(self, model: RecallModel, item_ids: pa.StringArray) -> None:
        super().__init__()
        keys = tf.constant(item_ids.to_pylist(), tf.string)
        rows = tf.lookup.KeyValueTensorInitializer(keys, tf.range(len(item_ids), dtype=tf.int32))
        self._item_rows = tf.lookup.StaticHashTable(rows, default_value=-1)
        self._user_rows = model.user_rows.table
        self._features = [*model.item_table.variables.values(), *model.user_table.variables.values()]
        self._layers = [layer for layer in (model.items, model.user_tower, model.trigger_tower) if layer]
        self._model = _Untracked(model)
        self._length = model.config.data.history

        self.functions: dict[str, tf.types.experimental.GenericFunction] = {}
        if model.user_tower:
            user_id = tf.TensorSpec([None], tf.string, name="user_id")
            history = tf.TensorSpec([None, None], tf.string, name="history")
            self.functions["user"] = tf.function(self._user, input_signature=[user_id, history])
        if model.trigger_tower:
            item_id = tf.TensorSpec([None], tf.string, name="item_id")
            self.functions["trigger"] = tf.function(self._trigger, input_signature=[item_id])

    def _user(self, user_id: tf.Tensor, history: tf.Tensor) -> dict[str, tf.Tensor]:
        rows = self._item_rows.lookup(history)  # [batch, time]
        known = tf.ragged.boolean_mask(rows, rows >= 0)[:, -self._length :]
        padded = tf.ensure_shape(known.to_tensor(-1), [None, None])
        return {"vector": self._model.it.user_queries(self._user_rows.lookup(user_id), padded)}

    def _trigger(self, item_id: tf.Tensor) -> dict[str, tf.Tensor]:
        rows = self._item_rows.lookup(item_id)
        check = tf.debugging.assert_non_negative(rows, "trigger: an item id is not in the catalogue")
        with tf.control_dependencies([check]):
            return {"vector": self._model.it.trigger_queries(tf.identity(rows))}


class ItemModule(tf.Module):
    """The item side by itself: encoded features and posterior in, vector out; for items old and new.

    Signature: one input per encoded column (shapes as in `FeatureTable`) and `posterior` float32 [items, 4]
    (exposures, clicks, smoothed CTR, hours since first exposure) -> vector float32 [items, width],
    behaviour_share float32 [items] (NaN without a gate). `new_posterior` float32 [4] is that of an unseen item.
    """

    def __init__(self, model: RecallModel) -> None:
        super().__init__()
        self.new_posterior = tf.Variable(model.items.new_posterior, trainable=False)
        self._layers = [model.items]
        self._model = _Untracked(model)
        features = {
            name: tf.TensorSpec([None, *variable.shape[1:]], variable.dtype, name=name)
            for name, variable in model.item_table.variables.items()
        }
        for column in model.item_table.columns:
            if column.kind == "codes":
                features[column.name] = tf.TensorSpec([None, None], tf.int32, name=column.name)
        posterior = tf.TensorSpec([None, 4], tf.float32, name="posterior")
        self.vectors = tf.function(self._vectors, input_signature=[features, posterior])

    def _vectors(self, features: Features, posterior: tf.Tensor) -> dict[str, tf.Tensor]:
        result = self._model.it.item_vectors_of(features, posterior)
        return {"vector": result.vector, "behaviour_share": result.share_or_nan()}


class _Untracked:
    """Keeps the Keras model, its data set's tables and its optimizers out of a SavedModel."""

    def __init__(self, model: RecallModel) -> None:
        self.it = model


def export_saved_models(model: RecallModel, prepared: PreparedData, directory: Path) -> None:
    """Writes query/ and item/ SavedModels and encoder/, which encodes new items, into a folder."""
    logger = logging.getLogger("tensorflow")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it warns that layers cannot be rebuilt from Keras configs, which nobody asks for
    try:
        _save(model, prepared, directory)
    finally:
        logger.setLevel(level)


def _save(model: RecallModel, prepared: PreparedData, directory: Path) -> None:
    query = QueryModule(model, prepared.item_ids)
    signatures = dict(query.functions)
    signatures["serving_default"] = next(iter(query.functions.values()))
    tf.saved_model.save(query, str(directory / "query"), signatures=signatures)
    prepared.item_encoder.save(directory / "encoder")
    item = ItemModule(model)
    tf.saved_model.save(item, str(directory / "item"), signatures={"serving_default": item.vectors})


@dataclass(frozen=True)
class ItemVectorTable:
    """Item vectors of the model, aligned with the catalogue; an index adds its cold bias to their last dimension."""

    ids: pa.StringArray  # [items]
    vectors: npt.NDArray[np.float32]  # [items, width]
    behaviour_share: npt.NDArray[np.float32]  # [items], NaN without a gate
    exposures: npt.NDArray[np.int64]  # [items], that the vectors were made with
    fingerprint: str  # of the model

    def write(self, directory: Path) -> None:
        """Publishes the table as Parquet: item_id, vector, behaviour_share, exposures."""
        flat = pa.array(np.ascontiguousarray(self.vectors).reshape(-1))
        table = pa.table(
            {
                "item_id": self.ids,
                "vector": pa.FixedSizeListArray.from_arrays(flat, self.vectors.shape[1]),
                "behaviour_share": pa.array(self.behaviour_share, from_pandas=True),
                "exposures": self.exposures,
            }
        )
        manifest = {"fingerprint": self.fingerprint, "items": len(table)}
        with publish(directory, manifest=manifest, name=HIDDEN_MANIFEST) as scratch:
            pq.write_table(table, scratch / _VECTORS)

    @classmethod
    def read(cls, directory: Path) -> ItemVectorTable:
        """Raises ArtifactError if the table is missing or damaged."""
        manifest = read_manifest(directory, made_by="recall vectors", verify=True, name=HIDDEN_MANIFEST)
        table = pq.read_table(directory / _VECTORS)
        vectors = table["vector"].combine_chunks()
        return cls(
            ids=table["item_id"].combine_chunks().cast(pa.string()),
            vectors=vectors.flatten().to_numpy().reshape(len(table), -1),
            behaviour_share=table["behaviour_share"].to_numpy(zero_copy_only=False).astype(np.float32),
            exposures=table["exposures"].to_numpy(),
            fingerprint=manifest["fingerprint"],
        )
