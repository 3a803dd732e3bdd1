"""Makes a small catalogue with all that filters, caps and fallbacks ask for, for tests without a run."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa

from recall.data.item_attributes import TAGS, ItemAttributes
from recall.data.posterior import Posterior
from recall.index import ExactIndex, Index
from recall.index.items import Items
from recall.serving.items.facts import ItemFacts
from recall.serving.items.posterior import ServedPosterior

NOW_MS = 1_700_000_000_000
HOUR_MS = 3_600_000
DIM = 6
TAG_NAMES = ("red", "green", "blue", "black")


class Catalogue:
    """Hold items i0, i1, ... with attributes in `frame` (row i is item i), random vectors, and the facts of both."""

    def __init__(self, items: int = 200, *, seed: int = 1, cold: float = 0.2, authors: int = 12) -> None:
        rng = np.random.default_rng(seed)
        self.ids = [f"i{row}" for row in range(items)]
        self.vectors = rng.normal(size=(items, DIM)).astype(np.float32)
        exposures = np.where(rng.random(items) < cold, 0, rng.integers(1, 500, items))
        clicks = (exposures * rng.random(items)).astype(np.int64)
        age_hours = np.where(exposures, rng.integers(1, 200, items), 0).astype(np.float32)
        ctr = ((clicks + 2) / (exposures + 10)).astype(np.float32)
        self.frame = pd.DataFrame(
            {
                "category": rng.choice(["news", "sport", "art"], items),
                "author": [f"a{author}" for author in rng.integers(authors, size=items)],
                "tags": [list(rng.choice(TAG_NAMES, size=rng.integers(0, 3), replace=False)) for _ in range(items)],
                "seconds": rng.integers(1, 100, items).astype(float),
                "published_s": NOW_MS // 1000 - 3_600 * rng.integers(0, 300, items),
                "exposures": exposures,
                "clicks": clicks,
                "ctr": ctr,
                "age_hours": age_hours,
            },
            index=pd.Index(self.ids),
        )
        for column in ("category", "author", "seconds"):
            self.frame[column] = self.frame[column].astype(object).where(rng.random(items) > 0.1, None)
        table = pa.table(
            {
                "category": pa.array(self.frame.category, pa.string()),
                "author": pa.array(self.frame.author, pa.string()),
                "tags": pa.array(list(self.frame.tags), TAGS),
                "seconds": pa.array(self.frame.seconds, pa.float64()),
                "published_s": pa.array(self.frame.published_s),
            }
        )
        ids = pa.array(self.ids)
        self.posterior = ServedPosterior.at(ids, Posterior(exposures, clicks, ctr, age_hours), at_ms=NOW_MS)
        self.facts = ItemFacts(ItemAttributes(ids, table), self.posterior)

    def index(self) -> Index:
        """Build exact search over the vectors."""
        return ExactIndex(Items.checked(self.ids, self.vectors))
