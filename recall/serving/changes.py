"""What of a recaller changes: items that come and go, and what is known of them."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pandas as pd

from recall.core.errors import ArtifactError
from recall.index import Index, LivingIndex
from recall.serving.items.encode import RawRows
from recall.serving.items.living import Behaviour, LivingItems
from recall.serving.search.by_content import ContentSearch


class ChangesItems:
    """The part of a recaller that changes items.

    Args:
      index: what is searched where `living` is None.
      living: the items, where they may change. What is searched of a read-only index stays as it is until `refresh`,
        so that nothing is found before its attributes and title are known.
      titles: by id; those of items that were added join them.
      content: of the items; those that were added join it.
    """

    def __init__(
        self,
        index: Index | LivingIndex,
        *,
        living: LivingItems | None,
        titles: Mapping[str, str],
        content: ContentSearch | None,
    ) -> None:
        self._living, self._content = living, content
        self._is_read_only = living is not None and living.index.is_read_only
        self._in_step: AbstractContextManager[Any] = nullcontext() if living is None else living.index.in_step
        self._refreshing = threading.Lock()
        self.index: Index | LivingIndex = index
        if living is not None:
            self.index = living.index.snapshot() if self._is_read_only else living.index
            if content is not None:
                content.add(living.added())
        self._titles = {**titles, **(living.titles() if living else {})}

    def add_items(self, rows: RawRows) -> list[str]:
        """Makes new items searchable at once, by their content; see `LivingItems.add`. Returns their ids.

        They are found, filtered and capped as others are, and `vectors` and `similar` know them. The histories of users
        that the model reads pass them over: the query model holds the items of training.
        """
        items = self._changing()
        ids = items.add(rows)
        self._show(ids)
        return ids

    def delete_items(self, items: Iterable[str | int], *, missing_ok: bool = False) -> int:
        """Removes items: no list holds them any more; see `LivingIndex.delete`. Returns how many were removed."""
        return self._changing().delete(items, missing_ok=missing_ok)

    def refresh_posterior(self, counts: pd.DataFrame, *, now_ms: int | None = None) -> int:
        """Moves the gates of items by what is known of them now; see `LivingItems.refresh`. Returns how many."""
        return self._changing().refresh(counts, now_ms=now_ms)

    def behaviour(self, items: Sequence[str]) -> dict[str, Behaviour]:
        """What the vectors of items were made with, by id, of those that were added or refreshed since the index."""
        return self._living.behaviour(items) if self._living else {}

    def refresh(self) -> None:
        """Catches up with other processes: a new version of the index, and what they have added and deleted.

        Raises:
          ArtifactError: the version or the journal is damaged or another model's; everything is as it was.
        """
        if self._living is None:
            raise ArtifactError(
                "the index is as it was built; open the run with Recaller.load(run, living='read_only')"
            )
        with self._refreshing:
            changed, news = self._living.catch_up()
            self._show(changed)
            with self._in_step:
                self._living.learn(news)
                if self._is_read_only:
                    self.index = self._living.index.snapshot()

    @property
    def is_living(self) -> bool:
        """Whether it knows what came after the index was built."""
        return self._living is not None

    def close(self) -> None:
        """Lets another process change the items."""
        if self._living:
            self._living.index.close()

    @property
    def _deleted(self) -> frozenset[str]:
        return self._living.index.deleted if self._living else frozenset()

    def _show(self, ids: Sequence[str]) -> None:
        """Titles and contents of items that were added."""
        assert self._living is not None
        self._titles.update(self._living.titles(ids))
        if self._content is not None:
            self._content.add(self._living.added(ids))

    def _changing(self) -> LivingItems:
        if self._living is None or self._is_read_only:
            raise ArtifactError("the index is as it was built; open the run with Recaller.load(run, living=True)")
        return self._living
