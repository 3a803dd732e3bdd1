"""Describes the parts of a run directory: what each is made of, and which command makes it.

A step reads what the one before published. A part counts as done when it is whole and its fingerprint is the one of
today's inputs. `run.py` does the steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recall.config.experiment import Config
from recall.config.index import IndexConfig
from recall.core.artifacts import HIDDEN_MANIFEST, MANIFEST, fingerprint, read_json, read_manifest
from recall.core.errors import ArtifactError, RecallError
from recall.data.fingerprints import data_fingerprint, model_fingerprint, refit_fingerprint
from recall.evaluation.ranks import RANKS
from recall.runs.parts import DATA, JUDGED, METRICS, SERVED
from recall.runs.since import Since

COMPARED = ("gated", "behaviour_only", "meta_only", "single", "base")
INDEX_SUMMARY = "summary.json"


def compared_structures(config: Config) -> list[str]:
    """Return the structures that `--compare` sets beside the configured one, as far as the features allow them."""
    return [name for name in COMPARED if name != config.model.structure and _has_features_for(config, name)]


def config_of(config: Config, structure: str) -> Config:
    """Return the experiment with another structure of the model."""
    return config if structure == config.model.structure else config.with_structure(structure)


def model_part(config: Config, structure: str) -> str:
    """Return the folder of a structure's judged model, relative to the run."""
    if structure != config.model.structure:
        return f"compare/{structure}"
    return JUDGED if config.learns_from_all else SERVED


def read_run_json(path: Path, *, made_by: str = "recall run") -> dict[str, Any]:
    """Read a JSON file of a run.

    Args:
      path: the file.
      made_by: the command that writes it, for the error.

    Raises:
      ArtifactError: it is missing or damaged.
    """
    try:
        return read_json(path)
    except FileNotFoundError:
        raise ArtifactError(f"{path}: not there yet; run `{made_by}` first") from None
    except (OSError, ValueError, TypeError) as error:
        raise ArtifactError(f"{path}: cannot be read ({error}); remove it, then run `{made_by}` again") from error


@dataclass(frozen=True)
class Step:
    """Describe one part of a run: where it lies, what it is made of, and which command makes it.

    Attributes:
      part: the folder, or a JSON file that is a part by itself.
      inputs: folder of the run -> fingerprint, for the parts that this one is made of.
      fingerprint: of the inputs and the settings.
      command: makes the part.
      otherwise: says in an error how the part differs when it has another fingerprint.
      record: file of the folder that holds the part's fingerprint; empty where the part is that file.
    """

    part: Path
    inputs: Mapping[str, str]
    fingerprint: str
    command: str
    otherwise: str
    record: str = MANIFEST

    @property
    def file(self) -> Path:
        """Return the path of the record."""
        return self.part / self.record if self.record else self.part

    def done(self) -> dict[str, Any] | None:
        """Return the record if the part is whole and made of these inputs, else None.

        With a manifest as the record, every file that it names is checked.
        """
        try:
            record = self.read(verify=True)
        except ArtifactError:
            return None  # missing or damaged: to be made again
        return record if record.get("fingerprint") == self.fingerprint else None

    def published(self, *, verify: bool = False) -> dict[str, Any]:
        """Return the record of the part.

        Args:
          verify: check the files that a manifest names.

        Raises:
          ArtifactError: the part is missing, damaged, or made of other inputs; says which command makes it.
        """
        record = self.read(verify=verify)
        if record.get("fingerprint") != self.fingerprint:
            raise self.outdated(self.part)
        return record

    def outdated(self, place: Path) -> ArtifactError:
        """Return the error for a part that was made of other inputs.

        Args:
          place: the path that the error names.
        """
        return ArtifactError(f"{place}: {self.otherwise}; run `{self.command}` again")

    def read(self, *, verify: bool) -> dict[str, Any]:
        """Read the record, whatever its fingerprint.

        Raises:
          ArtifactError: it is missing or damaged.
        """
        if self.record in (MANIFEST, HIDDEN_MANIFEST):
            return read_manifest(self.part, made_by=self.command, verify=verify, name=self.record)
        return read_run_json(self.file, made_by=self.command)


class Steps:
    """Describe the steps of one experiment in one directory.

    Each method returns a `Step`. A part's fingerprint includes that of its inputs; so the methods read the records of
    the inputs and raise `ArtifactError` for the first one that is missing, damaged or made of other inputs.

    Args:
      config: the experiment.
      directory: the run.
      since: the run that it goes on from; None where it starts anew.
    """

    def __init__(self, config: Config, directory: Path, since: Since | None = None) -> None:
        self.config, self.directory, self.since = config, directory, since

    def data(self) -> Step:
        """Describe data/, which `prepare` makes of the log."""
        return Step(
            part=self.directory / DATA,
            inputs={},
            fingerprint=self._after(self.since.data if self.since else None, data_fingerprint(self.config)),
            command=self._command("prepare"),
            otherwise="was made from other input files or settings",
        )

    def model(self, structure: str | None = None, *, compare: bool = False) -> Step:
        """Describe the model of a structure, which `train` makes of data/.

        Args:
          structure: the model's; default: the configured one.
          compare: the command of the errors has `--compare`.
        """
        structure = structure or self.config.model.structure
        of_data = self.data().published()["fingerprint"]
        made_of = model_fingerprint(config_of(self.config, structure), of_data=of_data)
        return Step(
            part=self.directory / model_part(self.config, structure),
            inputs={DATA: of_data},
            fingerprint=self._after(self.since.model if self.since else None, made_of),
            command=self._command("train", compare=compare),
            otherwise="was trained with other data or settings",
        )

    def served(self) -> Step:
        """Describe the model that is served: the judged one, or what `refit` makes of it."""
        judged = self.model()
        if not self.config.learns_from_all:
            return judged
        of_judged = judged.published()["fingerprint"]
        return Step(
            part=self.directory / SERVED,
            inputs={JUDGED: of_judged},
            fingerprint=refit_fingerprint(self.config, of_judged=of_judged),
            command=self._command("refit"),
            otherwise="was made of another model or with other settings",
        )

    def vectors(self) -> Step:
        """Describe vectors/, which `vectors` makes of the model that is served."""
        of_model = self.served().published()["fingerprint"]
        return Step(
            part=self.directory / "vectors",
            inputs={"model": of_model},
            fingerprint=of_model,
            command=self._command("vectors"),
            otherwise="was made by another model",
            record=HIDDEN_MANIFEST,
        )

    def index(self) -> Step:
        """Describe index/, which `index` makes of vectors/."""
        of_vectors = self.vectors().published()["fingerprint"]
        index = self.config.index
        # Settings that came later have no say while they are at their defaults: what was built before stays done.
        later = {name for name in ("shards", "similar") if getattr(index, name) == getattr(IndexConfig(), name)}
        section = index.model_dump(mode="json", exclude=later)
        return Step(
            part=self.directory / "index",
            inputs={"vectors": of_vectors},
            fingerprint=fingerprint(of_vectors, section, self.config.seed),
            command=self._command("index"),
            otherwise="was made from other vectors or settings",
            record=INDEX_SUMMARY,
        )

    def metrics(self, structures: list[str], *, compare: bool = False) -> Step:
        """Describe metrics.json, which `evaluate` makes of models and the index.

        Args:
          structures: of the models.
          compare: the command of the errors has `--compare`.
        """
        of_models = {
            name: self.model(name, compare=compare).published()["fingerprint"] for name in structures
        }  # by structure, as the fingerprint has them
        of_index = self.index().published()["fingerprint"]
        published = self.config.data.items.published  # it decides nothing before
        settings = [self.config.evaluation.model_dump(mode="json"), *([published] if published else [])]
        return Step(
            part=self.directory / METRICS,
            inputs={model_part(self.config, name): made_of for name, made_of in of_models.items()},
            fingerprint=fingerprint(of_models, of_index, *settings),
            command=self._command("evaluate", compare=compare),
            otherwise="was measured on other models or settings",
            record="",
        )

    def ranks(self, metrics: Step) -> Step:
        """Describe ranks/, which `evaluate` writes before metrics.json.

        Args:
          metrics: the step that both belong to.
        """
        return Step(
            part=self.directory / RANKS,
            inputs=metrics.inputs,
            fingerprint=metrics.fingerprint,
            command=metrics.command,
            otherwise=metrics.otherwise,
        )

    def published_metrics(self) -> dict[str, Any]:
        """Return metrics.json, of whatever models it is.

        Raises:
          ArtifactError: it or ranks/ is missing, damaged or made of other inputs.
        """
        configured, path = self.config.model.structure, self.directory / METRICS
        self.model().published()
        metrics = read_run_json(path, made_by=self._command("evaluate"))
        compare = any(name in metrics["test"] for name in COMPARED if name != configured)
        others = [name for name in compared_structures(self.config) if name in metrics["test"]]
        step = self.metrics([configured, *others], compare=compare)
        ranks = self.ranks(step).read(verify=True)
        if {metrics.get("fingerprint"), ranks.get("fingerprint")} != {step.fingerprint}:
            raise step.outdated(path)
        return metrics

    @staticmethod
    def _after(before: str | None, made_of: str) -> str:
        """Return the fingerprint of a part that goes on from another run's; without one, its own."""
        return made_of if before is None else fingerprint(before, made_of)

    def _command(self, step: str, *, compare: bool = False) -> str:
        return f"recall {step} --run {self.directory}{' --compare' if compare else ''}"


def _has_features_for(config: Config, structure: str) -> bool:
    try:
        config_of(config, structure)
    except RecallError:
        return False
    return True
