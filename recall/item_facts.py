"""What is known of the items that are served: attributes and posterior, kept by id and read by the rows of an index.

An index numbers its items as it likes, and a living one anew with every change; what is known of items outlives that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recall.errors import ArtifactError, DataError
from recall.index import Index
from recall.item_attributes import TAGS, ItemAttributes, separators_of
from recall.posterior import Posterior
from recall.prepared import PreparedData
from recall.times import MS_PER_HOUR

Int64s = npt.NDArray[np.int64]
NEVER = -1


class Groups(NamedTuple):
    """The values of one column as codes: those of row r are `codes[offsets[r]:offsets[r + 1]]`.

    Attributes:
      offsets: int64 [items + 1].
      codes: int64 [values].
    """

    offsets: Int64s
    codes: Int64s


@dataclass(frozen=True)
class ServedPosterior:
    """The posterior snapshot that is served with.

    Attributes:
      ids: string [items], unique.
      exposures: int64 [items].
      clicks: int64 [items].
      smoothed_ctr: float32 [items].
      first_exposed_ms: int64 [items], Unix milliseconds; NEVER without exposures or clock.
      has_clock: whether the log has times.
    """

    ids: pa.StringArray
    exposures: Int64s
    clicks: Int64s
    smoothed_ctr: npt.NDArray[np.float32]
    first_exposed_ms: Int64s
    has_clock: bool = True

    @classmethod
    def at(cls, ids: pa.StringArray, posterior: Posterior, *, at_ms: int | None) -> ServedPosterior:
        """From a posterior, entry i of item i, whose ages were counted to `at_ms`; None: the log has no clock."""
        known = (posterior.exposures > 0) & (at_ms is not None)
        age_ms = np.round(posterior.age_hours.astype(np.float64) * MS_PER_HOUR).astype(np.int64)
        first = np.where(known, (at_ms or 0) - age_ms, NEVER)
        return cls(ids, posterior.exposures, posterior.clicks, posterior.smoothed_ctr, first, at_ms is not None)

    def of(self, ids: pa.StringArray, *, new_ctr: float = 0.0) -> ServedPosterior:
        """That of other ids, in their order; an id that is not here has no exposures and `new_ctr`."""
        if ids.equals(self.ids):
            return self
        rows = pc.index_in(ids, value_set=self.ids).fill_null(-1).to_numpy()
        nobody = ServedPosterior(
            pa.array(["\0"]),
            np.zeros(1, np.int64),
            np.zeros(1, np.int64),
            np.full(1, new_ctr, np.float32),
            np.full(1, NEVER, np.int64),
        )
        return self._joined(nobody)._take(ids, rows)

    def updated(self, ids: Sequence[str], posterior: Posterior, *, at_ms: int) -> ServedPosterior:
        """With the posterior of some items, old or new, in place of what was known of them; ages are as of `at_ms`."""
        new = ServedPosterior.at(pa.array(ids, pa.string()), posterior, at_ms=at_ms if self.has_clock else None)
        kept = np.flatnonzero(pc.invert(pc.is_in(self.ids, value_set=new.ids)))
        return self._take(self.ids.take(pa.array(kept)), kept)._joined(new)

    def _take(self, ids: pa.StringArray, rows: npt.NDArray[np.integer]) -> ServedPosterior:
        """Entries at `rows` as those of `ids`."""
        return ServedPosterior(
            ids,
            self.exposures[rows],
            self.clicks[rows],
            self.smoothed_ctr[rows],
            self.first_exposed_ms[rows],
            self.has_clock,
        )

    def _joined(self, other: ServedPosterior) -> ServedPosterior:
        return ServedPosterior(
            pa.concat_arrays([self.ids, other.ids]),
            np.concatenate([self.exposures, other.exposures]),
            np.concatenate([self.clicks, other.clicks]),
            np.concatenate([self.smoothed_ctr, other.smoothed_ctr]),
            np.concatenate([self.first_exposed_ms, other.first_exposed_ms]),
            self.has_clock,
        )


class RowFacts:
    """Facts by the rows of one index.

    Attributes:
      index: whose rows these are.
      posterior: by row.
    """

    def __init__(self, index: Index, *, attributes: ItemAttributes | None, posterior: ServedPosterior) -> None:
        self.index, self.posterior, self._attributes = index, posterior, attributes
        self._groups: dict[str, Groups] = {}

    def __len__(self) -> int:
        return self.index.row_count

    def column(self, name: str, *, what: str) -> pa.Array:
        """An attribute by row; see `ItemAttributes.column`.

        Raises:
          ArtifactError: the run was prepared before attributes were kept.
          DataError: there is none of this name.
        """
        if self._attributes is None:
            raise ArtifactError(
                f"{what}: data/ was written before it kept attributes of items; remove the folder data of the run and "
                "prepare it again, or filter by ids and by first exposure alone"
            )
        return self._attributes.column(name, what=what)

    def groups(self, name: str, *, what: str) -> Groups:
        """The values of a column of text or tags as codes.

        Raises:
          ArtifactError: as `column`.
          DataError: there is none of this name, or it holds numbers or times.
        """
        if name not in self._groups:
            column = self.column(name, what=what)
            if column.type != TAGS and not pa.types.is_string(column.type):
                raise DataError(
                    f"{what}: {name} holds {column.type}; items are counted by values of text or tags: make it an id "
                    "or category feature, or name another column"
                )
            self._groups[name] = _coded(column)
        return self._groups[name]

    @cached_property
    def is_cold(self) -> npt.NDArray[np.bool_]:
        """Bool [rows]: no exposure that the posterior knows of; items that came later among them."""
        return self.posterior.exposures == 0

    @cached_property
    def is_there(self) -> npt.NDArray[np.bool_]:
        """Bool [rows]: the row is of an item that was not deleted."""
        return np.asarray(self.posterior.ids.is_valid(), dtype=bool)


class ItemFacts:
    """Attributes and posterior of items by id; what came last is what the next query sees.

    Args:
      attributes: of the catalogue; None where the run kept none.
      posterior: of the catalogue.
      new_ctr: smoothed CTR of an item that the posterior lacks, the prior's.
    """

    def __init__(self, attributes: ItemAttributes | None, posterior: ServedPosterior, *, new_ctr: float = 0.0) -> None:
        self._attributes, self._posterior, self._new_ctr = attributes, posterior, new_ctr
        self._rows: WeakKeyDictionary[Index, RowFacts] = WeakKeyDictionary()

    @classmethod
    def of_run(cls, prepared: PreparedData) -> ItemFacts:
        """As of the end of a run's log."""
        manifest, ids = prepared.manifest, prepared.item_ids
        at_ms = None if manifest["time_unit"] == "order" else manifest["last_time_ms"]
        attributes = None
        if (table := prepared.attributes) is not None:
            features = [encoder.feature for _, encoder in prepared.item_encoder.features]
            attributes = ItemAttributes(ids, table, separators_of(features))
        posterior = ServedPosterior.at(ids, prepared.posterior("serving"), at_ms=at_ms)
        return cls(attributes, posterior, new_ctr=manifest["posterior"]["prior_ctr"])

    def of(self, index: Index) -> RowFacts:
        """By the rows of an index that does not change; remembered as long as the index lives."""
        remembered = self._rows  # whoever adds items meanwhile begins another memory
        if (found := remembered.get(index)) is None:
            ids = index.items.ids
            found = RowFacts(
                index,
                attributes=self._attributes and self._attributes.of(ids),
                posterior=self._posterior.of(ids, new_ctr=self._new_ctr),
            )
            remembered[index] = found
        return found

    def add(self, ids: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
        """Attributes of items that came later, or have changed: raw rows, as of `ItemAttributes.with_rows`."""
        if self._attributes is not None:
            self._attributes = self._attributes.with_rows(ids, rows)
            self._rows = WeakKeyDictionary()

    def refresh(self, ids: Sequence[str], posterior: Posterior, *, at_ms: int) -> None:
        """A newer posterior of some items, as of `ServedPosterior.updated`."""
        self._posterior = self._posterior.updated(ids, posterior, at_ms=at_ms)
        self._rows = WeakKeyDictionary()


def _coded(column: pa.Array) -> Groups:
    if column.type == TAGS:
        values, lengths = pc.list_flatten(column), pc.fill_null(pc.list_value_length(column), 0)
        return Groups(
            np.concatenate([[0], np.cumsum(np.asarray(lengths), dtype=np.int64)]),
            np.asarray(values.dictionary_encode().indices, dtype=np.int64),
        )
    codes = np.asarray(column.dictionary_encode().indices.fill_null(-1), dtype=np.int64)
    return Groups(np.concatenate([[0], np.cumsum(codes >= 0, dtype=np.int64)]), codes[codes >= 0])
