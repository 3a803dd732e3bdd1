"""Paired intervals between experiments, from per-example ranks: results/intervals.json.

Ranks are large and stay with whoever ran the experiments; the intervals made of them are kept with the results.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.quality.data import DataFolder
from benchmarks.quality.results import RESULTS, Ranks, Result, Results, read_ranks
from benchmarks.quality.slices import METRICS, ROLLING, SLICES, slice_members, slice_values
from benchmarks.quality.sweep import Sweep
from recall.core.artifacts import fingerprint, write_json
from recall.evaluation.metrics import chance

CHANCE = "chance"
_RESAMPLES = 10_000


class Comparison(NamedTuple):
    """The mean over seeds of two experiments on the same test examples.

    Attributes:
      first: experiment.
      second: experiment, or "chance": a random order of the candidates.
      data: data set.
      slice_name: of the test examples.
      metric: such as recall@50.
      examples: compared.
      difference: first minus second.
      low: of the 95% interval, resampled by user.
      high: of the interval.
      made_of: changes with the results that are compared.
    """

    first: str
    second: str
    data: str
    slice_name: str
    metric: str
    examples: int
    difference: float
    low: float
    high: float
    made_of: str

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        """What is compared."""
        return self.first, self.second, self.data, self.slice_name, self.metric


class Comparisons:
    """Intervals that belong to the results as they are now."""

    def __init__(self, found: Sequence[Comparison], results: Results) -> None:
        self._found = {
            comparison.key: comparison for comparison in found if _is_current(comparison, results)
        }  # fmt: skip

    @classmethod
    def read(cls, results: Results, folder: Path = RESULTS) -> Comparisons:
        """Reads what `update_comparisons` wrote; intervals of results that have changed since are left out."""
        return cls(_read(folder), results)

    def find(self, first: str, second: str, data: str, slice_name: str, metric: str) -> Comparison | None:
        """The comparison, if it was made of the present results."""
        return self._found.get((first, second, data, slice_name, metric))


def update_comparisons(
    sweep: Sweep, data: DataFolder, results: Results, folder: Path = RESULTS, *, announce: Callable[[str], None] = print
) -> int:
    """Makes the intervals that are missing or out of date and for which the ranks are here.

    Args:
      sweep: what is compared with what: each group's experiments with its reference, the models also with chance.
      data: where the ranks are.
      results: all results.
      folder: where intervals.json goes.
      announce: is told about each pair.

    Returns:
      How many intervals were made.
    """
    kept = {found.key: found for found in _read(folder) if _is_current(found, results)}
    made = 0
    for first, second, name in _pairs(sweep):
        chosen = _chosen(results, first, second, name)
        wanted = [(part, metric) for part in _slices(chosen) for metric in METRICS]
        wanted = [pair for pair in wanted if (first, second, name, *pair) not in kept]
        if (
            not wanted
            or not chosen
            or not all(data.ranks_path(result.run).exists() for result in [*chosen[0], *chosen[1]])
        ):
            continue
        announce(f"intervals: {first} - {second} on {name}")
        for comparison in _compare(first, second, name, chosen, wanted, data):
            kept[comparison.key] = comparison
            made += 1
        _write(kept.values(), folder)
    return made


def _pairs(sweep: Sweep) -> Iterator[tuple[str, str, str]]:
    pairs = []
    for name, group in sweep.groups.items():
        for data in group.data if group.reference else ():
            members = [member for member in sweep.members(name, data) if member != group.reference]
            pairs += [(str(group.reference), other, data) for other in (*members, CHANCE)]
    yield from dict.fromkeys(pairs)


def _chosen(results: Results, first: str, second: str, data: str) -> tuple[list[Result], list[Result]] | None:
    """Results of the seeds that both have. What has no seeds (one result: a baseline) is compared with all of them."""
    ours, theirs = results.seeds(first, data), results.seeds(second, data)
    if not ours or (not theirs and second != CHANCE):
        return None
    if second == CHANCE or any(result.content["made_of"]["baseline"] for result in theirs.values()):
        return list(ours.values()), list(theirs.values())
    common = sorted(ours.keys() & theirs.keys())
    return ([ours[seed] for seed in common], [theirs[seed] for seed in common]) if common else None


def _slices(chosen: tuple[list[Result], list[Result]] | None) -> tuple[str, ...]:
    """Return what two experiments are compared on: rolling metrics where both have them, and neither is chance."""
    ours, theirs = chosen or ([], [])
    is_rolling = bool(theirs) and all("rolling" in result.block("test") for result in [*ours, *theirs])
    return (*SLICES, *ROLLING) if is_rolling else SLICES


def _made_of(results: Sequence[Result]) -> str:
    return fingerprint(*(result.identity for result in results), _RESAMPLES)


def _is_current(comparison: Comparison, results: Results) -> bool:
    chosen = _chosen(results, comparison.first, comparison.second, comparison.data)
    return chosen is not None and comparison.made_of == _made_of([*chosen[0], *chosen[1]])


def _compare(
    first: str,
    second: str,
    name: str,
    chosen: tuple[list[Result], list[Result]],
    wanted: Sequence[tuple[str, str]],
    data: DataFolder,
) -> Iterator[Comparison]:
    from recall.evaluation.bootstrap import paired_bootstrap

    ours, theirs = ([read_ranks(data.ranks_path(result.run), "test") for result in side] for side in chosen)
    ours, theirs = _on_common_examples(ours, theirs)
    for slice_name, metric in wanted:
        members = slice_members(ours[0], slice_name)
        if not members.any():
            continue
        left = np.stack([slice_values(ranks, slice_name, metric) for ranks in ours])  # [seeds, examples]
        if second == CHANCE:
            expected = chance(metric, _candidates(chosen[0][0], slice_name))
            right = np.full((1, left.shape[1]), expected)
        else:
            right = np.stack([slice_values(ranks, slice_name, metric) for ranks in theirs])
        interval = paired_bootstrap(left, right, clusters=ours[0].user[members], resamples=_RESAMPLES)
        yield Comparison(
            first, second, name, slice_name, metric, int(members.sum()),
            float(interval.difference), float(interval.low), float(interval.high), _made_of([*chosen[0], *chosen[1]]),
        )  # fmt: skip


def _on_common_examples(ours: list[Ranks], theirs: list[Ranks]) -> tuple[list[Ranks], list[Ranks]]:
    """Restricts all to the examples that every one of them was asked about."""
    common = ours[0].example
    for ranks in (*ours, *theirs):
        common = np.intersect1d(common, ranks.example)

    def restricted(ranks: Ranks) -> Ranks:
        return ranks.chosen(np.searchsorted(ranks.example, common))  # positions rise

    return [restricted(ranks) for ranks in ours], [restricted(ranks) for ranks in theirs]


def _candidates(result: Result, slice_name: str) -> int:
    catalogue: dict[str, Any] = result.content["catalogue"]
    return int(catalogue["cold"]["test"] if slice_name == "cold_among_cold" else catalogue["items"])


def _read(folder: Path) -> list[Comparison]:
    path = folder / "intervals.json"
    return [Comparison(**entry) for entry in json.loads(path.read_text())["comparisons"]] if path.exists() else []


def _write(comparisons: Any, folder: Path) -> None:
    entries = [comparison._asdict() for comparison in sorted(comparisons)]
    write_json(folder / "intervals.json", {"comparisons": entries})
