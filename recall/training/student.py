"""Trains the student alone, after the large tower: `model.student.stage: frozen`."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import tensorflow as tf

from recall.model.averaging import WeightAverage
from recall.model.batches.dataset import Batch
from recall.model.recall_model import RecallModel


class StudentStage(tf.keras.Model):
    """Train the student of a model whose other weights stay as they are.

    The loss is the loss of joint training. The large tower, which the student learns from, has its best weights and no
    dropout. The student has its own optimizer and its own moving average; a checkpoint holds nothing else.
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
        """Return a checkpoint of the student's weights."""
        return tf.train.Checkpoint(student=self.student)

    def averaged(self) -> AbstractContextManager[None]:
        """Give the student its averaged weights inside a `with` block, as `RecallModel.averaged` does."""
        return nullcontext() if self.average is None else self.average.applied()

    @tf.autograph.experimental.do_not_convert  # no control flow of Python depends on a tensor: faster to trace
    def train_step(self, inputs: Batch) -> dict[str, tf.Tensor]:
        """Update the student with a batch, and return the terms of its loss. The graph drops all other terms."""
        with tf.GradientTape() as tape:
            terms = self._loss_terms(inputs, training=True, frozen=True)
            terms = {name: term for name, term in terms.items() if name.startswith("student_")}
            loss = tf.add_n(list(terms.values()))
        variables = self.student.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        if self.average is not None:
            self.average.update()
        return {"loss": loss, **{f"{name}_loss": term for name, term in terms.items()}}
