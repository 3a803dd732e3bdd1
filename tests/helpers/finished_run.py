"""Plugin for tests of what comes after training: one finished run on the simulated community, and its recaller."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from rich.console import Console

from recall.config.experiment import Config
from recall.data.prepared import PreparedData
from recall.runs.run import Run
from tests.conftest import Experiment

if TYPE_CHECKING:
    from recall.model.recall_model import RecallModel
    from recall.serving.recaller import Recaller

SETTINGS = ("model.query=both", "model.history_time=both", "training.epochs=1", "evaluation.k=[5,10,20,50,100]")


class Outcome(NamedTuple):
    """What a command left on the terminal."""

    code: int
    out: str
    err: str


class Printed(NamedTuple):
    """A run and what it printed so far."""

    run: Run
    stream: io.StringIO

    def skipped(self) -> list[str]:
        """Steps that said they had been done before, since the last call."""
        text = self.stream.getvalue()
        self.stream.truncate(0)
        self.stream.seek(0)
        return [line.split(":")[0] for line in text.splitlines() if "done before, inputs unchanged" in line]


@pytest.fixture(scope="session")
def variant(experiment: Experiment) -> Experiment:
    """Factory of the finished run's experiment with changes: `variant("index.k=50")`."""
    return lambda *overrides: experiment(*SETTINGS, *overrides)


@pytest.fixture(scope="session")
def settings(variant: Experiment) -> Config:
    """The experiment of the finished run: both query towers, one epoch. A module may have its own."""
    return variant()


@pytest.fixture(scope="session")
def finish(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Config], Path]:
    """Does every step of an experiment in a folder of its own, once for all modules that ask for it."""
    folders: dict[str, Path] = {}

    def run(config: Config) -> Path:
        if (asked := config.to_yaml()) not in folders:
            folders[asked] = tmp_path_factory.mktemp("finished") / "run"
            Run(config, folders[asked]).all()
        return folders[asked]

    return run


@pytest.fixture(scope="module")
def finished(finish: Callable[[Config], Path], settings: Config) -> Path:
    """A run with every step done. Shared by all tests: one that changes a file copies the folder first."""
    return finish(settings)


@pytest.fixture(scope="module")
def prepared_data(finished: Path) -> PreparedData:
    """The data of the finished run."""
    return PreparedData.load(finished / "data")


@pytest.fixture(scope="module")
def model(finished: Path, prepared_data: PreparedData) -> RecallModel:
    """The model of the finished run."""
    from recall.training.loop import load_model

    return load_model(finished / "model", prepared_data)


@pytest.fixture(scope="module")
def recaller(finished: Path) -> Recaller:
    """Serves the finished run."""
    from recall.serving.recaller import Recaller

    return Recaller.load(finished)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs the `recall` command in this process: `command("query", "--run", directory, "--user", "u1")`."""
    from recall.cli.main import app

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit:
            app([str(argument) for argument in arguments])
        return Outcome(int(exit.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def printing() -> Callable[[Config, Path], Printed]:
    """Opens a run that remembers what it prints: `printing(config, directory)`."""

    def open_run(config: Config, directory: Path) -> Printed:
        stream = io.StringIO()
        return Printed(Run(config, directory, console=Console(file=stream, width=200)), stream)

    return open_run


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run that a test may spoil."""
    return Path(shutil.copytree(finished, tmp_path / "run"))
