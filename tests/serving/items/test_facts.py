"""Facts of a living index: put together bit by bit they are what plain dictionaries say, whatever came in between."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from recall.core.ragged import Ragged
from recall.data.item_attributes import TAGS, ItemAttributes
from recall.data.posterior import Posterior
from recall.index import ExactIndex, LivingIndex
from recall.index.items import Items
from recall.serving.items.facts import ItemFacts
from recall.serving.items.overlay import Overlaid, Overlay
from recall.serving.items.posterior import NEVER, ServedPosterior
from recall.serving.search.fallback import FRESH_EVERY, fallback_order
from recall.serving.search.filters import Filters
from recall.serving.search.options import SearchOptions
from recall.serving.search.search import search_candidates
from tests.helpers.served_items import DIM, HOUR_MS, NOW_MS

NEW_CTR = 0.25
CATALOGUE = [f"i{row}" for row in range(8)]
IDS = [*CATALOGUE, "new0", "new1", "new2", "new3"]
VALUES = st.fixed_dictionaries(
    {
        "category": st.sampled_from(["news", "sport", None]),
        "tags": st.lists(st.sampled_from(["red", "green"]), unique=True, max_size=2),
    }
)
COUNTS = st.tuples(st.integers(0, 3), st.integers(1, 9))  # exposures, age in hours
CHANGE = st.one_of(
    st.tuples(st.just("add"), st.sampled_from(IDS), VALUES),
    st.tuples(st.just("refresh"), st.sampled_from(IDS), COUNTS),
    st.tuples(st.just("bare"), st.sampled_from(IDS), st.none()),
    st.tuples(st.just("delete"), st.sampled_from(IDS), st.none()),
    st.tuples(st.just("rebalance"), st.none(), st.none()),
    st.tuples(st.just("ask"), st.none(), st.none()),
)


class Known:
    """A living index and its facts, and beside them what should come out: a dictionary for each kind of fact."""

    def __init__(self) -> None:
        rng = np.random.default_rng(4)
        self.values: dict[str, dict[str, Any]] = {
            name: {"category": ["news", "sport", None][place % 3], "tags": [["red"], [], ["red", "green"]][place % 3]}
            for place, name in enumerate(CATALOGUE)
        }
        self.counts = {name: (place % 3, place + 1) for place, name in enumerate(CATALOGUE)}
        ids = pa.array(CATALOGUE)
        table = pa.Table.from_pylist(
            list(self.values.values()), schema=pa.schema({"category": pa.string(), "tags": TAGS})
        )
        posterior = ServedPosterior.at(ids, self.posterior(CATALOGUE), at_ms=NOW_MS)
        self.facts = ItemFacts(ItemAttributes(ids, table), posterior, new_ctr=NEW_CTR)
        self.vector_of = dict(zip(IDS, rng.normal(size=(len(IDS), DIM)).astype(np.float32), strict=True))
        vectors = np.stack([self.vector_of[name] for name in CATALOGUE])
        self.index = LivingIndex(ExactIndex(Items.checked(CATALOGUE, vectors)))
        self.held = set(CATALOGUE)

    def posterior(self, names: list[str]) -> Posterior:
        exposures = np.asarray([self.counts[name][0] for name in names])
        hours = np.asarray([self.counts[name][1] for name in names], np.float32)
        return Posterior(exposures, exposures // 2, (exposures / 8).astype(np.float32), hours)

    def change(self, kind: str, name: Any, value: Any) -> None:
        if kind == "ask":
            self.facts.of(self.index.snapshot())
        elif kind == "rebalance" and self.held:
            self.index.rebalance()
        elif kind == "delete" and name in self.held and len(self.held) > 1:
            self.index.delete([name])
            self.held.discard(name)
        elif kind in ("add", "bare"):
            if kind == "add":
                self.facts.apply([self.facts.checked([name], rows=[value])])
                self.values[name] = value
            self.index.upsert([name], self.vector_of[name][np.newaxis])
            self.held.add(name)
        elif kind == "refresh":
            self.counts[name] = value
            self.facts.apply([self.facts.checked([name], posterior=self.posterior([name]), at_ms=NOW_MS)])

    def cold(self, name: str) -> bool:
        return self.counts.get(name, (0, 0))[0] == 0

    def category(self, name: str) -> Any:
        return self.values.get(name, {}).get("category")

    def tags(self, name: str) -> list[str]:
        return self.values.get(name, {}).get("tags") or []

    def popularity(self, name: str) -> tuple[int, float]:
        exposures = self.counts.get(name, (0, 0))[0]
        return -(exposures // 2), -(exposures / 8 if name in self.counts else NEW_CTR)


def check(known: Known) -> None:
    snapshot = known.index.snapshot()
    facts = known.facts.of(snapshot)
    row_of = {name: snapshot.row(name) for name in known.held}
    rows = np.asarray(list(row_of.values()))
    assert np.flatnonzero(facts.is_alive).tolist() == sorted(rows)
    for conditions, expected in (
        ({"column": "category", "in": ["news"]}, lambda name: known.category(name) == "news"),
        ({"column": "category", "not_in": ["news"]}, lambda name: known.category(name) != "news"),
        ({"column": "tags", "in": ["green"]}, lambda name: "green" in known.tags(name)),
        ({"newer_than_hours": 4.5}, lambda name: known.cold(name) or known.counts[name][1] < 4.5),
    ):
        mask = Filters.read({"where": [conditions]}).allowed(facts, now_ms=NOW_MS).mask
        assert mask is not None
        assert [bool(mask[row]) for row in rows] == [expected(name) for name in row_of]
    assert [bool(facts.is_cold[row]) for row in rows] == [known.cold(name) for name in row_of]
    for column, values_of in (("tags", known.tags), ("category", lambda name: [known.category(name)])):
        groups, code_of = facts.groups(column, what="caps"), {}
        for name, row in row_of.items():
            values = {value for value in values_of(name) if value is not None}
            assert len(groups.of_rows(np.asarray([row])).values) == len(values)
            if len(values) == 1:
                [code] = groups.of_rows(np.asarray([row])).values.tolist()
                assert code_of.setdefault(next(iter(values)), code) == code, "a value keeps its code"
        assert len(set(code_of.values())) == len(code_of)
        for value, code in code_of.items():
            holding = groups.holding([code])
            assert [bool(holding[row]) for row in rows] == [value in values_of(name) for name in row_of]
    order = [row for row in fallback_order(facts.posterior) if row in set(rows.tolist())]
    popular = sorted(row_of, key=lambda name: (*known.popularity(name), row_of[name]))
    by_row = {row: name for name, row in row_of.items()}
    no_clicks = [by_row[row] for place, row in enumerate(order, start=1) if place % FRESH_EVERY]
    assert no_clicks[0] == popular[0], "fresh items have every fifth place alone"


@settings(max_examples=80, deadline=None)
@given(st.lists(CHANGE, max_size=14))
def test_facts_follow_every_change_of_a_living_index(changes: list[tuple[str, Any, Any]]) -> None:
    known = Known()
    for change in changes:
        known.change(*change)
    check(known)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), COUNTS), max_size=12), st.booleans())
def test_the_order_of_a_fallback_that_took_in_changes_is_that_of_all_sorted_anew(
    changes: list[tuple[int, tuple[int, int]]], has_clock: bool
) -> None:
    def entries(counts: list[tuple[int, int]]) -> ServedPosterior:
        exposures, hours = (np.asarray(column, np.int64) for column in zip(*counts, strict=True))
        posterior = Posterior(exposures, exposures // 2, (exposures / 8).astype(np.float32), hours.astype(np.float32))
        ids = pa.array([str(place) for place in range(len(counts))])
        return ServedPosterior.at(ids, posterior, at_ms=NOW_MS if has_clock else None)

    counts = {row: (row % 3, 1 + row % 4) for row in range(7)}
    overlaid = Overlaid(entries(list(counts.values())))
    for row, (exposures, hours) in changes:
        row = min(row, len(counts))  # the next one, or one that is there
        counts[row] = (exposures, hours)
        overlaid = overlaid.with_overlay(Overlay.of(np.asarray([row]), entries([(exposures, hours)])))
    anew = Overlaid(entries([counts[row] for row in range(len(counts))]))
    assert fallback_order(overlaid).tolist() == fallback_order(anew).tolist()


def test_an_older_snapshot_is_answered_from_its_own_rows() -> None:
    known = Known()
    before = known.index.snapshot()
    known.change("add", "new0", {"category": "news", "tags": ["red"]})
    known.facts.of(known.index.snapshot())
    facts = known.facts.of(before)
    assert len(facts.is_cold) == len(facts) == len(CATALOGUE)
    for options in (
        SearchOptions(k=20, filters={"where": [{"column": "tags", "in": ["red"]}]}, caps={"category": 3}),
        SearchOptions(k=20, fallback=True),
    ):
        found = search_candidates(
            before,
            known.vector_of["i0"][np.newaxis],
            options=options,
            excluded=Ragged.empty(1),
            facts=facts,
            now_ms=NOW_MS,
            lacking=np.asarray([bool(options.fallback)]),
        )
        assert "new0" not in found.ids[0]
        assert found.ids[0][0] is not None


def test_each_change_is_read_once_however_often_facts_are_asked_for() -> None:
    known = Known()
    known.facts.of(known.index.snapshot())
    for name in ("new0", "new1", "new2"):
        known.change("add", name, {"category": "news", "tags": []})
        facts = known.facts.of(known.index.snapshot())
    assert sum(len(overlay.rows) for overlay in facts.posterior.overlays) == 3
    assert facts.posterior is known.facts.of(known.index.snapshot()).posterior, "nothing new, nothing made"


def test_what_is_known_of_ids_can_be_asked_for_by_id() -> None:
    known = Known()
    known.change("refresh", "new3", (2, 3))
    found = known.facts.posterior_of(["new3", "i1", "nobody"])
    assert found.exposures.tolist() == [2, 1, 0]
    assert found.first_exposed_ms.tolist() == [NOW_MS - 3 * HOUR_MS, NOW_MS - 2 * HOUR_MS, NEVER]
    assert found.smoothed_ctr[2] == NEW_CTR
