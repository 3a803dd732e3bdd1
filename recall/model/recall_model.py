"""Holds the two-tower model on one page: its towers, its vectors and queries, and the objectives they are trained for.

`batch_encoder.py` encodes a training batch, `objectives/listed.py` lists the objectives, `training_step.py` takes the
step.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from recall.config.experiment import Config
from recall.data.prepared import PreparedData
from recall.model.batch_encoder import BatchEncoder
from recall.model.batches.cold_simulation import ColdSimulator
from recall.model.batches.dataset import Batch, UserRows
from recall.model.batches.negatives import NegativeSampler
from recall.model.content_term.space import ContentSpace, content_space
from recall.model.layers.features import Features, FeatureTable
from recall.model.layers.history_time import ClickTimes
from recall.model.objectives.category import CategoryHead
from recall.model.objectives.listed import Objectives
from recall.model.objectives.objective import Asking
from recall.model.objectives.student import Distillation
from recall.model.randomness import stream_of
from recall.model.towers.history_encoders import lengths_of
from recall.model.towers.history_fusion import HistoryFusion
from recall.model.towers.item import ItemSide, ItemVectors, TowerOutputs
from recall.model.towers.query import TriggerTower, UserTower
from recall.model.towers.student import StudentTower
from recall.model.training_step import TrainableModel
from recall.model.user_side import UserSide

_MIN_TEMPERATURE = 0.01


class Joined(NamedTuple):
    """Hold what is served of items at a moment, and the gate's shares of behaviour and audience, NaN without one."""

    vectors: tf.Tensor  # float32 [items, width], or [items, codes, width]
    behaviour_share: tf.Tensor  # float32 [items]
    audience_share: tf.Tensor  # float32 [items]


class RecallModel(TrainableModel):
    """Rank items for users and triggers: both query towers face one item side; see `ItemSide` for the structures.

    Args:
      config: the experiment.
      prepared: its data, prepared.
    """

    def __init__(self, config: Config, prepared: PreparedData) -> None:
        super().__init__(config)
        model = config.model
        self.item_table = FeatureTable(prepared.item_encoder.columns, prepared.items)
        self.user_table = FeatureTable(prepared.user_encoder.columns, prepared.users_with_unknown())
        self.user_rows = UserRows(prepared.user_ids.to_pylist())
        self.history_lengths = prepared.history_lengths
        prior = prepared.posterior_history.prior
        with self._stream("items made"):
            self.items = ItemSide(
                prepared.item_encoder.columns,
                id_name=prepared.item_id_feature,
                config=model,
                prior_ctr=prior.ctr,
                prior_strength=prior.strength if prior.items else None,
                half_lives=len(prepared.posterior_history.half_lives_ms),
                has_audience=prepared.audience > 0,
                id_clicks=prepared.clicks_by_item_code,
                modalities=config.features.modalities,
                space=self.content_space(dim=dim) if (dim := self.config.content_term) else None,
            )
        self.log_temperature = self.add_weight(
            name="log_temperature",
            shape=(),
            initializer=tf.keras.initializers.Constant(np.log(model.start_temperature)),
            trainable=model.learn_temperature,
        )
        self._make_query_towers(prepared)
        self._make_objectives(prepared)
        self._make_functions()

    def content_space(self, *, dim: int) -> ContentSpace | None:
        """Fit the content space to the catalogue; None where items have no content that it reads."""
        features = {name: variable.numpy() for name, variable in self.item_table.variables.items()}
        return content_space(self.item_table.columns, features, dim=dim)

    def _make_query_towers(self, prepared: PreparedData) -> None:
        """Make the user tower, the trigger tower and the student, as far as the configuration asks for them."""
        model, parts = self.config.model, 2 if self.items.is_concat else 1
        longest = self.config.data.history + 1
        self.user_tower = self.trigger_tower = self.student = None
        if model.query != "trigger":
            with self._stream("user made"):
                self.user_tower = UserTower(
                    prepared.user_encoder.columns,
                    config=model,
                    parts=parts,
                    max_length=longest,
                    history_time=self.config.history_time,
                    fusion=HistoryFusion.of(model, prepared),
                )
        if model.query != "user":
            with self._stream("trigger made"):
                self.trigger_tower = TriggerTower(model, parts=parts)
        if model.student:
            with self._stream("student made"):
                self.student = StudentTower(model, model.student, parts=parts, max_length=longest)
        self._users = None
        if self.user_tower:
            self._users = UserSide(self.user_tower, self.user_table, vocabularies=tuple(prepared.history_vocabularies))
        self.further_histories = self._users.further if self._users else ()

    def _make_objectives(self, prepared: PreparedData) -> None:
        """Make what a training batch is encoded with, and the objectives that it is encoded for."""
        model = self.config.model
        asking: list[Asking] = ["user"] if self.user_tower else []
        asking += ["trigger"] if self.trigger_tower else []
        with self._stream("category head made"):
            self.category_head = CategoryHead.of(model, prepared.item_encoder.columns, asking=asking)
        distillation, is_frozen = None, False
        if self.student and self._users and model.student:
            distillation = Distillation(self.student, self._users, model.student)
            is_frozen = model.student.stage == "frozen"
        beside = None if is_frozen else distillation
        self.objectives = Objectives.of(model, towers=asking, head=self.category_head, student=beside)
        self.frozen_objectives = Objectives([distillation] if distillation and is_frozen else [])
        with self._stream("negatives"):
            self.sampler = NegativeSampler(
                prepared,
                pool=model.loss.negatives,
                shown_again=model.loss.shown_again,
                reads_audience=self.items.has_audience,
            )
        simulation = model.cold_simulation
        with self._stream("cold simulation"):
            self.cold_simulator = ColdSimulator(prepared, self.items, simulation) if simulation.enabled else None
        self._encode = BatchEncoder(
            model,
            items=self.items,
            table=self.item_table,
            users=self._users,
            triggers=self.trigger_tower,
            sampler=self.sampler,
            simulator=self.cold_simulator,
        )

    def _make_functions(self) -> None:
        """Make graphs of the answers of the model."""
        rows, history = tf.TensorSpec([None], tf.int32), tf.TensorSpec([None, None], tf.int32)
        self.encode_towers = tf.function(self._encode_towers, input_signature=[rows], autograph=False)
        self._joined: tf.types.experimental.GenericFunction | None = None
        ages = tf.TensorSpec([None, None], tf.int64)
        further = {name: tf.TensorSpec([None, None], tf.int32, name=name) for name in self.further_histories}
        self.encode_users = tf.function(
            self.user_queries, input_signature=[rows, history, ages, further], autograph=False
        )
        self.encode_triggers = tf.function(self.trigger_queries, input_signature=[rows], autograph=False)
        self.encode_students = tf.function(self.student_queries, input_signature=[rows, history], autograph=False)

    def weights_checkpoint(self) -> tf.train.Checkpoint:
        """Return a checkpoint of the weights of inference: the towers, without optimizer state and data."""
        towers = {"items": self.items, "user": self.user_tower, "trigger": self.trigger_tower, "student": self.student}
        parts = {name: tower for name, tower in towers.items() if tower is not None}
        return tf.train.Checkpoint(log_temperature=self.log_temperature, **parts)

    @property
    def temperature(self) -> tf.Tensor:
        """Return the divisor of inner products, float32 scalar."""
        return tf.maximum(tf.exp(self.log_temperature), _MIN_TEMPERATURE)

    def build_layers(self) -> None:
        """Create all variables by running every tower once on one item and one user."""
        row = tf.zeros([1], tf.int32)
        with self._stream("items built"):
            self.item_vectors_of(self.item_table.gather(row), tf.ones([1, self.items.posterior_width]))
            self.item_tokens(row[tf.newaxis])
        if self.user_tower:
            with self._stream("user built"):
                self.user_queries(row, tf.zeros([1, 1], tf.int32))
        if self.trigger_tower:
            with self._stream("trigger built"):
                self.trigger_queries(row)
        if self.category_head:
            with self._stream("category head built"):
                self.category_head.build_logits()
        if self.student:
            with self._stream("student built"):
                self.student_queries(row, tf.zeros([1, 1], tf.int32))

    def _stream(self, part: str) -> AbstractContextManager[None]:
        """Give a part random numbers that do not depend on the other parts."""
        return stream_of(part, seed=self.config.seed)

    def loss_terms(self, batch: Batch, *, training: bool, frozen: bool = False) -> dict[str, tf.Tensor]:
        """Return the weighted terms of the loss of a batch of `training_dataset`, by name.

        Args:
          batch: of either layout.
          training: whether dropout and the cold simulation are on.
          frozen: whether all but the student is trained already, and goes without dropout. The terms are then those of
            a student with `student.stage: frozen`, which has none otherwise.
        """
        objectives = self.frozen_objectives if frozen else self.objectives
        encoded = self._encode(
            batch,
            needs=objectives.needs,
            temperature=self.temperature,
            training=training,
            dropout=training and not frozen,
            workers=self.workers,
        )
        return objectives.terms(encoded)

    # Inference

    def item_vectors_of(self, features: Features, posterior: tf.Tensor) -> ItemVectors:
        """Return vectors of items from their features and posterior, as of `ItemSide.vectors`."""
        return self.items.vectors(self.items.content_of(features), features, posterior)

    def _encode_towers(self, rows: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return what is there of the `TowerOutputs` of items, int32 [items] rows, by name."""
        features = self.item_table.gather(rows)
        outputs = self.items.towers(self.items.content_of(features), features)
        return {name: part for name, part in outputs._asdict().items() if part is not None}

    def join_towers(self, outputs: Mapping[str, tf.Tensor], posterior: tf.Tensor) -> Joined:
        """Return the served vectors of items at a moment.

        Args:
          outputs: of `encode_towers`.
          posterior: float32 [items, posterior width], as of `ItemSide.vectors`.
        """
        if self._joined is None:
            parts = {name: tf.TensorSpec([None, *part.shape[1:]], part.dtype) for name, part in outputs.items()}
            known = tf.TensorSpec([None, self.items.posterior_width], tf.float32)
            self._joined = tf.function(self._join_towers, input_signature=[parts, known], autograph=False)
        return self._joined(outputs, posterior)

    def _join_towers(self, outputs: Mapping[str, tf.Tensor], posterior: tf.Tensor) -> Joined:
        result = self.items.at_moment(TowerOutputs(**outputs), posterior)
        return Joined(self.items.served(result), result.share_or_nan(), result.audience_share_or_nan())

    def item_tokens(self, rows: tf.Tensor) -> tf.Tensor:
        """Return tokens of items: int32 [batch, time] rows, -1 is padding -> float32 [batch, time, dim]."""
        distinct, places = tf.unique(tf.maximum(tf.reshape(rows, [-1]), 0))
        tokens = self.items.tokens(self.items.content_of(self.item_table.gather(distinct)))
        return tf.gather(tokens, tf.reshape(places, tf.shape(rows)))

    def user_queries(
        self,
        users: tf.Tensor | Features,
        history: tf.Tensor,
        age_ms: tf.Tensor | None = None,
        further: Mapping[str, tf.Tensor] | None = None,
    ) -> tf.Tensor:
        """Return query vectors of users.

        Args:
          users: int32 [batch], rows of the user table; or the features of users that it lacks, as it gathers them.
          history: int32 [batch, time], item rows, oldest first, padded with -1.
          age_ms: int64 [batch, time], how long ago each was clicked; negative, or None, is unknown.
          further: further histories by name, int32 [batch, time] item rows or codes, oldest first, padded with -1; a
            name that is absent is empty.

        Returns:
          float32 [batch, width], or [batch, interests, width] of a model with several interests.
        """
        assert self._users is not None
        none = tf.fill([tf.shape(history)[0], 1], -1)
        rows = {name: (further or {}).get(name, none) for name in self.further_histories}
        shared = {name: self.item_tokens(rows[name]) for name in self._users.shared}
        tokens = self.item_tokens(history)
        lengths = lengths_of(history)
        times = None if age_ms is None else ClickTimes.before_query(age_ms, lengths)
        return self._users.queries(users, tokens, lengths, times=times, rows=rows, shared=shared)

    def student_queries(self, users: tf.Tensor, history: tf.Tensor) -> tf.Tensor:
        """Return query vectors of the student, made of clicks and profile alone: as `user_queries`."""
        return self.student_queries_of(users, self.item_tokens(history), lengths_of(history))

    def student_queries_of(self, users: tf.Tensor | Features, tokens: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        """Return the same of `item_tokens`, float32 [batch, time, dim], of which int [batch] are real."""
        assert self._users is not None
        assert self.student is not None
        return self._users.student_queries(self.student, users, tokens, lengths)

    def trigger_queries(self, rows: tf.Tensor) -> tf.Tensor:
        """Return query vectors of trigger items: int32 [batch] -> [batch, width]."""
        assert self.trigger_tower is not None
        return self.trigger_tower(self.items.tokens(self.items.content_of(self.item_table.gather(rows))))
