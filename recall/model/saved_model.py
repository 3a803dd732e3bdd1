"""Exports a trained model: SavedModels of the query side and the item side, and the encoders of new items and users."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf

from recall.config.model import WITH_META_TOWER
from recall.core.times import MS_PER_HOUR
from recall.data.audience import TOKENS
from recall.data.features.vocabulary import FIRST_CODE, OUT_OF_VOCABULARY, Vocabulary
from recall.data.prepared import PreparedData
from recall.model.content_term.term import ContentTerm
from recall.model.inference import all_tokens, audience_tokens
from recall.model.layers.features import Features, FeatureTable
from recall.model.numpy_tower.conversion import numpy_tower_of
from recall.model.numpy_tower.tower import NUMPY_TOWER
from recall.model.recall_model import RecallModel

# Cosine of the attributes of Amazon Beauty, recall@50 among cold items: .142, and .109 in 64 dimensions.
_CONTENT_DIM = 256
PROFILE = "user_"
"""Prefix of the inputs that are features of users, since a feature may be called history as well."""
USER_ENCODER = "user_encoder"
"""Folder of the encoder of new users, in a model directory."""


class QueryModule(tf.Module):
    """Answer ids with query vectors, without recall installed. The tables of items and users are part of the module.

    Signatures (one per tower that the model has; the first is the default):
      user: user_id string [batch], history string [batch, time] (item ids, oldest first, padded with "") -> vector
        float32 [batch, width], or [batch, interests, width] if `model.interests` asks for several: the score of an item
        is then the largest of its inner products. Unknown users have no profile; unknown items are left out of the
        history.
      user_in_full: as user, with the other inputs of the model, which `user` takes for unknown or empty. With
        `model.history_time`: history_age_hours float32 [batch, time], hours since each click; negative or NaN is
        unknown. For each of `data.histories`: history_NAME string [batch, its time], as history. The signature exists
        if the model reads at least one of these inputs.
      user_features: as user_in_full, for users that the model does not know: encoded features user_NAME, of the shapes
        that `FeatureTable` describes, in the place of user_id. history_age_hours and history_NAME are inputs if the
        model reads them.
      student: as user, answered by the student. It reads the tokens of the items from a table that is filled at the
        export; `user` computes them from the items' features in each call.
      student_features: as student, with user_NAME in the place of user_id.
      trigger: item_id string [batch] -> vector float32 [batch, width]. Unknown item ids are an error.

    Attributes:
      functions: the signatures by name.

    Args:
      model: trained.
      item_ids: ids by row of the catalogue.
      vocabularies: history name -> vocabulary, for histories whose items are not in the catalogue.
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
        self._weights = _weights(model.items, model.user_tower, model.student, model.trigger_tower)
        self._model = _Untracked(model)
        self._length = model.config.data.history
        self._codes = {name: _lookup(vocabulary) for name, vocabulary in (vocabularies or {}).items()}

        self.functions: dict[str, tf.types.experimental.GenericFunction] = {}
        if model.user_tower:
            user_id = tf.TensorSpec([None], tf.string, name="user_id")
            history = tf.TensorSpec([None, None], tf.string, name="history")
            self.functions["user"] = tf.function(self._user, input_signature=[user_id, history], autograph=False)
            inputs = {}
            if model.user_tower.reads_times:
                inputs["history_age_hours"] = tf.TensorSpec([None, None], tf.float32, name="history_age_hours")
            for name in model.further_histories:
                inputs[f"history_{name}"] = tf.TensorSpec([None, None], tf.string, name=f"history_{name}")
            if inputs:
                self.functions["user_in_full"] = tf.function(
                    self._user_in_full,
                    input_signature=[{"user_id": user_id, "history": history, **inputs}],
                    autograph=False,
                )
            profile = {PROFILE + name: spec for name, spec in _specs(model.user_table, prefix=PROFILE).items()}
            self.functions["user_features"] = tf.function(
                self._user_by_features, input_signature=[{"history": history, **inputs, **profile}], autograph=False
            )
        if model.student:
            self._tokens = tf.Variable(all_tokens(model), trainable=False, name="tokens")
            self.functions["student"] = tf.function(self._student, input_signature=[user_id, history], autograph=False)
            self.functions["student_features"] = tf.function(
                self._student_by_features, input_signature=[{"history": history, **profile}], autograph=False
            )
        if model.trigger_tower:
            item_id = tf.TensorSpec([None], tf.string, name="item_id")
            self.functions["trigger"] = tf.function(self._trigger, input_signature=[item_id], autograph=False)

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
        """Return queries of users, given as rows of the user table or as features, from all inputs of the model."""
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
        """Keep the last known entries of each row, as many as the model reads, padded at the end with -1."""
        kept = tf.ragged.boolean_mask(values, known)[:, -(length or self._length) :]
        return tf.ensure_shape(kept.to_tensor(-1), [None, None])

    def _trigger(self, item_id: tf.Tensor) -> dict[str, tf.Tensor]:
        rows = self._item_rows.lookup(item_id)
        check = tf.debugging.assert_non_negative(rows, "trigger: an item id is not in the catalogue")
        with tf.control_dependencies([check]):
            return {"vector": self._model.it.trigger_queries(tf.identity(rows))}


def _specs(table: FeatureTable, *, prefix: str = "") -> dict[str, tf.TensorSpec]:
    """Describe rows that are not in the table, by column; sets of codes may be longer than the table's."""
    specs = {}
    for column in table.columns:
        variable = table.variables[column.name]
        shape = [None, None] if column.kind == "codes" else [None, *variable.shape[1:]]
        specs[column.name] = tf.TensorSpec(shape, variable.dtype, name=prefix + column.name)
    return specs


def _lookup(vocabulary: Vocabulary) -> tf.lookup.StaticHashTable:
    """Map item ids of a vocabulary to codes: "" is padding (-1), an unlisted id is out of vocabulary."""
    keys = tf.constant(["", *vocabulary.values.to_pylist()], tf.string)
    codes = tf.constant([-1, *range(FIRST_CODE, vocabulary.size)], tf.int32)
    return tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, codes), default_value=OUT_OF_VOCABULARY)


class ItemModule(tf.Module):
    """Turn encoded features and posteriors into item vectors, of known and of new items.

    Signatures:
      serving_default: one input per encoded column (shapes as in `FeatureTable`) and posterior float32 [items, width]
        (exposures, clicks, smoothed CTR, hours since the first exposure, fresh evidence; and the audience of a model
        that reads audiences, see `recall.data.audience.audience_columns`) -> vector float32 [items, width], or
        [items, codes, width] if `model.item_codes` puts several vectors per item into the index, of which the best
        score counts; behaviour_share float32 [items] (NaN without a gate).
      meta: the encoded columns -> vector float32 [items, dim], the meta vectors, scaled to unit length. The signature
        exists if the structure has a meta tower.
      content: the encoded columns -> vector float32 [items, content dim], of unit length: the vectors in the content
        space. The signature exists if the structure has a meta tower and items have content that the space reads.
      modalities: the encoded columns -> weights float32 [items, modalities] and names string [modalities]. The
        signature exists if the model weighs modalities.

    Attributes:
      new_posterior: float32 [width], the posterior of an item without exposures.
      functions: the signatures by name.
    """

    def __init__(self, model: RecallModel) -> None:
        super().__init__()
        self.new_posterior = tf.Variable(model.items.new_posterior, trainable=False)
        self._weights = _weights(model.items)
        self._model = _Untracked(model)
        features = _specs(model.item_table)
        posterior = tf.TensorSpec([None, model.items.posterior_width], tf.float32, name="posterior")
        self.vectors = tf.function(self._vectors, input_signature=[features, posterior], autograph=False)
        self.functions = {"serving_default": self.vectors}
        if model.config.model.structure in ("gated", "base", "meta_only"):
            self.meta = tf.function(self._meta, input_signature=[features], autograph=False)
            self.functions["meta"] = self.meta
        if (space := _compared_content(model)) is not None:
            self._weights += space.variables
            self._space = _Untracked(space)
            self.content = tf.function(self._content, input_signature=[features], autograph=False)
            self.functions["content"] = self.content
        if model.items.modalities:
            self.modalities = tf.function(self._modalities, input_signature=[features], autograph=False)
            self.functions["modalities"] = self.modalities

    def _vectors(self, features: Features, posterior: tf.Tensor) -> dict[str, tf.Tensor]:
        result = self._model.it.item_vectors_of(features, posterior)
        return {"vector": self._model.it.items.served(result), "behaviour_share": result.share_or_nan()}

    def _meta(self, features: Features) -> dict[str, tf.Tensor]:
        return {"vector": tf.math.l2_normalize(self._model.it.items.content_of(features).meta, axis=-1)}

    def _content(self, features: Features) -> dict[str, tf.Tensor]:
        return {"vector": self._space.it.vectors(features)}

    def _modalities(self, features: Features) -> dict[str, tf.Tensor]:
        items = self._model.it.items
        return {"weights": items.modality_weights(features), "names": tf.constant(items.modalities)}


def _compared_content(model: RecallModel) -> ContentTerm | None:
    """Make what compares content alone: the space as it was fitted, without what training makes of it for the score."""
    if model.config.model.structure not in WITH_META_TOWER:
        return None
    space = model.content_space(dim=_CONTENT_DIM)
    return None if space is None else ContentTerm(space)


def _weights(*layers: tf.keras.layers.Layer | None) -> list[tf.Variable]:
    """List the variables of layers, for a SavedModel to keep.

    A module that kept the layers would save them as Keras layers, each with functions of its own that nobody calls.
    """
    return [variable for layer in layers if layer is not None for variable in layer.variables]


class _Untracked:
    """Keep the Keras model, the tables of its data set and its optimizers out of a SavedModel."""

    def __init__(self, layer: Any) -> None:
        self.it = layer


def export_saved_models(model: RecallModel, prepared: PreparedData, directory: Path) -> None:
    """Write a trained model for serving.

    Writes the SavedModels query/ and item/, the encoders of new items and users (encoder/ and user_encoder/) and, where
    the user tower has a NumPy form, user_arrays/; and tokens.npy of a model that reads audiences.
    """
    query = QueryModule(model, prepared.item_ids, prepared.history_vocabularies)
    signatures = dict(query.functions)
    signatures["serving_default"] = next(iter(query.functions.values()))
    tf.saved_model.save(query, str(directory / "query"), signatures=signatures)
    prepared.item_encoder.save(directory / "encoder")
    users, items = prepared.user_ids.to_pylist(), prepared.item_ids.to_pylist()
    if arrays := numpy_tower_of(model, lambda: all_tokens(model), users=users, items=items):
        arrays.save(directory / NUMPY_TOWER)
    prepared.user_encoder.save(directory / USER_ENCODER)
    item = ItemModule(model)
    tf.saved_model.save(item, str(directory / "item"), signatures=item.functions)
    if model.items.has_audience:
        np.save(directory / TOKENS, audience_tokens(model))
