"""What a run leaves: results/NAME.json for everyone, and OUT/ranks/NAME.npz, per example, for paired intervals."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.quality.sweep import PlannedRun
from recall.config.experiment import Config
from recall.core.artifacts import fingerprint, write_json

RESULTS = Path(__file__).with_name("results")
# What of an experiment decides about its metrics; prepared data is compared by content, and the index is measured for
# nothing but its cold bias.
_SECTIONS: dict[str, Any] = dict.fromkeys(("data", "features", "content", "model", "training", "evaluation"), True) | {
    "index": {"cold_bias", "cold_bias_tolerance"}
}
# What no structure but the gated one reads.
_OF_THE_GATE = (
    *(f"model.{key}" for key in ("gate", "gate_shape", "gate_monotone", "audience_monotone", "gate_hidden", "appeal")),
    *(f"model.loss.{key}" for key in ("behaviour", "meta", "audience", "towers_move_query")),
)
# What a key meant before the library had it, where that is not its default.
_BEFORE: dict[str, Any] = {"data.posterior.half_lives": [], "model.content_term": 0}
# What rolling evaluation alone reads; results from before there was any have no such part.
_ROLLING = ("data.items.published", "evaluation.refresh")
# Columns that filters of a service read, and no model or metric.
_UNREAD = ("data.items.attributes",)
_BASELINE_SECTIONS: dict[str, Any] = {"data": True, "evaluation": True}


class Ranks(NamedTuple):
    """Exact ranks of one split, an entry per example that the model could be asked about.

    Attributes:
      example: int32, position among all examples of the split, the same for every model.
      user: int32, code of the user, the same for every model.
      exposures: int32, of the target, before the period.
      is_cold: bool, the target had neither exposure nor click before the period.
      rank: int32, in the whole catalogue.
      rank_among_cold: int32, among cold items where the target is cold, else 0.
      rolling_exposures: int32, of the target as of its click; None without rolling evaluation, as the next.
      rolling_rank: int32, in the whole catalogue, of items as of the last refresh before the click.
    """

    example: npt.NDArray[np.int32]
    user: npt.NDArray[np.int32]
    exposures: npt.NDArray[np.int32]
    is_cold: npt.NDArray[np.bool_]
    rank: npt.NDArray[np.int32]
    rank_among_cold: npt.NDArray[np.int32]
    rolling_exposures: npt.NDArray[np.int32] | None = None
    rolling_rank: npt.NDArray[np.int32] | None = None

    def chosen(self, entries: npt.NDArray[np.intp]) -> Ranks:
        """Return the entries at some places."""
        return Ranks._make(None if values is None else values[entries] for values in self)


@dataclass(frozen=True)
class Result:
    """The JSON of one run.

    Attributes:
      run: which one.
      content: the whole JSON.
    """

    run: PlannedRun
    content: dict[str, Any]

    def block(self, split: str) -> dict[str, Any]:
        """The model's part of metrics.json."""
        blocks = self.content["metrics"][split]
        return dict(next(iter(blocks.values())))

    @property
    def identity(self) -> str:
        """Changes when the run is made again with other numbers."""
        return fingerprint(self.content["made_of"], self.content["metrics"])


class Results:
    """All results of a folder, by experiment and data set."""

    def __init__(self, folder: Path = RESULTS) -> None:
        self._by_pair: dict[tuple[str, str], dict[int, Result]] = {}
        for path in sorted(folder.glob("*--*--seed*.json")):
            result = read_result(path)
            self._by_pair.setdefault((result.run.experiment, result.run.data), {})[result.run.seed] = result

    def seeds(self, experiment: str, data: str) -> dict[int, Result]:
        """Seed -> result, rising; empty if there is none."""
        return dict(sorted(self._by_pair.get((experiment, data), {}).items()))

    def __iter__(self) -> Any:
        """Every result."""
        return (result for seeds in self._by_pair.values() for result in seeds.values())


def result_path(run: PlannedRun, folder: Path = RESULTS) -> Path:
    """Where a run's JSON goes."""
    return folder / f"{run.name}.json"


def write_result(run: PlannedRun, content: Mapping[str, Any], folder: Path = RESULTS) -> None:
    """Writes a run's JSON, with the run's own name in front."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(result_path(run, folder), {**run._asdict(), **content})


def read_result(path: Path) -> Result:
    """Reads what `write_result` wrote."""
    content = json.loads(path.read_text())
    return Result(PlannedRun(content["experiment"], content["data"], content["seed"]), content)


def write_ranks(path: Path, splits: Mapping[str, Ranks]) -> None:
    """Writes the ranks of all splits into one file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = [
        (f"{split}.{name}", values) for split, ranks in splits.items() for name, values in ranks._asdict().items()
    ]
    np.savez_compressed(path, **{name: values for name, values in columns if values is not None})


def read_ranks(path: Path, split: str) -> Ranks:
    """Reads one split of what `write_ranks` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        return Ranks(**{name: arrays[key] for name in Ranks._fields if (key := f"{split}.{name}") in arrays})


def settings_of(config: Config, *, is_baseline: bool) -> dict[str, Any]:
    """The settings that a result depends on; of paths the names alone, as files may lie anywhere."""
    sections = _BASELINE_SECTIONS if is_baseline else _SECTIONS
    settings: dict[str, Any] = _without_folders(config.model_dump(mode="json", include=sections))
    return settings


def changed_settings(stored: Mapping[str, Any], config: Config, *, is_baseline: bool) -> list[str]:
    """Keys by which a result's settings differ from a config, dotted; of those that the model's structure reads.

    A setting that the library did not have yet leaves results as they are unless the config gives it: by
    the library's rules a new key's default changes nothing. `_BEFORE` has the exceptions.
    """
    now = _flat(settings_of(config, is_baseline=is_baseline))
    before = _flat(stored)
    for key, value in _BEFORE.items():
        is_read = not is_baseline or key.split(".")[0] in _BASELINE_SECTIONS
        if is_read and not any(_is_under(known, key) for known in before):
            before |= _flat(value, key)
    given = _flat(config.model_dump(mode="json", exclude_unset=True))
    unread = [*_UNREAD, *(() if config.model.structure == "gated" else _OF_THE_GATE)]
    if "evaluation.refresh" not in before:
        unread += _ROLLING
    return [
        key
        for key in sorted({*now, *before})
        if not any(_is_under(other, key) for other in unread)
        and (now.get(key) != before[key] if key in before else any(_is_under(known, key) for known in given))
    ]


def _is_under(known: str, key: str) -> bool:
    return known == key or known.startswith(f"{key}.") or key.startswith(f"{known}.")


def _without_folders(node: Any, name: str = "") -> Any:
    if isinstance(node, Mapping):
        return {key: _without_folders(value, key) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_without_folders(value) for value in node]
    return Path(node).name if name == "path" and isinstance(node, str) else node


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    """Leaves by dotted key; an empty list or mapping is a leaf."""
    pairs = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list | tuple) else ()
    leaves: dict[str, Any] = {}
    for key, value in pairs:
        leaves |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return leaves or {prefix: node}
