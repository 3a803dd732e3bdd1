"""Hands the weights of a model on to one that knows more ids.

The vocabularies of the second model are those of the first with values added behind them: `TableEncoder.extended`.
"""

from __future__ import annotations

import tensorflow as tf

from recall.core.errors import ArtifactError
from recall.data.features.vocabulary import OUT_OF_VOCABULARY
from recall.model.layers.features import EmbeddingTable
from recall.model.recall_model import RecallModel


def carry_weights(source: RecallModel, target: RecallModel) -> dict[str, int]:
    """Copy all weights of inference, and begin the rows of added values as the row of unknown values.

    An item whose id was not listed was served with the row of unknown ids: beginning there, it stays where it was until
    it has learned better. What a model fits to its data and does not train (the content space, the clicks of ids) is
    the target's own where it depends on the number of values, and copied elsewhere.

    Args:
      source: built.
      target: built, of the same experiment.

    Returns:
      Number of added rows by encoded column, for tables that grew.

    Raises:
      ArtifactError: the models are made of different features or settings.
    """
    pairs = list(zip(_weights(source), _weights(target), strict=False))
    alike = len(_weights(source)) == len(_weights(target)) and all(
        old.shape[1:] == new.shape[1:] and old.shape[:1].as_list() <= new.shape[:1].as_list() for old, new in pairs
    )
    if not alike:
        raise ArtifactError(
            "the weights belong to a model of other features or settings, so that it cannot go on from it"
        )
    grown = {id(layer.weight): layer.of for layer in target.submodules if isinstance(layer, EmbeddingTable)}
    added: dict[str, int] = {}
    for old, new in pairs:
        if old.shape == new.shape:
            new.assign(old)
        elif id(new) in grown:
            count = int(new.shape[0] - old.shape[0])
            unknown = tf.repeat(old[OUT_OF_VOCABULARY : OUT_OF_VOCABULARY + 1], count, axis=0)
            new.assign(tf.concat([old, unknown], axis=0))
            added[grown[id(new)]] = count
    return added


def _weights(model: RecallModel) -> list[tf.Variable]:
    """List the weights of inference in the order in which the model made them."""
    parts = [model.items, model.user_tower, model.trigger_tower, model.student]
    found = [model.log_temperature, *(variable for part in parts if part is not None for variable in part.variables)]
    return list({variable.ref(): variable for variable in found}.values())
