"""Exact ranks and lists against a slow double loop, and what must not change them."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import pytest

from recall.core.ragged import Ragged
from recall.evaluation.ranking import EvaluationSet, ranks, shared_ranks, top_items
from recall.evaluation.scorers import EvaluationError, MultiVectorScorer, VectorScorer, vector_scorer

Floats = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class GivenScores:
    """A scorer that knows the whole matrix."""

    matrix: Floats
    is_finite = False

    @property
    def item_count(self) -> int:
        return self.matrix.shape[1]

    def scores(self, start: int, stop: int) -> Floats:
        return self.matrix[start:stop].copy()


def example_set(targets: list[int] | npt.NDArray[np.integer], seen: list[list[int]] | None = None) -> EvaluationSet:
    lists = Ragged.from_lists(seen if seen is not None else [[] for _ in targets])
    users = np.array([f"u{number}" for number in range(len(targets))])
    return EvaluationSet(users=users, targets=np.asarray(targets, np.int32), history=lists, seen=lists)


def random_case(
    *, examples: int = 90, items: int = 70, dim: int = 6, seed: int = 0
) -> tuple[Floats, Floats, EvaluationSet]:
    """Small whole numbers, whose inner products are exact, so that ties are frequent and the same everywhere."""
    rng = np.random.default_rng(seed)
    queries = rng.integers(-2, 3, (examples, dim)).astype(np.float32)
    vectors = rng.integers(-2, 3, (items, dim)).astype(np.float32)
    seen = [sorted(rng.choice(items, rng.integers(0, 20), replace=False).tolist()) for _ in range(examples)]
    return queries, vectors, example_set(rng.integers(0, items, examples), seen)


def slow_ranks(matrix: Floats, examples: EvaluationSet, *, exclude_seen: bool) -> list[int]:
    result = []
    for row, target in enumerate(examples.targets):
        seen = examples.seen.values[examples.seen.offsets[row] : examples.seen.offsets[row + 1]].tolist()
        rank = 1
        for item in range(matrix.shape[1]):
            if item == target or (exclude_seen and item in seen):
                continue
            rank += bool(matrix[row, item] >= matrix[row, target])
        result.append(rank)
    return result


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_ranks_equal_a_slow_double_loop(exclude_seen: bool) -> None:
    queries, vectors, examples = random_case()
    repeats = sum(t in examples.seen[i] for i, t in enumerate(examples.targets))
    assert repeats > 5  # some targets were seen before, and must be ranked all the same
    found = ranks(VectorScorer(queries, vectors), examples, exclude_seen=exclude_seen)
    assert found.tolist() == slow_ranks(queries @ vectors.T, examples, exclude_seen=exclude_seen)
    assert found.dtype == np.int64


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_ranks_by_one_order_for_everybody_equal_the_ones_by_a_row_for_each(exclude_seen: bool) -> None:
    _, _, examples = random_case()
    scores = np.random.default_rng(1).integers(0, 9, 70).astype(np.float64)
    expected = slow_ranks(np.tile(scores, (len(examples), 1)), examples, exclude_seen=exclude_seen)
    seen = examples.seen if exclude_seen else Ragged.empty(len(examples))
    assert shared_ranks(scores, examples.targets, seen=seen).tolist() == expected


def test_model_that_scores_everything_equally_ranks_every_target_last() -> None:
    scorer = VectorScorer(np.ones((2, 3), np.float32), np.ones((40, 3), np.float32))
    assert ranks(scorer, example_set([0, 39], [[], [1, 2, 3]])).tolist() == [40, 37]


def test_model_that_scores_everything_equally_lists_nothing() -> None:
    scorer = GivenScores(np.zeros((1, 40), np.float32))
    assert top_items(scorer, example_set([0]), 5).tolist() == [[-1] * 5]


def test_negative_zero_in_a_vector_is_a_zero() -> None:
    items = np.array([[0.0, 1.0], [-0.0, 1.0], [2.0, 1.0]], np.float32)
    assert ranks(VectorScorer(np.array([[3.0, 1.0]], np.float32), items), example_set([0])).tolist() == [3]


@pytest.mark.parametrize("exclude_seen", [True, False])
@pytest.mark.parametrize("k", [1, 3, 10, 69, 70, 200])
def test_item_is_listed_exactly_if_its_rank_is_at_most_k(k: int, exclude_seen: bool) -> None:
    queries, vectors, examples = random_case(seed=1)
    matrix = queries @ vectors.T
    if exclude_seen:
        matrix[examples.seen.owners, examples.seen.values] = -np.inf
    lists = top_items(VectorScorer(queries, vectors), examples, k, exclude_seen=exclude_seen)
    assert lists.shape == (len(examples), k)
    for row, listed in zip(matrix, lists.tolist(), strict=True):
        expected = [item for item in range(70) if row[item] > -np.inf and sum(row >= row[item]) <= k]
        expected.sort(key=lambda item: (-row[item], item))
        assert listed == expected + [-1] * (k - len(expected))


def test_list_of_a_large_catalogue_equals_a_full_sort() -> None:
    rng = np.random.default_rng(2)
    matrix = rng.standard_normal((40, 9_001), dtype=np.float32)
    matrix[0] = np.sort(matrix[0])  # the best in one stretch
    matrix[1] = np.round(matrix[1], 2)  # many ties
    lists = top_items(GivenScores(matrix), example_set([0] * 40), 100)
    order = np.argsort(-matrix, axis=1, kind="stable")[:, :100]
    np.testing.assert_array_equal(lists[2:], order[2:])
    assert lists[0].tolist() == list(range(9_000, 8_900, -1))
    filled = lists[1][lists[1] >= 0]
    assert filled.tolist() == order[1][: len(filled)].tolist()
    assert np.sort(matrix[1])[-len(filled) - 1] == np.sort(matrix[1])[-101]  # what is left out ties with the 101st


def test_list_does_not_depend_on_the_target() -> None:
    matrix = np.array([[5, 4, 3, 2, 1]] * 2, np.float32)
    examples = example_set([0, 4], [[0], [0]])
    assert top_items(GivenScores(matrix), examples, 2).tolist() == [[1, 2], [1, 2]]
    assert ranks(GivenScores(matrix), examples).tolist() == [1, 4]


@pytest.mark.parametrize("block_bytes", [1, 20 * 70 * 4, 1 << 30])
def test_result_does_not_depend_on_the_size_of_the_blocks(block_bytes: int) -> None:
    queries, vectors, examples = random_case()
    scorer = VectorScorer(queries, vectors)
    np.testing.assert_array_equal(ranks(scorer, examples, block_bytes=block_bytes), ranks(scorer, examples))
    np.testing.assert_array_equal(
        top_items(scorer, examples, 9, block_bytes=block_bytes), top_items(scorer, examples, 9)
    )


def test_order_of_the_catalogue_does_not_change_ranks_and_lists() -> None:
    queries, vectors, examples = random_case()
    place = np.random.default_rng(4).permutation(70)  # new row of each item
    moved = np.empty_like(vectors)
    moved[place] = vectors
    seen = Ragged(place[examples.seen.values].astype(np.int32), examples.seen.offsets)
    renamed = dataclasses.replace(examples, targets=place[examples.targets].astype(np.int32), seen=seen)
    np.testing.assert_array_equal(
        ranks(VectorScorer(queries, moved), renamed), ranks(VectorScorer(queries, vectors), examples)
    )
    before = top_items(VectorScorer(queries, vectors), examples, 12)
    after = top_items(VectorScorer(queries, moved), renamed, 12)
    for old, new in zip(before, after, strict=True):
        assert sorted(place[old[old >= 0]]) == sorted(new[new >= 0])


def test_no_examples_give_no_ranks_and_no_lists() -> None:
    scorer = VectorScorer(np.empty((0, 2), np.float32), np.ones((3, 2), np.float32))
    assert ranks(scorer, example_set([])).tolist() == []
    assert top_items(scorer, example_set([]), 4).shape == (0, 4)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_a_finite_score_is_an_error_that_names_example_and_item(bad: float) -> None:
    matrix = np.zeros((50, 8), np.float32)
    matrix[33, 5] = bad
    with pytest.raises(EvaluationError, match=r"example 33 on item row 5 with .*1 of 8 items are not finite"):
        ranks(GivenScores(matrix), example_set([0] * 50), block_bytes=1)


def test_finite_scores_whose_sum_overflows_are_ranked() -> None:
    matrix = np.full((1, 8), 3e38, np.float32)
    matrix[0, 2] = 3.1e38
    assert ranks(GivenScores(matrix), example_set([2])).tolist() == [1]


@pytest.mark.parametrize("interests", [None, 1])
@pytest.mark.filterwarnings("ignore:overflow")
def test_vectors_whose_products_overflow_are_an_error(interests: int | None) -> None:
    queries, items = np.ones((3, 4), np.float32), np.ones((8, 4), np.float32)
    queries[1], items[5] = 3e19, 2e19  # 4 * 6e38 is beyond float32
    with pytest.raises(EvaluationError, match=r"example 1 on item row 5 with inf, and 1 of 8 items are not finite"):
        ranks(vector_scorer(queries[:, np.newaxis] if interests else queries, items), example_set([0, 1, 2]))


def test_scores_of_another_shape_are_refused() -> None:
    with pytest.raises(EvaluationError, match=r"expected floating point \(3, 8\)"):
        ranks(GivenScores(np.zeros((2, 8), np.float32)), example_set([0, 1, 2]))


def test_examples_of_another_catalogue_are_refused() -> None:
    scorer = GivenScores(np.zeros((1, 8), np.float32))
    with pytest.raises(EvaluationError, match="targets hold item rows from 8 to 8"):
        ranks(scorer, example_set([8]))
    with pytest.raises(EvaluationError, match="seen hold item rows from -1 to 3"):
        ranks(scorer, example_set([1], [[-1, 3]]))


def test_parts_of_different_length_are_refused() -> None:
    lists = Ragged.from_lists([[1], [2]])
    with pytest.raises(EvaluationError, match="'targets': 1"):
        EvaluationSet(users=np.array(["a", "b"]), targets=np.zeros(1, np.int32), history=lists, seen=lists)


@pytest.mark.parametrize("offsets", [[], [0, 1], [1, 3], [0, 2, 1, 3]])
def test_offsets_that_do_not_cut_the_values_into_lists_are_refused(offsets: list[int]) -> None:
    lists = Ragged(np.arange(3, dtype=np.int32), np.array(offsets, np.int64))
    whole = Ragged.empty(2)
    for name, parts in (("history", (lists, whole)), ("seen", (whole, lists))):
        with pytest.raises(EvaluationError, match=f"{name}: offsets have to rise from 0 to the number of values, 3"):
            EvaluationSet(np.array(["a", "b"]), np.zeros(2, np.int32), *parts)


# Several query vectors per example


def several_queries(examples: EvaluationSet, *, interests: int = 3) -> Floats:
    """Small whole numbers, so that inner products are exact."""
    return np.random.default_rng(5).integers(-2, 3, (len(examples), interests, 6)).astype(np.float32)


@pytest.mark.parametrize("block_bytes", [1, 20 * 70 * 4, 1 << 30])
def test_scores_of_several_queries_are_the_best_of_each(block_bytes: int) -> None:
    _, vectors, examples = random_case()
    queries = several_queries(examples)
    best = np.array([[max(float(query @ item) for query in own) for item in vectors] for own in queries])
    scorer = MultiVectorScorer(queries, vectors)
    assert scorer.item_count == 70
    np.testing.assert_array_equal(scorer.scores(7, 31), best[7:31])
    found = ranks(scorer, examples, block_bytes=block_bytes)
    assert found.tolist() == slow_ranks(best.astype(np.float32), examples, exclude_seen=True)


@pytest.mark.parametrize("interests", [None, 2])
def test_an_item_with_several_vectors_is_scored_by_the_best(interests: int | None) -> None:
    _, vectors, examples = random_case()
    queries = several_queries(examples, interests=interests or 1)
    several = np.stack([vectors, np.roll(vectors, 1, axis=0), -vectors], axis=1)  # [items, codes, dim]
    best = np.array([[max(float(q @ v) for q in own for v in item) for item in several] for own in queries])
    scorer = vector_scorer(queries if interests else queries[:, 0], several)
    assert scorer.item_count == 70
    np.testing.assert_allclose(scorer.scores(7, 31), best[7:31], rtol=1e-5)
    assert ranks(scorer, examples).tolist() == slow_ranks(best.astype(np.float32), examples, exclude_seen=True)
