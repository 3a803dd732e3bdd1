"""Tests the gate over several histories: absent ones have no weight, present ones share it."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from recall.config.model import ModelConfig
from recall.model.towers.history_encoders import HISTORY_ENCODERS
from recall.model.towers.history_fusion import HistoryFusion
from recall.model.towers.query import UserTower

DIM, USERS = 4, 4
CLICKS = tf.constant([2, 0, 3, 0])  # entries of each user
ENTRIES = {"likes": tf.constant([1, 2, 0, 0]), "other": tf.constant([0, 2, 3, 0])}


def state() -> tf.Tensor:
    return tf.random.stateless_normal([USERS, DIM], [0, 1])


def entries(*, seed: int = 5) -> dict[str, tuple[tf.Tensor, tf.Tensor]]:
    return {
        name: (tf.random.stateless_normal([USERS, 3, DIM], [seed, number]), lengths)
        for number, (name, lengths) in enumerate(ENTRIES.items())
    }


@pytest.fixture(params=HISTORY_ENCODERS)
def fusion(request: pytest.FixtureRequest) -> HistoryFusion:
    tf.keras.utils.set_random_seed(2)
    config = ModelConfig(dim=DIM, dropout=0.0, history_encoder=request.param)
    layer = HistoryFusion(config, lengths={"other": 3, "likes": 3}, own={"other": 9})
    layer(state(), CLICKS, entries())
    return layer


def test_states_are_averaged_by_the_softmax_of_their_scores(fusion: HistoryFusion) -> None:
    found = fusion(state(), CLICKS, entries()).numpy()
    states = {"clicks": state()} | {name: fusion.encoders[name].last_state(*part) for name, part in entries().items()}
    scores = {name: layer(states[name]).numpy() for name, layer in zip(("clicks", "likes", "other"), fusion.scores)}  # noqa: B905
    # By hand: whom the lengths above give what; the last user is new everywhere.
    present = [("clicks", "likes"), ("likes", "other"), ("clicks", "other"), ("clicks",)]
    for user, names in enumerate(present):
        weights = np.exp([scores[name][user, 0] for name in names])
        expected = np.average([states[name].numpy()[user] for name in names], axis=0, weights=weights)
        np.testing.assert_allclose(found[user], expected, atol=1e-5)


def test_what_is_absent_has_no_say(fusion: HistoryFusion) -> None:
    found, others = (fusion(state(), CLICKS, entries(seed=seed)).numpy() for seed in (5, 6))
    np.testing.assert_array_equal(found[3], state()[3])
    np.testing.assert_array_equal(others[3], state()[3])
    assert (np.abs(found[:3] - others[:3]).max(axis=1) > 1e-3).all()
    moved = fusion(state() + 1.0, CLICKS, entries()).numpy()
    np.testing.assert_array_equal(moved[1], found[1])  # who never clicked is known by the others alone


def test_what_all_histories_say_together_reaches_every_interest() -> None:
    tf.keras.utils.set_random_seed(2)
    config = ModelConfig(dim=DIM, dropout=0.0, interests={"count": 3})
    fusion = HistoryFusion(config, lengths={"other": 3, "likes": 3}, own={"other": 9})
    tower = UserTower((), config=config, parts=1, max_length=3, fusion=fusion)
    clicks = tf.random.stateless_normal([USERS, 3, DIM], [7, 7])
    found, others = (tower({}, clicks, CLICKS, further=entries(seed=seed)).numpy() for seed in (5, 6))
    assert found.shape == (USERS, 3, DIM + 1)
    np.testing.assert_array_equal(found[..., -1], 1)
    np.testing.assert_array_equal(others[3], found[3])  # who has no further history is served as before
    assert (np.abs(found[:3] - others[:3]).max(axis=-1) > 1e-4).all()
