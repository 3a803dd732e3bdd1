"""Predicates that repeat are evaluated once, and changes of attributes are seen at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from recall.serving.search.filters import Filters, Predicate
from tests.helpers.served_items import NOW_MS, Catalogue

CATALOGUE = Catalogue(300)
FRAME = CATALOGUE.frame


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note each evaluation of a predicate."""
    noted = list[str]()
    mask = Predicate.mask

    def noting(self: Predicate, *args: object, **keywords: str) -> object:
        noted.append(keywords["what"])
        return mask(self, *args, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(Predicate, "mask", noting)
    return noted


def allowed(filters: Filters, catalogue: Catalogue, now_ms: int = NOW_MS) -> list[bool]:
    mask = filters.allowed(catalogue.facts.of(catalogue.index()), now_ms=now_ms).mask
    assert mask is not None
    return mask.tolist()


def test_equal_predicates_are_evaluated_once_and_not_again_for_the_next_request(looks: list[str]) -> None:
    catalogue, index = CATALOGUE, CATALOGUE.index()
    where = [{"column": "category", "in": ["news"]}, {"column": "tags", "in": ["red", "blue"]}]
    filters = Filters.read({"where": where * 500})
    for _ in range(2):
        found = filters.allowed(catalogue.facts.of(index), now_ms=NOW_MS).mask
        assert found is not None
        has_tag = FRAME.tags.map(lambda own: bool({"red", "blue"} & set(own)))
        assert found.tolist() == ((FRAME.category == "news") & has_tag).tolist()
        assert looks == ["filters.where[0]", "filters.where[1]"]
        found[:] = False  # a caller's mask is its own


def test_ages_are_counted_anew_for_each_moment() -> None:
    filters = Filters.read({"where": [{"column": "category", "in": ["news"]}, {"newer_than_hours": 24}]})
    now, later = (allowed(filters, CATALOGUE, NOW_MS + hours * 3_600_000) for hours in (0, 12))
    for found, hours in ((now, 24), (later, 12)):
        assert found == ((FRAME.category == "news") & ((FRAME.age_hours < hours) | (FRAME.exposures == 0))).tolist()
    assert now != later


def test_a_change_of_attributes_is_seen_by_the_next_request() -> None:
    catalogue = Catalogue(40)
    index = catalogue.index()
    news = Filters.read({"where": [{"column": "category", "in": ["news"]}]})
    facts: Callable[[], np.ndarray] = lambda: news.allowed(catalogue.facts.of(index), now_ms=NOW_MS).mask  # noqa: E731
    before = facts()
    for value in ("sport", "news"):
        catalogue.facts.apply([catalogue.facts.checked(["i3"], rows=[{"category": value}])])
        assert bool(facts()[3]) is (value == "news")
    assert np.delete(facts(), 3).tolist() == np.delete(before, 3).tolist()
