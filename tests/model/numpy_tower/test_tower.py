"""Tests the user tower in NumPy against the Keras layer, for every kind that it covers; others have no NumPy form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from recall.data.prepared import PreparedData
from recall.model.inference import encode_users
from recall.model.layers.history_time import duration_buckets
from recall.model.numpy_tower.conversion import numpy_tower_of
from recall.model.numpy_tower.tower import NumpyUserTower, numpy_duration_buckets
from recall.model.recall_model import RecallModel
from tests.conftest import Experiment

LENGTH = 8  # data.history of the experiment
UNKNOWN = -2  # an item that the catalogue lacks
HISTORIES = [[3, 1, 2], [], [UNKNOWN, 5, UNKNOWN, 6], [7], [*range(20)], [UNKNOWN, UNKNOWN]]
AGES_HOURS = [[900.0, 30.0, 0.001], [], [50.0, -1.0, 40.0, 3.0], [2.0], [*range(20, 0, -1)], [np.nan, 1.0]]
KINDS = [
    (),
    ("model.history_encoder=mean",),
    ("model.history_time=both",),
    ("model.history_time=age", "model.history_encoder=mean"),
    ("model.history_time=gap", "model.similarity=cosine"),
    ("model.gate=concat", "model.similarity=cosine"),
    ("model.gate=concat", "model.shared_space=true"),
    ("model.hidden=[]",),
    ("model.hidden=[8,12]", "model.query=both"),
    ("features.user=[]",),
    ("model.content_term=5",),
]
OTHERS = [
    ("model.history_encoder=transformer",),
    ("model.interests.count=2",),
    ("model.query=trigger",),
]


def model_of(experiment: Experiment, prepared: PreparedData, overrides: tuple[str, ...]) -> RecallModel:
    """Build a model without zero weights, since weights that start at zero would hide a missing term."""
    model = RecallModel(experiment(*overrides), prepared)
    model.build_layers()
    random = np.random.default_rng(1)
    for variable in model.trainable_variables:
        variable.assign_add(0.3 * random.standard_normal(variable.shape).astype(np.float32))
    return model


def arrays_of(model: RecallModel, prepared: PreparedData) -> NumpyUserTower | None:
    def tokens() -> np.ndarray:
        return model.item_tokens(tf.range(model.item_table.size)[:, tf.newaxis]).numpy()[:, 0]

    users, items = prepared.user_ids.to_pylist(), prepared.item_ids.to_pylist()
    return numpy_tower_of(model, tokens, users=users, items=items)


def of_tower(model: RecallModel, users: list[str], *, timed: bool) -> np.ndarray:
    """Compute the queries of the Keras tower from known clicks, cut and padded by hand."""
    history = np.full((len(users), LENGTH), -1, np.int32)
    age_ms = np.full((len(users), LENGTH), -1, np.int64)
    for line, (rows, hours) in enumerate(zip(HISTORIES, AGES_HOURS, strict=True)):
        known = [(row, age) for row, age in zip(rows, hours, strict=True) if row >= 0][-LENGTH:]
        for place, (row, age) in enumerate(known):
            history[line, place] = row
            age_ms[line, place] = round(age * 3_600_000) if timed and age >= 0 else -1
    return encode_users(model, np.array(users, object), history, age_ms=age_ms)


@pytest.mark.slow
@pytest.mark.parametrize("overrides", KINDS, ids=lambda kind: " ".join(kind) or "default")
def test_arrays_give_the_vectors_of_the_tower(
    experiment: Experiment, prepared: PreparedData, overrides: tuple[str, ...], tmp_path: Path
) -> None:
    model = model_of(experiment, prepared, overrides)
    users, items = prepared.user_ids.to_pylist(), prepared.item_ids.to_pylist()
    asked = ["nobody", *users[:5]]
    histories = [[items[row] if row >= 0 else "not in the catalogue" for row in rows] for rows in HISTORIES]
    made = arrays_of(model, prepared)
    assert made is not None
    made.save(tmp_path / "arrays")
    arrays = NumpyUserTower.load(tmp_path / "arrays", users=users, items=items)
    assert arrays is not None

    for timed in (True, False):
        found = arrays.vectors(asked, histories, AGES_HOURS if timed else None)
        expected = of_tower(model, asked, timed=timed)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())
        alone = [arrays.vectors([asked[0]], [histories[0]], [AGES_HOURS[0]] if timed else None)[0]]
        np.testing.assert_allclose(alone, expected[:1], rtol=1e-6, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("overrides", OTHERS, ids=" ".join)
def test_towers_of_other_kinds_are_left_to_tensorflow(
    experiment: Experiment, prepared: PreparedData, overrides: tuple[str, ...], tmp_path: Path
) -> None:
    assert arrays_of(model_of(experiment, prepared, overrides), prepared) is None
    assert NumpyUserTower.load(tmp_path / "nothing was saved", users=[], items=[]) is None


def test_nobody_has_vectors_too(experiment: Experiment, prepared: PreparedData) -> None:
    arrays = arrays_of(model_of(experiment, prepared, ()), prepared)
    assert arrays is not None
    assert arrays.vectors([], []).shape == (0, 8 + 1)  # model.dim, and the dimension of appeal


def test_durations_fall_into_the_buckets_of_the_tower() -> None:
    random = np.random.default_rng(1)
    edges = np.array([1000 * (2**k - 1) for k in range(33)], np.int64)
    durations = np.concatenate([[-(10**6), -1], edges - 1, edges, edges + 1, random.integers(0, 10**13, 1_000)])
    np.testing.assert_array_equal(numpy_duration_buckets(durations), duration_buckets(tf.constant(durations)).numpy())
