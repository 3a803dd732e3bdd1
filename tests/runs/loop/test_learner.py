"""A training that goes on from the one before: it reads what is new, knows the new items, and leaves one run behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from recall.core.artifacts import read_json
from recall.data.datasets.live_community import DAY_MS, LiveCommunity
from recall.runs.loop.arms import Arm
from recall.runs.loop.experiment import loop_experiment
from recall.runs.loop.knowledge import Knowledge
from recall.runs.loop.learner import RunLearner
from recall.runs.loop.play import play
from recall.runs.loop.policies import rule

SMALL = ["training.batch_size=256", "model.dim=8", "model.hidden=[8]"]


@pytest.mark.slow
def test_a_training_goes_on_over_what_is_new(live: LiveCommunity, tmp_path: Path) -> None:
    arm, knowledge = Arm.parse("behaviour_only+from=yesterday"), Knowledge(live)
    learner = RunLearner(loop_experiment(arm.settings, overrides=SMALL), tmp_path, goes_on=arm.goes_on, steps=6)
    learner.learn(knowledge, now_ms=live.start_ms, until_ms=live.start_ms + DAY_MS)
    assert not (tmp_path / "training-1" / "since.json").exists()
    log = play(live, Arm.parse("random"), rule("random", knowledge), knowledge)  # the log grows
    now_ms = live.start_ms + DAY_MS
    day = int((log.time_ms < now_ms).sum())
    known = Knowledge(live)
    known.add(type(log)(*(column[:day] for column in (log.user, log.item, log.time_ms, log.click))))
    learned = learner.learn(known, now_ms=now_ms, until_ms=now_ms + DAY_MS)
    assert [path.name for path in tmp_path.iterdir()] == ["training-2"]
    assert read_json(tmp_path / "training-2" / "since.json")["run"] == str(tmp_path / "training-1")
    assert read_json(tmp_path / "training-2" / "inputs" / "manifest.json")["rows"]["events"] == day
    # Counts and items are of the whole log so far.
    assert learned.prepared.posterior("serving").exposures.sum() == len(live.log.user) + day
    assert len(learned.prepared.item_ids) == live.published(now_ms)
    assert learned.model.item_table.size == live.published(now_ms + DAY_MS)


def test_trainings_take_about_as_many_steps_however_long_the_log_is() -> None:
    learner = RunLearner(loop_experiment({}), Path("nowhere"), steps=300)
    few, some, many = (learner._paced(clicks).training for clicks in (2_000, 60_000, 1_000_000))
    assert (few.epochs, few.min_epoch_steps) == (6, 50)
    assert (some.epochs, some.refit_epochs) == (5, 1)  # an epoch of 58 steps
    assert many.epochs == 2  # an epoch of 976 steps: the whole log, twice
    assert few.refit_epochs == 100  # of one step each
