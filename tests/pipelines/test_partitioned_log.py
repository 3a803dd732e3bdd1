"""A log in folders called `column=value`: prepared from a folder or a URI, it is the log in one file."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.storage import plan_log
from pipelines.training_data import prepare
from recall.config.data import EventsConfig
from recall.core.errors import DataError
from recall.data.events import Piece, plan_pieces, read_rows
from recall.data.prepared import PreparedData
from tests.conftest import Experiment
from tests.helpers import shared_files
from tests.helpers.made_once import MakeOnce

COLUMNS = {"user": "u", "item": "i", "time": "dt", "time_unit": "iso", "click": "click"}


@pytest.fixture(scope="module")
def partitioned(community: Path, made_once: MakeOnce) -> Path:
    """The community's log in folders by click and by a part of the users, with what Spark leaves beside the files."""

    def make(folder: Path) -> None:
        events = pq.read_table(community / "events.parquet")
        events = events.append_column("bucket", pa.array([user % 3 for user in range(len(events))]))
        pq.write_to_dataset(events, folder, partition_cols=["is_click", "bucket"])
        (folder / "_SUCCESS").touch()

    return made_once("partitioned", "", make)


@pytest.mark.parametrize("form", ["{}", "{}/is_click=*/", "shared:/{}/", "shared:/{}/is_click=*/bucket=*/*.parquet"])
def test_a_partitioned_log_gives_the_data_of_one_file(
    experiment: Experiment, partitioned: Path, prepared: PreparedData, tmp_path: Path, form: str
) -> None:
    assert shared_files.PREFIX == "shared:/"
    prepare(experiment(f"data.events.path={form.format(partitioned)}"), tmp_path / "data")
    expected = sorted(path for path in prepared.directory.glob("*.tfrecord"))
    assert expected
    for path in (*expected, prepared.directory / "posterior.parquet", prepared.directory / "histories.parquet"):
        assert (tmp_path / "data" / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_the_time_may_be_the_day_of_the_folder(tmp_path: Path, ending: str) -> None:
    for day, item in (("2024-02-01", 7), ("2024-01-31", 8)):
        path = tmp_path / f"dt={day}" / f"part.{ending}"
        path.parent.mkdir()
        if ending == "parquet":
            pq.write_table(pa.table({"u": [1], "i": [item], "click": [True]}), path)
        else:
            path.write_text(f"u,i,click\n1,{item},1\n" if ending == "csv" else f'{{"u":1,"i":{item},"click":1}}\n')
    log = EventsConfig.model_validate({"path": str(tmp_path), **COLUMNS})
    read = [read_rows(piece, log).accepted for piece in plan_pieces(log)]
    rows = [(row["item"], row["time_ms"]) for table in read for row in table.to_pylist()]
    assert rows == [("8", 1_706_659_200_000), ("7", 1_706_745_600_000)]  # 2024-01-31 and 2024-02-01 UTC


def test_a_missing_value_of_a_folder_is_a_missing_value_of_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "dt=__HIVE_DEFAULT_PARTITION__" / "part.csv"
    path.parent.mkdir()
    path.write_text("u,i,click\n1,7,1\n")
    log = EventsConfig.model_validate({"path": str(tmp_path), **COLUMNS})
    assert read_rows(Piece(str(path)), log).rejected["reason"].to_pylist() == ["time is missing"]


def test_a_column_that_neither_file_nor_folder_has_is_an_error_that_lists_both(tmp_path: Path) -> None:
    path = tmp_path / "day=2024-01-31" / "part.csv"
    path.parent.mkdir()
    path.write_text("u,i,click\n1,7,1\n")
    log = EventsConfig.model_validate({"path": str(tmp_path), **COLUMNS})
    with pytest.raises(DataError, match=r"data\.events\.time: .* has no column dt; its columns are u, i, click, day"):
        plan_log(log)
