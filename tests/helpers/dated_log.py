"""Gives tests of successive days a simulated log with a folder of files per day, and the runs of its first days."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recall.config.experiment import Config, load_config
from recall.data.datasets import simulate
from recall.runs.daily.daily import daily
from recall.runs.daily.guard import Guard
from tests.conftest import EXPERIMENT
from tests.helpers.finished_run import CHEAP
from tests.helpers.made_once import MakeOnce

SETTINGS = (*CHEAP, "training.refit=continue")
DAYS = [date(2024, 1, number) for number in range(1, 8)]
FIRST = 3
"""Place of the day that the first run is of."""
DAY_MS = 86_400_000
ANYTHING = Guard(against_trending=0, against_before=0)
"""Lets the models of tests pass, which learn little."""


class DatedLog(NamedTuple):
    """Hold a log by day, and the runs of two days.

    Attributes:
      experiment: experiment file.
      log: pattern of the files of the log.
      runs: folder with the runs of DAYS[FIRST] and the day after it.
    """

    experiment: Path
    log: str
    runs: Path

    def config(self, *overrides: str) -> Config:
        """Read the experiment."""
        return load_config(self.experiment, [*SETTINGS, *overrides])


@pytest.fixture(scope="session")
def dated_log(made_once: MakeOnce) -> DatedLog:
    """Simulate a log of seven days and take two of them; all tests share the result, and write elsewhere."""

    def of(folder: Path) -> DatedLog:
        return DatedLog(folder / "experiment.yaml", f"{folder}/log/{{date}}/*.parquet", folder / "runs")

    def make(folder: Path) -> None:
        simulate(users=120, items=160, days=len(DAYS), authors=30, topics=8, exposures=9_000).write(folder)
        events = pq.read_table(folder / "events.parquet")
        time_ms = events["time_ms"].to_numpy()
        number = (time_ms - time_ms.min() // DAY_MS * DAY_MS) // DAY_MS
        for place, day in enumerate(DAYS):
            (folder / "log" / day.isoformat()).mkdir(parents=True)
            part = events.filter(pa.array(np.asarray(number == place)))
            pq.write_table(part, folder / "log" / day.isoformat() / "part.parquet")
        (folder / "experiment.yaml").write_text(EXPERIMENT)
        found = of(folder)
        for day in DAYS[FIRST : FIRST + 2]:
            daily(found.config(), found.runs, found.log, day=day, guard=ANYTHING)

    return of(made_once("dated_log", EXPERIMENT + str(SETTINGS), make))
