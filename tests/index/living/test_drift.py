"""Checks what drift counts and measures."""

from __future__ import annotations

import pytest

from recall.index import LivingIndex, build_index
from tests.helpers.living_oracle import KINDS, drawn


def test_drift_counts_and_measures_what_search_misses(tmp_path):
    vectors = drawn(6_000, seed=1)
    index = LivingIndex(build_index([f"i{row}" for row in range(6_000)], vectors, config=KINDS["scann"]))
    assert index.drift().recall is None
    index.upsert([f"n{row}" for row in range(200)], drawn(200, seed=2) + 3)
    index.delete([f"i{row}" for row in range(600)])
    drift = index.drift(k=20)
    assert (drift.items, drift.recent, drift.gone, drift.queries) == (5_600, 200, 600, 64)
    assert drift.recent_share == pytest.approx(200 / 5_600)
    assert drift.gone_share == pytest.approx(0.1)
    assert drift.recent_recall == 1, "what came later is compared exactly"
    assert drift.recall is not None
    assert drift.recall > 0.8
