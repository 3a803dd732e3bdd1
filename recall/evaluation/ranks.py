"""Writes and reads DIR/ranks, published beside metrics.json: the rank of each example's target by each model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from recall.config.evaluation import EvaluationConfig
from recall.core.arrays import Int64s
from recall.core.artifacts import MANIFEST, publish, read_manifest
from recall.core.errors import ArtifactError, RecallError

FORMAT_VERSION = 1
RANKS = "ranks"
_TEXT = pa.dictionary(pa.int32(), pa.string())
SCHEMA = pa.schema(
    [
        ("user", _TEXT),
        ("item", _TEXT),
        ("time_ms", pa.int64()),
        ("exposures", pa.int64()),  # of the target before the period
        ("rank", pa.int32()),  # in the whole catalogue
        ("rank_among_cold", pa.int32()),  # null where the target is not cold
        (
            "rolling_exposures",
            pa.int64(),
        ),  # of the target as of its click; null without rolling evaluation, as the next
        ("rolling_rank", pa.int32()),  # by items as of the last refresh before the click
    ]
)
_FILE_SCHEMA = pa.schema([("model", _TEXT), *SCHEMA])


class RollingRanks(NamedTuple):
    """Hold the ranks of a rolling evaluation.

    Attributes:
      exposures: int64 [examples], of the target as of its click.
      ranks: int64 [examples], in the whole catalogue.
    """

    exposures: Int64s
    ranks: Int64s


def ranks_table(
    *,
    users: npt.NDArray[np.object_],
    items: pa.StringArray,
    times_ms: Int64s,
    exposures: Int64s,
    ranks: Int64s,
    ranks_among_cold: Int64s,
    rolling: RollingRanks | None = None,
) -> pa.Table:
    """Build the table of one model's ranks.

    Args:
      users: object [examples], user ids.
      items: string [examples], ids of the targets.
      times_ms: int64 [examples].
      exposures: int64 [examples], of the target before the evaluated period.
      ranks: int64 [examples], in the whole catalogue, 1 is best.
      ranks_among_cold: int64 [examples], among cold items only; 0 where the target is not cold.
      rolling: the same of the rolling evaluation, where there is one.

    Returns:
      A table of `SCHEMA`.
    """
    unknown = pa.nulls(len(ranks))
    columns = [
        pa.array(users, pa.string()).dictionary_encode(),
        items.dictionary_encode(),
        pa.array(times_ms),
        pa.array(exposures),
        pa.array(ranks.astype(np.int32)),
        pa.array(ranks_among_cold.astype(np.int32), mask=ranks_among_cold == 0),
        pa.array(rolling.exposures) if rolling else unknown.cast(pa.int64()),
        pa.array(rolling.ranks.astype(np.int32)) if rolling else unknown.cast(pa.int32()),
    ]
    return pa.table(columns, schema=SCHEMA)


def write_ranks(
    run: Path,
    tables: Mapping[str, Mapping[str, pa.Table]],
    *,
    fingerprint: str,
    configured: str,
    catalogue: int,
    evaluation: EvaluationConfig,
    made_of: Mapping[str, str],
) -> None:
    """Publish DIR/ranks: test.parquet and validation.parquet, a row per model and example.

    Args:
      run: the run directory.
      tables: split -> model -> a table of `SCHEMA`.
      fingerprint: hash of all inputs of the evaluation.
      configured: name of the configured model.
      catalogue: number of items that were ranked.
      evaluation: slices, and whether seen items were left out.
      made_of: folder of each evaluated model in the run -> its fingerprint.
    """
    manifest: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "fingerprint": fingerprint,
        "configured": configured,
        "catalogue": catalogue,
        "exclude_seen": evaluation.exclude_seen,
        "exposure_buckets": list(evaluation.exposure_buckets),
        "made_of": dict(made_of),
        "models": {split: list(models) for split, models in tables.items()},
    }
    with publish(run / RANKS, manifest=manifest) as scratch:
        for split, models in tables.items():
            # A model's rows lie together, so that one model is read without the others.
            with pq.ParquetWriter(scratch / f"{split}.parquet", _FILE_SCHEMA, compression="zstd") as writer:
                for model, table in models.items():
                    name = pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(table), np.int32)), pa.array([model]))
                    writer.write_table(table.add_column(0, "model", name))


@dataclass(frozen=True)
class Ranks:
    """Open the published ranks of a run; tables are read on demand.

    Attributes:
      run: the run directory.
      manifest: written by `write_ranks`.
    """

    run: Path
    manifest: dict[str, Any]

    @classmethod
    def load(cls, run: str | Path) -> Ranks:
        """Open DIR/ranks and check every byte; neither the experiment's input files nor its models are needed.

        Raises:
          ArtifactError: there are no ranks, they are damaged, or a model was trained again since.
        """
        run = Path(run)
        if not run.is_dir():
            raise ArtifactError(f"{run}: no such directory; expected the directory of a run")
        command = f"recall evaluate --run {run}"
        manifest = read_manifest(run / RANKS, made_by=command, verify=True)
        if (found := manifest.get("format_version")) != FORMAT_VERSION:
            raise ArtifactError(
                f"{run / RANKS}: has format version {found}, expected {FORMAT_VERSION}; run `{command}` again"
            )
        if any(folder.startswith("compare/") for folder in manifest["made_of"]):
            command += " --compare"
        for folder, made_of in manifest["made_of"].items():
            # Ranks that were copied without the models are as good as they were.
            if not (run / folder / MANIFEST).exists():
                continue
            if read_manifest(run / folder, made_by=f"recall train --run {run}")["fingerprint"] != made_of:
                raise ArtifactError(f"{run / RANKS}: {folder} was trained again since; run `{command}` again")
        return cls(run, manifest)

    @property
    def configured(self) -> str:
        """Return the name of the configured model."""
        return str(self.manifest["configured"])

    def models(self, split: str) -> list[str]:
        """List the models and baselines that were evaluated on a split, the configured one first.

        Raises:
          RecallError: there is no such split; names the splits that exist.
        """
        models: dict[str, list[str]] = self.manifest["models"]
        if split not in models:
            raise RecallError(f"split {split}: expected one of {', '.join(models)}")
        return models[split]

    def table(self, split: str, model: str) -> pa.Table:
        """Read the ranks of one model, in order of (time, user, item), as a table of `SCHEMA`.

        Raises:
          RecallError: there is no such split or model; names the existing ones.
        """
        if model not in (known := self.models(split)):
            raise RecallError(
                f"model {model}: {self.run} has {', '.join(known)} on {split}; give one of these, or evaluate the "
                f"other structures, too: `recall evaluate --run {self.run} --compare`"
            )
        path = self.run / RANKS / f"{split}.parquet"
        return pq.read_table(path, filters=[("model", "=", model)], columns=SCHEMA.names, schema=_FILE_SCHEMA)

    def rolling_table(self, split: str, model: str) -> pa.Table:
        """Read the ranks of one model by its rolling evaluation.

        Returns:
          The columns of `table` up to `rank`, `exposures` as of the click.

        Raises:
          RecallError: as `table`, and where the run has no rolling evaluation.
        """
        table = self.table(split, model)
        if len(table) and table["rolling_rank"].null_count:
            raise RecallError(
                f"{self.run}: has no rolling evaluation; set evaluation.refresh (it needs a split by time), and run "
                f"`recall evaluate --run {self.run}` again"
            )
        table = table.select(["user", "item", "time_ms", "rolling_exposures", "rolling_rank"])
        return table.rename_columns(["user", "item", "time_ms", "exposures", "rank"])
