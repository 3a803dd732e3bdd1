"""Ragged lists say what a list of lists says, and their set operations what a list of sets says."""

from __future__ import annotations

import numpy as np
import pytest

from recall.core.ragged import Ragged

LISTS = [[1, 2], [], [3], [4, 5, 6]]


def as_lists(ragged: Ragged) -> list[list[int]]:
    return [own.tolist() for own in ragged]


def drawn(random: np.random.Generator, *, queries: int, rows: int) -> list[list[int]]:
    """Lists of 0 to 40 rows in any order, with repeats."""
    return [random.integers(0, rows, random.integers(0, 40)).tolist() for _ in range(queries)]


@pytest.mark.parametrize("queries", [0, 1, 7, 300])
@pytest.mark.parametrize("rows", [30, 2**31 - 1])
def test_lists_contain_what_sets_contain(queries: int, rows: int) -> None:
    random = np.random.default_rng(queries)
    lists = drawn(random, queries=queries, rows=rows)
    found = random.integers(-1, rows, (queries, 25)).astype(np.int32)
    for query, own in enumerate(lists):  # some that are held, others' among them
        found[query, : len(own[:9])] = own[:9]
        found[query, 9 : 9 + len(lists[query - 1][:9])] = lists[query - 1][:9]
    expected = [[row in set(own) for row in line] for own, line in zip(lists, found.tolist(), strict=True)]
    assert Ragged.from_lists(lists).distinct().contains(found).tolist() == expected


def test_lists_read_as_a_sequence() -> None:
    found = Ragged.from_lists(LISTS)
    assert as_lists(found) == LISTS
    assert [found[place].tolist() for place in (-4, -1, 0, 2)] == [[1, 2], [4, 5, 6], [1, 2], [3]]
    assert (len(found), found.longest) == (4, 3)
    assert (len(Ragged.empty(0)), Ragged.empty(0).longest) == (0, 0)
    for place in (4, -5):
        with pytest.raises(IndexError):
            found[place]


def test_slice_of_ragged_lists_holds_those_lists() -> None:
    lists = Ragged.from_lists(LISTS)
    part = lists[1:4]
    assert part.values.tolist() == [3, 4, 5, 6]
    assert part.offsets.tolist() == [0, 0, 1, 4]
    assert part.owners.tolist() == [1, 2, 2, 2]
    for chosen in (slice(2, 9), slice(3, 1), slice(-2, None), slice(None, None, -2)):
        assert as_lists(lists[chosen]) == LISTS[chosen]


def test_taken_lists_are_those_asked_for_in_that_order() -> None:
    lists = Ragged.from_lists(LISTS)
    taken = lists.take(np.array([3, 1, 0, 3]))
    assert taken.values.tolist() == [4, 5, 6, 1, 2, 4, 5, 6]
    assert taken.offsets.tolist() == [0, 3, 3, 5, 8]
    assert len(lists.take(np.zeros(0, np.intp))) == 0


def test_lists_keep_the_chosen_values_and_tell_which_hold_any() -> None:
    lists = Ragged.from_lists(LISTS)
    assert as_lists(lists.where(lists.values % 2 == 0)) == [[2], [], [], [4, 6]]
    assert as_lists(lists.where(lists.values < 0)) == [[], [], [], []]
    assert lists.any_where(np.isin(lists.values, [2, 3])).tolist() == [True, False, True, False]
    assert lists.any_where(np.zeros(len(lists.values), bool)).tolist() == [False] * 4


def test_spans_list_consecutive_numbers() -> None:
    assert as_lists(Ragged.from_spans(np.array([7, 0, 7]), np.array([2, 0, 3]))) == [[7, 8], [], [7, 8, 9]]


def test_distinct_lists_are_unique_and_rising() -> None:
    lists = [[5, 1, 5], [], [2, 0], [7]]
    assert as_lists(Ragged.from_lists(lists).distinct()) == [[1, 5], [], [0, 2], [7]]
    assert as_lists(Ragged.from_lists([[5, 1, 5]]).distinct()) == [[1, 5]]
    assert as_lists(Ragged.from_lists([[3, -1, 3], [2, -1]]).distinct()) == [[-1, 3], [-1, 2]]


def test_lists_are_joined_chosen_and_cut_as_sets_are() -> None:
    random = np.random.default_rng(3)
    one, other = (drawn(random, queries=20, rows=50) for _ in range(2))
    joined = Ragged.from_lists(one).distinct().union(Ragged.from_lists(other).distinct())
    unions = [sorted({*own, *others}) for own, others in zip(one, other, strict=True)]
    assert as_lists(joined) == unions
    chosen = np.array([19, 3, 3, 0])
    assert as_lists(joined.take(chosen)) == [unions[query] for query in chosen]
    small = joined.where(joined.values < 25)
    assert as_lists(small) == [[row for row in own if row < 25] for own in unions]
    assert as_lists(Ragged.empty(2)) == [[], []]
