"""Applies a journal to a version: the result is the content of a living index when it is opened."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from recall.core.arrays import Float32s
from recall.core.errors import ArtifactError, DataError
from recall.index.base import Index
from recall.index.living.journal_format import Record
from recall.index.living.snapshot import LivingSnapshot

Encode = Callable[[Sequence[Any], Mapping[str, Any]], Float32s]
"""Sources of items and the report of the base -> float32 [items, dim] or [items, entries of each, dim]."""

_Change = tuple[Record, int]  # a record, and the place of an item in it


@dataclasses.dataclass
class LastChanges:
    """Hold facts of the last change of each id that vectors do not tell.

    Attributes:
      source_of: sequence numbers of the records whose sources items can be encoded from again, by id; 0 for a source
        that the version keeps and no record has.
      set_aside: ids of another model's items without a source that could be encoded; their order counts.
      deleted: ids that were deleted and not upserted since; their order counts.
    """

    source_of: dict[str, int] = dataclasses.field(default_factory=dict)
    set_aside: dict[str, None] = dataclasses.field(default_factory=dict)
    deleted: dict[str, None] = dataclasses.field(default_factory=dict)

    @property
    def kept(self) -> list[str]:
        """List the ids whose sources the version keeps and no record has."""
        return [name for name, number in self.source_of.items() if number == 0]

    def note(self, record: Record) -> None:
        """Take over a change, whose sources replace the earlier ones of its items."""
        sources = record.sources or (None,) * len(record.ids)
        for name, source in zip(record.ids, sources, strict=True):
            self.set_aside.pop(name, None)
            self.deleted.pop(name, None)
            if record.operation == "delete":
                self.deleted[name] = None
            if source is None:
                self.source_of.pop(name, None)
            else:
                self.source_of[name] = record.sequence

    def keep_sources_of_version(
        self, kept: Mapping[str, Any] | None, *, contained: int, recorded: Collection[str], held: Iterable[str]
    ) -> None:
        """Let an item have the source that its vector was made from, be it in the journal or in the version.

        Args:
          kept: sources that the version keeps; None where it keeps none.
          contained: sequence number of the last record that the version contains.
          recorded: ids that the journal has a record of.
          held: ids whose vectors are of the version, though another model's record came later.
        """
        for name in held:
            self.source_of.pop(name, None)
        if kept is None:
            return
        for name, number in list(self.source_of.items()):
            if number <= contained and name not in kept:
                del self.source_of[name]
        self.source_of.update(dict.fromkeys((name for name in kept if name not in recorded), 0))


def changed(snapshot: LivingSnapshot, record: Record) -> LivingSnapshot:
    """Return a snapshot after one more change, made under the model of the snapshot.

    Raises:
      ArtifactError: its vectors are of another shape than the snapshot's.
    """
    if record.vectors is None:
        rows = [snapshot.row(name) for name in record.ids]  # a reader may have missed what was compacted away
        return snapshot.deleted(np.asarray([row for row in rows if row >= 0], np.int32))
    shape = (snapshot.entries_per_item, snapshot.dim)
    vectors = [_vectors(record, place, shape=shape) for place in range(len(record.ids))]
    return snapshot.upserted(record.ids, np.stack(vectors))


@dataclasses.dataclass(frozen=True)
class Replayed:
    """Hold the result of a replay.

    Attributes:
      snapshot: the index after all changes.
      changes: facts of the last change of each id.
    """

    snapshot: LivingSnapshot
    changes: LastChanges


def replayed(
    base: Index,
    records: Iterable[Record],
    *,
    fingerprint: str,
    contained: int = 0,
    kept: Mapping[str, Any] | None = None,
    encode: Encode | None = None,
) -> Replayed:
    """Apply the last record of every id to a built index.

    Args:
      base: index of a version.
      records: all records, in order; the records that the version contains tell only where sources are.
      fingerprint: of the version's model. Of another model's upserts, items that the base holds keep its vectors, and
        the others are encoded again. An item whose vector is the version's has no source of another model either:
        title and facts come from where the vector comes from.
      contained: sequence number of the last record that the version contains.
      kept: sources that the version keeps, see `SavedVersion`; None where it keeps none.
      encode: makes vectors from sources; without it, another model's items are set aside.

    Raises:
      ArtifactError: vectors of this model do not fit the base.
    """
    changes = LastChanges()
    last: dict[str, _Change] = {}
    recorded: set[str] = set()
    for record in records:
        changes.note(record)
        recorded.update(record.ids)
        if record.sequence > contained:
            for place, name in enumerate(record.ids):
                last.pop(name, None)  # so that ids are in the order of their last records
                last[name] = (record, place)
    snapshot = LivingSnapshot.over(base)
    gone = [row for name, (record, _) in last.items() if record.vectors is None and (row := snapshot.row(name)) >= 0]
    if gone:
        snapshot = snapshot.deleted(np.asarray(gone, np.int32))
    upserts = {name: change for name, change in last.items() if change[0].vectors is not None}
    own = [name for name, (record, _) in upserts.items() if record.model == fingerprint]
    shape = (snapshot.entries_per_item, snapshot.dim)
    if own:
        vectors = [_vectors(*upserts[name], shape=shape) for name in own]
        snapshot = snapshot.upserted(own, np.stack(vectors))
    foreign = [
        name for name, (record, _) in upserts.items() if record.model != fingerprint and base.items.row(name) < 0
    ]
    again = _encoded_again({name: upserts[name] for name in foreign}, encode=encode, report=base.report)
    if again:
        snapshot = snapshot.upserted(list(again), np.stack([vector.reshape(shape) for vector in again.values()]))
    held = [name for name, (record, _) in upserts.items() if record.model != fingerprint and base.items.row(name) >= 0]
    changes.keep_sources_of_version(kept, contained=contained, recorded=recorded, held=held)
    changes.set_aside.update(dict.fromkeys(name for name in foreign if name not in again))
    return Replayed(snapshot, changes)


def _vectors(record: Record, place: int, *, shape: tuple[int, int]) -> Float32s:
    """Return the vectors of one item of an upsert, float32 [entries, dim], and check their shape."""
    assert record.vectors is not None
    own = record.vectors[place].reshape(-1, record.vectors.shape[-1])
    if own.shape != shape:
        raise ArtifactError(
            f"record {record.sequence:,} of the journal: expected vectors {list(shape)} per item as the index has "
            f"them, found {list(own.shape)}; the journal belongs to another index"
        )
    return own


def _encoded_again(
    changes: Mapping[str, _Change], *, encode: Encode | None, report: Mapping[str, Any]
) -> dict[str, Float32s]:
    """Encode the items whose sources this model can read; return vectors by id."""
    sources = {
        name: record.sources[place]
        for name, (record, place) in changes.items()
        if record.sources is not None and record.sources[place] is not None
    }
    if encode is None or not sources:
        return {}
    try:
        return dict(zip(sources, encode(list(sources.values()), report), strict=True))
    except DataError:  # one of them is not of this model's types; the others are
        found = {}
        for name, source in sources.items():
            try:
                found[name] = encode([source], report)[0]
            except DataError:
                continue
        return found
