"""Items that the catalogue lacks: raw rows in, encoded features and vectors out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import tensorflow as tf

from recall.cold_bias import with_cold_bias
from recall.content.linear_ctr import ContentCtr
from recall.dataset import POSTERIOR
from recall.encoding import TableEncoder
from recall.errors import DataError
from recall.towers.features import FeatureTable

ItemRows: TypeAlias = Sequence[Mapping[str, Any]] | pd.DataFrame


class NewItems:
    """Encodes items of which nothing is known but their content.

    Args:
      item: the item SavedModel.
      encoder: of raw rows of items.
      id_column: raw column of item ids, if the towers read it.
      content_prior: predicts the prior CTR of items, where the data has one.
    """

    def __init__(
        self, item: Any, encoder: TableEncoder, *, id_column: str | None, content_prior: ContentCtr | None
    ) -> None:
        self._item, self._encoder, self._id_column, self._content_prior = item, encoder, id_column, content_prior

    def encoded(self, rows: ItemRows) -> pa.Table:
        """Encoded features of raw rows, whose ids are out of vocabulary.

        Raises:
          DataError: a value is not of its feature's type.
        """
        return self._encoder.encode(self._without_behaviour(rows))

    def vectors(self, rows: ItemRows, *, cold_bias: float) -> npt.NDArray[np.float32]:
        """Served vectors as of no exposure, float32 [items, width] or [items, codes, width].

        Raises:
          DataError: a value is not of its feature's type.
        """
        raw = self._without_behaviour(rows)
        features = FeatureTable(self._encoder.columns, self._encoder.encode(raw)).variables
        posterior = np.tile(self._item.new_posterior.numpy(), (len(rows), 1))
        if self._content_prior is not None:
            posterior[:, POSTERIOR.index("smoothed_ctr")] = self._content_prior.ctr(raw)
        inputs = {name: variable.value() for name, variable in features.items()}
        vectors = self._item.vectors(inputs, tf.constant(posterior))["vector"].numpy()
        return with_cold_bias(vectors, np.zeros(len(rows), np.int64), cold_bias)

    def _without_behaviour(self, rows: ItemRows) -> pa.Table | list[dict[str, Any]]:
        # No id holds NUL, so this one is out of vocabulary, as new items are in training. A missing one is not.
        new = {self._id_column: "\0"} if self._id_column else {}
        if not isinstance(rows, pd.DataFrame):
            return [{**row, **new} for row in rows]
        try:
            return pa.Table.from_pandas(rows.assign(**new), preserve_index=False)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise DataError(f"new items: values of a column differ in type ({error}); use one type") from error
