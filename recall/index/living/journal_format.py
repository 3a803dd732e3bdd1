"""Encodes the changes of an index as the records of a journal, framed and checksummed, and decodes them.

A file is eight bytes of format, then records: length of the payload (4 bytes, little-endian), CRC-32C of these four,
CRC-32C of the payload, payload. A payload is the length of its head (4 bytes), the head as JSON, and the vectors as
float32. Nothing in a record can run: it holds no pickle.
"""

from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import google_crc32c
import numpy as np

from recall.core.arrays import Float32s
from recall.core.errors import ArtifactError

Operation = Literal["upsert", "delete"]

FORMAT = b"RCLJRN\x00\x01"
REMEDY = (
    "restore it from a backup, or run `recall index new-journal`, which puts the journal aside and goes on without the "
    "upserts and deletes that no version holds"
)

_FRAME = struct.Struct("<III")
_LENGTH = struct.Struct("<I")


@dataclasses.dataclass(frozen=True)
class Record:
    """Hold one change of an index.

    Attributes:
      sequence: its number; the numbers of a journal rise by one.
      model: fingerprint of the model that made the vectors.
      operation: `upsert` or `delete`.
      ids: of the items.
      vectors: float32 [items, dim] or [items, entries of each, dim] of an upsert; None of a delete.
      sources: per item a JSON value that it can be encoded from again, or None.
    """

    sequence: int
    model: str
    operation: Operation
    ids: tuple[str, ...]
    vectors: Float32s | None = None
    sources: tuple[Any, ...] | None = None

    def take(self, positions: Sequence[int]) -> Record:
        """Return the same change of some of its items."""
        chosen = list(positions)
        return dataclasses.replace(
            self,
            ids=tuple(self.ids[position] for position in chosen),
            vectors=None if self.vectors is None else self.vectors[chosen],
            sources=None if self.sources is None else tuple(self.sources[position] for position in chosen),
        )

    def payload(self) -> bytes:
        """Encode the record as it is stored."""
        head: dict[str, Any] = {"sequence": self.sequence, "model": self.model, "op": self.operation, "ids": self.ids}
        if self.vectors is not None:
            head["shape"] = self.vectors.shape
        if self.sources is not None and any(source is not None for source in self.sources):
            head["sources"] = self.sources
        text = json.dumps(head, ensure_ascii=False, separators=(",", ":")).encode()
        body = b"" if self.vectors is None else np.ascontiguousarray(self.vectors, "<f4").tobytes()
        return _LENGTH.pack(len(text)) + text + body

    @classmethod
    def of_payload(cls, payload: bytes) -> Record:
        """Decode the bytes that `payload` made.

        Raises:
          ValueError, KeyError, TypeError: they are something else.
        """
        head, body = _split(payload)
        vectors = None
        if head["op"] == "upsert":
            vectors = np.frombuffer(body, "<f4").reshape(head["shape"]).astype(np.float32)
            if len(vectors) != len(head["ids"]):
                raise ValueError(f"{len(head['ids'])} ids but {len(vectors)} vectors")
        elif head["op"] != "delete":
            raise ValueError(f"operation {head['op']!r}")
        sources = tuple(head["sources"]) if "sources" in head else None
        return cls(head["sequence"], head["model"], head["op"], tuple(head["ids"]), vectors, sources)


def framed(payload: bytes) -> bytes:
    """Frame a payload as it stands in a file."""
    length = _LENGTH.pack(len(payload))
    return length + _LENGTH.pack(google_crc32c.value(length)) + _LENGTH.pack(google_crc32c.value(payload)) + payload


def compaction_head(*, through: int, records: int) -> bytes:
    """Encode the beginning of a compacted file.

    Args:
      through: last sequence number that the file replaces.
      records: number of records that follow.
    """
    head = json.dumps({"through": through, "records": records}).encode()
    return FORMAT + framed(_LENGTH.pack(len(head)) + head)


def segment_records(path: Path, data: bytes, *, may_be_torn: bool) -> Iterator[tuple[int, int, Record]]:
    """Yield the records of a segment, with the offsets where each begins and ends.

    Args:
      path: of the segment; its name is the first sequence number.
      data: its bytes.
      may_be_torn: whether a record that the end of the file cuts off is passed over.

    Raises:
      ArtifactError: the segment is damaged; names the file and the byte.
    """
    expected = int(path.stem)
    for start, payload in _frames(path, data, may_be_torn=may_be_torn):
        record = _decoded(path, start, payload)
        if record.sequence != expected:
            raise _damaged(path, start, f"holds record {record.sequence:,}, expected {expected:,}")
        expected += 1
        yield start, start + _FRAME.size + len(payload), record


def compacted_records(path: Path, data: bytes) -> Iterator[tuple[int, Record]]:
    """Yield the records of a compacted file, with the offset of each.

    Raises:
      ArtifactError: the file is damaged or incomplete (it was published whole); names the file and the byte.
    """
    frames = _frames(path, data, may_be_torn=False)
    start, payload = next(frames, (0, b""))
    try:
        head, _ = _split(payload)
        through, count = head["through"], head["records"]
    except (ValueError, KeyError, TypeError, struct.error) as error:
        raise _damaged(path, start, str(error)) from error
    found, last = 0, 0
    for start, payload in frames:
        record = _decoded(path, start, payload)
        if not last < record.sequence <= through:
            raise _damaged(path, start, f"record {record.sequence:,} after {last:,}")
        found, last = found + 1, record.sequence
        yield start, record
    if found != count or through != int(path.stem):
        raise _damaged(path, len(data), f"holds {found:,} records, {count:,} were written")


def record_at(path: Path, offset: int) -> Record:
    """Read the record that begins at a byte of a file.

    Raises:
      ArtifactError: the record is damaged; names the file and the byte.
      FileNotFoundError: there is no such file.
    """
    try:
        with path.open("rb") as stream:
            stream.seek(offset)
            head = stream.read(_FRAME.size)
            length, _, checksum = _FRAME.unpack(head)
            payload = stream.read(length)
    except FileNotFoundError:
        raise
    except (OSError, struct.error) as error:
        raise _damaged(path, offset, str(error)) from error
    if google_crc32c.value(payload) != checksum:
        raise _damaged(path, offset, "the checksum of a record differs")
    return _decoded(path, offset, payload)


def _frames(path: Path, data: bytes, *, may_be_torn: bool) -> Iterator[tuple[int, bytes]]:
    """Yield offsets and payloads of a file's records; end at a record that a crash cut off if `may_be_torn`."""
    if data[: len(FORMAT)] != FORMAT:
        if may_be_torn and (FORMAT.startswith(data) or not any(data)):
            return
        raise _damaged(path, 0, "it is no journal of this release")
    start = len(FORMAT)
    while start < len(data):
        rest = len(data) - start
        if rest < _FRAME.size:
            if may_be_torn:
                return
            raise _damaged(path, start, f"{rest} bytes are left where a record begins")
        length, of_length, checksum = _FRAME.unpack_from(data, start)
        if google_crc32c.value(data[start : start + 4]) != of_length:
            # Some file systems fill with zeros what a crash kept them from writing.
            if may_be_torn and not any(data[start:]):
                return
            raise _damaged(path, start, "the checksum of a record's length differs")
        end = start + _FRAME.size + length
        if end > len(data):
            if may_be_torn:
                return
            raise _damaged(path, start, "the file ends within a record")
        payload = data[start + _FRAME.size : end]
        if google_crc32c.value(payload) != checksum:
            raise _damaged(path, start, "the checksum of a record differs")
        yield start, payload
        start = end


def _decoded(path: Path, start: int, payload: bytes) -> Record:
    """Decode a payload; name its place in the error if it is damaged."""
    try:
        return Record.of_payload(payload)
    except (ValueError, KeyError, TypeError, struct.error) as error:
        raise _damaged(path, start, str(error)) from error


def _split(payload: bytes) -> tuple[dict[str, Any], bytes]:
    """Split a payload into its head and the bytes after it."""
    (length,) = _LENGTH.unpack_from(payload)
    return dict(json.loads(payload[4 : 4 + length])), payload[4 + length :]


def _damaged(path: Path, offset: int, what: str) -> ArtifactError:
    """Make the error of a damaged file."""
    return ArtifactError(f"{path}: damaged at byte {offset:,} ({what}); {REMEDY}")
