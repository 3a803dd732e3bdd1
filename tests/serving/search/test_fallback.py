"""Fallback lists: popular and fresh items of a snapshot, the same for everybody."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from recall.data.posterior import Posterior
from recall.serving.items.overlay import Overlaid
from recall.serving.items.posterior import ServedPosterior
from recall.serving.search.fallback import fallback_order, interleaved

NOW_MS = 1_700_000_000_000


def snapshot(counts: list[tuple[int, int, float, float]], *, at_ms: int | None = NOW_MS) -> ServedPosterior:
    exposures, clicks, ctr, age = (np.asarray(column) for column in zip(*counts, strict=True))
    ids = pa.array([str(row) for row in range(len(counts))])
    posterior = Posterior(exposures, clicks, ctr.astype(np.float32), age.astype(np.float32))
    return ServedPosterior.at(ids, posterior, at_ms=at_ms)


def test_popular_items_have_clicks_and_every_fifth_place_is_of_the_latest() -> None:
    # exposures, clicks, smoothed CTR, age. Popular: 0 1 3 2 4 5 6 (rows 3 and 2 tie in clicks, 3 has the higher CTR;
    # 4, 5 and 6 have none and equal CTRs). Fresh: 5 4 3 2 1 0 and last 6, which was never exposed.
    counts = [
        (90, 9, 0.1, 60),
        (80, 8, 0.1, 50),
        (70, 7, 0.1, 40),
        (60, 7, 0.2, 30),
        (10, 0, 0.1, 20),
        (10, 0, 0.1, 10),
        (0, 0, 0.1, 0),
    ]
    assert fallback_order(Overlaid(snapshot(counts))).tolist() == [0, 1, 3, 2, 5, 4, 6]
    assert fallback_order(Overlaid(snapshot(counts, at_ms=None))).tolist() == [0, 1, 3, 2, 4, 5, 6], (
        "without a clock: popular"
    )


@given(one=st.permutations(range(12)), other=st.permutations(range(12)), every=st.integers(2, 6))
def test_interleaved_orders_hold_every_item_once_as_if_dealt_by_hand(one: Any, other: Any, every: int) -> None:
    expected: list[int] = []
    sources = iter(one), iter(other)
    place = 0
    while len(expected) < 12:
        place += 1
        item = next(sources[place % every == 0], None)
        if item is not None and item not in expected:
            expected.append(item)
    assert interleaved(np.asarray(one), np.asarray(other), every=every).tolist() == expected


def test_no_items_have_an_order_too() -> None:
    nothing = np.zeros(0, np.int64)
    ids = pa.array([], pa.string())
    assert not len(
        fallback_order(Overlaid(ServedPosterior(ids, nothing, nothing, nothing.astype(np.float32), nothing)))
    )
