"""The training data job through Beam's job API, which is how Flink and Spark are spoken to: pickled, on SDK workers."""

from __future__ import annotations

from pathlib import Path

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.local_job_service import LocalJobServicer

from pipelines.training_data import prepare
from tests.conftest import Experiment


def test_every_file_is_byte_for_byte_that_of_the_local_runner(experiment: Experiment, tmp_path: Path) -> None:
    service = LocalJobServicer(str(tmp_path / "staging"))
    port = service.start_grpc_server(0)
    options = ["--runner=PortableRunner", f"--job_endpoint=localhost:{port}", "--environment_type=LOOPBACK"]
    try:
        prepare(experiment(), tmp_path / "portable", options=PipelineOptions(options))
    finally:
        service.stop()
    prepare(experiment(), tmp_path / "local")
    made = [path.relative_to(tmp_path / "local") for path in (tmp_path / "local").rglob("*") if path.is_file()]
    assert len(made) > 10
    assert [
        name for name in made if (tmp_path / "local" / name).read_bytes() != (tmp_path / "portable" / name).read_bytes()
    ] == []
