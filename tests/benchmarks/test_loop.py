"""The benchmark of the closed loop: its sweep names arms that exist, and its page says what the results say."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from benchmarks.loop.sweep import SWEEP, load_sweep
from benchmarks.loop.tables import arms_table, labelled, read_results, write_plots, write_tables
from recall.core.errors import ConfigError
from recall.runs.loop.arms import MODELS, parse_arms
from recall.runs.loop.experiment import loop_experiment
from recall.runs.loop.loop import run_loop
from recall.runs.loop.summary import summarise

HERE = SWEEP.parent


def result(*arms: str, seeds: int = 2) -> dict[str, Any]:
    """A result of two days in which arm n has a click probability of n tenths on the first day, and then half."""
    played = {
        arm: {
            seed: {
                "total": {
                    "probability": place / 10 + seed / 1000, "last_day_probability": place / 20, "good_new_found": 0.5,
                },
                "days": {
                    name: [place / 10, place / 20]
                    for name in ("probability", "good_new_found", "young_share", "gini_authors")
                },
            }
            for seed in range(1, seeds + 1)
        }
        for place, arm in enumerate(arms, start=1)
    }  # fmt: skip
    settings = {"users": 500, "items": 1_600, "days": 2, "seeds": seeds}
    return {"settings": settings, "cpu_seconds": dict.fromkeys(arms, 90.0), **summarise(played)}


def test_every_arm_is_possible() -> None:
    allowed = inspect.signature(run_loop).parameters.keys()
    for group in load_sweep().groups.values():
        for arm in parse_arms(",".join(group.arms)):
            if arm.kind in MODELS:
                loop_experiment(arm.settings)
        assert group.sizes.keys() <= allowed
        assert group.arms[-1] == "oracle"


def test_the_table_has_each_arm_and_the_difference_of_the_first_one() -> None:
    lines = arms_table(result("gated", "single", "oracle")).splitlines()
    assert [line.split(" | ")[0].strip("| ") for line in lines[2:]] == ["gated", "single", "oracle"]
    assert lines[2].split(" | ")[1:3] == ["0.1015", "0.333"]
    assert "**-0.1000** [-0.1000, -0.1000]" in lines[3]
    assert "+0.000 [+0.000, +0.000]" in lines[3]


def test_the_page_is_filled_and_says_what_is_not_measured(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text("# Title\n\n<!-- table: small --><!-- end -->\n\n<!-- table: models --><!-- end -->\n")
    for _ in range(2):  # filled again it stays the same
        write_tables(page, {"small": result("gated", "oracle")}, load_sweep().groups)
        text = page.read_text()
        assert "500 users, 1,600 items, 2 days, 2 seeds; gated took 1.5 minutes of one core." in text
        assert "Not measured yet: `python -m benchmarks.loop run --only models`." in text
        assert text.count("<!-- end -->") == 2


def test_labels_stand_for_long_names() -> None:
    found = labelled(result("gated", "gated+explore=0.1", "oracle"), {"gated+explore=0.1": "exploring"})
    assert list(found["arms"]) == ["gated", "exploring", "oracle"]
    assert "| exploring |" in arms_table(found)
    assert load_sweep().labels.keys() <= {arm for group in load_sweep().groups.values() for arm in group.arms}


def test_a_figure_is_drawn_for_each_result(tmp_path: Path) -> None:
    written = write_plots(tmp_path, {"small": result("gated", "random", "oracle", seeds=1)})
    assert [path.name for path in written] == ["small.svg"]
    assert "gated" in written[0].read_text()


def test_the_committed_page_is_of_the_committed_results(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text((HERE / "README.md").read_text())
    sweep = load_sweep()
    found = {name: labelled(result, sweep.labels) for name, result in read_results(HERE / "results").items()}
    write_tables(page, found, sweep.groups)
    assert page.read_text() == (HERE / "README.md").read_text()


def test_a_wrong_sweep_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text("groups: {small: {arms: [], seed: 2}}")
    with pytest.raises(ConfigError, match=r"groups\.small\.(arms|seed)"):
        load_sweep(tmp_path / "sweep.yaml")
