"""Says which run another one goes on from: DIR/since.json.

The fingerprints are noted, so that a run stays whole when the one before it is gone.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recall.config.experiment import Config, load_config
from recall.core.artifacts import read_manifest, write_json
from recall.core.errors import ArtifactError, ConfigError
from recall.runs.parts import DATA, SERVED

_FILE = "since.json"

# What a model is made of, and what its weights mean. All other settings may change from day to day.
_MADE_OF = ("features", "model")
_FREE = ("loss", "cold_simulation")
_OF_DATA = ("history", "posterior", "layout", "trigger", "refused")


@dataclass(frozen=True)
class Since:
    """Name the run that another one goes on from.

    Attributes:
      run: its directory.
      data: fingerprint of its data.
      model: fingerprint of the model that it serves.
    """

    run: Path
    data: str
    model: str

    @classmethod
    def of(cls, run: Path, config: Config) -> Since:
        """Look at a finished run, and check that an experiment can go on from it.

        Args:
          run: its directory.
          config: the experiment of today.

        Raises:
          ArtifactError: there is no finished run.
          ConfigError: its model has not learned the held-out clicks, or is another one than the experiment describes.
        """
        if not (path := run / "config.yaml").exists():
            raise ArtifactError(f"--from {run}: holds no run; start one with `recall run CONFIG.yaml --out {run}`")
        before = load_config(path)
        if not before.learns_from_all:
            raise ConfigError(
                f"--from {run}: its model has not learned from the held-out end of its log (training.refit: none), so "
                "that nobody ever would; run it again with training.refit: continue"
            )
        if config.training.refit != "continue":
            raise ConfigError(
                f"training.refit: found {config.training.refit}, but --from goes on from the weights of {run}; set "
                "training.refit: continue, or leave --from out"
            )
        if changed := _changes(before, config):
            raise ConfigError(
                f"--from {run}: its model is another one: {'; '.join(changed)}; set it back, or leave --from out to "
                "start anew"
            )
        of_data, of_model = (
            str(read_manifest(run / part, made_by=f"recall run ... --out {run}")["fingerprint"])
            for part in (DATA, SERVED)
        )
        return cls(run, of_data, of_model)

    @classmethod
    def read(cls, directory: Path) -> Since | None:
        """Read what `write` wrote into a run; None for a run that started anew."""
        path = directory / _FILE
        if not path.exists():
            return None
        found = json.loads(path.read_text())
        return cls(Path(found["run"]), found["data"], found["model"])

    def write(self, directory: Path) -> None:
        """Write the file into a run."""
        write_json(directory / _FILE, {**asdict(self), "run": str(self.run)})


def forget(directory: Path) -> None:
    """Remove what `Since.write` wrote: the run starts anew."""
    (directory / _FILE).unlink(missing_ok=True)


def _changes(before: Config, now: Config) -> list[str]:
    """List the settings that a model's weights depend on and that differ, in words."""
    old, new = (_settings(config) for config in (before, now))
    return [
        f"{name} was {_shown(old.get(name))}, now {_shown(new.get(name))}"
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]


def _settings(config: Config) -> dict[str, Any]:
    sections = {name: getattr(config, name).model_dump(mode="json") for name in _MADE_OF}
    for name in _FREE:
        sections["model"].pop(name, None)
    for tower in ("user", "behaviour", "meta"):
        for feature in sections["features"][tower]:
            feature.pop("path", None)  # tomorrow's vectors may lie elsewhere
    data = config.data.model_dump(mode="json")
    sections["data"] = {name: data[name] for name in _OF_DATA if name in data}
    return dict(_flat("", sections))


def _flat(prefix: str, value: Any) -> list[tuple[str, Any]]:
    """List the leaves of nested settings by dotted key; the features of a tower by their names."""
    if isinstance(value, list) and value and all(isinstance(entry, dict) and "name" in entry for entry in value):
        value = {entry["name"]: entry for entry in value}
    if not isinstance(value, dict):
        return [(prefix, value)]
    dotted = f"{prefix}." if prefix else ""
    return [leaf for name, inner in value.items() for leaf in _flat(f"{dotted}{name}", inner)]


def _shown(value: Any) -> str:
    return "absent" if value is None else json.dumps(value)
