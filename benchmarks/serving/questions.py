"""What clients ask: users by id, with a filter, or by raw features."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

FILTERED_SHARE, FEATURES_SHARE = 0.15, 0.15


@dataclass(frozen=True)
class Asking:
    """Who may ask, and for what.

    Attributes:
      users: ids.
      profiles: rows of the users file without the id, each with a history.
      categories: of items, to filter by.
      k: candidates per question.
    """

    users: Sequence[str]
    profiles: Sequence[Mapping[str, Any]]
    categories: Sequence[str]
    k: int

    def content(self) -> dict[str, Any]:
        """For JSON; `Asking(**content)` reads it."""
        return asdict(self)

    def question(self, choices: random.Random) -> dict[str, Any]:
        """Body of a POST /recall."""
        kind = choices.random()
        if kind < FEATURES_SHARE:
            return {"features": [choices.choice(self.profiles)], "k": self.k}
        body: dict[str, Any] = {"users": [choices.choice(self.users)], "k": self.k}
        if kind < FEATURES_SHARE + FILTERED_SHARE:
            body["filters"] = category_filter(choices.choice(self.categories))
        return body


def category_filter(category: str) -> dict[str, Any]:
    """Items of one category."""
    return {"where": [{"column": "category", "in": [category]}]}
