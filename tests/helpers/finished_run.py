"""Gives tests of the steps after training one finished run on the simulated community, and its recaller."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from rich.console import Console

from recall.config.experiment import Config
from recall.data.fingerprints import data_fingerprint
from recall.data.prepared import PreparedData
from recall.runs.run import Run
from tests.conftest import Experiment
from tests.helpers.made_once import MakeOnce

if TYPE_CHECKING:
    from recall.model.recall_model import RecallModel
    from recall.serving.recaller import Recaller

SETTINGS = ("model.query=both", "model.history_time=both", "training.epochs=1", "evaluation.k=[5,10,20,50,100]")
# A model that is quickly traced, for tests of what a run does with any model.
CHEAP = (
    "model.structure=behaviour_only", "model.query=user", "model.loss.negatives=none", "training.epochs=2",
    "evaluation.k=[5,10,50,100]",
)  # fmt: skip
# Further finished runs that tests of several folders look at, as changes of the experiment: `finish(experiment(*...))`.
# A training and a run cost seconds whatever they do; so each of these has several things that do not disturb another.
PRIOR = "data.posterior.content_prior.enabled=true"
WITH_INTERESTS = (
    "model.query=both", "model.interests.count=3", "training.epochs=1",
    "data.events.weight=stars", PRIOR, "model.cold_simulation={brand_new: 0.1}",
)  # fmt: skip
WITH_ITEM_CODES = (
    "model.fusion=transformer", "model.item_codes=3", "training.epochs=1", "evaluation.k=[5,10,50,100]"
)  # fmt: skip
WITH_AUDIENCE = ("data.posterior.audience=6", "training.epochs=1", "evaluation.k=[5,10,50,100]")
STUDENT = ("model.student.kind=mean", "model.student.hidden=[8]")
WITH_STUDENT = (*STUDENT, "model.query=both", "model.history_time=both", "training.epochs=1")


Inventory = dict[str, tuple[int, int]]  # file -> size and time of its last change


def inventory(folder: Path) -> Inventory:
    """List the files below a folder."""
    found = ((path, path.stat()) for path in folder.rglob("*") if path.is_file())
    return {str(path): (status.st_size, status.st_mtime_ns) for path, status in found}


class Outcome(NamedTuple):
    """Hold the exit code of a command and what it printed."""

    code: int
    out: str
    err: str


class Printed(NamedTuple):
    """Hold a run and the stream that it prints to."""

    run: Run
    stream: io.StringIO

    def skipped(self) -> list[str]:
        """Name the steps that said they had been done before, since the last call."""
        text = self.stream.getvalue()
        self.stream.truncate(0)
        self.stream.seek(0)
        return [line.split(":")[0] for line in text.splitlines() if "done before, inputs unchanged" in line]


@pytest.fixture(scope="session")
def variant(experiment: Experiment) -> Experiment:
    """Make the finished run's experiment with changes: `variant("index.k=50")`."""
    return lambda *overrides: experiment(*SETTINGS, *overrides)


@pytest.fixture(scope="session")
def settings(variant: Experiment) -> Config:
    """Describe the finished run: both query towers, one epoch. A module may override this fixture."""
    return variant()


@pytest.fixture(scope="session")
def finish(made_once: MakeOnce) -> Iterator[Callable[[Config], Path]]:
    """Do every step of an experiment, once for all tests that ask for it, in whichever process they are."""
    before: dict[Path, Inventory] = {}

    def make(config: Config, directory: Path) -> None:
        # Runs that differ in their models alone have the same data.
        of_data = data_fingerprint(config)
        shutil.copytree(made_once("run_of_data", of_data, lambda folder: Run(config, folder).prepare()), directory)
        Run(config, directory).all()

    def run(config: Config) -> Path:
        folder = made_once("run", config.to_yaml(), lambda directory: make(config, directory))
        before.setdefault(folder, inventory(folder))
        return folder

    yield run
    for folder, files in before.items():
        assert inventory(folder) == files, f"a test changed the finished run that all share, {folder}; let it copy it"


@pytest.fixture(scope="module")
def finished(finish: Callable[[Config], Path], settings: Config) -> Path:
    """Return a run with every step done. All tests share it: one that changes a file takes `copied`."""
    return finish(settings)


@pytest.fixture(scope="module")
def prepared_data(finished: Path) -> PreparedData:
    """Load the data of the finished run."""
    return PreparedData.load(finished / "data")


@pytest.fixture(scope="module")
def model(finished: Path, prepared_data: PreparedData) -> RecallModel:
    """Load the model of the finished run."""
    from recall.training.published import load_model

    return load_model(finished / "model", prepared_data)


@pytest.fixture(scope="module")
def recaller(finished: Path) -> Recaller:
    """Load the finished run for serving."""
    from recall.serving.recaller import Recaller

    return Recaller.load(finished)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run the `recall` command in this process: `command("query", "--run", directory, "--user", "u1")`."""
    from recall.cli.main import app

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit:
            app([str(argument) for argument in arguments])
        return Outcome(int(exit.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def printing() -> Callable[[Config, Path], Printed]:
    """Open a run that remembers what it prints: `printing(config, directory)`."""

    def open_run(config: Config, directory: Path) -> Printed:
        stream = io.StringIO()
        return Printed(Run(config, directory, console=Console(file=stream, width=200)), stream)

    return open_run


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """Copy the finished run, for a test that changes it."""
    return Path(shutil.copytree(finished, tmp_path / "run"))
