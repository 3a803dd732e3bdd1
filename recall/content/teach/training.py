"""Trains content vectors: collects the training data, runs the loop, and keeps the best of its epochs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from scipy import sparse

from recall.config.experiment import Config
from recall.content.judge.evaluation import tag_matrices
from recall.content.teach.criterion import LastNCriterion
from recall.content.teach.crowd import ClickPairs, click_pairs
from recall.content.teach.encoder import ContentEncoder
from recall.content.teach.modalities import Modality, group_modalities
from recall.content.teach.tags import tag_graph, tag_targets
from recall.content.teach.trainer import ContentTrainer, TrainingSet
from recall.content.vectors import prepared_vectors
from recall.core.arrays import Bools, Float32s, Intps
from recall.core.errors import DataError
from recall.data.prepared import PreparedData

METRIC = "val_last_n_auc"
_AUTO = {"modalities": 0.1, "shared_tags": 0.1, "crowd": 1.0, "tags": 0.1}


class TrainingResult(NamedTuple):
    """Hold the result of the training.

    Attributes:
      encoder: encoder with the weights of the best epoch.
      modalities: base vectors that it was trained on.
      vectors: float32 [items, dim], of unit length; zeros where an item has no base vector.
      learned_from: bool [items], items that training used.
      weights: loss -> weight as it was used.
      history: one entry per epoch: epoch (0 is the start, before any step), the criterion, the loss and its terms.
      best_epoch: epoch with the best criterion.
    """

    encoder: ContentEncoder
    modalities: tuple[Modality, ...]
    vectors: Float32s
    learned_from: Bools
    weights: dict[str, float]
    history: list[dict[str, Any]]
    best_epoch: int


def train_content(
    config: Config, prepared: PreparedData, *, on_epoch: Callable[[dict[str, Any]], None] | None = None
) -> TrainingResult:
    """Train an encoder as the section `content` says, and keep the epoch with the best last-N AUC on validation.

    The start counts as an epoch, so that the vectors are no worse by this criterion than the compressed base vectors.

    Args:
      config: the experiment.
      prepared: its prepared data.
      on_epoch: called with the history entry of each epoch.

    Raises:
      DataError: there are no base vectors or they do not fit together, a loss with a weight given as a number has no
        data, no loss is left, or no validation click can be used.
    """
    settings = config.content.training
    training_set = collect_training_set(config, prepared)
    present = has_any(training_set.modalities)
    learned_from = np.zeros(len(present), bool)
    learned_from[training_set.rows] = True
    criterion = LastNCriterion(prepared, present, learned_from=learned_from, seed=config.seed)
    tf.keras.utils.set_random_seed(config.seed)
    trainer = ContentTrainer(training_set, config.content, seed=config.seed)
    rng = np.random.default_rng(config.seed)
    items, pairs = ShuffledPasses(len(training_set.rows), rng), ShuffledPasses(len(training_set.pairs.after), rng)
    steps = settings.epoch_steps
    history: list[dict[str, Any]] = []
    best, best_epoch, best_weights = -math.inf, 0, trainer.encoder.get_weights()
    for epoch in range(settings.epochs + 1):
        sums: dict[str, float] = {}
        for _ in range(steps if epoch else 0):
            terms = trainer.step(
                training_set.rows[items.take(settings.batch_size)],
                pairs.take(settings.batch_size),
                trust=epoch <= config.content.noisy_pairs.warmup_epochs,
            )
            for name, term in terms.items():
                sums[name] = sums.get(name, 0.0) + float(term) / steps
        value = criterion(trainer.encoder.vectors(training_set.modalities))
        history.append({"epoch": epoch, METRIC: value, **sums})
        if on_epoch:
            on_epoch(history[-1])
        if value > best:
            best, best_epoch, best_weights = value, epoch, trainer.encoder.get_weights()
        elif epoch - best_epoch >= settings.patience:
            break
    trainer.encoder.set_weights(best_weights)
    vectors = np.where(present[:, np.newaxis], trainer.encoder.vectors(training_set.modalities), np.float32(0))
    return TrainingResult(
        encoder=trainer.encoder,
        modalities=training_set.modalities,
        vectors=vectors,
        learned_from=learned_from,
        weights=training_set.weights,
        history=history,
        best_epoch=best_epoch,
    )


def collect_training_set(config: Config, prepared: PreparedData) -> TrainingSet:
    """Collect the training data, and resolve weights of losses that are `auto`.

    Point in time: items count if they had been shown or clicked before the validation period, clicks if they are
    training examples. The base vectors and tags of later items are not used, nor are those of a held-out share
    of the items: on them, the criterion measures how new items are encoded.

    Raises:
      DataError: as `train_content`.
    """
    content, schema = config.content, config.features
    chosen = {feature.name for feature in content.embeddings(schema)}
    vectors = [one for one in prepared_vectors(prepared) if one.name in chosen]
    modalities = group_modalities(vectors, schema.modalities)
    present, known = has_any(modalities), prepared.posterior("validation")
    counts = present & ((known.exposures > 0) | (known.clicks > 0))
    counts &= np.random.default_rng(config.seed).random(len(counts)) >= content.training.held_out
    if counts.sum() < 2:
        raise DataError(
            f"content train: {int(counts.sum())} items have a base vector, were shown before the validation period and "
            "are not held out; expected at least two"
        )
    pairs = click_pairs(prepared, counts, window=content.crowd.window)
    both = [one.present.any(axis=1) & counts for one in modalities]
    has_two = bool((np.sum(both, axis=0) > 1).any())
    names = content.tag_features(schema)
    matrices = [matrix for name, matrix in tag_matrices(prepared).items() if name in names]
    has_tags = any(matrix[np.flatnonzero(counts)].nnz for matrix in matrices)
    weights = {
        "modalities": _resolved("modalities", content.loss.modalities, has_two, "items with two modalities"),
        "shared_tags": _resolved("shared_tags", content.loss.shared_tags, has_tags, "items with tags"),
        "crowd": _resolved("crowd", content.loss.crowd, bool(len(pairs.after)), "users with two clicks on such items"),
        "tags": _resolved("tags", content.loss.tags, has_tags, "items with tags"),
    }
    if not any(weights.values()):
        raise DataError("content train: no loss is left to train by; raise one of content.loss")
    tags, graph = sparse.csr_array((len(present), 0), dtype=np.float32), None
    if weights["tags"] or weights["shared_tags"]:
        tags, has = tag_targets(matrices, counts)
        if weights["tags"] and content.tag_graph.layers:
            graph = tag_graph(has, threshold=content.tag_graph.threshold)
    if not weights["crowd"]:
        pairs = ClickPairs(pairs.before[:0], pairs.after[:0])
    return TrainingSet(modalities, np.flatnonzero(counts), pairs, tags, graph, weights)


def has_any(modalities: tuple[Modality, ...]) -> Bools:
    """Mark the items with some base vector; bool [items]."""
    return np.logical_or.reduce([one.present.any(axis=1) for one in modalities])


class ShuffledPasses:
    """Draw the numbers 0 to count - 1 in random order, each once before any comes again."""

    def __init__(self, count: int, rng: np.random.Generator) -> None:
        self._count, self._rng = count, rng
        self._rest = np.zeros(0, np.intp)

    def take(self, count: int) -> Intps:
        """Draw the next `count` numbers, or all if there are fewer; intp [count]."""
        count = min(count, self._count)
        if len(self._rest) < count:
            self._rest = self._rng.permutation(self._count)
        taken, self._rest = self._rest[:count], self._rest[count:]
        return taken


def _resolved(name: str, weight: float | str, is_there: bool, what: str) -> float:
    if not isinstance(weight, str) and weight > 0 and not is_there:
        raise DataError(
            f"content.loss.{name} {weight:g}: the training period has no {what} to learn from; set it to 0 or auto"
        )
    if isinstance(weight, str):
        return _AUTO[name] if is_there else 0.0
    return float(weight)
