"""Joins query towers, feature encoder and index into one SavedModel: users or items in, ids and scores out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import tensorflow as tf

from recall.core.errors import ArtifactError
from recall.model.saved_model import PROFILE
from recall.serving.export.features import GraphEncoder
from recall.serving.export.index_graph import GraphIndex

Answer = dict[str, tf.Tensor]


class CandidateModule(tf.Module):
    """Find candidates of users and items with tf.functions, one per signature.

    Every answer has ids string [batch, k] and scores float32 [batch, k], best first: inner products with the index's
    vectors and their cold bias. Clicked items are not left out. Signatures, for the towers that the model has:
      recall: user_id string [batch], history string [batch, time] (item ids, oldest first, padded with "").
      recall_features: in place of user_id the raw features of users by name, as `GraphEncoder` takes them.
      recall_in_full, recall_features_in_full: also with times of clicks and further histories, if the model reads them;
        `recall` and `recall_features` take them as unknown or empty. See `recall.model.saved_model.QueryModule`.
      similar: item_id string [batch], which the answer leaves out: by the trigger tower, or else by cosine, which is
        then the score. Unknown item ids are an error.

    Attributes:
      functions: tf.function by signature.

    Args:
      query: the query/ SavedModel.
      encoder: encoder of raw features of users.
      index: the searched index.
      by_cosine: the same items, by cosine; None where the model has a trigger tower and no item was added.
      ids: item ids by row of the index.
      k: candidates per query, at most the number of items.
      added: ids of items that came after the training. If the query model knows such an id, it is of another item, so
        that it is not asked for it.
    """

    def __init__(
        self,
        query: Any,
        *,
        encoder: GraphEncoder,
        index: GraphIndex,
        by_cosine: GraphIndex | None,
        ids: Sequence[str],
        k: int,
        added: Collection[str] = (),
    ) -> None:
        super().__init__()
        self._by_cosine = by_cosine
        self._is_added = None
        self._trained = next((name for name in ids if name not in added), None)
        if added:
            names = tf.constant(sorted(added), tf.string)
            table = tf.lookup.KeyValueTensorInitializer(names, tf.ones(len(added), tf.int32))
            self._is_added = tf.lookup.StaticHashTable(table, default_value=0)
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
        """Answer for users by id and history."""
        known = {**inputs, "history": self._known(inputs["history"])}
        return self._best(self._query.signatures["user"](**known)["vector"])

    def _recall_in_full(self, inputs: Mapping[str, tf.Tensor]) -> Answer:
        """Answer for users by id, with times of clicks and further histories."""
        known = {**inputs, "history": self._known(inputs["history"])}
        return self._best(self._query.signatures["user_in_full"](**known)["vector"])

    def _recall_features(self, inputs: Mapping[str, tf.Tensor]) -> Answer:
        """Answer for users by raw features; absent further inputs count as unknown or empty."""
        encoded = self._encoder({name: inputs[name] for name in self._encoder.inputs})
        model_inputs = {PROFILE + name: values for name, values in encoded.items()}
        model_inputs["history"] = self._known(inputs["history"])
        for name, spec in self._further.items():
            unknown = -1.0 if spec.dtype == tf.float32 else ""  # ages of clicks are numbers, the others are item ids
            model_inputs[name] = inputs[name] if name in inputs else tf.fill(tf.shape(inputs["history"]), unknown)
        return self._best(self._query.signatures["user_features"](**model_inputs)["vector"])

    def _similar(self, inputs: Mapping[str, tf.Tensor]) -> Answer:
        """Answer for items by the trigger tower, or by the cosines of their vectors."""
        rows = self._rows.lookup(inputs["item_id"])
        check = tf.debugging.assert_non_negative(rows, "similar: an item id is not in the index")
        with tf.control_dependencies([check]):
            rows = tf.identity(rows)
        trigger = self._query.signatures.get("trigger")
        if self._by_cosine is None:
            return self._best(trigger(item_id=inputs["item_id"])["vector"], without=rows)
        own = self._best(self._by_cosine.of(rows), index=self._by_cosine, without=rows)
        if trigger is None or self._trained is None or self._is_added is None:
            return own
        is_added = self._is_added.lookup(inputs["item_id"]) > 0
        # The tower refuses ids that it does not know; of an added item its answer is not used.
        known = tf.where(is_added, self._trained, inputs["item_id"])
        by_tower = self._best(trigger(item_id=known)["vector"], without=rows)
        return {name: tf.where(is_added[:, tf.newaxis], own[name], by_tower[name]) for name in own}

    def _known(self, ids: tf.Tensor) -> tf.Tensor:
        """Replace ids of added items by empty ones, which histories pass over."""
        return ids if self._is_added is None else tf.where(self._is_added.lookup(ids) > 0, "", ids)

    def _best(self, queries: tf.Tensor, *, index: GraphIndex | None = None, without: tf.Tensor | None = None) -> Answer:
        """Search the best items of float32 [batch, width], or [batch, queries, width] with several queries per list."""
        if queries.shape.rank == 2:
            queries = queries[:, tf.newaxis, :]
        rows, scores = (index or self._index).search(queries, self._k, without=without)
        return {"ids": tf.gather(self._ids, tf.where(rows < 0, self._index.items, rows)), "scores": scores}


def _function(function: Any, inputs: dict[str, tf.TensorSpec]) -> tf.types.experimental.GenericFunction:
    """Compile a function of named inputs."""
    return tf.function(function, input_signature=[inputs], autograph=False)
