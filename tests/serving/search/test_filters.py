"""Filters mean what they say: masks agree with conditions written in pandas."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from recall.core.errors import ArtifactError, DataError
from recall.data.item_attributes import ItemAttributes
from recall.data.posterior import Posterior
from recall.index import ExactIndex
from recall.index.items import Items
from recall.serving.items.facts import ItemFacts
from recall.serving.items.posterior import ServedPosterior
from recall.serving.search.filters import Filters, Predicate
from tests.helpers.served_items import NOW_MS, Catalogue

CATALOGUE = Catalogue()
FRAME = CATALOGUE.frame
INDEX = CATALOGUE.index()


def mask(filters: dict[str, Any], *, catalogue: Catalogue = CATALOGUE) -> list[bool]:
    known = catalogue.facts.of(INDEX if catalogue is CATALOGUE else catalogue.index())
    found = Filters.read(filters).allowed(known, now_ms=NOW_MS).mask
    assert found is not None
    return found.tolist()


def has(*tags: str) -> Callable[[list[str]], bool]:
    return lambda own: bool(set(own) & set(tags))


@pytest.mark.parametrize(
    ("predicate", "expected"),
    [
        ({"column": "category", "in": ["news", "art", "nothing"]}, FRAME.category.isin(["news", "art"])),
        ({"column": "category", "not_in": ["news"]}, FRAME.category != "news"),  # items without one among them
        ({"column": "tags", "in": ["red", "blue"]}, FRAME.tags.map(has("red", "blue"))),
        ({"column": "tags", "not_in": ["red", "blue"]}, ~FRAME.tags.map(has("red", "blue"))),
        ({"column": "seconds", "at_least": 20, "at_most": 40.5}, FRAME.seconds.astype(float).between(20, 40.5)),
        ({"column": "seconds", "in": [7, 8.0, "9"]}, FRAME.seconds.astype(float).isin([7, 8, 9])),
        ({"column": "published_s", "in": [int(FRAME.published_s["i3"])]}, FRAME.published_s == FRAME.published_s["i3"]),
        (
            {"column": "published_s", "newer_than_hours": 48, "time_unit": "s"},
            FRAME.published_s > NOW_MS / 1000 - 48 * 3600,
        ),
        ({"newer_than_hours": 24}, FRAME.age_hours < 24),  # the age of what was never exposed is 0
    ],
)  # fmt: skip
def test_a_predicate_allows_what_pandas_would(predicate: dict[str, Any], expected: pd.Series) -> None:
    found = mask({"where": [predicate]})
    assert found == expected.tolist()
    assert 0 < sum(found) < len(found), "so that something was asked"


VALUES = pa.table(
    {
        "grade": ["1", "3", "2.5", None],
        "version": ["1.0", "1", "3.0", "True"],
        "is_new": ["true", "false", "true", None],
        "year": [2001, 2003, None, 2003],
        "flag": [True, False, None, True],
    }
)


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        ("grade", [3, 1.0], [0, 1]),
        ("grade", ["3.0", "2.5"], [1, 2]),
        ("grade", ["03", "3.00", "x"], []),
        ("version", ["1.0"], [0]),  # the column holds text: 1 and 1.0 are two values of it
        ("version", [1, 3], [1]),
        ("version", [True], []),
        ("is_new", [True], [0, 2]),
        ("is_new", ["True", "TRUE"], [0, 2]),
        ("year", ["2003.0"], [1, 3]),
        ("year", [2001.0, "2003"], [0, 1, 3]),
        ("flag", [True], [0, 3]),
        ("flag", ["False"], [1]),
    ],
)
def test_a_value_is_found_in_every_form_that_its_column_has(
    column: str, values: list[Any], expected: list[int]
) -> None:
    ids = pa.array([f"i{row}" for row in range(len(VALUES))])
    numbers = np.zeros(len(ids), np.int64)
    known_of = Posterior(numbers, numbers, np.zeros(4, np.float32), np.zeros(4, np.float32))
    posterior = ServedPosterior.at(ids, known_of, at_ms=NOW_MS)
    facts = ItemFacts(ItemAttributes(ids, VALUES), posterior)
    known = facts.of(ExactIndex(Items.checked(ids, CATALOGUE.vectors[:4])))
    allowed, denied = (
        Filters.read({"where": [{"column": column, condition: values}]}).allowed(known, now_ms=NOW_MS).mask
        for condition in ("in", "not_in")
    )
    assert allowed is not None
    assert denied is not None
    assert np.flatnonzero(allowed).tolist() == expected
    assert (allowed ^ denied).all()


@pytest.mark.parametrize("value", [2.0**60, float("nan"), None, "", [], {}, "half \ud83d"])
def test_values_without_an_exact_text_are_refused(value: Any) -> None:
    for filters in ({"deny": [value]}, {"where": [{"column": "category", "in": [value]}]}):
        with pytest.raises(DataError, match="filters: "):
            Filters.read(filters)


def test_conditions_hold_together() -> None:
    where = [{"column": "category", "in": ["news"]}, {"column": "tags", "in": ["red"]}, {"newer_than_hours": 100}]
    allow = CATALOGUE.ids[:150]
    found = mask({"allow": allow, "deny": ["i3", "i4"], "where": where})
    expected = (FRAME.category == "news") & FRAME.tags.map(has("red")) & (FRAME.age_hours < 100)
    expected &= FRAME.index.isin(allow) & ~FRAME.index.isin(["i3", "i4"])
    assert found == expected.tolist()
    assert any(found)


def test_an_empty_allow_list_allows_nothing_and_no_filter_has_no_mask() -> None:
    assert not any(mask({"allow": []}))
    assert Filters.read(None).allowed(CATALOGUE.facts.of(INDEX), now_ms=NOW_MS).mask is None


def test_ids_of_no_item_are_passed_over_and_counted() -> None:
    filters = Filters.read({"allow": ["i1", "gone", "i2", "gone"], "deny": ["i2", "lost"]})
    found = filters.allowed(CATALOGUE.facts.of(INDEX), now_ms=NOW_MS)
    assert found.unknown_ids == 2
    assert found.mask is not None
    assert np.flatnonzero(found.mask).tolist() == [1]


def test_items_that_the_facts_lack_have_no_attributes_and_are_new() -> None:
    index = ExactIndex(Items.checked(["later", *CATALOGUE.ids], np.vstack([CATALOGUE.vectors[:1], CATALOGUE.vectors])))
    known = CATALOGUE.facts.of(index)
    expected = {
        '{"column": "category", "in": ["news"]}': False,
        '{"column": "category", "not_in": ["news"]}': True,
        '{"column": "tags", "not_in": ["red"]}': True,
        '{"column": "seconds", "at_most": 1000}': False,
        '{"newer_than_hours": 0.1}': True,
    }
    for predicate, is_allowed in expected.items():
        found = Filters.read({"where": [json.loads(predicate)]}).allowed(known, now_ms=NOW_MS).mask
        assert found is not None
        assert bool(found[0]) is is_allowed, predicate
        assert found[1:].tolist() == mask({"where": [json.loads(predicate)]})
    assert known.is_cold[0]


def test_attributes_that_are_added_later_count_at_once() -> None:
    catalogue = Catalogue(20)
    index = ExactIndex(Items.checked([*catalogue.ids, "new"], np.vstack([catalogue.vectors, catalogue.vectors[:1]])))
    news = Filters.read({"where": [{"column": "category", "in": ["news"]}]})
    before = news.allowed(catalogue.facts.of(index), now_ms=NOW_MS).mask
    rows = [{"category": "news"}, {"category": "sport"}]
    catalogue.facts.apply([catalogue.facts.checked(["new", "i0"], rows=rows)])
    after = news.allowed(catalogue.facts.of(index), now_ms=NOW_MS).mask
    assert before is not None
    assert after is not None
    assert (bool(before[-1]), bool(after[-1]), bool(after[0])) == (False, True, False)
    assert after[1:-1].tolist() == before[1:-1].tolist()


def test_a_newer_posterior_moves_first_exposures_and_what_is_cold() -> None:
    catalogue = Catalogue(20, cold=1.0)
    index = catalogue.index()
    counts = Posterior(np.array([5]), np.array([1]), np.array([0.3], np.float32), np.array([2], np.float32))
    catalogue.facts.apply([catalogue.facts.checked(["i7"], posterior=counts, at_ms=NOW_MS)])
    known = catalogue.facts.of(index)
    assert np.flatnonzero(~known.is_cold).tolist() == [7]
    found = Filters.read({"where": [{"newer_than_hours": 1}]}).allowed(known, now_ms=NOW_MS).mask
    assert found is not None
    assert np.flatnonzero(~found).tolist() == [7], "two hours old"


@pytest.mark.parametrize(
    ("filters", "problem"),
    [
        ({"alow": ["i1"]}, "filters: alow: unknown key"),
        ({"allow": "i1"}, "filters: allow: "),
        ({"allow": [None]}, r"filters: allow\[0\]: expected text or a number"),
        ({"where": [{"column": "category"}]}, r"where\[0\]: has no condition; give in, not_in, at_least"),
        ({"where": [{"in": ["news"]}]}, r"where\[0\]: has no column"),
        ({"where": [{"column": "seconds", "at_least": "long"}]}, r"where\[0\].at_least: "),
        ({"where": [{"newer_than_hours": -1}]}, r"where\[0\].newer_than_hours: "),
        ({"where": [{"column": "category", "is": "news"}]}, r"where\[0\].is: unknown key"),
        ({"where": [{"column": "colour", "in": ["red"]}]}, r"filters.where\[0\]: items have no attribute colour; they "
                                                           "have category, author, tags, seconds, published_s"),
        ({"where": [{"column": "category", "at_least": 3}]}, "category: at_least and at_most compare numbers, found '"),
        ({"where": [{"column": "tags", "at_most": 3}]}, r"column tags: at_least and at_most compare numbers"),
        ({"where": [{"column": "category", "newer_than_hours": 3}]}, "category: newer_than_hours reads times, found '"),
        ({"where": [{"column": "tags", "newer_than_hours": 3}]}, r"column tags: newer_than_hours reads times"),
    ],
)  # fmt: skip
def test_bad_filters_say_where_and_what(filters: dict[str, Any], problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        mask(filters)


def test_a_log_without_a_clock_has_no_first_exposures() -> None:
    ids, one = pa.array(["a"]), np.ones(1, np.int64)
    posterior = ServedPosterior.at(
        ids, Posterior(one, one, np.ones(1, np.float32), np.zeros(1, np.float32)), at_ms=None
    )
    known = ItemFacts(None, posterior).of(ExactIndex(Items.checked(["a"], np.ones((1, 2)))))
    with pytest.raises(DataError, match="no clock"):
        Filters.read({"where": [{"newer_than_hours": 1}]}).allowed(known, now_ms=NOW_MS)
    with pytest.raises(ArtifactError, match="data/ was written before it kept attributes"):
        Filters.read({"where": [{"column": "x", "in": [1]}]}).allowed(known, now_ms=NOW_MS)
    assert Filters.read({"deny": ["a"]}).allowed(known, now_ms=NOW_MS).mask is not None


def test_filters_come_as_json_or_as_a_file_of_it(tmp_path: Path) -> None:
    text = '{"where": [{"column": "category", "in": ["news"]}], "deny": [12]}'
    (tmp_path / "filters.json").write_text(text)
    expected = Filters(where=(Predicate.model_validate({"column": "category", "in": ("news",)}),), deny=("12",))
    assert Filters.parse(text) == Filters.parse(str(tmp_path / "filters.json")) == expected
    with pytest.raises(DataError, match="not JSON"):
        Filters.parse("{where: ")
    with pytest.raises(DataError, match="expected JSON or a file of it"):
        Filters.parse(str(tmp_path / "missing.json"))


def test_ages_count_from_the_moment_that_the_filters_name() -> None:
    where = [{"newer_than_hours": 24}]
    moved = mask({"where": where, "at_ms": NOW_MS + 1_000 * 3_600_000})
    assert moved == (FRAME.exposures == 0).tolist(), "all others are older by then, and these have no age"
    assert mask({"where": where, "at_ms": NOW_MS}) == mask({"where": where})
    named, moment = Filters.read({"where": where, "at_ms": 7}), Filters.read({"where": where})
    assert (named.as_of(9).at_ms, moment.as_of(9).at_ms, Filters().as_of(9).at_ms) == (7, 9, None)


def published(values: list[Any], kind: pa.DataType) -> Callable[..., list[bool]]:
    """Masks of items with these values in an attribute `at`."""
    ids = [f"i{place}" for place in range(len(values))]
    attributes = ItemAttributes(pa.array(ids), pa.table({"at": pa.array(values, kind)}))
    ones = np.ones(len(ids), np.int64)
    posterior = Posterior(ones, ones, np.ones(len(ids), np.float32), np.zeros(len(ids), np.float32))
    facts = ItemFacts(attributes, ServedPosterior.at(pa.array(ids), posterior, at_ms=NOW_MS))
    known = facts.of(ExactIndex(Items.checked(ids, np.ones((len(ids), 2)))))

    def masked(**predicate: Any) -> list[bool]:
        filters = Filters.read({"where": [{"column": "at", "newer_than_hours": 24, **predicate}]})
        found = filters.allowed(known, now_ms=NOW_MS).mask
        assert found is not None
        return found.tolist()

    return masked


def test_an_items_odd_time_spoils_no_filter_for_the_others() -> None:
    recent, old = "2023-11-14T20:00:00Z", "2023-11-01T20:00:00Z"
    assert NOW_MS == 1_700_000_000_000, "14 November 2023, 22:13:20 UTC"
    masked = published([recent, "now", "today", old, "soon", None, "NaT"], pa.string())
    assert masked(time_unit="iso") == [True] + [False] * 6
    with pytest.raises(DataError, match="reads times, found 'soon', which is none in time_unit: iso"):
        published(["soon", None], pa.string())(time_unit="iso")


def test_times_at_the_ends_of_int64_are_new_and_old() -> None:
    masked = published([2**63 - 1, -(2**63), 0, NOW_MS], pa.int64())
    assert masked() == [True, False, False, True]


def test_times_of_items_without_an_offset_are_of_the_time_zone() -> None:
    masked = published(["2023-11-13T23:00:00"], pa.string())  # 23.2 hours before 22:13:20 UTC
    assert masked(time_unit="iso") == [True]
    assert masked(time_unit="iso", time_zone="Asia/Tokyo") == [False]
    with pytest.raises(DataError, match=r"where\[0\]\.time_zone: expected the IANA name"):
        masked(time_zone="Mars/Olympus")
