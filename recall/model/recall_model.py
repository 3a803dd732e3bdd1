"""The two-tower model: which vectors a batch needs, and what they are trained for."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs

from recall.config.experiment import Config
from recall.data.further_histories import PREFIX
from recall.data.prepared import PreparedData
from recall.model.averaging import WeightAverage
from recall.model.batches.cold_simulation import ColdSimulator, Shown
from recall.model.batches.dataset import Batch, UserRows
from recall.model.batches.negatives import NegativeSampler
from recall.model.batches.seen import Seen
from recall.model.batches.targets import Targets, candidates_of
from recall.model.distributed.shared_candidates import of_all_workers, of_one_worker
from recall.model.distributed.workers import Gradients, Losses, Workers
from recall.model.layers.features import EmbeddingTable, Features, FeatureTable
from recall.model.layers.gathering import gather_rows
from recall.model.layers.history_time import ClickTimes
from recall.model.objectives.alignment import triplet_alignment
from recall.model.objectives.retrieval import Ranking, retrieval_terms
from recall.model.objectives.scores import best_interest
from recall.model.objectives.student import student_terms
from recall.model.optimizers import TableOptimizer, table_optimizer
from recall.model.towers.category import CategoryHead
from recall.model.towers.history_encoders import lengths_of
from recall.model.towers.history_fusion import FurtherTokens, HistoryFusion
from recall.model.towers.item import ItemSide, ItemVectors
from recall.model.towers.query import TriggerTower, UserTower
from recall.model.towers.student import StudentTower

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
        prior = prepared.posterior_history.prior
        self.items = ItemSide(
            prepared.item_encoder.columns,
            id_name=prepared.item_id_feature,
            config=model,
            prior_ctr=prior.ctr,
            prior_strength=prior.strength if prior.items else None,
            id_clicks=prepared.clicks_by_item_code,
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
                fusion=HistoryFusion.of(config.model, prepared),
            )
            if model.query != "trigger"
            else None
        )
        self.trigger_tower = TriggerTower(model, parts=parts) if model.query != "user" else None
        self.category_head = CategoryHead.of(config.model, prepared.item_encoder.columns)
        self.student = None
        if model.student:
            self.student = StudentTower(model, model.student, parts=parts, max_length=config.data.history + 1)
        fusion = self.user_tower.fusion if self.user_tower else None
        self.history_lengths = prepared.history_lengths
        self.further_histories = fusion.names if fusion else ()
        self.shared_histories = tuple(
            name for name in self.further_histories if name not in prepared.history_vocabularies
        )
        self.sampler = NegativeSampler(prepared, pool=model.loss.negatives)
        simulation = model.cold_simulation
        self.cold_simulator = ColdSimulator(prepared, self.items, simulation) if simulation.enabled else None
        self.log_temperature = self.add_weight(
            name="log_temperature",
            shape=(),
            initializer=tf.keras.initializers.Constant(np.log(model.start_temperature)),
            trainable=model.learn_temperature,
        )
        self.table_optimizer: TableOptimizer | None = None
        self.average: WeightAverage | None = None
        self.workers: Workers | None = None  # that train the model together, if it is not one alone
        rows, history = tf.TensorSpec([None], tf.int32), tf.TensorSpec([None, None], tf.int32)
        posterior = tf.TensorSpec([None, 4], tf.float32)
        self.encode_items = tf.function(self._encode_items, input_signature=[rows, posterior])
        ages = tf.TensorSpec([None, None], tf.int64)
        further = {name: tf.TensorSpec([None, None], tf.int32, name=name) for name in self.further_histories}
        self.encode_users = tf.function(self.user_queries, input_signature=[rows, history, ages, further])
        self.encode_triggers = tf.function(self.trigger_queries, input_signature=[rows])
        self.encode_students = tf.function(self.student_queries, input_signature=[rows, history])

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
        towers = {"items": self.items, "user": self.user_tower, "trigger": self.trigger_tower, "student": self.student}
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
        if self.average_decay is not None:
            self.average = WeightAverage(self.tables + self.dense_variables, decay=self.average_decay)
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
        if self.category_head:
            self.category_head.logits(tf.zeros([1, self.config.model.dim]))
        if self.student:  # last: the others start with the numbers that they have in a model without a student
            self.student_queries(row, tf.zeros([1, 1], tf.int32))

    @property
    def average_decay(self) -> float | None:
        """`training.ema` with auto resolved."""
        if self.config.training.ema != "auto":
            return self.config.training.ema
        return _DECAY if sum(table.shape.num_elements() for table in self.tables) <= _AVERAGED_NUMBERS else None

    def averaged(self) -> AbstractContextManager[None]:
        """Inside, the model has the averaged weights that `training.ema` asks for; without it nothing changes."""
        return nullcontext() if self.average is None else self.average.applied()

    # Training

    def train_step(self, inputs: Batch) -> Losses:
        """One step; returns the terms of the loss."""
        tables, dense = self.tables, self.dense_variables
        step = self._losses_and_gradients if self.workers is None else self.workers.together(self._losses_and_gradients)
        losses, gradients = step(inputs, tables + dense)
        assert self.table_optimizer is not None, "call prepare_optimizers() before fit()"
        self.table_optimizer.apply(gradients[: len(tables)])
        pairs = zip(gradients[len(tables) :], dense, strict=True)
        self.optimizer.apply_gradients([(gradient, variable) for gradient, variable in pairs if gradient is not None])
        if self.average is not None:
            self.average.update()
        return losses

    def _losses_and_gradients(self, inputs: Batch, variables: list[tf.Variable]) -> tuple[Losses, Gradients]:
        with tf.GradientTape() as tape:
            terms = self.loss_terms(inputs, training=True)
            loss = tf.add_n(list(terms.values()))
        losses = {"loss": loss, **{f"{name}_loss": term for name, term in terms.items()}}
        return losses, tape.gradient(loss, variables)

    def compute_loss(self, inputs: Batch, training: bool = False) -> tf.Tensor:
        return tf.add_n(list(self.loss_terms(inputs, training=training).values()))

    def loss_terms(self, batch: Batch, *, training: bool, frozen: bool = False) -> dict[str, tf.Tensor]:
        """Weighted terms of the loss of a batch of `training_dataset`, by name.

        Args:
          batch: of either layout.
          training: whether dropout and the cold simulation are on.
          frozen: whether all but the student is trained already, and goes without dropout. The student has its terms
            then only, or else only then: `student.stage` says which.
        """
        loss, simulator = self.config.model.loss, self.cold_simulator if training else None
        dropout = training and not frozen
        targets = Targets.of(batch)
        pasts = [batch["history"] if "history" in batch else batch["items"]]  # [batch, time]
        pasts += [batch[PREFIX + name] for name in self.shared_histories]
        asked_by = [tf.reshape(past, [-1]) for past in pasts] if self.user_tower or loss.mask_seen else []
        asked_by += [targets.triggers] if self.trigger_tower else []
        drawn = loss if self.workers is None else of_one_worker(loss, self.workers)
        candidates, asking = candidates_of(targets, asked_by, sampler=self.sampler, loss=drawn)
        seen = None
        if loss.mask_seen:
            places = tf.where(pasts[0] >= 0, tf.reshape(asking[0], tf.shape(pasts[0])), -1)
            seen = Seen(targets.past(places), tf.size(candidates.distinct), candidates.place)
        features = self.item_table.gather(candidates.distinct)
        content = self.items.content_of(features, training=dropout)

        tokens = self.items.tokens(simulator.asked_with(content, candidates.distinct) if simulator else content)
        if candidates.place is not None:
            features = self.item_table.gather(candidates.rows)
            content = content.at(candidates.place)
        shown = Shown(content, features, candidates.posterior)
        if simulator:
            shown = simulator.candidates(*shown, candidates.rows)
        content = shown.content  # of which no id is known that was hidden
        vectors = self.items.vectors(*shown, training=dropout)

        terms: dict[str, tf.Tensor] = {}
        head, categories = self.category_head, None
        if head:
            of_candidates = head.targets(features)  # [candidates, values]
            categories = tf.gather(of_candidates, candidates.own)
            terms |= head.item_terms(vectors, of_candidates)
        ranking, ranked = Ranking(candidates, seen, self.temperature, self.config.model), vectors
        if self.workers is not None:
            ranking, ranked = of_all_workers(
                ranking, vectors, targets, past=pasts[0], sampler=self.sampler, workers=self.workers
            )
        if self.user_tower:
            placed = zip(asking, pasts, strict=False)
            gathered = [gather_rows(tokens, tf.reshape(places, tf.shape(past))) for places, past in placed]
            further = dict(zip(self.shared_histories, gathered[1:], strict=True))
            queries = self._user_queries(batch, targets, gathered[0], further, training=dropout)
            interests = self.config.model.interests
            if queries.shape.rank == 3 and interests and interests.objective == "chosen":
                queries = best_interest(queries, tf.gather(vectors.vector, candidates.own))
            terms |= retrieval_terms(queries, ranked, ranking, weights=targets.weights)
            if head:
                terms |= head.query_terms("user", queries, categories, weights=targets.weights)
        if self.trigger_tower:
            triggered = self.trigger_tower(gather_rows(tokens, asking[-1]), training=dropout)
            weights = tf.where(targets.triggers >= 0, targets.weights, 0.0)
            for name, term in retrieval_terms(triggered, ranked, ranking, weights=weights).items():
                terms[name] = terms[name] + term if name in terms else term
            if head:
                terms |= head.query_terms("trigger", triggered, categories, weights=weights)
        if loss.triplet and vectors.behaviour is not None and vectors.meta is not None:
            own = [tf.gather(part, candidates.own) for part in (vectors.behaviour, vectors.meta, content.known)]
            pairs, weight = [*own, targets.items], loss.triplet
            if self.workers is not None:  # each sees the pairs of all, as one worker would, and has its part of the sum
                pairs, weight = self.workers.gathered(*pairs), weight / self.workers.count
            behaviour, meta, known, items = pairs
            terms["triplet"] = weight * triplet_alignment(
                behaviour, meta, items=items, known=known, margin=loss.margin, negatives=loss.triplet_negatives
            )
        student = self.config.model.student
        if student and frozen == (student.stage == "frozen"):
            # Last: the others draw the random numbers that they draw in a model without a student.
            terms |= student_terms(
                self._student_queries(batch, targets, gathered[0], training=training),
                queries,
                vectors.vector,
                ranking,
                weights=targets.weights,
                config=student,
            )
        return terms

    def _user_queries(
        self, batch: Batch, targets: Targets, history: tf.Tensor, further: dict[str, tf.Tensor], *, training: bool
    ) -> tf.Tensor:
        assert self.user_tower is not None
        users = self.user_table.gather(batch["user"])
        if "history" in batch:
            lengths = lengths_of(batch["history"])
            times = ClickTimes.before_query(batch["time_ms"][:, tf.newaxis] - batch["history_time_ms"], lengths)
            rows = {name: batch[PREFIX + name] for name in self.further_histories}
            return self.user_tower(
                users, history, lengths, times=times, further=self._further_tokens(rows, further), training=training
            )
        return self.user_tower.at_positions(
            users,
            history,
            lengths_of(batch["items"]),
            users=targets.owners,
            positions=targets.before,
            times=ClickTimes.inside_sequences(batch["time_ms"]),
            training=training,
        )

    def _student_queries(self, batch: Batch, targets: Targets, tokens: tf.Tensor, *, training: bool) -> tf.Tensor:
        assert self.user_tower is not None
        assert self.student is not None
        profile = self.user_tower.profile_of(self.user_table.gather(batch["user"]))
        if "history" in batch:
            return self.student(profile, tokens, lengths_of(batch["history"]), training=training)
        return self.student.at_positions(
            profile,
            tokens,
            lengths_of(batch["items"]),
            users=targets.owners,
            positions=targets.before,
            training=training,
        )

    # Inference

    def item_vectors_of(self, features: Features, posterior: tf.Tensor) -> ItemVectors:
        """Vectors of items from their features and posterior, float32 [items, 4]."""
        return self.items.vectors(self.items.content_of(features), features, posterior)

    def _encode_items(self, rows: tf.Tensor, posterior: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        result = self.item_vectors_of(self.item_table.gather(rows), posterior)
        return self.items.served(result), result.share_or_nan()

    def user_queries(
        self,
        users: tf.Tensor | Features,
        history: tf.Tensor,
        age_ms: tf.Tensor | None = None,
        further: Mapping[str, tf.Tensor] | None = None,
    ) -> tf.Tensor:
        """Query vectors of users.

        Args:
          users: int32 [batch], rows of the user table; or the features of users that it lacks, as it gathers them.
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
        shared = {name: self.item_tokens(rows[name]) for name in self.shared_histories}
        tokens = self.item_tokens(history)
        lengths = lengths_of(history)
        times = None if age_ms is None else ClickTimes.before_query(age_ms, lengths)
        return self.user_tower(
            self._features(users), tokens, lengths, times=times, further=self._further_tokens(rows, shared)
        )

    def student_queries(self, users: tf.Tensor, history: tf.Tensor) -> tf.Tensor:
        """Query vectors of the student, made of clicks and profile alone: as `user_queries`."""
        return self.student_queries_of(users, self.item_tokens(history), lengths_of(history))

    def student_queries_of(self, users: tf.Tensor | Features, tokens: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        """The same of `item_tokens`, float32 [batch, time, dim], of which int [batch] are real."""
        assert self.user_tower is not None
        assert self.student is not None
        return self.student(self.user_tower.profile_of(self._features(users)), tokens, lengths)

    def _features(self, users: tf.Tensor | Features) -> Features:
        return users if isinstance(users, dict) else self.user_table.gather(users)

    def item_tokens(self, rows: tf.Tensor) -> tf.Tensor:
        """Tokens of items of the catalogue: int32 [batch, time], -1 is padding -> float32 [batch, time, dim]."""
        distinct, places = tf.unique(tf.maximum(tf.reshape(rows, [-1]), 0))
        tokens = self.items.tokens(self.items.content_of(self.item_table.gather(distinct)))
        return tf.gather(tokens, tf.reshape(places, tf.shape(rows)))

    def _further_tokens(self, rows: Mapping[str, tf.Tensor], shared: Mapping[str, tf.Tensor]) -> FurtherTokens | None:
        """Tokens and lengths of all further histories, from those of the catalogue's items and own embeddings."""
        assert self.user_tower is not None
        if self.user_tower.fusion is None:
            return None
        own = {name: table(tf.maximum(rows[name], 0)) for name, table in self.user_tower.fusion.tables.items()}
        return {name: (tokens, lengths_of(rows[name])) for name, tokens in (*shared.items(), *own.items())}

    def trigger_queries(self, rows: tf.Tensor) -> tf.Tensor:
        """Query vectors of trigger items: int32 [batch] -> [batch, width]."""
        assert self.trigger_tower is not None
        return self.trigger_tower(self.items.tokens(self.items.content_of(self.item_table.gather(rows))))
