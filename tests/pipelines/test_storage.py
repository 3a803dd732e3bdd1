"""Where a pipeline's files lie: the same promises from a folder and from another file system; and what gets lost."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.exchange import Scratch
from pipelines.further_histories import plan_sources
from pipelines.running import running
from pipelines.storage import LocalStorage, plan_log
from pipelines.summaries import LogSummary, require_all_read
from pipelines.training_data import prepare
from pipelines.transforms import collect_events
from recall.config.experiment import Config, load_config
from recall.core.errors import ConfigError, DataError
from tests.conftest import Experiment
from tests.helpers import shared_files

TABLE = pa.table({"number": [1, 2, 3]})


@pytest.fixture(params=["folder", "uri"])
def scratch(request: pytest.FixtureRequest, tmp_path: Path) -> Scratch:
    place = str(tmp_path / "scratch")
    scratch = Scratch(place if request.param == "folder" else shared_files.PREFIX + place)
    scratch.storage.make()
    return scratch


def test_tables_come_back_by_name_and_in_the_order_of_their_keys(scratch: Scratch) -> None:
    for key in (10, 2, 100_000):
        scratch.write("rows", key, TABLE.append_column("key", pa.array([key] * 3)))
    scratch.write("rows.of.another", 1, TABLE)
    assert [table["key"][0].as_py() for table in scratch.read_all("rows")] == [2, 10, 100_000]
    assert scratch.read("rows.of.another", 1).equals(TABLE)
    assert scratch.exists("rows", 10)
    assert not scratch.exists("rows", 1)


def test_a_table_written_again_replaces_the_first(scratch: Scratch) -> None:
    scratch.write("rows", 1, TABLE)
    scratch.write("rows", 1, TABLE.slice(1))
    assert scratch.read_all("rows") == [TABLE.slice(1)]


def test_a_file_whose_writing_fails_is_not_there(scratch: Scratch, tmp_path: Path) -> None:
    def write_half() -> None:
        with scratch.storage.writing("shard") as stream:
            stream.write(b"half")
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        write_half()
    assert not scratch.storage.exists("shard")
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_file_is_fetched_as_it_was_written_and_nothing_remains(scratch: Scratch, tmp_path: Path) -> None:
    with scratch.storage.writing("shard.gz") as stream:  # a name that is no reason to unpack or pack
        stream.write(b"bytes")
    scratch.storage.fetch("shard.gz", tmp_path / "here")
    assert (tmp_path / "here").read_bytes() == b"bytes"
    scratch.storage.remove()
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_a_worker_that_does_not_see_the_folder_says_so(tmp_path: Path) -> None:
    folder = LocalStorage(tmp_path / "mounted elsewhere")
    with pytest.raises(DataError, match="does not see this folder; give an --out in a folder that all workers mount"):
        Scratch(str(folder.folder)).write("rows", 1, TABLE)


def test_a_file_system_that_beam_does_not_know_is_one_clear_error(experiment: Experiment, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere://x/scratch.*: Beam knows no file system for nowhere://"):
        prepare(experiment(), tmp_path / "data", scratch="nowhere://x")
    with pytest.raises(DataError, match=r"nowhere://log\*.csv: Beam knows no file system"):
        prepare(experiment("data.events.path=nowhere://log*.csv"), tmp_path / "data")
    assert list(tmp_path.iterdir()) == []


def test_a_uri_that_matches_nothing_is_one_clear_error(experiment: Experiment, tmp_path: Path) -> None:
    events = experiment(f"data.events.path=shared:/{tmp_path}/*.csv").data.events
    with pytest.raises(DataError, match=r"data.events.path: shared://.*\*.csv: matches no file"):
        plan_log(events)


def test_only_logs_may_be_uris(community: Path) -> None:
    with pytest.raises(ConfigError, match=r"data.items.path: expected a local path; only logs .* can be read by URI"):
        load_config(community / "experiment.yaml", ["data.items.path=gs://bucket/items.csv"])


@pytest.mark.parametrize("lost", ["read", "summary", "buckets"])
def test_what_the_workers_lose_is_noticed(experiment: Experiment, tmp_path: Path, lost: str) -> None:
    config: Config = experiment()
    scratch, pieces = Scratch(str(tmp_path)), plan_sources(config.data)
    with running(PipelineOptions([])) as pipeline:
        collect_events(pipeline, pieces, data=config.data, scratch=scratch, partitions=4)

    def check() -> None:
        summary = LogSummary.read(scratch, config.data.split)
        require_all_read(scratch, summary, pieces=len(pieces), clock=True)

    check()
    next(tmp_path.glob(f"{lost}-*.arrow")).unlink()
    with pytest.raises(DataError, match=r"the workers lost data: .* of .*; do all of them reach"):
        check()


def test_a_scratch_folder_elsewhere_changes_nothing_and_stays_empty(experiment: Experiment, tmp_path: Path) -> None:
    prepare(experiment(), tmp_path / "data", scratch=str(tmp_path / "mounted" / "by all"))
    assert list((tmp_path / "mounted" / "by all").iterdir()) == []
    prepare(experiment(), tmp_path / "usual")
    for path in (tmp_path / "usual").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "data" / path.relative_to(tmp_path / "usual")).read_bytes(), path
