"""Records byte by byte against what TensorFlow's own proto classes write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from recall.data.tfrecords import batch_slices, encode_examples, frame_records

EXTREMES = [0, 1, -1, 127, 128, 16_383, 16_384, 2**31, 2**62, 2**63 - 1, -(2**63)]


def table(rows: int = len(EXTREMES)) -> pa.Table:
    lists = [EXTREMES[:length] for length in range(rows)]
    return pa.table(
        {
            "text": ["", "ü", "x" * 127, "y" * 128, "z" * 20_000, *["user"] * (rows - 5)],
            "whole": pa.array(EXTREMES, pa.int64()),
            "share": pa.array(np.linspace(-1e30, 1e-30, rows), pa.float32()),
            "wholes": pa.array(lists, pa.list_(pa.int64())),
            "shares": pa.array([[0.5] * len(one) for one in lists], pa.list_(pa.float32())),
        }
    )


def expected_features(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "text": [row["text"].encode()],
        "whole": [row["whole"]],
        "share": [np.float32(row["share"])],
        "wholes": row["wholes"],
        "shares": row["shares"],
    }


def features_of(message: bytes) -> dict[str, Any]:
    example = tf.train.Example.FromString(message)
    found = {}
    for name, feature in example.features.feature.items():
        found[name] = list(getattr(feature, feature.WhichOneof("kind")).value)
    return found


def test_examples_are_read_back_by_the_proto_classes() -> None:
    source = table()
    for message, row in zip(encode_examples(source).to_pylist(), source.to_pylist(), strict=True):
        assert features_of(message) == expected_features(row)


def test_slices_of_a_table_encode_like_the_rows_they_hold() -> None:
    source = table()
    assert encode_examples(source.slice(3, 4)).to_pylist() == encode_examples(source).to_pylist()[3:7]


def test_a_file_of_frames_is_read_by_tensorflow_with_its_checksums(tmp_path: Path) -> None:
    messages = encode_examples(table())
    (tmp_path / "a.tfrecord").write_bytes(frame_records(messages) + frame_records(messages.slice(2, 3)))
    found = [record.numpy() for record in tf.data.TFRecordDataset(str(tmp_path / "a.tfrecord"))]
    assert found == messages.to_pylist() + messages.to_pylist()[2:5]


def test_frames_are_those_that_tensorflow_writes(tmp_path: Path) -> None:
    messages = encode_examples(table())
    with tf.io.TFRecordWriter(str(tmp_path / "a.tfrecord")) as writer:
        for message in messages.to_pylist():
            writer.write(message)
    assert (tmp_path / "a.tfrecord").read_bytes() == frame_records(messages)


def test_no_rows_make_no_bytes() -> None:
    assert frame_records(encode_examples(table().slice(0, 0))) == b""


def test_other_types_are_refused_by_name() -> None:
    with pytest.raises(TypeError, match=r"odd: expected string, int64, float32.*found double"):
        encode_examples(pa.table({"odd": [1.5]}))


def test_batches_hold_few_values_and_cover_all_rows() -> None:
    weights = np.array([1, 10**7, 1, 1, 3 * 10**6, 3 * 10**6])
    parts = list(batch_slices(weights))
    assert [row for part in parts for row in range(part.start, part.stop)] == list(range(6))
    assert all(weights[part].sum() - weights[part].max() <= 2**22 for part in parts)
    assert max(part.stop - part.start for part in batch_slices(np.zeros(100_000, np.int64))) == 2**14
    assert list(batch_slices(weights[:0])) == []
