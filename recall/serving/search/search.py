"""Searches an index for lists of candidates, and applies filters, exclusions, caps, cold shares and the fallback.

`options.py` has what a caller may ask for; `merging.py` fills the lists; `candidates.py` has the result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from recall.core.arrays import Bools, Float32s, Int32s, Intps
from recall.core.errors import ArtifactError
from recall.core.ragged import Ragged
from recall.index import Index
from recall.index.results import Names, ids_at
from recall.serving.items.row_facts import RowFacts
from recall.serving.search.candidates import FALLBACK, FALLBACK_UNFILTERED, MODEL, Candidates, FoundCandidates, Source
from recall.serving.search.caps import Cap
from recall.serving.search.fallback import fallback_order, ranked_fallback
from recall.serving.search.merging import Rules, merged_lists
from recall.serving.search.options import SearchOptions


class Found(NamedTuple):
    """Hold the lists of all queries as rows of an index.

    Attributes:
      rows: int32 [queries, k]; -1 where there are no more items.
      scores: float32 [queries, k], -inf where the row is -1; smoothed CTRs for a fallback.
      sources: source of each list; None where no fallback was asked for.
      unknown_ids: number of ids of the filters' lists that the index lacks.
      names: item ids by row.
    """

    rows: Int32s
    scores: Float32s
    sources: tuple[Source, ...] | None
    unknown_ids: int
    names: Names

    @property
    def ids(self) -> npt.NDArray[np.object_]:
        """Look up the item ids, object [queries, k], None where there are no more; anew at each use."""
        return ids_at(self.names, self.rows)

    def candidates(self, queries: Sequence[str], *, titles: Mapping[str, str]) -> Candidates:
        """Return the lists under the names of their queries."""
        return FoundCandidates(
            self.rows,
            self.names,
            queries=queries,
            scores=self.scores,
            titles=titles,
            sources=self.sources,
            unknown_ids=self.unknown_ids,
        )


def search_candidates(
    index: Index,
    vectors: Float32s,
    *,
    options: SearchOptions,
    excluded: Ragged,
    facts: RowFacts | None,
    now_ms: int,
    lacking: Bools | None = None,
) -> Found:
    """Search lists of k candidates.

    A list has k items wherever k remain and the caps allow them. An exact index gives exactly the best of them.

    Args:
      index: an index that does not change meanwhile.
      vectors: float32 [queries, dim], or [queries, interests, dim]: the best of an item's scores counts.
      options: options of the search; their `exclude` is part of `excluded`.
      excluded: per query the rows that its list may not hold.
      facts: facts by the rows of the index; None will do where `options.needs_facts` is false.
      now_ms: the moment of the queries (Unix milliseconds), for ages.
      lacking: bool [queries], queries whose vectors say nothing: their lists are empty, or of the fallback.

    Raises:
      ArtifactError: facts are needed and None.
      DataError: a filter or a cap does not fit the attributes.
    """
    if not options.needs_facts and lacking is None and vectors.ndim == 2:  # the usual case: the index's own lists
        result = index.search(vectors, options.k, excluded=excluded if excluded.values.size else None)
        return Found(result.rows, result.scores, None, 0, index.names)
    plan = _planned(index, options, facts, now_ms=now_ms)
    rows = np.full((len(vectors), options.k), -1, np.int32)
    scores = np.full((len(vectors), options.k), -np.inf, np.float32)
    answered = np.arange(len(vectors)) if lacking is None else np.flatnonzero(~lacking)
    if len(answered):
        rows[answered], scores[answered] = _model_lists(plan, vectors[answered], excluded.take(answered))
    if not options.fallback or facts is None:
        return Found(rows, scores, None, plan.unknown_ids, index.names)
    sources: list[Source] = [MODEL] * len(rows)

    def fall_back(queries: Intps, allowed: Bools | None, source: Source) -> None:
        rows[queries], scores[queries] = _fallback_lists(plan, facts, excluded.take(queries), allowed=allowed)
        for query in queries:
            sources[query] = source

    if lacking is not None and lacking.any():
        fall_back(np.flatnonzero(lacking), plan.allowed, FALLBACK)
    is_empty = rows[:, 0] < 0
    if options.fallback is True and options.filters.where and is_empty.any():
        by_ids = options.filters.without_predicates.allowed(facts, now_ms=now_ms).mask
        fall_back(np.flatnonzero(is_empty), by_ids, FALLBACK_UNFILTERED)
    return Found(rows, scores, tuple(sources), plan.unknown_ids, index.names)


@dataclass(frozen=True)
class _Plan:
    """Hold the rules of a search, which are the same for every query.

    Attributes:
      index: the searched index.
      rules: rules of the lists.
      allowed: bool [rows], the rows that the filters allow; None: all.
      unknown_ids: number of ids of the filters' lists that the index lacks.
    """

    index: Index
    rules: Rules
    allowed: Bools | None = None
    unknown_ids: int = 0


def _planned(index: Index, options: SearchOptions, facts: RowFacts | None, *, now_ms: int) -> _Plan:
    """Read the facts that the options need; arguments and errors are as of `search_candidates`."""
    if not options.needs_facts:
        return _Plan(index, Rules(options.k))
    if facts is None:
        raise ArtifactError("filters, caps, min_cold_share and fallback want to know the items; open the run with "
                            "Recaller.load")  # fmt: skip
    allowed, unknown_ids = options.filters.allowed(facts, now_ms=now_ms)
    caps = [Cap(facts.groups(column, what=f"caps[{column!r}]"), limit) for column, limit in options.caps.items()]
    min_cold = options.min_cold
    cold = None
    if min_cold:
        cold = facts.within_budget(options.budget) if options.budget else facts.is_cold
    rules = Rules(options.k, tuple(caps), cold, min_cold)
    return _Plan(index, rules, allowed, unknown_ids)


def _model_lists(plan: _Plan, vectors: Float32s, excluded: Ragged) -> tuple[Int32s, Float32s]:
    """Fill the lists of queries by the index; the lists of several interests of a query are merged into one.

    Args:
      plan: rules of the search.
      vectors: float32 [queries, dim] or [queries, interests, dim].
      excluded: per query the rows that its list may not hold.

    Returns:
      rows int32 and scores float32 [queries, k].
    """
    interests = vectors.shape[1] if vectors.ndim == 3 else 1
    dim = vectors.shape[-1]
    by_query = vectors.reshape(len(vectors), interests, dim)

    def ranked(queries: Intps, width: int, *, only: Bools | None) -> tuple[Int32s, Float32s]:
        allowed = plan.allowed if only is None else only if plan.allowed is None else plan.allowed & only
        is_all = interests == 1 and len(queries) == len(excluded)  # positions rise, each once
        own = excluded if is_all else excluded.take(np.repeat(queries, interests))
        result = plan.index.search(
            (by_query if is_all else by_query[queries]).reshape(-1, dim),
            width,
            allowed=allowed,
            excluded=own if own.values.size else None,
        )
        merged = result.merged(interests) if interests > 1 else result
        return merged.rows[:, :width], merged.scores[:, :width]

    return merged_lists(ranked, plan.rules, queries=len(vectors), items=plan.index.row_count)


def _fallback_lists(
    plan: _Plan, facts: RowFacts, excluded: Ragged, *, allowed: Bools | None
) -> tuple[Int32s, Float32s]:
    """Fill lists with popular and fresh items among the allowed rows; scores are smoothed CTRs.

    Args:
      plan: rules of the search.
      facts: facts by the rows of the index.
      excluded: per query the rows that its list may not hold.
      allowed: bool [rows], the rows that lists may hold; None: all.

    Returns:
      rows int32 and scores float32 [queries, k].
    """
    order = fallback_order(facts.posterior)  # may have rows that came after this index
    order = order[order < len(facts)]
    order = order[facts.is_alive[order]]
    ranked = ranked_fallback(order, allowed=allowed, excluded=excluded)
    rows, _ = merged_lists(ranked, plan.rules, queries=len(excluded), items=plan.index.row_count)
    ctr = np.append(facts.by_posterior(lambda part: part.smoothed_ctr), -np.inf).astype(np.float32)
    return rows, ctr[rows]
