"""Holds the result of a request: lists of candidates, for programs and for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from recall.core.arrays import Float32s, Int32s, Intps
from recall.core.html import html_table
from recall.index.items import Ids
from recall.index.results import Names, ids_at

Source = Literal["model", "fallback", "fallback_unfiltered"]
"""Source of a list: the model; popular and fresh items that the filters allow; or, where the predicates allow none,
popular and fresh items that the filters' lists of ids allow."""
MODEL: Source = "model"
FALLBACK: Source = "fallback"
FALLBACK_UNFILTERED: Source = "fallback_unfiltered"
_SHOWN_QUERIES, _SHOWN_CANDIDATES = 5, 10  # by a notebook


@dataclass(frozen=True)
class Candidates:
    """Hold one list of candidates per query, best first.

    Example:
      >>> found = recall.Recaller.load("runs/mine").recall(["u000"], k=2)
      >>> found.to_pandas().columns.tolist()
      ['query', 'rank', 'item', 'score', 'title']

    Attributes:
      queries: names of the queries: user ids, item ids or positions.
      ids: object [queries, k], item ids; None where the catalogue has no more items.
      scores: float32 [queries, k], inner products, or cosines where items or contents are compared; -inf where the id
        is None. For a user with several interests the score of the best interest; for a fallback, which has an order of
        its own, the smoothed CTR.
      titles: titles by item id, where the catalogue has some.
      sources: source of each list; None, for the model, where no fallback was asked for.
      unknown_ids: number of ids of the allow and deny lists that the index lacks; they were ignored.
    """

    queries: Sequence[str]
    ids: npt.NDArray[np.object_]
    scores: Float32s
    titles: Mapping[str, str] = field(repr=False)  # of the whole catalogue
    sources: tuple[Source, ...] | None = None
    unknown_ids: int = 0

    def records(self) -> list[dict[str, Any]]:
        """Return one dictionary per candidate, ready for JSON.

        Its keys are query, rank (from 1), item, score, title (None without one), and source if a fallback was asked
        for.
        """
        shown = [{}] * len(self.queries) if self.sources is None else [{"source": source} for source in self.sources]
        return [
            {
                "query": query,
                "rank": rank,
                "item": item,
                "score": float(score),
                "title": self.titles.get(item),
                **source,
            }
            for query, ids, scores, source in zip(self.queries, self.ids, self.scores, shown, strict=True)
            for rank, (item, score) in enumerate(zip(ids, scores, strict=True), start=1)
            if item is not None
        ]

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per candidate, with the keys of `records` as columns."""
        columns = ["query", "rank", "item", "score", "title", *(["source"] if self.sources is not None else [])]
        return pd.DataFrame(self.records(), columns=columns)

    def _repr_html_(self) -> str:
        """Show the first candidates of the first queries as a table in a notebook."""
        count, k = self.scores.shape[:2]
        shown = Candidates(
            self.queries[:_SHOWN_QUERIES],
            self.ids[:_SHOWN_QUERIES, :_SHOWN_CANDIDATES],
            self.scores[:_SHOWN_QUERIES, :_SHOWN_CANDIDATES],
            self.titles,
            self.sources and self.sources[:_SHOWN_QUERIES],
        )
        records = shown.records()
        columns = ["query", "rank", "item", "title", "score", "source"]
        if not any(record["title"] for record in records):
            columns.remove("title")
        if self.sources is None:
            columns.remove("source")
        texts = [
            {**record, "query": record["query"] if record["rank"] == 1 else None, "score": f"{record['score']:.3f}"}
            for record in records
        ]
        cut = [f"the first {_SHOWN_CANDIDATES} of {k:,} candidates" if k > _SHOWN_CANDIDATES else "the lists"]
        if count > _SHOWN_QUERIES:
            cut.append(f"the first {_SHOWN_QUERIES} of {count:,} queries")
        whole = k <= _SHOWN_CANDIDATES and count <= _SHOWN_QUERIES
        return html_table(
            "Candidates",
            columns,
            [[text[name] for name in columns] for text in texts],
            numbers=[columns.index(name) for name in ("rank", "score")],
            note="" if whole else f"{' of '.join(cut).capitalize()}; to_pandas() has all.",
        )


class FoundCandidates(Candidates):
    """Look up the ids of candidates at their first use, which is a fifth of the time of a batch.

    Args:
      rows: int32 [queries, k], -1 where the catalogue has no more items.
      names: item ids by row.
      others: the other attributes of `Candidates`.
    """

    def __init__(self, rows: Int32s, names: Names, **others: Any) -> None:
        self.__dict__.update(others, _rows=rows, _names=names)

    @property
    def ids(self) -> Ids:
        """Look up the item ids, object [queries, k]; None where the catalogue has no more items."""
        # Not a cached_property: see `SearchResult.ids`.
        own = self.__dict__
        found: Ids | None = own.get("_ids")
        if found is None:
            found = own["_ids"] = ids_at(own["_names"], own["_rows"])
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the ids of the lists without the ids of the catalogue."""
        return Candidates, (self.queries, self.ids, self.scores, self.titles, self.sources, self.unknown_ids)


def joined(parts: Sequence[tuple[Intps, Candidates]]) -> Candidates:
    """Join the lists of parts of the queries, which were searched with the same options.

    Args:
      parts: positions of the part's queries among all, intp [queries of the part], and their lists.
    """
    positions = np.concatenate([places for places, _ in parts])
    order = np.argsort(positions)
    queries = [name for _, part in parts for name in part.queries]
    sources = [source for _, part in parts for source in part.sources or ()]
    _, first = parts[0]
    return Candidates(
        [queries[place] for place in order],
        np.concatenate([part.ids for _, part in parts])[order],
        np.concatenate([part.scores for _, part in parts])[order],
        first.titles,
        tuple(sources[place] for place in order) if sources else None,
        first.unknown_ids,
    )
