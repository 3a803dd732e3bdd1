"""Writes down what the steps of a run do: lines on the console, config.yaml with versions, and timing.json."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from recall import __version__
from recall.config.experiment import Config
from recall.core.artifacts import write_json, write_text
from recall.core.environment import commit, versions
from recall.core.errors import ArtifactError, disk_problem
from recall.data.given import with_own_inputs
from recall.model.distributed.tf_config import Cluster
from recall.runs.console import step_line
from recall.runs.steps import read_run_json

_T = TypeVar("_T")


class StepLog:
    """Note the steps of one run, for the reader of the terminal and in the directory.

    Args:
      config: the experiment.
      directory: the run.
      console: shows lines and tables.
    """

    def __init__(self, config: Config, directory: Path, console: Console) -> None:
        self.config, self.directory, self.console = config, directory, console

    @contextmanager
    def running(self, step: str, *, spinner: bool = True, seconds_before: float = 0.0) -> Iterator[None]:
        """Show that a step is under way, and write its time into timing.json at the end.

        Args:
          step: its name.
          spinner: turn a spinner on a terminal; a step with a progress bar of its own has none.
          seconds_before: time of the part of the step that an earlier process has done.

        Raises:
          ArtifactError: the disk is full or cannot be read.
        """
        started = time.perf_counter()
        try:
            with step_line(self.console, step, spinner=spinner):
                yield
            seconds = seconds_before + time.perf_counter() - started
            write_json(self.directory / "timing.json", {**self.timing(), f"{step.replace(' ', '_')}_seconds": seconds})
        except Exception as error:
            if not (problem := disk_problem(error)):
                raise
            raise ArtifactError(
                f"{self.directory}: {step} could not read or write its files ({problem}); "
                "free some space, or choose another --out, then run the same command again"
            ) from error
        earlier = f", {seconds_before:.1f} s of them before it was resumed" if seconds_before else ""
        self.console.print(f"[bold]{step}[/bold] took {seconds:.1f} s{earlier}")

    def skipped(self, step: str, result: _T) -> _T:
        """Say that a step was done before, and return its result."""
        self.console.print(f"[dim]{step}: done before, inputs unchanged[/dim]")
        return result

    def timing(self) -> dict[str, float]:
        """Return the seconds that each step took when it ran last."""
        path = self.directory / "timing.json"
        return read_run_json(path) if path.exists() else {}

    def write_config(self, *, keep_versions: bool = False) -> None:
        """Write the experiment into config.yaml, with the versions of today.

        Of several workers the chief alone writes.

        Args:
          keep_versions: leave the file as it is where it holds this experiment with other versions: for steps that are
            skipped, as their results were made with these versions.
        """
        lines = [f"recall {__version__}, commit {commit()}"]
        lines += [f"{name} {version}" for name, version in versions().items()]
        header, body = "".join(f"# {line}\n" for line in lines), with_own_inputs(self.config, self.directory).to_yaml()
        path, cluster = self.directory / "config.yaml", Cluster.of_environment()
        if cluster and not cluster.is_chief:
            return
        there = path.read_text() if path.exists() else ""
        if there == header + body or (keep_versions and there.endswith("\n" + body)):
            return
        write_text(path, header + body)
