"""The speed benchmark: real measurements in processes of their own, growth, Pareto fronts, what falls short."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import yaml
from rich.console import Console

from benchmarks.common.frontiers import pareto_front
from benchmarks.speed.check import CLAIMS, Claim, judge, load_claims
from benchmarks.speed.growth import fit_exponent
from benchmarks.speed.logs import write_log
from benchmarks.speed.peers.vector_search import of_one_length, with_zero
from benchmarks.speed.plots import write_plots
from benchmarks.speed.results import Results, write_result
from benchmarks.speed.rows import training_data, training_step
from benchmarks.speed.rows.search import _in_turns
from benchmarks.speed.runner import measure_all, turns
from benchmarks.speed.sweep import PlannedCase, Row, load_sweep
from benchmarks.speed.tables import all_tables, as_measured, outcome
from pipelines.training_data import prepare
from recall.config.experiment import load_config
from recall.core.errors import ConfigError
from recall.data.prepared import PreparedData

ROOT = Path(__file__).resolve().parents[2]
WORK = """
import os, subprocess, sys, time

def prepare(scratch, **case):
    (scratch / "prepared.txt").write_text(str(os.getpid()))

def measure(scratch, *, size, system="recall", child_megabytes=0, fail=False):
    if fail:
        raise RuntimeError("this machine is out of luck")
    code = f"import time; held = b'x' * ({child_megabytes} << 20); time.sleep(0.5)"
    if child_megabytes:
        subprocess.run([sys.executable, "-c", code], check=True)
    with (scratch / "order.txt").open("a") as order:
        order.write(f"{size} ")
    prepared_here = (scratch / "prepared.txt").read_text() == str(os.getpid())
    return {"seconds": 0.001 * size, "recalls": [0.1, 0.2], "prepared_here": prepared_here,
            "cores": len(os.sched_getaffinity(0)), "threads": int(os.environ["OMP_NUM_THREADS"])}
"""


def write_sweep(folder: Path, cases: dict[str, dict[str, Any]], **settings: Any) -> Path:
    row = {"title": "t", "module": "a_row", "cores": 1, "repeats": 2, "shown": {"seconds": "s"}, "cases": cases}
    (folder / "a_row.py").write_text(WORK)
    (folder / "sweep.yaml").write_text(yaml.safe_dump({"rows": {"work": {**row, "small": {}, **settings}}}))
    return folder / "sweep.yaml"


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[PlannedCase]]:
    folder = tmp_path_factory.mktemp("measured")
    cases = {"one": {"size": 1}, "ten": {"size": 10, "child_megabytes": 200}, "broken": {"size": 5, "fail": True}}
    sweep = load_sweep(write_sweep(folder, cases))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        failed = measure_all(
            sweep, sweep.plan(), out=folder / "out", results=folder / "results", command=["me"],
            console=Console(quiet=True),
        )  # fmt: skip
    return folder, failed


def test_cases_of_a_row_take_turns(measured: tuple[Path, list[PlannedCase]]) -> None:
    assert (measured[0] / "out" / "work" / "order.txt").read_text().split() == ["1", "10", "1", "10"]


def test_every_repeat_is_kept_with_where_it_comes_from(measured: tuple[Path, list[PlannedCase]]) -> None:
    content = json.loads((measured[0] / "results" / "work" / "ten.json").read_text())
    assert [one["seconds"] for one in content["repeats"]] == [0.01, 0.01]
    assert content["median"]["recalls"] == [0.1, 0.2]
    assert content["arguments"] == {"size": 10, "child_megabytes": 200}
    assert {"commit", "versions", "cpu", "cores", "threads"} <= set(content["environment"])


def test_process_is_kept_to_its_cores_and_preparation_has_another(measured: tuple[Path, list[PlannedCase]]) -> None:
    (result,) = Results(measured[0] / "results").matching("work/one")
    assert result.median["cores"] == 1
    assert result.median["threads"] == 1
    assert result.median["prepared_here"] == 0


def test_memory_is_that_of_the_whole_process_tree(measured: tuple[Path, list[PlannedCase]]) -> None:
    one, ten = (Results(measured[0] / "results").matching(f"work/{case}")[0] for case in ("one", "ten"))
    assert ten.median["peak_rss_bytes"] - one.median["peak_rss_bytes"] > 200 << 20


def test_failed_case_is_named_and_leaves_no_result(measured: tuple[Path, list[PlannedCase]]) -> None:
    folder, failed = measured
    assert [case.name for case in failed] == ["work/broken"]
    assert not (folder / "results" / "work" / "broken.json").exists()
    assert "out of luck" in (folder / "out" / "work" / "logs" / "broken.txt").read_text()


def test_an_interrupted_row_leaves_the_turns_that_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Impatient(Console):
        def print(self, *objects: Any, **_: Any) -> None:
            if "work/one 2/2" in str(objects):
                raise KeyboardInterrupt

    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    sweep = load_sweep(write_sweep(tmp_path, {"one": {"size": 1}, "two": {"size": 2}}))
    folders = {"out": tmp_path / "out", "results": tmp_path / "results"}
    with pytest.raises(KeyboardInterrupt):
        measure_all(sweep, sweep.plan(), **folders, command=["me"], console=Impatient())
    results = Results(tmp_path / "results").matching("work/*")
    assert {result.name: result.median["seconds"] for result in results} == {"work/one": 0.001, "work/two": 0.002}
    for case in ("one", "two"):
        assert len(json.loads((tmp_path / "results" / "work" / f"{case}.json").read_text())["repeats"]) == 1


def test_cases_with_fewer_repeats_sit_out_later_turns() -> None:
    row = Row(
        title="t", cores=1, repeats=3, repeats_of={"slow*": 1}, shown={}, small={}, cases={"slow": {}, "quick": {}}
    )
    cases = [PlannedCase("r", name, {}) for name in row.cases]
    assert [turn.case.case for turn in turns(row, cases)] == ["slow", "quick", "quick", "quick"]


def test_globs_choose_rows_and_cases(tmp_path: Path) -> None:
    sweep = load_sweep(write_sweep(tmp_path, {"one": {}, "two": {}}))
    assert [case.case for case in sweep.plan(["work"])] == ["one", "two"]
    assert [case.case for case in sweep.plan(["work/t*"])] == ["two"]
    with pytest.raises(ConfigError, match=r"--only walk: matches no ROW/CASE; rows are work"):
        sweep.plan(["walk"])


# Judging


def put(folder: Path, case: str, *seconds: float, date: str = "today", **more: Any) -> None:
    arguments = more.pop("arguments", {})
    repeats = [{"seconds": value, **more} for value in seconds]
    about = {"arguments": arguments, "date": date, "environment": ENVIRONMENT}
    write_result(folder, "work", case, repeats=repeats, about=about)


ENVIRONMENT = {"commit": "c", "versions": {"python": "3"}, "cpu": "x", "cores": 2, "threads": 1}


def claim(what: dict[str, Any], over: dict[str, Any] | None = None, **bound: float) -> Claim:
    return Claim.model_validate({"row": "work", "claim": "words", "what": what, "over": over, **bound})


OURS, THEIRS = ({"case": case, "measure": "seconds"} for case in ("ours", "theirs"))


def test_ratio_is_of_medians_and_its_range_of_pairs(tmp_path: Path) -> None:
    put(tmp_path, "ours", 1.0, 2.0, 6.0)
    put(tmp_path, "theirs", 4.0, 4.0, 4.0)
    (verdict,) = judge([claim(OURS, THEIRS, at_most=0.5)], Results(tmp_path))
    assert (verdict.value, verdict.lowest, verdict.highest) == (0.5, 0.25, 1.5)
    assert verdict.holds


def test_one_pair_of_repeats_has_no_range(tmp_path: Path) -> None:
    put(tmp_path, "ours", 1.0, 2.0, 6.0)
    put(tmp_path, "theirs", 4.0)
    (verdict,) = judge([claim(OURS, THEIRS, at_most=0.5)], Results(tmp_path))
    assert (verdict.value, verdict.lowest, verdict.highest) == (0.5, None, None)


@pytest.mark.parametrize(
    ("seconds", "shown"), [(1.403, "1.403"), (1.4, "1.4"), (1.452, "1.45")], ids=["just over", "at it", "over"]
)
def test_what_just_misses_its_bound_is_shown_to_miss_it(tmp_path: Path, seconds: float, shown: str) -> None:
    put(tmp_path, "ours", seconds)
    (verdict,) = judge([claim(OURS, at_most=1.4)], Results(tmp_path))
    assert as_measured(verdict) == shown
    assert verdict.holds == (seconds <= 1.4)


@pytest.mark.parametrize(("bound", "holds"), [({"at_most": 1.9}, False), ({"at_least": 1.9}, True)])
def test_bounds_work_both_ways(tmp_path: Path, bound: dict[str, float], holds: bool) -> None:
    put(tmp_path, "ours", 2.0)
    assert judge([claim(OURS, **bound)], Results(tmp_path))[0].holds is holds


def test_results_of_different_runs_are_not_compared(tmp_path: Path) -> None:
    put(tmp_path, "ours", 1.0)
    put(tmp_path, "theirs", 4.0, date="yesterday")
    (verdict,) = judge([claim(OURS, THEIRS, at_most=1)], Results(tmp_path))
    assert not verdict.holds
    assert "run the whole row again" in str(verdict.problem)


def test_best_point_of_curves_that_are_good_enough_counts(tmp_path: Path) -> None:
    put(tmp_path, "peer-a", 1.0, recall=[0.90, 0.96, 0.99], qps=[900.0, 500.0, 100.0])
    put(tmp_path, "peer-b", 1.0, recall=[0.94, 0.95], qps=[990.0, 700.0])
    best = {"case": "peer-*", "measure": "qps", "where": {"recall": 0.95}, "best": "highest"}
    assert judge([claim(best, at_least=1)], Results(tmp_path))[0].value == 700.0
    undecided = claim({**best, "best": None}, at_least=1)
    assert "say which is best" in str(judge([undecided], Results(tmp_path))[0].problem)


def at_95(case: str) -> dict[str, Any]:
    return {"case": case, "measure": "qps", "where": {"recall": 0.95}, "best": "highest"}


def put_curves(folder: Path, **recalls: list[float]) -> Results:
    """Curves of cases by their recall; queries per second are 900, 500 and so on."""
    for case, recall in recalls.items():
        put(folder, case, 1.0, recall=recall, qps=[900.0, 500.0, 100.0][: len(recall)])
    return Results(folder)


def test_rival_that_never_comes_so_far_is_beaten_where_the_claim_says_so(tmp_path: Path) -> None:
    results = put_curves(tmp_path, ours=[0.9, 0.96], theirs=[0.8, 0.931, 0.92])
    won, open_claim = judge(
        [
            claim(at_95("ours"), at_95("theirs"), at_least=1, unreached_holds=True),
            claim(at_95("ours"), at_95("theirs"), at_least=1),
        ],
        results,
    )
    assert (won.holds, open_claim.holds) == (True, False)
    assert outcome(won) == "holds: not reached by theirs (best recall 0.931)"
    assert outcome(open_claim) == "not reached by theirs (best recall 0.931)"


def test_who_never_comes_so_far_beats_nobody(tmp_path: Path) -> None:
    results = put_curves(tmp_path, ours=[0.9, 0.94], theirs=[0.8, 0.93])
    (verdict,) = judge([claim(at_95("ours"), at_95("theirs"), at_least=1, unreached_holds=True)], results)
    assert not verdict.holds
    assert outcome(verdict) == "not reached by ours (best recall 0.940)"


def test_rival_that_comes_so_far_is_compared_by_numbers(tmp_path: Path) -> None:
    results = put_curves(tmp_path, ours=[0.9, 0.96], theirs=[0.96])
    (verdict,) = judge([claim(at_95("ours"), at_95("theirs"), at_least=1, unreached_holds=True)], results)
    assert verdict.value == pytest.approx(500 / 900)
    assert not verdict.holds


def test_only_what_a_rival_has_to_reach_can_stay_unreached() -> None:
    with pytest.raises(ValueError, match="unreached_holds needs"):
        claim(OURS, THEIRS, at_least=1, unreached_holds=True)


def test_exponent_of_measured_growth_can_be_claimed(tmp_path: Path) -> None:
    for size in (10, 100, 1000):
        put(tmp_path, f"ours-{size}", 3e-3 * size**1.5, arguments={"events": size})
    growth = {"case": "ours-*", "measure": "seconds", "exponent_over": "events"}
    (verdict,) = judge([claim(growth, at_most=1.6)], Results(tmp_path))
    assert verdict.value == pytest.approx(1.5)


def test_exponent_needs_two_sizes() -> None:
    assert fit_exponent([10, 100, 1000], [5, 5, 5]) == pytest.approx(0)
    assert fit_exponent([10, 10], [1, 2]) is None


def test_claim_has_one_bound() -> None:
    with pytest.raises(ValueError, match="either at_most or at_least"):
        claim(OURS)


def test_pareto_front_drops_what_is_beaten_in_both() -> None:
    points = np.array([[0.9, 10.0], [0.95, 12.0], [0.99, 3.0], [0.97, 2.0], [0.99, 1.0]])
    assert pareto_front(points).tolist() == [[0.95, 12.0], [0.99, 3.0]]


def test_tables_and_plots_come_from_results(tmp_path: Path) -> None:
    growth, pareto = [{"over": "events", "measure": "seconds"}], [{"x": "recall", "y": "qps"}]
    cases = {f"ours-{size}": {"system": "recall", "events": size} for size in (10, 1000)}
    sweep = load_sweep(write_sweep(tmp_path, cases, growth=growth, pareto=pareto))
    for name, arguments in cases.items():
        put(tmp_path, name, 0.5 * arguments["events"], arguments=arguments, recall=[0.9, 0.95], qps=[20.0, 10.0])
    results = Results(tmp_path)
    tables = all_tables(sweep, results, judge([claim({"case": "ours-10", "measure": "seconds"}, at_most=4)], results))
    assert "| work | words | ≤ 4 | 5 | – | – | falls short |" in tables["claims"]
    assert "| ours-1000 | 500 | 1 |" in tables["work"]
    assert "| work | seconds over events | recall | 10 – 1,000 | 1.00 |" in tables["growth"]
    written = write_plots(tmp_path / "plots", sweep, results)
    assert [path.name for path in written] == ["work-growth.svg", "work-pareto.svg"]


# The command line, and what is committed


def benchmarks(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        capture_output=True, text=True, cwd=ROOT, env={**os.environ, "COLUMNS": "200", **environment}, timeout=120,
    )  # fmt: skip


def test_check_fails_and_names_what_falls_short(tmp_path: Path) -> None:
    put(tmp_path, "ours", 3.0)
    claims = [claim(OURS, at_most=bound) for bound in (2, 4)]
    (tmp_path / "claims.yaml").write_text(yaml.safe_dump({"claims": [one.model_dump() for one in claims]}))
    finished = benchmarks("--check", "--results", str(tmp_path), "--claims", str(tmp_path / "claims.yaml"))
    assert finished.returncode == 1
    assert "1 of 2 claims hold" in finished.stdout
    assert "work: words: measured 3, wanted ≤ 2" in finished.stdout


def test_committed_claims_name_measured_cases() -> None:
    sweep = load_sweep()
    for one in load_claims(CLAIMS):
        for quantity in filter(None, (one.what, one.over)):
            arguments = [case.case for case in sweep.plan([f"{one.row}/{quantity.case}"])]
            assert arguments, one


def test_a_row_is_measured_from_the_command_line(tmp_path: Path) -> None:
    finished = benchmarks("run", "--small", "--only", "training_data/recall*", "--out", str(tmp_path))
    assert finished.returncode == 0, finished.stderr
    (result,) = Results(tmp_path / "small" / "results").matching("training_data/*")
    assert result.median["seconds"] > 0
    assert result.median["bytes_written"] > 100_000
    assert not list((tmp_path / "small" / "training_data").glob("out-*"))  # what a case writes does not stay


# The peers do the same work


COMPARED = ("item", "trigger", "history", "history_time_ms", "exposures", "clicks", "smoothed_ctr", "age_hours")


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("log") / "log"
    write_log(folder, events=10_000)
    return folder


@pytest.fixture(scope="module")
def ours(log: Path) -> dict[str, pd.DataFrame]:
    """The library's examples of each split."""
    data = log.parent / "data"
    prepare(load_config(training_data.write_experiment(log)), data)
    return {split: as_frame(PreparedData.load(data).shards(split)) for split in ("train", "test")}


def as_frame(shards: list[Path]) -> pd.DataFrame:
    """Records by user and time; single numbers as numbers."""
    rows = []
    for record in tf.data.TFRecordDataset([str(path) for path in shards]).as_numpy_iterator():
        features = tf.train.Example.FromString(record).features.feature
        row = {name: list(getattr(value, value.WhichOneof("kind")).value) for name, value in features.items()}
        lists = ("history", "history_time_ms", "seen")
        rows.append({name: value if name in lists else value[0] for name, value in row.items()})
        rows[-1]["user_id"] = rows[-1]["user_id"].decode()
    return pd.DataFrame(rows).sort_values(["user_id", "time_ms"], ignore_index=True)


def assert_same_examples(theirs: pd.DataFrame, ours: pd.DataFrame, *, columns: tuple[str, ...]) -> None:
    theirs = theirs.sort_values(["user_id", "time_ms"], ignore_index=True)
    for name in ("user_id", "time_ms", *columns):
        if isinstance(ours[name][0], float):
            np.testing.assert_allclose(theirs[name], ours[name], rtol=1e-5)
        else:
            assert [np.ravel(row).tolist() for row in theirs[name]] == [np.ravel(row).tolist() for row in ours[name]]


def test_polars_makes_the_same_examples(log: Path, ours: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    pytest.importorskip("polars")
    from benchmarks.speed.peers import polars_job

    polars_job.prepare(log, tmp_path / "out")
    for split, columns in (("train", COMPARED), ("test", (*COMPARED, "seen"))):
        theirs = pd.read_parquet(tmp_path / "out" / f"{split}.parquet").rename(columns={"row": "item"})
        assert_same_examples(theirs, ours[split], columns=columns)


def test_beam_element_by_element_finds_the_same_histories(
    log: Path, ours: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    from benchmarks.speed.peers import beam_elements

    beam_elements.prepare(log, tmp_path / "out")
    # It splits at given moments and takes the prior as known, so that all clicks are compared, without the CTR.
    theirs = pd.concat([as_frame(sorted((tmp_path / "out").glob(f"{name}-*"))) for name in ("train", "test")])
    columns = tuple(name for name in COMPARED if name != "smoothed_ctr")
    known = ours["train"].merge(theirs[["user_id", "time_ms"]])
    both = theirs.merge(known[["user_id", "time_ms"]])
    assert len(both) > 0.95 * len(ours["train"])
    assert_same_examples(both, known, columns=columns)


def test_graphs_get_items_of_one_length_and_the_same_inner_products() -> None:
    random = np.random.default_rng(0)
    items, queries = random.normal(size=(50, 8)).astype(np.float32), random.normal(size=(5, 8)).astype(np.float32)
    longer = of_one_length(items)
    longest = np.linalg.norm(items, axis=1).max()
    np.testing.assert_allclose(np.linalg.norm(longer, axis=1), longest, rtol=1e-6)
    np.testing.assert_allclose(with_zero(queries) @ longer.T, queries @ items.T, rtol=1e-6)
    assert with_zero(queries[0]).shape == (9,)


def test_systems_that_take_turns_are_asked_all_queries() -> None:
    queries = np.arange(20, dtype=np.float32).reshape(20, 1)
    asked: tuple[set[float], set[float]] = (set(), set())
    rates = _in_turns([lambda part, own=own: own.update(part[:, 0].tolist()) for own in asked], queries, together=5)
    assert [len(own) for own in asked] == [20, 20]
    assert min(rates) > 0


@pytest.mark.parametrize("system", ["recall", "TFRS adam", "input"])
def test_training_steps_are_timed(system: str, tmp_path: Path) -> None:
    case = {"system": system, "items": 300, "batch": 16, "steps": 2}
    training_step.prepare(tmp_path, **case)
    measured = training_step.measure(tmp_path, **case)
    assert measured["examples_per_second"] == pytest.approx(16 / measured["seconds_per_step"])
    assert measured["seconds_per_step"] > 0
