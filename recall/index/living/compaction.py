"""Rewrites files of a journal as one that keeps only the last record of every id."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from recall.index.living.journal_files import COMPACTED
from recall.index.living.journal_format import Record, compacted_records, compaction_head, framed, segment_records


def write_compacted(files: Sequence[Path], target: Path, *, through: int) -> dict[int, int]:
    """Write the last record of every id in some files to another file, and through to the disk.

    Args:
      files: complete files of the journal, in order.
      target: file to write.
      through: last sequence number in `files`.

    Returns:
      The byte where each record with sources begins, by sequence number.

    Raises:
      ArtifactError: a file is damaged.
      OSError: a file is missing, or the disk is full or cannot be written.
    """
    places: dict[int, int] = {}
    last_of = _last_of(files)
    with target.open("wb") as stream:
        stream.write(compaction_head(through=through, records=len(set(last_of.values()))))
        for record in itertools.chain.from_iterable(map(records_of, files)):
            own = [place for place, name in enumerate(record.ids) if last_of[name] == record.sequence]
            if not own:
                continue
            if record.sources is not None:
                places[record.sequence] = stream.tell()
            stream.write(framed(record.take(own).payload()))
        stream.flush()
        os.fsync(stream.fileno())
    return places


def _last_of(files: Sequence[Path]) -> Mapping[str, int]:
    """Return the sequence number of the last record of every id in some files, which are in order."""
    last_of: dict[str, int] = {}
    for record in itertools.chain.from_iterable(map(records_of, files)):
        last_of.update(dict.fromkeys(record.ids, record.sequence))
    return last_of


def records_of(path: Path, *, may_be_torn: bool = False) -> Iterator[Record]:
    """Yield the records of one file of a journal; see `segment_records` for `may_be_torn`.

    Raises:
      ArtifactError: the file is damaged. The records before the damage have been yielded by then.
      OSError: the file is missing, or cannot be read.
    """
    data = path.read_bytes()
    if path.suffix == COMPACTED:
        yield from (record for _, record in compacted_records(path, data))
    else:
        yield from (record for _, _, record in segment_records(path, data, may_be_torn=may_be_torn))
