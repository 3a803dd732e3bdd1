"""The design matrix of encoded content, number by number."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from recall.data.content_prior.linear_ctr import design_matrix, design_scale, design_width
from recall.data.features.table_encoder import EncodedColumn

COLUMNS = (
    EncodedColumn("kind", "kind", "meta", "code", 4),
    EncodedColumn("tags", "tags", "meta", "codes", 5),
    EncodedColumn("length", "length", "meta", "number", 1),
    EncodedColumn("text", "text", "meta", "vector", 2),
)
TABLE = pa.table(
    {
        "kind": pa.array([2, 0, 3], pa.int32()),
        "tags": pa.array([[2, 4], [], [3]], pa.list_(pa.int32())),
        "length": pa.array([-0.5, None, 80.0], pa.float32()),
        "text": pa.array([[3.0, 4.0], [0.0, 1.0], None], pa.list_(pa.float32(), 2)),
    }
)
# kind: one-hot of four | tags: of five | length (cut off at 5) and whether missing | text and whether missing
EXPECTED = [
    [0, 0, 1, 0, 0, 0, 1, 0, 1, -0.5, 0, 3, 4, 0],
    [1, 0, 0, 0, 0, 0, 0, 0, 0, 0.0, 1, 0, 1, 0],
    [0, 0, 0, 1, 0, 0, 0, 1, 0, 5.0, 0, 0, 0, 1],
]


def test_design_matrix_shows_codes_as_ones_and_what_is_missing() -> None:
    assert design_matrix(COLUMNS, TABLE).toarray().tolist() == EXPECTED
    assert sum(map(design_width, COLUMNS)) == len(EXPECTED[0])


def test_rows_in_parts_make_the_same_design() -> None:
    parts = [design_matrix(COLUMNS, TABLE.slice(start, 1)).toarray() for start in range(3)]
    assert np.concatenate(parts).tolist() == EXPECTED
    assert design_matrix((), TABLE).shape == (3, 0)


def test_vectors_are_scaled_to_a_mean_square_length_of_one() -> None:
    # Squared lengths 25 and 1 of the two that there are: 13 on average.
    scale = design_scale(COLUMNS, design_matrix(COLUMNS, TABLE))
    assert scale == pytest.approx([1] * 11 + [13**-0.5] * 2 + [1])
