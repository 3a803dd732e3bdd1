"""Tests the benchmark of successive days: what it cuts, and what it shows of its results."""

from __future__ import annotations

import io
import itertools
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from benchmarks.every_day.measure import METRIC, Plan, results_table, write_log
from benchmarks.every_day.plot import write_plot
from benchmarks.every_day.refit import _cut
from recall.core.errors import RecallError
from tests.conftest import Experiment


def _day(day: int, seconds: float) -> dict[str, Any]:
    parts = {"prepare": 1.0, "train": 0.0, "go_on": 0.5, "refit": seconds}
    return {"day": day, "seconds": parts, "bytes": 2_000_000, METRIC: {"gated": 0.3, "trending": 0.2}}


@pytest.fixture
def result() -> dict[str, Any]:
    run = {"days": [_day(28, 90), _day(29, 3), _day(30, 3)], "whole": _day(29, 95), "judged": _day(30, 3)}
    return {"plan": {}, "seeds": [1], "runs": [run]}


def test_the_log_lies_in_a_file_per_day_and_none_is_lost(tmp_path: Path) -> None:
    write_log(tmp_path, Plan(Path("demo.yaml"), (), days=4, going_on=1, exposures=2_000), seed=1)
    files = sorted((tmp_path / "log").iterdir())
    assert [path.name for path in files] == ["01.parquet", "02.parquet", "03.parquet", "04.parquet"]
    times = [pq.read_table(path)["time_ms"].to_numpy() for path in files]
    assert all(before.max() < after.min() for before, after in itertools.pairwise(times))
    assert sum(map(len, times)) == pq.read_metadata(tmp_path / "events.parquet").num_rows


def test_the_last_day_of_a_log_is_cut_off(experiment: Experiment, tmp_path: Path) -> None:
    config = experiment()
    first, both = _cut(config, tmp_path)
    whole = pq.read_table(config.data.events.path)["time_ms"].to_numpy()
    kept = pq.read_table(first)["time_ms"].to_numpy()
    assert sorted(kept.tolist()) == sorted(whole[whole <= whole.max() - 86_400_000].tolist())
    assert both.endswith("/*.parquet")
    with pytest.raises(RecallError, match="expected one Parquet file"):
        _cut(experiment("data.events.path=x.csv"), tmp_path / "other")


def test_results_are_shown_and_drawn(result: dict[str, Any], tmp_path: Path) -> None:
    stream = io.StringIO()
    Console(file=stream, width=120).print(results_table(result))
    assert "whole, anew" in stream.getvalue()
    assert stream.getvalue().count("3.5") == 2
    (tmp_path / "demo.json").write_text(json.dumps(result))
    written = write_plot(tmp_path, tmp_path / "plots")
    assert all(path.stat().st_size > 1_000 for path in written)
