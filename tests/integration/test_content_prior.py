"""The content prior from prepared data to the vector of a new item: one definition of the smoothed CTR everywhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import tensorflow as tf

from pipelines.training_data import prepare
from recall.config.experiment import Config
from recall.core.errors import ConfigError
from recall.data.posterior import smoothed_ctr
from recall.data.prepared import PreparedData
from recall.model.batches.negatives import AsOfPosterior
from recall.model.layers.features import FeatureTable
from recall.model.towers.item import ItemSide
from recall.serving.recaller import Recaller
from tests.conftest import Experiment
from tests.helpers.finished_run import PRIOR, WITH_INTERESTS, Outcome


@pytest.fixture(scope="module")
def with_prior(finish: Callable[[Config], Path], experiment: Experiment) -> Path:
    """A finished run whose items start from content priors, every tenth candidate shown as brand new."""
    return finish(experiment(*WITH_INTERESTS))


@pytest.fixture(scope="module")
def data(with_prior: Path) -> PreparedData:
    return PreparedData.load(with_prior / "data")


def records(prepared: PreparedData, split: str) -> dict[str, np.ndarray]:
    """Columns of the examples as they were written."""
    names = {"item": tf.int64, "time_ms": tf.int64, "exposures": tf.int64, "clicks": tf.int64}
    features = {name: tf.io.FixedLenFeature([], dtype) for name, dtype in {**names, "smoothed_ctr": tf.float32}.items()}
    files = [str(path) for path in prepared.shards(split)]
    parsed = tf.io.parse_example(list(tf.data.TFRecordDataset(files).as_numpy_iterator()), features)
    return {name: column.numpy() for name, column in parsed.items()}


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_examples_are_smoothed_towards_the_prior_that_was_known_at_their_moment(data: PreparedData, split: str) -> None:
    priors, strength = data.posterior_history.prior.items, data.manifest["posterior"]["prior_strength"]
    assert priors is not None
    found = records(data, split)
    moment = [int((priors.from_ms <= time).sum()) - 1 for time in found["time_ms"]]
    expected = (found["clicks"] + priors.ctr[moment, found["item"]] * strength) / (found["exposures"] + strength)
    assert found["smoothed_ctr"] == pytest.approx(expected, rel=1e-6)
    assert len(np.unique(priors.ctr[moment, found["item"]])) > 10


def test_snapshots_are_smoothed_towards_the_prior_of_their_moment(data: PreparedData) -> None:
    priors, strength = data.posterior_history.prior.items, data.manifest["posterior"]["prior_strength"]
    assert priors is not None
    for place, name in ((-3, "validation"), (-2, "test"), (-1, "serving")):
        found = data.posterior(name)  # type: ignore[arg-type]
        expected = (found.clicks + priors.ctr[place] * strength) / (found.exposures + strength)
        assert found.smoothed_ctr == pytest.approx(expected, rel=1e-6)
        unseen = found.exposures == 0
        assert found.smoothed_ctr[unseen] == pytest.approx(priors.ctr[place][unseen])


def test_negatives_have_the_same_posterior_as_examples(data: PreparedData) -> None:
    history = data.posterior_history
    rng = np.random.default_rng(1)
    rows = rng.integers(0, len(data.item_ids), 3_000)
    times = rng.integers(int(history.first_time_ms.min()), data.manifest["last_time_ms"], 3_000)
    found = AsOfPosterior(history)(tf.constant(rows, tf.int32), tf.constant(times, tf.int64)).numpy()
    assert found == pytest.approx(history.as_of(rows, times).stacked(), rel=1e-5)


def test_an_item_shown_as_new_keeps_its_own_prior_alone(variant: Experiment, data: PreparedData) -> None:
    config = variant(PRIOR).model
    columns, own = data.item_encoder.columns, np.array([0.02, 0.3, 0.9])
    side = ItemSide(columns, id_name="item_id", config=config, prior_ctr=0.2, prior_strength=20.0)
    exposures, clicks = np.array([0, 50, 200_000]), np.array([0, 50, 1_000])
    ctr = (clicks + own * 20) / (exposures + 20)
    seen = tf.constant(np.stack([exposures, clicks, ctr, [0, 7, 900]], axis=1), tf.float32)
    assert side.as_new(seen).numpy()[:, 2] == pytest.approx(own, rel=1e-2)
    assert not side.as_new(seen).numpy()[:, [0, 1, 3]].any()
    without = ItemSide(columns, id_name="item_id", config=config, prior_ctr=0.2)
    assert without.as_new(seen).numpy().tolist() == pytest.approx([0, 0, 0.2, 0])


def test_a_brand_new_item_is_served_with_the_prior_of_its_content(
    with_prior: Path, data: PreparedData, settings: Config
) -> None:
    recaller, encoder = Recaller.load(with_prior), data.item_encoder
    rows = pd.read_parquet(settings.data.items.path)[:20].assign(item_id="not in the catalogue")
    assert data.content_prior is not None
    ctr = data.content_prior.ctr(pa.Table.from_pandas(rows))
    assert np.ptp(ctr) > 0.01
    served = tf.saved_model.load(str(with_prior / "model" / "item"))
    features = FeatureTable(encoder.columns, encoder.encode(pa.Table.from_pandas(rows))).variables
    posterior = tf.constant([[0, 0, value] + [0] * 10 for value in ctr], tf.float32)  # no evidence of any half-life
    expected = served.vectors({name: value.value() for name, value in features.items()}, posterior)["vector"].numpy()
    expected[:, -1] += recaller.index.report["cold_bias"]
    assert recaller.new_item_vectors(rows) == pytest.approx(expected, abs=1e-6)


def test_priors_of_the_data_are_judged_by_the_command(
    with_prior: Path, command: Callable[..., Outcome], data: PreparedData
) -> None:
    outcome = command("content", "prior", "--run", with_prior, "--json")
    found = json.loads(outcome.out)
    assert found["first_exposures"] == 100
    judged = found["test"]["all"]
    clicked = data.posterior("serving").clicks.sum() - data.posterior("test").clicks.sum()
    shown = data.posterior("serving").exposures.sum() - data.posterior("test").exposures.sum()
    # Few of the items had their hundred exposures before, and the period's first hours were known late.
    assert judged["exposures"] == pytest.approx(shown, rel=0.35)
    assert judged["observed"] == pytest.approx(clicked / shown, abs=0.05)
    assert judged["global"]["auc"] == 0.5
    assert 0 <= judged["content"]["calibration_error"] < 0.2
    table = command("content", "prior", "--run", with_prior)
    assert table.code == 0
    assert f"{judged['content']['auc']:.4f}" in table.out


def test_judging_a_run_without_content_prior_says_what_to_do(finished: Path, command: Callable[..., Outcome]) -> None:
    outcome = command("content", "prior", "--run", finished)
    assert outcome.code == 1
    assert "set data.posterior.content_prior.enabled: true" in " ".join(outcome.err.split())


def test_data_that_cannot_have_a_prior_is_what_it_is_without_one(
    experiment: Experiment, prepared: PreparedData, tmp_path: Path
) -> None:
    bare = ("features.meta=[]", "model.structure=behaviour_only")
    manifests = [prepare(experiment(*bare, *more), tmp_path / str(len(more))) for more in ((), (PRIOR,))]
    assert manifests[1]["posterior"]["content_prior"]["reason"].startswith("features.meta has no content")
    assert "content_prior" not in manifests[0]["posterior"]
    # A run cannot go on with a content prior, so that no state is kept for one.
    tables = [{name: entry for name, entry in found["files"].items() if "state/" not in name} for found in manifests]
    assert tables[0] == tables[1]
    assert not prepared.has_content_prior
    assert prepared.content_prior is None


def test_a_log_without_a_clock_keeps_one_prior_and_says_so(experiment: Experiment, tmp_path: Path) -> None:
    order = ("data.events.time_unit=order", "data.split={by: last_click}", PRIOR)
    manifest = prepare(experiment(*order), tmp_path / "data")
    assert "not by time" in manifest["posterior"]["content_prior"]["reason"]
    found = PreparedData.load(tmp_path / "data")
    prior, posterior = found.posterior_history.prior, found.posterior("test")
    assert prior.items is None
    assert posterior.smoothed_ctr.tolist() == smoothed_ctr(posterior.clicks, posterior.exposures, prior).tolist()


def test_settings_of_the_content_prior_are_checked(experiment: Experiment) -> None:
    with pytest.raises(ConfigError, match="first_exposures"):
        experiment("data.posterior.content_prior.first_exposures=0")
    with pytest.raises(ConfigError, match="strenght"):
        experiment("data.posterior.content_prior.strenght=3")
