"""Slates hold the best allowed items, each once, with the shares of cold and random items that an arm asks for."""

from __future__ import annotations

import numpy as np
import pytest

from recall.data.datasets.live_community import Visits
from recall.runs.loop.arms import Arm
from recall.runs.loop.slates import fill_slates

USERS, ITEMS = 300, 60
RNG = np.random.default_rng(1)
SCORES = RNG.normal(size=(USERS, ITEMS)).astype(np.float32)
ALLOWED = RNG.random((USERS, ITEMS)) < 0.8
VISITS = Visits(5, 0, np.arange(USERS), np.zeros((USERS, 10), np.int64))
NONE = np.zeros(ITEMS, bool)
NEW = np.arange(ITEMS) >= 50


def filled(arm: str, *, scores: np.ndarray = SCORES, allowed: np.ndarray = ALLOWED) -> np.ndarray:
    return fill_slates(scores, allowed, VISITS, arm=Arm.parse(arm), seed=1, young=NEW, cold=NEW)


def test_slates_are_the_ten_best_allowed_items_in_order() -> None:
    for own, scores, allowed in zip(filled("oracle"), SCORES, ALLOWED, strict=True):
        expected = sorted(np.flatnonzero(allowed), key=lambda item: -scores[item])[:10]
        assert own.tolist() == expected


def test_a_user_who_has_seen_nearly_all_gets_what_is_left() -> None:
    allowed = np.zeros_like(ALLOWED)
    allowed[:, [4, 9]] = True
    rows = filled("oracle+explore=0.5", allowed=allowed)
    assert {tuple(sorted(own.tolist())) for own in rows} == {(-1,) * 8 + (4, 9)}
    assert (filled("oracle", allowed=np.zeros_like(ALLOWED)) == -1).all()


def test_a_cold_share_is_kept_while_there_are_cold_items() -> None:
    rows = filled("gated+min_cold_share=0.3", scores=np.where(NEW, SCORES - 100, SCORES).astype(np.float32))
    assert ((rows >= 50).sum(axis=1) == 3).all()
    assert not (filled("gated", scores=np.where(NEW, SCORES - 100, SCORES).astype(np.float32)) >= 50).any()


def test_a_share_is_rounded_up_as_a_served_request_does() -> None:
    scores = np.where(NEW, SCORES - 100, SCORES).astype(np.float32)
    assert ((filled("gated+min_cold_share=0.11", scores=scores) >= 50).sum(axis=1) == 2).all()


@pytest.mark.parametrize("arm", ["gated+explore=0.2", "gated+explore_new=0.2"])
def test_a_share_of_the_slots_explores(arm: str) -> None:
    plain, rows = filled("gated"), filled(arm)
    assert (rows == filled(arm)).all()
    changed = rows != plain
    assert changed.mean() == pytest.approx(0.2, abs=0.03)
    assert all(len(set(own.tolist())) == 10 for own in rows)
    assert np.take_along_axis(ALLOWED, rows, axis=1).all()
    assert (rows[changed] >= 50).all() == ("new" in arm)
    # Items that are explored have no better scores than any other: about half are below the median.
    scores = np.take_along_axis(SCORES, rows, axis=1)[changed]
    assert scores.mean() < np.take_along_axis(SCORES, plain, axis=1).mean() - 1


def test_exploring_does_not_depend_on_who_else_comes() -> None:
    half = Visits(5, 0, VISITS.users[::2], VISITS.times_ms[::2])
    some = fill_slates(SCORES[::2], ALLOWED[::2], half, arm=Arm.parse("gated+explore=0.3"), seed=1, young=NEW, cold=NEW)
    assert (some == filled("gated+explore=0.3")[::2]).all()
