"""Splits an index into shards by the hash of the item ids, and merges their lists by score."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa

from recall.core.arrays import Float32s, Int32s
from recall.core.errors import ConfigError
from recall.index.base import Index, VectorIndex
from recall.index.items import ItemIds
from recall.index.results import SearchResult, SomeNames, best_k

# Noted in manifests. Another hash needs another name: clients of a fleet compute it too, maybe in another language.
HASH = "sha256, first 8 bytes, big-endian, modulo shards"


def shard_of(ids: Any, shards: int) -> Int32s:
    """Return the shard of each id, int32 [items], the same in every process and release.

    The first 8 bytes of the SHA-256 (FIPS 180-4) of the id's UTF-8 text as a big-endian number, modulo the number of
    shards. Not Python's `hash`, which differs between processes.

    Args:
      ids: strings [items], an Arrow array or a sequence.
      shards: number of shards, at least 1.
    """
    texts = ids.to_pylist() if isinstance(ids, pa.Array | pa.ChunkedArray) else ids
    digests = b"".join(hashlib.sha256(text.encode()).digest()[:8] for text in texts)
    return (np.frombuffer(digests, ">u8") % np.uint64(shards)).astype(np.int32)


def split_rows(ids: pa.StringArray, shards: int) -> list[Int32s]:
    """Return the rows of the items of each shard, int32, rising.

    Raises:
      ConfigError: a shard would have no item.
    """
    if shards > len(ids):
        raise ConfigError(f"index.shards: expected at most one per item, found {shards:,} for {len(ids):,} items")
    number = shard_of(ids, shards)
    sizes = np.bincount(number, minlength=shards)
    if not sizes.all():
        empty = np.count_nonzero(sizes == 0)
        raise ConfigError(
            f"index.shards: {empty:,} of {shards:,} shards would be empty; {len(ids):,} items are too few to hash "
            "evenly, use fewer shards"
        )
    order = np.argsort(number, kind="stable").astype(np.int32)
    return np.split(order, np.cumsum(sizes)[:-1])


@dataclasses.dataclass(frozen=True)
class Shard:
    """Hold one shard by itself, as a process of a serving fleet does.

    Attributes:
      index: of the shard's items; its rows count within the shard.
      rows: int32 [items], rising: the items' rows in the whole catalogue.
      number: its number, from 0.
      count: number of shards.
    """

    index: VectorIndex
    rows: Int32s
    number: int
    count: int

    def search(self, queries: Any, k: int) -> SearchResult:
        """Search the items of the shard; the result has rows of the whole catalogue, for `merge_results`."""
        found = self.index.search(queries, k)
        rows = np.where(found.rows < 0, -1, self.rows[found.rows]).astype(np.int32)
        return SearchResult(rows, found.scores, SomeNames(self.rows, self.index.items.names))

    def best_items(self, queries: Float32s, k: int) -> tuple[Int32s, Float32s]:
        """Find rows and scores as `search` does, [queries, min(k, items)], for checked queries."""
        rows, scores = self.index.best_items(queries, min(k, len(self.index)))
        return self.rows[rows], scores


@runtime_checkable
class ShardSource(Protocol):
    """Give the shards of one index: `ShardedIndex` holds them, `build.shard_build.ShardBuild` makes them one by one."""

    @property
    def count(self) -> int:
        """Return the number of shards."""

    @property
    def report(self) -> Mapping[str, Any]:
        """Return the report of the whole index; complete once every shard was asked for."""

    def shard(self, number: int) -> Shard:
        """Return one shard, counted from 0."""


class ShardedIndex(Index):
    """Search all shards in one process, in parallel threads.

    NumPy and ScaNN (1.4.2, searches of one query and of batches) release Python's lock meanwhile. Exact shards
    together answer as one exact index does.

    Args:
      shards: all shards, in order; together they hold the rows from 0 to the number of items, each once.
      report: see `Index`.

    Raises:
      ValueError: they are not the shards of one catalogue.
    """

    kind: ClassVar[str] = "sharded"

    def __init__(self, shards: Sequence[Shard], *, report: Mapping[str, Any] | None = None):
        self.shards = tuple(shards)
        rows = np.concatenate([shard.rows for shard in self.shards])
        self._place = np.argsort(rows, kind="stable")  # [items], of each row among the shards' items
        if not np.array_equal(rows[self._place], np.arange(len(rows))):
            raise ValueError("the shards do not hold every row of one catalogue once")
        if len({(shard.index.dim, shard.index.items.entries_per_item) for shard in self.shards}) != 1:
            raise ValueError("the shards' vectors differ in shape")
        ids = pa.concat_arrays([shard.index.items.ids for shard in self.shards]).take(pa.array(self._place))
        super().__init__(ItemIds(ids), report=report)
        self._starts = np.cumsum([0, *(len(shard.index) for shard in self.shards)])  # [shards + 1]
        self.is_exact = all(shard.index.is_exact for shard in self.shards)
        self._threads = ThreadPoolExecutor(min(len(self.shards), os.cpu_count() or 1), "shard")
        self._cosine: ShardedIndex | None = None

    @property
    def entries(self) -> int:
        """Return the number of vectors of all items together."""
        return sum(shard.index.entries for shard in self.shards)

    @property
    def dim(self) -> int:
        """Return the width of the vectors."""
        return self.shards[0].index.dim

    @property
    def settings(self) -> dict[str, Any]:
        """Return the number of shards, and the hash that assigns ids to them."""
        return {"shards": self.count, "hash": HASH}

    @property
    def count(self) -> int:
        """Return the number of shards."""
        return len(self.shards)

    def shard(self, number: int) -> Shard:
        """Return one shard, counted from 0."""
        return self.shards[number]

    def exact(self) -> ShardedIndex:
        """Return an exact index of the same vectors in the same shards."""
        return ShardedIndex([dataclasses.replace(shard, index=shard.index.exact()) for shard in self.shards])

    def by_cosine(self, width: int) -> ShardedIndex:
        """Return an index of the shards' `by_cosine`; see `Index.by_cosine`."""
        if self._cosine is None or self._cosine.dim != width:
            by_cosine = [dataclasses.replace(shard, index=shard.index.by_cosine(width)) for shard in self.shards]
            cosine = ShardedIndex(by_cosine)
            cosine.items = self.items  # with all that was looked up in it
            self._cosine = cosine
        return self._cosine

    def best_items(self, queries: Float32s, k: int) -> tuple[Int32s, Float32s]:
        """Find the best items of all shards; see `Index.best_items`."""
        # Every shard gives k: the best k of all may be in one.
        found = list(self._threads.map(lambda shard: shard.best_items(queries, k), self.shards))
        rows = np.concatenate([rows for rows, _ in found], axis=1)  # [queries, at most shards * k]
        return best_k(rows, np.concatenate([scores for _, scores in found], axis=1), k)

    def vectors_at(self, rows: Int32s) -> Float32s:
        """Copy the vectors of rows from their shards; see `Index.vectors_at`."""
        places = self._place[rows]
        owners = np.searchsorted(self._starts, places, side="right") - 1
        shape = self.shards[0].index.items.by_item.shape[1:]
        vectors = np.empty((len(rows), *shape), np.float32)
        for owner in np.unique(owners):
            chosen = owners == owner
            vectors[chosen] = self.shards[owner].index.vectors(places[chosen] - self._starts[owner])
        return vectors
