"""Vectors of a whole catalogue out of a trained model: encode_items against Keras's own loop."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed.community import stored_run


def prepare(scratch: Path, *, system: str, items: int, batch_size: int) -> None:
    """Makes the run; an index is not needed, unless another row has asked for it."""
    del system, batch_size
    stored_run(scratch.parent, items, index=False)


def measure(scratch: Path, *, system: str, items: int, batch_size: int) -> dict[str, float]:
    """Seconds for the vectors of all items, after one batch that traces; and their mean, as a check.

    Args:
      scratch: the run is beside it.
      system: `recall`, encode_items; `keras-predict`, one model.predict of a Keras model of the same item tower for
        everything; `keras-loop`, model.predict batch by batch.
      items: size of the catalogue.
      batch_size: items per call.
    """
    from recall.data.prepared import PreparedData
    from recall.model.inference import encode_items
    from recall.training.published import load_model

    run = stored_run(scratch.parent, items, index=False)
    prepared = PreparedData.load(run / "data")
    model = load_model(run / "model", prepared)
    posterior = prepared.posterior("serving").stacked()
    rows = np.arange(items, dtype=np.int32)
    if system == "recall":
        encode_items(model, posterior[:batch_size], batch_size=batch_size)
        started = time.perf_counter()
        vectors, _ = encode_items(model, posterior, batch_size=batch_size)
        return {"seconds": time.perf_counter() - started, "mean": float(vectors.mean())}

    tower = _keras_model(model)
    tower.predict((rows[:batch_size], posterior[:batch_size]), batch_size=batch_size, verbose=0)
    started = time.perf_counter()
    if system == "keras-predict":
        vectors = tower.predict((rows, posterior), batch_size=batch_size, verbose=0)
    else:
        starts = range(0, items, batch_size)
        parts = [
            tower.predict(
                (rows[at : at + batch_size], posterior[at : at + batch_size]), batch_size=batch_size, verbose=0
            )
            for at in starts
        ]
        vectors = np.concatenate(parts)
    return {"seconds": time.perf_counter() - started, "mean": float(vectors.mean())}


def _keras_model(model: Any) -> Any:
    """The item tower of a `RecallModel`: rows and posterior in, served vectors out."""
    import tensorflow as tf

    class ItemTower(tf.keras.Model):
        """The served item vector as a Keras model."""

        def call(self, inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
            rows, posterior = inputs
            return model.items.served(model.item_vectors_of(model.item_table.gather(rows), posterior))

    return ItemTower()
