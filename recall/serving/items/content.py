"""Finds the nearest items by content alone: content vectors of the catalogue and of new items, compared by cosine.

These are vectors in the content space (`recall.model.content_term.space`); models that were exported before there was
one have meta vectors.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from recall.config.index import IndexConfig
from recall.core.arrays import Bools, Float32s
from recall.core.errors import ArtifactError, DataError
from recall.data.prepared import PreparedData
from recall.index import LivingIndex, build_index
from recall.model.layers.features import FeatureTable
from recall.serving.items.encode import ItemEncoder

_LOGGER = logging.getLogger(__name__)
_BATCH = 8192
# This index lives as long as its process: building ScaNN pays only where exact search takes long.
_EXACT_BELOW = 200_000


class ContentSearch:
    """Search the catalogue by content vectors, without behaviour and posterior.

    Vectors are made at the first use.

    Args:
      encoder: item encoder of the run.
      prepared: data of the run.
      structure: structure of the model, for error messages.
    """

    def __init__(self, encoder: ItemEncoder, *, prepared: PreparedData, structure: str) -> None:
        self._encoder, self._prepared, self._structure = encoder, prepared, structure
        self._adding = threading.RLock()
        self._added: dict[str, Mapping[str, Any]] = {}  # until the index is built
        self._is_built = False

    @cached_property
    def index(self) -> LivingIndex:
        """Index the vectors of the catalogue and of added items.

        Raises:
          ArtifactError: as `vectors`.
        """
        vectors = self.vectors(self._prepared.items)
        config = IndexConfig(exact_below=_EXACT_BELOW)
        with self._adding:
            index = LivingIndex(build_index(self._prepared.item_ids, vectors, config=config), config=config)
            self._put(index, self._added)
            self._added = {}
            self._is_built = True
        return index

    def add(self, rows: Mapping[str, Mapping[str, Any]]) -> None:
        """Make raw rows of items searchable, by id. An item that is there already gets the new content.

        Rows that cannot be encoded, as the run was prepared again since with columns of other types, are left out.
        """
        with self._adding:
            if self._is_built:
                self._put(self.index, rows)
            else:
                self._added.update(rows)

    def _put(self, index: LivingIndex, rows: Mapping[str, Mapping[str, Any]]) -> None:
        """Upsert the vectors of the raw rows that can be encoded."""
        if not rows:
            return
        try:
            index.upsert(list(rows), self.vectors(self._encoder.encoded(list(rows.values()), strict=False)))
        except DataError as error:
            if len(rows) == 1:
                _LOGGER.warning("not found by content: item %s: %s", *rows, error)
                index.delete(rows, missing_ok=True)  # it would be found by its earlier content
                return
            for name, row in rows.items():
                self._put(index, {name: row})

    def vectors(self, encoded: pa.Table) -> Float32s:
        """Compute content vectors of encoded items, in the catalogue or not; float32 [items, dim] of unit length.

        Raises:
          ArtifactError: the model has neither content term nor meta tower, or its files are older than this search.
        """
        model = self._encoder.model
        content = getattr(model, "content", None) or getattr(model, "meta", None)
        if content is None:
            if self._structure in ("single", "behaviour_only"):
                raise ArtifactError(
                    f"by content: the model has no meta tower (model.structure: {self._structure}); "
                    "train a model of structure gated, base or meta_only, or ask by model"
                )
            raise ArtifactError(
                "by content: model/item was written before it could give meta vectors; "
                "remove the folder model of the run and train again"
            )
        parts = []
        for start in range(0, max(1, len(encoded)), _BATCH):
            features = FeatureTable(self._encoder.columns, encoded.slice(start, _BATCH)).variables
            parts.append(content({name: variable.value() for name, variable in features.items()})["vector"].numpy())
        return np.concatenate(parts)

    def interests(self, histories: Sequence[Sequence[str]], *, last: int | None) -> tuple[Float32s, Bools]:
        """Make queries of the content vectors of the users' clicks.

        Args:
          histories: item ids per user, oldest first; unknown ids are passed over.
          last: number of last known clicks that count, at least 1, each a query of its own; None: one query, the mean
            of all known clicks.

        Returns:
          float32 [users, last or 1, dim], and bool [users], whether the user has a known click. Shorter histories are
          repeated, which changes no best score. Vectors of users without a click are zeros.
        """
        index = self.index.snapshot()
        vectors = np.zeros((len(histories), last or 1, index.dim), np.float32)
        has_clicks = np.zeros(len(histories), bool)
        for user, history in enumerate(histories):
            rows = np.asarray([index.row(item) for item in history], np.int32)
            if not len(rows := rows[rows >= 0]):
                continue
            has_clicks[user] = True
            if last is not None:
                vectors[user] = index.vectors(np.resize(rows[-last:], last))
                continue
            mean = index.vectors(rows).mean(axis=0)
            vectors[user] = mean / max(float(np.linalg.norm(mean)), 1e-6)
        return vectors, has_clicks
