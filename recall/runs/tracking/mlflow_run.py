"""Writes one run into MLflow: settings, metrics, files and the model. The only home of MLflow.

What was written is noted in DIR/tracking.json, so that a run that goes on writes nothing twice.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recall import __version__
from recall.config.experiment import Config
from recall.core.artifacts import read_json, seal, write_json
from recall.core.environment import commit
from recall.runs.tracking.flat import flat_epoch, flat_metrics, flat_settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

STATE = "tracking.json"
_BATCH = 100  # parameters of one request
_METRICS_BATCH = 1000
_LOADER = "recall.serving.mlflow_model"
_SERVED = ("data", "model", "vectors", "index")
_EXPERIMENT = "recall"
# A server that is gone is given up after a minute, not after the ten of MLflow's defaults.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}


class MlflowRun:
    """Write one run into MLflow.

    Args:
      config: the experiment.
      directory: the run.
      uri: of the tracking server; empty: as MLflow finds it, by the variable MLFLOW_TRACKING_URI.
      made_of: fingerprint of experiment and input; the MLflow run of another one is not continued.
    """

    def __init__(self, config: Config, directory: Path, *, uri: str, made_of: str) -> None:
        for name, value in _PATIENCE.items():
            os.environ.setdefault(name, value)
        import mlflow

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        self._config, self._directory, self._made_of = config, directory, made_of
        self.uri = uri or mlflow.get_tracking_uri()
        self._client: MlflowClient | None = None
        self._state: dict[str, Any] = {}

    @property
    def run_id(self) -> str:
        """Return the id of the MLflow run; empty before `start`."""
        return str(self._state.get("run_id", ""))

    def start(self) -> None:
        """Continue the MLflow run of this experiment, or begin one and write its settings.

        Raises:
          Exception: the server cannot be reached, or refuses.
        """
        from mlflow import MlflowClient
        from mlflow.entities import Param

        if self._state.get("settings"):
            return
        client = MlflowClient(tracking_uri=self.uri)
        state = self._read()
        if state:
            client.update_run(state["run_id"], status="RUNNING")
        else:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _EXPERIMENT)
            experiment = client.get_experiment_by_name(name)
            experiment_id = experiment.experiment_id if experiment else client.create_experiment(name)
            tags = {"recall.version": __version__, "mlflow.source.git.commit": commit()}
            run = client.create_run(experiment_id, run_name=self._directory.resolve().name, tags=tags)
            state = {"uri": self.uri, "made_of": self._made_of, "run_id": run.info.run_id, "epochs": {}}
        self._client, self._state = client, state
        self._write()
        if not state.get("settings"):
            settings = [Param(key, value) for key, value in flat_settings(self._config.model_dump(mode="json")).items()]
            for first in range(0, len(settings), _BATCH):
                client.log_batch(self.run_id, params=settings[first : first + _BATCH])
            state["settings"] = True
            self._write()

    def epoch(self, structure: str, entry: Mapping[str, Any]) -> None:
        """Write an epoch of a model's training, unless it was written before.

        Raises:
          Exception: the server cannot be reached, or refuses.
        """
        if entry["epoch"] <= self._state["epochs"].get(structure, 0):
            return
        self._log(flat_epoch(structure, entry), step=int(entry["epoch"]))
        self._state["epochs"][structure] = entry["epoch"]
        self._write()

    def finish(self, metrics: Mapping[str, Any], *, histories: Mapping[str, list[dict[str, Any]]], model: str) -> bool:
        """Write what was not written yet: epochs, metrics, files, and the model; return whether there was something.

        Args:
          metrics: content of metrics.json.
          histories: structure -> history of its training.
          model: fingerprint of the configured model.

        Raises:
          Exception: the server cannot be reached, or refuses.
        """
        assert self._client is not None
        for structure, history in histories.items():
            for entry in history:
                self.epoch(structure, entry)
        parts: dict[str, tuple[Any, Callable[[], None]]] = {
            "metrics": (metrics["fingerprint"], lambda: self._log(flat_metrics(metrics), step=0)),
            "files": (metrics["fingerprint"], self._log_files),
            "model": (model, self._log_model),
        }
        todo = {name: part for name, part in parts.items() if self._state.get(name) != part[0]}
        for name, (made_of, write) in todo.items():
            write()
            self._state[name] = made_of
            self._write()
        self._client.set_terminated(self.run_id, status="FINISHED")
        return bool(todo)

    def fail(self, *, killed: bool) -> None:
        """Mark the MLflow run as failed or killed."""
        if self._client is not None:
            self._client.set_terminated(self.run_id, status="KILLED" if killed else "FAILED")

    # Parts

    def _log(self, values: Mapping[str, float], *, step: int) -> None:
        from mlflow.entities import Metric

        assert self._client is not None
        now_ms = int(time.time() * 1000)
        entries = [Metric(key, value, now_ms, step) for key, value in values.items()]
        for first in range(0, len(entries), _METRICS_BATCH):
            self._client.log_batch(self.run_id, metrics=entries[first : first + _METRICS_BATCH])

    def _log_files(self) -> None:
        """Write the report, its plots, the experiment and metrics.json as artifacts."""
        assert self._client is not None
        for name in ("report.html", "config.yaml", "metrics.json"):
            if (self._directory / name).exists():
                self._client.log_artifact(self.run_id, str(self._directory / name))
        with tempfile.TemporaryDirectory() as folder:
            for name, svg in plots_of((self._directory / "report.html").read_text(encoding="utf-8")).items():
                (Path(folder) / f"{name}.svg").write_text(svg, encoding="utf-8")
            self._client.log_artifacts(self.run_id, folder, "plots")

    def _log_model(self) -> None:
        """Write the model that recalls: see `recall.serving.mlflow_model`."""
        import mlflow

        from recall.data.prepared import PreparedData
        from recall.serving.mlflow_model import asked_column

        ids = PreparedData.load(self._directory / "data")
        column = asked_column(self._config)
        example = (ids.user_ids if column == "user" else ids.item_ids)[:2].to_pylist()
        before = mlflow.get_tracking_uri()
        mlflow.set_tracking_uri(self.uri)
        try:
            with served_copy(self._directory) as folder, mlflow.start_run(run_id=self.run_id):
                info = mlflow.pyfunc.log_model(
                    name="model", loader_module=_LOADER, data_path=str(folder), signature=_signature(column),
                    input_example=_frame(column, example),
                    pip_requirements=[f"recall-towers=={__version__}"],
                )  # fmt: skip
        finally:
            mlflow.set_tracking_uri(before)
        self._state["model_uri"] = info.model_uri

    # What was written

    def _read(self) -> dict[str, Any]:
        """Return the state of this experiment at this server; empty where there is none."""
        try:
            state = read_json(self._directory / STATE)
        except (OSError, ValueError, TypeError):
            return {}
        return state if (state.get("uri"), state.get("made_of")) == (self.uri, self._made_of) else {}

    def _write(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        write_json(self._directory / STATE, self._state)


def plots_of(page: str) -> dict[str, str]:
    """Return the plots of a report by name: its inline SVG elements, each of which is a file by itself."""
    found: dict[str, str] = {}
    for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        title = re.search(r'aria-label="([^"]*)"', svg)
        name = re.sub(r"\W+", "_", title[1] if title else "").strip("_").lower() or f"plot_{len(found)}"
        found[name] = svg
    return found


@contextmanager
def served_copy(directory: Path) -> Iterator[Path]:
    """Copy what serving reads of a run into a folder that is there for the block: all but the training examples."""
    with tempfile.TemporaryDirectory(prefix="recall-model-") as scratch:
        folder = Path(scratch) / "run"
        for part in _SERVED:
            examples = shutil.ignore_patterns("*.tfrecord") if part == "data" else None
            shutil.copytree(directory / part, folder / part, ignore=examples)
        manifest = read_json(folder / "data" / "manifest.json")
        seal(folder / "data", {name: value for name, value in manifest.items() if name != "files"})
        yield folder


def _signature(column: str) -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import Array

    return ModelSignature(
        Schema([ColSpec(DataType.string, column)]),
        Schema([ColSpec(Array(DataType.string), "items"), ColSpec(Array(DataType.double), "scores")]),
        ParamSchema([ParamSpec("k", DataType.integer, 10)]),
    )


def _frame(column: str, values: list[str]) -> Any:
    import pandas as pd

    return pd.DataFrame({column: values})
