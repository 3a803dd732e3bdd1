"""The loop as a command: what it writes, what it takes up again, and how it fails."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest

from recall.core.artifacts import read_json
from recall.runs.loop.arms import parse_arms
from recall.runs.loop.loop import run_loop
from recall.runs.loop.worker import Task

if TYPE_CHECKING:
    from tests.helpers.finished_run import Outcome

Command = Callable[..., "Outcome"]
SIZES: dict[str, Any] = {"users": 60, "items": 300, "days": 2, "warm_up_days": 1, "authors": 20}
OPTIONS = ("--users", 60, "--items", 300, "--days", 2, "--warm-up", 1, "--authors", 20)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    run_loop(tmp_path / "loop", parse_arms("trending,random,oracle"), **SIZES, seeds=2, jobs=0)
    return tmp_path / "loop"


def published(out: Path) -> dict[str, int]:
    return {str(path.relative_to(out)): path.stat().st_mtime_ns for path in out.rglob("metrics.json")}


def test_the_result_is_written_for_programs_and_for_people(out: Path) -> None:
    content = read_json(out / "loop.json")
    assert list(content["arms"]) == ["trending", "random", "oracle"]
    log = pq.read_table(out / "arms" / "seed-2" / "random" / "log.parquet").to_pandas()
    assert content["arms"]["random"]["total"]["probability"]["seeds"][1] == pytest.approx(log["probability"].mean())
    assert content["settings"] == {**SIZES, "seeds": 2, "steps": 300, "overrides": []}
    page = (out / "loop.html").read_text()
    assert "3 arms filled the feed of the same 60 users and 300 items for 2 days each" in page
    differences = {(one["arm"], one["against"], one["measure"]): one["verdict"] for one in content["differences"]}
    words = {"lower": "below oracle", "no difference shown": "not shown to differ from"}
    assert words[differences["trending", "oracle", "probability"]] in page
    assert page.count("<svg") == 1
    assert "<b>–</b>" not in page
    assert not re.search(r'(src|href)="https?:', page)


def test_what_is_finished_is_not_played_again(out: Path) -> None:
    before = published(out)
    again = run_loop(out, parse_arms("random,popularity,oracle"), **SIZES, seeds=2, jobs=0)
    after = published(out)
    assert {name: after[name] for name in before} == before
    assert after.keys() - before.keys() == {f"arms/seed-{seed}/popularity/metrics.json" for seed in (1, 2)}
    assert list(again["arms"]) == ["random", "popularity", "oracle"]


def test_other_settings_and_damage_are_played_again(out: Path) -> None:
    before = published(out)
    damaged = out / "arms" / "seed-1" / "random" / "metrics.json"
    damaged.write_text(damaged.read_text().replace("1", "2"))
    run_loop(out, parse_arms("trending,random,oracle"), **SIZES, seeds=2, jobs=0)
    after = published(out)
    assert {name for name in before if after[name] != before[name]} == {"arms/seed-1/random/metrics.json"}
    run_loop(out, parse_arms("trending,random,oracle"), **{**SIZES, "days": 1}, seeds=2, jobs=0)
    assert all(published(out)[name] != after[name] for name in after)


def test_processes_give_the_same_result(out: Path, tmp_path: Path) -> None:
    arms = parse_arms("trending,oracle")
    found = run_loop(tmp_path / "other", arms, **SIZES, seeds=1, jobs=2)
    here = run_loop(out, arms, **SIZES, seeds=1, jobs=0)
    assert found["arms"] == here["arms"]
    assert [path.name for path in (tmp_path / "other" / "arms" / "seed-1").iterdir() if path.suffix == ".log"] == []


def test_a_worker_ends_with_the_loop_and_leaves_nothing(tmp_path: Path) -> None:
    task = Task(str(tmp_path / "arm"), "random", 1, users=3_000, items=9_000, days=60, warm_up_days=20, authors=300)
    worker = subprocess.Popen(
        [sys.executable, "-m", "recall.runs.loop.worker"], stdin=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    assert worker.stdin
    worker.stdin.write(json.dumps(asdict(task)) + "\n")
    worker.stdin.close()
    assert worker.wait(60) == 1
    assert not (tmp_path / "arm").exists()


def test_the_command_writes_the_page(command: Command, tmp_path: Path) -> None:
    outcome = command("loop", "--out", tmp_path / "loop", "--arms", "popularity", "--seeds", 1, "--jobs", 0, *OPTIONS)
    assert outcome.code == 0
    assert (tmp_path / "loop" / "loop.html").is_file()
    assert "With one seed there are no intervals" in (tmp_path / "loop" / "loop.html").read_text()


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        ("gated+training.batch_size=0", "training.batch_size: "),
        ("gatd", "found 'gatd', expected one of gated"),
        ("gated+model.structure=deep", "model.structure: "),
    ],
)
def test_a_wrong_arm_is_one_line_and_nothing_is_written(
    command: Command, tmp_path: Path, arms: str, message: str
) -> None:
    outcome = command("loop", "--out", tmp_path / "loop", "--arms", f"random,{arms}", *OPTIONS)
    assert outcome.code == 1
    assert message in outcome.err
    assert not (tmp_path / "loop").exists()


def test_an_arm_that_fails_is_one_line_and_the_others_stay(command: Command, tmp_path: Path) -> None:
    arms = ("--arms", "random,gated+data.events.click=clicked", "--seeds", 1, *OPTIONS)
    outcome = command("loop", "--out", tmp_path / "loop", *arms)
    assert outcome.code == 1
    assert "error: gated+data.events.click=clicked, seed 1: " in outcome.err
    assert "has no column clicked" in outcome.err
    assert (tmp_path / "loop" / "arms" / "seed-1" / "random" / "metrics.json").is_file()
    assert not (tmp_path / "loop" / "loop.json").exists()
