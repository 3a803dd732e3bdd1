"""Tests that a run is written into MLflow once, that its model recalls, and that no run is lost for its record."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from recall.config.experiment import Config
from recall.core.errors import ConfigError, DataError
from recall.data.prepared import PreparedData
from recall.runs.run import Run
from recall.runs.tracking.mlflow_run import MlflowRun, plots_of
from recall.runs.tracking.tracked import tracked
from recall.serving.mlflow_model import CandidateModel, asked_column
from recall.serving.recaller import Recaller
from tests.helpers.made_once import MakeOnce

pytestmark = pytest.mark.slow  # a finished run, and MLflow's database


@pytest.fixture
def store(made_once: MakeOnce, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the URI of an empty MLflow store; artifacts go into the folder of the test."""
    from mlflow import MlflowClient

    def make(folder: Path) -> None:
        folder.mkdir()
        MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db").search_experiments()  # makes the tables: seconds

    shutil.copy2(made_once("mlflow_store", "", make) / "mlflow.db", tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    return f"sqlite:///{tmp_path}/mlflow.db"


def client(uri: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def runs_of(uri: str) -> list[Any]:
    found = client(uri).get_experiment_by_name("recall")
    return [] if found is None else list(client(uri).search_runs([found.experiment_id]))


def tracked_run(directory: Path, settings: Config, uri: str) -> str:
    """Track the run of a directory; return what was printed."""
    printed = io.StringIO()
    Run(settings, directory, console=Console(file=printed, width=300)).all(track=f"mlflow:{uri}")
    return printed.getvalue()


def test_a_run_is_written_once_though_the_server_was_gone_at_first_with_a_model_that_recalls(
    copied: Path, settings: Config, store: str, recaller: Recaller
) -> None:
    import mlflow

    # The server is gone at first: a warning, and no run is lost.
    printed = tracked_run(copied, settings, "http://127.0.0.1:9")  # the discard port: nobody listens
    assert "warning: tracking failed, the run goes on" in printed
    assert "run the same command again to write the finished run" in printed
    assert not (copied / "tracking.json").exists()

    printed = tracked_run(copied, settings, store)
    assert "tracking: written, MLflow run" in printed
    [run] = runs_of(store)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "run")
    assert run.data.params["model.dim"] == "8"
    metrics = json.loads((copied / "metrics.json").read_text())
    configured = metrics["test"]["gated"]
    assert run.data.metrics["test/gated/all/recall_at_50"] == pytest.approx(configured["all"]["recall@50"])
    rolling = configured["rolling"]["all"]["recall@50"]
    assert run.data.metrics["test/gated/rolling/all/recall_at_50"] == pytest.approx(rolling)
    losses = client(store).get_metric_history(run.info.run_id, "training/gated/loss")
    assert [loss.step for loss in losses] == [1]
    files = {file.path for file in client(store).list_artifacts(run.info.run_id)}
    assert {"report.html", "config.yaml", "metrics.json", "plots"} <= files
    plots = [file.path for file in client(store).list_artifacts(run.info.run_id, "plots")]
    assert "plots/validation_metric.svg" in plots

    users = ["u000", "u001", "nobody"]
    uri = json.loads((copied / "tracking.json").read_text())["model_uri"]
    mlflow.set_tracking_uri(store)
    model = mlflow.pyfunc.load_model(uri)
    answer = model.predict(pd.DataFrame({"user": users}), params={"k": 5})
    expected = recaller.recall(users, k=5)
    assert answer["items"].tolist() == [[item for item in ids if item is not None] for ids in expected.ids]
    assert answer["scores"][0] == pytest.approx(expected.scores[0].tolist(), abs=1e-5)
    assert len(model.predict(pd.DataFrame({"user": users}))["items"][0]) == 10  # the default of k
    assert model.metadata.signature.inputs.input_names() == ["user"]

    again = tracked_run(copied, settings, store)
    assert "tracking: written before" in again
    [run] = runs_of(store)
    for name in ("training/gated/loss", "test/gated/all/recall_at_50"):
        assert len(client(store).get_metric_history(run.info.run_id, name)) == 1


def test_epochs_are_written_as_they_come_and_not_twice_when_a_run_goes_on(
    settings: Config, store: str, tmp_path: Path
) -> None:
    def entries(*epochs: int) -> list[dict[str, float]]:
        return [{"epoch": epoch, "loss": 1.0 / epoch, "seconds": 1.0} for epoch in epochs]

    first = MlflowRun(settings, tmp_path / "run", uri=store, made_of="this")
    first.start()
    for entry in entries(1, 2):
        first.epoch("gated", entry)
    again = MlflowRun(settings, tmp_path / "run", uri=store, made_of="this")  # killed, and resumed
    again.start()
    for entry in entries(1, 2, 3):
        again.epoch("gated", entry)
    assert again.run_id == first.run_id
    losses = client(store).get_metric_history(again.run_id, "training/gated/loss")
    assert [(loss.step, loss.value) for loss in losses] == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]

    other = MlflowRun(settings, tmp_path / "run", uri=store, made_of="that")  # other settings: another run
    other.start()
    assert other.run_id != first.run_id


def test_a_run_that_fails_is_marked_as_failed(settings: Config, store: str, tmp_path: Path) -> None:
    for error, status in ((DataError("no clicks"), "FAILED"), (KeyboardInterrupt(), "KILLED")):
        with (
            pytest.raises(type(error)),
            tracked(settings, tmp_path / status, f"mlflow:{store}", Console(quiet=True)),
        ):
            raise error
    assert sorted(run.info.status for run in runs_of(store)) == ["FAILED", "KILLED"]


@pytest.mark.parametrize("target", ["wandb", "mlflow:/some/folder", "mlflow:file:///some/folder"])
def test_a_target_that_cannot_be_is_an_error_before_any_work(target: str, settings: Config, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="sqlite:///mlflow"):
        Run(settings, tmp_path / "run").all(track=target)
    assert not (tmp_path / "run").exists()


def test_a_model_is_asked_by_what_it_knows(recaller: Recaller, settings: Config, prepared_data: PreparedData) -> None:
    item = prepared_data.item_ids[3].as_py()
    answer = CandidateModel(recaller).predict(pd.DataFrame({"item": [item]}, index=[7]), {"k": 4})
    assert answer["items"][7] == list(recaller.similar([item], k=4).ids[0])
    with pytest.raises(DataError, match="expected a column user or item, found who"):
        CandidateModel(recaller).predict(pd.DataFrame({"who": ["u1"]}))
    assert asked_column(settings) == "user"
    assert asked_column(settings.replaced(model={"query": "trigger"})) == "item"


def test_plots_of_a_report_are_files_by_themselves(finished: Path) -> None:
    found = plots_of((finished / "report.html").read_text())
    assert {"training_loss", "validation_metric"} <= found.keys()
    assert all('xmlns="http://www.w3.org/2000/svg"' in svg for svg in found.values())


def test_the_command_tracks(copied: Path, settings: Config, store: str, command: Callable[..., Any]) -> None:
    (copied.parent / "experiment.yaml").write_text(settings.to_yaml())
    done = command("run", copied.parent / "experiment.yaml", "--out", copied, "--track", "wandb")
    assert (done.code, done.err.startswith("error: --track wandb: expected mlflow")) == (1, True)
