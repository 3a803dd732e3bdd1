"""Prepares further histories in the driver: sources, vocabularies, rejected rows, and their part of the manifest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.exchange import Scratch
from pipelines.storage import plan_log
from pipelines.summaries import reasons
from pipelines.transforms import THE_LOG, Source
from recall.config.data import DataConfig
from recall.data.clock import Clock, look_at_log
from recall.data.events import REJECTED_SCHEMA
from recall.data.features.vocabulary import Vocabulary
from recall.data.further_histories import ENTRY_SCHEMA, RECENT_SCHEMA
from recall.data.splits import TimeBoundaries


def plan_sources(data: DataConfig) -> list[Source]:
    """List the pieces of the log and of every further history, which may be the log once more.

    Raises:
      DataError: as `plan_log`.
    """
    sources = [(THE_LOG, piece) for piece in plan_log(data.events)]
    for name, log in data.further_logs.items():
        pieces = plan_log(log, section=f"data.histories.{name}", click_key="column")
        sources += [(name, piece) for piece in pieces]
    return sources


def clocks_of(sources: Sequence[Source], data: DataConfig, *, now_ms: int) -> dict[str, Clock | None]:
    """Look at the first times of the log and of every further history, by name; see `look_at_log`."""
    clocks = {}
    for name, log in {THE_LOG: data.events, **data.further_logs}.items():
        pieces = [(piece.path, next(iter(piece.row_groups), 0)) for source, piece in sources if source == name]
        section = f"data.histories.{name}" if name else "data.events"
        clocks[name] = look_at_log(pieces, log, now_ms=now_ms, section=section)
    return clocks


def build_vocabularies(scratch: Scratch, data: DataConfig, boundaries: TimeBoundaries | None) -> dict[str, Vocabulary]:
    """Build vocabularies of the own domains, and write them for the second pipeline.

    With a split by time only entries before validation count. An item of later entries alone must not get its own
    embedding, as no training example would train it.
    """
    vocabularies = {}
    for name, settings in data.histories.items():
        if settings.domain == "own":
            entries = _concat(scratch, f"entries.{name}", ENTRY_SCHEMA)
            if boundaries:
                entries = entries.filter(pc.field("time_ms") < boundaries.validation_start_ms)
            items = entries["item"].combine_chunks()
            vocabularies[name] = Vocabulary.build(items, min_count=settings.min_count)
            scratch.write(f"vocabulary.{name}", 0, vocabularies[name].table())
    return vocabularies


def recent_entries(scratch: Scratch, data: DataConfig) -> dict[str, pa.Table]:
    """Read the last entries of every user, for each further history."""
    return {name: _concat(scratch, f"histories.{name}", RECENT_SCHEMA) for name in data.histories}


def rejected_entries(scratch: Scratch, data: DataConfig) -> dict[str, pa.Table]:
    """Collect the rejected rows of each further history; from the log itself only faults of the history's column."""
    rejected = {}
    for name, settings in data.histories.items():
        rows = _concat(scratch, f"rejected.{name}", REJECTED_SCHEMA)
        by_column = pc.starts_with(rows["reason"], "click ")
        if settings.path is None:
            rows, by_column = rows.filter(by_column), by_column.filter(by_column)
        told = pc.replace_substring(rows["reason"], "click", settings.column or "", max_replacements=1)
        told = pc.if_else(by_column, told, rows["reason"])
        told = pc.binary_join_element_wise(f"history {name}", told, ": ")
        rejected[name] = rows.set_column(rows.column_names.index("reason"), "reason", told)
    return rejected


def described(
    scratch: Scratch, data: DataConfig, vocabularies: dict[str, Vocabulary], rejected: dict[str, pa.Table]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Describe each further history for the manifest."""
    for name, settings in data.histories.items():
        yield (
            name,
            {
                "length": settings.length or data.history,
                "domain": settings.domain,
                "entries": len(_concat(scratch, f"entries.{name}", ENTRY_SCHEMA)),
                "rejected": reasons(rejected[name]),
                **({"vocabulary": vocabularies[name].size} if name in vocabularies else {}),
            },
        )


def _concat(scratch: Scratch, name: str, schema: pa.Schema) -> pa.Table:
    return pa.concat_tables([schema.empty_table(), *scratch.read_all(name)])
