"""Gives every test the real data sets and a small simulated community, prepared once per run of the suite."""

from __future__ import annotations

import os

# One thread a process: `make test` runs one process for each core. Read when the libraries are loaded, here and in the
# processes that tests start.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
for _name in THREADS:
    os.environ.setdefault(_name, "1")

from pathlib import Path  # noqa: E402
from typing import TYPE_CHECKING, Protocol  # noqa: E402

import pytest  # noqa: E402

from recall.config.experiment import Config, load_config  # noqa: E402
from recall.data.prepared import PreparedData  # noqa: E402

if TYPE_CHECKING:
    from tests.helpers.made_once import MakeOnce

pytest_plugins = (
    "tests.helpers.accounts",
    "tests.helpers.dated_log",
    "tests.helpers.scheduling",
    "tests.helpers.finished_run",
    "tests.helpers.killing",
    "tests.helpers.living_oracle",
    "tests.helpers.made_once",
    "tests.helpers.served_run",
    "tests.helpers.trained_models",
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
model: {dim: 8, hidden: [16], transformer: {layers: 1, heads: 2}, content_term: 0,
        loss: {uniform_negatives: 32, triplet: 0.3}}
training: {epochs: 2, batch_size: 128, learning_rate: 0.01}
evaluation: {k: [5, 10, 50]}
"""


class Experiment(Protocol):
    """Make a validated experiment on the simulated community."""

    def __call__(self, *overrides: str) -> Config:
        """Validate the experiment with `overrides`: `dotted.key=value` pairs as after `--set`."""


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of the real data sets; where it is absent the test is skipped, and says so."""
    default = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"
    folder = Path(os.environ.get("RECALL_SHARED_DATA", default)).resolve()
    if not folder.is_dir():
        pytest.skip(f"real data sets are not at {folder}; set RECALL_SHARED_DATA")
    return folder


@pytest.fixture(scope="session")
def community(made_once: MakeOnce) -> Path:
    """Return a folder with events, items and users (.parquet) of four simulated days, and experiment.yaml for them.

    Beside what is simulated, the events have `stars` from 1 to 3, for tests of weights. All tests share the folder: one
    that changes a file copies it first.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from recall.data.datasets import simulate

    def make(folder: Path) -> None:
        simulate(users=120, items=150, days=4, authors=30, topics=8, exposures=8_000).write(folder)
        events = pq.read_table(folder / "events.parquet")
        stars = 1.0 + events["time_ms"].to_numpy() % 3  # of rows that repeat they are the same
        pq.write_table(events.append_column("stars", pa.array(stars)), folder / "events.parquet")
        (folder / "experiment.yaml").write_text(EXPERIMENT)

    return made_once("community", EXPERIMENT, make)


@pytest.fixture(scope="session")
def experiment(community: Path) -> Experiment:
    """Make experiments on the community: `experiment("model.query=both")`; two epochs, eight dimensions."""
    return lambda *overrides: load_config(community / "experiment.yaml", overrides)


@pytest.fixture(scope="session")
def prepared(experiment: Experiment, made_once: MakeOnce) -> PreparedData:
    """Prepare the community, one record per click."""
    return _prepare(experiment(), made_once)


@pytest.fixture(scope="session")
def prepared_by_user(experiment: Experiment, made_once: MakeOnce) -> PreparedData:
    """Prepare the community, one record per user."""
    return _prepare(experiment("data.layout=user"), made_once)


def _prepare(config: Config, made_once: MakeOnce) -> PreparedData:
    from pipelines.training_data import prepare

    return PreparedData.load(made_once("data", config.to_yaml(), lambda directory: prepare(config, directory)))
