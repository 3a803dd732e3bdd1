"""Tests a run from end to end: the files it leaves, the steps it repeats and skips, and the needs of each step."""

from __future__ import annotations

import html.parser
import json
import math
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
import yaml

from recall.config.experiment import Config, load_config
from recall.core.artifacts import fingerprint, read_json, read_manifest, seal
from recall.core.errors import ArtifactError, ConfigError, DataError
from recall.data.prepared import PreparedData
from recall.index import load_index
from recall.model.vector_table import ItemVectorTable
from recall.runs.run import Run
from recall.runs.steps import compared_structures
from recall.serving.recaller import Recaller
from recall.training.published import load_model
from tests.conftest import Experiment
from tests.helpers.finished_run import CHEAP

if TYPE_CHECKING:
    from recall.model.recall_model import RecallModel
    from tests.helpers.finished_run import Printed


Printing = Callable[[Config, Path], "Printed"]

CONFIGURED, OTHERS = "behaviour_only", ("gated", "meta_only", "single", "base")  # of the cheap run
AFTERWARDS = ("vectors", "index", "evaluate", "report")


def state(directory: Path) -> dict[str, tuple[int, int, int]]:
    """Return inode, modification time and size of every file."""
    stats = {path: path.stat() for path in directory.rglob("*") if path.is_file()}
    return {
        str(path.relative_to(directory)): (stat.st_ino, stat.st_mtime_ns, stat.st_size) for path, stat in stats.items()
    }


def changed_parts(before: dict[str, tuple[int, int, int]], after: dict[str, tuple[int, int, int]]) -> set[str]:
    """List files and folders directly below the run in which something is new, gone or different."""
    return {name.split("/")[0] for name in {*before, *after} if before.get(name) != after.get(name)}


@pytest.fixture(scope="module")
def cheap(finish: Callable[[Config], Path], experiment: Experiment) -> Path:
    """Return a finished run whose models are quickly traced, whatever their structure."""
    return finish(experiment(*CHEAP))


@pytest.fixture(scope="module")
def compared(
    printing: Printing, cheap: Path, experiment: Experiment, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[str]]:
    """Return the finished cheap run after `--compare`, and the steps that this skipped."""
    directory = tmp_path_factory.mktemp("compared") / "run"
    shutil.copytree(cheap, directory)
    printed = printing(experiment(*CHEAP), directory)
    printed.run.all(compare=True)
    return directory, printed.skipped()


# What a run leaves


@pytest.mark.slow
def test_a_compared_run_holds_every_file_of_the_contract(compared: tuple[Path, list[str]]) -> None:
    directory, _ = compared
    parts = (
        "config.yaml data/manifest.json data/items.parquet data/posterior.parquet data/rejected.parquet model vectors"
    )
    for name in [*parts.split(), "index/CURRENT", "metrics.json", "report.html"]:
        assert (directory / name).exists(), name


@pytest.mark.slow
def test_metrics_of_a_compared_run_keep_the_contract(compared: tuple[Path, list[str]]) -> None:
    metrics = json.loads((compared[0] / "metrics.json").read_text(), parse_constant=refuse_constant)
    assert {"test", "validation", "index", "timing", "similar"} <= set(metrics)
    baselines = {"popularity", "item_knn", "content_knn", "content_knn_top3"}
    assert {CONFIGURED, *OTHERS, *baselines} <= set(metrics["test"])
    assert set(metrics["test"]) == set(metrics["validation"])
    for model, parts in metrics["test"].items():
        everything = parts["all"]
        assert isinstance(everything["examples"], int)
        for name in ("recall@10", "hit_rate@10", "ndcg@10", "recall@50", "recall@100", "mrr"):
            assert math.isfinite(everything[name]), (model, name)
            assert 0 <= everything[name] <= 1, (model, name)
        assert everything["recall@10"] == everything["hit_rate@10"]
        assert {"coverage@100", "gini@100", "cold_share@100", "novelty@100"} <= set(parts["ecology"])
        assert {"hub_share_10@100", "k_occurrence_skew@100"} <= set(parts["ecology"])
        assert {"cold", "cold_among_cold"} <= set(parts)
        assert sum(bucket["examples"] for bucket in parts["by_exposures"]) == everything["examples"], model
    assert metrics["index"]["recall@100_vs_exact"] == 1.0
    assert {"prepare_seconds", "train_behaviour_only_seconds", "train_base_seconds"} <= set(metrics["timing"])


def refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


@pytest.mark.slow
def test_compare_after_a_run_without_it_trains_only_what_is_missing(
    cheap: Path, compared: tuple[Path, list[str]]
) -> None:
    directory, skipped = compared
    assert skipped == ["prepare", f"train {CONFIGURED}", "vectors", "index"]
    for name in ("data/manifest.json", "model/manifest.json", "index/summary.json"):
        assert (directory / name).stat().st_mtime_ns == (cheap / name).stat().st_mtime_ns
    assert sorted(path.name for path in (directory / "compare").iterdir()) == sorted(OTHERS)
    for name in OTHERS:
        assert json.loads((directory / "compare" / name / "manifest.json").read_text())["structure"] == name


@pytest.mark.slow
def test_a_second_run_skips_every_step_and_touches_no_file(
    printing: Printing, compared: tuple[Path, list[str]], experiment: Experiment
) -> None:
    directory, _ = compared
    before = state(directory)
    printed = printing(experiment(*CHEAP), directory)
    metrics = printed.run.all(compare=True)
    assert printed.skipped() == ["prepare", *(f"train {name}" for name in (CONFIGURED, *OTHERS)), *AFTERWARDS]
    assert state(directory) == before
    assert metrics == read_json(directory / "metrics.json")


def test_config_notes_versions_and_commit_and_loads_as_the_same_experiment(finished: Path, settings: Config) -> None:
    header = [line for line in (finished / "config.yaml").read_text().splitlines() if line.startswith("#")]
    root = Path(__file__).resolve().parents[2]
    git = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    commit = header[0].split("commit ")[1]
    assert commit == "unknown" or git.stdout.startswith(commit)
    assert any(line == f"# tensorflow {tf.__version__}" for line in header)
    assert load_config(finished / "config.yaml") == settings


class References(html.parser.HTMLParser):
    """Collect everything that a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = {"link": ["href"], "image": ["href", "xlink:href"]}.get(tag, ["src", "srcset", "data", "xlink:href"])
        self.fetched += [value for name, value in attrs if name in names and value]


def test_report_is_one_file_that_fetches_nothing(finished: Path) -> None:
    references, page = References(), (finished / "report.html").read_text()
    references.feed(page)
    assert all(reference.startswith(("data:", "#")) for reference in references.fetched), references.fetched
    assert page.count("<svg") + page.count("data:image") >= 3, "a report has plots"
    assert "@import" not in page
    assert "gated" in page
    assert "popularity" in page


# Numbers recomputed by hand


def test_recall_of_popularity_is_what_the_raw_log_says(finished: Path, settings: Config) -> None:
    log = pd.read_parquet(settings.data.events.path).sort_values("time_ms")
    start = json.loads((finished / "data" / "manifest.json").read_text())["split"]["test_start_ms"]
    past, clicks = log[log.time_ms < start], log[log.is_click == 1]
    catalogue = pd.read_parquet(settings.data.items.path)["item_id"]
    popularity = past[past.is_click == 1].groupby("item_id").size().reindex(catalogue, fill_value=0)
    hits = []
    for click in clicks[clicks.time_ms >= start].itertuples():
        seen = set(clicks[(clicks.user_id == click.user_id) & (clicks.time_ms < click.time_ms)].item_id)
        rivals = popularity.drop(list(seen | {click.item_id}))
        hits.append(1 + (rivals >= popularity[click.item_id]).sum() <= 10)
    metrics = json.loads((finished / "metrics.json").read_text())["test"]["popularity"]["all"]
    assert metrics["examples"] == len(hits)
    assert metrics["recall@10"] == pytest.approx(np.mean(hits))


def test_recall_of_the_model_is_what_its_exported_towers_give_by_brute_force(finished: Path) -> None:
    prepared = PreparedData.load(finished / "data")
    ids = np.array(prepared.item_ids.to_pylist())
    targets, users, histories, seen = held_out_clicks(prepared)
    query = tf.saved_model.load(str(finished / "model" / "query"))
    longest = max(map(len, histories))
    padded = [[*ids[history], *[""] * (longest - len(history))] for history in histories]
    queries = query.signatures["user"](user_id=tf.constant(users), history=tf.constant(padded))["vector"].numpy()
    reported = json.loads((finished / "metrics.json").read_text())["test"]["gated"]
    vectors = vectors_as_of_test(finished, prepared, bias=reported["cold_bias"])
    hits = []
    for target, vector, clicked in zip(targets, queries, seen, strict=True):
        scores = vectors @ vector
        rivals = np.delete(scores, [*clicked, target])
        hits.append(1 + np.sum(rivals >= scores[target]) <= 10)
    # Two roundings of one score may order a near-tie differently: one example of slack.
    assert abs(reported["all"]["recall@10"] - np.mean(hits)) <= 1 / len(hits)


def held_out_clicks(prepared: PreparedData) -> tuple[list[int], list[bytes], list[list[int]], list[list[int]]]:
    """Read targets, users, histories and seen items of the test split, straight from the records."""
    features = []
    for record in tf.data.TFRecordDataset([str(path) for path in prepared.shards("test")]):
        features.append(tf.train.Example.FromString(record.numpy()).features.feature)
    return (
        [feature["item"].int64_list.value[0] for feature in features],
        [feature["user_id"].bytes_list.value[0] for feature in features],
        [list(feature["history"].int64_list.value) for feature in features],
        [list(feature["seen"].int64_list.value) for feature in features],
    )


def vectors_as_of_test(directory: Path, prepared: PreparedData, *, bias: float) -> np.ndarray:
    from recall.model.layers.features import FeatureTable

    item = tf.saved_model.load(str(directory / "model" / "item"))
    posterior = pq.read_table(directory / "data" / "posterior_test.parquet").to_pandas()
    totals = posterior[["exposures", "clicks", "smoothed_ctr", "age_hours"]].to_numpy(np.float32)
    columns = np.concatenate([totals, np.stack(posterior.fresh.to_list())], axis=1)
    features = FeatureTable(prepared.item_encoder.columns, prepared.items).variables
    inputs = {name: variable.value() for name, variable in features.items()}
    vectors: np.ndarray = item.vectors(inputs, tf.constant(columns))["vector"].numpy()
    vectors[:, -1] += bias / (1 + posterior.exposures.to_numpy() / 5)
    return vectors


def test_index_tells_which_bias_it_holds_and_what_each_of_them_would_have_brought(finished: Path) -> None:
    summary = json.loads((finished / "index" / "summary.json").read_text())
    assert json.loads((finished / "metrics.json").read_text())["index"]["cold_bias"] == summary["cold_bias"]
    report = load_index(finished / "index").report
    assert (report["cold_bias"], report["cold_bias_curve"]) == (summary["cold_bias"], summary["cold_bias_curve"])
    assert summary["cold_bias"] in [point["bias"] for point in summary["cold_bias_curve"]]
    assert "cold_bias" in (page := (finished / "report.html").read_text())
    assert "cold_bias_curve" not in page.split("The index")[-1]


# What is done again


@pytest.mark.slow
def test_other_index_settings_redo_index_evaluation_and_report_alone(
    printing: Printing, copied: Path, variant: Experiment
) -> None:
    before = state(copied)
    printed = printing(variant("index.kind=exact", "index.k=50"), copied)
    printed.run.all()
    assert printed.skipped() == ["prepare", "train gated", "vectors"]
    assert changed_parts(before, state(copied)) == {
        "index", "metrics.json", "ranks", "report.html", "config.yaml", "timing.json"
    }  # fmt: skip
    assert load_config(copied / "config.yaml").index.k == 50


@pytest.mark.slow
def test_an_index_in_shards_recalls_what_one_index_recalls(
    printing: Printing, copied: Path, variant: Experiment
) -> None:
    users = pq.read_table(copied / "data" / "histories.parquet")["user_id"].to_pylist()[:20]
    items = load_index(copied / "index").ids[:20]
    one = Recaller.load(copied)
    recalled, similar = one.recall(users=users, k=30), one.similar(items, k=30)
    summary = printing(variant("index.shards=3"), copied).run.index()
    assert (summary["kind"], summary["recall@100_vs_exact"], summary["cold_bias"]) == (
        "sharded", 1.0, json.loads((copied / "metrics.json").read_text())["index"]["cold_bias"]
    )  # fmt: skip
    sharded = Recaller.load(copied)
    assert sharded.recall(users=users, k=30).ids.tolist() == recalled.ids.tolist()
    assert sharded.similar(items, k=30).ids.tolist() == similar.ids.tolist()
    assert printing(variant("index.shards=3"), copied).run.index()["fingerprint"] == summary["fingerprint"]


@pytest.mark.slow
def test_a_run_that_was_indexed_before_there_were_shards_and_cosines_stays_done(
    printing: Printing, finished: Path, settings: Config
) -> None:
    of_vectors = json.loads((finished / "vectors" / "_manifest.json").read_text())["fingerprint"]
    index = settings.index.model_dump(mode="json")
    section = {key: value for key, value in index.items() if key not in ("shards", "similar")}
    summary = json.loads((finished / "index" / "summary.json").read_text())
    assert summary["fingerprint"] == fingerprint(of_vectors, section, settings.seed)


@pytest.mark.slow
def test_other_training_settings_redo_the_model_and_what_follows_from_it(
    printing: Printing, copied: Path, variant: Experiment
) -> None:
    before = state(copied)
    printed = printing(variant("training.learning_rate=0.02", *CHEAP[1:]), copied)
    run = printed.run
    run.prepare()
    with pytest.raises(ArtifactError, match=r"trained with other data or settings; run `recall train --run .*` again"):
        run.vectors()
    run.train()
    assert printed.skipped() == ["prepare"]
    # What was made of the model before is not taken for that of the new one.
    for step in (run.index, run.evaluate, run.report):
        with pytest.raises(ArtifactError, match=r"made by another model; run `recall vectors --run .*` again"):
            step()
    with pytest.raises(ArtifactError, match="holds vectors of model"):
        Recaller.load(copied)
    run.vectors()
    for step in (run.evaluate, run.report):
        with pytest.raises(ArtifactError, match=r"other vectors or settings; run `recall index --run .*` again"):
            step()
    run.index()
    with pytest.raises(ArtifactError, match=r"other models or settings; run `recall evaluate --run .*` again"):
        run.report()
    assert printed.skipped() == []
    assert changed_parts(before, state(copied)) == {"model", "vectors", "index", "config.yaml", "timing.json"}
    Recaller.load(copied)


@pytest.mark.slow
def test_steps_read_the_model_once_until_it_is_trained_again(
    copied: Path, settings: Config, prepared_data: PreparedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[RecallModel] = []

    def load_and_note(*arguments: Any) -> RecallModel:
        read.append(load_model(*arguments))
        return read[-1]

    monkeypatch.setattr("recall.training.published.load_model", load_and_note)
    vectors, run = copied / "vectors", Run(settings, copied)
    shutil.rmtree(vectors)
    shutil.rmtree(copied / "index")
    run.vectors()
    run.index()
    run.evaluate()
    run.report()
    assert len(read) == 1
    before = ItemVectorTable.read(vectors).vectors
    # The same data and settings, and so the same fingerprint; but weights of another training.
    [model], manifest = read, read_manifest(copied / "model", made_by="recall train")
    model.items.trainable_variables[0].assign_add(tf.ones_like(model.items.trainable_variables[0]))
    model.weights_checkpoint().write(str(copied / "model" / "checkpoint" / "best"))
    seal(copied / "model", manifest)
    shutil.rmtree(vectors)
    run.vectors()
    assert len(read) == 2
    assert np.abs(ItemVectorTable.read(vectors).vectors - before).max() > 0.01


@pytest.mark.slow
def test_a_changed_input_file_redoes_prepare(printing: Printing, community: Path, tmp_path: Path) -> None:
    shutil.copytree(community, tmp_path / "community")
    config = load_config(tmp_path / "community" / "experiment.yaml")
    printed = printing(config, tmp_path / "run")
    first = printed.run.prepare()
    assert printed.run.prepare() == first
    assert printed.skipped() == ["prepare"]

    events = pq.read_table(config.data.events.path)
    pq.write_table(events.slice(10), config.data.events.path)
    with pytest.raises(ArtifactError, match=r"other input files or settings; run `recall prepare --run .*` again"):
        printed.run.train()
    second = printed.run.prepare()
    assert printed.skipped() == []
    assert second["counts"]["rows_read"] == first["counts"]["rows_read"] - 10

    Path(config.data.items.path).unlink()
    with pytest.raises(ConfigError, match=r"data\.items\.path: .*items\.parquet: no such file"):
        printed.run.train()


# What a step needs


def test_a_folder_without_a_run_says_how_to_start_one(tmp_path: Path) -> None:
    for open_run in (Run.open, Recaller.load):
        with pytest.raises(ArtifactError, match=rf"run CONFIG\.yaml --out {tmp_path}`"):
            open_run(tmp_path)


@pytest.mark.parametrize(
    ("step", "parts", "command"),
    [
        (Run.train, (), "prepare --run DIR"),
        (Run.vectors, (), "prepare --run DIR"),
        (Run.vectors, ("data",), "train --run DIR"),
        (Run.index, ("data",), "train --run DIR"),
        (Run.index, ("data", "model"), "vectors --run DIR"),
        (Run.evaluate, ("data",), "train --run DIR"),
        (Run.evaluate, ("data", "model"), "vectors --run DIR"),
        (Run.evaluate, ("data", "model", "vectors"), "index --run DIR"),
        (lambda run: run.evaluate(compare=True), ("data", "model", "vectors", "index"), "train --run DIR --compare"),
        (Run.report, ("data",), "train --run DIR"),
        (Run.report, ("data", "model", "vectors", "index"), "evaluate --run DIR"),
        (lambda run: Recaller.load(run.directory), ("model", "index"), "prepare --run DIR"),
        (lambda run: Recaller.load(run.directory), ("data", "index"), "train --run DIR"),
        (lambda run: Recaller.load(run.directory), ("data", "model"), "index --run DIR"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else getattr(value, "__name__", None),
)
def test_a_step_alone_names_the_command_that_makes_what_it_lacks(
    finished: Path, settings: Config, tmp_path: Path, step: Callable[[Run], Any], parts: tuple[str, ...], command: str
) -> None:
    for part in parts:
        shutil.copytree(finished / part, tmp_path / part)
    with pytest.raises(ArtifactError, match="not there yet") as error:
        step(Run(settings, tmp_path))
    assert f"run `recall {command.replace('DIR', str(tmp_path))}` first" in str(error.value)


# Small things


def test_a_structure_without_its_features_is_left_out_of_the_comparison(community: Path, tmp_path: Path) -> None:
    content = yaml.safe_load((community / "experiment.yaml").read_text())
    content["features"]["meta"] = []
    content["model"]["structure"] = "behaviour_only"
    for source in ("events", "items", "users"):
        content["data"][source]["path"] = str(community / f"{source}.parquet")
    (tmp_path / "behaviour.yaml").write_text(yaml.safe_dump(content))
    assert compared_structures(load_config(tmp_path / "behaviour.yaml")) == ["single"]


def test_an_unusable_log_leaves_no_directory(community: Path, tmp_path: Path) -> None:
    config = load_config(community / "experiment.yaml", ["data.events.click={column: is_click, at_least: 2}"])
    with pytest.raises(DataError, match="is a click"):
        Run(config, tmp_path / "run").prepare()
    assert not (tmp_path / "run").exists()
