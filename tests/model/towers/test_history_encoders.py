"""Tests the contract of history encoders with every registered one, and the differences between them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from recall.config.model import ModelConfig
from recall.model.layers.attention import group_by_length
from recall.model.layers.smoothing import CausalSmoothing
from recall.model.towers.history_encoders import HISTORY_ENCODERS, HistoryEncoder

DIM, LONGEST = 8, 6
SMOOTHED = "transformer, smoothed"
every_encoder = pytest.mark.parametrize("kind", [*HISTORY_ENCODERS, SMOOTHED])

# Histories of every length from none to the longest, padded with numbers that would show.
LENGTHS = tf.constant([3, 0, LONGEST, 1, 5])
TOKENS = tf.constant(np.random.default_rng(7).normal(size=(5, LONGEST, DIM)), tf.float32)


def make_encoder(kind: str, *, seed: int = 13, **settings: Any) -> HistoryEncoder:
    """Build an encoder with random weights everywhere, also where fresh ones are zero."""
    if kind == SMOOTHED:
        kind, settings = "transformer", {"transformer": {"smoothing": 0.6}, **settings}
    config = ModelConfig(dim=DIM, **{"dropout": 0.0, **settings})
    encoder = HISTORY_ENCODERS[kind](config, max_length=LONGEST)
    encoder.states(TOKENS, LENGTHS), encoder.last_state(TOKENS, LENGTHS)  # creates all weights
    random = np.random.default_rng(seed)
    encoder.set_weights([random.normal(scale=0.5, size=weight.shape) for weight in encoder.weights])
    return encoder


def last_state(encoder: HistoryEncoder, tokens: tf.Tensor = TOKENS, lengths: tf.Tensor = LENGTHS) -> np.ndarray:
    return encoder.last_state(tokens, lengths).numpy()


@every_encoder
def test_states_have_a_vector_per_position(kind: str) -> None:
    encoder = make_encoder(kind)
    assert encoder.states(TOKENS, LENGTHS).shape == (5, LONGEST, DIM)
    assert last_state(encoder).shape == (5, DIM)
    assert np.isfinite(last_state(encoder)).all()


@every_encoder
def test_last_state_is_the_state_at_the_last_click(kind: str) -> None:
    encoder = make_encoder(kind)
    states, last = encoder.states(TOKENS, LENGTHS).numpy(), last_state(encoder)
    for row, length in enumerate(LENGTHS.numpy()):
        if length:
            np.testing.assert_allclose(last[row], states[row, length - 1], rtol=1e-4, atol=1e-5)


@every_encoder
def test_later_clicks_change_no_earlier_state(kind: str) -> None:
    encoder = make_encoder(kind)
    lengths = tf.fill([5], LONGEST)
    before = encoder.states(TOKENS, lengths).numpy()
    for position in range(LONGEST):
        bump = 3.0 * tf.one_hot(position, LONGEST)[tf.newaxis, :, tf.newaxis] * tf.sin(tf.range(DIM, dtype=tf.float32))
        after = encoder.states(TOKENS + bump, lengths).numpy()
        np.testing.assert_allclose(after[:, :position], before[:, :position], atol=1e-5)
        assert np.abs(after[:, position:] - before[:, position:]).max(axis=-1).min() > 1e-4


@every_encoder
def test_states_follow_from_the_history_so_far(kind: str) -> None:
    encoder = make_encoder(kind)
    states = encoder.states(TOKENS, tf.fill([5], LONGEST)).numpy()
    for length in range(1, LONGEST + 1):
        cut = last_state(encoder, TOKENS[:, :length], tf.fill([5], length))
        np.testing.assert_allclose(cut, states[:, length - 1], rtol=1e-4, atol=1e-5)


@every_encoder
def test_padding_has_no_influence(kind: str) -> None:
    encoder = make_encoder(kind)
    is_real = tf.sequence_mask(LENGTHS, LONGEST)[..., tf.newaxis]
    for padding in (0.0, 1e4):
        padded = tf.where(is_real, TOKENS, padding)
        np.testing.assert_allclose(last_state(encoder, padded), last_state(encoder), rtol=1e-4, atol=1e-5)


@every_encoder
def test_padding_gets_no_gradient(kind: str) -> None:
    encoder = make_encoder(kind)
    with tf.GradientTape() as tape:
        tape.watch(TOKENS)
        loss = tf.reduce_sum(encoder.last_state(TOKENS, LENGTHS)[:, 0])
    gradient = tape.gradient(loss, TOKENS).numpy()
    is_real = tf.sequence_mask(LENGTHS, LONGEST).numpy()
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient[~is_real], 0)
    assert (np.abs(gradient[is_real]).max(axis=1) > 0).all()


@every_encoder
def test_empty_history_has_the_learned_state_and_trains_it(kind: str) -> None:
    encoder = make_encoder(kind)
    with tf.GradientTape() as tape:
        states = encoder.last_state(TOKENS, LENGTHS)
        loss = tf.reduce_sum(states)
    np.testing.assert_array_equal(states[1], encoder.empty)
    np.testing.assert_allclose(tape.gradient(loss, encoder.empty), np.ones(DIM))  # from one of five histories


@pytest.mark.slow
@every_encoder
@pytest.mark.parametrize("width", [0, 2])
def test_batch_in_which_nobody_has_a_history_is_all_empty_states(kind: str, width: int) -> None:
    encoder = make_encoder(kind)
    found = tf.function(encoder.last_state, autograph=False)(TOKENS[:3, :width], tf.zeros([3], tf.int32)).numpy()
    np.testing.assert_array_equal(found, np.tile(encoder.empty.numpy(), (3, 1)))


@every_encoder
def test_batch_of_one_is_its_row_of_a_larger_batch(kind: str) -> None:
    encoder = make_encoder(kind)
    together = last_state(encoder)
    for row, length in enumerate(LENGTHS.numpy()):
        alone = last_state(encoder, TOKENS[row : row + 1, :length], LENGTHS[row : row + 1])
        np.testing.assert_allclose(alone[0], together[row], rtol=1e-4, atol=1e-5)


@every_encoder
def test_state_is_selected_by_position_and_minus_one_is_the_empty_history(kind: str) -> None:
    encoder = make_encoder(kind)
    states = encoder.states(TOKENS, LENGTHS)
    chosen = encoder.select(states, tf.constant([2, -1, 0, -1, 4])).numpy()
    for row, position in ((0, 2), (2, 0), (4, 4)):
        np.testing.assert_array_equal(chosen[row], states[row, position])
    np.testing.assert_array_equal(chosen[[1, 3]], np.tile(encoder.empty.numpy(), (2, 1)))


@every_encoder
def test_graph_takes_batches_and_histories_of_any_size(kind: str) -> None:
    encoder = make_encoder(kind)
    signature = [tf.TensorSpec([None, None, DIM]), tf.TensorSpec([None], tf.int32)]
    graph = tf.function(encoder.last_state, input_signature=signature, autograph=False)
    for batch, time in ((5, LONGEST), (2, 3)):
        tokens, lengths = TOKENS[:batch, :time], tf.minimum(LENGTHS[:batch], time)
        np.testing.assert_allclose(graph(tokens, lengths), last_state(encoder, tokens, lengths), rtol=1e-4, atol=1e-5)


@every_encoder
def test_every_weight_of_an_encoder_is_trained(kind: str) -> None:
    encoder = make_encoder(kind)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(encoder.last_state(TOKENS, LENGTHS)[:, 0])
    gradients = tape.gradient(loss, encoder.trainable_variables)
    assert all(gradient is not None for gradient in gradients)


# What tells them apart


def test_mean_is_the_mean_of_the_clicks_so_far() -> None:
    encoder = make_encoder("mean")
    np.testing.assert_allclose(last_state(encoder)[0], TOKENS.numpy()[0, :3].mean(axis=0), rtol=1e-5, atol=1e-6)


def test_attention_weighs_clicks_by_what_they_are_and_by_how_long_ago_they_were() -> None:
    encoder = make_encoder("attention")
    tokens = TOKENS.numpy()[4, :5].astype(np.float64)
    kernel, bias = (weight.numpy() for weight in encoder.hidden.weights)
    recency = encoder.recency.numpy()
    logits = (np.tanh(tokens @ kernel + bias) @ encoder.score.kernel.numpy())[:, 0]
    logits += recency[[4, 3, 2, 1, 0]]  # the last click is 0 clicks ago
    weights = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(last_state(encoder)[4], weights @ tokens, rtol=1e-4, atol=1e-5)


def test_transformer_tells_the_order_of_clicks_and_the_mean_does_not() -> None:
    swapped = tf.gather(TOKENS, [1, 0, 2, 3, 4, 5], axis=1)
    rows = [0, 2, 4]  # histories of three and more
    mean, transformer = make_encoder("mean"), make_encoder("transformer")
    np.testing.assert_allclose(last_state(mean, swapped)[rows], last_state(mean)[rows], atol=1e-5)
    apart = np.abs(last_state(transformer, swapped)[rows] - last_state(transformer)[rows]).max(axis=1)
    assert (apart > 1e-3).all()


def test_transformer_drops_out_in_training_only() -> None:
    encoder = make_encoder("transformer", dropout=0.5)
    trained = encoder.last_state(TOKENS, LENGTHS, training=True).numpy()
    assert not np.allclose(trained, last_state(encoder), atol=1e-3)
    np.testing.assert_array_equal(last_state(encoder), last_state(encoder))


def test_a_smoothed_transformer_forgets_by_the_click_and_keeps_a_part_of_what_is_new() -> None:
    layer = CausalSmoothing(DIM)
    layer.keep_logit.assign(np.log(np.arange(1, 9) / np.arange(8, 0, -1)))  # 1/9, 2/9, ... 8/9: one per dimension
    layer.high.assign(np.linspace(0, 1, DIM))
    groups = group_by_length(LENGTHS)
    real = tf.gather_nd(TOKENS, tf.concat([group.places for group in groups], axis=0))
    found = tf.scatter_nd(groups[0].places, layer(real, groups), TOKENS.shape).numpy()
    tokens = TOKENS.numpy().astype(np.float64)
    for row, length in enumerate(LENGTHS.numpy()):
        for now in range(length):
            ages = now - np.arange(now + 1)
            weights = (np.arange(1, 9) / 9)[np.newaxis] ** ages[:, np.newaxis]  # [then, dim]
            low = (weights * tokens[row, : now + 1]).sum(axis=0) / weights.sum(axis=0)
            expected = low + np.linspace(0, 1, DIM) ** 2 * (tokens[row, now] - low)
            np.testing.assert_allclose(found[row, now], expected, rtol=1e-4, atol=1e-5)


def test_a_long_history_beside_short_ones_changes_none_of_them() -> None:
    # 16 and fewer are padded apart from longer ones.
    config = ModelConfig(dim=DIM, dropout=0.0)
    encoder = HISTORY_ENCODERS["transformer"](config, max_length=40)
    lengths = tf.constant([40, 3, 16, 0, 17])
    tokens = tf.constant(np.random.default_rng(8).normal(size=(5, 40, DIM)), tf.float32)
    together = encoder.states(tokens, lengths).numpy()
    for row, length in enumerate(lengths.numpy()):
        alone = encoder.states(tokens[row : row + 1, :length], tf.constant([length])).numpy()
        np.testing.assert_allclose(together[row, :length], alone[0], rtol=1e-4, atol=1e-5)
