"""Trains the content encoder step by step: every loss on a batch of items and a batch of click pairs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from scipy import sparse

from recall.config.content import ContentConfig
from recall.content.teach.crowd import ClickPairs
from recall.content.teach.encoder import ContentEncoder, Encoded, Inputs, ModalityShape, inputs_of
from recall.content.teach.losses import (
    KeyQueue,
    agreement_weights,
    crowd_contrast,
    follow,
    modality_contrast,
    shared_tags_contrast,
    tag_cross_entropy,
)
from recall.content.teach.modalities import Modality
from recall.content.teach.tags import TagClassifier, tag_overlap
from recall.core.arrays import Intps

# As CLIP does, so that a learned temperature cannot make the logits explode (Radford et al., ICML 2021, section 2.5).
_LEAST_TEMPERATURE = 0.01


class TrainingSet(NamedTuple):
    """Hold the training data of the content encoder.

    Attributes:
      modalities: base vectors.
      rows: intp [items that count], items of the training period with a base vector.
      pairs: click pairs.
      tags: TF-IDF weights, sparse [items, tags]; without columns where no loss reads tags.
      graph: graph of tags, or None.
      weights: loss -> weight; 0 is off.
    """

    modalities: tuple[Modality, ...]
    rows: Intps
    pairs: ClickPairs
    tags: sparse.csr_array
    graph: sparse.coo_array | None
    weights: dict[str, float]


class ContentTrainer(tf.Module):
    """Train the encoder; hold it with everything that training alone needs.

    Args:
      training_set: training data.
      config: settings of the encoder, the losses and the training.
      seed: of the initial weights.

    Attributes:
      encoder: the trained encoder.
      slow: momentum encoder of the keys; None without queues.
      queues: queues of keys, one per modality; empty if they are off.
    """

    def __init__(self, training_set: TrainingSet, config: ContentConfig, *, seed: int) -> None:
        super().__init__()
        self.training_set, self.config = training_set, config
        self.encoder = encoder_of(training_set.modalities, config)
        self.encoder.start_from(training_set.modalities, training_set.rows, seed=seed)
        self._classifier = TagClassifier(
            training_set.tags.shape[1],
            config.dim,
            graph=training_set.graph,
            layers=config.tag_graph.layers if training_set.graph is not None else 0,
        )
        contrasts = ("modalities", "crowd", "shared_tags")
        start = float(np.log(config.temperature))
        self._log_temperatures = {
            name: tf.Variable(start, trainable=config.learn_temperature, name=f"log_temperature_{name}")
            for name in contrasts
        }
        self.slow: ContentEncoder | None = None
        self.queues: list[KeyQueue] = []
        if config.queue.size and training_set.weights["modalities"]:
            self.slow = encoder_of(training_set.modalities, config)
            self.slow.set_weights(self.encoder.get_weights())
            self.queues = [KeyQueue(config.queue.size, config.dim) for _ in training_set.modalities]
        # The true frequency in a batch differs by a factor that is the same for all items, which softmax ignores.
        log_frequency = training_set.pairs.log_frequency(training_set.tags.shape[0])  # [items]
        self._log_q = tf.constant(config.crowd.popularity_correction * log_frequency)
        layers = (self.encoder, self._classifier)
        self._learned = [variable for layer in layers for variable in layer.trainable_variables]
        self._learned += [variable for variable in self._log_temperatures.values() if variable.trainable]
        self._optimizer = tf.keras.optimizers.Adam(config.training.learning_rate)

    def step(self, items: Intps, pairs: Intps, *, trust: bool) -> dict[str, tf.Tensor]:
        """Take one step on some items and some click pairs.

        Args:
          items: rows of the catalogue.
          pairs: positions of `training_set.pairs`.
          trust: whether every pair of modalities counts in full, as in the warm-up.

        Returns:
          The terms of the loss, weighted, and `loss`, their sum; scalars.
        """
        before, after = self.training_set.pairs.before[pairs], self.training_set.pairs.after[pairs]
        rows = np.concatenate([items, before, after])
        tags = self.training_set.tags[items]
        return self._step(
            inputs_of(self.training_set.modalities, rows),
            tf.constant(items, tf.int32),
            tf.constant(tags.toarray()),
            tf.constant(tag_overlap(tags).toarray()),
            tf.constant(before),
            tf.constant(after),
            tf.constant(trust),
        )

    @tf.function(reduce_retracing=True, autograph=False)
    def _step(
        self,
        inputs: Inputs,
        items: tf.Tensor,
        tags: tf.Tensor,
        overlap: tf.Tensor,
        before: tf.Tensor,
        after: tf.Tensor,
        trust: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        count, pairs = tf.shape(items)[0], tf.shape(before)[0]
        keys = None
        if self.slow is not None:
            keys = self.slow(_head(inputs, count)).modalities  # [items, modalities, dim]
        with tf.GradientTape() as tape:
            encoded = self.encoder(inputs, training=True)
            terms = {}
            if self.training_set.weights["modalities"]:
                terms["modalities"] = self._modalities(Encoded(*(part[:count] for part in encoded)), keys, items, trust)
            if self.training_set.weights["shared_tags"]:
                terms["shared_tags"] = shared_tags_contrast(
                    encoded.item[:count], overlap, items=items, temperature=self._temperature("shared_tags")
                )
            if self.training_set.weights["tags"]:
                terms["tags"] = tag_cross_entropy(self._classifier(encoded.item[:count]), tags)
            if self.training_set.weights["crowd"]:
                terms["crowd"] = crowd_contrast(
                    encoded.item[count : count + pairs],
                    encoded.item[count + pairs :],
                    items_before=before,
                    items_after=after,
                    log_q=tf.gather(self._log_q, after),
                    temperature=self._temperature("crowd"),
                )
            terms = {name: self.training_set.weights[name] * term for name, term in terms.items()}
            loss = tf.add_n(list(terms.values()))
        gradients = tape.gradient(loss, self._learned, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        self._optimizer.apply_gradients(zip(gradients, self._learned, strict=True))
        if self.slow is not None and keys is not None:
            follow(self.slow, self.encoder, momentum=self.config.queue.momentum)
            for place, queue in enumerate(self.queues):
                there = encoded.present[:count, place]
                queue.push(tf.boolean_mask(keys[:, place], there), tf.boolean_mask(items, there))
        return {"loss": loss, **terms}

    def _modalities(self, encoded: Encoded, keys: tf.Tensor | None, items: tf.Tensor, trust: tf.Tensor) -> tf.Tensor:
        """Average the contrast over both directions of every two modalities."""
        temperature, strength = self._temperature("modalities"), self.config.noisy_pairs.strength
        terms = []
        for left, right in itertools.combinations(range(len(self.training_set.modalities)), 2):
            both = encoded.present[:, left] & encoded.present[:, right]  # [items]
            rows = tf.boolean_mask(items, both)  # [rows]
            sides = [tf.boolean_mask(encoded.modalities[:, side], both) for side in (left, right)]
            weights = agreement_weights(*sides, items=rows, strength=strength)  # [rows]
            weights = tf.where(trust, tf.ones_like(weights), weights)
            for one, other in ((0, 1), (1, 0)):
                target, further = sides[other], None
                if keys is not None:
                    place = (left, right)[other]
                    target, further = tf.boolean_mask(keys[:, place], both), self.queues[place].entries()
                terms.append(
                    modality_contrast(
                        sides[one], target, items=rows, temperature=temperature, further=further, weights=weights
                    )
                )
        return tf.add_n(terms) / len(terms)

    def _temperature(self, name: str) -> tf.Tensor:
        return tf.maximum(tf.exp(self._log_temperatures[name]), _LEAST_TEMPERATURE)


def encoder_of(modalities: Sequence[Modality], config: ContentConfig) -> ContentEncoder:
    """Make an encoder as the section `content` describes it."""
    shapes = [ModalityShape(one.name, one.features, one.width) for one in modalities]
    return ContentEncoder(
        shapes, dim=config.dim, hidden=config.hidden, dropout=config.dropout, input_dropout=config.input_dropout
    )


def _head(inputs: Inputs, count: tf.Tensor) -> Inputs:
    return tuple((frames[:count], present[:count]) for frames, present in inputs)
