"""The SavedModel for others: who asks in, ids and scores out, with the query towers and the index inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from recall.core.errors import ArtifactError
from recall.model.saved_model import PROFILE
from recall.serving.export.features import GraphEncoder
from recall.serving.export.index_graph import GraphIndex

Answer = dict[str, tf.Tensor]


class CandidateModule(tf.Module):
    """Candidates of users and items as tf.functions, one per signature.

    Every answer has ids string [batch, k] and scores float32 [batch, k], best first, by the index's vectors with their
    cold bias; what a user clicked is not left out. Signatures (those of towers that the model has):
      recall: user_id string [batch], history string [batch, time] (item ids, oldest first, padded with "").
      recall_features: in the place of user_id the raw features of users, by name, as `GraphEncoder` takes them.
      recall_in_full, recall_features_in_full: with times of clicks and further histories beside, where the model reads
        such; `recall` and `recall_features` take them for unknown or empty. See `recall.model.saved_model.QueryModule`.
      similar: item_id string [batch], which the answer leaves out. Item ids have to be known.

    Args:
      query: the query/ SavedModel.
      encoder: of raw features of users.
      index: what is searched.
      ids: by row of the index.
      k: candidates per query, at most as many as there are items.
    """

    def __init__(self, query: Any, *, encoder: GraphEncoder, index: GraphIndex, ids: Sequence[str], k: int) -> None:
        super().__init__()
        self._query, self._encoder, self._index, self._k = query, encoder, index, k
        self._ids = tf.Variable([*ids, ""], trainable=False, dtype=tf.string, name="ids")
        rows = tf.lookup.KeyValueTensorInitializer(tf.constant(ids, tf.string), tf.range(len(ids), dtype=tf.int32))
        self._rows = tf.lookup.StaticHashTable(rows, default_value=-1)
        self.functions: dict[str, tf.types.experimental.GenericFunction] = {}
        self._further: dict[str, tf.TensorSpec] = {}
        if "user" in query.signatures:
            user = {"user_id": tf.TensorSpec([None], tf.string, name="user_id")}
            history = {"history": tf.TensorSpec([None, None], tf.string, name="history")}
            of_features = query.signatures["user_features"].structured_input_signature[1]
            self._further = further = {
                name: tf.TensorSpec(spec.shape, spec.dtype, name=name)
                for name, spec in of_features.items()
                if name != "history" and not name.startswith(PROFILE)
            }
            if taken := sorted(encoder.inputs.keys() & (history.keys() | further.keys())):
                raise ArtifactError(
                    f"features of users called {', '.join(taken)}: inputs of the exported model have these names; give "
                    "the features other names (with `column:` for the column) and train again"
                )
            profile = encoder.inputs
            self.functions["recall"] = _function(self._recall, user | history)
            self.functions["recall_features"] = _function(self._recall_features, profile | history)
            if further:
                self.functions["recall_in_full"] = _function(self._recall_in_full, user | history | further)
                self.functions["recall_features_in_full"] = _function(
                    self._recall_features, profile | history | further
                )
        self.functions["similar"] = _function(self._similar, {"item_id": tf.TensorSpec([None], tf.string, "item_id")})

    def _recall(self, inputs: Mapping[str, tf.Tensor]) -> Answer:
        return self._best(self._query.signatures["user"](**inputs)["vector"])

    def _recall_in_full(self, inputs: Mapping[str, tf.Tensor]) -> Answer:
        return self._best(self._query.signatures["user_in_full"](**inputs)["vector"])

    def _recall_features(self, inputs: Mapping[str, tf.Tensor]) -> Answer:
        encoded = self._encoder({name: inputs[name] for name in self._encoder.inputs})
        asked = {PROFILE + name: values for name, values in encoded.items()}
        asked["history"] = inputs["history"]
        for name, spec in self._further.items():
            unknown = -1.0 if spec.dtype == tf.float32 else ""  # ages of clicks are numbers, the others are item ids
            asked[name] = inputs[name] if name in inputs else tf.fill(tf.shape(inputs["history"]), unknown)
        return self._best(self._query.signatures["user_features"](**asked)["vector"])

    def _similar(self, inputs: Mapping[str, tf.Tensor]) -> Answer:
        rows = self._rows.lookup(inputs["item_id"])
        check = tf.debugging.assert_non_negative(rows, "similar: an item id is not in the index")
        with tf.control_dependencies([check]):
            rows = tf.identity(rows)
        if "trigger" in self._query.signatures:
            return self._best(self._query.signatures["trigger"](item_id=inputs["item_id"])["vector"], without=rows)
        vectors = self._index.of(rows)
        # The last dimension is appeal and cold bias: what is like an item is not what everybody likes.
        return self._best(tf.concat([vectors[..., :-1], tf.zeros_like(vectors[..., -1:])], axis=-1), without=rows)

    def _best(self, queries: tf.Tensor, *, without: tf.Tensor | None = None) -> Answer:
        """Of float32 [batch, width], or [batch, queries, width] with several for each list."""
        if queries.shape.rank == 2:
            queries = queries[:, tf.newaxis, :]
        rows, scores = self._index.search(queries, self._k, without=without)
        return {"ids": tf.gather(self._ids, tf.where(rows < 0, self._index.items, rows)), "scores": scores}


def _function(function: Any, inputs: dict[str, tf.TensorSpec]) -> tf.types.experimental.GenericFunction:
    return tf.function(function, input_signature=[inputs])
