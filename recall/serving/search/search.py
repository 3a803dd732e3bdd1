"""Query vectors -> lists of candidates: filters, exclusions, merge steps and fallbacks around an index."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from recall.core.arrays import Bools, Float32s, Int32s, Intps
from recall.core.errors import ArtifactError, DataError
from recall.core.ragged import Ragged
from recall.index import Index
from recall.index.results import Names, ids_at
from recall.serving.items.row_facts import RowFacts
from recall.serving.search.candidates import FALLBACK, FALLBACK_UNFILTERED, MODEL, Candidates, FoundCandidates, Source
from recall.serving.search.fallback import fallback_order, ranked_fallback
from recall.serving.search.filters import NO_FILTERS, Filters
from recall.serving.search.merging import Cap, Ranked, Rules, check_caps, cold_items, merged_lists
from recall.serving.users.asked import by_id, ids_of

Fallback = bool | Literal["filtered"]
Exclude = Iterable[str | int] | Mapping[str, Iterable[str | int]] | Mapping[int, Iterable[str | int]]


@dataclass(frozen=True)
class Wanted:
    """What a caller wants of lists; `Wanted.read` checks it.

    Attributes:
      k: candidates per query.
      filters: which items a query may have.
      caps: by column, how many items of one value a list holds at most.
      min_cold: how many items of a list have no exposure, while there are any that filters and caps allow.
      fallback: whether queries that the model cannot answer get popular and fresh items: `filtered` those that the
        filters allow; True also others, where the filters' predicates leave none: then their lists of ids alone count.
    """

    k: int
    filters: Filters = field(default_factory=Filters)
    caps: tuple[tuple[str, int], ...] = ()
    min_cold: int = 0
    fallback: Fallback = False

    @classmethod
    def read(
        cls,
        *,
        k: int,
        filters: Filters | Mapping[str, Any] | None = None,
        caps: Mapping[str, int] | None = None,
        min_cold_share: float = 0.0,
        fallback: Fallback = False,
    ) -> Wanted:
        """From what a caller gives.

        Raises:
          DataError: k or a cap below 1, a share outside 0 to 1, a fallback of another name, or filters of another form.
        """
        if k < 1:
            raise DataError(f"k: expected at least 1, found {k}")
        if filters is None and not caps and not min_cold_share and fallback is False:
            return _only(k)
        if fallback not in (True, False, "filtered"):
            raise DataError(f"fallback: expected true, false or filtered, found {fallback!r}")
        limits = check_caps(caps or {})
        return cls(k, Filters.read(filters), tuple(limits.items()), cold_items(k, min_cold_share), fallback)

    @property
    def needs_facts(self) -> bool:
        """Whether more than ids and scores has a say."""
        return bool(
            (self.filters is not NO_FILTERS and self.filters != NO_FILTERS)
            or self.caps
            or self.min_cold
            or self.fallback
        )


@functools.lru_cache(typed=True)
def _only(k: int) -> Wanted:
    """The usual wish: the best k."""
    return Wanted(k, NO_FILTERS)


class Found(NamedTuple):
    """Lists of all queries.

    Attributes:
      rows: int32 [queries, k], of the index; -1 where there is no more.
      scores: float32 [queries, k], -inf where the row is -1; of a fallback smoothed CTRs.
      sources: who answered each query; None where no fallback was wanted.
      unknown_ids: how many ids of the filters' lists the index lacks.
      names: ids by row.
    """

    rows: Int32s
    scores: Float32s
    sources: tuple[Source, ...] | None
    unknown_ids: int
    names: Names

    @property
    def ids(self) -> npt.NDArray[np.object_]:
        """Object [queries, k], None where there is no more; looked up anew each time."""
        return ids_at(self.names, self.rows)

    def candidates(self, queries: Sequence[str], *, titles: Mapping[str, str]) -> Candidates:
        """The lists under the names of their queries."""
        return FoundCandidates(
            self.rows,
            self.names,
            queries=queries,
            scores=self.scores,
            titles=titles,
            sources=self.sources,
            unknown_ids=self.unknown_ids,
        )


def excluded_ids(exclude: Exclude | None, names: Sequence[str]) -> list[list[str]]:
    """What a caller excludes, per query.

    Args:
      exclude: ids for all queries, or by name of the query; names that are not asked for are passed over.
      names: of the queries.

    Raises:
      DataError: no list of ids, or an id is missing.
    """
    if isinstance(exclude, Mapping):
        own = by_id(exclude, "exclude")
        lists = {name: ids_of(own[name], f"exclude[{name!r}]") for name in names if name in own}
        return [lists.get(name, []) for name in names]
    return [ids_of(exclude or (), "exclude")] * len(names)


def search_candidates(
    index: Index,
    vectors: Float32s,
    *,
    wanted: Wanted,
    excluded: Sequence[Iterable[str]] | Ragged,
    facts: RowFacts | None,
    now_ms: int,
    lacking: Bools | None = None,
) -> Found:
    """Lists of k candidates.

    Wherever k items may be had (and caps allow them) k are given; an exact index gives exactly the best of them.

    Args:
      index: does not change while it is searched.
      vectors: float32 [queries, dim], or [queries, interests, dim]: the best of an item's scores counts.
      wanted: what the lists have to keep.
      excluded: ids per query that it may not have, of which those that the index lacks are passed over; or its rows.
      facts: of the items by the rows of the index; None will do where nothing is wanted but k.
      now_ms: the moment of the queries, for ages.
      lacking: bool [queries], for whom there is nothing to search with: their lists are empty, or of the fallback.

    Raises:
      ArtifactError: facts are wanted and not there.
      DataError: a filter or a cap does not fit the attributes that there are.
    """
    barred = excluded
    if not isinstance(barred, Ragged):
        barred = Ragged.from_lists(index.rows_there(ids) for ids in barred).distinct()
    queries = len(vectors)
    if not wanted.needs_facts:
        if lacking is None and vectors.ndim == 2:  # the usual case, in which the index's lists are the ones wanted
            found = index.search(vectors, wanted.k, excluded=barred if barred.values.size else None)
            return Found(found.rows, found.scores, None, 0, index.names)
        allowed, unknown, rules = None, 0, Rules(wanted.k)
    else:
        if facts is None:
            raise ArtifactError("filters, caps, min_cold_share and fallback want to know the items; open the run with "
                                "Recaller.load")  # fmt: skip
        allowed, unknown = wanted.filters.allowed(facts, now_ms=now_ms)
        rules = _rules(wanted, facts)
    if lacking is None and queries:
        ranked = _ranked_by(index, vectors, allowed=allowed, excluded=barred)
        rows, scores = merged_lists(ranked, rules, queries=queries, items=index.row_count)
    else:
        rows = np.full((queries, wanted.k), -1, np.int32)
        scores = np.full((queries, wanted.k), -np.inf, np.float32)
        asked = np.arange(queries) if lacking is None else np.flatnonzero(~lacking)
        if len(asked):
            ranked = _ranked_by(index, vectors[asked], allowed=allowed, excluded=barred.take(asked))
            rows[asked], scores[asked] = merged_lists(ranked, rules, queries=len(asked), items=index.row_count)
    sources = None
    if wanted.fallback and facts is not None:
        sources = _fall_back(rows, scores, wanted, rules, facts, allowed, barred, lacking=lacking, now_ms=now_ms)
    return Found(rows, scores, sources, unknown, index.names)


def _rules(wanted: Wanted, known: RowFacts) -> Rules:
    caps = [Cap(known.groups(column, what=f"caps[{column!r}]"), limit) for column, limit in wanted.caps]
    return Rules(wanted.k, tuple(caps), known.is_cold if wanted.min_cold else None, wanted.min_cold)


def _ranked_by(index: Index, vectors: Float32s, *, allowed: Bools | None, excluded: Ragged) -> Ranked:
    """The index as a source of candidates; of several interests the lists become one."""
    interests = vectors.shape[1] if vectors.ndim == 3 else 1
    dim = vectors.shape[-1]
    by_query = vectors.reshape(len(vectors), interests, dim)

    def ranked(queries: Intps, width: int, *, only: Bools | None) -> tuple[Int32s, Float32s]:
        may = allowed if only is None else only if allowed is None else allowed & only
        is_all = interests == 1 and len(queries) == len(excluded)  # rising, each once
        own = excluded if is_all else excluded.take(np.repeat(queries, interests))
        found = index.search(
            (by_query if is_all else by_query[queries]).reshape(-1, dim),
            width,
            allowed=may,
            excluded=own if own.values.size else None,
        )
        merged = found.merged(interests) if interests > 1 else found
        return merged.rows[:, :width], merged.scores[:, :width]

    return ranked


def _fall_back(
    rows: Int32s,
    scores: Float32s,
    wanted: Wanted,
    rules: Rules,
    known: RowFacts,
    allowed: Bools | None,
    barred: Ragged,
    *,
    lacking: Bools | None,
    now_ms: int,
) -> tuple[Source, ...]:
    """Fills the lists of those who lack something and, in place, what stayed empty; says who answered."""
    sources: list[Source] = [MODEL] * len(rows)

    def fill(queries: Intps, may: Bools | None, source: Source) -> None:
        if not len(queries):
            return
        order = fallback_order(known.posterior)  # may have rows that came after this index
        order = order[order < len(known)]
        order = order[known.is_there[order]]
        ranked = ranked_fallback(order, allowed=may, excluded=barred.take(queries))
        rows[queries], _ = merged_lists(ranked, rules, queries=len(queries), items=known.index.row_count)
        ctr = np.append(known.by_posterior(lambda part: part.smoothed_ctr), -np.inf).astype(np.float32)
        scores[queries] = ctr[rows[queries]]
        for query in queries:
            sources[query] = source

    if lacking is not None:
        fill(np.flatnonzero(lacking), allowed, FALLBACK)
    if wanted.fallback is True and wanted.filters.where:
        lists = wanted.filters.without_predicates.allowed(known, now_ms=now_ms)
        fill(np.flatnonzero(rows[:, 0] < 0), lists.mask, FALLBACK_UNFILTERED)
    return tuple(sources)
