"""Tests how the fresh evidence of a service goes on from the end of the log."""

from __future__ import annotations

import numpy as np
import pytest

from recall.data.prepared import PreparedData
from recall.serving.items.posterior import posterior_of_counts

HOUR_MS = 3_600_000


def totals(prepared: PreparedData) -> np.ndarray:
    """Exposures, clicks and a first exposure of every item at the end of the log."""
    at_end = prepared.posterior("serving")
    return np.stack([at_end.exposures, at_end.clicks, np.zeros_like(at_end.clicks)], axis=1)


def end_of(prepared: PreparedData) -> int:
    """The moment at which a service knows the last bucket of the log, as an example would."""
    settings = prepared.manifest["posterior"]
    return int(prepared.manifest["last_time_ms"] + settings["bucket_ms"] + settings["delay_ms"])


def fresh(prepared: PreparedData, counts: np.ndarray, *, now_ms: int, rows: np.ndarray | None) -> np.ndarray:
    found = posterior_of_counts(counts, prior_ctr=0.1, prepared=prepared, now_ms=now_ms, rows=rows)
    assert found.fresh is not None
    return found.fresh.reshape(len(counts), -1, 3)


def test_the_counts_of_the_log_give_the_evidence_of_its_end(prepared: PreparedData) -> None:
    rows = np.arange(len(prepared.item_ids))
    found = fresh(prepared, totals(prepared), now_ms=end_of(prepared), rows=rows)
    expected = prepared.posterior("serving").fresh
    assert expected is not None
    assert expected.max() > 0
    np.testing.assert_allclose(found.reshape(len(rows), -1), expected, rtol=1e-5)


def test_what_the_log_held_decays_and_what_came_since_counts_in_full(prepared: PreparedData) -> None:
    rows = np.arange(len(prepared.item_ids))
    half_lives_ms = prepared.manifest["posterior"]["half_lives_ms"]
    before = fresh(prepared, totals(prepared), now_ms=end_of(prepared), rows=rows)
    gained = totals(prepared)
    gained[:, 0] += 5
    gained[:, 1] += 2
    later = end_of(prepared) + half_lives_ms[1]
    found = fresh(prepared, gained, now_ms=later, rows=rows)
    np.testing.assert_allclose(found[:, 1, 0], before[:, 1, 0] / 2 + 5, rtol=1e-5)
    np.testing.assert_allclose(found[:, 1, 1], before[:, 1, 1] / 2 + 2, rtol=1e-5)
    is_clicked = before[:, 1, 1] > 0
    lift_of_a_click = before[is_clicked, 1, 2] / before[is_clicked, 1, 1]
    np.testing.assert_allclose(found[is_clicked, 1, 2], lift_of_a_click * found[is_clicked, 1, 1], rtol=1e-4)


@pytest.mark.parametrize("clicks", [0, 3])
def test_an_item_that_the_catalogue_lacks_has_its_counts_alone(clicks: int, prepared: PreparedData) -> None:
    counts = np.array([[7, clicks, end_of(prepared) - HOUR_MS]])
    found = fresh(prepared, counts, now_ms=end_of(prepared), rows=None)
    assert found[0, :, 0].tolist() == [7] * found.shape[1]
    assert found[0, :, 1].tolist() == [clicks] * found.shape[1]
    assert (found[0, :, 2] > 0).tolist() == [clicks > 0] * found.shape[1]
