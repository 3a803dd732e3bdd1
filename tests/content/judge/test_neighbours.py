"""Tags of near items, alignment and uniformity against double loops and vectors placed by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from recall.content.judge.neighbours import alignment, nearest, share_with_common_tag, tag_agreement, uniformity


def unit_vectors(count: int, dim: int = 5, *, seed: int = 0) -> Any:
    vectors = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_nearest_are_those_of_a_sort_and_never_the_item_itself() -> None:
    unit = unit_vectors(40)
    asked = np.array([3, 17, 39])
    for row, found in zip(asked, nearest(unit, asked, 6), strict=True):
        order = sorted((other for other in range(40) if other != row), key=lambda o: -float(unit[row] @ unit[o]))
        assert set(found) == set(order[:6])


def test_common_tags_of_pairs_are_those_of_sets() -> None:
    rng = np.random.default_rng(1)
    has = rng.random((30, 8)) < 0.2
    rows, others = np.arange(10), rng.integers(0, 30, (10, 7))
    sets = [set(np.flatnonzero(row)) for row in has]
    expected = np.mean([[bool(sets[row] & sets[other]) for other in others[row]] for row in rows])
    assert share_with_common_tag(sparse.csr_array(has.astype(np.int32)), rows, others) == pytest.approx(expected)


def test_items_placed_by_their_tag_have_neighbours_of_that_tag() -> None:
    topic = np.arange(120) % 3
    tags = sparse.csr_array(np.eye(3, dtype=np.int32)[topic])
    placed = np.eye(3, dtype=np.float32)[topic]
    found = tag_agreement(placed, tags, k=10, limit=1_000, rng=np.random.default_rng(0))
    assert found == {"items": 120, "share@10": 1.0, "chance": pytest.approx(39 / 119, abs=0.02)}
    anywhere = tag_agreement(unit_vectors(120), tags, k=10, limit=1_000, rng=np.random.default_rng(0))
    assert anywhere["share@10"] == pytest.approx(1 / 3, abs=0.05)


def test_items_without_tag_or_vector_are_neither_asked_nor_found() -> None:
    unit = unit_vectors(6)
    unit[1] = 0  # no vector
    unit[2] = unit[0]  # no tag, and nearest to item 0
    tags = sparse.csr_array(np.array([[1, 0], [1, 0], [0, 0], [1, 0], [1, 1], [1, 0]], np.int32))
    found = tag_agreement(unit, tags, k=2, limit=10, rng=np.random.default_rng(0))
    assert found == {"items": 4, "share@2": 1.0, "chance": 1.0}
    assert tag_agreement(unit, tags[:, 1:], k=2, limit=10, rng=np.random.default_rng(0))["share@2"] is None


def test_a_sample_of_the_items_asks_fewer_and_finds_among_all() -> None:
    topic = np.arange(2_000) % 1_000  # two items of each topic
    unit, tags = unit_vectors(1_000, 16)[topic], sparse.csr_array(np.eye(1_000, dtype=np.int32)[topic])
    found = tag_agreement(unit, tags, k=1, limit=50, rng=np.random.default_rng(0))
    assert (found["items"], found["share@1"]) == (50, 1.0)


def test_alignment_is_the_mean_squared_distance() -> None:
    right_angle = np.array([[1, 0], [0, 1]], np.float32), np.array([[0, 1], [0, -1]], np.float32)
    assert alignment(*right_angle) == pytest.approx((2 + 4) / 2)  # at right angles, and opposite
    assert alignment(right_angle[0], right_angle[0]) == 0
    assert alignment(right_angle[0][:0], right_angle[0][:0]) is None


def test_uniformity_is_that_of_a_double_loop_in_blocks_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    unit = unit_vectors(50).astype(np.float64)
    kernels = [
        math.exp(-2 * float(((one - other) ** 2).sum()))
        for row, one in enumerate(unit)
        for column, other in enumerate(unit)
        if row != column
    ]
    for numbers in (1, 170, 1 << 20):
        monkeypatch.setattr("recall.content.judge.neighbours._BLOCK_NUMBERS", numbers)
        assert uniformity(unit.astype(np.float32)) == pytest.approx(math.log(np.mean(kernels)), abs=1e-5)


def test_uniformity_of_one_direction_is_0_and_of_two_poles_what_it_is_by_hand() -> None:
    assert uniformity(np.ones((9, 1), np.float32)) == pytest.approx(0)
    # Pairs of one pole: distance 0; of both: 4. Of 6 ordered pairs of different poles and the same pole each:
    poles = np.array([[1.0], [-1.0], [-1.0]], np.float32)
    assert uniformity(poles) == pytest.approx(math.log((2 * 1 + 4 * math.exp(-8)) / 6))
    assert uniformity(poles[:1]) is None
