"""`model.student.stage: frozen`: Keras' loop for the student alone, after the large tower."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import tensorflow as tf

from recall.model.averaging import WeightAverage
from recall.model.batches.dataset import Batch
from recall.model.recall_model import RecallModel


class StudentStage(tf.keras.Model):
    """Trains the student of a model whose other weights stay as they are.

    Its loss is as in joint training, but what it learns from is at its best and goes without dropout. Optimizer
    and moving average are the student's own, and a checkpoint holds nothing else.
    """

    def __init__(self, model: RecallModel) -> None:
        super().__init__(name="student_stage")
        assert model.student is not None, "the model has no student"
        self.student = model.student
        self.config = model.config
        self._loss_terms = model.loss_terms  # a method is not tracked: the model itself would be saved
        decay = model.average_decay
        self.average = None if decay is None else WeightAverage(self.student.trainable_variables, decay=decay)
        self.compile(optimizer=tf.keras.optimizers.Adam(self.config.training.learning_rate))
        self.optimizer.build(self.student.trainable_variables)  # so that a checkpoint finds its state

    def weights_checkpoint(self) -> tf.train.Checkpoint:
        """The weights of the student."""
        return tf.train.Checkpoint(student=self.student)

    def averaged(self) -> AbstractContextManager[None]:
        """Inside, the student has its averaged weights, as `RecallModel.averaged`."""
        return nullcontext() if self.average is None else self.average.applied()

    def train_step(self, inputs: Batch) -> dict[str, tf.Tensor]:
        """One step; returns the terms of the student's loss. What is not asked for, the graph leaves out."""
        with tf.GradientTape() as tape:
            terms = self._loss_terms(inputs, training=True, frozen=True)
            terms = {name: term for name, term in terms.items() if name.startswith("student_")}
            loss = tf.add_n(list(terms.values()))
        variables = self.student.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        if self.average is not None:
            self.average.update()
        return {"loss": loss, **{f"{name}_loss": term for name, term in terms.items()}}
