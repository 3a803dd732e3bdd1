"""Encoding in the graph is the encoding that the model was trained with, for every type of feature."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from pydantic import TypeAdapter

from recall.config.features import Feature
from recall.data.features.table_encoder import TableEncoder
from recall.model.layers.features import dense_features
from recall.serving.export.features import GraphEncoder

FEATURES = [
    {"name": "user", "type": "id", "column": "user_id"},
    {"name": "city", "type": "category"},
    {"name": "likes", "type": "tags", "max_tags": 3},
    {"name": "age", "type": "number"},
    {"name": "income", "type": "number", "log": True},
    {"name": "height", "type": "number", "transform": "bucketise", "buckets": 4},
    {"name": "face", "type": "embedding", "clusters": [2, 4]},
]
RANDOM = np.random.default_rng(9)


@pytest.fixture(scope="module")
def encoder() -> TableEncoder:
    rows = 60
    adapter: TypeAdapter[Any] = TypeAdapter(Feature)
    table = pa.table(
        {
            "user_id": [f"u{row}" for row in range(rows)],
            "city": [["Graz", "Łódź", "São Paulo"][row % 3] for row in range(rows)],
            "likes": [[f"t{row % 5}", f"t{row % 7}"] for row in range(rows)],
            "age": RANDOM.integers(10, 80, rows),
            "income": RANDOM.lognormal(10, 1, rows),
            "height": RANDOM.integers(150, 200, rows),
            "face": RANDOM.normal(size=(rows, 6)).tolist(),
        }
    )
    return TableEncoder.fit({"user": [adapter.validate_python(feature) for feature in FEATURES]}, table)


def encoded(encoder: TableEncoder, rows: list[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The same rows by the table's encoder and by the graph's."""
    width = max(1, *(len(row.get("likes") or ()) for row in rows))
    raw = {
        "user": [row.get("user_id") or "" for row in rows],
        "city": [row.get("city") or "" for row in rows],
        "likes": [[*(row.get("likes") or ()), *[""] * width][:width] for row in rows],
        **{
            name: [np.nan if row.get(name) is None else row[name] for row in rows]
            for name in ("age", "income", "height")
        },
        "face": [row.get("face") or [0.0] * 6 for row in rows],
    }
    graph = GraphEncoder(encoder)
    function = tf.function(graph, input_signature=[graph.inputs], autograph=False)
    found = function({name: tf.constant(raw[name], spec.dtype) for name, spec in graph.inputs.items()})
    return dense_features(encoder.columns, encoder.encode(rows)), {name: value.numpy() for name, value in found.items()}


def test_rows_of_all_types_are_encoded_alike(encoder: TableEncoder) -> None:
    rows = [
        {
            "user_id": f"u{row}", "city": "Łódź", "likes": [f"t{row % 4}", "t1"], "age": row, "income": 10.0**row,
            "height": 150 + row, "face": RANDOM.normal(size=6).tolist(),
        }
        for row in range(50)
    ]  # fmt: skip
    expected, found = encoded(encoder, rows)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        if name == "likes":  # a tag that is left out leaves a gap here, which says nothing
            assert [sorted(line[line > 0]) for line in found[name]] == [sorted(line[line > 0]) for line in values]
            continue
        assert found[name].dtype == values.dtype
        np.testing.assert_allclose(found[name], values, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"user_id": "nobody", "city": "Atlantis", "likes": ["unheard of"]},
        {"city": "  Graz\t", "user_id": "\u00a0u3 "},
        {"likes": ["t2", "t2", "", "t3", "t2", "t4", "t0"]},  # each once, and of these the first three
        {"age": -5, "income": -3.0, "height": 1e9},
        {"age": 0, "income": 0, "height": 0},
        {"face": [0.0] * 6},
    ],
    ids=["nothing", "unknown", "spaces", "tags", "below", "zero", "no direction"],
)
def test_odd_values_are_encoded_alike(encoder: TableEncoder, row: dict[str, Any]) -> None:
    expected, found = encoded(encoder, [row])
    for name, values in expected.items():
        if name == "likes":
            assert sorted(found[name][found[name] > 0]) == sorted(values[values > 0])
        else:
            np.testing.assert_allclose(found[name], values, rtol=1e-6, err_msg=name)


def test_values_on_the_edges_of_buckets_go_up(encoder: TableEncoder) -> None:
    ((_, fitted),) = [pair for pair in encoder.features if pair[1].feature.name == "height"]
    expected, found = encoded(encoder, [{"height": edge} for edge in fitted.edges])  # type: ignore[attr-defined]
    assert len(found["height"]) == 3
    assert found["height"].tolist() == expected["height"].tolist() == [3, 4, 5]


def test_an_own_id_that_is_missing_is_an_unknown_user(encoder: TableEncoder) -> None:
    graph = GraphEncoder(encoder, id_column="user_id")
    raw = {
        name: tf.zeros([1, *(size or 1 for size in spec.shape[1:])], spec.dtype)
        if spec.dtype != tf.string
        else tf.fill([1] * len(spec.shape), "")
        for name, spec in graph.inputs.items()
    }
    found = graph(raw)
    assert found["user"].numpy().tolist() == [1]
    assert found["city"].numpy().tolist() == [0]
