"""MicroLens: comments and videos of made-up files under the published names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recall.core.errors import DataError
from recall.data.datasets import read_microlens
from tests.helpers.published_sets import ITEMS, publish_microlens, vectors


@pytest.fixture
def published(tmp_path: Path) -> Path:
    publish_microlens(tmp_path / "MicroLens-100k")
    return tmp_path / "MicroLens-100k"


def test_pairs_are_clicks_in_the_published_order(published: Path) -> None:
    lines = (published / "MicroLens-100k_pairs.csv").read_text().splitlines()[1:]
    events = read_microlens(published).events
    assert events.column_names == ["user_id", "item_id", "time_ms"]
    assert [",".join(map(str, row.values())) for row in events.to_pylist()] == lines


def test_videos_have_titles_categories_and_vectors(published: Path) -> None:
    items = read_microlens(published).items
    assert items["item_id"].to_pylist() == list(range(1, ITEMS + 1))
    assert items["title"].to_pylist()[:3] == ["A title, of 1", "A title, of 2", None]  # commas need no quotes
    assert items["category"].to_pylist()[0] == "Topic 1"
    for name in ("text", "image", "video"):
        assert np.array_equal(np.array(items[name].to_pylist(), np.float32), vectors(ITEMS))
    assert {"likes", "views"}.isdisjoint(items.column_names)


def test_the_small_size_has_a_header_of_titles_and_no_vectors(tmp_path: Path) -> None:
    (tmp_path / "MicroLens-50k_pairs.csv").write_text("userID,videoID,timestamp\n5,2,1583378629552\n")
    (tmp_path / "MicroLens-50k_titles.csv").write_text('item,title\n1,"One, two"\n')
    data = read_microlens(tmp_path)
    assert data.events.to_pylist() == [{"user_id": 5, "item_id": 2, "time_ms": 1583378629552}]
    assert data.items.to_pylist() == [
        {"item_id": 1, "title": "One, two", "category": None},
        {"item_id": 2, "title": None, "category": None},
    ]


def test_vectors_that_do_not_fit_the_titles_are_refused(published: Path) -> None:
    path = published / "extracted_modality_features" / "MicroLens-100k_video_features_VideoMAE.npy"
    np.save(path, vectors(ITEMS - 1))
    with pytest.raises(DataError, match=r"VideoMAE\.npy has 39 rows but the file of titles has 40"):
        read_microlens(published)


def test_what_is_not_there_or_malformed_is_one_clear_error(published: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected a file like MicroLens-100k_pairs\.csv; found MicroLens-100k"):
        read_microlens(tmp_path)
    pairs = published / "MicroLens-100k_pairs.csv"
    pairs.write_text("user,item,timestamp\n1,x,3\n")
    with pytest.raises(DataError, match=r"MicroLens-100k_pairs\.csv, line 2: item is 'x'; expected a number"):
        read_microlens(published)
    pairs.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="expected the header user,item,timestamp; found 'a,b'"):
        read_microlens(published)
    (published / "MicroLens-50k_pairs.csv").write_text("user,item,timestamp\n1,2,3\n")
    with pytest.raises(DataError, match="keep one size"):
        read_microlens(published)
