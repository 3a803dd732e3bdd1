"""Hands the weights of a model on to one that knows more ids.

The vocabularies of the second model are those of the first with values added behind them: `TableEncoder.extended`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import tensorflow as tf

from recall.core.errors import ArtifactError
from recall.data.features.vocabulary import OUT_OF_VOCABULARY
from recall.model.layers.features import EmbeddingTable
from recall.model.recall_model import RecallModel


def carry_weights(
    source: RecallModel, target: RecallModel, *, reused: Mapping[str, Mapping[str, Sequence[int]]] | None = None
) -> dict[str, int]:
    """Copy all weights of inference, and begin the rows of added values as the row of unknown values.

    An item whose id was not listed was served with the row of unknown ids: beginning there, it stays where it was until
    it has learned better. The content space stays the one that the weights were trained for: added tags and categories
    are not in it. The clicks of ids are the target's own.

    Args:
      source: built.
      target: built, of the same experiment.
      reused: by table (`items`, `users`) and encoded column, codes that stand for another value in the target; their
        rows begin anew, too.

    Returns:
      Number of added rows by encoded column, for tables that grew.

    Raises:
      ArtifactError: the models are made of different features or settings.
    """
    grown = {id(layer.weight): layer.of for layer in _tables(target)}
    added: dict[str, int] = {}
    for old, new in _pairs(_weights(source), _weights(target)):
        count = int(new.shape[0] - old.shape[0]) if old.shape.rank else 0
        if new is target.items.id_clicks:
            continue
        if id(new) in grown and count:
            unknown = tf.repeat(old[OUT_OF_VOCABULARY : OUT_OF_VOCABULARY + 1], count, axis=0)
            new.assign(tf.concat([old, unknown], axis=0))
            added[grown[id(new)]] = count
        else:
            new.assign(tf.pad(old, [[0, count], *([[0, 0]] * (old.shape.rank - 1))]) if count else old)
    for table, side in (("items", target.items), ("users", target.user_tower)):
        for layer in _tables(side):
            if rows := (reused or {}).get(table, {}).get(layer.of, ()):
                unknown = tf.repeat(layer.weight[OUT_OF_VOCABULARY : OUT_OF_VOCABULARY + 1], len(rows), axis=0)
                layer.weight.scatter_update(tf.IndexedSlices(unknown, tf.constant(rows, tf.int32)))
    return added


def _tables(side: tf.Module | None) -> list[EmbeddingTable]:
    return [] if side is None else [layer for layer in side.submodules if isinstance(layer, EmbeddingTable)]


def carry_optimizers(source: RecallModel, target: RecallModel) -> None:
    """Copy the state of the optimizers; what belongs to added rows begins as it does in a new model.

    Args:
      source: with optimizers.
      target: with optimizers, of the same experiment; its learning rates stay.
    """
    for old, new in _pairs(optimizer_state(source), optimizer_state(target)):
        new.assign(old if old.shape == new.shape else tf.concat([old, new[old.shape[0] :]], axis=0))


def optimizer_state(model: RecallModel) -> list[tf.Variable]:
    """List the variables of the optimizers but for the learning rates, in the order in which the model made them."""
    assert model.table_optimizer is not None, "call prepare_optimizers() before"
    found = [*model.table_optimizer.variables, *model.optimizer.variables]
    weights = {variable.ref() for variable in model.trainable_variables}  # optimizers name them again
    return [variable for variable in found if variable.ref() not in weights and "learning_rate" not in variable.name]


def _pairs(old: list[tf.Variable], new: list[tf.Variable]) -> list[tuple[tf.Variable, tf.Variable]]:
    """Pair variables of two models; raises ArtifactError where they are not of one experiment."""
    pairs = list(zip(old, new, strict=False))
    alike = len(old) == len(new) and all(
        before.shape[1:] == after.shape[1:] and before.shape[:1].as_list() <= after.shape[:1].as_list()
        for before, after in pairs
    )
    if not alike:
        raise ArtifactError("the weights belong to a model of other features or settings; it cannot go on from them")
    return pairs


def _weights(model: RecallModel) -> list[tf.Variable]:
    """List the weights of inference in the order in which the model made them."""
    parts = [model.items, model.user_tower, model.trigger_tower, model.student]
    found = [model.log_temperature, *(variable for part in parts if part is not None for variable in part.variables)]
    return list({variable.ref(): variable for variable in found}.values())
