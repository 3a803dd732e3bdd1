"""Times of clicks: their buckets, and that one pass over a sequence sees what a query at each position would."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from recall.config.model import ModelConfig
from recall.config.values import HistoryTime
from recall.model.layers.attention import CausalSelfAttention, group_by_length
from recall.model.layers.history_time import BUCKETS, AgeBias, ClickTimes, duration_buckets
from recall.model.towers.history_encoders import HISTORY_ENCODERS, HistoryEncoder
from recall.model.towers.query import UserTower

SECOND, HOUR, DAY = 1_000, 3_600_000, 86_400_000
DIM, BATCH, TIME = 8, 3, 6
# Clicks of three users, oldest first; two of the first user's fall into one moment.
CLICKED_MS = np.array(
    [
        [0, 5 * SECOND, 5 * SECOND, 2 * HOUR, 3 * DAY, 400 * DAY],
        [100, 40 * SECOND, HOUR, DAY, 2 * DAY, 2 * DAY + 1],
        [7, 8, 9, 10, 11, 5000 * DAY],
    ]
)


def bucket(duration_ms: int) -> int:
    """Compute the bucket in words: 1 is less than a second, each further one is twice as wide, 0 is no duration."""
    if duration_ms < 0:
        return 0
    return min(BUCKETS - 1, 1 + math.floor(math.log2(1 + duration_ms / SECOND)))


@pytest.mark.parametrize(
    "duration_ms", [-1, -DAY, 0, 999, 1_001, 2_999, 3_001, 90 * SECOND, HOUR, DAY, 365 * DAY, 10**15]
)
def test_durations_fall_into_buckets_that_double(duration_ms: int) -> None:
    assert int(duration_buckets(tf.constant([duration_ms], tf.int64))[0]) == bucket(duration_ms)


def test_the_gap_of_a_click_ends_at_the_next_one_or_at_the_query() -> None:
    ages = tf.constant([[DAY, HOUR, 0, 0], [5 * SECOND, 9, 9, 9], [9, 9, 9, 9]], tf.int64)  # lengths 2, 1, 0
    times = ClickTimes.before_query(ages, tf.constant([2, 1, 0]))
    gaps = times.gaps().numpy()
    assert gaps[0, :2].tolist() == [bucket(DAY - HOUR), bucket(HOUR)]
    assert gaps[1, 0] == bucket(5 * SECOND)
    assert times.last_ages(tf.constant([2, 1, 0])).numpy()[0, :2].tolist() == [bucket(DAY), bucket(HOUR)]


def test_what_is_not_known_of_a_time_is_unknown_and_nothing_else() -> None:
    lengths = tf.constant([4])
    times = ClickTimes.before_query(tf.constant([[4 * DAY, -1, DAY, HOUR]], tf.int64), lengths)
    assert times.gaps().numpy().tolist() == [[0, 0, bucket(DAY - HOUR), bucket(HOUR)]]
    assert times.last_ages(lengths).numpy().tolist() == [[bucket(4 * DAY), 0, bucket(DAY), bucket(HOUR)]]
    nothing = ClickTimes.unknown(tf.zeros([1, 4, DIM]))
    assert not nothing.gaps().numpy().any()
    assert not nothing.ages().numpy().any()


def test_times_are_hidden_of_whole_histories() -> None:
    tf.random.set_seed(3)
    times = ClickTimes.inside_sequences(tf.constant(np.tile(CLICKED_MS, [200, 1]))).hidden(0.25)
    rows = times.known.numpy()
    assert (rows.all(axis=1) | ~rows.any(axis=1)).all()
    assert rows.all(axis=1).mean() == pytest.approx(0.75, abs=0.06)


# Encoders


def encoder(name: str, *, ages: bool) -> HistoryEncoder:
    tf.keras.utils.set_random_seed(1)
    layer = HISTORY_ENCODERS[name](ModelConfig(dim=DIM, dropout=0.0), max_length=TIME, ages=ages)
    layer.states(tokens(), tf.fill([BATCH], TIME), times=sequences())
    for module in layer.submodules:  # at zero, where they start, no age would matter
        if isinstance(module, AgeBias):
            module.rows.assign(tf.random.stateless_normal(module.rows.shape, [4, 2]))
    return layer


def tokens() -> tf.Tensor:
    return tf.random.stateless_normal([BATCH, TIME, DIM], [1, 2])


def sequences() -> ClickTimes:
    return ClickTimes.inside_sequences(tf.constant(CLICKED_MS))


@pytest.mark.parametrize("name", HISTORY_ENCODERS)
def test_a_state_inside_a_sequence_is_the_last_state_of_a_query_at_the_next_click(name: str) -> None:
    layer = encoder(name, ages=True)
    states = layer.states(tokens(), tf.fill([BATCH], TIME), times=sequences()).numpy()
    for place in range(TIME - 1):
        lengths = tf.fill([BATCH], place + 1)
        age_ms = tf.constant(CLICKED_MS[:, place + 1 : place + 2] - CLICKED_MS)  # what is padding holds anything
        last = layer.last_state(tokens(), lengths, times=ClickTimes.before_query(age_ms, lengths))
        np.testing.assert_allclose(states[:, place], last, atol=1e-5)


@pytest.mark.parametrize("name", HISTORY_ENCODERS)
def test_where_nobody_has_a_history_everyone_has_the_empty_state(name: str) -> None:
    layer, nothing = encoder(name, ages=True), tf.zeros([BATCH], tf.int32)
    times = ClickTimes.before_query(tf.zeros([BATCH, 0], tf.int64), nothing)
    found = layer.last_state(tf.zeros([BATCH, 0, DIM]), nothing, times=times)
    np.testing.assert_array_equal(found, np.tile(layer.empty, [BATCH, 1]))


@pytest.mark.parametrize("name", HISTORY_ENCODERS)
def test_ages_matter_and_unknown_ones_are_all_alike(name: str) -> None:
    layer, lengths = encoder(name, ages=True), tf.fill([BATCH], TIME)
    ages = [tf.fill([BATCH, TIME], tf.constant(age, tf.int64)) for age in (-1, -DAY)]
    unknown, negative = (
        layer.last_state(tokens(), lengths, times=ClickTimes.before_query(age, lengths)) for age in ages
    )
    np.testing.assert_array_equal(unknown, negative)
    spread = ClickTimes.before_query(tf.constant(CLICKED_MS[:, -1:] - CLICKED_MS), lengths)
    assert np.abs(layer.last_state(tokens(), lengths, times=spread) - unknown).max() > 1e-2


def test_the_mean_weighs_entries_by_their_age() -> None:
    layer, lengths = encoder("mean", ages=True), tf.constant([6, 4, 1])
    query_ms = CLICKED_MS[:, -1:] + HOUR
    found = layer.last_state(
        tokens(), lengths, times=ClickTimes.before_query(tf.constant(query_ms - CLICKED_MS), lengths)
    )
    rows = layer.age_bias.rows.numpy()[:, 0]
    for user, length in enumerate(lengths.numpy()):
        ages = [int(query_ms[user, 0] - clicked) for clicked in CLICKED_MS[user, :length]]
        weight = np.array([math.exp(rows[bucket(age)]) for age in ages])
        expected = np.average(tokens().numpy()[user, :length], axis=0, weights=weight)
        np.testing.assert_allclose(found[user], expected, atol=1e-5)


@pytest.mark.parametrize("name", ["mean", "attention"])
def test_before_training_ages_change_nothing(name: str) -> None:
    tf.keras.utils.set_random_seed(1)
    config, lengths = ModelConfig(dim=DIM), tf.fill([BATCH], TIME)
    timed = HISTORY_ENCODERS[name](config, max_length=TIME, ages=True)
    states = timed.states(tokens(), lengths, times=sequences())
    np.testing.assert_allclose(states, timed.states(tokens(), lengths), atol=1e-6)


def test_attention_is_causal_softmax_attention_with_a_bias_per_head_and_age() -> None:
    heads, width = 2, DIM // 2
    layer = CausalSelfAttention(heads, DIM, dropout=0.0, ages=True)
    lengths = [TIME, 4, 0]
    real = tf.concat([tokens()[user, :length] for user, length in enumerate(lengths)], axis=0)  # [10, dim]
    groups = group_by_length(tf.constant(lengths), sequences())
    layer(real, groups)
    layer.age_bias.rows.assign(tf.random.stateless_normal([BUCKETS, heads], [9, 9]))
    found = tf.split(layer(real, groups), lengths)
    bias, ages = layer.age_bias.rows.numpy(), sequences().ages().numpy()
    for user, length in enumerate(lengths):
        projected = (tokens()[user, :length] @ layer.inputs.kernel).numpy().reshape(length, 3, heads, width)
        for now in range(length):
            attended = []
            for head in range(heads):
                query, keys, values = (projected[:, part, head] for part in range(3))
                scores = [
                    query[now] @ keys[then] / math.sqrt(width) + bias[ages[user, now, then], head]
                    for then in range(now + 1)
                ]
                attended.append(np.average(values[: now + 1], axis=0, weights=np.exp(scores)))
            expected = np.concatenate(attended) @ layer.outputs.kernel.numpy()
            np.testing.assert_allclose(found[user][now], expected, atol=1e-5)


@pytest.mark.parametrize("name", HISTORY_ENCODERS)
def test_ages_of_a_long_history_are_its_own_beside_short_ones(name: str) -> None:
    # 16 and fewer are padded apart from longer ones.
    length, lengths = 40, tf.constant([40, 3, 16, 0, 17])
    layer = HISTORY_ENCODERS[name](ModelConfig(dim=DIM, dropout=0.0), max_length=length, ages=True)
    random = np.random.default_rng(8)
    clicks = tf.constant(random.normal(size=(5, length, DIM)), tf.float32)
    moments = tf.constant(np.cumsum(random.integers(0, DAY, size=(5, length)), axis=1))
    times = ClickTimes.inside_sequences(moments)
    layer.states(clicks, lengths, times=times)
    layer.set_weights([random.normal(scale=0.5, size=weight.shape) for weight in layer.weights])
    together = layer.states(clicks, lengths, times=times)
    for row, own in enumerate(lengths.numpy()):
        cut = ClickTimes.inside_sequences(moments[row : row + 1])
        cut = ClickTimes(*(part[:, :own] for part in cut))
        alone = layer.states(clicks[row : row + 1, :own], tf.constant([own]), times=cut)
        np.testing.assert_allclose(together[row, :own], alone[0], rtol=1e-3, atol=1e-5)


# The tower


@pytest.mark.parametrize(("reads", "gap", "age"), [("none", 0, 0), ("gap", 1, 0), ("age", 0, 1), ("both", 1, 1)])
def test_the_tower_has_weights_for_what_it_reads(reads: HistoryTime, gap: int, age: int) -> None:
    tower = UserTower([], config=ModelConfig(dim=DIM), parts=1, max_length=TIME, history_time=reads)
    lengths = tf.fill([BATCH], TIME)
    untimed = tower({}, tokens(), lengths)
    times = ClickTimes.before_query(tf.constant(CLICKED_MS[:, -1:] - CLICKED_MS), lengths)
    names = [variable.shape for variable in tower.trainable_variables]
    assert (names.count((BUCKETS, DIM)), names.count((BUCKETS, 1))) == (gap, age)
    for variable in tower.trainable_variables:
        if variable.shape[0] == BUCKETS:
            variable.assign(tf.random.stateless_normal(variable.shape, [6, 1]))
    matters = np.abs(tower({}, tokens(), lengths, times=times) - untimed).max() > 1e-3
    assert matters == bool(gap or age)
    everything = [None, ClickTimes.unknown(tokens())]
    one, other = (tower({}, tokens(), lengths, times=unknown) for unknown in everything)
    np.testing.assert_array_equal(one, other)
