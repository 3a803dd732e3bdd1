"""Encodes items outside of training: raw or encoded features and posteriors -> vectors of the index.

`living.py` calls it for added and refreshed items, `content.py` for content vectors.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import tensorflow as tf

from recall.core.arrays import Float32s, Float64s, Int64s
from recall.data.audience import posterior_columns
from recall.data.content_prior.linear_ctr import ContentCtr
from recall.data.features.table_encoder import EncodedColumn, TableEncoder
from recall.data.posterior import Posterior
from recall.evaluation.cold_bias import with_cold_bias
from recall.model.batches.dataset import POSTERIOR
from recall.model.layers.features import dense_features
from recall.serving.items.raw import RawRows, RowReader

_BATCH = 8192
_LOG = logging.getLogger(__name__)


class EncodedItems(NamedTuple):
    """Hold the vectors of some items and the share of behaviour in them.

    Attributes:
      vectors: float32 [items, width] or [items, codes, width], with the index's cold bias.
      behaviour_share: float32 [items], the gate's share; NaN without a gate.
    """

    vectors: Float32s
    behaviour_share: Float32s


class ItemEncoder:
    """Encode items with the item model of a run.

    Attributes:
      model: the item SavedModel.
      rows: checker of raw item rows.
      clipped: by feature, how many values of new items lay outside of what training saw, and counted as its ends.

    Args:
      model: the item SavedModel.
      table_encoder: encoder of raw item rows.
      id_column: the raw column of the item's id, if the towers read it.
      content_prior: predictor of the prior CTR of items without exposures, where the data has one.
      rows: as the attribute.
      tokens: float32 [catalogue, dim], tokens of the catalogue, which audiences are read by; None for a model that
        reads none.
    """

    def __init__(
        self,
        model: Any,
        *,
        table_encoder: TableEncoder,
        id_column: str | None,
        content_prior: ContentCtr | None,
        rows: RowReader | None = None,
        tokens: Float32s | None = None,
    ) -> None:
        self._tokens = tokens
        self.model, self._table_encoder = model, table_encoder
        self.rows = rows or RowReader(table_encoder)
        self._id_column, self._content_prior = id_column, content_prior
        self.clipped: Counter[str] = Counter()

    @property
    def columns(self) -> Sequence[EncodedColumn]:
        """Return the columns of encoded features."""
        return self._table_encoder.columns

    def without_behaviour(self, rows: RawRows) -> pa.Table | list[dict[str, Any]]:
        """Replace the ids of raw rows by one out of vocabulary, as training does for new items."""
        # No id holds NUL, so that this one is out of vocabulary. A missing id would have a code of its own.
        new = {self._id_column: "\0"} if self._id_column else {}
        if not isinstance(rows, pd.DataFrame):
            return [{**row, **new} for row in rows]
        try:
            return pa.Table.from_pandas(rows.assign(**new), preserve_index=False)
        except (pa.ArrowException, UnicodeEncodeError, OverflowError):  # values of a column differ in type
            return [{**row, **new} for row in rows.to_dict("records")]

    def prior_ctr(self, rows: RawRows) -> Float64s | None:
        """Predict the prior CTR of items from their content, float64 [items]; None where all items share one prior."""
        return None if self._content_prior is None else self._content_prior.ctr(self.without_behaviour(rows))

    def encoded(self, rows: RawRows, *, strict: bool = True) -> pa.Table:
        """Encode the features of raw rows, with ids out of vocabulary.

        Args:
          rows: raw rows.
          strict: as of `TableEncoder.encode`.

        Raises:
          DataError: a value is not of its feature's type.
        """
        return self._table_encoder.encode(self.without_behaviour(rows), strict=strict)

    def of_new(self, rows: RawRows, *, cold_bias: float) -> EncodedItems:
        """Encode items without exposures, from their content alone.

        Args:
          rows: raw values under the column names of the items file. An absent value counts as missing, and any id as
            unknown.
          cold_bias: cold bias of the index.

        Raises:
          DataError: a value is not of its feature's type, or orders of magnitude outside of what training saw.
        """
        self._check_range(rows)
        posterior = np.tile(self.model.new_posterior.numpy(), (len(rows), 1))
        if (prior := self.prior_ctr(rows)) is not None:
            posterior[:, POSTERIOR.index("smoothed_ctr")] = prior
        return self._biased(self.encoded(rows), posterior, np.zeros(len(rows), np.int64), cold_bias=cold_bias)

    def _check_range(self, rows: RawRows) -> None:
        """Refuse absurd values, and count and log values that lie outside of what training saw."""
        plain = self.without_behaviour(rows)
        self._table_encoder.require_plausible(plain)
        if found := self._table_encoder.clipped(plain):
            self.clipped.update(found)
            what = ", ".join(f"{name} ({count:,})" for name, count in found.items())
            _LOG.warning("new items: values outside of what training saw count as its nearest ends: %s", what)

    def of_raw(self, rows: RawRows, posterior: Posterior, *, cold_bias: float) -> EncodedItems:
        """Encode accepted items that the catalogue lacks, with the given posterior; otherwise as `of_new`.

        A value that cannot be read any more, as the features have changed since, counts as missing.
        """
        return self.of_encoded(self.encoded(rows, strict=False), posterior, cold_bias=cold_bias)

    def of_encoded(self, encoded: pa.Table, posterior: Posterior, *, cold_bias: float) -> EncodedItems:
        """Encode items of the catalogue from their encoded features, with the given posterior."""
        columns = posterior_columns(posterior, tokens=self._tokens)
        return self._biased(encoded, columns, posterior.exposures, cold_bias=cold_bias)

    def _biased(self, encoded: pa.Table, posterior: Float32s, exposures: Int64s, *, cold_bias: float) -> EncodedItems:
        """Run the item model in batches and add the cold bias."""
        parts, shares = [], []
        for start in range(0, max(1, len(encoded)), _BATCH):
            features = dense_features(self._table_encoder.columns, encoded.slice(start, _BATCH))
            inputs = {name: tf.constant(values) for name, values in features.items()}
            inputs["posterior"] = tf.constant(posterior[start : start + _BATCH])
            # The signature checks its inputs in half the time of the function.
            found = self.model.signatures["serving_default"](**inputs)
            parts.append(found["vector"].numpy())
            shares.append(found["behaviour_share"].numpy())
        return EncodedItems(with_cold_bias(np.concatenate(parts), exposures, cold_bias), np.concatenate(shares))
