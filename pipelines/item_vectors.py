"""Runs the item vectors job: a trained run's catalogue -> RUN/vectors, as `recall vectors` makes it in one process.

python -m pipelines.item_vectors --run DIR [--batch-size ITEMS] [Beam options]
"""

from __future__ import annotations

import argparse
import functools
import shutil
import sys
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.exchange import Scratch
from pipelines.running import running
from recall.config.experiment import load_config
from recall.core.arrays import Float32s, Int64s
from recall.core.artifacts import read_manifest
from recall.core.errors import ArtifactError, ConfigError, DataError, RecallError
from recall.core.terminal import open_console
from recall.data.audience import TOKENS, posterior_columns
from recall.data.features.table_encoder import EncodedColumn
from recall.data.fingerprints import model_fingerprint
from recall.data.prepared import PreparedData

BATCH_SIZE = 8192
"""Items that are encoded, and then saved, at once."""

_ROWS, _VECTORS, _POSTERIOR = "rows", "vectors", "posterior"
_WEIGHT = "modality_weight."
_DESCRIPTION = (
    "The item vectors job: a trained run's catalogue -> RUN/vectors, as `recall vectors` makes it in one process."
)


@dataclass(frozen=True)
class EncodingJob:
    """Hold the settings of a worker.

    Attributes:
      model: folder of the item/ SavedModel; all workers mount it.
      fingerprint: fingerprint of the model, so that a long-lived worker does not use a model of an earlier job.
      columns: the encoded columns of the catalogue.
      scratch: holds `rows` by batch: the encoded columns and the posterior.
    """

    model: str
    fingerprint: str
    columns: tuple[EncodedColumn, ...]
    scratch: Scratch


class EncodeItems(beam.DoFn):
    """Encode items: number of a batch -> the same number, when its vectors are saved.

    TensorFlow is imported by the workers alone: the driver pickles the step without it.
    """

    def __init__(self, job: EncodingJob) -> None:
        self._job = job

    def setup(self) -> None:
        """Load the model, once per process."""
        _item_model(self._job.model, self._job.fingerprint)

    def process(self, batch: int) -> Iterator[int]:
        """Encode one batch of items."""
        import tensorflow as tf

        from recall.model.layers.features import FeatureTable

        job = self._job
        table = job.scratch.read(_ROWS, batch)
        features = {
            name: tf.convert_to_tensor(rows) for name, rows in FeatureTable(job.columns, table).variables.items()
        }
        posterior = table[_POSTERIOR].combine_chunks().flatten().to_numpy().reshape(len(table), -1)
        model = _item_model(job.model, job.fingerprint)
        made = model.signatures["serving_default"](posterior=tf.constant(posterior, tf.float32), **features)
        vectors = made["vector"].numpy()
        columns = {
            "vector": _lists(vectors.reshape(len(table), -1)),
            "behaviour_share": made["behaviour_share"].numpy(),
            "codes": np.full(len(table), vectors.shape[1] if vectors.ndim == 3 else 0),
        }
        if "modalities" in model.signatures:
            weights = model.signatures["modalities"](**features)
            names = [name.decode() for name in weights["names"].numpy()]
            columns |= {_WEIGHT + name: weights["weights"][:, place].numpy() for place, name in enumerate(names)}
        job.scratch.write(_VECTORS, batch, pa.table(columns))
        yield batch


@functools.cache
def _item_model(folder: str, fingerprint: str) -> Any:
    del fingerprint
    import tensorflow as tf

    try:
        return tf.saved_model.load(folder)
    except OSError as error:
        raise DataError(
            f"{folder}: a worker cannot load this model ({str(error).splitlines()[0]}); all workers must mount the run"
        ) from error


def encode_catalogue(
    run: str | Path, *, batch_size: int = BATCH_SIZE, options: PipelineOptions | None = None
) -> dict[str, Any]:
    """Encode a run's catalogue and publish the vectors as RUN/vectors, whole or not at all.

    Args:
      run: the run's folder, which all workers mount; its model is trained.
      batch_size: number of items that are encoded at once.
      options: options of Beam; default: in this process.

    Returns:
      The manifest.

    Raises:
      ConfigError: the batch size is not positive.
      ArtifactError: data or model are missing, or were made with other settings.
      DataError: a worker cannot load the model.
    """
    run = Path(run).resolve()
    if batch_size < 1:
        raise ConfigError(f"batch size: expected at least 1, found {batch_size}")
    fingerprint = _fingerprint(run)
    prepared = PreparedData.load(run / "data")
    posterior = prepared.posterior("serving")
    tokens = np.load(path, mmap_mode="r") if (path := run / "model" / TOKENS).exists() else None
    rows = prepared.items.append_column(_POSTERIOR, _lists(posterior_columns(posterior, tokens=tokens)))
    scratch = Scratch(str(run / f".vectors-scratch.{uuid.uuid4().hex[:8]}"))
    scratch.storage.make()
    try:
        batches = range(-(-len(rows) // batch_size))
        for batch in batches:
            scratch.write(_ROWS, batch, rows.slice(batch * batch_size, batch_size))
        job = EncodingJob(str(run / "model" / "item"), fingerprint, tuple(prepared.item_encoder.columns), scratch)
        with running(options or PipelineOptions([])) as pipeline:
            (
                pipeline
                | "ListBatches" >> beam.Create(list(batches))
                | "SpreadBatches" >> beam.Reshuffle()
                | "EncodeItems" >> beam.ParDo(EncodeItems(job))
            )
        made = pa.concat_tables(scratch.read_all(_VECTORS))
        if len(made) != len(rows):
            raise DataError(
                f"{len(made):,} of {len(rows):,} items have a vector; the runner lost the others, try again"
            )
        _publish(made, run / "vectors", prepared, posterior.exposures, fingerprint)
    finally:
        shutil.rmtree(scratch.folder, ignore_errors=True)
    return read_manifest(run / "vectors", made_by="recall vectors", name="_manifest.json")


def _fingerprint(run: Path) -> str:
    """Return the fingerprint of the model, after a check that it belongs to the run's settings and data."""
    if not (run / "config.yaml").exists():
        raise ArtifactError(f"{run}: holds no run; start one with `recall run CONFIG.yaml --out {run}`")
    of_data = read_manifest(run / "data", made_by=f"recall prepare --run {run}")["fingerprint"]
    expected = model_fingerprint(load_config(run / "config.yaml"), of_data=of_data)
    found: str = read_manifest(run / "model", made_by=f"recall train --run {run}")["fingerprint"]
    if found != expected:
        raise ArtifactError(f"{run / 'model'}: was trained with other data or settings; run `recall train` again")
    return found


def _publish(made: pa.Table, directory: Path, prepared: PreparedData, exposures: Int64s, fingerprint: str) -> None:
    from recall.model.vector_table import ItemVectorTable

    vectors = made["vector"].combine_chunks().flatten().to_numpy().reshape(len(made), -1)
    if codes := made["codes"][0].as_py():  # vectors per item
        vectors = vectors.reshape(len(made), codes, -1)
    weights = {
        name.removeprefix(_WEIGHT): made[name].to_numpy() for name in made.column_names if name.startswith(_WEIGHT)
    }
    table = ItemVectorTable(
        prepared.item_ids, vectors, made["behaviour_share"].to_numpy(), exposures, fingerprint, weights
    )
    table.write(directory)


def _lists(numbers: Float32s) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(numbers).reshape(-1)), numbers.shape[1])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.item_vectors", description=_DESCRIPTION, allow_abbrev=False
    )
    parser.add_argument("--run", required=True, metavar="DIR", help="a run whose model is trained")
    parser.add_argument("--batch-size", type=int, default=BATCH_SIZE, help="items encoded, and saved, at once")
    arguments, beam_arguments = parser.parse_known_args(argv)
    try:
        manifest = encode_catalogue(
            arguments.run, batch_size=arguments.batch_size, options=PipelineOptions(beam_arguments)
        )
    except RecallError as error:
        open_console(stderr=True).print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        return 1
    open_console().print(f"{manifest['items']:,} item vectors in {Path(arguments.run) / 'vectors'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
