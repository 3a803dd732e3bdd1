"""Sequences: the shared Amazon Beauty, and small files under the published names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recall.core.errors import DataError
from recall.data.datasets import read_sequences


def write(folder: Path, lines: str, attributes: object, *, name: str = "Beauty") -> Path:
    (folder / f"{name}.txt").write_text(lines)
    (folder / f"{name}_item2attributes.json").write_text(json.dumps(attributes))
    return folder


@pytest.mark.slow
def test_beauty_has_the_counts_that_its_readme_gives_and_keeps_every_order(shared_data: Path) -> None:
    data = read_sequences(shared_data / "amazon-beauty")
    assert data.events.num_rows == 198_502
    assert data.items.num_rows == 12_101
    rebuilt: dict[str, list[str]] = {}
    for event in data.events.to_pylist():
        assert event["position"] == len(rebuilt.setdefault(event["user_id"], []))
        rebuilt[event["user_id"]].append(event["item_id"])
    lines = (shared_data / "amazon-beauty" / "sequences.txt").read_text().splitlines()
    assert [[user, *items] for user, items in rebuilt.items()] == [line.split() for line in lines]


def test_items_without_attributes_stay_in_the_catalogue(tmp_path: Path) -> None:
    items = read_sequences(write(tmp_path, "1 7 8\n2 9\n", {"8": [3, 4], "6": []})).items.to_pylist()
    assert items == [
        {"item_id": "8", "attributes": ["3", "4"]},
        {"item_id": "6", "attributes": []},
        {"item_id": "7", "attributes": None},
        {"item_id": "9", "attributes": None},
    ]


def test_one_of_several_data_sets_is_chosen_by_name(tmp_path: Path) -> None:
    write(tmp_path, "1 7\n", {})
    write(tmp_path, "1 8\n", {}, name="Yelp")
    assert read_sequences(tmp_path, name="Yelp").events["item_id"].to_pylist() == ["8"]
    with pytest.raises(DataError, match="Beauty, Yelp; choose one with `name`"):
        read_sequences(tmp_path)


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("1 7\n2\n", "line 2: expected `user item item ...`, found '2'"),
        ("1 7\n\n", "line 2: expected"),
        ("1 7\n1 8\n", "line 2: user 1 has line 1 already"),
        ("", "is empty"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, lines: str, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        read_sequences(write(tmp_path, lines, {}))


def test_attributes_that_are_no_lists_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected a mapping of items to lists"):
        read_sequences(write(tmp_path, "1 7\n", {"7": 3}))


def test_a_folder_without_the_files_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected NAME\.txt and NAME_item2attributes\.json"):
        read_sequences(tmp_path)
    (tmp_path / "sequences.txt").write_text("1 7\n")
    with pytest.raises(DataError, match=r"expected item_attributes\.json"):
        read_sequences(tmp_path)
