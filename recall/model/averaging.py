"""Averages a model's weights, exponentially over the steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import tensorflow as tf


class WeightAverage(tf.Module):
    """Keep the average of variables over the steps: average <- d average + (1 - d) weight.

    Polyak & Juditsky (SIAM J. Control Optim. 30(4), 1992) in the exponential form. Departure from a constant d: it
    is at most (1 + steps) / (10 + steps), so that the first average is not that of random weights, as in
    `tf.train.ExponentialMovingAverage`. Unlike a table optimizer it touches all rows of every table in each step.
    """

    def __init__(self, variables: Sequence[tf.Variable], *, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self._averaged = list(variables)
        self.averages = [tf.Variable(variable, trainable=False, name="average") for variable in self._averaged]
        self.steps = tf.Variable(0.0, trainable=False, name="steps")

    def update(self) -> None:
        """Take the weights after a step into the average."""
        steps = self.steps.assign_add(1.0)
        decay = tf.minimum(self.decay, (1.0 + steps) / (10.0 + steps))
        for average, variable in zip(self.averages, self._averaged, strict=True):
            average.assign_sub((1.0 - decay) * (average - variable))

    def restart(self) -> None:
        """Begin at the weights of now, and follow quickly at first: a training that goes on may be short."""
        for average, variable in zip(self.averages, self._averaged, strict=True):
            average.assign(variable)
        self.steps.assign(0.0)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the variables hold their averages inside, and afterwards their values of before."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for average, variable in zip(self.averages, self._averaged, strict=True):
            held = variable.numpy()
            variable.assign(average)
            average.assign(held)
