"""Tracks a run: `tracked` gives the run a `Tracking`, which warns where the server is gone, and lets the run go on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from recall.config.experiment import Config
from recall.core.artifacts import fingerprint, read_manifest
from recall.core.errors import ConfigError
from recall.core.extras import require_packages
from recall.data.fingerprints import data_fingerprint

if TYPE_CHECKING:
    from recall.runs.tracking.mlflow_run import MlflowRun

_FIRST_LINE = 200  # characters of an error that is shown
OnEpoch = Callable[[Mapping[str, Any]], None]


class Tracking:
    """Take what happens in a run.

    Args:
      run: writes it; None: nobody does.
      console: shows warnings.
    """

    def __init__(self, run: MlflowRun | None, console: Console) -> None:
        self._run, self._console = run, console
        self._is_lost = False

    def of_model(self, structure: str) -> OnEpoch | None:
        """Return what takes the epochs of a model's training."""
        if (run := self._run) is None:
            return None

        def on_epoch(entry: Mapping[str, Any]) -> None:
            if not self._is_lost:  # what is missed now is written at the end
                self._try(lambda: run.epoch(structure, entry))

        return on_epoch

    def start(self) -> None:
        """Begin, or continue."""
        if (run := self._run) is not None:
            self._try(run.start)

    def finish(self, metrics: Mapping[str, Any], models: Mapping[str, Path]) -> None:
        """Write the results.

        Args:
          metrics: content of metrics.json.
          models: structure -> folder of its model, the configured one first.
        """
        if (run := self._run) is None:
            return
        from recall.training.published import read_history

        histories = {name: read_history(folder) for name, folder in models.items()}
        model = read_manifest(next(iter(models.values())), made_by="recall train")["fingerprint"]
        written: list[bool] = []

        def write() -> None:
            run.start()  # it may have failed before
            written.append(run.finish(metrics, histories=histories, model=model))

        if self._try(write):
            found = "written" if written[0] else "written before"
            self._console.print(f"tracking: {found}, MLflow run {run.run_id} at {run.uri}", markup=False)
        else:
            self._console.print("tracking: run the same command again to write the finished run")

    def fail(self, *, killed: bool) -> None:
        """Say that the run failed."""
        if (run := self._run) is not None and not self._is_lost:
            self._try(lambda: run.fail(killed=killed))

    def _try(self, write: Callable[[], object]) -> bool:
        """Write something; whatever goes wrong is a warning, as a run is worth more than its record."""
        try:
            write()
        except Exception as error:
            self._is_lost = True
            line = (str(error).splitlines() or [""])[0][:_FIRST_LINE]
            self._console.print(
                f"warning: tracking failed, the run goes on ({type(error).__name__}: {line})", markup=False
            )
            return False
        self._is_lost = False
        return True


@contextmanager
def tracked(config: Config, directory: Path, target: str | None, console: Console) -> Iterator[Tracking]:
    """Track a run while the block runs.

    Args:
      config: the experiment.
      directory: the run.
      target: `mlflow`, for the server of MLFLOW_TRACKING_URI, or `mlflow:URI`; None: nothing is tracked.
      console: shows warnings.

    Raises:
      ConfigError: the target is something else, or packages are missing.
    """
    tracking = Tracking(None if target is None else _mlflow_run(config, directory, target), console)
    tracking.start()
    try:
        yield tracking
    except BaseException as error:
        tracking.fail(killed=not isinstance(error, Exception))
        raise


def _mlflow_run(config: Config, directory: Path, target: str) -> MlflowRun:
    kind, _, uri = target.partition(":")
    if kind != "mlflow":
        raise ConfigError(f"--track {target}: expected mlflow or mlflow:URI, e.g. mlflow:sqlite:///mlflow.db")
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI", "")
    is_folder = bool(uri) and (uri.startswith("file:") or "://" not in uri) and uri != "databricks"
    if is_folder and os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() not in ("1", "true"):
        raise ConfigError(
            f"--track {target}: {uri} is a folder, in which MLflow keeps no runs any more; use a file like "
            "mlflow:sqlite:///mlflow.db, or the address of a server"
        )
    require_packages("run --track", "mlflow", "sqlalchemy", "alembic")
    from recall.runs.tracking.mlflow_run import MlflowRun

    made_of = fingerprint(config.to_yaml(), data_fingerprint(config))
    return MlflowRun(config, directory, uri=uri, made_of=made_of)
