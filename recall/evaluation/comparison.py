"""Compares two models on the same examples, for all of them and for each slice of metrics.json."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from recall.core.arrays import Bools
from recall.core.errors import RecallError
from recall.evaluation.bootstrap import Interval, paired_bootstrap
from recall.evaluation.metrics import example_values
from recall.evaluation.ranks import Ranks
from recall.evaluation.slices import bucket_label

_KEY = ["user", "item", "time_ms"]
_HEADLINE_SLICES = ("all", "cold", "cold_among_cold")


class Slice(NamedTuple):
    """Name some of the examples as metrics.json does.

    Attributes:
      name: `all`, `cold`, `cold_among_cold` or `by_exposures`.
      low: fewest exposures, of `by_exposures` alone.
      high: most exposures, likewise; None: no limit.
    """

    name: str
    low: int | None = None
    high: int | None = None

    @property
    def label(self) -> str:
        """Return the name for people: `cold among cold`, `1–9 exposures`."""
        if self.low is None:
            return self.name.replace("_", " ")
        return f"{bucket_label({'from': self.low, 'to': self.high})} exposures"

    def record(self) -> dict[str, Any]:
        """Return the entries of the JSON output."""
        return {"slice": self.name} | ({} if self.low is None else {"from": self.low, "to": self.high})


@dataclass(frozen=True)
class SliceComparison:
    """Hold the result of two models on some of the examples.

    Attributes:
      part: the examples.
      first: metric of the first model; None without examples.
      second: metric of the second model on the same examples.
      interval: first minus second, with users resampled; None without examples.
    """

    part: Slice
    first: float | None
    second: float | None
    interval: Interval | None

    @property
    def examples(self) -> int:
        """Count the examples of the slice."""
        return self.interval.examples if self.interval else 0

    @property
    def verdict(self) -> str:
        """Put the result for the first model into words."""
        return self.interval.verdict if self.interval else "no examples"

    def record(self) -> dict[str, Any]:
        """Return the entries of the JSON output."""
        interval = self.interval
        return {
            **self.part.record(),
            "examples": self.examples,
            "users": interval.clusters if interval else 0,
            "first": self.first,
            "second": self.second,
            "difference": interval.difference if interval else None,
            "low": interval.low if interval else None,
            "high": interval.high if interval else None,
            "verdict": self.verdict,
        }


@dataclass(frozen=True)
class Comparison:
    """Hold the comparison of one model with another.

    Attributes:
      first: (run directory, model) that the verdicts are about.
      second: (run directory, model) that it is compared with.
      unpaired: number of examples of the first alone, and of the second alone; they are left out.
      slices: results on the shared examples.
    """

    first: tuple[str, str]
    second: tuple[str, str]
    unpaired: tuple[int, int]
    slices: Sequence[SliceComparison]

    def record(self) -> dict[str, Any]:
        """Return the entries of the JSON output."""
        sides = zip(("first", "second"), (self.first, self.second), self.unpaired, strict=True)
        named = {side: {"run": run, "model": model, "unpaired": left} for side, (run, model), left in sides}
        return {**named, "slices": [part.record() for part in self.slices]}


def compare_runs(
    first: str | Path,
    second: str | Path | None = None,
    *,
    metric: str = "recall@50",
    split: str = "test",
    model: str | None = None,
    other: str | None = None,
    rolling: bool = False,
    allow_partial: bool = False,
) -> list[Comparison]:
    """Compare runs by the ranks that they published.

    Slices by exposures are taken from the first run. Within one run, a model that was asked about fewer examples (the
    ones with a trigger) is compared on these.

    Args:
      first: run directory.
      second: run directory; None: models of the first run among each other.
      metric: as for `recall.evaluation.metrics.example_values`; any cut-off, whether the run reported it or not.
      split: `test` or `validation`.
      model: of the first run; default: its configured model.
      other: of the second run; default: its configured model, and within one run every other model in turn.
      rolling: compare the rolling evaluations, with exposures as of the click, instead of the frozen ones.
      allow_partial: compare two runs on the examples that they share where they do not share all.

    Raises:
      RecallError: a run has no ranks, they are of other models than the run's, a name is unknown, the runs ranked
        other items, or they were not evaluated on the same examples.
    """
    try:
        example_values(metric, np.ones(1, np.int32))
    except ValueError as error:
        raise RecallError(str(error)) from None
    ranks = Ranks.load(first)
    against = ranks if second is None else Ranks.load(second)
    name = model or ranks.configured
    if other is not None or second is not None:
        others = [other or against.configured]
    else:
        others = [candidate for candidate in ranks.models(split) if candidate != name]
    if second is None and name in others:
        raise RecallError(f"compare: {name} with itself shows nothing; give another --other, or a second run")
    _require_same_candidates(ranks, against)
    found = []
    for candidate in others:
        pairs, unpaired = _pair(
            _table(ranks, split, name, rolling=rolling), _table(against, split, candidate, rolling=rolling)
        )
        sides = (str(ranks.run), name), (str(against.run), candidate)
        if second is not None and any(unpaired):
            _require_overlap(sides, unpaired, shared=len(pairs), allow_partial=allow_partial)
        chosen = _slices(pairs, exposure_buckets=ranks.manifest["exposure_buckets"])
        found.append(Comparison(*sides, unpaired, [_compare(pairs, metric, *part) for part in chosen]))
    return found


def differences(
    ranks: Ranks, *, metric: str, split: str = "test", rolling: bool = False
) -> dict[str, dict[str, Interval]]:
    """Compute intervals of a run's configured model minus each other model: slice -> other model -> interval.

    Slices are `all`, `cold` and, but for rolling evaluations, `cold_among_cold`; a model that shares no example of a
    slice is left out there.
    """
    own = _table(ranks, split, ranks.configured, rolling=rolling)
    found: dict[str, dict[str, Interval]] = {name: {} for name in _HEADLINE_SLICES}
    for model in ranks.models(split):
        if model == ranks.configured:
            continue
        pairs, _ = _pair(own, _table(ranks, split, model, rolling=rolling))
        for chosen in _slices(pairs, exposure_buckets=()):
            compared = _compare(pairs, metric, *chosen)
            if compared.interval:
                found[compared.part.name][model] = compared.interval
    return found


def _table(ranks: Ranks, split: str, model: str, *, rolling: bool) -> pa.Table:
    return ranks.rolling_table(split, model) if rolling else ranks.table(split, model)


def _pair(first: pa.Table, second: pa.Table) -> tuple[pd.DataFrame, tuple[int, int]]:
    """Join two tables of ranks by (user, item, time).

    Returns:
      A row per shared example, with the first's `user` and `exposures` and both sides' `rank` and, of frozen ranks,
      `rank_among_cold` (suffixes _first and _second), and the number of rows of each table without a partner.
    """
    sides = []
    for table in (first, second):
        frame = table.to_pandas().astype({"user": str, "item": str})
        # A user may click an item twice in a millisecond, as the log has it: such rows pair in their order.
        frame["repeat"] = frame.groupby(_KEY, sort=False).cumcount()
        sides.append(frame)
    pairs = sides[0].merge(
        sides[1].drop(columns="exposures"), on=[*_KEY, "repeat"], suffixes=("_first", "_second"), validate="one_to_one"
    )
    return pairs, (len(first) - len(pairs), len(second) - len(pairs))


def _slices(pairs: pd.DataFrame, *, exposure_buckets: Sequence[int]) -> Iterator[tuple[Slice, Bools, str]]:
    """List the slices: each with its members, bool [pairs], and the column of ranks that counts there."""
    exposures = pairs["exposures"].to_numpy()
    yield Slice("all"), np.ones(len(pairs), bool), "rank"
    if "rank_among_cold_first" in pairs:
        cold = pairs["rank_among_cold_first"].notna().to_numpy()
        yield Slice("cold"), cold, "rank"
        yield Slice("cold_among_cold"), cold & pairs["rank_among_cold_second"].notna().to_numpy(), "rank_among_cold"
    else:  # a rolling evaluation; clicks are exposures, too, so that no exposure means no click
        yield Slice("cold"), exposures == 0, "rank"
    for low, above in zip(exposure_buckets, [*exposure_buckets[1:], None], strict=False):
        if above is None:
            yield Slice("by_exposures", low), exposures >= low, "rank"
        else:
            yield Slice("by_exposures", low, above - 1), (exposures >= low) & (exposures < above), "rank"


def _compare(pairs: pd.DataFrame, metric: str, part: Slice, members: Bools, ranks: str) -> SliceComparison:
    chosen = pairs[members]
    if chosen.empty:
        return SliceComparison(part, None, None, None)
    values = [example_values(metric, chosen[f"{ranks}_{side}"].to_numpy(np.int64)) for side in ("first", "second")]
    interval = paired_bootstrap(*values, clusters=pd.factorize(chosen["user"])[0])
    return SliceComparison(part, float(values[0].mean()), float(values[1].mean()), interval)


def _require_same_candidates(first: Ranks, second: Ranks) -> None:
    for key, what in (("catalogue", "items ranked"), ("exclude_seen", "evaluation.exclude_seen")):
        if first.manifest[key] != second.manifest[key]:
            raise RecallError(
                f"compare: {what} {first.manifest[key]} in {first.run} but {second.manifest[key]} in {second.run}, "
                "so ranks mean different things; evaluate both against the same items with the same settings"
            )


def _require_overlap(
    sides: Sequence[tuple[str, str]], unpaired: tuple[int, int], *, shared: int, allow_partial: bool
) -> None:
    if shared and allow_partial:
        return
    lonely = " and ".join(
        f"{count:,} of {count + shared:,} of {model} in {run}"
        for (run, model), count in zip(sides, unpaired, strict=True)
    )
    raise RecallError(
        f"compare: the examples are not the same: {lonely} have no partner, {shared:,} are shared; "
        + ("use runs with the same data and split" if not shared else "use runs with the same data and split, or "
           "compare on what is shared: --allow-partial")
    )  # fmt: skip
