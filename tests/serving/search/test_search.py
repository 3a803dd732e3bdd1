"""Lists with filters, exclusions, merge steps and fallbacks: the same as by comparing every item by hand."""

from __future__ import annotations

import pickle
from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from recall.config.index import IndexConfig
from recall.core.errors import ArtifactError, DataError
from recall.core.ragged import Ragged
from recall.index import Index, build_index
from recall.serving.search.options import SearchOptions
from recall.serving.search.search import Found, search_candidates
from tests.helpers.served_items import DIM, NOW_MS, Catalogue

CATALOGUE = Catalogue(600)
FRAME = CATALOGUE.frame
QUERIES = np.random.default_rng(5).normal(size=(4, DIM)).astype(np.float32)
EXACT = CATALOGUE.index()
NEWS = {"where": [{"column": "category", "in": ["news"]}]}
NOBODY = np.zeros(len(QUERIES), bool)


def search(
    queries: npt.NDArray[np.float32] = QUERIES, *, index: Index = EXACT, excluded: Any = None, **wanted: Any
) -> Found:
    lacking = wanted.pop("lacking", None)
    return search_candidates(
        index,
        queries,
        options=SearchOptions(**wanted),
        excluded=rows(index, [[]] * len(queries) if excluded is None else excluded),
        facts=CATALOGUE.facts.of(index),
        now_ms=NOW_MS,
        lacking=lacking,
    )


def rows(index: Index, lists: Any) -> Ragged:
    return Ragged.from_lists(index.rows_there(ids) for ids in lists).distinct()


def ranked(query: npt.NDArray[np.float32], *, allowed: Any = None, excluded: Any = ()) -> list[str]:
    """Ids by falling score, of one query or of the best of several interests."""
    scores = pd.Series((CATALOGUE.vectors @ np.atleast_2d(query).T).max(axis=1), index=FRAME.index)
    scores = scores[FRAME.index if allowed is None else FRAME.index[allowed]].drop(list(excluded), errors="ignore")
    return list(scores.sort_values(ascending=False, kind="stable").index)


def given(found: Found, query: int = 0) -> list[str]:
    return [item for item in found.ids[query] if item is not None]


@pytest.fixture(scope="module")
def approximate() -> Index:
    """Search that compares only some of the items."""
    return build_index(CATALOGUE.ids, CATALOGUE.vectors, config=IndexConfig(exact_below=0))


def test_filtered_lists_are_the_exact_ones_without_what_is_excluded() -> None:
    excluded = [[*ranked(query)[:50], "gone"] for query in QUERIES]
    found = search(k=20, filters=NEWS, excluded=excluded)
    for row, query in enumerate(QUERIES):
        assert given(found, row) == ranked(query, allowed=FRAME.category == "news", excluded=excluded[row])[:20]
    assert found.sources is None


@pytest.mark.parametrize("remaining", [0, 1, 3, 10])
def test_few_remaining_items_are_all_found(approximate: Index, remaining: int) -> None:
    allowed = ranked(-QUERIES[0])[:remaining]  # the last that a search would come to
    for index in (EXACT, approximate):
        by_allow_list = search(k=10, index=index, filters={"allow": allowed})
        by_exclusion = search(k=10, index=index, excluded=[set(CATALOGUE.ids) - set(allowed)] * len(QUERIES))
        for row, query in enumerate(QUERIES):
            expected = [item for item in ranked(query) if item in allowed]
            assert given(by_allow_list, row) == given(by_exclusion, row) == expected
            assert (by_exclusion.scores[row, remaining:] == -np.inf).all()


def test_an_approximate_index_gives_k_wherever_k_exist(approximate: Index) -> None:
    filters = {"where": [{"column": "tags", "in": ["red"]}, {"column": "category", "not_in": ["news"]}]}
    allowed = FRAME.tags.map(lambda tags: "red" in tags) & (FRAME.category != "news")
    several = int(allowed.sum())
    for k in (1, several - 1, several, several + 5):
        found = search(k=k, index=approximate, filters=filters)
        for row in range(len(QUERIES)):
            items = given(found, row)
            assert len(set(items)) == len(items) == min(k, several)
            assert allowed[items].all()


def test_several_interests_are_filtered_each_and_merged() -> None:
    interests = np.random.default_rng(6).normal(size=(4, 3, DIM)).astype(np.float32)
    excluded = [ranked(query)[:30] for query in interests]
    found = search(interests, k=15, filters=NEWS, excluded=excluded)
    for row, query in enumerate(interests):
        assert given(found, row) == ranked(query, allowed=FRAME.category == "news", excluded=excluded[row])[:15]


def by_hand(query: npt.NDArray[np.float32], k: int, *, caps: dict[str, int], allowed: Any) -> list[str]:
    chosen: list[str] = []
    counts: Counter[tuple[str, str]] = Counter()
    for item in ranked(query, allowed=allowed):
        own = [("author", FRAME.author[item])] if FRAME.author[item] else []
        own += [("tags", tag) for tag in FRAME.tags[item]]
        own = [(column, value) for column, value in own if column in caps]
        if all(counts[column, value] < caps[column] for column, value in own) and len(chosen) < k:
            chosen.append(item)
            counts.update(own)
    return chosen


@pytest.mark.parametrize("caps", [{"author": 1}, {"author": 2}, {"tags": 3}, {"author": 2, "tags": 4}])
def test_capped_lists_are_those_put_together_by_hand(caps: dict[str, int]) -> None:
    interests = np.random.default_rng(7).normal(size=(3, 2, DIM)).astype(np.float32)
    for queries in (QUERIES, interests):
        found = search(queries, k=20, filters=NEWS, caps=caps)
        for row, query in enumerate(queries):
            assert given(found, row) == by_hand(query, 20, caps=caps, allowed=FRAME.category == "news")


def test_a_share_of_every_list_is_cold_and_the_rest_the_best() -> None:
    found = search(k=10, filters=NEWS, min_cold_share=0.6)
    is_cold = FRAME.exposures == 0
    for row, query in enumerate(QUERIES):
        best = ranked(query, allowed=FRAME.category == "news")
        cold = [item for item in best if is_cold[item]][:6]
        expected = set(cold) | set([item for item in best if item not in cold][: 10 - len(cold)])
        if sum(is_cold[best[:10]]) >= 6:
            expected = set(best[:10])
        assert given(found, row) == [item for item in best if item in expected]
        assert sum(is_cold[given(found, row)]) >= 6
    assert (np.diff(found.scores, axis=1) <= 0).all()


def test_a_share_of_every_list_is_for_items_within_their_budget() -> None:
    ctr = FRAME.clicks.sum() / FRAME.exposures.sum()
    does_well = (FRAME.clicks + 20 * ctr) / (FRAME.exposures + 20) >= ctr
    first, last = 50, 500
    is_within = (FRAME.exposures < first) | ((FRAME.exposures < last) & does_well)
    assert 0 < is_within.sum() - (FRAME.exposures < first).sum() < (FRAME.exposures < last).sum()
    found = search(k=10, min_cold_share=0.6, budget=(first, last))
    for row, query in enumerate(QUERIES):
        best = ranked(query)
        kept = set([item for item in best if is_within[item]][:6])
        expected = kept | set([item for item in best if item not in kept][: 10 - len(kept)])
        if sum(is_within[best[:10]]) >= 6:
            expected = set(best[:10])
        assert given(found, row) == [item for item in best if item in expected]


def test_a_cap_is_kept_though_the_cold_share_is_not() -> None:
    one_author = FRAME.author == "a1"
    found = search(k=5, filters={"allow": FRAME.index[one_author].tolist()}, caps={"author": 2}, min_cold_share=1.0)
    best_cold = ranked(QUERIES[0], allowed=one_author & (FRAME.exposures == 0))[:2]
    assert given(found) == best_cold


def test_capped_numbers_are_refused() -> None:
    with pytest.raises(
        DataError, match=r"caps\['seconds'\]: seconds holds double; items are counted by values of text"
    ):
        search(k=3, caps={"seconds": 2})
    with pytest.raises(DataError, match=r"caps\['colour'\]: items have no attribute colour"):
        search(k=3, caps={"colour": 2})


# Fallbacks


def popular_and_fresh(allowed: Any = None, excluded: Any = ()) -> list[str]:
    frame = FRAME if allowed is None else FRAME[allowed]
    rows = np.arange(len(FRAME))
    order = FRAME.assign(row=rows, first=np.where(FRAME.exposures > 0, FRAME.age_hours, np.inf))
    popular = list(order.sort_values(["clicks", "ctr", "row"], ascending=[False, False, True]).index)
    fresh = list(order.sort_values(["first", "row"]).index)
    dealt: list[str] = []
    while popular or fresh:
        for _ in range(4):
            dealt += [popular.pop(0)] if popular else []
        dealt += [fresh.pop(0)] if fresh else []
    return [item for item in dict.fromkeys(dealt) if item in frame.index and item not in excluded]


def test_queries_that_lack_something_get_the_fallback_and_the_others_the_model() -> None:
    lacking = np.asarray([True, False, True, False])
    excluded = [popular_and_fresh()[:3], [], [], []]
    found = search(k=12, filters=NEWS, excluded=excluded, fallback=True, lacking=lacking)
    assert found.sources == ("fallback", "model", "fallback", "model")
    news = FRAME.category == "news"
    assert given(found, 0) == popular_and_fresh(news, excluded[0])[:12]
    assert given(found, 2) == popular_and_fresh(news)[:12]
    assert found.scores[2] == pytest.approx(FRAME.ctr[given(found, 2)].to_numpy())
    for row in (1, 3):
        assert given(found, row) == ranked(QUERIES[row], allowed=news)[:12]


def test_without_a_fallback_who_lacks_something_gets_nothing() -> None:
    found = search(k=5, lacking=np.asarray([True, False, False, False]))
    assert (given(found, 0), found.sources) == ([], None)
    assert given(found, 1) == ranked(QUERIES[1])[:5]


def test_where_predicates_leave_nothing_lists_of_ids_still_hold() -> None:
    filters = {"where": [{"column": "category", "in": ["nothing"]}], "deny": popular_and_fresh()[:2]}
    excluded = [popular_and_fresh()[2:4]] * 4
    found = search(k=8, filters=filters, excluded=excluded, fallback=True)
    assert found.sources == ("fallback_unfiltered",) * 4
    assert given(found, 3) == popular_and_fresh()[4:12]
    found = search(k=8, filters=filters, excluded=excluded, fallback="filtered")
    assert (given(found), found.sources) == ([], ("model",) * 4)
    found = search(k=8, filters={"allow": ["gone"]}, fallback=True)
    assert (given(found), found.unknown_ids) == ([], 1), "what is allowed by id is not given up"


def test_caps_and_the_cold_share_hold_in_a_fallback_too() -> None:
    found = search(k=20, caps={"author": 2}, min_cold_share=0.25, fallback=True, lacking=~NOBODY)
    items = given(found)
    assert len(items) == 20
    assert sum(FRAME.exposures[items] == 0) >= 5
    assert max(Counter(author for author in FRAME.author[items] if author).values()) <= 2
    place = {item: rank for rank, item in enumerate(popular_and_fresh())}
    assert items == sorted(items, key=place.__getitem__)


def test_no_queries_have_no_lists() -> None:
    for wanted in ({}, {"filters": NEWS, "caps": {"author": 1}, "min_cold_share": 0.5, "fallback": True}):
        found = search(QUERIES[:0], k=3, **wanted)
        assert found.ids.shape == found.scores.shape == (0, 3)


# What callers bring


def test_without_facts_only_ids_can_be_asked_for() -> None:
    excluded = rows(EXACT, [["i1"]])
    for options, fails in ((SearchOptions(k=3), False), (SearchOptions(k=3, min_cold_share=0.5), True)):
        arguments: dict[str, Any] = {"options": options, "excluded": excluded, "facts": None, "now_ms": NOW_MS}
        if fails:
            with pytest.raises(ArtifactError, match=r"open the run with Recaller\.load"):
                search_candidates(EXACT, QUERIES[:1], **arguments)
        else:
            assert search_candidates(EXACT, QUERIES[:1], **arguments).ids.shape == (1, 3)


def test_candidates_survive_pickling_without_the_catalogue() -> None:
    found = search(k=3)
    candidates = found.candidates(["a", "b", "c", "d"], titles={})
    sent = pickle.dumps(candidates)
    again = pickle.loads(sent)
    assert again.ids.tolist() == candidates.ids.tolist() == found.ids.tolist()
    assert again.records() == candidates.records()
    assert CATALOGUE.ids[-1].encode() not in sent or CATALOGUE.ids[-1] in found.ids
