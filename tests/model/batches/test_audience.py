"""The lookup of audiences inside the graph against the lookup in NumPy, which has an oracle of its own."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from recall.data.audience import NOBODY, AudienceHistory
from recall.model.batches.audience import AsOfAudience

HOUR = 3_600_000


@pytest.mark.parametrize("count", [0, 1, 500])
def test_the_graph_finds_what_numpy_finds(count: int) -> None:
    rng = np.random.default_rng(6)
    clicks = rng.integers(0, 9, count), rng.integers(0, 90 * HOUR, count), rng.integers(-1, 12, count)
    history = AudienceHistory.of(*clicks, bucket_ms=HOUR, delay_ms=HOUR)
    rows, times = rng.integers(0, 11, 300).astype(np.int32), rng.integers(-9 * HOUR, 99 * HOUR, 300)
    found = AsOfAudience(history, last=6)(tf.constant(rows), tf.constant(times))
    np.testing.assert_array_equal(found, history.as_of(rows, times, last=6))
    assert (count < 500) or (found.numpy() > NOBODY).mean() > 0.5
