"""Loads the data and the models of a run once for all steps of a process."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from recall.config.experiment import Config
from recall.core.artifacts import read_manifest
from recall.runs.parts import SERVED
from recall.runs.steps import Steps, model_part

if TYPE_CHECKING:
    from recall.data.prepared import PreparedData
    from recall.model.recall_model import RecallModel


class Loaded:
    """Hold the prepared data and the configured models of a run; files that changed are read again.

    Args:
      config: the experiment.
      directory: the run.
      steps: its steps.
    """

    def __init__(self, config: Config, directory: Path, steps: Steps) -> None:
        self._config, self._directory, self._steps = config, directory, steps
        self._prepared: PreparedData | None = None
        self._models: dict[str, tuple[Any, RecallModel]] = {}  # folder -> what it was made of, and the model

    def judged(self, structure: str) -> tuple[PreparedData, RecallModel]:
        """Return the data as a judged model knows it, and the judged model of a structure."""
        prepared = self._data().judged()
        part = model_part(self._config, structure)
        return prepared, self._model(part, prepared, keep=structure == self._config.model.structure)

    def served(self) -> tuple[PreparedData, RecallModel]:
        """Return the data and the model that are served."""
        if not self._config.learns_from_all:
            return self.judged(self._config.model.structure)
        prepared = self._data()
        return prepared, self._model(SERVED, prepared, keep=True)

    def _data(self) -> PreparedData:
        from recall.data.prepared import PreparedData

        made_of = self._steps.data().published()["fingerprint"]
        if self._prepared is None or self._prepared.manifest["fingerprint"] != made_of:
            self._models.clear()
            self._prepared = PreparedData.load(self._directory / "data")
        return self._prepared

    def _model(self, part: str, prepared: PreparedData, *, keep: bool) -> RecallModel:
        from recall.training.published import load_model

        folder = self._directory / part
        if not keep:
            return load_model(folder, prepared)
        # The checksums of its files are in the manifest: a model that was trained again is another one.
        manifest = read_manifest(folder, made_by="recall train")
        if part not in self._models or self._models[part][0] != manifest:
            self._models.pop(part, None)  # not two of a kind in memory
            self._models[part] = manifest, load_model(folder, prepared)
        return self._models[part][1]
