"""Query towers: unit length beside a 1 for appeal, the same query inside a sequence as after it, what it depends on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from recall.config.model import ModelConfig
from recall.config.objectives import StudentConfig
from recall.data.features.table_encoder import EncodedColumn
from recall.model.layers.features import Features, FeatureTable
from recall.model.towers.history_encoders import HISTORY_ENCODERS
from recall.model.towers.query import QueryHead, TriggerTower, UserTower
from recall.model.towers.student import StudentTower

DIM, LONGEST, USERS = 8, 5, 4
PROFILE = (EncodedColumn("user_id", "user_id", "user", "code", 6), EncodedColumn("age", "age", "user", "number", 1))
USER_ROWS = pa.table({"user_id": pa.array([2, 5, 1, 0], pa.int32()), "age": pa.array([0.3, -1, None, 2], pa.float32())})
LENGTHS = tf.constant([3, LONGEST, 0, 1])
TOKENS = tf.constant(np.random.default_rng(17).normal(size=(USERS, LONGEST, DIM)), tf.float32)

every_encoder = pytest.mark.parametrize("encoder", list(HISTORY_ENCODERS))
both_widths = pytest.mark.parametrize("parts", [1, 2])


def model_config(**settings: Any) -> ModelConfig:
    return ModelConfig(dim=DIM, hidden=(10,), **{"dropout": 0.0, "similarity": "cosine", **settings})


def without_appeal(queries: tf.Tensor) -> np.ndarray:
    """Remove the last dimension of queries, which is 1 in each."""
    queries = np.asarray(queries)
    np.testing.assert_array_equal(queries[:, -1], np.ones(len(queries)))
    return queries[:, :-1]


def profiles(rows: list[int] | None = None) -> Features:
    return FeatureTable(PROFILE, USER_ROWS).gather(tf.constant(range(USERS) if rows is None else rows))


def randomise(layer: tf.keras.layers.Layer) -> None:
    random = np.random.default_rng(19)
    layer.set_weights([random.normal(scale=0.5, size=weight.shape) for weight in layer.weights])


def user_tower(*, encoder: str = "attention", parts: int = 1, profile: bool = True, **settings: Any) -> UserTower:
    config = model_config(history_encoder=encoder, **settings)
    tower = UserTower(PROFILE if profile else (), config=config, parts=parts, max_length=LONGEST)
    tower(profiles() if profile else {}, TOKENS, LENGTHS)  # creates all weights
    randomise(tower)
    return tower


def trigger_tower(*, parts: int = 1) -> TriggerTower:
    tower = TriggerTower(model_config(), parts=parts)
    tower(TOKENS[:, 0])
    randomise(tower)
    return tower


def student_tower(*, parts: int) -> StudentTower:
    tower = StudentTower(model_config(), StudentConfig(), parts=parts, max_length=LONGEST)
    tower(None, TOKENS, LENGTHS)
    randomise(tower)
    return tower


# Every query tower; one joins by being named here.
QUERIES: dict[str, Callable[[int], tf.Tensor]] = {
    "user": lambda parts: user_tower(parts=parts)(profiles(), TOKENS, LENGTHS),
    "trigger": lambda parts: trigger_tower(parts=parts)(TOKENS[:, 0]),
    "student": lambda parts: student_tower(parts=parts)(None, TOKENS, LENGTHS),
}


@both_widths
@pytest.mark.parametrize("kind", list(QUERIES))
def test_each_part_of_a_query_has_unit_length(kind: str, parts: int) -> None:
    queries = without_appeal(QUERIES[kind](parts))
    assert queries.shape == (USERS, parts * DIM)
    for part in np.split(queries, parts, axis=1):
        np.testing.assert_allclose(np.linalg.norm(part, axis=1), np.ones(USERS), atol=1e-5)
    if parts == 2:
        assert not np.allclose(*np.split(queries, 2, axis=1), atol=1e-2)  # one looks for b, the other for m


@every_encoder
@both_widths
def test_query_inside_a_sequence_is_the_query_after_the_cut_history(encoder: str, parts: int) -> None:
    tower = user_tower(encoder=encoder, parts=parts)
    # Several positions of a user, in no order, one before his first click.
    users = [0, 1, 1, 1, 3, 0, 2, 1]
    positions = [2, 4, 0, 3, 0, -1, -1, -1]
    found = tower.at_positions(
        profiles(), TOKENS, LENGTHS, users=tf.constant(users), positions=tf.constant(positions)
    ).numpy()
    assert found.shape == (8, parts * DIM + 1)
    for query, user, position in zip(found, users, positions, strict=True):
        clicks = position + 1
        cut = tower(profiles([user]), TOKENS[user : user + 1, :clicks], tf.constant([clicks]))
        np.testing.assert_allclose(query, cut[0], rtol=1e-4, atol=1e-5)


def test_queries_inside_sequences_work_without_a_profile() -> None:
    tower = user_tower(profile=False)
    found = tower.at_positions({}, TOKENS, LENGTHS, users=tf.constant([1, 0]), positions=tf.constant([4, 2]))
    np.testing.assert_allclose(found, tf.gather(tower({}, TOKENS, LENGTHS), [1, 0]), rtol=1e-4, atol=1e-5)


def test_query_depends_on_every_part_of_the_profile() -> None:
    tower, features = user_tower(), profiles()
    queries = tower(features, TOKENS, LENGTHS).numpy()
    for name in ("user_id", "age"):
        changed = {**features, name: tf.roll(features[name], 1, axis=0)}
        apart = np.abs(tower(changed, TOKENS, LENGTHS).numpy() - queries).max(axis=1)
        assert (apart > 1e-4).all(), name


@every_encoder
def test_query_depends_on_the_history_and_not_on_its_padding(encoder: str) -> None:
    tower = user_tower(encoder=encoder)
    queries = tower(profiles(), TOKENS, LENGTHS).numpy()
    is_real = tf.sequence_mask(LENGTHS, LONGEST)[..., tf.newaxis]
    other_padding = tower(profiles(), tf.where(is_real, TOKENS, 50.0), LENGTHS).numpy()
    np.testing.assert_allclose(other_padding, queries, rtol=1e-4, atol=1e-5)
    other_clicks = tower(profiles(), tf.where(is_real, -TOKENS, TOKENS), LENGTHS).numpy()
    apart = np.abs(other_clicks - queries).max(axis=1)
    assert (apart > 1e-3).tolist() == [True, True, False, True]  # user 2 has no history


def test_users_without_history_differ_by_their_profile() -> None:
    tower = user_tower()
    queries = tower(profiles(), TOKENS[:, :0], tf.zeros([USERS], tf.int32)).numpy()
    assert np.abs(queries[1:] - queries[0]).max(axis=1).min() > 1e-3


@both_widths
def test_query_of_nobody_with_nothing_has_a_direction_from_the_start(parts: int) -> None:
    # Without a history and a profile a fresh tower sees zeros only.
    tf.keras.utils.set_random_seed(4)
    tower = UserTower((), config=model_config(), parts=parts, max_length=LONGEST)
    with tf.GradientTape() as tape:
        queries = tower({}, TOKENS[:, :0], tf.zeros([USERS], tf.int32))
        loss = tf.reduce_mean(queries[:, 0])
    np.testing.assert_allclose(
        np.linalg.norm(without_appeal(queries), axis=1), np.full(USERS, np.sqrt(parts)), atol=1e-5
    )
    gradients = tape.gradient(loss, tower.head.trainable_variables)
    assert max(np.abs(gradient).max() for gradient in gradients) < 200


def test_trigger_query_follows_from_its_own_item_alone() -> None:
    tower = trigger_tower()
    together = tower(TOKENS[:, 0]).numpy()
    for row in range(USERS):
        np.testing.assert_allclose(tower(TOKENS[row : row + 1, 0])[0], together[row], rtol=1e-4, atol=1e-6)
    assert np.abs(together[1:] - together[0]).max(axis=1).min() > 1e-3


def test_head_treats_every_position_alike_whatever_stands_before_it() -> None:
    head = QueryHead(model_config(), parts=2, name="head")
    profile = tf.random.stateless_normal([USERS, LONGEST, 3], [1, 2])
    flat = head(tf.reshape(TOKENS, [-1, DIM]), tf.reshape(profile, [-1, 3]))
    np.testing.assert_allclose(tf.reshape(head(TOKENS, profile), [-1, 2 * DIM + 1]), flat, rtol=1e-4, atol=1e-5)


def test_queries_drop_out_in_training_only() -> None:
    tower = user_tower(dropout=0.5)
    quiet = tower(profiles(), TOKENS, LENGTHS).numpy()
    np.testing.assert_array_equal(tower(profiles(), TOKENS, LENGTHS), quiet)
    assert not np.allclose(tower(profiles(), TOKENS, LENGTHS, training=True), quiet, atol=1e-3)


@every_encoder
def test_every_weight_of_the_user_tower_is_trained(encoder: str) -> None:
    tower = user_tower(encoder=encoder)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tower(profiles(), TOKENS, LENGTHS)[:, 0])
    gradients = tape.gradient(loss, tower.trainable_variables)
    missing = [v.name for v, g in zip(tower.trainable_variables, gradients, strict=True) if g is None]
    assert not missing


@both_widths
def test_dot_product_keeps_the_length_of_queries(parts: int) -> None:
    state = TOKENS[:, 0]
    outputs = {}
    for similarity in ("cosine", "dot"):
        head = QueryHead(model_config(similarity=similarity), parts=parts, name="head")
        head(state)
        randomise(head)
        outputs[similarity] = head(state).numpy()[:, :-1].reshape(USERS, parts, DIM)
    lengths = np.linalg.norm(outputs["dot"], axis=2, keepdims=True)
    assert np.ptp(lengths) > 0.1
    np.testing.assert_allclose(outputs["dot"] / lengths, outputs["cosine"], rtol=1e-4, atol=1e-5)


@both_widths
def test_in_a_shared_space_a_fresh_query_is_the_state(parts: int) -> None:
    head = QueryHead(model_config(similarity="dot", shared_space=True), parts=parts, name="head")
    state = TOKENS[:, 0]
    profile = tf.ones([USERS, 3])
    np.testing.assert_allclose(without_appeal(head(state, profile)), np.tile(state, (1, parts)), atol=0.05)
    randomise(head)
    assert np.abs(without_appeal(head(state, profile)) - np.tile(state, (1, parts))).max() > 0.5
