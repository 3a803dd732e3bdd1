"""Kills a day's job at moments drawn beforehand: yesterday's run serves on, and the same call goes on to the end."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from recall.core.artifacts import read_json
from recall.runs.daily.daily import daily
from recall.serving.recaller import Recaller
from tests.helpers.dated_log import ANYTHING, DAYS, FIRST, SETTINGS, DatedLog
from tests.helpers.killing import killed_at
from tests.helpers.victims import day

pytestmark = pytest.mark.slow
TODAY = DAYS[FIRST + 1]


def test_a_killed_day_goes_on_and_ends_as_if_nothing_had_happened(
    dated_log: DatedLog, tmp_path: Path, kills: int, account: Callable[..., None]
) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(dated_log.runs / DAYS[FIRST].isoformat(), runs / DAYS[FIRST].isoformat())
    (runs / "current").symlink_to(DAYS[FIRST].isoformat())
    arguments = (dated_log.experiment, runs, dated_log.log, SETTINGS, TODAY.isoformat())
    moments = np.random.default_rng(7).uniform(0.2, 6.0, kills)
    done = 0
    for moment in moments:
        done += not killed_at(float(moment), day, *arguments)
        is_decided = (runs / TODAY.isoformat() / "daily.json").exists()
        served = (runs / "current").resolve().name
        assert served == TODAY.isoformat() or (served == DAYS[FIRST].isoformat() and not is_decided)
        Recaller.load(runs / "current")
    found = daily(dated_log.config(), runs, dated_log.log, day=TODAY, guard=ANYTHING)
    assert found.outcome == ("done before" if done else "published")
    undisturbed = dated_log.runs / TODAY.isoformat()
    assert read_json(found.run / "metrics.json")["test"] == read_json(undisturbed / "metrics.json")["test"]
    vectors, expected = (pq.read_table(run / "vectors" / "vectors.parquet") for run in (found.run, undisturbed))
    np.testing.assert_allclose(
        np.stack(vectors["vector"].to_numpy()), np.stack(expected["vector"].to_numpy()), atol=1e-5
    )
    assert [path.name for path in runs.iterdir() if path.name.startswith(".current")] == []
    account("recall daily, kill -9", kills, "nothing", "the day before is served, the day goes on")
