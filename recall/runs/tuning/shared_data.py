"""Prepares the data of trials: once for all trials whose settings of `data` are the same."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from recall.config.experiment import Config
from recall.core.artifacts import read_manifest
from recall.core.errors import ArtifactError
from recall.data.fingerprints import data_fingerprint


class SharedData:
    """Hold the prepared data of a tuning: a folder for each choice of data settings.

    Args:
      directory: the folder of these folders.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def of(self, config: Config) -> Path:
        """Return the prepared data of an experiment; the first time it is made.

        Raises:
          ConfigError: an input file is missing.
          DataError: the input cannot be used.
        """
        made_of = data_fingerprint(config)
        folder = self.directory / made_of
        try:
            if read_manifest(folder, made_by="recall tune").get("fingerprint") == made_of:
                return folder
        except ArtifactError:
            pass  # missing or cut: made now
        from pipelines.training_data import prepare

        self.directory.mkdir(parents=True, exist_ok=True)
        prepare(config, folder, fingerprint=made_of)
        return folder

    def keep(self, configs: Iterable[Config]) -> None:
        """Remove the data of all experiments but some."""
        kept = {data_fingerprint(config) for config in configs}
        for folder in self.directory.iterdir() if self.directory.is_dir() else ():
            if folder.is_dir() and folder.name not in kept:
                shutil.rmtree(folder)
