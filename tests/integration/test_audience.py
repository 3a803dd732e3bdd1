"""A run that reads audiences, from the log to the service: every way to make an item's vector agrees."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipelines.item_vectors import encode_catalogue
from recall.config.experiment import Config
from recall.core.errors import DataError
from recall.data.prepared import PreparedData
from recall.model.inference import CatalogueVectors, encode_items
from recall.model.vector_table import ItemVectorTable
from recall.serving.recaller import Recaller
from recall.training.published import load_model
from tests.conftest import Experiment
from tests.helpers.finished_run import WITH_AUDIENCE


@pytest.fixture(scope="module")
def made(finish: Callable[[Config], Path], experiment: Experiment) -> Path:
    return finish(experiment(*WITH_AUDIENCE))


@pytest.fixture(scope="module")
def data(made: Path) -> PreparedData:
    return PreparedData.load(made / "data")


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


@pytest.fixture
def living(run: Path) -> Recaller:
    return Recaller.load(run, living=True)


def counts_of(data: PreparedData, rows: list[int], **columns: object) -> pd.DataFrame:
    """Repeat what the log counted of items."""
    at_end, ids = data.posterior("serving"), data.item_ids.to_pylist()
    age_ms = (at_end.age_hours[rows].astype(np.float64) * 3.6e6).round().astype(np.int64)
    return pd.DataFrame(
        {
            "item_id": [ids[row] for row in rows],
            "exposures": at_end.exposures[rows],
            "clicks": at_end.clicks[rows],
            "first_time_ms": data.manifest["last_time_ms"] - age_ms,
            **columns,
        }
    )


def rows_with_audience(data: PreparedData) -> list[int]:
    sources = data.posterior("serving").sources
    assert sources is not None
    return np.flatnonzero((sources >= 0).all(axis=1))[:5].tolist()


def differ(found: np.ndarray, expected: np.ndarray) -> list[bool]:
    return list(np.abs(found - expected).max(axis=1) > 1e-6)


def test_vectors_of_the_run_its_model_and_the_beam_job_agree(run: Path, data: PreparedData) -> None:
    model, posterior = load_model(run / "model", data), data.posterior("serving")
    expected, shares = encode_items(model, posterior)
    np.testing.assert_allclose(ItemVectorTable.read(run / "vectors").vectors, expected, atol=1e-5)
    shutil.rmtree(run / "vectors")
    encode_catalogue(run, batch_size=64)
    np.testing.assert_allclose(ItemVectorTable.read(run / "vectors").vectors, expected, atol=1e-5)
    of_audience = CatalogueVectors(model).audience_shares(posterior)
    assert posterior.sources is not None
    has_audience = (posterior.sources[:, 0] >= 0).tolist()
    assert (of_audience > 0).tolist() == has_audience
    assert ((shares + of_audience) < 1).all()
    without = encode_items(model, posterior._replace(sources=np.full_like(posterior.sources, -1)))[0]
    assert differ(without, expected) == has_audience
    with pytest.raises(ValueError, match="no sources, but the model reads audiences"):
        encode_items(model, posterior._replace(sources=None))


def test_the_report_draws_three_shares(made: Path) -> None:
    assert "What the gate makes items of, by exposures" in (made / "report.html").read_text()


def test_newer_counts_keep_the_audience_and_a_given_one_replaces_it(living: Recaller, data: PreparedData) -> None:
    rows, ids = rows_with_audience(data), data.item_ids.to_pylist()
    names, sources = [ids[row] for row in rows], data.posterior("serving").sources
    assert sources is not None
    living.refresh_posterior(counts_of(data, rows))
    kept = living.vectors(names)
    own = [[ids[source] for source in sources[row]] for row in rows]
    living.refresh_posterior(counts_of(data, rows, audience=own))
    np.testing.assert_allclose(living.vectors(names), kept, atol=1e-6)
    given = [ids[:3], [], [*own[2], "nobody knows it"], None, own[4]]
    living.refresh_posterior(counts_of(data, rows, audience=given))
    assert differ(living.vectors(names), kept) == [True, True, False, False, False]
    living.refresh_posterior(counts_of(data, rows))  # an audience that was given stays
    assert differ(living.vectors(names), kept) == [True, True, False, False, False]


def test_an_item_published_after_the_training_has_an_audience_with_its_first_clicks(
    run: Path, living: Recaller, data: PreparedData
) -> None:
    living.add_items([{"item_id": "new", "author_id": "somebody", "category": "food"}])
    seen = {"item_id": ["new"], "exposures": [9], "clicks": [2], "first_time_ms": [data.manifest["last_time_ms"]]}
    living.refresh_posterior(pd.DataFrame(seen))
    before = living.vectors(["new"])
    living.refresh_posterior(pd.DataFrame({**seen, "audience": [data.item_ids[:2].to_pylist()]}))
    after = living.vectors(["new"])
    assert differ(after, before) == [True]
    np.testing.assert_allclose(Recaller.load(run, living="read_only").vectors(["new"]), after, atol=1e-6)


def test_an_audience_is_a_list_of_ids(living: Recaller, data: PreparedData) -> None:
    with pytest.raises(DataError, match="audience of 1 items is no list of item ids"):
        living.refresh_posterior(counts_of(data, rows_with_audience(data)[:2], audience=["i1", ["i1"]]))


def test_a_run_without_audiences_refuses_one(copied: Path) -> None:
    other, data = Recaller.load(copied, living=True), PreparedData.load(copied / "data")
    with pytest.raises(DataError, match=r"column audience, but the run reads no audiences.*data\.posterior\.audience"):
        other.refresh_posterior(counts_of(data, [0], audience=[["i1"]]))
