"""The warm-up benchmark: which clicks are asked of both models, and what their table says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.warm_up.measure import Asked, asked_clicks, bucket_results, summarise
from benchmarks.warm_up.plot import write_plot
from recall.data.prepared import PreparedData
from recall.model.batches.dataset import read_examples


def asked(clicks: list[int], kept: list[int], retrained: list[int]) -> Asked:
    """Clicks of a user each, on an item each."""
    rows = np.arange(len(clicks))
    hits = (np.array(values, bool) for values in (kept, retrained))
    return Asked(rows.astype(str), rows, np.array(clicks), np.array(clicks) + 1, *hits)


def test_buckets_are_by_the_clicks_that_the_item_had_when_it_was_asked_for() -> None:
    found = bucket_results(asked([0, 1, 2, 3, 9, 9, 40], [0, 1, 0, 1, 1, 0, 1], [0, 1, 1, 1, 1, 1, 1]))
    assert [(bucket["from"], bucket["to"]) for bucket in found] == [(0, 0), (1, 2), (3, 9), (10, 29), (30, None)]
    assert [bucket["clicks"] for bucket in found] == [1, 2, 3, 0, 1]
    assert [bucket["kept"] for bucket in found] == [0, 0.5, pytest.approx(2 / 3), None, 1]
    assert [bucket["share"] for bucket in found] == [None, 0.5, pytest.approx(2 / 3), None, 1]
    assert [bucket["learned"] for bucket in found] == [1, 2.5, 8, None, 41]


def test_the_interval_holds_the_share_and_is_tight_with_many_users() -> None:
    rng = np.random.default_rng(2)
    retrained = rng.random(4000) < 0.5
    many = asked([5] * 4000, list(retrained & (rng.random(4000) < 0.8)), list(retrained))
    found = summarise(many, np.ones(4000, bool))
    assert found["low"] < found["share"] < found["high"]
    # The share is a mean over 2,000 clicks that the retrained model recalls: 1.96 * sqrt(.8 * .2 / 2000) on each side.
    assert found["high"] - found["low"] == pytest.approx(2 * 0.0175, rel=0.15)


def test_two_runs_are_asked_about_the_same_clicks_on_items_that_came_later(finished: Path) -> None:
    found, (kept, retrained) = asked_clicks(finished, finished)
    measured = json.loads((finished / "metrics.json").read_text())["test"]["gated"]["rolling"]
    assert kept == retrained == pytest.approx(measured["all"]["recall@50"])
    prepared = PreparedData.load(finished / "data")
    targets = read_examples(prepared.shards("test")).targets
    came_later = prepared.posterior("validation").exposures[targets] == 0
    shown = prepared.posterior("test").exposures[targets] > 0
    assert sorted(found.items) == sorted(targets[came_later & shown])
    assert np.array_equal(found.kept, found.retrained)


def test_the_plot_draws_a_panel_for_each_result(tmp_path: Path) -> None:
    clicks = asked([0] * 20 + [4] * 20, [0] * 30 + [1] * 10, [0] * 10 + [1] * 30)
    for name in ("one", "other"):
        content = {"experiment": name, "buckets": bucket_results(clicks)}
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    [path] = write_plot(tmp_path, tmp_path / "plots")
    drawn = path.read_text()
    for text in ("one", "other", "retrained model", "to reach"):
        assert f"<!-- {text} -->" in drawn
