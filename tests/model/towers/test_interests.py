"""Tests interest extractors against their formulas in NumPy, their common promises, and the user tower with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from recall.config.model import ModelConfig
from recall.model.towers.history_encoders import HISTORY_ENCODERS
from recall.model.towers.interests import INTEREST_EXTRACTORS, AttentionInterests, InterestExtractor, RoutingInterests
from recall.model.towers.query import UserTower

DIM, LONGEST, COUNT = 8, 6, 3
Array = npt.NDArray[np.float64]
every_extractor = pytest.mark.parametrize("kind", list(INTEREST_EXTRACTORS))
every_encoder = pytest.mark.parametrize("encoder", list(HISTORY_ENCODERS))

# Histories of every length from none to the longest, padded with numbers that would show.
LENGTHS = tf.constant([3, 0, LONGEST, 1, 5])
ENTRIES = tf.constant(np.random.default_rng(7).normal(size=(5, LONGEST, DIM)), tf.float32)


def config(kind: str = "attention", *, count: int = COUNT, **settings: Any) -> ModelConfig:
    interests = {"count": count, "extractor": kind}
    return ModelConfig(
        **{"dim": DIM, "hidden": (10,), "dropout": 0.0, "similarity": "cosine", "interests": interests, **settings}
    )


def randomise(layer: tf.keras.layers.Layer) -> None:
    random = np.random.default_rng(13)
    layer.set_weights([random.normal(scale=0.7, size=weight.shape) for weight in layer.weights])


def make_extractor(kind: str) -> Any:
    extractor = INTEREST_EXTRACTORS[kind](config(kind), max_length=LONGEST)
    extractor.last(ENTRIES, LENGTHS)  # creates all weights
    randomise(extractor)
    return extractor


def softmax(scores: Array, axis: int) -> Array:
    exponentials = np.exp(scores - scores.max(axis=axis, keepdims=True))
    return exponentials / exponentials.sum(axis=axis, keepdims=True)


# The formulas, one user at a time


def attention_of(extractor: AttentionInterests, clicks: Array) -> Array:
    """Compute V = A H with A = softmax(W2 tanh(W1 H) + recency) and H [clicks, dim], newest last."""
    hidden, score = extractor.hidden.kernel.numpy(), extractor.score.kernel.numpy()
    recency = extractor.recency.numpy()[: len(clicks)][::-1]  # [clicks, interests]; row 0 of the weight is age 0
    weights = softmax(np.tanh(clicks @ hidden) @ score + recency, axis=0)
    return weights.T @ clicks


def routing_of(extractor: RoutingInterests, clicks: Array) -> Array:
    """Run algorithm 1 of MIND with a fixed number of capsules and three iterations."""
    mapped = clicks @ extractor.bilinear.kernel.numpy()
    logits = extractor.start.numpy()[: len(clicks)].astype(np.float64)  # [clicks, interests]
    capsules = np.zeros((COUNT, DIM))
    for _ in range(3):
        shares = softmax(logits, axis=1)
        for interest in range(COUNT):
            total = sum(shares[click, interest] * mapped[click] for click in range(len(clicks)))
            norm = np.linalg.norm(total)
            capsules[interest] = norm**2 / (1 + norm**2) * total / norm
        logits = logits + mapped @ capsules.T
    return capsules


@pytest.mark.parametrize(("kind", "formula"), [("attention", attention_of), ("routing", routing_of)])
def test_interests_are_those_of_the_formula(kind: str, formula: Any) -> None:
    extractor = make_extractor(kind)
    found = extractor.last(ENTRIES, LENGTHS).numpy()
    assert found.shape == (5, COUNT, DIM)
    for row, length in enumerate(LENGTHS.numpy()):
        if length:
            expected = formula(extractor, ENTRIES[row, :length].numpy().astype(np.float64))
            np.testing.assert_allclose(found[row], expected, rtol=1e-4, atol=1e-5)


def test_routing_starts_at_random_numbers_that_are_kept_and_not_trained() -> None:
    extractor = INTEREST_EXTRACTORS["routing"](config("routing", count=40), max_length=100)
    start = extractor.start.numpy()
    assert abs(start.mean()) < 0.1
    assert start.std() == pytest.approx(1, abs=0.1)
    assert not extractor.start.trainable
    assert any(weight is extractor.start for weight in extractor.weights), "it is saved with the others"


# What all promise


@every_extractor
def test_padding_never_shows(kind: str) -> None:
    extractor = make_extractor(kind)
    is_real = tf.sequence_mask(LENGTHS, LONGEST)[..., tf.newaxis]
    other = extractor.last(tf.where(is_real, ENTRIES, 50.0), LENGTHS)
    np.testing.assert_allclose(other, extractor.last(ENTRIES, LENGTHS), rtol=1e-5, atol=1e-6)


@every_extractor
def test_a_user_without_clicks_has_learned_interests_that_differ_from_the_start(kind: str) -> None:
    extractor = INTEREST_EXTRACTORS[kind](config(kind), max_length=LONGEST)
    found = extractor.last(ENTRIES[:, :0], tf.zeros([5], tf.int32)).numpy()
    np.testing.assert_array_equal(found, np.tile(extractor.empty.numpy(), (5, 1, 1)))
    apart = np.linalg.norm(found[0, :, np.newaxis] - found[0], axis=-1)
    assert apart[~np.eye(COUNT, dtype=bool)].min() > 0.01
    np.testing.assert_array_equal(extractor.last(ENTRIES, LENGTHS)[1], extractor.empty)


@every_extractor
def test_interests_of_one_history_differ(kind: str) -> None:
    extractor = INTEREST_EXTRACTORS[kind](config(kind), max_length=LONGEST)
    found = extractor.last(ENTRIES, LENGTHS).numpy()[2]
    assert np.linalg.norm(found[:, np.newaxis] - found, axis=-1)[~np.eye(COUNT, dtype=bool)].min() > 0.01


def test_attention_inside_a_sequence_is_attention_after_the_cut_sequence() -> None:
    extractor = make_extractor("attention")
    found = extractor.at_every_position(ENTRIES).numpy()
    assert found.shape == (5, LONGEST, COUNT, DIM)
    for position in range(LONGEST):
        cut = extractor.last(ENTRIES[:, : position + 1], tf.fill([5], position + 1))
        np.testing.assert_allclose(found[:, position], cut, rtol=1e-4, atol=1e-5)


# The user tower with interests


def user_tower(kind: str = "attention", *, encoder: str = "attention", parts: int = 1, **settings: Any) -> UserTower:
    tower = UserTower(
        (), config=config(kind, history_encoder=encoder, **settings), parts=parts, max_length=LONGEST
    )  # fmt: skip
    tower({}, ENTRIES, LENGTHS)  # creates all weights
    randomise(tower)
    return tower


@every_extractor
@every_encoder
@pytest.mark.parametrize("parts", [1, 2])
def test_every_interest_is_a_query_of_unit_length(kind: str, encoder: str, parts: int) -> None:
    tower = user_tower(kind, encoder=encoder, parts=parts, similarity="cosine")
    queries = tower({}, ENTRIES, LENGTHS).numpy()
    assert queries.shape == (5, COUNT, parts * DIM + 1)
    np.testing.assert_array_equal(queries[..., -1], 1)  # asks for the appeal
    for part in np.split(queries[..., :-1], parts, axis=-1):
        np.testing.assert_allclose(np.linalg.norm(part, axis=-1), 1, atol=1e-5)


@every_extractor
@every_encoder
def test_every_weight_of_a_tower_with_interests_is_trained(kind: str, encoder: str) -> None:
    tower = user_tower(kind, encoder=encoder)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tower({}, ENTRIES, LENGTHS)[..., 0])
    gradients = tape.gradient(loss, tower.trainable_variables)
    assert not [v.name for v, g in zip(tower.trainable_variables, gradients, strict=True) if g is None]


@every_encoder
def test_interests_inside_a_sequence_are_those_after_the_cut_history(encoder: str) -> None:
    tower = user_tower(encoder=encoder)
    # Several positions of a user, in no order, some before his first click.
    users, positions = [0, 2, 2, 4, 0, 1], [2, 4, 0, 3, -1, -1]
    found = tower.at_positions({}, ENTRIES, LENGTHS, users=tf.constant(users), positions=tf.constant(positions))
    assert found.shape == (6, COUNT, DIM + 1)
    for queries, user, position in zip(found, users, positions, strict=True):
        clicks = position + 1
        cut = tower({}, ENTRIES[user : user + 1, :clicks], tf.constant([clicks]))
        np.testing.assert_allclose(queries, cut[0], rtol=1e-4, atol=1e-5)


def test_one_interest_is_the_tower_without_interests() -> None:
    tower = UserTower((), config=config(count=1), parts=1, max_length=LONGEST)
    assert tower({}, ENTRIES, LENGTHS).shape == (5, DIM + 1)  # and a 1 for appeal
    assert not [layer for layer in tower.submodules if isinstance(layer, InterestExtractor)]
