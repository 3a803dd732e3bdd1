"""DIR/ranks: what a run keeps of every example, that it adds up to metrics.json, and when it is made again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from recall.config.experiment import Config
from recall.core.artifacts import write_json
from recall.core.errors import ArtifactError, RecallError
from recall.evaluation.ranks import Ranks
from recall.runs.run import Run

MODELS = ["gated", "gated_trigger", "popularity", "trending", "item_knn", "content_knn", "content_knn_top3"]


@pytest.fixture(scope="module")
def ranks(finished: Path) -> Ranks:
    return Ranks.load(finished)


@pytest.fixture(scope="module")
def log(settings: Config) -> pd.DataFrame:
    return pd.read_parquet(settings.data.events.path)


def start_ms(run: Path, split: str) -> int:
    return int(json.loads((run / "data" / "manifest.json").read_text())["split"][f"{split}_start_ms"])


# What is kept


def test_every_model_of_the_run_has_its_ranks_on_both_splits(ranks: Ranks) -> None:
    assert ranks.models("test") == ranks.models("validation") == MODELS
    assert ranks.configured == "gated"


def test_ranks_add_up_to_the_metrics_of_the_run(ranks: Ranks, finished: Path) -> None:
    metrics = json.loads((finished / "metrics.json").read_text())
    for split in ("test", "validation"):
        for model in MODELS:
            rows, reported = ranks.table(split, model).to_pandas(), metrics[split][model]
            cold = rows[rows.rank_among_cold.notna()]
            assert reported["all"]["examples"] == len(rows) > 0
            rolled = ranks.rolling_table(split, model).to_pandas()
            assert reported["rolling"]["all"]["recall@50"] == pytest.approx((rolled["rank"] <= 50).mean())
            assert reported["rolling"]["cold"]["examples"] == (rolled.exposures == 0).sum()
            assert reported["all"]["recall@50"] == pytest.approx((rows["rank"] <= 50).mean())
            assert reported["all"]["mrr"] == pytest.approx((1 / rows["rank"]).mean())
            assert reported["cold"]["examples"] == len(cold)
            if len(cold):
                assert reported["cold"]["recall@20"] == pytest.approx((cold["rank"] <= 20).mean())
                assert reported["cold_among_cold"]["recall@5"] == pytest.approx((cold.rank_among_cold <= 5).mean())
            for bucket in reported["by_exposures"]:
                upper = np.inf if bucket["to"] is None else bucket["to"]
                assert bucket["examples"] == rows.exposures.between(bucket["from"], upper).sum()


def test_rows_are_the_clicks_of_the_test_period_with_what_was_known_before(
    ranks: Ranks, finished: Path, log: pd.DataFrame
) -> None:
    before, after = (part for _, part in log.groupby(log.time_ms >= start_ms(finished, "test")))
    clicks = after[after.is_click == 1]
    rows = ranks.table("test", "popularity").to_pandas()
    keys = zip(rows.user.astype(str), rows.item.astype(str), rows.time_ms, strict=True)
    assert sorted(keys) == sorted(zip(clicks.user_id, clicks.item_id, clicks.time_ms, strict=True))
    exposures = before.groupby("item_id").size()
    assert rows.exposures.tolist() == [exposures.get(item, 0) for item in rows.item]
    # In the simulated log every click is an exposure, so that no exposure means no click.
    assert (rows.rank_among_cold.notna() == (rows.exposures == 0)).all()
    cold = rows[rows.exposures == 0]
    assert (cold.rank_among_cold <= cold["rank"]).all()


def test_files_are_plain_parquet_with_small_columns(finished: Path) -> None:
    path = finished / "ranks" / "test.parquet"
    schema = pq.read_schema(path)
    of_click = ["user", "item", "time_ms", "exposures", "rank", "rank_among_cold"]
    assert schema.names == ["model", *of_click, "rolling_exposures", "rolling_rank"]
    assert [str(schema.field(name).type) for name in ("rank", "rank_among_cold")] == ["int32", "int32"]
    frame = pd.read_parquet(path)
    assert frame.model.unique().tolist() == MODELS


# When they cannot be read


def test_unknown_names_are_refused_with_those_that_are_there(ranks: Ranks) -> None:
    with pytest.raises(
        RecallError,
        match=r"model base: .* has gated, gated_trigger, popularity, trending, item_knn, content_knn, .*_top3 on test",
    ):
        ranks.table("test", "base")
    with pytest.raises(RecallError, match="split train: expected one of test, validation"):
        ranks.models("train")


def test_a_run_without_ranks_names_the_command_that_makes_them(copied: Path, tmp_path: Path) -> None:
    shutil.rmtree(copied / "ranks")
    with pytest.raises(ArtifactError, match=rf"not there yet; run `recall evaluate --run {copied}` first"):
        Ranks.load(copied)
    with pytest.raises(ArtifactError, match="no such directory; expected the directory of a run"):
        Ranks.load(tmp_path / "typo")


def test_ranks_of_a_model_that_was_trained_again_are_refused(copied: Path) -> None:
    manifest = copied / "model" / "manifest.json"
    content = json.loads(manifest.read_text())
    write_json(manifest, content | {"fingerprint": "another"}, checksummed=True)
    with pytest.raises(ArtifactError, match=rf"model was trained again since; run `recall evaluate --run {copied}` ag"):
        Ranks.load(copied)
    shutil.rmtree(copied / "model")  # ranks may be passed on without their models
    assert Ranks.load(copied).configured == "gated"


# When they are made again


def cut(run: Path) -> None:
    path = run / "ranks" / "test.parquet"
    path.write_bytes(path.read_bytes()[:-1])


def flip(run: Path) -> None:
    path = run / "ranks" / "validation.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def of_another_evaluation(run: Path) -> None:
    path = run / "ranks" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"fingerprint": "another"}))


@pytest.mark.parametrize(
    "harm",
    [
        lambda run: shutil.rmtree(run / "ranks"),
        lambda run: (run / "metrics.json").unlink(),  # as if killed after the ranks, before the metrics
        cut,
        flip,
        of_another_evaluation,
    ],
    ids=("no ranks", "no metrics", "cut", "a byte changed", "other models"),
)
def test_evaluate_is_not_done_when_its_ranks_are_missing_or_damaged(
    copied: Path, settings: Config, monkeypatch: pytest.MonkeyPatch, harm: Callable[[Path], Any]
) -> None:
    def evaluates_again(*arguments: object, **settings: object) -> None:
        raise RuntimeError("evaluates again")

    monkeypatch.setattr("recall.runs.assessment.assess_models", evaluates_again)
    Run(settings, copied).evaluate()  # done: skipped
    harm(copied)
    with pytest.raises(RuntimeError, match="evaluates again"):
        Run(settings, copied).evaluate()


def test_damaged_ranks_are_made_again_as_they_were(copied: Path, settings: Config) -> None:
    before = {model: Ranks.load(copied).table("test", model) for model in MODELS}
    cut(copied)
    with pytest.raises(ArtifactError, match=r"test\.parquet: has .* bytes, .* run `recall evaluate --run .*` again"):
        Run(settings, copied).report()
    Run(settings, copied).evaluate()
    after = Ranks.load(copied)
    for model, table in before.items():
        differing = np.flatnonzero(table["rank"].to_numpy() != after.table("test", model)["rank"].to_numpy())
        assert len(differing) <= 1, model  # two roundings of one score may order a near-tie differently
        given = ["rank", "rank_among_cold", "rolling_rank"]
        assert table.drop_columns(given).equals(after.table("test", model).drop_columns(given))
