"""Takes the weights of a trained user tower out of TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from recall.core.arrays import Float32s
from recall.model.numpy_tower.tower import NumpyUserTower, TowerSettings, attention_scores


def numpy_tower_of(
    model: Any, tokens: Callable[[], Float32s], *, users: Sequence[str], items: Sequence[str]
) -> NumpyUserTower | None:
    """Convert the user tower of a model to NumPy, or return None where the tower has no NumPy form.

    Towers with a transformer, several interests or further histories have none.

    Args:
      model: a `RecallModel` with its weights.
      tokens: function that returns `RecallModel.item_tokens` of the catalogue, [items, width]; called only if
        the tower has a NumPy form.
      users: user ids by row of the user table.
      items: item ids by row of the catalogue.
    """
    tower = model.user_tower
    if tower is None or tower.interests is not None or tower.fusion is not None:
        return None
    history, head = tower.history, tower.head
    if history.name not in ("mean_history", "attention_history"):
        return None
    dim, table = tower.dim, tokens()  # the vectors of the content term stand behind the tokens
    weights: dict[str, Float32s] = {"tokens": np.ascontiguousarray(table[:, :dim]), "empty": history.empty.numpy()}
    if table.shape[1] > dim:
        weights["contents"] = np.ascontiguousarray(table[:, dim:])
    if history.name == "attention_history":
        weights["recency"] = history.recency.numpy()
        scoring = dict(zip(("hidden_kernel", "hidden_bias"), history.hidden.get_weights(), strict=True))
        scoring["score_kernel"] = history.score.get_weights()[0]
        weights |= scoring if tower.gap is not None else {"item_scores": attention_scores(weights["tokens"], scoring)}
    if tower.gap is not None:
        weights["gap"] = tower.gap.rows.numpy()
    if history.age_bias is not None:
        weights["age"] = history.age_bias.rows.numpy()
    layers = [layer.get_weights() for layer in head.stack.layers if layer.get_weights()]
    (kernel, bias), *others = layers
    weights["state_kernel"], weights["profiles"] = kernel[:dim], _profiles(model, kernel[dim:]) + bias
    for number, (kernel, bias) in enumerate(others, start=1):
        weights[f"kernel_{number}"], weights[f"bias_{number}"] = kernel, bias
    if head.shortcut is not None:
        weights["shortcut"] = head.shortcut.get_weights()[0]
    settings = TowerSettings(
        length=model.config.data.history, layers=len(layers), unit_length=head.unit_length, parts=head.parts
    )
    return NumpyUserTower(settings, weights, users=users, items=items)


def _profiles(model: Any, kernel: Float32s, *, batch_size: int = 8192) -> Float32s:
    """Multiply profiles by their part of the first layer: float32 [users + 1, units]; zeros [1, units] without any."""
    if model.user_tower.profile is None:
        return np.zeros((1, kernel.shape[1]), np.float32)
    starts = range(0, model.user_table.size, batch_size)
    rows = (np.arange(start, min(start + batch_size, model.user_table.size), dtype=np.int32) for start in starts)
    return np.concatenate([model.user_tower.profile_of(model.user_table.gather(own)).numpy() @ kernel for own in rows])
