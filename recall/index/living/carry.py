"""Takes the changes of one living index over into another: of yesterday's run into today's.

DIR/CARRIED.json   which changes were taken over; a later call takes the changes that came since

`replay.py` applies them to today's version, where items that it lacks are encoded again by today's model.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from recall.core.artifacts import read_json, write_json
from recall.core.errors import ArtifactError
from recall.index.living.journal import Journal
from recall.index.living.journal_format import Record
from recall.index.living.promise import PromiseFile
from recall.index.living.storage import JOURNAL, PROMISE
from recall.index.saved.store import load_version, sources_of_version
from recall.index.saved.versions import current_version

_CARRIED = "CARRIED.json"
_MOST_ITEMS = 512  # of a record, which the disk is waited for


@dataclass(frozen=True)
class _Carried:
    """Remember what was taken over.

    Attributes:
      journal: identity of yesterday's journal.
      through: number of its last change that was taken over.
      ends: number of the last record of today's journal that may have come from there; later ones are today's own.
    """

    journal: str = ""
    through: int = 0
    ends: int = 0


def carry_index(yesterday: Path, today: Path, *, fingerprint: str, catalogue: Collection[str] = ()) -> int:
    """Append the changes that one living index has and another one lacks to the journal of the other one.

    Of every item the last change counts. Yesterday's index is only read, and may be written to meanwhile: changes that
    it acknowledges later are taken by the next call. Items that were changed in today's index since the last call stay
    as they are there. After a kill it is called again.

    Args:
      yesterday: the folder `index` of the run before; without an index there, nothing happens.
      today: the folder `index` of the run that goes on; created if need be.
      fingerprint: of today's model.
      catalogue: ids of today's catalogue, whose vectors take the place of another model's upserts.

    Returns:
      The number of changed items that were taken over.

    Raises:
      ArtifactError: a journal is damaged, or today's cannot be written: another process has it open, for example.
    """
    if not (yesterday / "CURRENT").exists():
        return 0
    promise = PromiseFile(yesterday / PROMISE).read()
    before = _read(today / _CARRIED)
    if before.journal != (identity := promise.journal if promise else ""):
        before = replace(before, journal=identity, through=0)
    source = Journal(yesterday / JOURNAL, writable=False, promise=yesterday / PROMISE)
    records = list(source.records())
    through = source.last_sequence
    kept = kept_changes(yesterday, recorded={name for record in records for name in record.ids})
    news = [*([] if before.through else kept), *(record for record in records if record.sequence > before.through)]
    if not news:
        return 0
    target = Journal(today / JOURNAL, writable=True, promise=today / PROMISE)
    try:
        own, there = set[str](), set[str]()
        for record in target.records():
            there.update(record.ids)
            own.update(record.ids if record.sequence > before.ends else ())
        replaced = set(catalogue) - there  # a record there would stand against the catalogue
        taken = [
            change
            for change in _last_changes(news)
            if change.ids[0] not in own
            and not (change.ids[0] in replaced and change.operation == "upsert" and change.model != fingerprint)
        ]
        batches = list(batches_of(taken))
        ends = target.last_sequence + len(batches)
        # Before the records: after a kill they are not taken for today's own, and are written once more.
        _write(today / _CARRIED, replace(before, ends=ends))
        append_all(target, batches)
        _write(today / _CARRIED, _Carried(identity, through, ends))
    finally:
        target.close()
    return len(taken)


def kept_changes(directory: Path, *, recorded: Collection[str]) -> list[Record]:
    """Return the changes whose sources the current version keeps and the journal does not: it was begun anew.

    Args:
      directory: of the index.
      recorded: ids that the journal has a record of.

    Returns:
      One upsert numbered 0, or nothing.

    Raises:
      ArtifactError: the version is damaged.
    """
    version = current_version(directory)
    if not (sources := {name: own for name, own in sources_of_version(version).items() if name not in recorded}):
        return []
    saved = load_version(version)
    vectors = saved.index.vectors(list(sources))
    return [Record(0, saved.fingerprint, "upsert", tuple(sources), vectors, tuple(sources.values()))]


def batches_of(changes: Iterable[Record]) -> Iterator[Record]:
    """Join records of one item each to longer ones, in order; numbers are of no meaning then."""
    batch: list[Record] = []
    for change in changes:
        if batch and (len(batch) == _MOST_ITEMS or _kind(batch[0]) != _kind(change)):
            yield _joined(batch)
            batch = []
        batch.append(change)
    if batch:
        yield _joined(batch)


def append_all(journal: Journal, records: Iterable[Record]) -> None:
    """Append copies of records under the next numbers of a journal; see `Journal.append`."""
    for record in records:
        journal.append(record.operation, record.ids, model=record.model, vectors=record.vectors, sources=record.sources)


def _last_changes(records: Iterable[Record]) -> list[Record]:
    """Return the last change of every item, as records of one item each, in order."""
    last: dict[str, tuple[Record, int]] = {}
    for record in records:
        for place, name in enumerate(record.ids):
            last.pop(name, None)
            last[name] = (record, place)
    return [record.take([place]) for record, place in last.values()]


def _kind(change: Record) -> tuple[object, ...]:
    """Return what the changes of one record have in common."""
    return change.operation, change.model, None if change.vectors is None else change.vectors.shape[1:]


def _joined(changes: list[Record]) -> Record:
    """Join changes of one kind, each of one item."""
    sources = tuple(change.sources[0] if change.sources else None for change in changes)
    vectors = [change.vectors for change in changes if change.vectors is not None]
    return replace(
        changes[0],
        ids=tuple(change.ids[0] for change in changes),
        vectors=np.concatenate(vectors) if vectors else None,
        sources=None if all(source is None for source in sources) else sources,
    )


def _read(path: Path) -> _Carried:
    try:
        return _Carried(**read_json(path))
    except FileNotFoundError:
        return _Carried()
    except (OSError, ValueError, TypeError) as error:
        raise ArtifactError(
            f"{path}: cannot be read ({error}); remove this one file, and every change of the run before is taken again"
        ) from error


def _write(path: Path, carried: _Carried) -> None:
    try:
        write_json(path, asdict(carried), checksummed=True)
    except OSError as error:
        raise ArtifactError(f"{path}: could not be written ({error}); free some space, then try again") from error
