"""The content benchmark: its sweep makes valid experiments, its tables say what the results say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.content.tables import consistency_table, index_table, latency_table
from benchmarks.quality.data import DataFolder, DataSet
from benchmarks.quality.results import Results, write_result
from benchmarks.quality.sweep import PlannedRun, Sweep, load_sweep
from recall.config.experiment import Config, load_config
from tests.conftest import Experiment

SWEEP = Path(__file__).resolve().parents[2] / "benchmarks" / "content" / "sweep.yaml"


@pytest.fixture(scope="module")
def sweep() -> Sweep:
    return load_sweep(SWEEP)


def test_every_experiment_is_possible_on_its_data(sweep: Sweep) -> None:
    for run in sweep.plan(seeds=[1]):
        config = load_config(sweep.data[run.data].config, sweep.overrides(run.experiment, run.data))
        assert config.model.structure == "gated"
        assert (config.model.student is not None) == (sweep.experiments[run.experiment].asked == "student")


def test_references_run_wherever_they_are_compared_with(sweep: Sweep) -> None:
    for name, group in sweep.groups.items():
        for data in group.data:
            assert group.reference in sweep.members(name, data)


# Tables


def result(folder: Path, experiment: str, data: str, *, seed: int, **content: Any) -> None:
    write_result(PlannedRun(experiment, data, seed), content, folder)


def test_consistency_is_the_mean_over_seeds(sweep: Sweep, tmp_path: Path) -> None:
    for seed, value in ((1, 0.5), (2, 0.7)):
        ecology = {"ecology": {"category_consistency@100": value}}
        result(tmp_path, "gated", "demo-cold20", seed=seed, metrics={"test": {"gated": ecology}})
    table = consistency_table(sweep, Results(tmp_path), "category")
    assert "| as configured | 0.6000 | – |" in table
    assert "category head" not in table


def test_index_size_counts_every_vector(sweep: Sweep, tmp_path: Path) -> None:
    result(tmp_path, "codes_4", "demo-cold20", seed=1, index={"entries": 12_000, "width": 129})
    # 12,000 vectors of 129 floats of 4 bytes are 6.192 MB.
    assert "| 4 codes, all in the index | 12,000, 6.19 | – |" in index_table(sweep, Results(tmp_path), "item_codes")


def test_latency_gives_both_and_their_ratio(tmp_path: Path) -> None:
    times = {"1": {"teacher": 4.0, "student": 1.0}, "256": {"teacher": 50.0, "student": 10.0}}
    (tmp_path / "latency.json").write_text(json.dumps({"measured": {"demo": {"transformer, mean": times}}}))
    table = latency_table(tmp_path / "latency.json")
    assert "| demo: transformer, mean | 4.00 / 1.00 (0.25) | 50.00 / 10.00 (0.20) |" in table


# Taught vectors


@pytest.fixture
def folder(community: Path, tmp_path: Path) -> DataFolder:
    """A folder whose data set is the community, taught for a moment."""
    for name in ("events.parquet", "items.parquet", "users.parquet"):
        (tmp_path / name).symlink_to(community / name)
    text = (community / "experiment.yaml").read_text()
    teaching = "content: {training: {epochs: 1, epoch_steps: 2, batch_size: 32}, clusters: []}\n"
    (tmp_path / "experiment.yaml").write_text(text + teaching)
    return DataFolder(tmp_path / "out", {"community": DataSet(config=tmp_path / "experiment.yaml")})


def names(config: Config) -> list[str]:
    return [feature.name for feature in config.features.meta]


def test_taught_vectors_come_beside_instead_or_first(folder: DataFolder, experiment: Experiment) -> None:
    config = folder.config("community")
    beside = folder.with_taught_vectors("community", config, how="beside")
    instead = folder.with_taught_vectors("community", config, how="instead")
    first = folder.with_taught_vectors("community", config, how="first")
    assert names(beside) == [*names(config), "taught"]
    assert names(instead) == [name for name in names(config) if name != "text"] + ["taught"]
    assert names(first) == names(config)
    given = beside.features.meta[-1].path  # type: ignore[union-attr]
    assert [stage.name for stage in first.training.stages] == ["content", "clicks"]
    assert first.training.stages[0].initialise is not None
    assert first.training.stages[0].initialise.path == given
    prepared = folder.prepare("community", beside)
    vectors = np.load(given)
    assert len(vectors) == len(prepared.item_ids)
    for taught, vector in zip(prepared.items["taught"].to_pylist(), vectors, strict=True):
        # An item without a text has nothing that could be taught.
        np.testing.assert_allclose(taught if taught else np.zeros_like(vector), vector, atol=1e-6)
