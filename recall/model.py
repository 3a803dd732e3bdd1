"""The two-tower model: which vectors a batch needs, and what they are trained for."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tensorflow_recommenders as tfrs

from recall.averaging import WeightAverage
from recall.candidates import Candidates, Targets, candidates_of
from recall.code_losses import code_full_softmax, code_softmax
from recall.config import Config
from recall.dataset import Batch, UserRows
from recall.histories import PREFIX
from recall.interest_losses import best_interest, best_interest_full_softmax, best_interest_softmax
from recall.losses import Seen, full_softmax, sampled_softmax, triplet_alignment
from recall.negatives import NegativeSampler
from recall.optimizers import TableOptimizer, table_optimizer
from recall.prepared import PreparedData
from recall.towers.features import EmbeddingTable, Features, FeatureTable
from recall.towers.fusion import FurtherTokens, HistoryFusion
from recall.towers.history_time import ClickTimes
from recall.towers.item import ItemContent, ItemSide, ItemVectors
from recall.towers.query import TriggerTower, UserTower

_MIN_TEMPERATURE = 0.01
# `training.ema: auto`. An average is read and written whole in each step: at most 64 MB.
_DECAY, _AVERAGED_NUMBERS = 0.99, 1 << 24


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
            id_clicks=_clicks_by_id(prepared),
            modalities=config.features.modalities,
        )
        parts = 2 if self.items.is_concat else 1
        self.user_tower = (
            UserTower(
                prepared.user_encoder.columns,
                config=model,
                parts=parts,
                max_length=config.data.history + 1,
                history_time=config.history_time,
                fusion=_fusion(config, prepared),
            )
            if model.query != "trigger"
            else None
        )
        self.trigger_tower = TriggerTower(model, parts=parts) if model.query != "user" else None
        fusion = self.user_tower.fusion if self.user_tower else None
        self.history_lengths = prepared.history_lengths
        self.further_histories = fusion.names if fusion else ()
        self.shared_histories = tuple(
            name for name in self.further_histories if name not in prepared.history_vocabularies
        )
        self.sampler = NegativeSampler(prepared, pool=model.loss.negatives)
        exposures = prepared.posterior("validation").exposures
        self.training_exposures = tf.constant(exposures.astype(np.float32))
        self.log_temperature = self.add_weight(
            name="log_temperature",
            shape=(),
            initializer=tf.keras.initializers.Constant(np.log(model.start_temperature)),
            trainable=model.learn_temperature,
        )
        self.table_optimizer: TableOptimizer | None = None
        self.average: WeightAverage | None = None
        rows, history = tf.TensorSpec([None], tf.int32), tf.TensorSpec([None, None], tf.int32)
        posterior = tf.TensorSpec([None, 4], tf.float32)
        self.encode_items = tf.function(self._encode_items, input_signature=[rows, posterior])
        ages = tf.TensorSpec([None, None], tf.int64)
        further = {name: tf.TensorSpec([None, None], tf.int32, name=name) for name in self.further_histories}
        self.encode_users = tf.function(self.user_queries, input_signature=[rows, history, ages, further])
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
        is_small = sum(table.shape.num_elements() for table in self.tables) <= _AVERAGED_NUMBERS
        decay = (_DECAY if is_small else None) if training.ema == "auto" else training.ema
        if decay is not None:
            self.average = WeightAverage(self.tables + self.dense_variables, decay=decay)
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

    def averaged(self) -> AbstractContextManager[None]:
        """Inside, the model has the averaged weights that `training.ema` asks for; without it nothing changes."""
        return nullcontext() if self.average is None else self.average.applied()

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
        if self.average is not None:
            self.average.update()
        return {"loss": loss, **{f"{name}_loss": term for name, term in terms.items()}}

    def compute_loss(self, inputs: Batch, training: bool = False) -> tf.Tensor:
        """The weighted sum of `loss_terms`."""
        return tf.add_n(list(self.loss_terms(inputs, training=training).values()))

    def loss_terms(self, batch: Batch, *, training: bool) -> dict[str, tf.Tensor]:
        """Weighted terms of the loss of a batch of `training_dataset`, by name."""
        loss, settings = self.config.model.loss, self.config.model.cold_simulation
        targets = Targets.of(batch)
        pasts = [batch["history"] if "history" in batch else batch["items"]]  # [batch, time]
        pasts += [batch[PREFIX + name] for name in self.shared_histories]
        asked_by = [tf.reshape(past, [-1]) for past in pasts] if self.user_tower or loss.mask_seen else []
        asked_by += [targets.triggers] if self.trigger_tower else []
        candidates, asking = candidates_of(targets, asked_by, sampler=self.sampler, loss=loss)
        seen = None
        if loss.mask_seen:
            places = tf.where(pasts[0] >= 0, tf.reshape(asking[0], tf.shape(pasts[0])), -1)
            seen = Seen(targets.past(places), tf.size(candidates.distinct), candidates.place)
        features = self.item_table.gather(candidates.distinct)
        content = self.items.content_of(features, training=training)

        shown = content
        if training and settings.enabled:
            shown = self.items.hide_ids(content, self._hidden(tf.gather(self.training_exposures, candidates.distinct)))
        tokens = self.items.tokens(shown)  # [distinct, dim]

        posterior = candidates.posterior
        if candidates.place is not None:
            features = self.item_table.gather(candidates.rows)
            content = _gather_content(content, candidates.place)
        if training and settings.enabled:
            is_new, is_unseen = (
                tf.random.uniform(tf.shape(candidates.rows)) < share for share in (settings.brand_new, settings.unseen)
            )  # both [candidates]
            content = self.items.hide_ids(content, is_new | is_unseen | self._hidden(posterior[:, 0]))
            posterior = tf.where(is_new[:, tf.newaxis], self.items.new_posterior, posterior)
        vectors = self.items.vectors(content, features, posterior, training=training)

        terms: dict[str, tf.Tensor] = {}
        if self.user_tower:
            gathered = [
                tf.reshape(tf.gather(tokens, places), [*tf.unstack(tf.shape(past)), self.config.model.dim])
                for places, past in zip(asking, pasts, strict=False)
            ]
            further = dict(zip(self.shared_histories, gathered[1:], strict=True))
            queries = self._user_queries(batch, targets, gathered[0], further, training=training)
            interests = self.config.model.interests
            if queries.shape.rank == 3 and interests and interests.objective == "chosen":
                queries = best_interest(queries, tf.gather(vectors.vector, candidates.own))
            self._add_retrieval(terms, queries, vectors, candidates, seen=seen, weights=targets.weights)
        if self.trigger_tower:
            queries = self.trigger_tower(tf.gather(tokens, asking[-1]), training=training)
            weights = tf.where(targets.triggers >= 0, targets.weights, 0.0)
            self._add_retrieval(terms, queries, vectors, candidates, seen=seen, weights=weights)
        if loss.triplet and vectors.behaviour is not None and vectors.meta is not None:
            terms["triplet"] = loss.triplet * triplet_alignment(
                tf.gather(vectors.behaviour, candidates.own),
                tf.gather(vectors.meta, candidates.own),
                items=targets.items,
                known=tf.gather(content.known, candidates.own),
                margin=loss.margin,
                negatives=loss.triplet_negatives,
            )
        return terms

    def _add_retrieval(
        self,
        terms: dict[str, tf.Tensor],
        queries: tf.Tensor,
        vectors: ItemVectors,
        candidates: Candidates,
        *,
        seen: Seen | None,
        weights: tf.Tensor,
    ) -> None:
        config, vectors = self.config.model, vectors.apart()
        plain = queries[..., :-1]  # without the 1 for appeal, which both towers alone lack
        behaviour_query, meta_query = tf.split(plain, 2, axis=-1) if self.items.is_concat else (plain, plain)
        pairs = [("item", queries, vectors.vector, config.loss.item)]
        if config.structure == "gated":
            if not config.loss.towers_move_query:
                # Each tower follows the query space that the served vectors span. If both pulled at the query as well,
                # the weaker one would bend it.
                behaviour_query, meta_query = tf.stop_gradient(behaviour_query), tf.stop_gradient(meta_query)
            pairs.append(("behaviour", behaviour_query, vectors.behaviour, config.loss.behaviour))
            pairs.append(("meta", meta_query, vectors.meta, config.loss.meta))
        elif config.structure == "base":  # both towers are trained on their own; their sum only serves
            pairs = [
                ("behaviour", plain, vectors.behaviour, config.loss.item),
                ("meta", plain, vectors.meta, config.loss.item),
            ]
        for name, query, items, weight in pairs:
            if weight:
                value = weight * self._softmax(query / self.temperature, items, candidates, seen=seen, weights=weights)
                terms[name] = terms[name] + value if name in terms else value

    def _softmax(
        self, queries: tf.Tensor, items: tf.Tensor, candidates: Candidates, *, seen: Seen | None, weights: tf.Tensor
    ) -> tf.Tensor:
        """Of queries [targets, dim], or of interests [targets, interests, dim], each candidate scored by the best.

        Items are [candidates, dim], or [candidates, codes, dim] of which `model.item_codes.pick` has its pick.
        """
        sampled, full = sampled_softmax, full_softmax
        if queries.shape.rank == 3:
            sampled, full = best_interest_softmax, best_interest_full_softmax
        elif (codes := self.config.model.item_codes) and items.shape.rank == 3:
            sampled, full = (partial(softmax, pick=codes.pick) for softmax in (code_softmax, code_full_softmax))
        if self.config.model.loss.softmax == "full":
            return full(
                queries, items, targets=candidates.own, pool_sizes=candidates.pool_sizes, seen=seen, weights=weights
            )
        return sampled(
            queries,
            items,
            query_items=tf.gather(candidates.rows, candidates.own),
            candidate_items=candidates.rows,
            seen=seen,
            log_q=candidates.log_q,
            weights=weights,
        )

    def _user_queries(
        self, batch: Batch, targets: Targets, history: tf.Tensor, further: dict[str, tf.Tensor], *, training: bool
    ) -> tf.Tensor:
        assert self.user_tower is not None
        users = self.user_table.gather(batch["user"])
        if "history" in batch:
            lengths = _lengths(batch["history"])
            times = ClickTimes.before_query(batch["time_ms"][:, tf.newaxis] - batch["history_time_ms"], lengths)
            rows = {name: batch[PREFIX + name] for name in self.further_histories}
            return self.user_tower(
                users, history, lengths, times=times, further=self._further_tokens(rows, further), training=training
            )
        return self.user_tower.at_positions(
            users,
            history,
            _lengths(batch["items"]),
            users=targets.owners,
            positions=targets.before,
            times=ClickTimes.inside_sequences(batch["time_ms"]),
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
        return self.items.served(result), result.share_or_nan()

    def user_queries(
        self,
        users: tf.Tensor,
        history: tf.Tensor,
        age_ms: tf.Tensor | None = None,
        further: Mapping[str, tf.Tensor] | None = None,
    ) -> tf.Tensor:
        """Query vectors of users.

        Args:
          users: int32 [batch], rows of the user table.
          history: int32 [batch, time], item rows, oldest first, padded with -1.
          age_ms: int64 [batch, time], how long ago each was clicked; negative, or None, is unknown.
          further: further histories by name, int32 [batch, time] item rows or codes, oldest first, padded with -1; a
            name that is absent is empty.

        Returns:
          float32 [batch, width], or [batch, interests, width] of a model with several interests.
        """
        assert self.user_tower is not None
        none = tf.fill([tf.shape(history)[0], 1], -1)
        rows = {name: (further or {}).get(name, none) for name in self.further_histories}
        shared = {name: self._item_tokens(rows[name]) for name in self.shared_histories}
        tokens = self._item_tokens(history)
        lengths = _lengths(history)
        times = None if age_ms is None else ClickTimes.before_query(age_ms, lengths)
        return self.user_tower(
            self.user_table.gather(users), tokens, lengths, times=times, further=self._further_tokens(rows, shared)
        )

    def _item_tokens(self, rows: tf.Tensor) -> tf.Tensor:
        """Tokens of items of the catalogue: int32 [batch, time], -1 is padding -> float32 [batch, time, dim]."""
        distinct, places = tf.unique(tf.maximum(tf.reshape(rows, [-1]), 0))
        tokens = self.items.tokens(self.items.content_of(self.item_table.gather(distinct)))
        return tf.reshape(tf.gather(tokens, places), [*tf.unstack(tf.shape(rows)), self.config.model.dim])

    def _further_tokens(self, rows: Mapping[str, tf.Tensor], shared: Mapping[str, tf.Tensor]) -> FurtherTokens | None:
        """Tokens and lengths of all further histories, from those of the catalogue's items and own embeddings."""
        assert self.user_tower is not None
        if self.user_tower.fusion is None:
            return None
        own = {name: table(tf.maximum(rows[name], 0)) for name, table in self.user_tower.fusion.tables.items()}
        return {name: (tokens, _lengths(rows[name])) for name, tokens in (*shared.items(), *own.items())}

    def trigger_queries(self, rows: tf.Tensor) -> tf.Tensor:
        """Query vectors of trigger items: int32 [batch] -> [batch, width]."""
        assert self.trigger_tower is not None
        return self.trigger_tower(self.items.tokens(self.items.content_of(self.item_table.gather(rows))))


def _clicks_by_id(prepared: PreparedData) -> npt.NDArray[np.int64] | None:
    """Training clicks of each code of the item id's vocabulary, int64 [codes]."""
    name = prepared.item_id_feature
    if name is None:
        return None
    codes = np.asarray(prepared.items[name].combine_chunks())
    size = next(column.size for column in prepared.item_encoder.columns if column.name == name)
    return np.bincount(codes, weights=prepared.sampling_counts, minlength=size).astype(np.int64)


def _fusion(config: Config, prepared: PreparedData) -> HistoryFusion | None:
    if not prepared.history_lengths:
        return None
    own = {name: vocabulary.size for name, vocabulary in prepared.history_vocabularies.items()}
    return HistoryFusion(config.model, lengths=prepared.history_lengths, own=own)


def _lengths(padded: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(padded >= 0, tf.int32), axis=1)


def _gather_content(content: ItemContent, places: tf.Tensor) -> ItemContent:
    return ItemContent(*(None if part is None else tf.gather(part, places) for part in content))
