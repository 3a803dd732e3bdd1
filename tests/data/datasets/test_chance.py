"""Numbers that are drawn for a thing: uniform, the same wherever it is asked for, and independent of the others."""

from __future__ import annotations

import numpy as np
import pytest

from recall.data.datasets.chance import chance


def test_a_number_depends_on_its_thing_alone() -> None:
    users, items = np.arange(40), np.arange(50)
    table = chance(7, 3, users[:, np.newaxis], items)
    assert table.shape == (40, 50)
    assert chance(7, 3, 11, 13) == table[11, 13]
    assert (chance(7, 3, users[::-1], 13) == table[::-1, 13]).all()


def test_another_seed_place_or_order_gives_other_numbers() -> None:
    things = [(1, 2, 3), (2, 1, 3), (1, 3, 2), (3, 2, 1), (1, 2), (1, 2, 3, 0), (0, 1, 2, 3)]
    drawn = [float(chance(*thing)) for thing in things]
    assert len(set(drawn)) == len(things)


def test_numbers_are_uniform_and_uncorrelated() -> None:
    table = chance(1, np.arange(400)[:, np.newaxis], np.arange(500))  # [400, 500]
    assert table.min() >= 0
    assert table.max() < 1
    assert table.mean() == pytest.approx(0.5, abs=0.003)  # a standard error is .00065
    assert np.bincount((table * 10).astype(int).ravel()) / table.size == pytest.approx(np.full(10, 0.1), abs=0.004)
    for neighbour in (table[1:] * table[:-1], table[:, 1:] * table[:, :-1]):
        assert neighbour.mean() == pytest.approx(0.25, abs=0.003)


def test_no_warning_is_given_of_numbers_that_wrap_around(recwarn: pytest.WarningsRecorder) -> None:
    chance(2**60, 2**63, np.arange(3))
    assert not recwarn.list
