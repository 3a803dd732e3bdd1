"""Exchanges tensors between workers in a training step, through a `tf.distribute.MultiWorkerMirroredStrategy`."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import tensorflow as tf

from recall.core.errors import ConfigError, RecallError
from recall.model.distributed.tf_config import Cluster
from recall.model.optimizers import Gradient, sum_duplicate_rows

Losses: TypeAlias = dict[str, tf.Tensor]
Gradients: TypeAlias = list[Gradient | None]
Step: TypeAlias = Callable[..., tuple[Losses, Gradients]]
_LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.DeadlineExceededError)


class Workers:
    """Train one model on several workers in step, one replica each.

    Every worker holds the whole model. Its variables are plain ones, not the strategy's own: they start equal
    (`equalise`) and get equal updates, as everybody applies the same exchanged gradients, so that they stay equal bit
    by bit. Optimizers, checkpoints and inference are then those of one worker.

    Losses add up: each worker's is its part of the sum, and so are its gradients. What is `gathered`, `own_first` or a
    `total` is so inside of a step that works `together`.
    """

    def __init__(self, strategy: tf.distribute.Strategy, cluster: Cluster) -> None:
        self._strategy, self.cluster = strategy, cluster
        self.count, self.index, self.is_chief = cluster.count, cluster.index, cluster.is_chief

    @staticmethod
    def of(cluster: Cluster) -> Workers:
        """Connect with the other workers, or waits for them.

        Raises:
          RecallError: something was computed before.
          ConfigError: a worker sees several GPUs.
        """
        return _connected(cluster)

    def together(self, step: Step) -> Step:
        """Turn a step with the losses and gradients of one worker into a step with the sums of all workers.

        Of a table's gradient each worker sends the rows that its batch named, each once.
        """

        @tf.autograph.experimental.do_not_convert
        def exchanged(*arguments: Any) -> tuple[Losses, Gradients]:
            losses, gradients = step(*arguments)
            totals = tf.unstack(self.total(tf.stack(list(losses.values()))), len(losses))
            there = [_rows_once(gradient) for gradient in gradients if gradient is not None]
            summed = iter(_sum(there))
            of_all = [None if gradient is None else next(summed) for gradient in gradients]
            return dict(zip(losses, totals, strict=True)), of_all

        return lambda *arguments: self._strategy.run(exchanged, args=arguments)

    def gathered(self, *parts: tf.Tensor) -> list[tf.Tensor]:
        """Gather the rows of all workers in order: [n, ...] of each part -> [sum of n, ...]; n may differ by worker.

        Gradients go back to the worker that a row came from, summed over all workers.
        """
        return self._gathered(parts)[0]

    def own_first(self, *parts: tf.Tensor) -> list[tf.Tensor]:
        """Gather as `gathered`, but begin with the rows of this worker."""
        received, start = self._gathered(parts)
        return [tf.roll(part, -start, axis=0) for part in received]

    def total(self, value: tf.Tensor) -> tf.Tensor:
        """Sum a value over all workers, of equal shape in each; no gradient goes through it."""
        return tf.stop_gradient(_sum([value])[0])

    def share(self, weights: tf.Tensor) -> tf.Tensor:
        """Return this worker's part of the weight of all: float32 [n] -> scalar in [0, 1]."""
        own = tf.reduce_sum(weights)
        return own / tf.maximum(self.total(own), 1e-12)

    def equalise(self, variables: Sequence[tf.Variable]) -> None:
        """Give all workers the chief's values, and waits for all of them."""

        @tf.autograph.experimental.do_not_convert
        def of_chief() -> list[tf.Tensor]:
            return [self.total(variable if self.is_chief else tf.zeros_like(variable)) for variable in variables]

        values = tf.function(lambda: self._strategy.run(of_chief))()
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)

    def of_chief(self, value: float) -> float:
        """Return the chief's number; waits for all workers."""
        held = tf.Variable(value, dtype=tf.float64)
        self.equalise([held])
        return float(held.numpy())

    def _gathered(self, parts: Sequence[tf.Tensor]) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Gather the rows of all workers, and find where this worker's own begin."""
        count = tf.shape(parts[0])[:1]  # [1]
        start = tf.reduce_sum(_context().all_gather(count, axis=0)[: self.index])

        @tf.custom_gradient
        def gather(own: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
            received = _context().all_gather(_here(own), axis=0)
            received.set_shape([None, *own.shape[1:]])  # which the strategy forgets
            # Not the strategy's own gradient, which would gather the lengths once more for each part.
            return received, lambda upstream: _sum([upstream])[0][start : start + count[0]]

        return [tf.cast(gather(tf.cast(part, _sent_as(part.dtype))), part.dtype) for part in parts], start


def _sent_as(dtype: tf.DType) -> tf.DType:
    return tf.int32 if dtype == tf.bool else dtype


def _sum(values: list[Gradient]) -> list[Gradient]:
    return list(_context().all_reduce(tf.distribute.ReduceOp.SUM, [_here(value) for value in values]))


def _here(value: Gradient) -> Gradient:
    """Put a value on this replica's device: the strategy refuses what has none, such as what a data set yields."""
    return tf.nest.map_structure(tf.identity, value, expand_composites=True)


@contextlib.contextmanager
def reporting_loss_of(workers: Workers | None) -> Iterator[None]:
    """Raise RecallError where TensorFlow says that another worker no longer answers."""
    try:
        yield
    except _LOST as error:
        if workers is None:
            raise
        raise RecallError(
            f"worker {workers.index} of {workers.count}: another worker no longer answers "
            f"({str(error).splitlines()[0]}); look at what it printed, then start all of them again with --resume"
        ) from error


def _context() -> tf.distribute.ReplicaContext:
    return tf.distribute.get_replica_context()


def _rows_once(gradient: Gradient) -> Gradient:
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    rows, values = sum_duplicate_rows(gradient)
    return tf.IndexedSlices(values, rows)


@functools.cache  # TensorFlow lets a process join one cluster, once
def _connected(cluster: Cluster) -> Workers:
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise RecallError(
            f"this process has computed something before it could join the other workers ({error}); "
            "train in a fresh one"
        ) from error
    if strategy.num_replicas_in_sync != cluster.count:
        raise ConfigError(
            f"TF_CONFIG names {cluster.count} workers, which see {strategy.num_replicas_in_sync} devices; start one "
            "worker per GPU, each with its own in CUDA_VISIBLE_DEVICES"
        )
    return Workers(strategy, cluster)
