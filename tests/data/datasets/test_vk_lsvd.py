"""VK-LSVD: exposures, videos and users of made-up files under the published names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recall.core.errors import DataError
from recall.data.datasets import read_vk_lsvd
from recall.data.datasets.streams import whole
from tests.helpers.published_sets import ITEMS, USERS, publish_vk_lsvd

WEEK_MS = 7 * 24 * 3_600_000


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vk")
    publish_vk_lsvd(folder)
    return folder


def test_rows_keep_the_published_order_and_lie_in_their_week(published: Path) -> None:
    files = sorted((published / "subsamples" / "ur0.01").glob("*/*.parquet"), key=lambda path: path.name)
    raw = pa.concat_tables([pq.read_table(path) for path in files])
    events = whole(read_vk_lsvd(published).events)
    for name in ("user_id", "item_id", "timespent", "place", "agent"):
        assert events[name].to_pylist() == raw[name].to_pylist()
    assert events["like"].to_pylist() == [int(value or 0) for value in raw["like"].to_pylist()]
    times = events["time_ms"].to_numpy()
    assert (np.diff(times) > 0).all()
    weeks = np.repeat(np.arange(5), [pq.read_metadata(path).num_rows for path in files])
    assert (times // WEEK_MS == weeks).all()
    assert times[-1] == 5 * WEEK_MS - 1  # so that the last seven days are the last week, to the row


def test_videos_and_users_of_the_log_are_taken_and_the_others_counted(published: Path) -> None:
    data = read_vk_lsvd(published / "subsamples" / "ur0.01")
    with np.load(published / "metadata" / "item_embeddings.npz") as arrays:
        vectors = dict(zip(arrays["item_id"].tolist(), arrays["embedding"].astype(np.float32).tolist(), strict=True))
    assert data.items["item_id"].to_pylist() == list(range(1, ITEMS + 1))
    assert data.items["author_id"].to_pylist() == [item % 6 for item in range(1, ITEMS + 1)]
    assert data.items["content"].to_pylist() == [vectors.get(item) for item in range(1, ITEMS + 1)]
    assert data.items["content"].null_count == 1
    assert data.users is not None
    assert data.users["user_id"].to_pylist() == list(range(1, USERS + 1))
    assert "train_interactions_rank" not in data.items.column_names
    assert list(data.dropped.values()) == [5, 2]


def test_what_is_not_there_is_one_clear_error(published: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected train/week_00\.parquet of VK-LSVD; found nothing"):
        read_vk_lsvd(tmp_path)
    for name in ("interactions", "subsamples/ur0.1"):
        place = tmp_path / name / "train"
        place.mkdir(parents=True)
        pq.write_table(pa.table({"user_id": [1]}), place / "week_00.parquet")
    with pytest.raises(DataError, match=r"expected one sample of VK-LSVD, found interactions, subsamples/ur0\.1"):
        read_vk_lsvd(tmp_path)
    with pytest.raises(DataError, match=r"expected a folder metadata with users_metadata\.parquet"):
        read_vk_lsvd(tmp_path / "interactions")
