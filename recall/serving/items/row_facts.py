"""Reads attributes and posteriors by the rows of one index, for filters, caps, cold shares and the fallback.

`facts.py` keeps them by item id and makes this view of them.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recall.core.arrays import Bools
from recall.core.errors import ArtifactError, DataError
from recall.core.untyped import Kind
from recall.data.budget import within_budget
from recall.data.item_attributes import TAGS, ItemAttributes
from recall.index import Index
from recall.serving.items.distinct import DistinctValues
from recall.serving.items.groups import ColumnCodes, Groups
from recall.serving.items.overlay import Overlaid
from recall.serving.items.posterior import ServedPosterior


class Masks:
    """Keep the masks of the latest filters. Threads may share it."""

    _MOST = 16  # a mask of a million items is a megabyte

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, tuple[tuple[object, int], Bools]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Bools], *, valid_for: tuple[object, int]) -> Bools:
        """Return the mask that was kept under a key for the same attributes (the object) and rows, or make it."""
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None and kept[0][0] is valid_for[0] and kept[0][1] == valid_for[1]:
                self._kept.move_to_end(key)
                return kept[1]
        mask = make()
        with self._lock:
            self._kept[key] = valid_for, mask
            self._kept.move_to_end(key)
            if len(self._kept) > self._MOST:
                self._kept.popitem(last=False)
        return mask


class RowFacts:
    """Show the attributes and posteriors of the items of one index, by row.

    Attributes:
      index: the index, which does not change.
      posterior: posteriors by row; for a living index also of rows beyond the rows of `index`.

    Args:
      index: as the attribute.
      attributes: attributes by row; None where the run kept none.
      posterior: as the attribute.
      codes: column name -> codes of its values.
      distinct: column name -> its distinct values among the first rows; None where they are many.
      masks: masks of earlier requests; see `remembered`.
    """

    def __init__(
        self,
        index: Index,
        *,
        attributes: Overlaid[ItemAttributes] | None,
        posterior: Overlaid[ServedPosterior],
        codes: Callable[[str], ColumnCodes],
        distinct: Callable[[str], DistinctValues | None] = lambda _: None,
        masks: Masks | None = None,
    ) -> None:
        self.index, self.posterior, self._attributes, self._codes = index, posterior, attributes, codes
        self._distinct, self._masks = distinct, Masks() if masks is None else masks

    def __len__(self) -> int:
        return self.index.row_count

    @property
    def has_clock(self) -> bool:
        """Tell whether the log has times."""
        return self.posterior.base.has_clock

    def by_column(self, name: str, values_of: Callable[[pa.Array], npt.NDArray[Any]], *, what: str) -> Any:
        """Compute one value per row from an attribute.

        Args:
          name: name of the attribute.
          values_of: column -> an array of as many values. Each value depends on its own entry alone.
          what: the caller's option, for error messages.

        Returns:
          An array [rows] of the dtype that `values_of` gives.

        Raises:
          ArtifactError: the run was prepared before attributes were kept.
          DataError: no attribute has this name.
        """
        attributes = self._kept(what)

        def of_part(part: ItemAttributes) -> npt.NDArray[Any]:
            column = part.column(name, what=what)
            known = self._distinct(name) if part is attributes.base else None
            return values_of(column) if known is None else known.by_item(values_of)

        return attributes.by_row(of_part, rows=len(self))

    def remembered(self, key: Hashable, make: Callable[[], Bools]) -> Bools:
        """Return a mask of the rows that depends on attributes alone, from an earlier request if nothing has changed.

        Args:
          key: identifies the mask.
          make: computes it, bool [rows]. Nobody may write to it.
        """
        return self._masks.get(key, make, valid_for=(self._attributes, len(self)))

    def kind(self, name: str, *, what: str) -> Kind | None:
        """Return what all values of a column are, numbers or truth values; None for others. Raises as `by_column`."""
        base = self._kept(what).base
        base.column(name, what=what)
        return base.kind(name)

    def by_posterior(self, values_of: Callable[[ServedPosterior], npt.NDArray[Any]]) -> Any:
        """Compute one value per row from its posterior; an array [rows]."""
        return self.posterior.by_row(values_of, rows=len(self))

    def groups(self, name: str, *, what: str) -> Groups:
        """Encode the values of a text or tags column as integer codes by row.

        Raises:
          ArtifactError: as `by_column`.
          DataError: no attribute has this name, or it holds numbers or times.
        """
        attributes = self._kept(what)
        kind = attributes.base.column(name, what=what).type
        if kind != TAGS and not pa.types.is_string(kind):
            raise DataError(
                f"{what}: {name} holds {kind}; items are counted by values of text or tags: make it an id or category "
                "feature, or name another column"
            )
        return self._codes(name).groups(attributes, rows=len(self))

    @cached_property
    def is_cold(self) -> Bools:
        """Mark the rows without exposures, items added later among them; bool [rows]."""
        return np.asarray(self.by_posterior(lambda known: known.exposures == 0))

    def within_budget(self, steps: Sequence[int]) -> Bools:
        """Mark the rows whose budget of exposures is not used up, as of `recall.data.budget`; bool [rows]."""
        exposures, clicks = (
            np.asarray(self.by_posterior(values_of))
            for values_of in (lambda known: known.exposures, lambda known: known.clicks)
        )
        return within_budget(exposures, clicks, steps=steps)

    @cached_property
    def is_alive(self) -> Bools:
        """Mark the rows of items that were not deleted; bool [rows]."""
        return self.index.is_alive

    def _kept(self, what: str) -> Overlaid[ItemAttributes]:
        """Return the attributes, or refuse with ArtifactError where the run kept none."""
        if self._attributes is None:
            raise ArtifactError(
                f"{what}: data/ was written before it kept attributes of items; remove the folder data of the run and "
                "prepare it again, or filter by ids and by first exposure alone"
            )
        return self._attributes
