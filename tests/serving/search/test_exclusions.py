"""Rows of the catalogue are found in every index, whatever became of it since."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pytest

from recall.core.errors import DataError
from recall.core.ragged import Ragged
from recall.index import Index, LivingSnapshot, build_index
from recall.serving.search.exclusions import CatalogueRows, excluded_by_position, excluded_ids, excluded_rows

IDS = [f"i{row}" for row in range(8)]
VECTORS = np.random.default_rng(1).normal(size=(8, 4)).astype(np.float32)
CATALOGUE = np.array(IDS, object)
LISTS = Ragged.from_lists([[0, 3, 7], [], [6, 2]])  # of three queries


def index_of(order: list[int]) -> Index:
    return build_index([IDS[row] for row in order], VECTORS[order])


def ids_in(index: Index, *, ids: dict[int, list[str]] | None = None) -> list[set[str]]:
    rows = excluded_rows(index, seen=LISTS, ids=ids or {}, catalogue=CatalogueRows(CATALOGUE), queries=3)
    return [set(index.names[own]) for own in rows]


@pytest.mark.parametrize("order", [[*range(8)], [7, 5, 3, 1, 0, 2, 4, 6]], ids=["the same rows", "others"])
def test_seen_items_are_found_by_id_in_an_index_of_any_order(order: list[int]) -> None:
    assert ids_in(index_of(order)) == [{"i0", "i3", "i7"}, set(), {"i6", "i2"}]


def test_items_that_the_index_lacks_are_passed_over() -> None:
    index = index_of([3, 2, 1])
    assert ids_in(index) == [{"i3"}, set(), {"i2"}]
    assert ids_in(index, ids={0: ["i1", "gone"], 1: ["i2"]}) == [{"i3", "i1"}, {"i2"}, {"i2"}]


def test_an_item_that_came_back_after_the_base_was_built_is_found() -> None:
    catalogue, base = CatalogueRows(CATALOGUE), index_of([0, 1, 2, 3, 4, 5, 6])
    before = LivingSnapshot.over(base)
    after = before.upserted(["later", "i7"], np.stack([VECTORS[0], VECTORS[7]])[:, np.newaxis])
    for snapshot, expected in ((before, {"i0", "i3"}), (after, {"i0", "i3", "i7"}), (before, {"i0", "i3"})):
        rows = catalogue.rows_in(snapshot, LISTS)
        assert set(snapshot.names[rows[0]]) == expected
        assert rows.values.max() < snapshot.row_count


def test_further_exclusions_are_joined_by_position() -> None:
    assert excluded_by_position(None, ["u", "v"], {}) == {}
    assert excluded_by_position(["a"], ["u", "v"], {1: ["b"], 0: []}) == {
        0: ["a"],
        1: ["a", "b"],
    }
    assert excluded_by_position({"v": ["c"]}, ["u", "v"], {}) == {1: ["c"]}


def test_exclusions_are_for_all_or_by_name() -> None:
    assert excluded_ids(["a", "b"], ["u", "v"]) == [["a", "b"], ["a", "b"]]
    assert excluded_ids({"v": [1, 2], "somebody else": ["c"]}, ["u", "v"]) == [[], ["1", "2"]]
    with pytest.raises(DataError, match=r"exclude\['u'\]: expected a list of ids"):
        excluded_ids({"u": "a"}, ["u"])


def test_a_list_of_many_queries_is_looked_up_once() -> None:
    index, looks = index_of([*range(8)]), list[str]()
    rows_there = index.rows_there

    def noting(ids: Iterable[str]) -> npt.NDArray[np.int32]:
        looks.extend(ids)
        return rows_there(ids)

    index.rows_there = noting  # type: ignore[method-assign]
    names = [f"u{number}" for number in range(50)]
    unwanted = ["i2", "i0", "gone"]
    for exclude in (unwanted, dict.fromkeys(names, unwanted)):
        looks.clear()
        found = excluded_rows(
            index,
            seen=None,
            ids=excluded_by_position(exclude, names, {}),
            more_ids=[{3: ["i1"]}],
            catalogue=CatalogueRows(CATALOGUE),
            queries=len(names),
        )
        assert looks == [*unwanted, "i1"]
        assert [own.tolist() for own in found] == [[0, 1, 2] if query == 3 else [0, 2] for query in range(len(names))]
