"""Fingerprints the inputs of the steps of a run: a step whose inputs are unchanged need not run again."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from recall import __version__
from recall.config.data import DataConfig
from recall.config.experiment import Config
from recall.core.artifacts import fingerprint
from recall.core.tables import expand_paths, is_uri
from recall.data.catalogue import check_files
from recall.data.given import given_name, given_stat

_OF_REFIT = {"refit", "refit_epochs", "replay"}


def data_fingerprint(config: Config) -> str:
    """Fingerprint everything that data/ depends on: input files, settings, seed and the library's version.

    Logs given by URI count by their names alone.

    Raises:
      ConfigError: an input file is missing.
    """
    check_files(config)
    data = config.data
    logs = [data.events.path, *(history.path for history in data.histories.values() if history.path)]
    files = [
        *(path for log in logs if not is_uri(log) for path in expand_paths(log)),
        data.items.path,
        *([data.users.path] if data.users else []),
    ]
    features = (*config.features.item, *config.features.user)
    files += [feature.path for feature in features if feature.type == "embedding" and feature.path]
    # Modalities are left out: the model reads them, the data is the same whatever they are.
    without = {tower: {"__all__": {"modality"}} for tower in ("user", "behaviour", "meta")}
    sections = (_data_section(config), config.features.model_dump(mode="json", exclude=without))
    refit = ["refit"] if config.learns_from_all else []  # data from before there was one stays
    return fingerprint(__version__, sections, _stats(files), config.seed, *refit)


def _data_section(config: Config) -> dict[str, Any]:
    """Return the settings of data, without those that change nothing: data from before there were such settings stays.

    These are a time zone that is the default, half-lives where there is no fresh evidence, `refused` where examples
    carry none, no audience, and `items.published`, which rolling evaluation alone reads; that its column is an
    attribute is what the data depends on.
    """
    section: dict[str, Any] = config.data.model_dump(mode="json", exclude={"items": {"published"}})
    for table in (section["events"], section["items"], section["users"] or {}):
        if (name := given_name(table.get("path", ""))) is not None:
            table["path"] = name  # wherever the run lies
    for name in ("tail", "retire_after"):
        if section[name] == DataConfig.model_fields[name].default:
            del section[name]
    if not config.data.half_lives_ms:
        del section["posterior"]["half_lives"]
    if not config.data.refused.count:
        del section["refused"]
    if not config.data.audience:
        del section["posterior"]["audience"]
    for log in (section["events"], *section["histories"].values()):
        if log["time_zone"] in (None, "UTC"):
            del log["time_zone"]
    return section


def model_fingerprint(config: Config, *, of_data: str) -> str:
    """Fingerprint everything that a trained model depends on.

    Args:
      config: the experiment, with the model's structure.
      of_data: fingerprint of its training data.
    """
    training = config.training.model_dump(mode="json", exclude=_OF_REFIT)
    model = config.model.model_dump(mode="json")
    for name in ("base_appeal", "gate_blind"):
        if not model[name]:  # models from before there was such a setting stay
            del model[name]
    sections: list[Any] = [model, training]
    if config.model.fusion.kind != "concat":
        sections.append(config.features.modalities)
    given = [stage.initialise.path for stage in config.training.stages if stage.initialise]
    if given:
        sections.append(_stats(given))
    return fingerprint(of_data, sections, config.evaluation.exclude_seen, config.seed)


def refit_fingerprint(config: Config, *, of_judged: str) -> str:
    """Fingerprint everything that the refit of a model depends on.

    Args:
      config: the experiment.
      of_judged: fingerprint of the model that is judged.
    """
    return fingerprint(of_judged, config.training.model_dump(mode="json", include=_OF_REFIT))


def _stats(files: Iterable[str | Path]) -> list[tuple[str, int, int]]:
    return [given_stat(path) if given_name(path) else _stat(path) for path in map(Path, files)]


def _stat(path: Path) -> tuple[str, int, int]:
    return str(path), path.stat().st_size, path.stat().st_mtime_ns
