"""The alignment of behaviour and meta vectors beside a double loop, and which of the two it moves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from recall.model.objectives.alignment import triplet_alignment

Array = np.ndarray


def unit(vectors: Array) -> Array:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def align(behaviour: Array, meta: Array, items: list[int], known: list[bool], **named: Any) -> float:
    return float(
        triplet_alignment(
            tf.constant(behaviour), tf.constant(meta), items=tf.constant(items), known=tf.constant(known), **named
        )
    )


def slow_alignment(
    behaviour: Array, meta: Array, items: list[int], known: list[bool], *, margin: float, hard: bool
) -> float:
    costs: list[float] = []
    for i in range(len(items)):
        of_row = [
            max(0.0, margin - float(meta[i] @ behaviour[i]) + float(meta[i] @ behaviour[j]))
            for j in range(len(items))
            if items[j] != items[i] and known[i] and known[j]
        ]
        costs += [max(of_row)] if hard and of_row else of_row
    return sum(costs) / len(costs) if costs else 0.0


VECTORS = unit(np.random.default_rng(4).normal(size=(14, 5)))
ITEMS = [3, 1, 3, 2, 5, 1, 4]  # 3 and 1 come twice
KNOWN = [True, True, True, False, True, False, True]


@pytest.mark.parametrize("negatives", ["all", "hard"])
@pytest.mark.parametrize("known", [KNOWN, [True] * 7, [False] * 7, [False, True] + [False] * 5])
def test_alignment_equals_a_double_loop(negatives: str, known: list[bool]) -> None:
    found = align(VECTORS[:7], VECTORS[7:], ITEMS, known, margin=0.3, negatives=negatives)
    expected = slow_alignment(VECTORS[:7], VECTORS[7:], ITEMS, known, margin=0.3, hard=negatives == "hard")
    assert found == pytest.approx(expected, abs=1e-6)


def test_alignment_compares_directions() -> None:
    lengths = np.linspace(0.5, 4, 14, dtype=np.float32)[:, np.newaxis]
    longer = VECTORS * lengths
    found = align(longer[:7], longer[7:], ITEMS, KNOWN, margin=0.3)
    assert found == pytest.approx(align(VECTORS[:7], VECTORS[7:], ITEMS, KNOWN, margin=0.3), abs=1e-6)


@pytest.mark.parametrize("negatives", ["all", "hard"])
def test_alignment_of_rows_without_a_pair_is_zero(negatives: str) -> None:
    for items, rows in (([3], 1), ([3, 3, 3], 3)):
        value = align(VECTORS[:rows], VECTORS[7 : 7 + rows], items, [True] * rows, margin=0.5, negatives=negatives)
        assert value == 0.0


def test_alignment_compares_the_first_rows_up_to_its_limit() -> None:
    found = align(VECTORS[:7], VECTORS[7:], ITEMS, KNOWN, margin=0.3, limit=5)
    expected = slow_alignment(VECTORS[:5], VECTORS[7:12], ITEMS[:5], KNOWN[:5], margin=0.3, hard=False)
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("negatives", ["all", "hard"])
def test_alignment_moves_meta_vectors_and_leaves_behaviour_alone(negatives: str) -> None:
    behaviour, meta = tf.Variable(VECTORS[:7]), tf.Variable(VECTORS[7:])
    with tf.GradientTape() as tape:
        value = triplet_alignment(
            behaviour,
            meta,
            items=tf.constant(ITEMS),
            known=tf.constant(KNOWN),
            margin=0.3,
            negatives=negatives,
        )
    of_behaviour, of_meta = tape.gradient(value, [behaviour, meta])
    assert of_behaviour is None
    moved = np.linalg.norm(of_meta.numpy(), axis=1) > 0
    assert moved.any()
    assert not moved[~np.array(KNOWN)].any()
    stepped = align(VECTORS[:7], VECTORS[7:] - 0.01 * of_meta.numpy(), ITEMS, KNOWN, margin=0.3, negatives=negatives)
    assert stepped < value.numpy()
