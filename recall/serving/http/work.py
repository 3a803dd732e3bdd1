"""Estimates the work of a question before it is done: a refusal, or the number of queries in one call of the model.

The limits of `limits.py` bound what a request lists; a list of k under caps costs a multiple of a plain one.
"""

from __future__ import annotations

from recall.serving.http.parts import Question
from recall.serving.http.problems import ServiceError, over_limit
from recall.serving.http.settings import ServiceSettings

# In looks at a candidate, of about .4 us of a core each (benchmarks/serving: `python -m benchmarks.serving heavy`).
_FOUND = 8  # to find, name and encode a candidate
_DETAILS = 4  # to describe it
_UNDER_CAPS = 2  # so many times k candidates are looked at, and each of their values is counted
# Where few values fill a list, the catalogue is looked at: so many items at once. A search of it is ten times cheaper.
_ITEMS_PER_LOOK = 100
_PER_PREDICATE, _ITEMS_PER_PREDICATE = 250, 20
_PER_AGE, _ITEMS_PER_AGE = 2500, 2
_FILTERS_SHARE = 4  # the masks of filters are made in one call, which cannot be cut: a part of the work of a request


def work_per_query(question: Question, *, items: int) -> int:
    """Estimate the work for one user or item of a question, in looks at a candidate.

    Args:
      question: the question.
      items: number of items of the index.
    """
    k, caps = min(question.k, items), len(question.caps)
    fills = 2 if question.min_cold_share else 1  # the list is filled anew around its cold items
    under_caps = fills * (_UNDER_CAPS * k * (1 + caps) + caps * items // _ITEMS_PER_LOOK) if caps else 0
    found = k * (_FOUND + (_DETAILS if question.details else 0)) + items // (10 * _ITEMS_PER_LOOK)
    return found + under_caps + len(question.exclude)


def work_of_filters(question: Question, *, items: int) -> tuple[int, int]:
    """Estimate the work for the filters of a question, in looks: once, and again in each call for ages."""
    ages = sum(predicate.newer_than_hours is not None for predicate in question.filters.where)
    others = len(question.filters.where) - ages
    return others * (_PER_PREDICATE + items // _ITEMS_PER_PREDICATE), ages * (_PER_AGE + items // _ITEMS_PER_AGE)


def queries_per_call(question: Question, settings: ServiceSettings, *, items: int) -> int:
    """Return the number of queries of a question in one call, so that calls of all questions take about as long.

    Args:
      question: the question.
      settings: bounds of a request and of a call.
      items: number of items of the index.

    Raises:
      ServiceError: 422, all queries together are more work than a request may cost; says how much, and what to change.
    """
    each, (once, by_ages) = work_per_query(question, items=items), work_of_filters(question, items=items)
    predicates, queries = len(question.filters.where), question.queries
    if once + by_ages > settings.max_work // _FILTERS_SHARE:
        limit = settings.max_work // _FILTERS_SHARE * predicates // (once + by_ages)
        raise over_limit("filters.where", limit=limit, found=predicates, what=f"such predicates over {items:,} items")
    most = max(1, settings.call_work // max(1, each))
    by_filters = once + by_ages * -(-queries // most)
    if (total := each * queries + by_filters) > settings.max_work:
        parts = [f"k {question.k:,}", f"{len(question.caps)} caps" if question.caps else "",
                 "a cold share" if question.min_cold_share else "",
                 f"{len(question.exclude):,} exclusions" if question.exclude else "",
                 f"{predicates:,} predicates" if predicates else ""]  # fmt: skip
        what = "items" if hasattr(question, "items") else "users"
        fit = max(1, settings.max_work * queries // total)
        message = (
            f"work: expected at most {settings.max_work:,} looks at candidates, found about {total:,}: {queries:,} "
            f"{what}, {', '.join(filter(None, parts))}; ask for {fit:,} {what} at a time, for a smaller k or for fewer "
            "caps"
        )
        raise ServiceError(422, "over_limit", message, details=[{"location": "body", "message": message}])
    return most
