"""Merge steps against brute force over all items: caps hold, cold shares are met, and nothing better was left out."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recall.core.ragged import Ragged
from recall.serving.items.groups import Groups
from recall.serving.search.merging import Cap, Ranked, Rules, merged_lists


def groups(values: list[list[int]]) -> Groups:
    return Groups(Ragged.from_lists(values, dtype=np.int64), (), rows=len(values))


def ranking(scores: npt.NDArray[np.float32], *, looks: list[int] | None = None) -> Ranked:
    """All items by falling score [queries, items]; notes the widths that it was asked for."""

    def ranked(queries: npt.NDArray[np.intp], width: int, *, only: npt.NDArray[np.bool_] | None) -> Any:
        if looks is not None:
            looks.append(width)
        rows = np.full((len(queries), width), -1, np.int32)
        points = np.full((len(queries), width), -np.inf, np.float32)
        for line, query in enumerate(queries):
            order = np.lexsort((np.arange(scores.shape[1]), -scores[query]))
            order = order[only[order]] if only is not None else order
            order = order[scores[query, order] > -np.inf][:width]
            rows[line, : len(order)], points[line, : len(order)] = order, scores[query, order]
        return rows, points

    return ranked


def lists(scores: npt.NDArray[np.float32], rules: Rules, **options: Any) -> list[list[int]]:
    rows, points = merged_lists(ranking(scores, **options), rules, queries=len(scores), items=scores.shape[1])
    assert rows.shape == (len(scores), rules.k)
    assert (np.diff(np.where(rows < 0, -1e9, points), axis=1) <= 0).all(), "by falling score"
    for line, own in enumerate(rows):
        assert points[line, own >= 0] == pytest.approx(scores[line, own[own >= 0]])
    return [own[own >= 0].tolist() for own in rows]


def best_subset(
    scores: npt.NDArray[np.float32], author: list[int], cold: list[bool], k: int, limit: int, least: int
) -> Any:
    """By trying every list: as many items as the cap lets in; of such as many cold as wanted; of such the best."""
    best: Any = None
    for size in range(k + 1):
        for chosen in itertools.combinations(range(len(author)), size):
            counts = Counter(author[row] for row in chosen if author[row] >= 0)
            if max(counts.values(), default=0) <= limit:
                key = (size, min(least, sum(cold[row] for row in chosen)), float(np.sum(scores[list(chosen)])))
                best = max(best, (key, chosen)) if best else (key, chosen)
    return best


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_one_cap_and_a_cold_share_give_the_best_list_there_is(data: st.DataObject) -> None:
    items = data.draw(st.integers(1, 9))
    author = data.draw(st.lists(st.integers(-1, 2), min_size=items, max_size=items))
    cold = data.draw(st.lists(st.booleans(), min_size=items, max_size=items))
    k, limit, least = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 3)), data.draw(st.integers(0, 3))
    scores = np.asarray([data.draw(st.permutations(range(items)))], np.float32)
    caps = (Cap(groups([[code] if code >= 0 else [] for code in author]), limit),)
    (found,) = lists(scores, Rules(k, caps, np.asarray(cold), min(least, k)))
    (size, several_cold, total), _ = best_subset(scores[0], author, cold, k, limit, min(least, k))
    assert len(found) == size
    assert min(least, k, sum(cold[row] for row in found)) == several_cold
    assert sum(scores[0, found]) == pytest.approx(total)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_caps_on_tags_keep_every_limit_and_leave_out_nothing_that_fits(data: st.DataObject) -> None:
    items = data.draw(st.integers(1, 30))
    tags = [data.draw(st.lists(st.integers(0, 4), max_size=3)) for _ in range(items)]
    author = data.draw(st.lists(st.integers(0, 5), min_size=items, max_size=items))
    k, limits = data.draw(st.integers(1, 12)), (data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3)))
    scores = np.random.default_rng(data.draw(st.integers(0, 99))).normal(size=(2, items)).astype(np.float32)
    caps = (Cap(groups(tags), limits[0]), Cap(groups([[code] for code in author]), limits[1]))
    for query, found in enumerate(lists(scores, Rules(k, caps))):
        counts = Counter(("tag", tag) for row in found for tag in set(tags[row]))
        counts += Counter(("author", author[row]) for row in found)
        assert all(several <= limits[kind == "author"] for (kind, _), several in counts.items())
        for row in set(range(items)) - set(found):
            better = [one for one in found if scores[query, one] > scores[query, row]]
            own = Counter(("tag", tag) for one in better for tag in set(tags[one]))
            own += Counter(("author", author[one]) for one in better)
            fits = all(own["tag", tag] < limits[0] for tag in tags[row]) and own["author", author[row]] < limits[1]
            assert len(better) == k or not fits


def test_caps_win_over_the_cold_share_and_that_over_the_score() -> None:
    scores = np.asarray([[9, 8, 7, 6, 5, 4, 3]], np.float32)
    author = [[0], [0], [1], [2], [2], [2], [0]]
    cold = np.asarray([0, 0, 0, 0, 1, 1, 1], bool)
    # Of three, two cold ones: 5 and 6 are the best ones, but leave author 0 no place for 8; 1 and 6 do.
    few = np.asarray([[0, 1, 2, 3, 4, 5, 6, 7, 8]], np.float32)
    of_one = [[0], [1], [0], [0], [0], [0], [0], [0], [0]]
    some = np.asarray([0, 1, 0, 0, 0, 1, 1, 0, 0], bool)
    assert lists(few, Rules(3, (Cap(groups(of_one), 2),), some, 2)) == [[8, 6, 1]]

    # All three cold ones are wanted: rows 4 and 5 share author 2, so one of them and row 6; its author 0 then has one
    # place left, and author 2 none for row 3.
    assert lists(scores, Rules(4, (Cap(groups(author), 1),), cold, 3)) == [[2, 4, 6]]
    assert lists(scores, Rules(4, (Cap(groups(author), 2),), cold, 3)) == [[0, 4, 5, 6]]
    assert lists(scores, Rules(4, (), cold, 2)) == [[0, 1, 4, 5]]


def test_a_list_that_has_its_share_of_cold_items_stays_as_it_is() -> None:
    scores = np.asarray([[9, 8, 7, 6], [6, 7, 8, 9]], np.float32)
    cold = np.asarray([True, False, False, False])
    assert lists(scores, Rules(2, (), cold, 1)) == [[0, 1], [0, 3][::-1]]


def test_cold_items_run_out_before_the_share_is_met() -> None:
    scores = np.asarray([[9, 8, 7, 6, 5]], np.float32)
    assert lists(scores, Rules(4, (), np.asarray([0, 0, 0, 0, 1], bool), 4)) == [[0, 1, 2, 4]]
    assert lists(scores, Rules(4, (), np.zeros(5, bool), 4)) == [[0, 1, 2, 3]]


def test_candidates_of_a_value_that_is_full_are_not_looked_at_again() -> None:
    scores = -np.arange(100, dtype=np.float32)[np.newaxis]
    author = groups([[0]] * 50 + [[1]] * 50)
    looks: list[int] = []
    assert lists(scores, Rules(2, (Cap(author, 1),)), looks=looks) == [[0, 50]]
    assert len(looks) == 2
    looks.clear()
    assert lists(scores, Rules(9, (Cap(author, 2),)), looks=looks) == [[0, 1, 50, 51]]
    assert len(looks) == 2, "two values, two of each: there can be no more"


def test_the_whole_catalogue_is_seen_in_few_looks_though_each_may_bring_one_item() -> None:
    scores = -np.arange(20_000, dtype=np.float32)[np.newaxis]
    author = groups([[row // 200] for row in range(20_000)])  # long stretches, a hundred authors
    looks: list[int] = []
    assert lists(scores, Rules(50, (Cap(author, 1),)), looks=looks) == [list(range(0, 10_000, 200))]
    assert len(looks) <= 6, "and not 50"


def test_a_cap_that_leaves_few_items_is_known_before_the_first_look() -> None:
    scores = np.random.default_rng(1).normal(size=(3, 5000)).astype(np.float32)
    author = groups([[row % 7] for row in range(5000)])
    looks: list[int] = []
    assert [len(found) for found in lists(scores, Rules(1000, (Cap(author, 2),)), looks=looks)] == [14] * 3
    assert max(looks) < 1000, "seven authors with two items each"


def chosen_one_by_one(
    order: list[int], values: list[list[list[int]]], limits: list[int], k: int, *, taken: list[int] | None = None
) -> list[int]:
    """Greedy as the docs say it: an item after the other, and each stays out that would break a cap."""
    chosen = list(taken or [])
    counts = [Counter(code for row in chosen for code in set(own[row])) for own in values]
    for row in order:
        fits = all(counts[cap][code] < limits[cap] for cap, own in enumerate(values) for code in own[row])
        if len(chosen) < k and row not in chosen and fits:
            chosen.append(row)
            for cap, own in enumerate(values):
                counts[cap].update(set(own[row]))
    return chosen


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_lists_of_a_batch_are_those_of_choosing_one_candidate_after_the_other(data: st.DataObject) -> None:
    items, queries = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 5))
    random = np.random.default_rng(data.draw(st.integers(0, 10_000)))
    scores = random.integers(0, data.draw(st.sampled_from([5, 1000])), (queries, items)).astype(np.float32)  # ties
    scores[random.random((queries, items)) < data.draw(st.sampled_from([0, 0.3]))] = -np.inf  # excluded
    values = [
        [random.integers(0, codes, random.integers(0, most + 1)).tolist() for _ in range(items)]
        for codes, most in data.draw(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 4)), max_size=3))
    ]
    limits = [data.draw(st.integers(1, 3)) for _ in values]
    cold = random.random(items) < 0.4
    k = data.draw(st.integers(1, 25))
    least = data.draw(st.integers(0, k))
    caps = tuple(Cap(groups(own), limit) for own, limit in zip(values, limits, strict=True))
    found = lists(scores, Rules(k, caps, cold, least))
    for query in range(queries):
        order = sorted(np.flatnonzero(scores[query] > -np.inf).tolist(), key=lambda row: (-scores[query, row], row))
        expected = chosen_one_by_one(order, values, limits, k)
        if sum(cold[expected]) < least:
            if len(values) == 1 and max(map(len, values[0])) <= 1:
                continue  # better than greedy: the test against every list there is
            reserved = chosen_one_by_one([row for row in order if cold[row]], values, limits, least)
            expected = chosen_one_by_one(order, values, limits, k, taken=reserved)
        assert found[query] == sorted(expected, key=lambda row: (-scores[query, row], row))


def test_a_batch_of_any_size_is_merged_in_blocks_and_each_list_is_as_alone() -> None:
    scores = np.random.default_rng(3).normal(size=(2500, 60)).astype(np.float32)
    author, cold = groups([[row % 9] for row in range(60)]), np.arange(60) % 5 == 0
    rules = Rules(20, (Cap(author, 3),), cold, 5)
    found, sizes = lists(scores, rules), list[int]()
    ranked = ranking(scores)

    def noting(queries: npt.NDArray[np.intp], width: int, *, only: npt.NDArray[np.bool_] | None) -> Any:
        sizes.append(len(queries) * width)
        return ranked(queries, width, only=only)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recall.serving.search.merging._CANDIDATES_AT_ONCE", 1000)
        rows, _ = merged_lists(noting, rules, queries=len(scores), items=60)
    assert [own[own >= 0].tolist() for own in rows] == found
    assert max(sizes) <= 1000


def test_a_chain_in_which_each_candidate_hangs_on_the_one_before_is_decided() -> None:
    items = 500
    scores = -np.arange(items, dtype=np.float32)[np.newaxis]
    links = groups([[row, row + 1] for row in range(items)])  # each shares a value with the next
    assert lists(scores, Rules(items, (Cap(links, 1),))) == [list(range(0, items, 2))]
