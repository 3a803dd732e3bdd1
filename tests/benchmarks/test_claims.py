"""The quality benchmark: slices, claims, intervals, tables and plots, derived from results made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from benchmarks.common.pages import replace_tables
from benchmarks.quality.bias import WARM
from benchmarks.quality.claims import LIVE_RIVALS, RIVALS, Claim, check_claims, check_live_claims, dominance_margin
from benchmarks.quality.comparisons import Comparison, Comparisons
from benchmarks.quality.data import DataFolder
from benchmarks.quality.live import live_tables
from benchmarks.quality.plots import write_plots
from benchmarks.quality.results import Ranks, Results, write_result
from benchmarks.quality.slices import METRICS, block_value, slice_members, slice_values
from benchmarks.quality.sweep import PlannedRun, Sweep, load_sweep
from benchmarks.quality.tables import all_tables, models_table, open_claims_table
from recall.core.errors import ArtifactError

# Slices


def _block(**values: float) -> dict[str, Any]:
    """A model's part of metrics.json in which a slice has the same recall@50 and half of it as ndcg@50."""

    def metrics(value: float) -> dict[str, Any]:
        return {"examples": 10, "recall@50": value, "ndcg@50": value / 2}

    buckets = [{"from": 0, "to": 99, **metrics(values["all"])}]
    buckets += [{"from": 100, "to": 999, **metrics(values["warm_100"])}]
    buckets += [{"from": 1000, "to": None, **metrics(values["warm_1000"])}]
    return {
        **{name: metrics(values[name]) for name in ("all", "cold", "cold_among_cold")},
        "by_exposures": buckets,
        "ecology": {"coverage@100": values["coverage"], "cold_share@100": values["cold_share"]},
    }


_OURS = {
    "all": 0.30, "cold": 0.20, "cold_among_cold": 0.30, "warm_100": 0.35, "warm_1000": 0.45,
    "coverage": 0.6, "cold_share": 0.2,
}  # fmt: skip
_RIVAL = {**_OURS, "all": 0.25, "cold": 0.20, "coverage": 0.5, "cold_share": 0.1}


def test_warm_slice_is_the_mean_of_its_buckets() -> None:
    block = _block(**_OURS)
    block["by_exposures"][1]["examples"] = 30
    # 30 examples of .35 and 10 of .45
    assert block_value(block, "warm_100", "recall@50") == pytest.approx(0.375)
    assert block_value(block, "warm_1000", "recall@50") == pytest.approx(0.45)
    assert block_value(block, "cold", "ndcg@50") == pytest.approx(0.1)


# Claims and tables


def _content(name: str, values: dict[str, float], *, curve: tuple[list[float], list[float]]) -> dict[str, Any]:
    points = {"level": [0.0, 1.0], "bias": [0.0, 1.0], "all": curve[1], "cold": curve[0]}
    return {
        "made_of": {"settings": {}, "data": "d", "intervention": None, "baseline": None},
        "environment": {"commit": "c", "versions": {"numpy": "2"}, "cpu": "cpu", "cores": 2, "threads": 1},
        "catalogue": {"items": 1000, "cold": {"validation": 200, "test": 200}},
        "metrics": {"test": {name: _block(**values)}},
        "gate_share": [{"from": 0, "to": 0, "items": 3, "share": 0.25}] if name == "gated" else None,
        "bias_curve": {"test": {**points, **dict.fromkeys(WARM, curve[1])}},
    }


def _checked(folder: Path, ours: dict[str, float], *, low: float = 0.01) -> list[Claim]:
    """Claims on one data set where every rival has `_RIVAL` and every interval starts at `low`."""
    write_result(PlannedRun("gated", "demo", 1), _content("gated", ours, curve=([0.2, 0.5], [0.4, 0.2])), folder)
    for rival in RIVALS:
        content = _content(rival, _RIVAL, curve=([0.1, 0.4], [0.3, 0.1]))
        write_result(PlannedRun(rival, "demo", 1), content, folder)
    results = Results(folder)
    return check_claims(results, _AllIntervals(low), ("demo",))


class _AllIntervals(Comparisons):
    """Knows an interval for every comparison."""

    def __init__(self, low: float) -> None:
        self._low = low

    def find(self, first: str, second: str, data: str, slice_name: str, metric: str) -> Comparison:
        return Comparison(
            first, second, data, slice_name, metric, 10, self._low + 0.02, self._low, self._low + 0.04, ""
        )


def _broken(claims: list[Claim]) -> set[str]:
    return {claim.statement for claim in claims if claim.holds is False}


def test_model_that_is_better_everywhere_keeps_every_claim(tmp_path: Path) -> None:
    claims = _checked(tmp_path, _OURS)
    assert _broken(claims) == set()
    assert {claim.topic for claim in claims} == {"cold", "warm", "all", "ecology", "dominance"}
    assert all(claim.holds for claim in claims)


def test_94_percent_of_the_meta_tower_is_not_enough(tmp_path: Path) -> None:
    assert _broken(_checked(tmp_path, {**_OURS, "cold": 0.188})) == {
        "cold recall@50 at least 95% of meta_only",
        "cold ndcg@50 at least 95% of meta_only",
    }


def test_99_percent_of_the_behaviour_tower_is_not_enough(tmp_path: Path) -> None:
    broken = _broken(_checked(tmp_path, {**_OURS, "warm_1000": 0.4455}))
    assert "≥ 1000 exposures recall@50 at least 100% of behaviour_only" in broken


def test_difference_whose_interval_holds_zero_is_no_difference(tmp_path: Path) -> None:
    broken = _broken(_checked(tmp_path, _OURS, low=-0.001))
    assert {f"all {metric} above {rival}" for metric in METRICS for rival in RIVALS} <= broken
    assert "cold recall@50 above chance" in broken


def test_missing_results_and_intervals_break_claims(tmp_path: Path) -> None:
    results = Results(tmp_path)
    claims = check_claims(results, Comparisons([], results), ("demo",))
    assert claims
    assert not any(claim.holds for claim in claims)
    assert open_claims_table(claims) == f"{len(claims)} claims have no result yet."


def test_claims_that_a_data_set_cannot_answer_are_left_open(tmp_path: Path) -> None:
    ours = _content("gated", _OURS, curve=([0.2, 0.5], [0.4, 0.2]))
    ours["catalogue"]["cold"]["test"] = 45  # a list of 50 holds them all
    write_result(PlannedRun("gated", "demo", 1), ours, tmp_path)
    claims = check_claims(Results(tmp_path), _AllIntervals(0.1), ("demo",))
    among_cold = [claim for claim in claims if claim.statement.startswith("cold among cold")]
    assert {claim.holds for claim in among_cold} == {None}


def test_dominance_is_measured_on_the_mean_curves(tmp_path: Path) -> None:
    for seed, warm in ((1, [0.5, 0.3]), (2, [0.3, 0.1])):
        write_result(PlannedRun("gated", "demo", seed), _content("gated", _OURS, curve=([0.2, 0.5], warm)), tmp_path)
    write_result(PlannedRun("single", "demo", 1), _content("single", _RIVAL, curve=([0.2, 0.5], [0.3, 0.3])), tmp_path)
    # Ours is .4 at .2 and .2 at .5; theirs stays at .3.
    assert dominance_margin(Results(tmp_path), "single", "demo", "warm_100") == (
        pytest.approx(-0.1),
        pytest.approx(0.5),
    )


def test_interval_of_results_that_have_changed_is_forgotten(tmp_path: Path) -> None:
    from benchmarks.quality.comparisons import update_comparisons

    pytest.importorskip("recall.evaluation.bootstrap", reason="intervals need recall.evaluation.bootstrap")
    sweep = _small_sweep()
    folder = DataFolder(tmp_path / "out", sweep.data)
    generator = np.random.default_rng(0)
    for name, best in (("gated", 100), ("single", 400)):
        run = PlannedRun(name, "demo", 1)
        write_result(run, _content(name, _OURS, curve=([0.2], [0.4])), tmp_path)
        rank = generator.integers(1, best, 500).astype(np.int32)
        zeros = np.zeros(500, np.int32)
        of_run = Ranks(np.arange(500, dtype=np.int32), rank % 40, zeros, np.zeros(500, bool), rank, zeros)
        _write_ranks(folder, run, of_run)
    assert update_comparisons(sweep, folder, Results(tmp_path), tmp_path, announce=lambda _: None)
    found = Comparisons.read(Results(tmp_path), tmp_path).find("gated", "single", "demo", "all", "recall@50")
    assert found is not None
    assert found.low > 0  # half of the ranks reach 50, against an eighth
    assert not update_comparisons(sweep, folder, Results(tmp_path), tmp_path, announce=lambda _: None)

    write_result(PlannedRun("single", "demo", 1), _content("single", _RIVAL, curve=([0.2], [0.4])), tmp_path)
    assert Comparisons.read(Results(tmp_path), tmp_path).find("gated", "single", "demo", "all", "recall@50") is None


def _write_ranks(folder: DataFolder, run: PlannedRun, of_run: Ranks) -> None:
    from benchmarks.quality.results import write_ranks

    write_ranks(folder.ranks_path(run), {"test": of_run})


def _small_sweep() -> Sweep:
    content = yaml.safe_load(
        """
        seeds: [1]
        data: {demo: {config: demo.yaml}}
        groups: {models: {data: [demo], reference: gated}, ablation: {data: [demo], reference: gated}}
        experiments: {gated: {groups: [models, ablation]}, single: {groups: [models, ablation], label: one tower}}
        """
    )
    return Sweep.model_validate(content)


def test_tables_come_between_markers_and_prose_stays(tmp_path: Path) -> None:
    sweep = _small_sweep()
    for name, values in (("gated", _OURS), ("single", _RIVAL)):
        write_result(PlannedRun(name, "demo", 1), _content(name, values, curve=([0.2], [0.4])), tmp_path)
    results = Results(tmp_path)
    claims = check_claims(results, _AllIntervals(0.1), ("demo",))
    page = tmp_path / "README.md"
    page.write_text("before\n\n<!-- table: models -->\nstale numbers\n<!-- end -->\n\nafter\n")
    replace_tables(page, all_tables(sweep, results, _AllIntervals(0.1), claims))
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "stale" not in text
    assert "| one tower | 0.2500 | 0.1250 | 0.2000 | 0.3000 | 0.4000 | 0.4500 | 0.5000 | 0.1000 |" in text
    assert "| chance | 0.0500 |" in text  # 50 of 1000 items
    replace_tables(page, all_tables(sweep, results, _AllIntervals(0.1), claims))
    assert page.read_text() == text


def test_table_averages_over_seeds(tmp_path: Path) -> None:
    for seed, recall in ((1, 0.2), (2, 0.4)):
        content = _content("gated", {**_OURS, "all": recall}, curve=([0.2], [0.4]))
        write_result(PlannedRun("gated", "demo", seed), content, tmp_path)
    assert "| gated | 0.3000 |" in models_table(_small_sweep(), Results(tmp_path), "demo")


def test_marker_without_table_is_an_error(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text("<!-- table: nonsense --><!-- end -->")
    with pytest.raises(ArtifactError, match="there is no table nonsense"):
        replace_tables(page, {"models": ""})


def test_page_of_the_repository_has_a_place_for_every_table() -> None:
    page = Path(__file__).resolve().parents[2] / "benchmarks" / "quality" / "README.md"
    results = Results(Path("/nonexistent"))
    tables = all_tables(load_sweep(), results, Comparisons([], results), [])
    text = page.read_text()
    assert all(f"<!-- table: {name} -->" in text for name in tables)


def test_plots_are_drawn_alike_from_equal_results(tmp_path: Path) -> None:
    for name, values in (("gated", _OURS), ("single", _RIVAL)):
        content = _content(name, values, curve=([0.2, 0.5], [0.4, 0.1]))
        write_result(PlannedRun(name, "demo", 1), content, tmp_path)
    results = Results(tmp_path)
    drawn = [
        {
            path.name: path.read_bytes()
            for path in write_plots(tmp_path / part, _small_sweep(), results, _AllIntervals(0.1))
        }
        for part in ("a", "b")
    ]
    assert set(drawn[0]) == {"dominance.svg", "gate.svg", "ablation.svg"}
    assert drawn[0] == drawn[1]


def test_cold_slices_hold_the_cold_targets_alone() -> None:
    three = np.array([1, 60, 2], np.int32)
    found = Ranks(np.arange(3, dtype=np.int32), three, np.array([0, 0, 200], np.int32),
                  np.array([True, True, False]), three, np.array([1, 3, 0], np.int32))  # fmt: skip
    assert slice_members(found, "warm_100").tolist() == [False, False, True]
    assert slice_values(found, "cold", "recall@50").tolist() == [1.0, 0.0]
    assert slice_values(found, "cold_among_cold", "recall@50").tolist() == [1.0, 1.0]
    assert slice_values(found, "all", "ndcg@50") == pytest.approx([1.0, 0.0, 0.63093], abs=1e-5)


# Rolling evaluation


def _rolling_block(recall: float) -> dict[str, Any]:
    """A model's part of metrics.json with a rolling part, frozen recall a tenth below the rolling one."""
    buckets = [
        {"from": lower, "to": None, "examples": 10, "recall@50": recall - place / 100, "ndcg@50": 0.1}
        for place, lower in enumerate((0, 1, 10, 100, 1000))
    ]
    rolling = {"all": {"examples": 50, "recall@50": recall, "ndcg@50": 0.1}, "by_exposures": buckets}
    return {**_block(**{**_OURS, "all": recall - 0.1}), "rolling": rolling}


def _live_results(folder: Path, **recalls: float) -> Results:
    for name, recall in recalls.items():
        content = _content(name, _OURS, curve=([0.2], [0.4]))
        content["metrics"]["test"] = {name: _rolling_block(recall)}
        write_result(PlannedRun(f"live_{name}", "demo", 1), content, folder)
    return Results(folder)


def _live_sweep() -> Sweep:
    content = yaml.safe_load(
        """
        seeds: [1]
        data: {demo: {config: demo.yaml}}
        groups: {live: {data: [demo], reference: live_gated}, live_ablation: {data: [demo], reference: live_gated}}
        experiments:
          live_gated: {groups: [live, live_ablation], label: gated}
          live_trending: {groups: [live], label: trending}
          live_blind: {groups: [live_ablation], label: blind}
        """
    )
    return Sweep.model_validate(content)


def test_rolling_slices_go_by_exposures_as_of_the_click() -> None:
    rank, frozen = np.array([1, 60, 2], np.int32), np.array([70, 70, 70], np.int32)
    found = Ranks(np.arange(3, dtype=np.int32), rank, np.zeros(3, np.int32), np.ones(3, bool), frozen, frozen,
                  np.array([9, 10, 99], np.int32), rank)  # fmt: skip
    assert slice_members(found, "rolling_1").tolist() == [True, False, False]
    assert slice_members(found, "rolling_10").tolist() == [False, True, True]
    assert slice_values(found, "rolling_10", "recall@50").tolist() == [0.0, 1.0]
    assert slice_values(found, "all", "recall@50").tolist() == [0.0, 0.0, 0.0]
    assert block_value(_rolling_block(0.3), "rolling_10", "recall@50") == pytest.approx(0.28)


def test_ranks_are_read_with_and_without_a_rolling_part(tmp_path: Path) -> None:
    from benchmarks.quality.results import read_ranks, write_ranks

    rank = np.array([3, 4], np.int32)
    frozen = Ranks(rank, rank, rank, np.zeros(2, bool), rank, rank)
    write_ranks(tmp_path / "ranks.npz", {"test": frozen, "validation": frozen._replace(rolling_rank=rank)})
    assert read_ranks(tmp_path / "ranks.npz", "test").rolling_rank is None
    assert read_ranks(tmp_path / "ranks.npz", "validation").rolling_rank.tolist() == [3, 4]
    assert not slice_members(frozen, "rolling").any()


def test_claims_of_the_rolling_evaluation_need_an_interval_above_zero(tmp_path: Path) -> None:
    results = _live_results(tmp_path, gated=0.4, trending=0.3)
    sure, unsure = (check_live_claims(results, _AllIntervals(low), ("demo",)) for low in (0.01, -0.01))
    assert all(claim.holds for claim in sure)
    assert {f"all clicks: above {rival}" for rival in LIVE_RIVALS} <= _broken(unsure)
    assert "all clicks: above the gate without posterior" in _broken(unsure)
    unmeasured = check_live_claims(results, Comparisons([], results), ("demo",))
    assert all(claim.is_unmeasured for claim in unmeasured)


def test_tables_of_the_rolling_evaluation_show_frozen_recall_and_what_does_not_hold(tmp_path: Path) -> None:
    results = _live_results(tmp_path, gated=0.4, trending=0.3, blind=0.41)
    intervals = _AllIntervals(0.01)
    claims = check_live_claims(results, _AllIntervals(-0.01), ("demo",))
    tables = live_tables(_live_sweep(), results, intervals, claims)
    assert "| gated | 1 | 0.4000 | 0.3000 | 0.4000 | 0.3900 | 0.3800 | 0.3700 | 0.3600 | – |" in tables["live"]
    assert "| trending | 1 | 0.3000 | 0.2000 |" in tables["live"]
    assert "**+0.0300** [+0.0100, +0.0500] |" in tables["live"]
    assert "blind" not in tables["live"]
    assert "| trending | 0.300 (0.200) |" in tables["live_short"]
    # The reference is better by .01 to .05, so that the change is worse by as much.
    assert "| blind | 0.4100 (**-0.0300** [-0.0500, -0.0100]) |" in tables["live_ablation"]
    assert "| all clicks: above trending | **does not hold**: +0.0100 [-0.0100, +0.0300] |" in tables["live_claims"]
