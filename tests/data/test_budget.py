"""The budget of exposures of new items."""

from __future__ import annotations

import numpy as np

from recall.data.budget import within_budget


def test_every_item_may_spend_the_first_step_and_a_good_one_all() -> None:
    # The CTR of all is 100 / 500 = 0.2; shrunk by 20 exposures, 30 of 100 is .28 and 10 of 100 is .117.
    exposures, clicks = np.array([0, 19, 99, 99, 100, 183]), np.array([0, 0, 30, 10, 30, 30])
    assert clicks.sum() / exposures.sum() == 0.2
    assert within_budget(exposures, clicks, steps=(20, 100)).tolist() == [True, True, True, False, False, False]
    assert within_budget(exposures, clicks, steps=(20,)).tolist() == [True, True, False, False, False, False]
    assert within_budget(exposures, clicks, steps=(1,)).tolist() == (exposures == 0).tolist()


def test_before_the_first_exposure_everything_is_within_its_budget() -> None:
    none = np.zeros(3, np.int64)
    assert within_budget(none, none, steps=(5, 50)).all()
