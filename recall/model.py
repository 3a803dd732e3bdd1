"""The two-tower model: which vectors a batch needs, and what they are trained for."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs

from recall.config import Config
from recall.dataset import Batch, UserRows
from recall.interest_losses import best_interest, best_interest_softmax
from recall.losses import sampled_softmax, triplet_alignment
from recall.negatives import NegativeSampler
from recall.optimizers import TableOptimizer, table_optimizer
from recall.prepared import PreparedData
from recall.towers.features import EmbeddingTable, Features, FeatureTable
from recall.towers.item import ItemContent, ItemSide, ItemVectors
from recall.towers.query import TriggerTower, UserTower

_MIN_TEMPERATURE = 0.01


class Targets(NamedTuple):
    """The clicks that a batch is to predict."""

    items: tf.Tensor  # int32 [targets]
    times_ms: tf.Tensor  # int64 [targets]
    posterior: tf.Tensor  # float32 [targets, 4], as of the click
    triggers: tf.Tensor  # int32 [targets], -1 where there is none


class RecallModel(tfrs.Model):
    """User and trigger towers against one item side; see `ItemSide` for the structures.

    The step gathers each distinct item of a batch once: unique -> gather -> dense part -> segment sum -> scatter.
    Tables are updated by a `TableOptimizer`, everything else by the compiled Keras optimizer.
    """

    def __init__(self, config: Config, prepared: PreparedData) -> None:
        super().__init__(name="recall")
        self.config = config
        model = config.model
        self.item_table = FeatureTable(prepared.item_encoder.columns, prepared.items)
        self.user_table = FeatureTable(prepared.user_encoder.columns, prepared.users_with_unknown())
        self.user_rows = UserRows(prepared.user_ids.to_pylist())
        self.items = ItemSide(
            prepared.item_encoder.columns,
            id_name=prepared.item_id_feature,
            config=model,
            prior_ctr=prepared.manifest["posterior"]["prior_ctr"],
        )
        parts = 2 if self.items.is_concat else 1
        self.user_tower = (
            UserTower(
                prepared.user_encoder.columns, config=model, parts=parts, max_length=config.data.history + 1
            )
            if model.query != "trigger"
            else None
        )  # fmt: skip
        self.trigger_tower = TriggerTower(model, parts=parts) if model.query != "user" else None
        self.sampler = NegativeSampler(prepared, pool=model.loss.negatives)
        exposures = prepared.posterior("validation").exposures
        self.training_exposures = tf.constant(exposures.astype(np.float32))
        self.log_temperature = self.add_weight(
            name="log_temperature",
            shape=(),
            initializer=tf.keras.initializers.Constant(np.log(model.temperature)),
            trainable=model.learn_temperature,
        )
        self.table_optimizer: TableOptimizer | None = None
        rows, history = tf.TensorSpec([None], tf.int32), tf.TensorSpec([None, None], tf.int32)
        posterior = tf.TensorSpec([None, 4], tf.float32)
        self.encode_items = tf.function(self._encode_items, input_signature=[rows, posterior])
        self.encode_users = tf.function(self.user_queries, input_signature=[rows, history])
        self.encode_triggers = tf.function(self.trigger_queries, input_signature=[rows])

    @property
    def tables(self) -> list[tf.Variable]:
        """Embedding tables, in a fixed order; they get sparse updates."""
        return [layer.weight for layer in self.submodules if isinstance(layer, EmbeddingTable)]

    @property
    def dense_variables(self) -> list[tf.Variable]:
        """Everything that is trained but the tables."""
        is_table = {table.ref() for table in self.tables}
        return [variable for variable in self.trainable_variables if variable.ref() not in is_table]

    def weights_checkpoint(self) -> tf.train.Checkpoint:
        """What inference needs: the towers, without optimizer state and data."""
        towers = {"items": self.items, "user": self.user_tower, "trigger": self.trigger_tower}
        parts = {name: tower for name, tower in towers.items() if tower is not None}
        return tf.train.Checkpoint(log_temperature=self.log_temperature, **parts)

    @property
    def temperature(self) -> tf.Tensor:
        """What inner products are divided by, float32 scalar."""
        return tf.maximum(tf.exp(self.log_temperature), _MIN_TEMPERATURE)

    def prepare_optimizers(self) -> None:
        """Compiles the model and creates the tables' optimizer state; all layers are built by then."""
        training = self.config.training
        self.build_layers()
        default_rate = 0.1 if training.table_optimizer == "adagrad" else training.learning_rate
        self.table_optimizer = table_optimizer(
            training.table_optimizer, self.tables, learning_rate=training.table_learning_rate or default_rate
        )
        self.compile(optimizer=tf.keras.optimizers.Adam(training.learning_rate))
        self.optimizer.build(self.dense_variables)  # so that a checkpoint finds its state

    def build_layers(self) -> None:
        """Creates all variables by running every tower once on one item and one user."""
        row = tf.zeros([1], tf.int32)
        self.item_vectors_of(self.item_table.gather(row), tf.ones([1, 4]))
        if self.user_tower:
            self.user_queries(row, tf.zeros([1, 1], tf.int32))
        if self.trigger_tower:
            self.trigger_queries(row)

    # Training

    def train_step(self, inputs: Batch) -> dict[str, tf.Tensor]:
        """One step; returns the terms of the loss."""
        with tf.GradientTape() as tape:
            terms = self.loss_terms(inputs, training=True)
            loss = tf.add_n(list(terms.values()))
        tables, dense = self.tables, self.dense_variables
        gradients = tape.gradient(loss, tables + dense)
        assert self.table_optimizer is not None, "call prepare_optimizers() before fit()"
        self.table_optimizer.apply(gradients[: len(tables)])
        pairs = zip(gradients[len(tables) :], dense, strict=True)
        self.optimizer.apply_gradients([(gradient, variable) for gradient, variable in pairs if gradient is not None])
        return {"loss": loss, **{f"{name}_loss": term for name, term in terms.items()}}

    def compute_loss(self, inputs: Batch, training: bool = False) -> tf.Tensor:
        """The weighted sum of `loss_terms`."""
        return tf.add_n(list(self.loss_terms(inputs, training=training).values()))

    def loss_terms(self, batch: Batch, *, training: bool) -> dict[str, tf.Tensor]:
        """Weighted terms of the loss of a batch of `training_dataset`, by name."""
        loss, settings = self.config.model.loss, self.config.model.cold_simulation
        targets = _targets(batch)
        draws = loss.uniform_negatives if loss.negatives != "none" else 0
        # Negative j is drawn as of the moment of example j mod batch, and brings its posterior of that moment.
        count = tf.size(targets.items)
        moments = tf.gather(targets.times_ms, tf.range(draws) % tf.maximum(count, 1))
        negatives = self.sampler.draw(moments)
        rows = tf.concat([targets.items, negatives.rows], axis=0)  # [candidates]
        posterior = tf.concat([targets.posterior, negatives.posterior], axis=0)  # [candidates, 4]

        past = batch["history"] if "history" in batch else batch["items"]  # [batch, time]
        asked_by = [tf.reshape(past, [-1])] if self.user_tower else []
        asked_by += [targets.triggers] if self.trigger_tower else []
        # Padding points at a row of the batch: the optimizer of the tables would move a row that only padding names.
        asked_by = [tf.where(part >= 0, part, rows[0]) for part in asked_by]
        distinct, places = tf.unique(tf.concat([rows, *asked_by], axis=0))
        place, *asking = tf.split(places, [tf.size(rows), *map(tf.size, asked_by)])
        content = self.items.content_of(self.item_table.gather(distinct), training=training)

        seen = content
        if training and settings.enabled:
            seen = self.items.hide_ids(content, self._hidden(tf.gather(self.training_exposures, distinct)))
        tokens = self.items.tokens(seen)  # [distinct, dim]

        candidates = _gather_content(content, place)
        if training and settings.enabled:
            is_new = tf.random.uniform(tf.shape(rows)) < settings.brand_new  # [candidates]
            candidates = self.items.hide_ids(candidates, is_new | self._hidden(posterior[:, 0]))
            posterior = tf.where(is_new[:, tf.newaxis], self.items.new_posterior, posterior)
        vectors = self.items.vectors(candidates, self.item_table.gather(rows), posterior, training=training)

        log_q = self.sampler.log_q(rows, batch_size=count, pool_sizes=negatives.pool_sizes) if loss.logq else None
        terms: dict[str, tf.Tensor] = {}
        if self.user_tower:
            history = tf.reshape(tf.gather(tokens, asking[0]), [*tf.unstack(tf.shape(past)), self.config.model.dim])
            queries = self._user_queries(batch, history, training=training)
            interests = self.config.model.interests
            if queries.shape.rank == 3 and interests and interests.objective == "chosen":
                queries = best_interest(queries, vectors.vector[:count])
            self._add_retrieval(terms, queries, vectors, rows, log_q=log_q, weights=None)
        if self.trigger_tower:
            queries = self.trigger_tower(tf.gather(tokens, asking[-1]), training=training)
            weights = tf.cast(targets.triggers >= 0, tf.float32)
            self._add_retrieval(terms, queries, vectors, rows, log_q=log_q, weights=weights)
        if loss.triplet and vectors.behaviour is not None and vectors.meta is not None:
            terms["triplet"] = loss.triplet * triplet_alignment(
                vectors.behaviour[:count],
                vectors.meta[:count],
                items=targets.items,
                known=candidates.known[:count],
                margin=loss.margin,
                negatives=loss.triplet_negatives,
            )
        return terms

    def _add_retrieval(
        self,
        terms: dict[str, tf.Tensor],
        queries: tf.Tensor,
        vectors: ItemVectors,
        rows: tf.Tensor,
        *,
        log_q: tf.Tensor | None,
        weights: tf.Tensor | None,
    ) -> None:
        config = self.config.model
        behaviour_query, meta_query = tf.split(queries, 2, axis=-1) if self.items.is_concat else (queries, queries)
        pairs = [("item", queries, vectors.vector, config.loss.item)]
        if config.structure == "gated":
            pairs.append(("behaviour", behaviour_query, vectors.behaviour, config.loss.behaviour))
            pairs.append(("meta", meta_query, vectors.meta, config.loss.meta))
        elif config.structure == "base":  # both towers are trained on their own; their sum only serves
            pairs = [
                ("behaviour", queries, vectors.behaviour, config.loss.item),
                ("meta", queries, vectors.meta, config.loss.item),
            ]
        # With several interests each term scores a candidate by the interest that scores it highest in that term.
        softmax = sampled_softmax if queries.shape.rank == 2 else best_interest_softmax
        for name, query, candidates, weight in pairs:
            if weight:
                value = weight * softmax(
                    query / self.temperature,
                    candidates,
                    query_items=rows[: tf.shape(queries)[0]],
                    candidate_items=rows,
                    log_q=log_q,
                    weights=weights,
                )
                terms[name] = terms[name] + value if name in terms else value

    def _user_queries(self, batch: Batch, history: tf.Tensor, *, training: bool) -> tf.Tensor:
        assert self.user_tower is not None
        users = self.user_table.gather(batch["user"])
        if "history" in batch:
            return self.user_tower(users, history, _lengths(batch["history"]), training=training)
        owners = tf.where(batch["is_target"])  # [targets, 2]: user of the batch, position
        return self.user_tower.at_positions(
            users,
            history,
            _lengths(batch["items"]),
            users=tf.cast(owners[:, 0], tf.int32),
            positions=tf.boolean_mask(batch["before"], batch["is_target"]),
            training=training,
        )

    def _hidden(self, exposures: tf.Tensor) -> tf.Tensor:
        settings = self.config.model.cold_simulation
        probability = settings.max_probability / (1.0 + exposures / settings.half_exposures)
        return tf.random.uniform(tf.shape(exposures)) < probability

    # Inference

    def item_vectors_of(self, features: Features, posterior: tf.Tensor) -> ItemVectors:
        """Vectors of items from their features and posterior, float32 [items, 4]."""
        return self.items.vectors(self.items.content_of(features), features, posterior)

    def _encode_items(self, rows: tf.Tensor, posterior: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        result = self.item_vectors_of(self.item_table.gather(rows), posterior)
        return result.vector, result.share_or_nan()

    def user_queries(self, users: tf.Tensor, history: tf.Tensor) -> tf.Tensor:
        """Query vectors: int32 [batch] user rows, int32 [batch, time] item rows padded with -1 -> [batch, width].

        With several interests [batch, interests, width].
        """
        assert self.user_tower is not None
        distinct, places = tf.unique(tf.maximum(tf.reshape(history, [-1]), 0))
        tokens = self.items.tokens(self.items.content_of(self.item_table.gather(distinct)))
        tokens = tf.reshape(tf.gather(tokens, places), [*tf.unstack(tf.shape(history)), self.config.model.dim])
        return self.user_tower(self.user_table.gather(users), tokens, _lengths(history))

    def trigger_queries(self, rows: tf.Tensor) -> tf.Tensor:
        """Query vectors of trigger items: int32 [batch] -> [batch, width]."""
        assert self.trigger_tower is not None
        return self.trigger_tower(self.items.tokens(self.items.content_of(self.item_table.gather(rows))))


def _targets(batch: Batch) -> Targets:
    if "history" in batch:
        return Targets(batch["item"], batch["time_ms"], batch["posterior"], batch["trigger"])
    mask = batch["is_target"]
    return Targets(
        *(tf.boolean_mask(batch[name], mask) for name in ("items", "time_ms", "posterior", "trigger"))
    )  # fmt: skip


def _lengths(padded: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(padded >= 0, tf.int32), axis=1)


def _gather_content(content: ItemContent, places: tf.Tensor) -> ItemContent:
    return ItemContent(*(None if part is None else tf.gather(part, places) for part in content))
