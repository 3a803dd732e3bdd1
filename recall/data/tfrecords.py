"""Encodes columns as tf.train.Example records, whole batches at a time, and frames them as TFRecord.

An Example is a map from feature name to one of three lists (tensorflow/core/example/{example,feature}.proto). Its
wire format is put together column by column: lengths with NumPy, bytes with Arrow. Doing it example by example
through the proto classes takes ten times as long.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import google_crc32c
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recall.core.arrays import AnyInts, Int32s, Int64s

# Keys of the proto: (field number << 3) | 2 for what is length-delimited.
_FIELD_1 = b"\x0a"
_FIELD_2 = b"\x12"
_BYTES_LIST, _FLOAT_LIST, _INT64_LIST = b"\x0a", b"\x12", b"\x1a"
_CRC_MASK = 0xA282EAD8
# Offsets of an Arrow binary array are int32, so what is encoded at once stays far below 2 GiB.
_VALUES_PER_BATCH = 1 << 22
_RECORDS_PER_BATCH = 1 << 14
_LENGTHS_IN_A_TABLE = 1 << 16


class _Message(NamedTuple):
    """Hold one message per example: its bytes in pieces that are joined at the end, and their total length."""

    pieces: list[pa.Scalar | pa.Array]
    lengths: Int64s


def batch_slices(values_per_row: Int64s) -> Iterator[slice]:
    """Cut rows into parts that are small enough to be encoded at once; one very long row is a part of its own.

    Args:
      values_per_row: int64 [rows], entries of all lists of a row.
    """
    part = np.cumsum(values_per_row) // _VALUES_PER_BATCH + np.arange(len(values_per_row)) // _RECORDS_PER_BATCH
    cuts = (np.flatnonzero(np.diff(part)) + 1).tolist()
    for start, stop in itertools.pairwise([0, *cuts, len(part)]):
        if stop > start:
            yield slice(start, stop)


def encode_examples(table: pa.Table) -> pa.BinaryArray:
    """Serialise tf.train.Example messages, one per row.

    Args:
      table: columns string, binary, int64, float32, or list of int64 or float32, without nulls; a column's name is
        the feature's. Few enough rows for 2 GiB of messages, see `batch_slices`.

    Raises:
      TypeError: a column is of another type.
    """
    features = [_map_entry(name, _array(table[name])) for name in table.column_names]
    pieces = [piece for feature in features for piece in feature.pieces]
    total = sum((feature.lengths for feature in features), np.zeros(len(table), np.int64))
    return _join(_FIELD_1, _varints(total), *pieces)


def frame_records(messages: pa.BinaryArray) -> bytes:
    """Put messages into TFRecord frames: length, its masked CRC-32C, message, its masked CRC-32C."""
    lengths = _binary_lengths(messages).astype("<u8")
    distinct, inverse = _distinct(lengths.astype(np.int64))
    length_crcs = [google_crc32c.value(length.to_bytes(8, "little")) for length in distinct.tolist()]
    length_crc = np.array(length_crcs, np.uint64)[inverse]
    offsets, data = _binary_content(messages)
    bounds = offsets.tolist()
    parts = map(data.__getitem__, map(slice, bounds, bounds[1:]))  # no line of Python per message
    message_crc = np.fromiter(map(google_crc32c.value, parts), np.uint64, len(messages))

    head = np.empty((len(messages), 12), np.uint8)
    head[:, :8] = lengths.view(np.uint8).reshape(-1, 8)
    head[:, 8:] = _masked(length_crc)
    return _binary_content(_join(_binary(head), messages, _binary(_masked(message_crc))))[1]


def _map_entry(name: str, values: pa.Array) -> _Message:
    """Encode the `features` entry of an Example: {1: name, 2: Feature {kind: list}}.

    The bytes before the values follow from their length. They are made once per length, not once per row.
    """
    kind, body = _feature_values(name, values)
    lengths = _binary_lengths(body)
    distinct, which = _distinct(lengths)
    heads = [_entry_head(name, kind, length) for length in distinct.tolist()]
    head = _constant(heads[0]) if len(heads) == 1 else pa.array(heads, pa.binary()).take(pa.array(which))
    return _Message([head, body], np.array([len(head) for head in heads], np.int64)[which] + lengths)


def _entry_head(name: str, kind: bytes, length: int) -> bytes:
    """Encode an entry of `features` up to its values, which take `length` bytes."""
    key = _FIELD_1 + bytes([len(name.encode())]) + name.encode()
    # Numbers are packed: one key, one length, then all values; without values there is neither.
    values = b"" if length == 0 and kind != _BYTES_LIST else _FIELD_1 + _varint(length)
    feature = kind + _varint(len(values) + length) + values
    entry = key + _FIELD_2 + _varint(len(feature) + length) + feature
    return _FIELD_1 + _varint(len(entry) + length) + entry


def _feature_values(name: str, values: pa.Array) -> tuple[bytes, pa.BinaryArray]:
    """Return the kind of list inside a Feature and the bytes of its values."""
    if pa.types.is_string(values.type) or pa.types.is_binary(values.type):
        return _BYTES_LIST, values.cast(pa.binary())
    offsets, flat = _flattened(values)
    if flat.dtype == np.int64:
        data, sizes = _varint_bytes(flat.view(np.uint64))
        ends = np.concatenate([[0], np.cumsum(sizes)])
        return _INT64_LIST, _binary_slices(data, ends[offsets])
    if flat.dtype == np.float32:
        return _FLOAT_LIST, _binary_slices(flat.astype("<f4").view(np.uint8), offsets * 4)
    raise TypeError(f"{name}: expected string, int64, float32 or lists of numbers, found {values.type}")


def _distinct(lengths: Int64s) -> tuple[Int64s, Int64s]:
    """Find distinct lengths and the inverse as np.unique does, without sorting where the numbers are small."""
    largest = int(lengths.max(initial=0))
    if largest > _LENGTHS_IN_A_TABLE:
        return np.unique(lengths, return_inverse=True)
    present = np.zeros(largest + 1, bool)
    present[lengths] = True
    return np.flatnonzero(present), (np.cumsum(present) - 1)[lengths]


def _flattened(values: pa.Array) -> tuple[Int64s, npt.NDArray[np.generic]]:
    """Flatten a list column to offsets [rows + 1] and values; a plain column has one value per row."""
    if not pa.types.is_list(values.type):
        return np.arange(len(values) + 1), values.to_numpy()
    offsets = values.offsets.to_numpy().astype(np.int64)
    return offsets - offsets[0], values.flatten().to_numpy()


def _varint_bytes(values: npt.NDArray[np.uint64]) -> tuple[npt.NDArray[np.uint8], Int64s]:
    """Encode all values in base 128, one after another; returns the bytes and how many each value takes."""
    if not len(values):
        return np.zeros(0, np.uint8), np.zeros(0, np.int64)
    sizes = _varint_lengths(values)
    width = int(sizes.max())
    left = values if width > 4 else values.astype(np.uint32)  # half the bytes to go through
    digits = np.empty((len(values), width), np.uint8)
    for place in range(width):
        digits[:, place] = left & left.dtype.type(0x7F)
        digits[:, place] |= (sizes > place + 1).view(np.uint8) << 7  # more bytes follow
        left = left >> left.dtype.type(7)
    if sizes.min() == width:
        return digits.ravel(), sizes
    return digits[np.arange(width) < sizes[:, np.newaxis]], sizes


def _varint(value: int) -> bytes:
    digits = []
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*digits, value])


def _varint_lengths(values: AnyInts) -> Int64s:
    lengths = np.ones(len(values), np.uint8)
    largest = int(values.max(initial=0))
    for digits in range(1, 10):
        if largest >> (7 * digits) == 0:
            break
        lengths += values >= values.dtype.type(1 << (7 * digits))
    return lengths.astype(np.int64)


def _varints(values: Int64s) -> pa.BinaryArray:
    data, sizes = _varint_bytes(values.astype(np.uint64))
    return _binary_slices(data, np.concatenate([[0], np.cumsum(sizes)]))


def _binary_slices(data: npt.NDArray[np.uint8], offsets: Int64s) -> pa.BinaryArray:
    buffers = [None, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(np.ascontiguousarray(data))]
    return pa.BinaryArray.from_buffers(pa.binary(), len(offsets) - 1, buffers)


def _binary(rows: npt.NDArray[np.uint8]) -> pa.BinaryArray:
    """Turn rows of bytes, uint8 [rows, width], into binary [rows]."""
    return _binary_slices(rows.ravel(), np.arange(len(rows) + 1) * rows.shape[1])


def _binary_content(array: pa.BinaryArray) -> tuple[Int32s, bytes]:
    """Return offsets [n + 1] and the bytes of all values, one after another."""
    if not len(array):
        return np.zeros(1, np.int32), b""
    offsets = np.frombuffer(array.buffers()[1], np.int32)[array.offset : array.offset + len(array) + 1]
    data = array.buffers()[2]
    return offsets - offsets[0], data[int(offsets[0]) : int(offsets[-1])].to_pybytes() if data else b""


def _binary_lengths(array: pa.Array) -> Int64s:
    return pc.binary_length(array).to_numpy(zero_copy_only=False).astype(np.int64)


def _constant(value: bytes) -> pa.Scalar:
    return pa.scalar(value, pa.binary())


def _join(*pieces: bytes | pa.Scalar | pa.Array) -> pa.BinaryArray:
    values = [_constant(piece) if isinstance(piece, bytes) else piece for piece in pieces]
    return pc.binary_join_element_wise(*values, _constant(b""))


def _masked(crc: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint8]:
    """Mask checksums as TFRecord does: uint64 [n] -> uint8 [n, 4]."""
    rotated = (crc >> np.uint64(15)) | (crc << np.uint64(17))
    masked = ((rotated + np.uint64(_CRC_MASK)) & np.uint64(0xFFFFFFFF)).astype("<u4")
    return masked.view(np.uint8).reshape(len(crc), 4)


def _array(column: pa.ChunkedArray) -> pa.Array:
    array = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    return pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array
