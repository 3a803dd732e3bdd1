"""Filters items by id, by attribute and by age: settings of a caller -> masks of the rows of an index.

All conditions hold together. `Index.search` finds k of the remaining items wherever k remain.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BeforeValidator, Field, PositiveFloat, ValidationError, model_validator

from recall.config.strict import Strict
from recall.config.values import TimeZone
from recall.config.yaml_file import describe
from recall.core.arrays import Bools, Float64s
from recall.core.canonical import canonical_text, id_strings
from recall.core.errors import DataError
from recall.core.tables import parse_numbers
from recall.core.times import MS_PER_HOUR, UTC, TimeUnit, parse_times
from recall.core.untyped import Kind, read_as
from recall.data.item_attributes import TAGS
from recall.serving.items.posterior import NEVER, ServedPosterior
from recall.serving.items.row_facts import RowFacts
from recall.serving.search.conditions import meeting_all

Text = Annotated[str, BeforeValidator(canonical_text)]
Texts = Annotated[tuple[Text, ...], Field(fail_fast=True)]  # a list ends at its first mistake
Moment = Annotated[int, Field(strict=True, ge=-(1 << 63), lt=1 << 63)]
_NO_TIME, _OLD, _NEW = range(3)


class Predicate(Strict):
    """Set conditions on one attribute of an item, or on its age.

    An item without a value meets `not_in` alone. For tags, `in` accepts any of them, and `not_in` none.
    """

    column: str | None = Field(
        default=None, description="of the items file; without, newer_than_hours counts from the item's first exposure"
    )
    in_: Texts | None = Field(default=None, alias="in", description="one of these values")
    not_in: Texts | None = Field(default=None, description="none of these values")
    at_least: float | None = Field(default=None, description="numbers from here on")
    at_most: float | None = Field(default=None, description="numbers up to here")
    newer_than_hours: PositiveFloat | None = Field(
        default=None,
        description="less than so many hours old at the moment of the query; an item that was never exposed has no "
        "age and is new, and so is one whose time is still to come. An item whose value is no time is not",
    )
    time_unit: TimeUnit = Field(default="ms", description="of the column that newer_than_hours reads")
    time_zone: TimeZone = Field(default=UTC, description="of times in that column that say no offset")

    @model_validator(mode="after")
    def _require_condition(self) -> Predicate:
        """Refuse a predicate without condition, or without the column that its condition needs."""
        by_value = [self.in_, self.not_in, self.at_least, self.at_most]
        if all(value is None for value in [*by_value, self.newer_than_hours]):
            raise ValueError("has no condition; give in, not_in, at_least, at_most or newer_than_hours")
        if self.column is None and any(value is not None for value in by_value):
            raise ValueError("has no column; only newer_than_hours can do without: it then counts from first exposure")
        if self.time_unit == "order":
            raise ValueError("time_unit: positions have no hours; give s, ms, us, ns or iso")
        return self

    def mask(self, items: RowFacts, *, now_ms: int, what: str) -> Bools:
        """Mark the items that meet the conditions, bool [items].

        Args:
          items: attributes and posteriors by row.
          now_ms: the moment of the query (Unix milliseconds).
          what: name of this predicate, for error messages.

        Raises:
          ArtifactError: the run kept no attributes.
          DataError: there is no such column, or a condition does not fit its type.
        """
        if self.column is None:
            return self._exposed_lately(items, now_ms=now_ms, what=what)
        wanted = self if self.in_ is None and self.not_in is None else self._of_kind(items.kind(self.column, what=what))
        mask: Bools = items.by_column(self.column, lambda column: wanted._holds(column, what=what), what=what)
        return mask if self.newer_than_hours is None else mask & self._is_newer(items, now_ms=now_ms, what=what)

    def _of_kind(self, kind: Kind | None) -> Predicate:
        """Read texts as values of the column's kind: 3.0 is 3 among numbers, and True is true among truth values."""
        if kind is None:
            return self
        read = {
            name: None if values is None else tuple(read_as(kind, value) for value in values)
            for name, values in (("in_", self.in_), ("not_in", self.not_in))
        }
        return self.model_copy(update=read)

    def _holds(self, column: pa.Array, *, what: str) -> Bools:
        """Mark the values that meet the conditions on values, bool [values]."""
        allowed = np.ones(len(column), bool)
        if self.in_ is not None:
            allowed &= _is_any(column, self.in_)
        if self.not_in is not None:
            allowed &= ~_is_any(column, self.not_in)
        if self.at_least is not None or self.at_most is not None:
            values = _numbers(column, what=f"{what}: column {self.column}")
            with np.errstate(invalid="ignore"):  # NaN, where an item has no number, is neither
                allowed &= values >= (-np.inf if self.at_least is None else self.at_least)
                allowed &= values <= (np.inf if self.at_most is None else self.at_most)
        return allowed

    def _is_newer(self, items: RowFacts, *, now_ms: int, what: str) -> Bools:
        """Mark the items whose time is recent, or still to come; bool [items]."""
        assert self.column is not None
        assert self.newer_than_hours is not None
        least_ms, what = now_ms - self.newer_than_hours * MS_PER_HOUR, f"{what}: column {self.column}"
        odd = list[Any]()

        def states(column: pa.Array) -> npt.NDArray[np.int8]:
            if column.type == TAGS:
                raise DataError(f"{what}: newer_than_hours reads times, found lists of text; ask with in or not_in")
            times = parse_times(column, self.time_unit, time_zone=self.time_zone)
            if times.unreadable.any() and not odd:
                odd.append(column[int(np.argmax(times.unreadable))].as_py())
            # A comparison of sums could overflow: a caller's file may hold any int64.
            known = np.where(times.ms > least_ms, _NEW, _OLD)
            return np.where(times.missing | times.unreadable, _NO_TIME, known).astype(np.int8)

        found: npt.NDArray[np.int8] = items.by_column(self.column, states, what=what)
        if odd and not (found != _NO_TIME).any():  # one item's odd value must not spoil the filter for all
            raise DataError(f"{what}: newer_than_hours reads times, found {odd[0]!r}, which is none in time_unit: "
                            f"{self.time_unit}; give the column's time_unit, or ask with in or not_in")  # fmt: skip
        return np.asarray(found == _NEW)

    def _exposed_lately(self, items: RowFacts, *, now_ms: int, what: str) -> Bools:
        """Mark the items whose first exposure is recent, or still to come; bool [items]."""
        if not items.has_clock:
            raise DataError(f"{what}: the log has no clock, so that nobody knows when items were first exposed; "
                            "name a column with times")  # fmt: skip
        assert self.newer_than_hours is not None
        least_ms = now_ms - self.newer_than_hours * MS_PER_HOUR

        def is_new(known: ServedPosterior) -> Bools:
            return (known.first_exposed_ms == NEVER) | (known.first_exposed_ms > least_ms)

        mask: Bools = items.by_posterior(is_new)
        return mask


class Allowed(NamedTuple):
    """Hold the items that filters allow.

    Attributes:
      mask: bool [items]; None: all items.
      unknown_ids: number of ids of the allow and deny lists that no item has; they were ignored.
    """

    mask: Bools | None
    unknown_ids: int = 0


class Filters(Strict):
    """Set the items that a query may get. Ids that no item has are ignored and counted, since lists outlive items."""

    allow: Texts | None = Field(default=None, description="only these item ids; an empty list allows none")
    deny: Texts = Field(default=(), description="none of these item ids")
    where: tuple[Predicate, ...] = Field(
        default=(), fail_fast=True, description="conditions on attributes, all of which hold"
    )
    at_ms: Moment | None = Field(
        default=None,
        description="the moment that newer_than_hours counts from, Unix milliseconds; default: the moment of the query",
    )

    @classmethod
    def read(cls, filters: Filters | Mapping[str, Any] | None) -> Filters:
        """Read the filters of a caller: {"allow": [...], "deny": [...], "where": [{"column": ..., "in": [...]}]}.

        Raises:
          DataError: a key is unknown, a value is of another type, or a predicate has no condition; lists all problems.
        """
        if filters is None:
            return NO_FILTERS
        if isinstance(filters, Filters):
            return filters
        try:
            return cls.model_validate(filters)
        except ValidationError as error:
            problems = "; ".join(describe(problem) for problem in error.errors()).replace("experiment: ", "")
            raise DataError(f"filters: {problems}") from None

    @classmethod
    def parse(cls, text: str) -> Filters:
        """Parse filters from JSON text, or from a JSON file that the text names.

        Raises:
          DataError: the text is neither; or as `read`.
        """
        if not text.lstrip().startswith("{"):
            try:
                text = Path(text).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise DataError(f"filters: expected JSON or a file of it, found {text}: {error}") from None
        try:
            return cls.read(json.loads(text))
        except json.JSONDecodeError as error:
            raise DataError(f"filters: not JSON ({error}); expected e.g. "
                            '{"where": [{"column": "category", "in": ["news"]}]}') from None  # fmt: skip

    @property
    def without_predicates(self) -> Filters:
        """Return filters with the lists of ids alone."""
        return Filters(allow=self.allow, deny=self.deny)

    def as_of(self, now_ms: int) -> Filters:
        """Return filters whose ages count from a moment, unless they name one already."""
        return self.model_copy(update={"at_ms": now_ms}) if self.where and self.at_ms is None else self

    def allowed(self, items: RowFacts, *, now_ms: int) -> Allowed:
        """Mark the allowed rows of an index.

        Args:
          items: attributes and posteriors by row.
          now_ms: the moment of the query (Unix milliseconds), for ages where `at_ms` gives none.

        Raises:
          ArtifactError: the run kept no attributes and a predicate names one.
          DataError: there is no such column, or a condition does not fit its type.
        """
        if self.allow is None and not self.deny and not self.where:
            return Allowed(None)
        mask, unknown = np.ones(len(items), bool), 0
        for ids, listed in ((self.allow, True), (self.deny, False)):
            if ids is not None:
                rows = np.asarray([items.index.row(name) for name in dict.fromkeys(ids)], np.int64)
                unknown += int((rows < 0).sum())
                is_listed = np.zeros(len(items), bool)
                is_listed[rows[rows >= 0]] = True
                mask &= is_listed == listed
        if self.where:
            mask &= meeting_all(self.where, items, now_ms=now_ms if self.at_ms is None else self.at_ms)
        return Allowed(mask, unknown)


NO_FILTERS = Filters()
"""Filters that allow every item."""


def _is_any(column: pa.Array, values: tuple[str, ...]) -> Bools:
    """Mark the entries of a column that are, or for tags hold, one of the values."""
    wanted = pa.array(values, pa.string())
    if column.type != TAGS:
        text = column if pa.types.is_string(column.type) else id_strings(column)  # text is kept as ids are read
        return np.asarray(pc.is_in(text, value_set=wanted, skip_nulls=True), dtype=bool)
    hits = np.asarray(pc.is_in(pc.list_flatten(column), value_set=wanted), dtype=bool)
    found = np.zeros(len(column), bool)
    found[np.asarray(pc.list_parent_indices(column))[hits]] = True
    return found


def _numbers(column: pa.Array, *, what: str) -> Float64s:
    """Read a column as numbers, NaN where missing; DataError for other values."""
    values, wrong = parse_numbers(column)
    if wrong.any():
        shown = column[int(np.argmax(wrong))].as_py()
        raise DataError(f"{what}: at_least and at_most compare numbers, found {shown!r}; ask with in or not_in, or of "
                        "times with newer_than_hours")  # fmt: skip
    return values
