"""Builds an index in shards, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from recall.config.index import IndexConfig
from recall.core.arrays import Float32s
from recall.index.base import VectorIndex
from recall.index.build.choice import add_cosine, exact_at_once, tuned_index
from recall.index.build.tuning import Progress, recall_of_scores
from recall.index.exact import ExactIndex
from recall.index.items import Items
from recall.index.shards import Shard, split_rows


class ShardBuild:
    """Build each shard of an index at the call of `shard`, and keep none.

    A caller that writes and releases each shard before it asks for the next holds one shard's copy of vectors and one
    searcher in memory at a time, beside the vectors of the catalogue.

    Each shard is exact or ScaNN by itself. A ScaNN shard is tuned until it finds `target_recall` of its items among
    the k best of the whole catalogue. Merging loses none of them, so that the merged lists reach the target too. A
    shard tuned to find its own k best would search too hard, at most by a factor of the number of shards.

    Args:
      items: the whole catalogue.
      config: the `index` section of an experiment.
      queries: makes the queries to tune with, float32 [queries, dim]; called if a shard is not exact at once.
      cosine_width: see `build_index`.
      report: added to the report of the index.
      progress: called with one line of text per step.

    Raises:
      ConfigError: there are too few items for the shards.
    """

    def __init__(
        self,
        items: Items,
        *,
        config: IndexConfig,
        queries: Callable[[], Float32s],
        cosine_width: int | None = None,
        report: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
    ):
        self.items = items
        self._rows = split_rows(items.ids, config.shards)
        self._config, self._progress, self._further = config, progress, dict(report or {})
        self._queries, self._k = queries, min(config.k, len(items.ids))
        self._cosine_width = cosine_width
        self._tuned_with: tuple[Float32s, Float32s] | None = None
        self._kinds: dict[int, str] = {}
        self._found: dict[int, Float32s] = {}

    @property
    def count(self) -> int:
        """Return the number of shards."""
        return len(self._rows)

    def shard(self, number: int) -> Shard:
        """Build one shard; the first that is not exact at once waits for an exact search of all items."""
        rows = self._rows[number]
        items = self.items.take(rows)
        index: VectorIndex
        if reason := exact_at_once(items, self._config):
            index = ExactIndex(items, report={"reason": reason})
        else:
            queries, exact = self._tuning()
            index = tuned_index(
                items, queries, config=self._config, worst=exact[:, -1:], progress=self._progress_of(number)
            )  # fmt: skip
            if self._cosine_width is not None:
                add_cosine(index, width=self._cosine_width, config=self._config, progress=self._progress_of(number))
        self._kinds[number] = index.kind
        if self._tuned_with:
            self._found[number] = index.search(self._tuned_with[0], self._k).scores
        return Shard(index, rows, number, self.count)

    @property
    def report(self) -> dict[str, Any]:
        """Return the report of the whole index, once every shard was built; each shard has a report of its own."""
        kinds = list(self._kinds.values())
        sizes = [len(rows) for rows in self._rows]
        report: dict[str, Any] = {
            "reason": f"index.shards is {self.count}",
            "shards": {
                **{kind: kinds.count(kind) for kind in sorted(set(kinds))},
                "fewest_items": min(sizes),
                "most_items": max(sizes),
            },
        }
        if self._tuned_with and len(self._found) == self.count:
            queries, exact = self._tuned_with
            recall, standard_error = recall_of_scores(_best_scores(list(self._found.values()), self._k), exact)
            measured = {"k": self._k, "queries": len(queries), "recall": recall, "standard_error": standard_error}
            report["measured"] = {"merged": measured}
        kept = {} if self._cosine_width is None else {"cosine_width": self._cosine_width}
        return {**report, **kept, **self._further}

    def _tuning(self) -> tuple[Float32s, Float32s]:
        """Return the queries to tune with, and the k highest scores of all items for each, [queries, k]."""
        if self._tuned_with is None:
            queries = self._queries()
            if self._progress:
                self._progress(f"exact search of {self.count} shards for {len(queries):,} queries to tune with")
            scores = [ExactIndex(self.items.take(rows)).search(queries, self._k).scores for rows in self._rows]
            self._tuned_with = queries, _best_scores(scores, self._k)
        return self._tuned_with

    def _progress_of(self, number: int) -> Progress | None:
        """Return a progress function whose lines name the shard."""
        progress = self._progress
        return (lambda line: progress(f"shard {number + 1} of {self.count}: {line}")) if progress else None


def _best_scores(scores: list[Float32s], k: int) -> Float32s:
    """Return the k highest of the shards' scores [queries, any], falling."""
    return -np.sort(-np.concatenate(scores, axis=1), axis=1)[:, :k]
