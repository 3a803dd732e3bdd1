"""Changes of a model that no setting offers, because nobody should serve them: they show what a part is good for."""

from __future__ import annotations

import tensorflow as tf

from recall.model.towers.audience import Audience, AudienceGate
from recall.model.towers.gate import Gate


def blind_gate() -> None:
    """From now on gates in this process see every item as if nothing were known of it, in training and after.

    Whether an item has an audience at all is seen, since without one there is no vector to trust.
    """
    logits, logits_of_audience = Gate.logits, AudienceGate.call

    def of_nothing(self: Gate, features: tf.Tensor) -> tf.Tensor:
        return logits(self, tf.zeros_like(features))

    # The same signature: Keras passes what it finds there.
    def call(self: AudienceGate, features: tf.Tensor, audience: Audience) -> tf.Tensor:
        return logits_of_audience(self, tf.zeros_like(features), audience._replace(size=tf.zeros_like(audience.size)))

    Gate.logits = of_nothing  # type: ignore[method-assign]
    AudienceGate.call = call  # type: ignore[method-assign]


INTERVENTIONS = {"blind_gate": blind_gate}
