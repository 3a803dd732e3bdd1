"""Order of rows by several keys, against np.lexsort."""

from __future__ import annotations

import numpy as np
import pytest

from recall.ordering import order_of

FAR = np.iinfo(np.int64)


@pytest.mark.parametrize("spread", [1, 3, 1 << 20, 1 << 40, 1 << 62], ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_order_is_that_of_lexsort(spread: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    keys = [
        generator.integers(-spread, spread, 500),
        generator.integers(0, 3, 500).astype(np.int32),
        generator.random(500) < 0.5,
        generator.integers(-spread, spread, 500),
    ]
    order = order_of(*keys)
    assert sorted(order) == list(range(500))
    for key in keys:  # rows that agree in all keys may have changed places
        assert (key[order] == key[np.lexsort(keys[::-1])]).all()


def test_ends_of_the_number_range_do_not_overflow() -> None:
    times = np.array([FAR.max, 0, FAR.min, FAR.max, -1])
    items = np.array([2, 1, 1, 1, 5])
    assert order_of(times, items).tolist() == [2, 4, 1, 3, 0]


def test_no_rows_have_an_order() -> None:
    assert order_of(np.zeros(0, np.int64), np.zeros(0, bool)).tolist() == []
