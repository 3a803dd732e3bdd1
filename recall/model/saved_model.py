"""What leaves training: SavedModels of both sides, and the table of item vectors."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf

from recall.core.arrays import Float32s, Int64s
from recall.core.artifacts import HIDDEN_MANIFEST, publish, read_manifest
from recall.core.times import MS_PER_HOUR
from recall.data.features.vocabulary import FIRST_CODE, OUT_OF_VOCABULARY, Vocabulary
from recall.data.prepared import PreparedData
from recall.model.layers.features import Features, FeatureTable
from recall.model.numpy_user_tower import USER_ARRAYS, arrays_of_tower
from recall.model.recall_model import RecallModel

PROFILE = "user_"  # in front of inputs that are features of users: one of these, too, may be called history
USER_ENCODER = "user_encoder"
_VECTORS, _MODALITIES, _CODES = "vectors.parquet", "modality_weights", "code_vectors"


class QueryModule(tf.Module):
    """The query side by itself: ids in, query vectors out. Items and users travel with it.

    Signatures (those of towers that the model has; the first is the default):
      user: user_id string [batch], history string [batch, time] (item ids, oldest first, padded with "") -> vector
        float32 [batch, width], or [batch, interests, width] where `model.interests` asks for several: an item's score
        is then the largest of its inner products. Unknown users have no profile; unknown items are left out of the
        history.
      user_in_full: as user, with everything else that the model reads of a user, which `user` takes for unknown or
        empty. With `model.history_time`: history_age_hours float32 [batch, time], how long ago each item was clicked;
        negative or NaN is unknown. Of each of `data.histories`: history_NAME string [batch, its time], as history.
        The signature is there if the model reads either.
      user_features: as user_in_full for users of whom the model knows nothing: in the place of user_id their encoded
        features, user_NAME of the shapes that `FeatureTable` describes. history_age_hours and history_NAME are inputs
        where the model reads them.
      student: as user, by the model's student. It reads the items' tokens from a table that is filled here, where
        `user` makes them of the items' features each time. student_features: likewise,
        with user_NAME in the place of user_id.
      trigger: item_id string [batch] -> vector float32 [batch, width]. Item ids have to be known.
    """

    def __init__(
        self, model: RecallModel, item_ids: pa.StringArray, vocabularies: Mapping[str, Vocabulary] | None = None
    ) -> None:
        super().__init__()
        keys = tf.constant(item_ids.to_pylist(), tf.string)
        rows = tf.lookup.KeyValueTensorInitializer(keys, tf.range(len(item_ids), dtype=tf.int32))
        self._item_rows = tf.lookup.StaticHashTable(rows, default_value=-1)
        self._user_rows = model.user_rows.table
        self._features = [*model.item_table.variables.values(), *model.user_table.variables.values()]
        layers = (model.items, model.user_tower, model.student, model.trigger_tower)
        self._layers = [layer for layer in layers if layer]
        self._model = _Untracked(model)
        self._length = model.config.data.history
        self._codes = {name: _lookup(vocabulary) for name, vocabulary in (vocabularies or {}).items()}

        self.functions: dict[str, tf.types.experimental.GenericFunction] = {}
        if model.user_tower:
            user_id = tf.TensorSpec([None], tf.string, name="user_id")
            history = tf.TensorSpec([None, None], tf.string, name="history")
            self.functions["user"] = tf.function(self._user, input_signature=[user_id, history])
            inputs = {}
            if model.user_tower.reads_times:
                inputs["history_age_hours"] = tf.TensorSpec([None, None], tf.float32, name="history_age_hours")
            for name in model.further_histories:
                inputs[f"history_{name}"] = tf.TensorSpec([None, None], tf.string, name=f"history_{name}")
            if inputs:
                self.functions["user_in_full"] = tf.function(
                    self._user_in_full, input_signature=[{"user_id": user_id, "history": history, **inputs}]
                )
            profile = {PROFILE + name: spec for name, spec in _specs(model.user_table, prefix=PROFILE).items()}
            self.functions["user_features"] = tf.function(
                self._user_by_features, input_signature=[{"history": history, **inputs, **profile}]
            )
        if model.student:
            self._tokens = tf.Variable(_all_tokens(model), trainable=False, name="tokens")
            self.functions["student"] = tf.function(self._student, input_signature=[user_id, history])
            self.functions["student_features"] = tf.function(
                self._student_by_features, input_signature=[{"history": history, **profile}]
            )
        if model.trigger_tower:
            item_id = tf.TensorSpec([None], tf.string, name="item_id")
            self.functions["trigger"] = tf.function(self._trigger, input_signature=[item_id])

    def _user(self, user_id: tf.Tensor, history: tf.Tensor) -> dict[str, tf.Tensor]:
        rows = self._item_rows.lookup(history)  # [batch, time]
        padded = self._last(rows, rows >= 0)
        return {"vector": self._model.it.user_queries(self._user_rows.lookup(user_id), padded)}

    def _student(self, user_id: tf.Tensor, history: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._student_of(self._user_rows.lookup(user_id), history)

    def _student_by_features(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return self._student_of(self._profile(inputs), inputs["history"])

    def _student_of(self, users: tf.Tensor | Features, history: tf.Tensor) -> dict[str, tf.Tensor]:
        rows = self._item_rows.lookup(history)  # [batch, time]
        padded = self._last(rows, rows >= 0)
        tokens = tf.gather(self._tokens, tf.maximum(padded, 0))  # [batch, time, dim]
        lengths = tf.reduce_sum(tf.cast(padded >= 0, tf.int32), axis=1)
        return {"vector": self._model.it.student_queries_of(users, tokens, lengths)}

    def _user_in_full(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return self._user_of(self._user_rows.lookup(inputs["user_id"]), inputs)

    def _user_by_features(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return self._user_of(self._profile(inputs), inputs)

    def _profile(self, inputs: Mapping[str, tf.Tensor]) -> Features:
        return {name: inputs[PROFILE + name] for name in self._model.it.user_table.variables}

    def _user_of(self, users: tf.Tensor | Features, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Queries of rows of the user table, or of features, from everything that the model reads beside."""
        rows = self._item_rows.lookup(inputs["history"])  # [batch, time]
        padded, ages = self._last(rows, rows >= 0), None
        if "history_age_hours" in inputs:
            hours = inputs["history_age_hours"]
            age_ms = tf.where(hours >= 0, tf.cast(tf.round(hours * MS_PER_HOUR), tf.int64), -1)  # NaN is not >= 0
            ages = self._last(age_ms, rows >= 0)
        further = {}
        for name in self._model.it.further_histories:
            codes = self._codes.get(name, self._item_rows).lookup(inputs[f"history_{name}"])  # [batch, time]
            further[name] = self._last(codes, codes >= 0, length=self._model.it.history_lengths[name])
        return {"vector": self._model.it.user_queries(users, padded, ages, further)}

    def _last(self, values: tf.Tensor, known: tf.Tensor, *, length: int | None = None) -> tf.Tensor:
        """The last known entries of each row, as many as the model reads, padded at the end with -1."""
        kept = tf.ragged.boolean_mask(values, known)[:, -(length or self._length) :]
        return tf.ensure_shape(kept.to_tensor(-1), [None, None])

    def _trigger(self, item_id: tf.Tensor) -> dict[str, tf.Tensor]:
        rows = self._item_rows.lookup(item_id)
        check = tf.debugging.assert_non_negative(rows, "trigger: an item id is not in the catalogue")
        with tf.control_dependencies([check]):
            return {"vector": self._model.it.trigger_queries(tf.identity(rows))}


def _all_tokens(model: RecallModel, *, batch_size: int = 8192) -> Float32s:
    """`RecallModel.item_tokens` of the whole catalogue, [items, dim]."""
    rows = tf.range(model.item_table.size)[:, tf.newaxis]  # [items, 1]
    starts = range(0, model.item_table.size, batch_size)
    return np.concatenate([model.item_tokens(rows[start : start + batch_size])[:, 0] for start in starts])


def _specs(table: FeatureTable, *, prefix: str = "") -> dict[str, tf.TensorSpec]:
    """What rows that a table lacks look like, by column; sets of codes may be longer than the table's."""
    specs = {}
    for column in table.columns:
        variable = table.variables[column.name]
        shape = [None, None] if column.kind == "codes" else [None, *variable.shape[1:]]
        specs[column.name] = tf.TensorSpec(shape, variable.dtype, name=prefix + column.name)
    return specs


def _lookup(vocabulary: Vocabulary) -> tf.lookup.StaticHashTable:
    """Item ids of a domain of its own -> codes; "" is padding (-1), an id that is not listed out of vocabulary."""
    keys = tf.constant(["", *vocabulary.values.to_pylist()], tf.string)
    codes = tf.constant([-1, *range(FIRST_CODE, vocabulary.size)], tf.int32)
    return tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, codes), default_value=OUT_OF_VOCABULARY)


class ItemModule(tf.Module):
    """The item side by itself: encoded features and posterior in, vector out; for items old and new.

    Signature: one input per encoded column (shapes as in `FeatureTable`) and `posterior` float32 [items, 4]
    (exposures, clicks, smoothed CTR, hours since first exposure) -> vector float32 [items, width], or [items, codes,
    width] where `model.item_codes` puts several into the index: the best counts; behaviour_share float32 [items] (NaN
    without a gate). `new_posterior` float32 [4] is that of an unseen item.
    Structures with a meta tower have a second signature, `meta`: the encoded columns -> vector float32 [items, dim] of
    unit length, what the meta tower says of their content. Where the model weighs modalities, `modalities` tells how
    much: weights float32 [items, modalities] and names string [modalities].
    """

    def __init__(self, model: RecallModel) -> None:
        super().__init__()
        self.new_posterior = tf.Variable(model.items.new_posterior, trainable=False)
        self._layers = [model.items]
        self._model = _Untracked(model)
        features = _specs(model.item_table)
        posterior = tf.TensorSpec([None, 4], tf.float32, name="posterior")
        self.vectors = tf.function(self._vectors, input_signature=[features, posterior])
        self.functions = {"serving_default": self.vectors}
        if model.config.model.structure in ("gated", "base", "meta_only"):
            self.meta = tf.function(self._meta, input_signature=[features])
            self.functions["meta"] = self.meta
        if model.items.modalities:
            self.modalities = tf.function(self._modalities, input_signature=[features])
            self.functions["modalities"] = self.modalities

    def _vectors(self, features: Features, posterior: tf.Tensor) -> dict[str, tf.Tensor]:
        result = self._model.it.item_vectors_of(features, posterior)
        return {"vector": self._model.it.items.served(result), "behaviour_share": result.share_or_nan()}

    def _meta(self, features: Features) -> dict[str, tf.Tensor]:
        return {"vector": tf.math.l2_normalize(self._model.it.items.content_of(features).meta, axis=-1)}

    def _modalities(self, features: Features) -> dict[str, tf.Tensor]:
        items = self._model.it.items
        return {"weights": items.modality_weights(features), "names": tf.constant(items.modalities)}


class _Untracked:
    """Keeps the Keras model, its data set's tables and its optimizers out of a SavedModel."""

    def __init__(self, model: RecallModel) -> None:
        self.it = model


def export_saved_models(model: RecallModel, prepared: PreparedData, directory: Path) -> None:
    """Writes query/ and item/ SavedModels, and encoder/ and user_encoder/, which encode new items and users."""
    logger = logging.getLogger("tensorflow")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it warns that layers cannot be rebuilt from Keras configs, which nobody asks for
    try:
        _save(model, prepared, directory)
    finally:
        logger.setLevel(level)


def _save(model: RecallModel, prepared: PreparedData, directory: Path) -> None:
    query = QueryModule(model, prepared.item_ids, prepared.history_vocabularies)
    signatures = dict(query.functions)
    signatures["serving_default"] = next(iter(query.functions.values()))
    tf.saved_model.save(query, str(directory / "query"), signatures=signatures)
    prepared.item_encoder.save(directory / "encoder")
    users, items = prepared.user_ids.to_pylist(), prepared.item_ids.to_pylist()
    if arrays := arrays_of_tower(model, lambda: _all_tokens(model), users=users, items=items):
        arrays.save(directory / USER_ARRAYS)
    prepared.user_encoder.save(directory / USER_ENCODER)
    item = ItemModule(model)
    tf.saved_model.save(item, str(directory / "item"), signatures=item.functions)


@dataclass(frozen=True)
class ItemVectorTable:
    """Item vectors of the model, aligned with the catalogue; an index adds its cold bias to their last dimension."""

    ids: pa.StringArray  # [items]
    vectors: Float32s  # [items, width], or [items, codes, width]
    behaviour_share: Float32s  # [items], NaN without a gate
    exposures: Int64s  # [items], that the vectors were made with
    fingerprint: str  # of the model
    # Modality -> [items], 0 where the item lacks it; empty where the model weighs none.
    modality_weights: Mapping[str, Float32s] = field(default_factory=dict)

    def write(self, directory: Path) -> None:
        """Publishes the table as Parquet: item_id, vector, behaviour_share, exposures.

        Where modalities are weighted, modality_weights stands beside, a struct with a float of each. Where items have
        several vectors, vector is their mean and code_vectors has them all: who reads one row and one vector per item
        still finds them, and joins by item_id.
        """
        several = self.vectors.ndim == 3
        columns = {
            "item_id": self.ids,
            "vector": _lists(self.vectors.mean(axis=1) if several else self.vectors),
            "behaviour_share": pa.array(self.behaviour_share, from_pandas=True),
            "exposures": self.exposures,
        }
        if several:
            columns[_CODES] = _lists(self.vectors)
        if self.modality_weights:
            weights = [pa.array(np.ascontiguousarray(weight)) for weight in self.modality_weights.values()]
            columns[_MODALITIES] = pa.StructArray.from_arrays(weights, names=list(self.modality_weights))
        table = pa.table(columns)
        manifest = {"fingerprint": self.fingerprint, "items": len(table)}
        with publish(directory, manifest=manifest, name=HIDDEN_MANIFEST) as scratch:
            pq.write_table(table, scratch / _VECTORS)

    @classmethod
    def read(cls, directory: Path) -> ItemVectorTable:
        """Raises ArtifactError if the table is missing or damaged."""
        manifest = read_manifest(directory, made_by="recall vectors", verify=True, name=HIDDEN_MANIFEST)
        table = pq.read_table(directory / _VECTORS)
        return cls(
            ids=table["item_id"].combine_chunks().cast(pa.string()),
            vectors=_matrix(table[_CODES if _CODES in table.column_names else "vector"]),
            behaviour_share=table["behaviour_share"].to_numpy(zero_copy_only=False).astype(np.float32),
            exposures=table["exposures"].to_numpy(),
            fingerprint=manifest["fingerprint"],
            modality_weights=_fields(table[_MODALITIES]) if _MODALITIES in table.column_names else {},
        )


class GateShares:
    """What people want to know of an item's vector: how much of it is behaviour, and how often the item had been shown.

    Attributes:
      fingerprint: of the model.
    """

    def __init__(self, table: pa.Table, *, fingerprint: str) -> None:
        self.fingerprint = fingerprint
        self._row_of = {item: row for row, item in enumerate(table["item_id"].to_pylist())}
        self._shares = table["behaviour_share"].to_numpy(zero_copy_only=False)
        self._exposures = table["exposures"].to_numpy()

    @classmethod
    def read(cls, directory: Path) -> GateShares:
        """From the folder of an `ItemVectorTable`, without its vectors. Raises ArtifactError as that does."""
        manifest = read_manifest(directory, made_by="recall vectors", verify=True, name=HIDDEN_MANIFEST)
        table = pq.read_table(directory / _VECTORS, columns=["item_id", "behaviour_share", "exposures"])
        return cls(table, fingerprint=manifest["fingerprint"])

    def of(self, item: str) -> dict[str, float | int]:
        """gate_share (absent without a gate) and exposures of an item; nothing of one that came later."""
        if (row := self._row_of.get(item)) is None:
            return {}
        share, exposures = float(self._shares[row]), int(self._exposures[row])
        return {"exposures": exposures} if np.isnan(share) else {"gate_share": share, "exposures": exposures}


def _lists(numbers: Float32s) -> pa.FixedSizeListArray:
    """Numbers [rows, ...] as a row of nested lists each."""
    values = pa.array(np.ascontiguousarray(numbers).reshape(-1))
    for length in reversed(numbers.shape[1:]):
        values = pa.FixedSizeListArray.from_arrays(values, length)
    return values


def _matrix(column: pa.ChunkedArray) -> Float32s:
    """What `_lists` was made of."""
    values, shape = column.combine_chunks(), [len(column)]
    while pa.types.is_fixed_size_list(values.type):
        shape.append(values.type.list_size)
        values = values.flatten()
    return values.to_numpy().reshape(shape)


def _fields(column: pa.ChunkedArray) -> dict[str, Float32s]:
    values = column.combine_chunks()
    return {field.name: values.field(field.name).to_numpy(zero_copy_only=False) for field in values.type}
