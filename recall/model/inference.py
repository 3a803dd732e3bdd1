"""Encodes items and queries with a trained model, in batches."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from recall.core.arrays import Float32s, Int32s, Int64s
from recall.data.audience import posterior_columns
from recall.data.posterior import Posterior
from recall.model.batches.dataset import Examples, pad
from recall.model.recall_model import RecallModel


class CatalogueVectors:
    """Make vectors of the catalogue at any number of moments.

    The towers run once, and their outputs are kept: a moment costs the gate, the appeal and the join.

    Args:
      model: a trained model; its weights are read now.
      items: the first so many rows of the catalogue; default: all.
      batch_size: items per call.
    """

    def __init__(self, model: RecallModel, *, items: int | None = None, batch_size: int = 8192) -> None:
        self._model, self._batch_size = model, batch_size
        rows = np.arange(model.item_table.size if items is None else items, dtype=np.int32)
        self._parts = [
            model.encode_towers(tf.constant(rows[start : start + batch_size]))
            for start in range(0, len(rows), batch_size)
        ]
        self._tokens = audience_tokens(model) if model.items.has_audience else None

    def at(self, posterior: Posterior | Float32s) -> tuple[Float32s, Float32s]:
        """Return vectors and behaviour shares as `encode_items` does, from a posterior of the same form.

        Raises:
          ValueError: the posterior is of another width than the model's, or lacks the audience that the model reads.
        """
        vectors, behaviour_share, _ = self._joined(posterior)
        return vectors, behaviour_share

    def audience_shares(self, posterior: Posterior | Float32s) -> Float32s:
        """Return the audience shares of the gate, float32 [items]; NaN where the model reads no audiences."""
        return self._joined(posterior)[2]

    def _joined(self, posterior: Posterior | Float32s) -> tuple[Float32s, Float32s, Float32s]:
        known = posterior_columns(posterior, tokens=self._tokens)
        if known.shape[1:] != (width := self._model.items.posterior_width,):
            raise ValueError(
                f"posterior: found shape {known.shape}, expected [items, {width}]; take prepared.posterior(moment) "
                "of the data that the model was trained on"
            )
        found = [
            self._model.join_towers(part, tf.constant(known[start : start + self._batch_size]))
            for part, start in zip(self._parts, range(0, len(known), self._batch_size), strict=True)
        ]
        vectors, behaviour, audience = zip(*found, strict=True)
        return np.concatenate(vectors), np.concatenate(behaviour), np.concatenate(audience)


def audience_tokens(model: RecallModel) -> Float32s:
    """Return what audiences average: `all_tokens` without the vectors of the content term, float32 [items, dim]."""
    return all_tokens(model)[:, : model.config.model.dim]


def all_tokens(model: RecallModel, *, batch_size: int = 8192) -> Float32s:
    """Return `RecallModel.item_tokens` of the whole catalogue, [items, dim]."""
    rows = tf.range(model.item_table.size)[:, tf.newaxis]  # [items, 1]
    starts = range(0, model.item_table.size, batch_size)
    return np.concatenate([model.item_tokens(rows[start : start + batch_size])[:, 0] for start in starts])


def encode_items(
    model: RecallModel, posterior: Posterior | Float32s, *, batch_size: int = 8192
) -> tuple[Float32s, Float32s]:
    """Return vectors of the whole catalogue at a moment.

    Args:
      model: a trained model.
      posterior: of every item, `prepared.posterior(moment)`; or, for a model without audiences, its numbers
        (`Posterior.stacked`), float32 [items, 4 + 3 * half-lives].
      batch_size: items per call.

    Returns:
      float32 [items, width] vectors, with `model.item_codes` in the index [items, codes, width], and float32 [items]
      behaviour shares, NaN where the structure has no gate.

    Raises:
      ValueError: the posterior is of another width than the model's, or lacks the audience that the model reads.

    Example:
      >>> from pathlib import Path
      >>> data = recall.PreparedData.load("runs/mine/data")
      >>> model = recall.load_model(Path("runs/mine/model"), data)
      >>> vectors, shares = recall.encode_items(model, data.posterior("serving"))
      >>> vectors.shape[0], bool(shares.min() >= 0)
      (150, True)
    """
    items = len(posterior.exposures) if isinstance(posterior, Posterior) else len(posterior)
    return CatalogueVectors(model, items=items, batch_size=batch_size).at(posterior)


def modality_weights(model: RecallModel, *, batch_size: int = 8192) -> dict[str, Float32s]:
    """Return the weight of each modality in the meta vectors of the catalogue.

    Returns:
      Modality -> float32 [items], 0 where the item lacks it; the others of an item sum to 1. Empty where the model
      weighs no modalities (`model.fusion: concat`).
    """
    names = model.items.modalities
    if not names:
        return {}
    rows = tf.range(model.item_table.size)
    parts = [
        np.asarray(model.items.modality_weights(model.item_table.gather(rows[start : start + batch_size])))
        for start in range(0, model.item_table.size, batch_size)
    ]
    return dict(zip(names, np.concatenate(parts).T, strict=True))


def encode_users(
    model: RecallModel,
    users: npt.NDArray[np.object_],
    history: Int32s,
    *,
    age_ms: Int64s | None = None,
    further: Mapping[str, Int32s] | None = None,
    batch_size: int = 4096,
) -> Float32s:
    """Return user queries.

    Args:
      model: one with a user tower.
      users: ids [n]; those that the users file lacks have no profile.
      history: int32 [n, time], item rows, oldest first, -1 after the end.
      age_ms: int64 [n, time], how long before the query each click happened; negative, or None, is unknown.
      further: further histories by name, int32 [n, time] likewise; a name that is absent is empty.
      batch_size: users per call.

    Returns:
      float32 [n, width], or [n, interests, width] of a model with several interests.
    """
    rows = model.user_rows(tf.constant(users.astype(str).astype(object), tf.string))
    age_ms = np.full(history.shape, -1, np.int64) if age_ms is None else age_ms
    empty = np.full((len(users), 1), -1, np.int32)
    histories = {name: (further or {}).get(name, empty) for name in model.further_histories}

    def encode(chosen: slice) -> tf.Tensor:
        own = {name: tf.constant(lists[chosen]) for name, lists in histories.items()}
        return model.encode_users(*(tf.constant(part[chosen]) for part in (rows, history, age_ms)), own)

    starts = range(0, max(1, len(users)), batch_size)  # nobody has a shape too
    return np.concatenate([encode(slice(start, start + batch_size)) for start in starts])


def encode_students(
    model: RecallModel,
    users: npt.NDArray[np.object_],
    history: Int32s,
    *,
    batch_size: int = 4096,
) -> Float32s:
    """Return user queries of the student: arguments as `encode_users`, float32 [n, width]."""
    rows = model.user_rows(tf.constant(users.astype(str).astype(object), tf.string))
    chosen = (slice(start, start + batch_size) for start in range(0, max(1, len(users)), batch_size))
    return np.concatenate([model.encode_students(rows[part], tf.constant(history[part])) for part in chosen])


def encode_triggers(model: RecallModel, items: Int32s, *, batch_size: int = 8192) -> Float32s:
    """Return trigger queries of item rows [n]."""
    parts = [
        model.encode_triggers(tf.constant(items[start : start + batch_size]))
        for start in range(0, len(items), batch_size)
    ]
    return np.concatenate(parts) if parts else np.zeros((0, model.items.width), np.float32)


def answerable(model: RecallModel, examples: Examples) -> Examples:
    """Return the examples that the model has a query for: an i2i model needs a trigger, others take all."""
    if model.user_tower:
        return examples
    return examples.select(np.flatnonzero(examples.triggers >= 0))


def encode_queries(model: RecallModel, examples: Examples, *, student: bool = False) -> Float32s:
    """Return query vectors of `answerable` examples: of their users, or of their triggers if there is no user tower.

        As `encode_users`: [examples, interests, width] where users have several interests. With `student` those of the
        model's student, [examples, width].

    Example:
      >>> from pathlib import Path
      >>> from recall.model.batches.dataset import read_examples
      >>> data = recall.PreparedData.load("runs/mine/data")
      >>> model = recall.load_model(Path("runs/mine/model"), data)
      >>> examples = read_examples(data.shards("test"))
      >>> recall.encode_queries(model, examples).shape[0] == len(examples)
      True
    """
    width = model.config.data.history
    if student:
        return encode_students(model, examples.users, pad(examples.history, width=width))
    if model.user_tower:
        history, clicked_ms = (pad(lists, width=width) for lists in (examples.history, examples.history_times_ms))
        age_ms = np.where(history >= 0, examples.times_ms[:, np.newaxis] - clicked_ms, -1)
        further = {
            name: pad(lists, width=max(1, int(np.diff(lists.offsets).max(initial=0))))
            for name, lists in examples.further.items()
        }
        return encode_users(model, examples.users, history, age_ms=age_ms, further=further)
    return encode_triggers(model, examples.triggers)
