"""The prepared data of an experiment, made when it is first asked for and shared by all that agree on it.

OUT/demo-data       the simulated community
OUT/variants/NAME   logs without the early events of some items, see `variants`
OUT/data/NAME       prepared data; NAME-xxxxxxxx for experiments that change what is prepared
OUT/taught          content vectors that were taught on prepared data
OUT/ranks           per example, what intervals are made of; see `results`
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from pydantic import Field

from benchmarks.quality.variants import check_boundaries, variant_overrides, write_cold_variant
from recall.config.experiment import Config, load_config
from recall.config.strict import Strict
from recall.core.artifacts import fingerprint, publish, read_manifest
from recall.core.errors import ArtifactError
from recall.core.tables import expand_paths
from recall.data.prepared import FORMAT_VERSION, PreparedData

_PREPARED_BY = "python -m benchmarks.quality prepare"
# Shards hold the same bytes wherever they are made. What was rejected names the files of the machine; by attributes a
# service filters, no model or metric reads them.
_NOT_CONTENT = ("rejected.parquet", "attributes.parquet")


class DataSet(Strict):
    """Where the experiments on a data set start from."""

    config: Path = Field(description="experiment file, relative to the sweep's folder")
    simulated: bool = Field(default=False, description="read what `recall simulate` writes, made if it is missing")
    cold_share: float | None = Field(default=None, description="of the catalogue, cold in test; as much in validation")
    cold_seed: int = 1
    set: dict[str, Any] = Field(default={}, description="overrides of the experiment file: dotted key -> value")


class NamedRun(Protocol):
    """What files of a run are called after."""

    @property
    def name(self) -> str:
        """Unique among runs."""


@dataclass(frozen=True)
class DataFolder:
    """Makes and finds the data of experiments below one folder.

    Attributes:
      out: the folder.
      data_sets: by name.
    """

    out: Path
    data_sets: dict[str, DataSet]

    def config(self, name: str, overrides: Sequence[str] = (), *, config_path: Path | None = None) -> Config:
        """The experiment file of a data set with its paths and some overrides; makes what the paths need.

        Args:
          name: of the data set.
          overrides: `dotted.key=value` pairs.
          config_path: an experiment file instead of the data set's own, for the same input.
        """
        data_set = self.data_sets[name]
        original = self._original_overrides(data_set)
        path = config_path or data_set.config
        if data_set.cold_share is None:
            return load_config(path, [*original, *overrides])
        variant = self.out / "variants" / name
        config = load_config(data_set.config, original)
        made_of = fingerprint(_inputs(config), data_set.cold_share, data_set.cold_seed)
        if not _is_current(variant, made_of):
            share, seed = data_set.cold_share, data_set.cold_seed
            write_cold_variant(config, variant, share=share, seed=seed, fingerprint=made_of)
        return load_config(path, [*original, *variant_overrides(variant), *overrides])

    def prepare(self, name: str, config: Config) -> PreparedData:
        """Prepared data for a config of `config(name, ...)`; made unless it is there and up to date.

        It is made with the seed of the experiment file: seeds of experiments are those of training.
        """
        directory = self._directory(name, config)
        made_of = fingerprint(FORMAT_VERSION, _inputs(config))
        if not _is_current(directory, made_of):
            from pipelines.training_data import prepare

            manifest = prepare(config, directory, fingerprint=made_of)
            if self.data_sets[name].cold_share is not None:
                check_boundaries(self.out / "variants" / name, manifest)
        return PreparedData.load(directory)

    def with_taught_vectors(self, name: str, config: Config, *, how: Literal["beside", "instead", "first"]) -> Config:
        """An experiment that also reads what `recall content train` makes of its content; taught if it is missing.

        Args:
          name: of the data set.
          config: the experiment, whose section `content` says how vectors are taught.
          how: `beside` the embeddings of `features.meta` as one more, `instead` of them, or as a `first` stage of
            training that initialises the meta tower.
        """
        vectors = self._taught(name, config)
        if how == "first":
            given = {"name": "content", "initialise": {"path": str(vectors)}, "epochs": 30}
            return config.replaced(training={"stages": [given, {"name": "clicks"}]})
        features = config.features.model_dump(mode="json")
        base = [feature for feature in features["meta"] if feature["type"] == "embedding"]
        kept = [feature for feature in features["meta"] if how == "beside" or feature not in base]
        # Clusters as the first of the base vectors has them, so that only the vectors differ.
        taught = {"name": "taught", "type": "embedding", "path": str(vectors), "clusters": base[0]["clusters"]}
        return config.replaced(features={"meta": [*kept, taught]})

    def _taught(self, name: str, config: Config) -> Path:
        prepared = self.prepare(name, config)
        made_of = fingerprint(content_fingerprint(prepared), config.content.model_dump(mode="json"), config.seed)
        directory = self.out / "taught" / f"{name}-{made_of[:8]}"
        if not directory.exists():
            from recall.content.teach.training import train_content

            with publish(directory, manifest={"fingerprint": made_of}) as scratch:
                np.save(scratch / "vectors.npy", train_content(config, prepared).vectors)
        return directory / "vectors.npy"

    def ranks_path(self, run: NamedRun) -> Path:
        """Where the per-example ranks of a run go."""
        return self.out / "ranks" / f"{run.name}.npz"

    def _directory(self, name: str, config: Config) -> Path:
        usual = self.config(name)
        same = _sections(config) == _sections(usual)
        return self.out / "data" / (name if same else f"{name}-{fingerprint(_sections(config))[:8]}")

    def _original_overrides(self, data_set: DataSet) -> list[str]:
        own = [f"{key}={json.dumps(value)}" for key, value in data_set.set.items()]  # JSON is YAML
        if not data_set.simulated:
            return own
        folder = (self.out / "demo-data").resolve()
        if not (folder / "events.parquet").exists():
            from recall.data.datasets import simulate

            # What `recall simulate` writes without options.
            simulate(users=2_000, items=3_000, days=14, exposures=300_000, seed=1).write(folder)
        return [*own, *(f"data.{name}.path={folder / name}.parquet" for name in ("events", "items", "users"))]


def content_fingerprint(prepared: PreparedData) -> str:
    """Of the bytes that were prepared; equal wherever the same data was prepared alike."""
    files = prepared.manifest["files"]
    return fingerprint(sorted((name, entry["crc32c"]) for name, entry in files.items() if _is_content(name)))


def _is_content(name: str) -> bool:
    """Whether models and metrics read a file.

    Vocabularies and encoders spell the values of further rows, in another form once in a while; the rows that there are
    stand encoded in their tables. Vectors of `embedding` features lie beside the vocabularies.
    """
    spells = name.startswith(("vocabularies/", "content_prior/encoder/")) and not name.endswith(".npz")
    return name not in _NOT_CONTENT and not spells


def _sections(config: Config) -> list[dict[str, Any]]:
    """What of a config decides about the prepared data."""
    return [config.data.model_dump(mode="json"), config.features.model_dump(mode="json")]


def _inputs(config: Config) -> list[Any]:
    """The same, and which files they are."""
    data = config.data
    features = (*config.features.item, *config.features.user)
    paths = [*expand_paths(data.events.path), data.items.path, *([data.users.path] if data.users else [])]
    paths += [feature.path for feature in features if feature.type == "embedding" and feature.path]
    return [_sections(config), [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]]


def _is_current(directory: Path, made_of: str) -> bool:
    try:
        manifest: dict[str, Any] = read_manifest(directory, made_by=_PREPARED_BY)
    except ArtifactError:
        return False
    return bool(manifest["fingerprint"] == made_of)
