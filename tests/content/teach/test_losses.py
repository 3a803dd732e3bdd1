"""What content vectors are taught by, against formulas written from the papers in NumPy, and small cases by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from recall.content.teach.encoder import ContentEncoder, ModalityShape
from recall.content.teach.losses import (
    KeyQueue,
    agreement_weights,
    crowd_contrast,
    follow,
    modality_contrast,
    shared_tags_contrast,
    tag_cross_entropy,
)

T = 0.2


def unit(rows: int, dim: int = 6, *, seed: int = 0) -> Any:
    vectors = np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def log_sum_exp(logits: Any) -> float:
    return float(np.log(np.sum(np.exp(np.asarray(logits, np.float64)))))


# Modalities


def test_modalities_are_contrasted_as_in_infonce() -> None:
    text, image = unit(5, seed=1), unit(5, seed=2)
    loss = modality_contrast(tf.constant(text), tf.constant(image), items=tf.range(5), temperature=T)
    expected = [
        log_sum_exp([text[i] @ image[j] / T for j in range(5)]) - float(text[i] @ image[i]) / T for i in range(5)
    ]
    assert float(loss) == pytest.approx(np.mean(expected), rel=1e-5)


def test_pairs_weigh_as_they_are_told() -> None:
    text, image, weights = unit(4, seed=1), unit(4, seed=2), np.array([1, 0, 0.5, 0], np.float32)
    loss = modality_contrast(
        tf.constant(text), tf.constant(image), items=tf.range(4), temperature=T, weights=tf.constant(weights)
    )
    each = [log_sum_exp(text[i] @ image.T / T) - float(text[i] @ image[i]) / T for i in range(4)]
    assert float(loss) == pytest.approx((each[0] + 0.5 * each[2]) / 1.5, rel=1e-5)


def test_keys_of_the_queue_are_negatives_unless_they_are_of_the_same_item() -> None:
    text, image, queued = unit(2, seed=1), unit(2, seed=2), unit(3, seed=3)
    items, queued_items = tf.constant([7, 8]), tf.constant([8, 4, 5])
    loss = modality_contrast(
        tf.constant(text), tf.constant(image), items=items, temperature=T, further=(tf.constant(queued), queued_items)
    )
    first = log_sum_exp([*(text[0] @ image.T / T), *(text[0] @ queued.T / T)]) - float(text[0] @ image[0]) / T
    second = log_sum_exp([*(text[1] @ image.T / T), *(text[1] @ queued[1:].T / T)]) - float(text[1] @ image[1]) / T
    assert float(loss) == pytest.approx((first + second) / 2, rel=1e-5)


def test_a_batch_without_any_pair_of_modalities_costs_nothing() -> None:
    nothing = tf.zeros([0, 4])
    with tf.GradientTape() as tape:
        tape.watch(nothing)
        loss = modality_contrast(nothing, nothing, items=tf.zeros([0], tf.int32), temperature=T)
    assert float(loss) == 0
    assert not np.any(tape.gradient(loss, nothing, unconnected_gradients=tf.UnconnectedGradients.ZERO))


def test_modalities_that_disagree_weigh_less() -> None:
    # Items 0 to 2 find themselves, and 3 has the image of a stranger: of its three rivals on either side none is less
    # similar (all are at right angles), so that its share is 0 and its weight 1 - strength.
    text = np.eye(5, dtype=np.float32)[:4]
    image = text.copy()
    image[3] = np.eye(5, dtype=np.float32)[4]
    weights = agreement_weights(tf.constant(text), tf.constant(image), items=tf.range(4), strength=0.8)
    np.testing.assert_allclose(weights, [1, 1, 1, 0.2], atol=1e-6)


def test_agreement_is_a_share_of_both_directions_without_the_item_itself() -> None:
    text, image, items = unit(6, seed=4), unit(6, seed=5), np.array([0, 1, 2, 3, 4, 0])
    found = agreement_weights(tf.constant(text), tf.constant(image), items=tf.constant(items), strength=1.0)
    for i in range(6):
        others = [j for j in range(6) if items[j] != items[i]]
        own = text[i] @ image[i]
        wins = [text[i] @ image[j] < own for j in others] + [text[j] @ image[i] < own for j in others]
        assert float(found[i]) == pytest.approx(max(0.0, 2 * np.mean(wins) - 1), abs=1e-6)


def test_agreement_has_no_gradient() -> None:
    text = tf.Variable(unit(4, seed=1))
    with tf.GradientTape() as tape:
        weights = agreement_weights(text, tf.constant(unit(4, seed=2)), items=tf.range(4), strength=1.0)
    assert tape.gradient(weights, text) is None


# Clicks


def test_clicks_are_contrasted_with_popularity_taken_off() -> None:
    before, after = unit(4, seed=1), unit(4, seed=2)
    log_q = np.log(np.array([0.4, 0.2, 0.1, 0.3], np.float32))
    loss = crowd_contrast(
        tf.constant(before), tf.constant(after), items_before=tf.constant([10, 11, 12, 13]),
        items_after=tf.constant([20, 21, 22, 23]), log_q=tf.constant(log_q), temperature=T,
    )  # fmt: skip
    logits = before @ after.T / T - log_q
    assert float(loss) == pytest.approx(np.mean([log_sum_exp(logits[i]) - logits[i, i] for i in range(4)]), rel=1e-5)


def test_neither_an_item_itself_nor_its_next_one_is_its_negative() -> None:
    before, after = unit(3, seed=1), unit(3, seed=2)
    # The third pair's next item is the first one's item, and the second pair's next item is that of the first.
    loss = crowd_contrast(
        tf.constant(before), tf.constant(after), items_before=tf.constant([1, 2, 3]),
        items_after=tf.constant([5, 5, 1]), log_q=tf.zeros([3]), temperature=T,
    )  # fmt: skip
    logits = before @ after.T / T
    rivals = {0: [0], 1: [1, 2], 2: [0, 1, 2]}
    expected = [log_sum_exp(logits[i, rivals[i]]) - logits[i, i] for i in range(3)]
    assert float(loss) == pytest.approx(np.mean(expected), rel=1e-5)


# Tags


def test_equal_overlaps_give_the_supervised_contrastive_loss() -> None:
    vectors, labels = unit(6, seed=3), np.array([0, 0, 1, 1, 1, 2])
    overlap = (labels[:, np.newaxis] == labels).astype(np.float32)
    loss = shared_tags_contrast(tf.constant(vectors), tf.constant(overlap), items=tf.range(6), temperature=T)
    expected = []
    for i in range(5):  # the sixth is alone with its label
        positives = [p for p in range(6) if p != i and labels[p] == labels[i]]
        total = log_sum_exp([vectors[i] @ vectors[a] / T for a in range(6) if a != i])
        expected.append(-np.mean([vectors[i] @ vectors[p] / T - total for p in positives]))
    assert float(loss) == pytest.approx(np.mean(expected), rel=1e-5)


def test_larger_overlaps_pull_more() -> None:
    vectors = unit(3, seed=3)
    overlap = np.array([[1, 0.9, 0.3], [0.9, 1, 0], [0.3, 0, 1]], np.float32)
    loss = shared_tags_contrast(tf.constant(vectors), tf.constant(overlap), items=tf.range(3), temperature=T)
    logits = vectors @ vectors.T / T
    log_share = [[logits[i, j] - log_sum_exp([logits[i, a] for a in range(3) if a != i]) for j in range(3)]
                 for i in range(3)]  # fmt: skip
    expected = [-(0.75 * log_share[0][1] + 0.25 * log_share[0][2]), -log_share[1][0], -log_share[2][0]]
    assert float(loss) == pytest.approx(np.mean(expected), rel=1e-5)


def test_the_same_item_twice_is_neither_positive_nor_negative() -> None:
    vectors = unit(3, seed=3)
    loss = shared_tags_contrast(
        tf.constant(vectors), tf.ones([3, 3]), items=tf.constant([4, 4, 9]), temperature=T
    )  # the only other item takes the whole softmax
    single = vectors[2] @ vectors[:2].T / T
    assert float(loss) == pytest.approx((log_sum_exp(single) - single.mean()) / 3, rel=1e-5)


def test_no_tags_in_common_cost_nothing() -> None:
    loss = shared_tags_contrast(tf.constant(unit(3)), tf.eye(3), items=tf.range(3), temperature=T)
    assert float(loss) == 0


def test_tags_are_told_by_weighted_cross_entropy_and_items_without_tags_do_not_count() -> None:
    logits = np.array([[1.0, 2.0, 0.0], [0.0, -1.0, 3.0], [5.0, 5.0, 5.0]], np.float32)
    tags = np.array([[0.25, 0.75, 0], [0, 0, 1], [0, 0, 0]], np.float32)
    first = log_sum_exp(logits[0]) - (0.25 * 1 + 0.75 * 2)
    second = log_sum_exp(logits[1]) - 3
    found = tag_cross_entropy(tf.constant(logits), tf.constant(tags))
    assert float(found) == pytest.approx((first + second) / 2, rel=1e-5)
    assert float(tag_cross_entropy(tf.constant(logits), tf.zeros([3, 3]))) == 0


# The queue


def kept(queue: KeyQueue) -> dict[int, list[float]]:
    keys, items = queue.entries()
    return dict(zip(items.numpy().tolist(), keys.numpy().tolist(), strict=True))


def test_the_queue_grows_to_its_size_and_then_forgets_the_oldest() -> None:
    queue = KeyQueue(4, 1)
    assert kept(queue) == {}
    queue.push(tf.constant([[1.0], [2.0], [3.0]]), tf.constant([1, 2, 3]))
    assert kept(queue) == {1: [1.0], 2: [2.0], 3: [3.0]}
    queue.push(tf.constant([[4.0], [5.0]]), tf.constant([4, 5]))
    assert kept(queue) == {2: [2.0], 3: [3.0], 4: [4.0], 5: [5.0]}
    queue.push(tf.zeros([0, 1]), tf.zeros([0], tf.int32))
    assert len(kept(queue)) == 4


def test_the_slow_encoder_follows_by_its_momentum() -> None:
    fast, slow = (ContentEncoder([ModalityShape("text", ("text",), 3)], dim=2, hidden=(4,)) for _ in range(2))
    before, target = slow.get_weights(), fast.get_weights()
    for _ in range(2):
        follow(slow, fast, momentum=0.9)
    for old, new, goal in zip(before, slow.get_weights(), target, strict=True):
        np.testing.assert_allclose(new, 0.81 * old + 0.19 * goal, atol=1e-6)
