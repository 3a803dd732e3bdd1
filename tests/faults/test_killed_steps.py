"""kill -9 in the middle of each step: what is there opens, and the step can be done again."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from recall.config.experiment import Config, load_config
from recall.core.artifacts import read_manifest
from recall.core.errors import ArtifactError
from recall.data.prepared import PreparedData
from recall.index import load_index
from recall.runs.run import Run
from recall.serving.recaller import Recaller
from tests.conftest import Experiment
from tests.helpers import victims
from tests.helpers.finished_run import CHEAP
from tests.helpers.killing import killed_at, killed_when, moments, seconds_of

SOONER = 0.8  # a step that was done before its kill is tried again, and killed after so much of the time
pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def settings(experiment: Experiment) -> Config:
    return experiment(*CHEAP)


@pytest.fixture(scope="module")
def undisturbed(finish: Callable[[Config], Path], settings: Config) -> Recaller:
    return Recaller.load(finish(settings))


def opens(run: Path) -> list[str]:
    """Opens whatever a run directory holds, every byte checked; returns the parts that there are."""
    there = [part for part in ("data", "model", "vectors", "index") if (run / part).exists()]
    if "data" in there:
        PreparedData.load(run / "data", verify=True)
    if "model" in there:
        read_manifest(run / "model", made_by="recall train", verify=True)
    if "index" in there and (run / "index" / "CURRENT").exists():
        load_index(run / "index")
    return there


def test_a_step_that_is_killed_publishes_nothing_and_can_be_done_again(
    kills: int, settings: Config, undisturbed: Recaller, tmp_path: Path, account: Callable[..., None]
) -> None:
    experiment, directory, reference = (tmp_path / name for name in ("experiment.yaml", "run", "reference"))
    experiment.write_text(settings.to_yaml())
    for name, part in (("prepare", "data"), ("train", "model"), ("vectors", "vectors")):
        duration = seconds_of(victims.step, name, experiment, reference)
        for moment in moments(kills, within=duration, seed=1):
            while not killed_at(moment, victims.step, name, experiment, directory):
                shutil.rmtree(directory / part)  # done before: once more, and earlier
                moment *= SOONER
            if directory.exists() and part in opens(directory):
                shutil.rmtree(directory / part)  # published in time: the next one starts anew
        getattr(Run(settings, directory), name)()
        left = {path.name for path in directory.iterdir()}
        assert not {name for name in left if name.startswith(".")}, "what was killed has been cleared away"
        account(f"kill -9 in {name}", kills, "nothing", "no half-written directory; done again")
    Run(settings, directory).index()
    assert_recalls_like(directory, undisturbed)


def assert_recalls_like(directory: Path, undisturbed: Recaller) -> None:
    lists = [recaller.recall(["u001"], k=20).ids[0] for recaller in (Recaller.load(directory), undisturbed)]
    assert len(set(lists[0]) & set(lists[1])) > 10


def test_a_killed_run_leaves_nothing_that_loads_and_running_again_finishes(
    settings: Config, undisturbed: Recaller, tmp_path: Path
) -> None:
    experiment, directory = tmp_path / "experiment.yaml", tmp_path / "run"
    experiment.write_text(settings.to_yaml())

    killed_when(lambda: any(directory.glob(".data.*")), victims.step, "all", experiment, directory)
    assert not (directory / "data").exists()
    with pytest.raises(ArtifactError, match="not there yet"):
        PreparedData.load(directory / "data")
    with pytest.raises(ArtifactError, match="not there yet; run `recall prepare"):
        Run(settings, directory).train()

    killed_when(lambda: any(directory.glob(".model-training/*")), victims.step, "all", experiment, directory)
    PreparedData.load(directory / "data", verify=True)
    assert not (directory / "model").exists()
    with pytest.raises(ArtifactError, match="run `recall train"):
        Recaller.load(directory)

    run = Run.open(directory)
    assert run.config == settings
    run.train()
    run.vectors()
    run.index()
    assert_recalls_like(directory, undisturbed)
    assert not list(directory.glob(".model*"))


def test_an_index_that_is_killed_leaves_the_one_before_or_is_there_whole(
    kills: int, settings: Config, finish: Callable[[Config], Path], tmp_path: Path, account: Callable[..., None]
) -> None:
    experiment, directory = tmp_path / "experiment.yaml", tmp_path / "run"
    experiment.write_text(settings.to_yaml())
    shutil.copytree(finish(settings), directory)
    shutil.copytree(directory, tmp_path / "reference")
    duration = seconds_of(victims.step, "index", experiment, tmp_path / "reference", ("index.kind=scann",))

    query = load_index(directory / "index").vectors([0])
    # Other settings each time, so that every attempt builds and publishes.
    settings_of = (("index.kind=scann", f"index.k={k}") for k in itertools.count(40))
    for moment in moments(kills, within=duration, seed=2):
        current = (directory / "index" / "CURRENT").read_text()
        while not killed_at(moment, victims.step, "index", experiment, directory, next(settings_of)):
            assert (directory / "index" / "CURRENT").read_text() > current
            moment *= SOONER
        assert load_index(directory / "index").search(query, 5).ids[0, 0] is not None
    Run(load_config(experiment, ["index.kind=exact", "index.k=39"]), directory).index()
    Recaller.load(directory)
    versions = [path.name for path in (directory / "index" / "versions").iterdir()]
    assert len(versions) <= 2
    assert not [name for name in versions if name.startswith(".")]
    account("kill -9 in index (build and publish)", kills, "nothing", "the version before, or the new one whole")
