"""Synthetic logs of any length, written file by file so that no process ever holds one as a whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

EVENTS_PER_FILE = 1_000_000
START_MS = 1_700_000_000_000
DAYS = 30
_EVENTS_PER_USER = 50
_EVENTS_PER_ITEM = 200
_CLICK_RATE = 0.1
_BAD_SHARE = 0.001  # of rows without a user, of items that no catalogue knows, of rows that occur twice


def write_log(folder: Path, *, events: int) -> None:
    """Writes log-NNNNN.parquet (user_id, item_id, time_ms, is_click) in order of time, and items.parquet.

    Popularity of items follows Zipf's law, activity of users its root; a tenth of the events are clicks. The same
    number of events gives the same files. A folder that exists is left as it is.
    """
    if folder.exists():
        return
    beside = folder.with_name(f"{folder.name}.part")
    beside.mkdir(parents=True, exist_ok=True)
    users, items = max(events // _EVENTS_PER_USER, 10), max(events // _EVENTS_PER_ITEM, 10)
    for number, first in enumerate(range(0, events, EVENTS_PER_FILE)):
        rows = np.arange(first, min(first + EVENTS_PER_FILE, events))
        table = _events(np.random.default_rng([1, number]), rows, events=events, users=users, items=items)
        pq.write_table(table, beside / f"log-{number:05d}.parquet")
    generator = np.random.default_rng(2)
    catalogue = {
        "item_id": _ids("i", np.arange(items)),
        "author_id": _ids("a", generator.integers(0, items // 10, items)),
        "category": _ids("c", generator.integers(0, 50, items)),
        "duration_s": generator.integers(5, 600, items),
    }
    pq.write_table(pa.table(catalogue), beside / "items.parquet")
    beside.rename(folder)


def zipf(generator: np.random.Generator, count: int, *, largest: int) -> npt.NDArray[np.int64]:
    """Numbers in [0, largest) with probability near 1 / (1 + number), scattered so that neighbours differ in rank."""
    rank = np.exp(generator.random(count) * np.log(largest + 1)).astype(np.int64) - 1
    return (np.minimum(rank, largest - 1) * 2_654_435_761 + 12_345) % largest


def _events(
    generator: np.random.Generator, rows: npt.NDArray[np.int64], *, events: int, users: int, items: int
) -> pa.Table:
    span_ms = DAYS * 86_400_000
    time_ms = START_MS + (rows + generator.random(len(rows))) * (span_ms / events)
    # Flatter than Zipf's law, by which a single user would be awake for a tenth of all events.
    user = (generator.random(len(rows)) ** 2 * users).astype(np.int64)
    item = zipf(generator, len(rows), largest=items)
    bad = generator.random(len(rows))
    item = np.where(bad < _BAD_SHARE, items + item, item)
    no_user = (bad > _BAD_SHARE) & (bad < 2 * _BAD_SHARE)
    table = pa.table(
        {
            "user_id": _ids("u", user, missing=no_user),
            "item_id": _ids("i", item),
            "time_ms": time_ms.astype(np.int64),
            "is_click": (generator.random(len(rows)) < _CLICK_RATE).astype(np.int8),
        }
    )
    again = bad > 1 - _BAD_SHARE
    return table.take(pa.array(np.repeat(np.arange(len(rows)), 1 + again)))


def _ids(letter: str, numbers: npt.NDArray[np.int64], *, missing: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    texts = np.char.add(letter, numbers.astype(str))
    return pa.array(texts.astype(object), pa.string(), mask=missing)
