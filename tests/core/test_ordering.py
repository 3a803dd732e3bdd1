"""Order of rows by several keys, against np.lexsort."""

from __future__ import annotations

import numpy as np
import pytest

from recall.core.ordering import order_of

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


@pytest.mark.parametrize("values", [1, 3, 70_000, 1 << 40], ids=str)
def test_ties_decide_among_rows_that_agree_in_all_keys(values: int) -> None:
    generator = np.random.default_rng(values)
    user, time_ms = generator.integers(0, 5, 2000), np.sort(generator.integers(0, values, 2000))
    item, click = generator.integers(0, 4, 2000), generator.random(2000) < 0.5
    order = order_of(user, time_ms, ties=(item, click))
    assert order.tolist() == np.lexsort((click, item, time_ms, user)).tolist()


def test_rows_that_agree_stay_in_their_order() -> None:
    generator = np.random.default_rng(0)
    for low, spread in ((-3, 5), (FAR.min, 5), (-(1 << 20), 1 << 21), (FAR.max - (1 << 40), 1 << 40)):
        key = low + generator.choice(generator.integers(0, spread, 50), 5000)
        assert order_of(key).tolist() == np.lexsort((key,)).tolist()
