"""The first of several stages: the meta tower learns from given content vectors, before any click."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from recall.content.vectors import ContentVectors
from recall.model.recall_model import RecallModel

_NORM = 1e-12


class MetaInitialisation(tf.keras.Model):
    """Trains a model's meta tower until items look to it as they do to given vectors.

    InfoNCE in both directions between the meta vector, through a linear map that is thrown away afterwards, and the
    given vector of the same item, against the other items of the batch: contrastive representation distillation
    (Tian et al., ICLR 2020) with in-batch negatives in place of their memory bank. Only the meta tower is moved.

    Args:
      model: with optimizers prepared; its meta tower is trained.
      vectors: what items shall look like, aligned with the catalogue.
      temperature: of the softmax over cosines.
    """

    def __init__(self, model: RecallModel, vectors: ContentVectors, *, temperature: float) -> None:
        super().__init__(name="meta_initialisation")
        self._model, self._temperature = model, temperature
        self._unit = tf.constant(vectors.unit)  # [items, given]
        self._rows = np.flatnonzero(vectors.present).astype(np.int32)
        self.projection = tf.keras.layers.Dense(vectors.unit.shape[1], name="projection")

    def dataset(self, *, batch_size: int, seed: int) -> tf.data.Dataset:
        """Item rows int32 [batch] of one epoch, shuffled; a rest that is no full batch is dropped if there is one."""
        rows = tf.data.Dataset.from_tensor_slices(self._rows).shuffle(len(self._rows), seed=seed)
        return rows.batch(min(batch_size, len(self._rows)), drop_remainder=True)

    def train_step(self, rows: tf.Tensor) -> dict[str, tf.Tensor]:
        """One step on some items; returns the loss."""
        with tf.GradientTape() as tape:
            loss = self.alignment_loss(rows, training=True)
        variables = self._model.items.meta_variables + self.projection.trainable_variables
        pairs = zip(tape.gradient(loss, variables), variables, strict=True)
        self.optimizer.apply_gradients([(gradient, variable) for gradient, variable in pairs if gradient is not None])
        return {"loss": loss}

    def alignment_loss(self, rows: tf.Tensor, *, training: bool = False) -> tf.Tensor:
        """Mean of both directions' InfoNCE over items, int32 [batch] rows of the catalogue -> float32 scalar."""
        features = self._model.item_table.gather(rows)
        meta = self._model.items.content_of(features, training=training).meta  # [batch, dim]
        seen = tf.math.l2_normalize(self.projection(meta), axis=-1, epsilon=_NORM)  # [batch, given]
        logits = tf.matmul(seen, tf.gather(self._unit, rows), transpose_b=True) / self._temperature  # [batch, batch]
        own = tf.range(tf.shape(rows)[0])
        there, back = (
            tf.nn.sparse_softmax_cross_entropy_with_logits(labels=own, logits=one)
            for one in (logits, tf.transpose(logits))
        )
        return tf.reduce_mean(there + back) / 2


def initialise_meta(
    model: RecallModel,
    vectors: ContentVectors,
    *,
    temperature: float,
    learning_rate: float,
    epochs: int,
    batch_size: int,
    seed: int,
    verbose: int = 0,
) -> list[float]:
    """Trains the meta tower of a model towards given vectors; returns the loss of each epoch.

    Args:
      model: built, see `RecallModel.build_layers`.
      vectors: one per item of its catalogue.
      temperature: of the softmax over cosines.
      learning_rate: of Adam.
      epochs: passes over the items.
      batch_size: items per step.
      seed: of the order.
      verbose: of `tf.keras.Model.fit`.
    """
    initialisation = MetaInitialisation(model, vectors, temperature=temperature)
    initialisation.compile(optimizer=tf.keras.optimizers.Adam(learning_rate))
    dataset = initialisation.dataset(batch_size=batch_size, seed=seed)
    history = initialisation.fit(dataset, epochs=epochs, verbose=verbose)
    return [float(loss) for loss in history.history["loss"]]
