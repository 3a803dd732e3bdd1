"""Takes a day: finds yesterday's run, goes on from it, judges, guards, publishes, collects. `recall daily`.

Everything that is decided is on disk before the next step: a killed job is called again, and goes on where it was.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Literal, NamedTuple

from rich.console import Console

from recall.config.experiment import Config
from recall.core.artifacts import MANIFEST
from recall.core.errors import ArtifactError, ConfigError
from recall.core.locks import sole_writer
from recall.runs.daily.guard import Guard
from recall.runs.daily.log_files import DatedLog, since
from recall.runs.daily.published import Day, RunsByDay
from recall.runs.metrics import Metrics, shown_k
from recall.runs.parts import DATA
from recall.runs.run import Run

Outcome = Literal["published", "refused", "done before"]


class DayResult(NamedTuple):
    """Hold what became of a day.

    Attributes:
      outcome: what was decided.
      run: the directory of its run.
      problems: why it was refused, a sentence each.
    """

    outcome: Outcome
    run: Path
    problems: tuple[str, ...]


def daily(
    config: Config,
    runs: str | Path,
    log: str,
    *,
    day: date | None = None,
    guard: Guard | None = None,
    keep: int = 7,
    console: Console | None = None,
) -> DayResult:
    """Take one day: from the last published run to a run of the day, published unless the guard refuses it.

    Safe to call twice, and to kill: a day that was decided about is done; a run that was begun goes on. One job at a
    time works in a folder. After a refusal the next day goes on from the last published run, and reads both days.

    Args:
      config: the experiment; `data.events.path` is replaced by the files of the log.
      runs: folder of the runs, one directory per day, and `current`, a link to the published one.
      log: pattern of the files of the log, with `{date}` for the day (YYYY-MM-DD) that they were written on.
      day: the day, default: the last one that the log has files of.
      guard: how bad a model may be; default: `Guard()`.
      keep: published runs that stay, at least 2: today's, and the one to go back to.
      console: shows progress and tables; silent by default.

    Raises:
      ConfigError: `training.refit` is not `continue`, or a setting changed that the model's weights depend on.
      DataError: the day has no file, or its events cannot be used.
      ArtifactError: another job works in the folder, or the last published run is damaged.
    """
    if config.training.refit != "continue":
        raise ConfigError(
            f"training.refit: found {config.training.refit}, but each day goes on from the weights of the day before; "
            "set training.refit: continue"
        )
    if keep < 2:
        raise ConfigError(f"keep: expected at least 2 published runs, today's and the one to go back to; found {keep}")
    dated, places = DatedLog(log), RunsByDay(Path(runs))
    day = day or next(iter(reversed(dated.dates())), None) or date.today()
    days = dated.until(day)
    places.folder.mkdir(parents=True, exist_ok=True)
    with sole_writer(places.folder / "daily"):
        run, decided = places.run_of(day), {found.day: found for found in places.decided()}
        if day in decided:
            outcome: Outcome = "done before" if decided[day].is_published else "refused"
            return DayResult(outcome, run, tuple(decided[day].about["problems"]))
        if later := [found.day for found in decided.values() if found.day > day]:
            raise ArtifactError(
                f"{places.folder}: {max(later)} is there already, and days are taken in order; remove the runs after "
                f"{day} to take it again"
            )
        before = places.last_published(day)
        if before is not None:
            days = since(days, before.day, late_ms=config.data.tail)
        events = {**config.data.events.model_dump(mode="json"), "path": dated.of(days)}
        today = config.replaced(data={"events": events})
        step = Run(today, run, console=console, since=before.run if before else None)
        metrics = step.all(resume=(run / DATA / MANIFEST).exists())
        problems = _problems(guard or Guard(), step, metrics, before)
        about = {"day": day.isoformat(), "from": before.run.name if before else None, "problems": problems}
        if not problems and before:
            step.index()  # takes what yesterday's run was told while this one was made
        places.decide(day, about, publish=not problems)
        if not problems:
            places.collect(keep=keep)
        return DayResult("refused" if problems else "published", run, tuple(problems))


def _problems(guard: Guard, run: Run, metrics: Metrics, before: Day | None) -> list[str]:
    configured = metrics["configured"]
    metric = f"recall@{shown_k(metrics)}"
    learned = None if before is None else float(run.served_metrics()[metric])
    return guard.problems(metrics["days"], configured=configured, metric=metric, learned=learned)
