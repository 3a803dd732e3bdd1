"""Trains a model step by step: gradients of its loss, one optimizer for tables and one for the rest, an average."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import tensorflow as tf
import tensorflow_recommenders as tfrs

from recall.config.experiment import Config
from recall.model.averaging import WeightAverage
from recall.model.batches.dataset import Batch
from recall.model.distributed.workers import Gradients, Losses, Workers
from recall.model.layers.features import EmbeddingTable
from recall.model.optimizers import TableOptimizer, table_optimizer

# `training.ema: auto`. An average is read and written whole in each step: at most 64 MB.
_DECAY, _AVERAGED_NUMBERS = 0.99, 1 << 24


class TrainableModel(tfrs.Model):
    """Take steps of training on the sum of `loss_terms`.

    Tables are updated by a `TableOptimizer`, everything else by the compiled Keras optimizer.

    Args:
      config: the experiment.

    Attributes:
      table_optimizer: updates the tables; None before `prepare_optimizers`.
      average: the moving average of the weights; None without `training.ema`, or before `prepare_optimizers`.
      workers: all that train the model together; None for one alone.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(name="recall")
        self.config = config
        self.table_optimizer: TableOptimizer | None = None
        self.average: WeightAverage | None = None
        self.workers: Workers | None = None

    def build_layers(self) -> None:
        """Create all variables."""
        raise NotImplementedError

    def loss_terms(self, batch: Batch, *, training: bool, frozen: bool = False) -> dict[str, tf.Tensor]:
        """Return the weighted terms of the loss of a batch, by name."""
        raise NotImplementedError

    @property
    def tables(self) -> list[tf.Variable]:
        """List the embedding tables, in a fixed order; they get sparse updates."""
        return [layer.weight for layer in self.submodules if isinstance(layer, EmbeddingTable)]

    @property
    def dense_variables(self) -> list[tf.Variable]:
        """List all trained variables but the tables."""
        is_table = {table.ref() for table in self.tables}
        return [variable for variable in self.trainable_variables if variable.ref() not in is_table]

    def prepare_optimizers(self) -> None:
        """Compile the model and create the tables' optimizer state; builds all layers first."""
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

    def restart_average(self) -> None:
        """Let the moving average begin at the weights of now."""
        if self.average is not None:
            self.average.restart()

    @property
    def average_decay(self) -> float | None:
        """Return `training.ema` with auto resolved."""
        if self.config.training.ema != "auto":
            return self.config.training.ema
        return _DECAY if sum(table.shape.num_elements() for table in self.tables) <= _AVERAGED_NUMBERS else None

    def averaged(self) -> AbstractContextManager[None]:
        """Give the model, inside, the averaged weights that `training.ema` asks for; without it nothing changes."""
        return nullcontext() if self.average is None else self.average.applied()

    @tf.autograph.experimental.do_not_convert  # no control flow of Python depends on a tensor: faster to trace
    def train_step(self, inputs: Batch) -> Losses:
        """Take one step and return the terms of the loss."""
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
        """Return the sum of the terms of the loss of a batch, float32 scalar."""
        return tf.add_n(list(self.loss_terms(inputs, training=training).values()))
