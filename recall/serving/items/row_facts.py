"""Facts of items by the rows of one index, for what filters, caps, cold shares and fallbacks ask."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recall.core.arrays import Bools
from recall.core.errors import ArtifactError, DataError
from recall.data.item_attributes import TAGS, ItemAttributes
from recall.index import Index
from recall.serving.items.groups import ColumnCodes, Groups
from recall.serving.items.layered import Layered
from recall.serving.items.posterior import ServedPosterior


class RowFacts:
    """Facts by row.

    Attributes:
      index: whose rows these are; it does not change.
      posterior: by row; of a living index also of rows beyond those of `index`.
    """

    def __init__(
        self,
        index: Index,
        *,
        attributes: Layered[ItemAttributes] | None,
        posterior: Layered[ServedPosterior],
        codes: Callable[[str], ColumnCodes],
    ) -> None:
        self.index, self.posterior, self._attributes, self._codes = index, posterior, attributes, codes

    def __len__(self) -> int:
        return self.index.row_count

    @property
    def has_clock(self) -> bool:
        """Whether the log has times."""
        return self.posterior.base.has_clock

    def by_column(self, name: str, values_of: Callable[[pa.Array], npt.NDArray[Any]], *, what: str) -> Any:
        """What a function says of the values of an attribute, as an array by row.

        Args:
          name: of the attribute.
          values_of: a column -> an array of as many values; each is of its own value alone.
          what: asks for it, for errors.

        Raises:
          ArtifactError: the run was prepared before attributes were kept.
          DataError: there is none of this name.
        """
        attributes = self._kept(what)
        return attributes.by_row(lambda part: values_of(part.column(name, what=what)), rows=len(self))

    def by_posterior(self, values_of: Callable[[ServedPosterior], npt.NDArray[Any]]) -> Any:
        """What a function says of posteriors, as an array by row."""
        return self.posterior.by_row(values_of, rows=len(self))

    def groups(self, name: str, *, what: str) -> Groups:
        """The values of a column of text or tags as codes.

        Raises:
          ArtifactError: as `by_column`.
          DataError: there is none of this name, or it holds numbers or times.
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
        """Bool [rows]: no exposure that the posterior knows of; items that came later among them."""
        return np.asarray(self.by_posterior(lambda known: known.exposures == 0))

    @cached_property
    def is_there(self) -> Bools:
        """Bool [rows]: the row is of an item that was not deleted."""
        return self.index.is_alive

    def _kept(self, what: str) -> Layered[ItemAttributes]:
        if self._attributes is None:
            raise ArtifactError(
                f"{what}: data/ was written before it kept attributes of items; remove the folder data of the run and "
                "prepare it again, or filter by ids and by first exposure alone"
            )
        return self._attributes
