"""Tests the refit: what is served learns from the whole log, and the model that is judged does not notice."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from recall.config.experiment import Config, load_config
from recall.core.artifacts import read_json
from recall.core.errors import ArtifactError, ConfigError
from recall.data.prepared import PreparedData
from recall.model.batches.dataset import Examples, UserRows, read_examples, training_dataset
from recall.model.carrying import carry_weights
from recall.model.inference import encode_items
from recall.model.recall_model import RecallModel
from recall.runs.run import Run
from recall.serving.recaller import Recaller
from recall.training.published import load_model, read_history
from recall.training.refit import refit
from tests.conftest import Experiment
from tests.helpers.finished_run import CHEAP, Printed
from tests.helpers.training_examples import parse

pytestmark = pytest.mark.slow

REFIT = (*CHEAP, "training.refit=continue", "features.behaviour=[{name: item_id, type: id, min_count: 2}]")


@pytest.fixture(scope="module")
def config(experiment: Experiment) -> Config:
    return experiment(*REFIT)


@pytest.fixture(scope="module")
def refitted(finish: Callable[[Config], Path], config: Config) -> Path:
    return finish(config)


@pytest.fixture(scope="module")
def plain(finish: Callable[[Config], Path], experiment: Experiment) -> Path:
    """Return the same run without a refit."""
    return finish(experiment(*REFIT, "training.refit=none"))


@pytest.fixture(scope="module")
def data(refitted: Path) -> PreparedData:
    return PreparedData.load(refitted / "data")


def test_a_judged_model_knows_what_it_would_know_without_the_refit(data: PreparedData, plain: Path) -> None:
    judged, without = data.judged(), PreparedData.load(plain / "data")
    assert judged.items.equals(without.items)
    assert judged.users_with_unknown().equals(without.users_with_unknown())
    assert judged.user_ids.equals(without.user_ids)
    assert judged.item_encoder.columns == without.item_encoder.columns
    assert judged.user_encoder.columns == without.user_encoder.columns
    np.testing.assert_array_equal(judged.sampling_counts, without.sampling_counts)
    np.testing.assert_array_equal(judged.learned_posterior.exposures, without.posterior("validation").exposures)
    assert judged.training_records == without.training_records
    assert [path.name for path in judged.shards("train")] == [path.name for path in without.shards("train")]
    assert without.judged() is without


def test_metrics_are_those_of_the_model_before_the_refit(refitted: Path, plain: Path) -> None:
    after, before = (read_json(folder / "metrics.json") for folder in (refitted, plain))
    assert after["test"] == before["test"]
    assert after["validation"] == before["validation"]
    assert after["index"]["cold_bias"] == before["index"]["cold_bias"]
    assert after["refit"] == "continue"
    assert "refit" not in before


def test_what_is_served_knows_ids_by_all_their_clicks(data: PreparedData, community: Path) -> None:
    events = pq.read_table(community / "events.parquet").to_pandas()
    clicks = events[events["is_click"] == 1]["item_id"].value_counts()
    frequent = set(clicks[clicks >= 2].index)
    vocabulary = data.item_encoder.vocabularies["item_id"]
    assert set(vocabulary.values.to_pylist()) == frequent
    added = vocabulary.values.to_pylist()[len(data.judged().item_encoder.vocabularies["item_id"].values) :]
    assert len(added) > 3
    known = dict(zip(data.item_ids.to_pylist(), data.judged().items["item_id"].to_pylist(), strict=True))
    assert {known[item] for item in added} == {1}
    expected = clicks.reindex(data.item_ids.to_pylist(), fill_value=0).to_numpy()
    np.testing.assert_array_equal(data.sampling_counts, expected)
    users = set(events[events["is_click"] == 1]["user_id"])
    assert users <= set(data.user_ids.to_pylist())


def _rows(examples: Examples) -> Counter[tuple[object, ...]]:
    lists = (examples.history, examples.history_times_ms)
    columns = [[tuple(ragged[row].tolist()) for row in range(len(examples))] for ragged in lists]
    return Counter(zip(examples.users, examples.targets, examples.times_ms, examples.triggers, *columns, strict=True))


def test_the_refit_learns_from_every_click_once_and_as_of_its_moment(data: PreparedData) -> None:
    held_out = Counter[tuple[object, ...]]()
    for split in ("train", "validation", "test"):
        held_out += _rows(read_examples(data.judged().shards(split)))
    assert _rows(read_examples(data.shards("train"))) == held_out
    assert data.training_records == held_out.total()


def test_by_user_the_refit_learns_from_every_click(experiment: Experiment, tmp_path: Path) -> None:
    Run(experiment(*REFIT, "data.layout=user"), tmp_path).prepare()
    data = PreparedData.load(tmp_path / "data")
    records = parse(data.shards("train"), lists=("items", "split"), scalars=())
    assert {split for record in records for split in record["split"]} == {0}
    assert sum(len(record["items"]) for record in records) == sum(data.manifest["counts"]["examples"].values())
    assert data.training_records == len(records) >= data.judged().training_records


def test_added_ids_begin_where_the_row_of_unknown_ids_had_put_them(
    refitted: Path, data: PreparedData, config: Config
) -> None:
    judged = load_model(refitted / "evaluated", data.judged())
    served = RecallModel(config, data)
    served.build_layers()
    added = carry_weights(judged, served)
    assert added["item_id"] == served.items.identity.weight.shape[0] - judged.items.identity.weight.shape[0] > 0
    served.items.id_clicks.assign(np.resize(judged.items.id_clicks.numpy(), served.items.id_clicks.shape))
    posterior = data.posterior("validation")
    before, after = (encode_items(model, posterior)[0] for model in (judged, served))
    known = data.judged().items["item_id"].to_numpy() > 1
    np.testing.assert_array_equal(after[known], before[known])
    rows = served.items.identity.weight.numpy()
    np.testing.assert_array_equal(rows[-added["item_id"] :], np.repeat(rows[1:2], added["item_id"], axis=0))


def test_weights_of_other_features_are_refused(refitted: Path, data: PreparedData, config: Config) -> None:
    judged = load_model(refitted / "evaluated", data.judged())
    wider = RecallModel(config.replaced(model={"dim": 16}), data)
    wider.build_layers()
    with pytest.raises(ArtifactError, match="other features or settings"):
        carry_weights(judged, wider)


def test_the_refitted_model_is_served(refitted: Path, data: PreparedData) -> None:
    assert {path.name for path in (refitted / "model").iterdir()} >= {"query", "item"}
    assert not (refitted / "evaluated" / "query").exists()
    judged, served = load_model(refitted / "evaluated", data.judged()), load_model(refitted / "model", data)
    posterior = data.posterior("serving")
    vectors = pq.read_table(refitted / "vectors" / "vectors.parquet")["vector"].to_numpy()
    np.testing.assert_allclose(np.stack(vectors), encode_items(served, posterior)[0], atol=1e-5)
    assert np.abs(encode_items(judged, posterior)[0] - encode_items(served, posterior)[0]).max() > 1e-3
    assert len(read_history(refitted / "model")) == 1
    assert len(Recaller.load(refitted).recall([data.user_ids[0].as_py()], k=5).ids[0]) == 5


def test_steps_of_a_refit_are_skipped_when_done_and_done_again_when_settings_change(
    refitted: Path, config: Config, printing: Callable[[Config, Path], Printed], tmp_path: Path
) -> None:
    copied = tmp_path / "run"
    shutil.copytree(refitted, copied)
    run = printing(config, copied)
    run.run.all()
    assert run.skipped() == ["prepare", "train behaviour_only", "refit", "vectors", "index", "evaluate", "report"]
    again = Run.open(copied, ["training.refit_epochs=2"])
    assert [state for name, state, _ in again.states() if name in ("evaluated", "model")] == ["done", "out of date"]
    again.refit()
    assert len(read_history(copied / "model")) == 2
    with pytest.raises(ArtifactError, match=r"recall vectors --run .* again"):
        again.index()


def test_a_killed_refit_goes_on(refitted: Path, data: PreparedData, experiment: Experiment, tmp_path: Path) -> None:
    config = experiment(*REFIT, "training.refit_epochs=2")

    def die(entry: object) -> None:
        raise KeyboardInterrupt

    for resume in (False, True):
        with pytest.raises(KeyboardInterrupt):
            refit(config, data, refitted / "evaluated", tmp_path / "model", resume=resume, on_epoch=die)
        assert not (tmp_path / "model" / "manifest.json").exists()
    refit(config, data, refitted / "evaluated", tmp_path / "model", resume=True)
    assert [entry["epoch"] for entry in read_history(tmp_path / "model")] == [1, 2]


def test_from_scratch_it_takes_as_many_epochs_as_the_judged_model(
    refitted: Path, data: PreparedData, experiment: Experiment, tmp_path: Path
) -> None:
    best = read_json(refitted / "evaluated" / "manifest.json")["best_epoch"]
    refit(experiment(*REFIT, "training.refit=scratch"), data, refitted / "evaluated", tmp_path / "model")
    assert len(read_history(tmp_path / "model")) == best


def test_several_stages_cannot_start_from_scratch(community: Path) -> None:
    with pytest.raises(ConfigError, match="refit: scratch"):
        load_config(community / "experiment.yaml", ["training.refit=scratch", "training.stages=[{name: clicks}]"])


def test_items_without_a_second_click_stay_unknown(data: PreparedData) -> None:
    codes = pd.Series(data.items["item_id"].to_numpy(), index=data.item_ids.to_pylist())
    clicks = pd.Series(data.sampling_counts, index=codes.index)
    assert (codes[clicks < 2] == 1).all()
    assert (codes[clicks >= 2] > 1).all()


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_share_of_what_was_learned_is_learned_once_more(data: PreparedData, share: float) -> None:
    def clicks(view: PreparedData) -> Counter[tuple[object, ...]]:
        found = Counter[tuple[object, ...]]()
        settings = {"batch_size": 64, "history": 8, "shuffle_buffer": 10_000, "seed": 1}
        for batch in training_dataset(view, UserRows(view.user_ids.to_pylist()), **settings):
            found.update(zip(batch["item"].numpy().tolist(), batch["time_ms"].numpy().tolist(), strict=True))
        return found

    view = data.replaying(share)
    seen = clicks(view)
    assert seen.total() == view.training_records // 64 * 64
    learned = read_examples(data.judged().shards("train"))
    before = {*zip(learned.targets.tolist(), learned.times_ms.tolist(), strict=True)}
    again = sum(count for click, count in seen.items() if click in before)
    assert abs(again - share * len(learned)) < 64
