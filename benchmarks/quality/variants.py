"""Variants of a data set in which some items are truly cold: nothing of them is known before they are tested.

Public logs hold few items that are new in the test period. Here a share of the catalogue, drawn at random, loses all
events before the test period, so that its test clicks are clicks on items that nobody was ever shown. Settings are
chosen on validation, which needs cold items too: a second draw of the same size, disjoint from the first, loses its
events before the validation period. Those items are cold in validation and have what validation showed of them when
the test period begins; claims are about the first draw and whatever else is unexposed by then.

Events from a boundary on all stay, and so do the boundaries themselves: the variant's split fractions are chosen such
that both periods begin at the same millisecond as without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recall.config.experiment import Config
from recall.core.artifacts import publish, read_manifest
from recall.core.canonical import id_strings
from recall.core.errors import ConfigError, DataError
from recall.core.tables import expand_paths, read_table
from recall.core.times import parse_times
from recall.data.catalogue import read_items
from recall.data.events import plan_pieces, read_events, sort_events
from recall.data.splits import TimeBoundaries, TimeHistogram

_DRAWN, _MADE_BY = "drawn.parquet", "python -m benchmarks.quality prepare"


@dataclass(frozen=True)
class ColdItems:
    """Ids of the items that lose their events.

    Attributes:
      test: those without events before the test period.
      validation: those without events before the validation period; none of them is in `test`.
    """

    test: pa.StringArray
    validation: pa.StringArray

    def is_removed(
        self, items: pa.Array | pa.ChunkedArray, time_ms: npt.NDArray[np.int64], boundaries: TimeBoundaries
    ) -> npt.NDArray[np.bool_]:
        """Which events go: bool [events], from item ids and times of the events."""
        of_test, of_validation = (
            pc.is_in(items, value_set=ids).to_numpy(zero_copy_only=False) for ids in (self.test, self.validation)
        )
        return (of_test & (time_ms < boundaries.test_start_ms)) | (
            of_validation & (time_ms < boundaries.validation_start_ms)
        )


def draw_cold_items(item_ids: pa.StringArray, *, share: float, seed: int, spared: str) -> ColdItems:
    """Draws both sets from the whole catalogue, each item with the same chance.

    Args:
      item_ids: the catalogue; its order does not matter.
      share: of the catalogue that each set has, below 0.5.
      seed: of the draw.
      spared: an item that is never drawn.

    Raises:
      ConfigError: the two sets would not fit into the catalogue.
    """
    if not 0 < share < 0.5:
        raise ConfigError(f"cold_share: found {share}; expected a share between 0 and 0.5, as two sets are drawn")
    ids = np.array(sorted(item for item in item_ids.to_pylist() if item != spared), dtype=object)
    size = round(share * len(item_ids))
    order = np.random.default_rng(seed).permutation(len(ids))
    test, validation = (pa.array(sorted(ids[part]), pa.string()) for part in (order[:size], order[size : 2 * size]))
    return ColdItems(test, validation)


def held_out_fractions(time_ms: npt.NDArray[np.int64], boundaries: TimeBoundaries) -> dict[str, float]:
    """Fractions for data.split with which these events are split at these boundaries.

    `TimeHistogram.boundaries` lets a period begin at the time of event floor(n (1 - fraction)); half an event less
    than the period holds keeps the floor clear of rounding.

    Args:
      time_ms: int64 [events], times of all events.
      boundaries: both are times of events.
    """
    validation, test = (int(np.count_nonzero(time_ms >= start)) for start in boundaries)
    return {"validation": (validation - test) / len(time_ms), "test": (test - 0.5) / len(time_ms)}


def write_cold_variant(config: Config, directory: Path, *, share: float, seed: int, fingerprint: str) -> None:
    """Publishes the log without the early events of the drawn items; `variant_overrides` makes a config read it.

    Rows keep all their columns. Rows that cannot be used stay, to be set aside as in the original.

    Args:
      config: of the original, split by time.
      directory: what to publish.
      share: of the catalogue in each of both sets.
      seed: of the draw.
      fingerprint: for the manifest.

    Raises:
      ConfigError: the split is not by time.
    """
    if config.data.split.by != "time":
        raise ConfigError("a variant with cold items needs data.split.by: time; found last_click")
    events = _events(config)
    time_ms, click = events["time_ms"].to_numpy(), events["click"].to_numpy(zero_copy_only=False)
    split = config.data.split
    boundaries = TimeHistogram.of(time_ms, click).boundaries(validation=split.validation, test=split.test)
    # Without any event at its first moment validation would begin later, so that the item of one of them is spared.
    first = int(np.argmax(time_ms == boundaries.validation_start_ms))
    cold = draw_cold_items(read_items(config).ids, share=share, seed=seed, spared=events["item"][first].as_py())
    removed = cold.is_removed(events["item"].cast(pa.string()), time_ms, boundaries)
    manifest: dict[str, Any] = {
        "fingerprint": fingerprint,
        "boundaries": boundaries._asdict(),
        "split": {"by": "time", **held_out_fractions(time_ms[~removed], boundaries)},
        "events_removed": int(removed.sum()),
    }
    log = config.data.events
    with publish(directory, manifest=manifest) as folder:
        for number, path in enumerate(expand_paths(log.path)):
            raw = read_table(path, format=log.format)
            gone = cold.is_removed(id_strings(raw[log.item]), parse_times(raw[log.time], log.time_unit).ms, boundaries)
            pq.write_table(raw.filter(pa.array(~gone)), folder / f"events-{number:03d}.parquet")
        sets = ["test"] * len(cold.test) + ["validation"] * len(cold.validation)
        pq.write_table(pa.table({"item": pa.concat_arrays([cold.test, cold.validation]), "set": sets}), folder / _DRAWN)


def variant_overrides(directory: Path) -> list[str]:
    """What a published variant changes in the original's experiment file, as `dotted.key=value`."""
    split = read_manifest(directory, made_by=_MADE_BY)["split"]
    return [
        f"data.events.path={directory.resolve()}/events-*.parquet",
        "data.events.format=parquet",
        *(f"data.split.{name}={split[name]!r}" for name in ("validation", "test")),
    ]


def read_cold_items(directory: Path) -> ColdItems:
    """The items that were drawn for a published variant."""
    drawn = pq.read_table(directory / _DRAWN)
    test, validation = (
        drawn.filter(pc.equal(drawn["set"], name))["item"].combine_chunks() for name in ("test", "validation")
    )
    return ColdItems(test, validation)


def check_boundaries(directory: Path, prepared_manifest: dict[str, Any]) -> None:
    """Holds what was prepared from a variant against the original's periods.

    Raises:
      DataError: a period begins at another moment.
    """
    expected = read_manifest(directory, made_by=_MADE_BY)["boundaries"]
    found = {name: prepared_manifest["split"][name] for name in expected}
    if found != expected:
        raise DataError(
            f"{directory}: expected the periods of the original, {expected}, found {found}; prepare it anew"
        )


def _events(config: Config) -> pa.Table:
    """The log as the pipeline takes it: usable rows of known items, each once."""
    log = config.data.events
    known = read_items(config).ids if config.data.items.unknown == "reject" else None
    accepted = [read_events(piece, log, known_items=known)[0] for piece in plan_pieces(log)]
    return sort_events(pa.concat_tables(accepted))[0]
