"""Tests the numbers behind the report's plots, by hand and against published values."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from recall.runs.report import numbers as report_numbers


def test_gate_curve_has_the_quartiles_of_each_bin() -> None:
    exposures = [0, 0, 0, 1, 2, 3, 3, 6, 9, 100, 177, 178]
    share = [0.1, 0.2, 0.6, 0.3, 0.4, 0.5, 0.9, 0.5, 0.7, 0.8, 0.9, 1.0]
    curve = report_numbers.gate_curve([*exposures, 50], [*share, float("nan")])
    # bounds at 10^(n/4): 1 | 1.8 | 3.2 | 5.6 | 10 ... 100 | 177.8 | 316.2
    assert list(zip(curve.low, curve.high, curve.items, strict=True)) == [
        (0, 0, 3), (1, 1, 1), (2, 3, 3), (6, 9, 2), (100, 177, 2), (178, 316, 1),
    ]  # fmt: skip
    np.testing.assert_allclose(curve.exposures, [0, 1, 3, 7.5, 138.5, 178])
    np.testing.assert_allclose(curve.median, [0.2, 0.3, 0.5, 0.6, 0.85, 1.0])
    np.testing.assert_allclose(curve.lower_quartile, [0.15, 0.3, 0.45, 0.55, 0.825, 1.0])
    np.testing.assert_allclose(curve.upper_quartile, [0.4, 0.3, 0.7, 0.65, 0.875, 1.0])


@pytest.mark.parametrize("largest", [0, 1, 9, 10, 999, 1000, 123_456_789])
def test_gate_bins_hold_every_item_once(largest: int) -> None:
    exposures = np.unique(np.concatenate([[0, largest], np.random.default_rng(1).integers(0, largest + 1, 50)]))
    curve = report_numbers.gate_curve(exposures, np.full(len(exposures), 0.5))
    assert curve.items.sum() == len(exposures)
    assert curve.low[0] <= exposures[0]
    assert curve.high[-1] >= largest


def test_gate_curve_without_a_gate_is_empty() -> None:
    assert len(report_numbers.gate_curve([0, 5], [float("nan")] * 2).median) == 0


def test_wilson_interval_matches_published_values_and_skips_empty_slices() -> None:
    # Newcombe, Statistics in Medicine 1998, table I: 81/263 -> 0.2553, 0.3662; 0/20 -> 0, 0.1611
    low, high = report_numbers.wilson_interval(np.array([81 / 263, 0.0, np.nan]), np.array([263, 20, 0]))
    np.testing.assert_allclose(low, [0.2553, 0.0, np.nan], atol=5e-5)
    np.testing.assert_allclose(high, [0.3662, 0.1611, np.nan], atol=5e-5)


def test_labels_are_moved_apart_but_keep_their_order_and_centre() -> None:
    placed = report_numbers.spread([0.5, 0.0, 0.5, 0.48], gap=0.1)
    assert placed[1] == 0.0
    ordered = sorted(placed[i] for i in (0, 2, 3))
    assert ordered[0] == placed[3]
    np.testing.assert_allclose(np.diff(ordered), 0.1)
    assert math.isclose(sum(ordered) / 3, (0.5 + 0.5 + 0.48) / 3)


def test_principal_plane_finds_the_directions_of_a_stretched_cloud() -> None:
    rng = np.random.default_rng(2)
    cloud = rng.normal(size=(4000, 3)) * [3.0, 1.0, 0.1] + 7
    points, variance = report_numbers.principal_plane(cloud)
    np.testing.assert_allclose(variance, [9 / 10.01, 1 / 10.01], atol=0.02)
    assert abs(np.corrcoef(points[:, 0], cloud[:, 0])[0, 1]) > 0.999
    np.testing.assert_allclose(points.mean(axis=0), 0, atol=1e-9)


def test_best_epoch_is_the_first_with_the_highest_validation_metric() -> None:
    epochs: list[dict[str, Any]] = [
        {"epoch": 1, "val_loss": 9.0, "val_ndcg@50": None},
        {"epoch": 2, "val_ndcg@50": 0.3},
    ]
    epochs += [{"epoch": 3, "val_ndcg@50": 0.3}, {"epoch": 4, "val_ndcg@50": 0.1}]
    best = report_numbers.best_epoch(epochs)
    assert best is not None
    assert best["epoch"] == 2
    assert report_numbers.best_epoch([{"epoch": 1, "loss": 2.0}]) is None
