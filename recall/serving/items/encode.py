"""Served vectors of items outside of training: raw or encoded features and a posterior in, vectors of the index out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import tensorflow as tf

from recall.core.arrays import Float32s, Float64s, Int64s
from recall.core.errors import DataError
from recall.data.content_prior.linear_ctr import ContentCtr
from recall.data.features.table_encoder import TableEncoder
from recall.data.posterior import Posterior
from recall.evaluation.cold_bias import with_cold_bias
from recall.model.batches.dataset import POSTERIOR
from recall.model.layers.features import dense_features

RawRows = Sequence[Mapping[str, Any]] | pd.DataFrame

_BATCH = 8192


class EncodedItems(NamedTuple):
    """What the item side makes of items.

    Attributes:
      vectors: float32 [items, width] or [items, codes, width], with the index's cold bias.
      behaviour_share: float32 [items], of the vectors; NaN without a gate.
    """

    vectors: Float32s
    behaviour_share: Float32s


class ItemVectors:
    """The item side of a run.

    Args:
      item: the item SavedModel.
      encoder: of raw rows of items.
      id_column: the raw column of the item's id, if the towers read it.
      content_prior: predicts the prior CTR of items without exposures, where the data has one.
    """

    def __init__(
        self, item: Any, *, encoder: TableEncoder, id_column: str | None, content_prior: ContentCtr | None
    ) -> None:
        self._item, self._encoder = item, encoder
        self._id_column, self._content_prior = id_column, content_prior

    def without_behaviour(self, rows: RawRows) -> pa.Table | list[dict[str, Any]]:
        """Raw rows whose ids are out of vocabulary, as those of new items are in training.

        Raises:
          DataError: values of a column differ in type.
        """
        # No id holds NUL, so this one is out of vocabulary. A missing one is not.
        new = {self._id_column: "\0"} if self._id_column else {}
        if not isinstance(rows, pd.DataFrame):
            return [{**row, **new} for row in rows]
        try:
            return pa.Table.from_pandas(rows.assign(**new), preserve_index=False)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise DataError(f"new items: values of a column differ in type ({error}); use one type") from error

    def prior_ctr(self, rows: RawRows) -> Float64s | None:
        """CTR that items start from by their content, float64 [items]; None where all items start from one."""
        return None if self._content_prior is None else self._content_prior.ctr(self.without_behaviour(rows))

    def encoded(self, rows: RawRows) -> pa.Table:
        """Encoded features of raw rows, whose ids are out of vocabulary.

        Raises:
          DataError: a value is not of its feature's type.
        """
        return self._encoder.encode(self.without_behaviour(rows))

    def of_new(self, rows: RawRows, *, cold_bias: float) -> EncodedItems:
        """Vectors of items without exposures, from their content alone.

        Args:
          rows: raw values under the column names of the items file; what is absent counts as missing, and the id as
            unknown, whatever it is.
          cold_bias: of the index.

        Raises:
          DataError: a value is not of its feature's type.
        """
        posterior = np.tile(self._item.new_posterior.numpy(), (len(rows), 1))
        if (prior := self.prior_ctr(rows)) is not None:
            posterior[:, POSTERIOR.index("smoothed_ctr")] = prior
        return self._biased(self.encoded(rows), posterior, np.zeros(len(rows), np.int64), cold_bias=cold_bias)

    def of_raw(self, rows: RawRows, posterior: Posterior, *, cold_bias: float) -> EncodedItems:
        """Vectors of items that the catalogue lacks, as their posterior says; otherwise as `of_new`."""
        return self.of_encoded(self.encoded(rows), posterior, cold_bias=cold_bias)

    def of_encoded(self, encoded: pa.Table, posterior: Posterior, *, cold_bias: float) -> EncodedItems:
        """Vectors of encoded items of the catalogue, as their posterior says."""
        return self._biased(encoded, posterior.stacked(), posterior.exposures, cold_bias=cold_bias)

    def _biased(self, encoded: pa.Table, posterior: Float32s, exposures: Int64s, *, cold_bias: float) -> EncodedItems:
        parts, shares = [], []
        for start in range(0, max(1, len(encoded)), _BATCH):
            features = dense_features(self._encoder.columns, encoded.slice(start, _BATCH))
            inputs = {name: tf.constant(values) for name, values in features.items()}
            inputs["posterior"] = tf.constant(posterior[start : start + _BATCH])
            # The signature takes half of what the function does to find out that it fits its inputs.
            found = self._item.signatures["serving_default"](**inputs)
            parts.append(found["vector"].numpy())
            shares.append(found["behaviour_share"].numpy())
        return EncodedItems(with_cold_bias(np.concatenate(parts), exposures, cold_bias), np.concatenate(shares))
