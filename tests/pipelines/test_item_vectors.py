"""Item vectors as a Beam job: what one process or a Dask cluster of two makes is what `recall vectors` makes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.item_vectors import encode_catalogue, main
from recall.config.experiment import Config
from recall.core.errors import ArtifactError, ConfigError
from recall.model.vector_table import ItemVectorTable
from recall.runs.run import Run
from tests.conftest import Experiment
from tests.helpers.finished_run import WITH_ITEM_CODES


@pytest.fixture(scope="module")
def made(finish: Callable[[Config], Path], experiment: Experiment) -> Path:
    """A run whose vectors `recall vectors` made: several vectors per item, and weighed modalities."""
    return finish(experiment(*WITH_ITEM_CODES))


@pytest.fixture
def trained(made: Path, tmp_path: Path) -> Path:
    """The same run without vectors."""
    return Path(shutil.copytree(made, tmp_path / "run", ignore=shutil.ignore_patterns("vectors")))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    distributed = pytest.importorskip("distributed", reason="pip install 'recall-towers[dask]'")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs="CRITICAL"
    ) as running:
        yield running


def assert_same(found: Path, expected: Path) -> None:
    """Same files, schema, order and manifest, and the same numbers but for the last bits."""
    [name] = [path.name for path in (expected / "vectors").glob("*.parquet")]
    tables = [pq.read_table(run / "vectors" / name) for run in (found, expected)]
    assert tables[0].schema == tables[1].schema
    assert {"code_vectors", "modality_weights"} < set(tables[0].column_names)
    a, b = (ItemVectorTable.read(run / "vectors") for run in (found, expected))
    assert a.ids == b.ids
    assert (a.fingerprint, list(a.modality_weights)) == (b.fingerprint, list(b.modality_weights))
    np.testing.assert_array_equal(a.exposures, b.exposures)
    np.testing.assert_allclose(a.vectors, b.vectors, atol=1e-6)
    np.testing.assert_allclose(a.behaviour_share, b.behaviour_share, atol=1e-6)
    for modality, weights in a.modality_weights.items():
        np.testing.assert_allclose(weights, b.modality_weights[modality], atol=1e-6)
    manifests = [json.loads((run / "vectors" / "_manifest.json").read_text()) for run in (found, expected)]
    assert manifests[0].keys() == manifests[1].keys()
    assert manifests[0]["files"].keys() == manifests[1]["files"].keys()


def test_the_job_makes_what_the_command_makes_and_the_run_takes_it_as_done(trained: Path, made: Path) -> None:
    manifest = encode_catalogue(trained, batch_size=40)  # 150 items
    assert manifest["items"] == len(ItemVectorTable.read(made / "vectors").ids)
    assert_same(trained, made)
    assert [path.name for path in trained.iterdir() if path.name.startswith(".vectors")] == []
    written = next((trained / "vectors").glob("*.parquet")).stat().st_mtime_ns
    Run.open(trained).vectors()
    assert next((trained / "vectors").glob("*.parquet")).stat().st_mtime_ns == written


def test_two_dask_workers_make_the_same(trained: Path, made: Path, cluster: Any) -> None:
    flags = ["--runner=DaskRunner", f"--dask_client_address={cluster.scheduler_address}"]
    encode_catalogue(trained, batch_size=40, options=PipelineOptions(flags))
    assert_same(trained, made)
    distributed = pytest.importorskip("distributed")
    with distributed.Client(cluster.scheduler_address, set_as_default=False) as client:
        loaded = client.run(lambda: "tensorflow" in __import__("sys").modules)
    assert list(loaded.values()) == [True, True], "both workers had a part"


def test_a_run_without_a_model_says_how_to_make_it(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(trained / "model")
    assert main(["--run", str(trained)]) == 1
    assert "recall train --run" in capsys.readouterr().err
    with pytest.raises(ArtifactError, match="holds no run"):
        encode_catalogue(tmp_path / "nothing")


def test_a_batch_without_items_is_refused(trained: Path) -> None:
    with pytest.raises(ConfigError, match="batch size: expected at least 1, found 0"):
        encode_catalogue(trained, batch_size=0)
