"""A small community whose loop takes a second without models."""

from __future__ import annotations

import pytest

from recall.data.datasets.live_community import LiveCommunity


@pytest.fixture(scope="session")
def live() -> LiveCommunity:
    return LiveCommunity.make(users=150, items=700, days=3, warm_up_days=2, authors=40, seed=3)
