"""The training data job on a Dask cluster of two worker processes: what it makes is what one process makes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.training_data import main, prepare
from recall.core.errors import DataError, RecallError
from recall.data.prepared import PreparedData
from tests.conftest import Experiment

distributed = pytest.importorskip("distributed", reason="dask is absent: pip install 'recall-towers[dask]'")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs="CRITICAL"
    ) as running:
        yield running


def flags(cluster: Any) -> list[str]:
    return ["--runner=DaskRunner", f"--dask_client_address={cluster.scheduler_address}"]


def on(cluster: Any) -> PipelineOptions:
    return PipelineOptions(flags(cluster))


@pytest.fixture(scope="module")
def in_pieces(community: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The community's log in five files, and a sixth of which half the rows name no user."""
    folder = tmp_path_factory.mktemp("pieces")
    log = pq.read_table(community / "events.parquet")
    step = -(-len(log) // 5)
    for number in range(5):
        pq.write_table(log.slice(number * step, step), folder / f"events-{number}.parquet")
    rows = log.slice(0, 40).to_pylist()
    for number, row in enumerate(rows):
        row["user_id"] = row["user_id"] if number % 2 else None
    pq.write_table(log.from_pylist(rows, schema=log.schema), folder / "events-5.parquet")
    return folder


def files(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "settings",
    [
        (),
        ("data.layout=user", "data.split={by: last_click}", "data.shards=2"),
        ("data.histories={again: {column: is_click}}", "data.events.weight=[{column: is_click, weight: 2}]"),
    ],
    ids=["click", "user", "histories"],
)
def test_every_file_is_byte_for_byte_that_of_the_local_runner(
    experiment: Experiment,
    in_pieces: Path,
    cluster: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: tuple[str, ...],
) -> None:
    monkeypatch.setattr("pipelines.training_data._BYTES_PER_PARTITION", 20_000)  # several partitions in each shard
    config = experiment(f"data.events.path={in_pieces}/*.parquet", *settings)
    prepare(config, tmp_path / "local")
    prepare(config, tmp_path / "dask", options=on(cluster))
    expected, found = files(tmp_path / "local"), files(tmp_path / "dask")
    assert found.keys() == expected.keys()
    assert [name for name in found if found[name] != expected[name]] == []
    counts = PreparedData.load(tmp_path / "dask", verify=True).manifest["counts"]
    assert counts["rejected"] == {"user is missing": 20}
    assert counts["duplicates"] == 20


def test_both_workers_read_the_log(experiment: Experiment, in_pieces: Path, cluster: Any, tmp_path: Path) -> None:
    finished: dict[str, int] = Counter()

    class Watch(distributed.SchedulerPlugin):  # type: ignore[misc, name-defined]
        def transition(self, key: Any, start: str, finish: str, *_: Any, **about: Any) -> None:
            if (start, finish) == ("processing", "memory"):
                finished[about["worker"]] += 1

    watch = Watch()
    cluster.scheduler.add_plugin(watch, name="watch")
    try:
        prepare(experiment(f"data.events.path={in_pieces}/*.parquet"), tmp_path / "data", options=on(cluster))
    finally:
        cluster.scheduler.remove_plugin("watch")
    assert set(finished) == set(cluster.scheduler.workers)
    assert min(finished.values()) >= 4  # of six files and three shards


def test_an_error_of_a_worker_is_one_clear_line_and_leaves_nothing(
    experiment: Experiment, in_pieces: Path, cluster: Any, tmp_path: Path
) -> None:
    (tmp_path / "log").mkdir()
    whole = bytearray((in_pieces / "events-1.parquet").read_bytes())
    whole[200:-5000] = bytes(len(whole) - 5200)  # the footer is whole, the columns are not
    (tmp_path / "log" / "events.parquet").write_bytes(whole)
    config = experiment(f"data.events.path={tmp_path}/log/*.parquet")
    with pytest.raises(DataError, match=r"^[^\n]*events.parquet: cannot be read as parquet[^\n]*$"):
        prepare(config, tmp_path / "data", options=on(cluster))
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_the_command_takes_log_and_scratch_from_another_file_system(
    experiment: Experiment, in_pieces: Path, cluster: Any, tmp_path: Path
) -> None:
    from tests.helpers import shared_files

    with distributed.Client(cluster.scheduler_address, set_as_default=False) as client:
        client.run(__import__, shared_files.__name__)  # as a worker of a fleet would have it installed
    config = experiment(f"data.events.path={in_pieces}/*.parquet")
    prepare(config, tmp_path / "local")
    (tmp_path / "bucket").mkdir()
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    command = ["--config", str(tmp_path / "config.yaml"), "--out", str(tmp_path / "run" / "data"), *flags(cluster)]
    command += ["--set", f"data.events.path=shared:/{in_pieces}/*.parquet", "--scratch", f"shared:/{tmp_path}/bucket"]
    assert main(command) == 0
    assert list((tmp_path / "bucket").iterdir()) == []
    expected, found = files(tmp_path / "local"), files(tmp_path / "run" / "data")
    assert found.keys() == expected.keys()
    differ = {name for name in found if found[name] != expected[name]}
    assert differ == {"manifest.json", "rejected.parquet"}  # which name the log's files
    rejected = pq.read_table(tmp_path / "run" / "data" / "rejected.parquet")["file"].to_pylist()
    assert set(rejected) == {f"shared:/{in_pieces}/events-5.parquet"}


def test_a_scheduler_that_does_not_answer_is_one_clear_error(experiment: Experiment, tmp_path: Path) -> None:
    options = PipelineOptions(
        ["--runner=DaskRunner", "--dask_client_address=tcp://127.0.0.1:9", "--dask_connection_timeout=1"]
    )
    with pytest.raises(RecallError, match=r"--dask_client_address tcp://127.0.0.1:9: no Dask scheduler answers"):
        prepare(experiment(), tmp_path / "data", options=options)
    assert list(tmp_path.iterdir()) == []
