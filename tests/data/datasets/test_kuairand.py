"""KuaiRand: the shared slice, and small files under the published names."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from recall.core.errors import DataError
from recall.data.datasets import read_kuairand, stream_kuairand
from tests.helpers.published_sets import publish_kuairand

LOG = "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_rand,tab\n"
VIDEOS = (
    "video_id,author_id,video_type,upload_dt,video_duration,tag\n"
    '0,7,NORMAL,2022-04-10,,\n5,8,AD,2022-04-09,90.0,"1,2"\n'
)


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """The layout of KuaiRand-1K: tables in a folder `data`."""
    data = tmp_path / "KuaiRand-1K" / "data"
    data.mkdir(parents=True)
    (data / "log_standard_4_08_to_4_21_1k.csv").write_text(LOG + "3,0,20220408,100,1649376000000,1,0,0,1\n")
    (data / "log_standard_4_22_to_5_08_1k.csv").write_text(LOG + "3,5,20220422,100,1650585600000,0,0,0,1\n")
    (data / "log_random_4_22_to_5_08_1k.csv").write_text(LOG + "4,5,20220423,100,1650672000000,1,0,1,1\n")
    (data / "video_features_basic_1k.csv").write_text(VIDEOS)
    (data / "video_features_statistic_1k.csv").write_text("video_id,counts\n0,1\n")
    (data / "user_features_1k.csv").write_text("user_id,user_active_degree\n3,full_active\n4,\n")
    return tmp_path / "KuaiRand-1K"


def test_shared_slice_has_the_rows_that_its_readme_counts(shared_data: Path) -> None:
    data = read_kuairand(shared_data / "kuairand")
    assert data.events.num_rows == 228_329
    assert pc.sum(data.events["is_click"]).as_py() == 100_900
    assert pc.count_distinct(data.events["user_id"]).as_py() == 25_156
    assert data.items.num_rows == 7_583
    assert data.users is not None
    assert data.users.num_rows == 27_285
    exposed = set(data.events["video_id"].unique().to_pylist())
    assert len(set(data.items["video_id"].to_pylist()) - exposed) == 1_222


def test_logs_are_read_in_order_of_time_and_the_random_one_last(published: Path) -> None:
    data = read_kuairand(published)
    assert data.events["time_ms"].to_pylist() == [1649376000000, 1650585600000, 1650672000000]
    assert data.events["is_click"].to_pylist() == [1, 0, 1]
    assert read_kuairand(published / "data", random_exposures=False).events["is_rand"].to_pylist() == ["0", "0"]


def test_video_table_is_the_basic_one_and_keeps_missing_values_missing(published: Path) -> None:
    items = read_kuairand(published).items
    assert items["tag"].to_pylist() == [None, "1,2"]
    assert items["video_duration"].to_pylist() == [None, "90.0"]
    assert "counts" not in items.column_names


def test_gzipped_tables_are_read_too(published: Path) -> None:
    plain = published / "data" / "user_features_1k.csv"
    with gzip.open(plain.with_name("user_features_1k.csv.gz"), "wt") as stream:
        stream.write(plain.read_text())
    plain.unlink()
    users = read_kuairand(published).users
    assert users is not None
    assert users.to_pylist() == [
        {"user_id": 3, "user_active_degree": "full_active"},
        {"user_id": 4, "user_active_degree": None},
    ]


@pytest.mark.parametrize("name", ["log_standard", "video_features_basic", "user_features"])
def test_a_missing_table_is_named_with_an_example(published: Path, name: str) -> None:
    for path in (published / "data").glob(f"{name}*"):
        path.unlink()
    with pytest.raises(DataError, match=f"expected a file like {name}"):
        read_kuairand(published)


def test_two_sizes_in_one_folder_are_refused(published: Path) -> None:
    (published / "data" / "user_features_pure.csv").write_text("user_id\n1\n")
    with pytest.raises(DataError, match="keep one size"):
        read_kuairand(published)


def test_a_malformed_log_is_an_error_with_file_and_line(published: Path) -> None:
    with (published / "data" / "log_standard_4_22_to_5_08_1k.csv").open("a") as stream:
        stream.write("3,five,20220422,100,1650585600000,0,0,0,1\n")
    with pytest.raises(DataError, match=r"log_standard_4_22_to_5_08_1k\.csv, line 3: video_id is 'five'"):
        read_kuairand(published)


def test_a_log_without_clicks_is_an_error_that_lists_its_columns(published: Path) -> None:
    (published / "data" / "log_random_4_22_to_5_08_1k.csv").write_text("user_id,video_id,time_ms\n1,2,3\n")
    with pytest.raises(DataError, match="has no column is_click; its columns are user_id, video_id, time_ms"):
        read_kuairand(published)


def test_a_log_in_parts_is_read_in_parts_and_in_order(tmp_path: Path) -> None:
    publish_kuairand(tmp_path)
    data = stream_kuairand(tmp_path)
    parts = list(data.events())
    assert len(parts) == 5  # two parts of each period, and the random log
    events = pa.concat_tables(parts)
    assert events["time_ms"].to_pylist()[:-1] == sorted(events["time_ms"].to_pylist()[:-1])
    assert events["is_rand"].to_pylist()[-1] == "1"
    assert events.equals(read_kuairand(tmp_path).events)
    assert "counts" not in data.items.column_names
