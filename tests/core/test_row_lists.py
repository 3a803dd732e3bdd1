"""Lists of rows in one array say what a list of sets says."""

from __future__ import annotations

import numpy as np
import pytest

from recall.index.row_lists import RowLists


def drawn(random: np.random.Generator, *, queries: int, rows: int) -> list[list[int]]:
    """Lists of 0 to 40 rows in any order, with repeats."""
    return [random.integers(0, rows, random.integers(0, 40)).tolist() for _ in range(queries)]


@pytest.mark.parametrize("queries", [0, 1, 7, 300])
@pytest.mark.parametrize("rows", [30, 2**31 - 1])
def test_what_is_held_is_what_sets_hold(queries: int, rows: int) -> None:
    random = np.random.default_rng(queries)
    lists = drawn(random, queries=queries, rows=rows)
    found = random.integers(-1, rows, (queries, 25)).astype(np.int32)
    for query, own in enumerate(lists):  # some that are held, others' among them
        found[query, : len(own[:9])] = own[:9]
        found[query, 9 : 9 + len(lists[query - 1][:9])] = lists[query - 1][:9]
    expected = [[row in set(own) for row in line] for own, line in zip(lists, found.tolist(), strict=True)]
    assert RowLists.listed(lists).hold(found).tolist() == expected


def test_lists_are_unique_and_rising_and_read_as_a_sequence() -> None:
    lists = [[5, 1, 5], [], [2, 0], [7]]
    found = RowLists.listed(lists)
    assert [own.tolist() for own in found] == [[1, 5], [], [0, 2], [7]]
    assert found[-1].tolist() == [7]
    assert [own.tolist() for own in found[1:3]] == [[], [0, 2]]
    assert (len(found), found.longest) == (4, 2)
    assert RowLists.listed([[5, 1, 5]])[0].tolist() == [1, 5]
    with pytest.raises(IndexError):
        found[4]


def test_lists_are_joined_chosen_and_cut_as_sets_are() -> None:
    random = np.random.default_rng(3)
    one, other = (drawn(random, queries=20, rows=50) for _ in range(2))
    joined = RowLists.listed(one).joined(RowLists.listed(other))
    unions = [sorted({*own, *others}) for own, others in zip(one, other, strict=True)]
    assert [own.tolist() for own in joined] == unions
    chosen = np.array([19, 3, 3, 0])
    assert [own.tolist() for own in joined.take(chosen)] == [unions[query] for query in chosen]
    small = joined.where(joined.rows < 25)
    assert [own.tolist() for own in small] == [[row for row in own if row < 25] for own in unions]
    assert [own.tolist() for own in RowLists.none(2)] == [[], []]
