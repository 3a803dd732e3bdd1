"""Tests days as jobs: what each goes on from, what is published, and what stops a job."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from recall.core.artifacts import read_json
from recall.core.errors import ArtifactError, ConfigError, DataError
from recall.core.locks import sole_writer
from recall.data.prepared import PreparedData
from recall.model.inference import encode_items
from recall.runs.daily.daily import daily
from recall.runs.daily.guard import Guard
from recall.runs.run import Run
from recall.runs.since import Since
from recall.serving.recaller import Recaller
from recall.training.published import load_model
from tests.helpers.dated_log import ANYTHING, DAYS, FIRST, SETTINGS, DatedLog
from tests.helpers.finished_run import Outcome

pytestmark = pytest.mark.slow

NEXT = FIRST + 1


def _copied(dated_log: DatedLog, folder: Path) -> DatedLog:
    shutil.copytree(dated_log.runs, folder / "runs", symlinks=True)
    return dated_log._replace(runs=folder / "runs")


def test_a_day_goes_on_from_the_one_before_and_is_published(dated_log: DatedLog) -> None:
    first, second = (dated_log.runs / day.isoformat() for day in DAYS[FIRST : NEXT + 1])
    assert (dated_log.runs / "current").resolve() == second.resolve()
    assert read_json(second / "daily.json") == {
        "day": "2024-01-05", "from": "2024-01-04", "problems": [], "published": True,
    }  # fmt: skip
    data = PreparedData.load(second / "data")
    log = Path(dated_log.log.split("{date}")[0])
    known = [path for day in DAYS[: NEXT + 1] for path in (log / day.isoformat()).iterdir()]
    assert set(data.manifest["state"]["files"]) == {str(path) for path in known}
    assert data.manifest["since"]["end_ms"] == PreparedData.load(first / "data").manifest["last_time_ms"]
    assert len(Recaller.load(dated_log.runs / "current").recall([data.user_ids[0].as_py()], k=5).ids[0]) == 5


def test_a_day_is_judged_by_the_model_of_yesterday_on_what_is_new(dated_log: DatedLog) -> None:
    first, second = (dated_log.runs / day.isoformat() for day in DAYS[FIRST : NEXT + 1])
    before, now = (PreparedData.load(run / "data") for run in (first, second))
    yesterday = load_model(first / "model", before)
    judged = load_model(second / "evaluated", now.judged())
    posterior = now.posterior("validation")
    # Both answer the same of the items that both know: it is the same model.
    yesterday.items.id_clicks.assign(judged.items.id_clicks)
    np.testing.assert_allclose(
        encode_items(yesterday, posterior)[0], encode_items(judged, posterior)[0], rtol=1e-5, atol=1e-6
    )
    metrics = read_json(second / "metrics.json")
    days = metrics["days"]
    assert [day["until"][:10] for day in days] == ["2024-01-04", "2024-01-05"]
    assert days[0] == read_json(first / "metrics.json")["days"][0]
    assert days[1]["models"]["behaviour_only"] == metrics["test"]["behaviour_only"]["rolling"]["all"]
    assert "item_knn" not in metrics["test"]
    examples = now.manifest["counts"]["examples"]
    assert metrics["test"]["behaviour_only"]["all"]["examples"] == examples["test"]
    held_out = examples["validation"] + examples["test"]
    assert now.manifest["counts"]["records"]["refit"] == held_out
    assert "Day after day" in (second / "report.html").read_text()


def test_a_decided_day_is_not_taken_again(dated_log: DatedLog) -> None:
    found = daily(dated_log.config(), dated_log.runs, dated_log.log, day=DAYS[NEXT])
    assert (found.outcome, found.problems) == ("done before", ())


def test_days_are_taken_in_order(dated_log: DatedLog) -> None:
    with pytest.raises(ArtifactError, match="2024-01-05 is there already, and days are taken in order"):
        daily(dated_log.config(), dated_log.runs, dated_log.log, day=DAYS[FIRST - 1])


def test_a_refused_day_is_gone_over_by_the_next_one(
    dated_log: DatedLog, command: Callable[..., Outcome], tmp_path: Path
) -> None:
    copy = _copied(dated_log, tmp_path)
    refused = daily(copy.config(), copy.runs, copy.log, day=DAYS[NEXT + 1], guard=Guard(against_trending=100))
    assert refused.outcome == "refused"
    assert "below 100 x trending" in refused.problems[0]
    assert (copy.runs / "current").resolve().name == "2024-01-05"
    again = daily(copy.config(), copy.runs, copy.log, day=DAYS[NEXT + 1])
    assert (again.outcome, again.problems) == ("refused", refused.problems)
    published = daily(copy.config(), copy.runs, copy.log, day=DAYS[NEXT + 2], guard=ANYTHING, keep=2)
    assert published.outcome == "published"
    assert read_json(published.run / "daily.json")["from"] == "2024-01-05"
    files = PreparedData.load(published.run / "data").manifest["state"]["files"]
    assert {Path(path).parent.name for path in files} == {day.isoformat() for day in DAYS}
    # Two published runs stay, and the refused one between them.
    assert sorted(path.name for path in copy.runs.iterdir()) == [
        "2024-01-05", "2024-01-06", "2024-01-07", "current",
    ]  # fmt: skip
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    shown = command("daily", copy.experiment, "--runs", copy.runs, "--log", copy.log, "--date", "2024-01-06", *settings)
    assert shown.code == 3
    assert "2024-01-06: refused" in shown.err
    assert "below 100 x trending" in shown.err


def test_two_jobs_at_once_are_refused(dated_log: DatedLog, tmp_path: Path) -> None:
    copy = _copied(dated_log, tmp_path)
    with sole_writer(copy.runs / "daily"), pytest.raises(ArtifactError, match=r"another process .*is writing it"):
        daily(copy.config(), copy.runs, copy.log, day=DAYS[NEXT + 1])
    assert not (copy.runs / DAYS[NEXT + 1].isoformat()).exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("model.dim=16",), r"model.dim was 8, now 16; set it back, or leave --from out"),
        (("features.meta=[]", "model.structure=behaviour_only"), r"features.meta.* was .*, now absent"),
        (("data.history=9",), r"data.history was 8, now 9"),
        (("training.refit=none",), r"training.refit: found none"),
    ],
)
def test_a_changed_model_is_one_line_before_any_work(
    dated_log: DatedLog, tmp_path: Path, overrides: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        Run(dated_log.config(*overrides), tmp_path / "run", since=dated_log.runs / "current")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_what_may_change_from_day_to_day_does(dated_log: DatedLog) -> None:
    config = dated_log.config("training.learning_rate=0.001", "model.loss.uniform_negatives=16", "evaluation.k=[10,50]")
    since = Since.of(dated_log.runs / "current", config)
    assert since.data == PreparedData.load(dated_log.runs / "current" / "data").manifest["fingerprint"]


def test_a_run_that_is_missing_or_damaged_or_never_learned_its_end_is_refused(
    dated_log: DatedLog, tmp_path: Path
) -> None:
    with pytest.raises(ArtifactError, match=r"--from .*nowhere: holds no run"):
        Run(dated_log.config(), tmp_path / "run", since=tmp_path / "nowhere")
    copy = _copied(dated_log, tmp_path)
    (copy.runs / "current" / "model" / "manifest.json").unlink()
    with pytest.raises(ArtifactError, match=r"model: not there yet|model.*recall run"):
        Run(copy.config(), tmp_path / "run", since=copy.runs / "current")
    text = (copy.runs / "2024-01-04" / "config.yaml").read_text()
    (copy.runs / "2024-01-04" / "config.yaml").write_text(text.replace("refit: continue", "refit: none"))
    with pytest.raises(ConfigError, match="so that nobody ever would"):
        Run(copy.config(), tmp_path / "run", since=copy.runs / "2024-01-04")


def test_a_day_without_files_is_one_line(dated_log: DatedLog, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file"):
        daily(dated_log.config(), tmp_path / "runs", f"{tmp_path}/{{date}}/*.parquet")
    assert not (tmp_path / "runs").exists()


def test_a_run_stays_whole_when_the_one_before_it_is_gone(dated_log: DatedLog, tmp_path: Path) -> None:
    copy = _copied(dated_log, tmp_path)
    shutil.rmtree(copy.runs / "2024-01-04")
    run = Run.open(copy.runs / "2024-01-05")
    assert {state for _, state, _ in run.states()} == {"done"}
    assert json.loads((copy.runs / "2024-01-05" / "since.json").read_text())["run"].endswith("2024-01-04")
    assert pq.read_table(copy.runs / "2024-01-05" / "vectors" / "vectors.parquet").num_rows == 160
