"""Runs the closed loop: every arm with every seed, and what comes of it in loop.json and loop.html."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from recall.core.artifacts import write_json
from recall.core.environment import commit, versions
from recall.core.errors import ConfigError
from recall.core.extras import require_packages
from recall.core.locks import sole_writer
from recall.runs.loop.arms import MODELS, Arm
from recall.runs.loop.measures import MEASURES
from recall.runs.loop.pool import play_tasks
from recall.runs.loop.summary import summarise
from recall.runs.loop.worker import Task

RESULT, PAGE = "loop.json", "loop.html"
_SHOWN = ("probability", "share_of_oracle", "clicks_per_user", "young_share", "good_new_found", "gini_authors")


def run_loop(
    out: str | Path,
    arms: Sequence[Arm],
    *,
    users: int = 2_000,
    items: int = 5_000,
    days: int = 14,
    warm_up_days: int = 4,
    authors: int = 300,
    seeds: int = 5,
    jobs: int = 1,
    config: Path | None = None,
    overrides: Sequence[str] = (),
    steps: int = 300,
    console: Console | None = None,
) -> dict[str, Any]:
    """Let each arm fill the feed of the same simulated communities, and compare them.

    An arm with a seed that is finished is not played again; loop.json and loop.html are of what was asked for last.

    Args:
      out: the directory.
      arms: what is compared; the first one is what others are held against on the page.
      users: number of users of a community.
      items: number of items, of which two fifths are there when its log begins.
      days: length of the loop.
      warm_up_days: length of the log before it, which no arm decides.
      authors: number of authors.
      seeds: communities, with the seeds 1, 2, and so on.
      jobs: arms that are played at once, each in a process of one thread; 0: in this process.
      config: an experiment file with the columns of `recall simulate`, in place of the settings of its example.
      overrides: `dotted.key=value` pairs for the models of all arms.
      steps: of each training, about, however long the log is; `training.epochs` is set by it.
      console: shows progress.

    Returns:
      The content of loop.json.

    Raises:
      ConfigError: a number is out of range, or a setting is wrong; nothing is played then.
      RecallError: an arm failed; what is finished stays.
    """
    console, out = console or Console(quiet=True), Path(out)
    counts = {"users": users, "items": items, "days": days, "warm_up_days": warm_up_days, "authors": authors}
    for name, count in (*counts.items(), ("seeds", seeds), ("steps", steps)):
        if count < 1:
            raise ConfigError(f"loop: {name} is {count}; expected at least 1")
    packages = ("jinja2", "matplotlib")
    require_packages(
        "loop", *(("apache_beam", "sklearn") if any(arm.kind in MODELS for arm in arms) else ()), *packages
    )
    tasks = [
        Task(
            str(out / "arms" / f"seed-{seed}" / _folder(arm)), arm.name, seed, **counts,
            config=str(config) if config else None, overrides=tuple(overrides),
            steps=steps,
        )
        for seed in range(1, seeds + 1)
        for arm in arms
    ]  # fmt: skip
    for task in tasks[: len(arms)]:
        _ = task.fingerprint  # a wrong setting is an error now
    out.mkdir(parents=True, exist_ok=True)
    with sole_writer(out / RESULT):
        todo = [task for task in tasks if task.result() is None]
        console.print(f"{len(tasks)} of {len(arms)} arms and {seeds} seeds; {len(tasks) - len(todo)} are done")
        finished = len(tasks) - len(todo)

        def done(task: Task) -> None:
            nonlocal finished
            finished += 1
            result = task.result() or {}
            console.print(
                f"{finished}/{len(tasks)} {task.arm}, seed {task.seed}: true click probability "
                f"{result['total']['probability']:.4f}, {result['seconds']['wall']:.0f} s"
            )

        play_tasks(todo, jobs=jobs, done=done)
        return _publish(out, tasks, counts, console)


def _publish(out: Path, tasks: Sequence[Task], counts: dict[str, int], console: Console) -> dict[str, Any]:
    """Write loop.json and loop.html from the results of all tasks."""
    from recall.runs.report.loop_page import write_loop_page

    played: dict[str, dict[int, Any]] = {}
    for task in tasks:
        result = task.result()
        assert result, "every task is published by now"
        played.setdefault(task.arm, {})[task.seed] = result
    seconds = {
        arm: sum(result["seconds"]["cpu"] for result in seeds.values()) / len(seeds) for arm, seeds in played.items()
    }
    first = next(iter(played))
    content = {
        "settings": {
            **counts,
            "seeds": len(played[first]),
            "steps": tasks[0].steps,
            "overrides": list(tasks[0].overrides),
        },
        "made_with": {"commit": commit(), "versions": versions()},
        "cpu_seconds": seconds,
        **summarise(played),
    }
    write_json(out / RESULT, content, checksummed=True)
    write_loop_page(out / PAGE, content)
    console.print(_table(content))
    console.print(f"{out / RESULT}, {out / PAGE}")
    return content


def _table(content: dict[str, Any]) -> Table:
    table = Table(title="the loop, mean over seeds", title_justify="left", box=box.SIMPLE, pad_edge=False)
    table.add_column("arm", overflow="fold")
    for name in _SHOWN:
        table.add_column(MEASURES[name].label, justify="right")
    for arm, parts in content["arms"].items():
        values = [(parts["total"].get(name) or {}).get("mean") for name in _SHOWN]
        shown = [
            "-" if value is None else f"{value:.{MEASURES[name].digits}f}"
            for name, value in zip(_SHOWN, values, strict=True)
        ]
        table.add_row(arm, *shown)
    return table


def _folder(arm: Arm) -> str:
    """Return the name of an arm's folder."""
    return re.sub(r"[^A-Za-z0-9+=._-]", "_", arm.name)
