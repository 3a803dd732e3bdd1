"""How a content prior is judged: calibration against sums by hand, ranking against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from recall.content.judge.prior_judge import calibration


def test_auc_and_log_loss_are_those_of_single_exposures() -> None:
    rng = np.random.default_rng(3)
    predicted = rng.choice([0.1, 0.2, 0.4, 0.7], 50)
    exposures = rng.integers(1, 30, 50)
    clicks = rng.binomial(exposures, predicted)
    found = calibration(predicted, exposures.astype(float), clicks.astype(float))
    of_each = np.repeat(predicted, exposures)
    clicked = np.concatenate([np.arange(shown) < hits for shown, hits in zip(exposures, clicks, strict=True)])
    assert found["auc"] == pytest.approx(roc_auc_score(clicked, of_each))
    assert found["log_loss"] == pytest.approx(-np.log(np.where(clicked, of_each, 1 - of_each)).mean())
    assert found["predicted"] == pytest.approx(of_each.mean())


def test_calibration_error_is_the_mean_gap_of_tenths() -> None:
    # Twenty items of ten exposures; 0.1 predicted of the first ten, 0.5 of the others; clicked 0.2 and 0.4.
    predicted = np.r_[np.full(10, 0.1), np.full(10, 0.5)]
    found = calibration(predicted, np.full(20, 10.0), np.r_[np.full(10, 2.0), np.full(10, 4.0)])
    assert found["calibration_error"] == pytest.approx(0.1)
    assert [tenth["exposures"] for tenth in found["deciles"]] == [100, 100]
    assert [tenth["observed"] for tenth in found["deciles"]] == pytest.approx([0.2, 0.4])


def test_perfect_predictions_have_no_calibration_error_and_one_prior_for_all_ranks_nothing() -> None:
    exposures, clicks = np.full(40, 100.0), np.arange(1, 41, dtype=float)
    assert calibration(clicks / 100, exposures, clicks)["calibration_error"] == pytest.approx(0)
    same = calibration(np.full(40, 0.205), exposures, clicks)
    assert same["auc"] == pytest.approx(0.5)
    assert same["calibration_error"] == pytest.approx(0)


def test_without_any_click_there_is_nothing_to_rank() -> None:
    assert calibration(np.array([0.1, 0.2]), np.array([3.0, 4.0]), np.zeros(2))["auc"] is None
