"""What a recaller gives: lists of candidates, for programs and for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd


@dataclass(frozen=True)
class Candidates:
    """Recalled items, best first.

    Attributes:
      queries: the users or items that were asked for.
      ids: object [queries, k], item ids; None where the catalogue had no more to give.
      scores: float32 [queries, k], inner products; -inf where the id is None. Of a user with several interests those
        of the interest that scores the item highest.
      titles: titles by item id, where the catalogue has some.
    """

    queries: Sequence[str]
    ids: npt.NDArray[np.object_]
    scores: npt.NDArray[np.float32]
    titles: Mapping[str, str] = field(repr=False)  # of the whole catalogue

    def records(self) -> list[dict[str, Any]]:
        """One dictionary per candidate, ready for JSON: query, rank (from 1), item, score, title (None without)."""
        return [
            {"query": query, "rank": rank, "item": item, "score": float(score), "title": self.titles.get(item)}
            for query, ids, scores in zip(self.queries, self.ids, self.scores, strict=True)
            for rank, (item, score) in enumerate(zip(ids, scores, strict=True), start=1)
            if item is not None
        ]

    def to_pandas(self) -> pd.DataFrame:
        """One row per candidate: query, rank (from 1), item, score, title."""
        return pd.DataFrame(self.records(), columns=["query", "rank", "item", "score", "title"])
