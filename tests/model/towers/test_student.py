"""Tests the student tower: the same query inside a sequence as after it, and no gradient to its inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from recall.config.model import ModelConfig
from recall.config.objectives import StudentConfig
from recall.model.towers.student import StudentTower

DIM, LONGEST, USERS = 8, 5, 4
LENGTHS = tf.constant([3, LONGEST, 0, 1])
random = np.random.default_rng(29)
TOKENS = tf.constant(random.normal(size=(USERS, LONGEST, DIM)), tf.float32)
PROFILE = tf.constant(random.normal(size=(USERS, 3)), tf.float32)

every_kind = pytest.mark.parametrize("kind", ["mean", "attention"])


def student_tower(kind: str, *, parts: int = 1, profile: tf.Tensor | None = PROFILE, **settings: Any) -> StudentTower:
    config = ModelConfig(dim=DIM, **{"similarity": "cosine", **settings})
    student = StudentConfig(kind=kind, hidden=(6,), dropout=0)
    tower = StudentTower(config, student, parts=parts, max_length=LONGEST)
    tower(profile, TOKENS, LENGTHS)  # creates all weights
    tower.set_weights([random.normal(scale=0.5, size=weight.shape) for weight in tower.weights])
    return tower


@every_kind
@pytest.mark.parametrize("profile", [PROFILE, None])
def test_a_query_inside_a_sequence_is_that_of_the_history_up_to_there(kind: str, profile: tf.Tensor | None) -> None:
    tower = student_tower(kind, profile=profile)
    users, positions = tf.constant([1, 1, 0, 3, 2]), tf.constant([0, 4, 1, -1, -1])
    found = tower.at_positions(profile, TOKENS, LENGTHS, users=users, positions=positions)
    own = None if profile is None else tf.gather(profile, users)
    expected = tower(own, tf.gather(TOKENS, users), positions + 1)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@every_kind
def test_what_stands_behind_the_end_of_a_history_does_not_matter(kind: str) -> None:
    tower = student_tower(kind)
    is_real = tf.sequence_mask(LENGTHS, LONGEST)[..., tf.newaxis]
    np.testing.assert_allclose(
        tower(PROFILE, tf.where(is_real, TOKENS, 99.0), LENGTHS), tower(PROFILE, TOKENS, LENGTHS), atol=1e-5
    )


@every_kind
def test_nothing_flows_back_into_tokens_and_profile(kind: str) -> None:
    tower = student_tower(kind)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([TOKENS, PROFILE])
        after = tf.reduce_sum(tower(PROFILE, TOKENS, LENGTHS)[:, 0])
        inside = tower.at_positions(PROFILE, TOKENS, LENGTHS, users=tf.constant([1, 1]), positions=tf.constant([0, 3]))
    for value in (after, tf.reduce_sum(inside[:, 0])):
        assert tape.gradient(value, [TOKENS, PROFILE]) == [None, None]


def test_attention_knows_the_order_of_clicks_and_the_mean_does_not() -> None:
    reverse = tf.reverse(TOKENS, axis=[1])
    full = tf.fill([USERS], LONGEST)
    differences = {}
    for kind in ("mean", "attention"):
        tower = student_tower(kind)
        differences[kind] = np.abs(tower(PROFILE, TOKENS, full) - tower(PROFILE, reverse, full)).max()
    assert differences["mean"] < 1e-5
    assert differences["attention"] > 1e-2
