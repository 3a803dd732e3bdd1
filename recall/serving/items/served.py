"""Holds the items that are served: an index with titles, contents and facts, which change in step.

`living.py` makes the changes; the recaller takes a snapshot of index and facts for each request.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from recall.core.arrays import Float32s
from recall.core.errors import ArtifactError
from recall.data.audience import TOKENS
from recall.data.features.table_encoder import TableEncoder
from recall.data.prepared import PreparedData
from recall.index import Index, LivingIndex
from recall.index.saved.store import load_current
from recall.serving.items.changed import Behaviour, ChangedItems, KeptSources, rows_of
from recall.serving.items.content import ContentSearch
from recall.serving.items.encode import ItemEncoder
from recall.serving.items.facts import ItemFacts
from recall.serving.items.living import CaughtUp, LivingItems, open_living_items, settings_of
from recall.serving.items.raw import RawRows, RowReader
from recall.serving.items.row_facts import RowFacts

Living = bool | Literal["read_only"]


class ServedItems:
    """Hold the items that a recaller serves.

    Attributes:
      index: the index that is searched. For a read-only living index it is a snapshot that stays until `refresh`, so
        that no item is found before its attributes and title are known.
      living: the living items; None where the index stays as it was built.
      titles: titles by item id, those of added items among them.
      reused: ids of added items that the catalogue has for others: what the log says of the id is not of the item.

    Args:
      index: the index where `living` is None.
      titles: titles of the catalogue by item id.
      encoder: encoder of raw item rows; without it `new_vectors` and `similar_to_new` are refused.
      content: search by content; without it requests by content are refused.
      facts: attributes and posteriors; without them filters, caps, cold shares and fallbacks are refused.
      living: as the attribute.
      changed: where `living` is None, the items that were added or changed before the index was built.
      absent: ids of the catalogue that the index lacked when it was opened.
    """

    def __init__(
        self,
        index: Index | LivingIndex,
        *,
        titles: Mapping[str, str],
        encoder: ItemEncoder | None = None,
        content: ContentSearch | None = None,
        facts: ItemFacts | None = None,
        living: LivingItems | None = None,
        changed: ChangedItems | None = None,
        absent: Collection[str] = (),
    ) -> None:
        self._encoder, self._content, self._facts = encoder, content, facts
        self.living, self._absent = living, frozenset(absent)
        self._changed = changed if living is None else living.changed
        self.reused: set[str] = set()
        self._is_read_only = living is not None and living.index.is_read_only
        self._in_step: AbstractContextManager[Any] = nullcontext() if living is None else living.index.in_step
        self._refreshing = threading.Lock()
        self.index: Index | LivingIndex = index
        self.titles = dict(titles)
        if living is not None:
            self.index = living.index
            self._take_over(living.catch_up())
        elif changed is not None:
            sources = changed.sources()
            if facts is not None:
                facts.apply(changed.updates(sources))
            self._show_rows(rows := rows_of(sources))
            if content is not None:
                content.add(rows)

    @classmethod
    def load(
        cls, run: Path, prepared: PreparedData, *, model: Mapping[str, Any], living: Living = False
    ) -> ServedItems:
        """Open the items of a run directory.

        Args:
          run: the directory.
          prepared: its data.
          model: manifest of its model.
          living: as of `Recaller.load`.

        Raises:
          ArtifactError: as of `Recaller.load`.
        """
        item_model = tf.saved_model.load(str(run / "model" / "item"))
        table_encoder = TableEncoder.load(run / "model" / "encoder")
        features = [fitted.feature for _, fitted in table_encoder.features]
        id_columns = (feature.source for feature in features if feature.name == prepared.item_id_feature)
        attributes = prepared.attributes.column_names if prepared.attributes is not None else ()
        file_columns = prepared.manifest.get("columns", {}).get("items")
        encoder = ItemEncoder(
            item_model,
            table_encoder=table_encoder,
            id_column=next(id_columns, None),
            content_prior=prepared.content_prior,
            rows=RowReader(table_encoder, attributes=attributes, file_columns=file_columns),
            tokens=np.load(tokens, mmap_mode="r") if (tokens := run / "model" / TOKENS).exists() else None,
        )
        facts, fingerprint = ItemFacts.of_run(prepared), model["fingerprint"]
        index: Index | LivingIndex
        living_items = changed = None
        if living:
            living_items = open_living_items(
                run,
                fingerprint=fingerprint,
                encoder=encoder,
                prepared=prepared,
                facts=facts,
                read_only=living == "read_only",
            )
            index, base = living_items.index, living_items.index.snapshot().base
        else:
            version = load_current(run / "index", fingerprint=fingerprint)
            index = base = version.index
            if version.sources:
                kept, columns = KeptSources(version.sources, index.report), settings_of(run / "config.yaml")[1]
                changed = ChangedItems(kept, encoder=encoder, prepared=prepared, columns=columns, facts=facts)
        return cls(
            index,
            titles=prepared.titles_by_id,
            encoder=encoder,
            content=ContentSearch(encoder, prepared=prepared, structure=model["structure"]),
            facts=facts,
            living=living_items,
            changed=changed,
            absent=_absent(prepared.item_ids, base.items.ids),
        )

    def content(self) -> ContentSearch:
        """Return the search by content.

        Raises:
          ArtifactError: there is none.
        """
        if self._content is None:
            raise ArtifactError("by content: this recaller has no content to search; open the run with Recaller.load")
        return self._content

    def new_vectors(self, rows: RawRows) -> Float32s:
        """Encode raw rows of new items as `ItemEncoder.of_new` does, with the cold bias of the index."""
        self._encoder_of_raw.rows.require_columns(rows)
        return self._encoder_of_raw.of_new(rows, cold_bias=self.index.report.get("cold_bias", 0.0)).vectors

    @property
    def clipped(self) -> Counter[str]:
        """Count the values of new items that lay outside of what training saw, by feature."""
        return Counter() if self._encoder is None else Counter(self._encoder.clipped)

    def content_vectors(self, rows: RawRows) -> Float32s:
        """Encode raw rows of new items as `ContentSearch.vectors` does."""
        self._encoder_of_raw.rows.require_columns(rows)
        return self.content().vectors(self._encoder_of_raw.encoded(rows))

    def snapshot(self, index: LivingIndex | None = None, *, with_facts: bool) -> tuple[Index, RowFacts | None]:
        """Take a snapshot of the index, or of another one, and of the facts by its rows.

        Args:
          index: the index of the contents, in place of `index`.
          with_facts: whether facts are needed. They are None without, and where the recaller has none.
        """
        with self._in_step:
            snapshot = (index or self.index).snapshot()
            return snapshot, self._facts.of(snapshot) if self._facts and with_facts else None

    def add(self, rows: RawRows) -> list[str]:
        """Add items and return their ids; see `LivingItems.add`."""
        living = self._writable()
        ids = living.add(rows, show=self._show_rows)
        if self._content is not None:
            self._content.add(living.changed.added(ids))
        return ids

    def delete(self, ids: Iterable[str | int], *, missing_ok: bool = False) -> int:
        """Delete items and return how many were deleted; see `LivingItems.delete`."""
        return self._writable().delete(ids, missing_ok=missing_ok)

    def refresh_posterior(self, counts: pd.DataFrame, *, now_ms: int | None = None) -> int:
        """Encode items again with newer counts and return how many; see `LivingItems.refresh`."""
        return self._writable().refresh(counts, now_ms=now_ms)

    def behaviour(self, ids: Sequence[str]) -> dict[str, Behaviour]:
        """Describe the inputs of the vectors of items, by id; see `ChangedItems.behaviour`."""
        return self._changed.behaviour(ids) if self._changed else {}

    @property
    def deleted(self) -> frozenset[str]:
        """Return the ids of deleted items, of items of the catalogue that the index lacks among them."""
        deleted = self.living.index.deleted if self.living else frozenset()
        if not self._absent:
            return deleted
        snapshot = self.index.snapshot()
        return deleted.union(name for name in self._absent if snapshot.row(name) < 0)

    def refresh(self) -> None:
        """Catch up with other processes; see `Recaller.refresh`.

        Raises:
          ArtifactError: the version or the journal is damaged or another model's; everything is as it was.
        """
        if self.living is None:
            raise ArtifactError(
                "the index is as it was built; open the run with Recaller.load(run, living='read_only')"
            )
        with self._refreshing:
            self.living.index.refresh()
            if self._is_read_only:
                self._take_over(self.living.catch_up())

    def freeze(self) -> None:
        """Keep the items as they are now, and let another process change them."""
        self.index = self.index.snapshot()
        self.close()

    def close(self) -> None:
        """Let another process change the items."""
        if self.living:
            self.living.index.close()

    def _take_over(self, news: CaughtUp) -> None:
        """Show changes as a whole: the items with their facts and titles, then their contents."""
        assert self.living is not None
        with self._in_step:
            self.living.take_over(news)
            self._show_rows(news.rows)
            if self._is_read_only:
                self.index = news.snapshot
        if self._content is not None:  # after the index: a search by content asks for facts, too
            self._content.add(news.rows)

    def _show_rows(self, rows: Mapping[str, Mapping[str, Any]]) -> None:
        """Show the titles of added items; an id that was used before keeps no earlier title."""
        assert self._changed is not None
        self.reused = self.reused.union(self._changed.reused(list(rows)))
        for name, title in self._changed.titles(rows).items():
            if title is None:
                self.titles.pop(name, None)
            else:
                self.titles[name] = title

    def _writable(self) -> LivingItems:
        """Return the living items, or refuse with ArtifactError where this process may not change them."""
        if self.living is None or self._is_read_only:
            raise ArtifactError("the index is as it was built; open the run with Recaller.load(run, living=True)")
        return self.living

    @property
    def _encoder_of_raw(self) -> ItemEncoder:
        """Return the encoder, or refuse with ArtifactError where there is none."""
        if self._encoder is None:
            raise ArtifactError("new items: this recaller cannot encode them; open the run with Recaller.load")
        return self._encoder


def _absent(catalogue: pa.StringArray, held: pa.StringArray) -> list[str]:
    """Return the ids of the catalogue that an index lacks."""
    if held.equals(catalogue):
        return []
    return list(catalogue.filter(pc.invert(pc.is_in(catalogue, value_set=held))).to_pylist())
