"""The last-N test against loops over single clicks, and small cases counted by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from recall.content.judge.last_n import (
    Answerable,
    Similarity,
    answerable,
    chance_summary,
    last_n_scorer,
    last_n_summary,
    last_n_test,
    popular_draws,
    uniform_draws,
)
from recall.core.ragged import Ragged
from recall.evaluation.ranking import EvaluationSet

ITEMS, NEVER = 30, np.iinfo(np.int64).max


def unit_vectors(count: int, *, seed: int = 0) -> Any:
    vectors = np.random.default_rng(seed).normal(size=(count, 4)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def examples_of(targets: Sequence[int], history: Sequence[Sequence[int]], seen: Sequence[Sequence[int]]) -> Any:
    users = np.array([f"u{row}" for row in range(len(targets))], dtype=object)
    return EvaluationSet(users, np.array(targets, np.int32), Ragged.from_lists(history), Ragged.from_lists(seen))


@pytest.fixture
def clicks() -> EvaluationSet:
    """40 clicks on items that the user had not clicked, after histories of 1 to 8 clicks."""
    rng = np.random.default_rng(1)
    orders = [rng.permutation(ITEMS)[: 2 + row % 8].tolist() for row in range(40)]
    return examples_of(
        [order[-1] for order in orders], [order[:-1] for order in orders], [sorted(o[:-1]) for o in orders]
    )


def lists(ragged: Ragged) -> list[list[int]]:
    return [part.tolist() for part in np.split(ragged.values, ragged.offsets[1:-1])]


def similarity_to_the_last(unit: Any, history: Sequence[int], item: int, *, last: int, similarity: Similarity) -> float:
    cosines = [float(np.dot(unit[clicked], unit[item])) for clicked in history[-last:]]
    return max(cosines) if similarity == "max" else sum(cosines) / len(cosines)


@pytest.mark.parametrize("similarity", ["mean", "max"])
@pytest.mark.parametrize("last", [1, 3, 20])
def test_scores_are_the_similarities_to_the_last_clicks(
    clicks: EvaluationSet, similarity: Similarity, last: int
) -> None:
    unit = unit_vectors(ITEMS)
    scores = last_n_scorer(unit, clicks.history, last=last, similarity=similarity).scores(5, 15)
    for row, history in enumerate(lists(clicks.history)[5:15]):
        expected = [
            similarity_to_the_last(unit, history, item, last=last, similarity=similarity) for item in range(ITEMS)
        ]
        np.testing.assert_allclose(scores[row], expected, atol=1e-6)


@pytest.mark.parametrize("similarity", ["mean", "max"])
@pytest.mark.parametrize("block_bytes", [1, 1 << 20])
def test_auc_and_ranks_are_those_of_a_loop_over_clicks(
    clicks: EvaluationSet, similarity: Similarity, block_bytes: int
) -> None:
    unit = unit_vectors(ITEMS)
    unit[20:25] = unit[3]  # ties
    drawn = np.random.default_rng(2).integers(-1, ITEMS, (40, 12)).astype(np.int32)
    drawn[7] = -1  # nothing to compare with
    scorer = last_n_scorer(unit, clicks.history, last=3, similarity=similarity)
    found = last_n_test(scorer, clicks, {"random": drawn}, block_bytes=block_bytes)
    for row, (target, history, seen) in enumerate(
        zip(clicks.targets, lists(clicks.history), lists(clicks.seen), strict=True)
    ):
        score = {
            item: round(similarity_to_the_last(unit, history, item, last=3, similarity=similarity), 5)
            for item in range(ITEMS)
        }
        rivals = [item for item in range(ITEMS) if item != target and item not in seen]
        assert found.ranks[row] == 1 + sum(score[item] >= score[target] for item in rivals)
        compared = [item for item in drawn[row] if item in rivals]
        wins = [1.0 if score[i] < score[target] else 0.5 if score[i] == score[target] else 0.0 for i in compared]
        if compared:
            assert found.auc["random"][row] == pytest.approx(np.mean(wins))
        else:
            assert np.isnan(found.auc["random"][row])


def test_vectors_that_say_nothing_are_at_chance_and_a_known_taste_is_found() -> None:
    rng = np.random.default_rng(3)
    topic = np.arange(400) % 8
    histories = [rng.choice(np.flatnonzero(topic == row % 8), 6, replace=False).tolist() for row in range(300)]
    clicks = examples_of([h[-1] for h in histories], [h[:-1] for h in histories], [h[:-1] for h in histories])
    others = {"random": rng.integers(0, 400, (300, 50)).astype(np.int32)}
    auc = {}
    for name, unit in (("random", unit_vectors(400)), ("topic", np.eye(8, dtype=np.float32)[topic])):
        found = last_n_test(last_n_scorer(unit, clicks.history, last=5, similarity="mean"), clicks, others)
        auc[name] = last_n_summary(found, np.ones(300, bool), [50])["auc_random"]
    assert auc["random"] == pytest.approx(0.5, abs=0.05)
    # Of the others 1/8 are of the topic, too, and tie: 7/8 + 1/8 * 1/2.
    assert auc["topic"] == pytest.approx(15 / 16, abs=0.01)


def test_only_clicks_that_say_something_about_content_are_asked() -> None:
    # Item 1 has no vector: 0, 2, 3, 4 become 0, 1, 2, 3.
    present = np.array([True, False, True, True, True])
    examples = examples_of(
        targets=[2, 1, 3, 0, 4],
        history=[[1, 0, 1], [0, 2], [3, 0], [1, 1], [3]],
        seen=[[0, 1], [0, 2], [0, 3], [1], [0, 1, 3]],
    )
    found: Answerable = answerable(examples, present)
    assert found.left_out == {
        "target_without_vector": 1, "target_clicked_before": 1, "history_without_vector": 1
    }  # fmt: skip
    assert found.chosen.tolist() == [0, 4]
    assert found.examples.targets.tolist() == [1, 3]
    assert lists(found.examples.history) == [[0], [2]]
    assert lists(found.examples.seen) == [[0], [0, 2]]


def test_items_drawn_uniformly_had_been_shown_before_the_click() -> None:
    first_ms = np.array([50, NEVER, 10, 30])
    drawn = uniform_draws(first_ms, np.array([10, 11, 50, 51]), count=600, rng=np.random.default_rng(0))
    assert set(drawn[0]) == {-1}, "nothing had been shown before 10"
    assert [set(row) for row in drawn[1:]] == [{2}, {2, 3}, {0, 2, 3}]
    assert np.bincount(drawn[3])[[0, 2, 3]] == pytest.approx(200, abs=60)


def test_popular_items_are_drawn_by_their_clicks() -> None:
    drawn = popular_draws(np.array([0, 30, 0, 10]), examples=10, count=400, rng=np.random.default_rng(0))
    assert set(drawn.ravel()) == {1, 3}
    assert (drawn == 1).mean() == pytest.approx(0.75, abs=0.03)
    assert set(popular_draws(np.zeros(3, int), examples=2, count=2, rng=np.random.default_rng(0)).ravel()) == {-1}


def test_chance_is_k_out_of_the_items_that_are_ranked() -> None:
    examples = examples_of([0, 1], [[2], [3]], [[2], [3, 4, 5]])
    both = chance_summary(examples, np.array([True, True]), item_count=10, ks=[5, 20])
    # 10 items less 1 and less 3 seen ones.
    assert both == {"auc": 0.5, "recall@5": pytest.approx((5 / 9 + 5 / 7) / 2), "recall@20": 1.0}
    assert chance_summary(examples, np.zeros(2, bool), item_count=10, ks=[5])["recall@5"] is None


def test_a_slice_without_clicks_is_none() -> None:
    unit = unit_vectors(4)
    examples = examples_of([0], [[1]], [[1]])
    found = last_n_test(
        last_n_scorer(unit, examples.history, last=5, similarity="max"),
        examples,
        {"random": np.array([[2, 3]], np.int32)},
    )
    assert last_n_summary(found, np.array([False]), [1]) == {"examples": 0, "auc_random": None, "recall@1": None}
