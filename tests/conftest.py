"""Fixtures that every test may use: the real data sets, and a small simulated community, prepared once per session."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

import pytest

from recall.config.experiment import Config, load_config
from recall.data.prepared import PreparedData

pytest_plugins = (
    "tests.helpers.accounts",
    "tests.helpers.finished_run",
    "tests.helpers.living_oracle",
    "tests.helpers.served_run",
    "tests.helpers.untrained_models",
)
# Helpers that tests import: a comparison that fails there shows both sides, as in a test.
pytest.register_assert_rewrite("tests.helpers")

EXPERIMENT = """\
data:
  events: {path: events.parquet, user: user_id, item: item_id, time: time_ms, time_unit: ms, click: is_click}
  items: {path: items.parquet, id: item_id, title: title}
  users: {path: users.parquet, id: user_id}
  history: 8
  posterior: {bucket: 1h, delay: 1h}
  trigger: {window: 12h}
  shards: 3
features:
  user:
    - {name: user_id, type: id, min_count: 3}
    - {name: age_band, type: category}
  behaviour:
    - {name: item_id, type: id}
    - {name: author_id, type: id}
  meta:
    - {name: tags, type: tags}
    - {name: category, type: category}
    - {name: duration_s, type: number, log: true}
    - {name: text, type: embedding, clusters: [4, 8]}
model: {dim: 8, hidden: [16], transformer: {layers: 1, heads: 2}, loss: {uniform_negatives: 32}}
training: {epochs: 2, batch_size: 128, learning_rate: 0.01}
evaluation: {k: [5, 10, 50]}
"""


class Experiment(Protocol):
    """Makes a validated experiment on the simulated community."""

    def __call__(self, *overrides: str) -> Config:
        """`overrides` are `dotted.key=value` pairs as after `--set`."""


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with the real data sets; the test is skipped, saying so, where it is absent."""
    default = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"
    folder = Path(os.environ.get("RECALL_SHARED_DATA", default)).resolve()
    if not folder.is_dir():
        pytest.skip(f"real data sets are not at {folder}; set RECALL_SHARED_DATA")
    return folder


@pytest.fixture(scope="session")
def community(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with events, items and users (.parquet) of four simulated days, and experiment.yaml for them.

    Shared by all tests: one that changes a file copies the folder first.
    """
    from recall.data.datasets import simulate

    folder = tmp_path_factory.mktemp("community")
    simulate(users=120, items=150, days=4, authors=30, topics=8, exposures=8_000).write(folder)
    (folder / "experiment.yaml").write_text(EXPERIMENT)
    return folder


@pytest.fixture(scope="session")
def experiment(community: Path) -> Experiment:
    """Factory of experiments on the community: `experiment("model.query=both")`; two epochs, eight dimensions."""
    return lambda *overrides: load_config(community / "experiment.yaml", overrides)


@pytest.fixture(scope="session")
def prepared(experiment: Experiment, tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """Training data of the community, one record per click."""
    return _prepare(experiment(), tmp_path_factory.mktemp("prepared") / "data")


@pytest.fixture(scope="session")
def prepared_by_user(experiment: Experiment, tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """Training data of the community, one record per user."""
    return _prepare(experiment("data.layout=user"), tmp_path_factory.mktemp("prepared_by_user") / "data")


def _prepare(config: Config, directory: Path) -> PreparedData:
    from pipelines.training_data import prepare

    prepare(config, directory)
    return PreparedData.load(directory)
