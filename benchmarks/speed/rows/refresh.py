"""A refresh of a whole catalogue: what is known now, looked up and joined to what the towers keep, against all anew."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from benchmarks.speed.community import stored_run


def prepare(scratch: Path, *, system: str, items: int) -> None:
    """Makes the run; an index is not needed, unless another row has asked for it."""
    del system
    stored_run(scratch.parent, items, index=False)


def measure(scratch: Path, *, system: str, items: int) -> dict[str, float]:
    """Seconds until all items have the vectors of the next hour, after an hour that traces; and their mean, as a check.

    Args:
      scratch: the run is beside it.
      system: `towers kept`, as rolling evaluation does it; `all anew`, with `encode_items`.
      items: size of the catalogue.
    """
    from recall.data.prepared import PreparedData
    from recall.model.inference import CatalogueVectors, encode_items
    from recall.training.published import load_model

    run = stored_run(scratch.parent, items, index=False)
    prepared = PreparedData.load(run / "data")
    model = load_model(run / "model", prepared)
    history, rows = prepared.posterior_history, np.arange(items)
    catalogue = CatalogueVectors(model)
    hour_ms = int(prepared.manifest["split"]["test_start_ms"]) // history.bucket_ms * history.bucket_ms
    seconds = lookup = 0.0
    for hour in range(2):
        started = time.perf_counter()
        posterior = history.as_of(rows, np.full(items, hour_ms + hour * history.bucket_ms)).stacked()
        lookup = time.perf_counter() - started
        vectors, _ = catalogue.at(posterior) if system == "towers kept" else encode_items(model, posterior)
        seconds = time.perf_counter() - started
    return {"seconds": seconds, "lookup_seconds": lookup, "mean": float(vectors.mean())}
