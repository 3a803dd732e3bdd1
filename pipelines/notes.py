"""Says what a reader of the counts should know of the log: what was assumed of its times, and what looks wrong."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipelines.exchange import Scratch
from pipelines.summaries import OrderedLog
from recall.config.data import DataConfig
from recall.data.clock import date_text

_MANY = 0.2


def notes_of(data: DataConfig, scratch: Scratch, log: OrderedLog, *, clipped: dict[str, dict[str, int]]) -> list[str]:
    """Return notes, a sentence each.

    Args:
      data: settings of the log and the buckets.
      scratch: tables of the workers, the tables of pieces that were read among them.
      log: summary of the log and its rejected rows.
      clipped: as of `EncodedTables`.
    """
    return [*_of_log(data, scratch, log), *_of_evidence(data), *_of_numbers(clipped)]


def _of_evidence(data: DataConfig) -> list[str]:
    """Say why there is no fresh evidence though half-lives are set."""
    if data.half_lives_ms or not data.posterior.half_lives:
        return []
    has_clock = data.events.time_unit != "order"
    why = "a split by last click has no moment before all held-out clicks" if has_clock else "the log has no clock"
    return [f"there is no fresh evidence (data.posterior.half_lives): {why}; the posterior has totals alone"]


def _of_numbers(clipped: dict[str, dict[str, int]]) -> list[str]:
    """Say which features hold values far from all others, which often stand for none."""
    return [
        f"{count:,} values of feature {feature} of the {table} lie far from all others and count as the nearest end of "
        "their range; leave values empty that stand for none"
        for table, found in clipped.items()
        for feature, count in found.items()
    ]


def _of_log(data: DataConfig, scratch: Scratch, log: OrderedLog) -> list[str]:
    """Say what was assumed of the log, and what looks wrong in it."""
    summary, notes = log.summary, []
    counts = summary.counts(log.rejected)
    rows, set_aside = counts["rows_read"], len(log.rejected)
    if without_zone := sum(sum(table["without_zone"].to_pylist()) for table in scratch.read_all("read")):
        zones = sorted({logged.time_zone for logged in (data.events, *data.further_logs.values())})
        notes.append(
            f"{without_zone:,} times say no offset from UTC and were taken as {' and '.join(zones)}; "
            "data.events.time_zone sets another zone"
        )
    if set_aside > _MANY * rows:
        notes.append(f"{set_aside:,} of {rows:,} rows were set aside; data/rejected.parquet has each with its reason")
    if counts["duplicates"] > _MANY * rows:
        notes.append(
            f"{counts['duplicates']:,} of {rows:,} rows repeat another row with the same user, item, time and click; "
            "check data.events.time and time_unit, and whether the log was written twice"
        )
    if data.events.time_unit == "order":
        return notes
    if summary.events_after_end:
        notes.append(
            f"{summary.events_after_end:,} events come long after all others, the last on "
            f"{date_text(summary.last_time_ms)}; the log counts as ended on {date_text(summary.end_ms)}. Check the "
            "clocks that wrote them"
        )
    bucket_ms = data.posterior.bucket
    if summary.first_time_ms // bucket_ms == summary.last_time_ms // bucket_ms:
        notes.append(
            f"all events lie in one bucket of {bucket_ms / 3_600_000:g} h (data.posterior.bucket), so that every item "
            "is new to every example; check data.events.time and time_unit, or take smaller buckets"
        )
    return notes


def times_of(summary_of: dict[str, Any]) -> dict[str, str]:
    """Return the first and the last moment of the log for people, by name; none for a log without a clock."""
    if summary_of.get("time_unit") == "order" or "first_time_ms" not in summary_of:
        return {}
    moments = {"first event": summary_of["first_time_ms"], "end of the log": summary_of["last_time_ms"]}
    return {name: _moment(ms) for name, ms in moments.items()}


def _moment(ms: int) -> str:
    seconds = np.datetime64(ms // 1_000, "s")
    return f"{str(seconds).replace('T', ' ')} UTC"
