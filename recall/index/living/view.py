"""An index that is, at any moment, one of its snapshots."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from recall.core.arrays import Bools, Float32s, Int32s
from recall.core.ragged import Ragged
from recall.index.base import Index
from recall.index.items import Ids, ItemIds
from recall.index.living.snapshot import LivingSnapshot
from recall.index.results import Names, SearchResult


class View(Index):
    """Answers everything from its newest snapshot, which each call reads once."""

    kind: ClassVar[str] = "living"

    @abc.abstractmethod
    def snapshot(self) -> LivingSnapshot:
        """The newest."""

    def __len__(self) -> int:
        return len(self.snapshot())

    @property
    def row_count(self) -> int:
        """Rows of the newest snapshot."""
        return self.snapshot().row_count

    @property
    def entries(self) -> int:
        """Vectors of all items together."""
        return self.snapshot().entries

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return self.snapshot().dim

    @property
    def is_exact(self) -> bool:  # type: ignore[override]  # it follows the base
        """Whether the base is; what came later is always compared exactly."""
        return self.snapshot().is_exact

    @property
    def items(self) -> ItemIds:  # type: ignore[override]  # those of a moment
        """The ids of the newest snapshot."""
        return self.snapshot().items

    @property
    def report(self) -> Mapping[str, Any]:  # type: ignore[override]
        """How the base was built."""
        return self.snapshot().report

    @property
    def ids(self) -> Ids:
        """Object [row_count]: the ids of the newest snapshot by row, None where the item was deleted; a copy."""
        return self.snapshot().ids

    @property
    def is_alive(self) -> Bools:
        """Bool [row_count], rows of items of the newest snapshot."""
        return self.snapshot().is_alive

    @property
    def names(self) -> Names:
        """The ids of the newest snapshot's rows."""
        return self.snapshot().names

    @property
    def settings(self) -> dict[str, Any]:
        """Those of the base."""
        return self.snapshot().settings

    def exact(self) -> LivingSnapshot:
        """Exact search over what it holds now."""
        return self.snapshot().exact()

    def search(
        self, queries: Any, k: int, *, allowed: Any | None = None, excluded: Sequence[Any] | None = None
    ) -> SearchResult:
        """As `Index.search`; who makes `allowed` or `excluded` searches the snapshot that they were made for."""
        return self.snapshot().search(queries, k, allowed=allowed, excluded=excluded)

    def rows(self, ids: Any) -> Int32s:
        """Rows of ids in the newest snapshot; an id that the index lacks is a DataError."""
        return self.snapshot().rows(ids)

    def vectors(self, items: Any) -> Float32s:
        """As `Index.vectors`; ask a snapshot of one's own by row."""
        return self.snapshot().vectors(items)

    def best_items(self, queries: Float32s, k: int) -> tuple[Int32s, Float32s]:
        return self.snapshot().best_items(queries, k)

    def best_allowed(
        self, queries: Float32s, k: int, *, allowed: Bools | None, excluded: Ragged
    ) -> tuple[Int32s, Float32s]:
        return self.snapshot().best_allowed(queries, k, allowed=allowed, excluded=excluded)

    def vectors_at(self, rows: Int32s) -> Float32s:
        return self.snapshot().vectors_at(rows)
