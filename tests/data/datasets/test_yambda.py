"""Yambda: listens, feedback and tracks of made-up files under the published names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from recall.core.errors import DataError
from recall.data.datasets import read_yambda
from recall.data.datasets.streams import whole
from tests.helpers.published_sets import ITEMS, publish_yambda


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("yambda")
    publish_yambda(folder)
    return folder


def test_listens_are_the_log_and_the_rest_is_feedback(published: Path) -> None:
    raw = pq.read_table(published / "flat" / "50m" / "multi_event.parquet").to_pandas()
    data = read_yambda(published)
    events, feedback = whole(data.events).to_pandas(), whole(data.extras["feedback"]).to_pandas()
    listens = raw[raw["event_type"] == "listen"]
    assert list(events.columns) == ["user_id", "item_id", "timestamp", "is_organic", "played_ratio_pct"]
    for name, source in (("user_id", "uid"), ("item_id", "item_id"), ("timestamp", "timestamp")):
        assert events[name].tolist() == listens[source].tolist()
    assert events["played_ratio_pct"].tolist() == listens["played_ratio_pct"].tolist()
    assert len(feedback) == len(raw) - len(listens) > 0
    assert feedback["is_like"].tolist() == [1] * len(feedback)


def test_separate_files_give_the_tables_of_the_joint_one(published: Path, tmp_path: Path) -> None:
    raw = pq.read_table(published / "flat" / "50m" / "multi_event.parquet")
    for kind, name in (("listen", "listens"), ("like", "likes")):
        part = raw.filter(pc.equal(raw["event_type"].cast(pa.string()), kind)).drop_columns(["event_type"])
        pq.write_table(part, tmp_path / f"{name}.parquet")
    joint, separate = read_yambda(published), read_yambda(tmp_path)
    assert whole(separate.events).equals(whole(joint.events))
    assert whole(separate.extras["feedback"]).equals(whole(joint.extras["feedback"]))
    assert separate.items["audio"].null_count == len(separate.items)  # no embeddings beside them


def test_tracks_carry_what_is_published_of_them(published: Path) -> None:
    items = read_yambda(published).items
    given = pq.read_table(published / "embeddings.parquet").to_pylist()
    audio = {row["item_id"]: row["normalized_embed"] for row in given}
    assert items["item_id"].to_pylist() == list(range(1, ITEMS + 1))
    for row in items.to_pylist():
        item = row["item_id"]
        assert (row["artist_id"], row["album_id"]) == (item % 6, item % 6)  # track 1 has a second artist, 9
        assert row["track_length_seconds"] == item * 5
        assert row["audio"] == (None if item not in audio else pytest.approx(audio[item]))
    assert items["audio"].null_count == 1


def test_embeddings_and_mappings_of_other_tracks_are_passed_over(tmp_path: Path) -> None:
    publish_yambda(tmp_path)
    path = tmp_path / "flat" / "50m" / "multi_event.parquet"
    raw = pq.read_table(path)
    pq.write_table(raw.filter(pc.less(raw["item_id"], 10)), path)
    items = read_yambda(tmp_path).items
    assert items["item_id"].to_pylist() == list(range(1, 10))
    assert items["artist_id"].to_pylist() == [item % 6 for item in range(1, 10)]
    assert np.array(items["audio"].to_pylist()[1:]).shape == (8, 4)  # track 1 has none


def test_several_sizes_and_missing_columns_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"expected multi_event\.parquet or listens\.parquet of Yambda's flat form; found"
    ):
        read_yambda(tmp_path)
    for size in ("50m", "500m"):
        (tmp_path / "flat" / size).mkdir(parents=True)
        pq.write_table(pa.table({"uid": [1]}), tmp_path / "flat" / size / "listens.parquet")
    with pytest.raises(DataError, match="expected one size of Yambda, found flat/500m, flat/50m"):
        read_yambda(tmp_path)
    with pytest.raises(DataError, match=r"listens\.parquet: has no column timestamp; its columns are uid"):
        read_yambda(tmp_path / "flat" / "50m")
