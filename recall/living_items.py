"""Items that come, gather counts and go while a run is served: from raw features and counts to the living index."""

from __future__ import annotations

import collections
import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import yaml

from recall.config import IndexConfig
from recall.errors import ArtifactError, DataError, shown
from recall.index import LivingIndex
from recall.index.items import listed
from recall.item_vectors import ItemVectors, Matrix, RawRows
from recall.posterior import Posterior, Prior, age_hours, smoothed_ctr
from recall.prepared import PreparedData
from recall.tables import id_list

COUNTS = ("exposures", "clicks")
FIRST_TIME = "first_time_ms"
_NO_COUNTS = (0, 0, 0)


def open_living_items(
    run: Path, *, fingerprint: str, vectors: ItemVectors, prepared: PreparedData, read_only: bool = False
) -> LivingItems:
    """The index of a run with what was added, refreshed and deleted since; see `LivingIndex.open`.

    Items that were added under another model are encoded again from their raw rows, with the counts that were known.
    """
    settings, columns = _served_as(run / "config.yaml")

    def encode(sources: Sequence[Any], report: Mapping[str, Any]) -> Matrix:
        if any("row" not in source for source in sources):
            raise DataError("an item of the catalogue before: its features are not in the journal")
        rows = [source["row"] for source in sources]
        counts = np.asarray([source.get("counts") or _NO_COUNTS for source in sources], np.int64)
        posterior = posterior_of(rows, counts, vectors=vectors, prepared=prepared)
        return vectors.of_raw(rows, posterior, cold_bias=report.get("cold_bias", 0.0))

    index = LivingIndex.open(
        run / "index",
        fingerprint=fingerprint,
        read_only=read_only,
        config=settings,
        encode=encode,
    )
    return LivingItems(index, vectors=vectors, prepared=prepared, columns=columns)


def _served_as(path: Path) -> tuple[IndexConfig, ItemColumns]:
    """What a run's config.yaml says of its index and items; its other sections may name files that are not here."""
    try:
        settings = yaml.safe_load(path.read_text())
        items = settings["data"].get("items") or {}
        columns = ItemColumns(items.get("id", settings["data"]["events"]["item"]), items.get("title"))
        return IndexConfig.model_validate(settings.get("index") or {}), columns
    except (OSError, yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ArtifactError(
            f"{path}: is no longer the experiment of the run ({type(error).__name__}: {error}); put the one back that "
            "it was made from"
        ) from error


@dataclasses.dataclass(frozen=True)
class ItemColumns:
    """Columns of the items file: the id's, and the title's if there is one."""

    id: str
    title: str | None = None


class LivingItems:
    """Changes the items of a served run.

    Args:
      index: of the run.
      vectors: its item side.
      prepared: its data.
      columns: of the items file.
    """

    def __init__(
        self, index: LivingIndex, *, vectors: ItemVectors, prepared: PreparedData, columns: ItemColumns
    ) -> None:
        self.index, self.columns = index, columns
        self._vectors, self._prepared = vectors, prepared

    def added(self, ids: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
        """Raw rows of items that were added, by id: of some, or of all that the index holds."""
        chosen = self.index.with_sources if ids is None else ids
        sources = zip(chosen, self.index.sources(chosen), strict=True)
        return {name: source["row"] for name, source in sources if source and "row" in source}

    def counts(self) -> dict[str, tuple[int, int, int]]:
        """Exposures, clicks and Unix milliseconds of the first exposure by id, of items added or refreshed since."""
        chosen = self.index.with_sources
        sources = zip(chosen, self.index.sources(chosen), strict=True)
        return {name: tuple(source.get("counts") or _NO_COUNTS) for name, source in sources if source}

    def titles(self, ids: Sequence[str] | None = None) -> dict[str, str]:
        """Titles of `added` items that have one."""
        column = self.columns.title
        if column is None:
            return {}
        return {name: str(row[column]) for name, row in self.added(ids).items() if row.get(column) is not None}

    def add(self, rows: RawRows) -> list[str]:
        """Encodes items by their content and makes them searchable.

        Args:
          rows: raw values under the column names of the items file, with an id each. Of an item that was added before
            it is the new content, without exposures.

        Returns:
          The ids, in the order of the rows.

        Raises:
          DataError: ids are missing, repeat, or are in the index as items of the catalogue; a value is not of its
            feature's type. Nothing was changed.
        """
        records = _records(rows)
        ids = _item_ids((record.get(self.columns.id) for record in records), column=self.columns.id)
        if not ids:
            return []
        self._require_new(ids)
        vectors = self._vectors.of_new(rows, cold_bias=self._cold_bias)
        sources = [{"row": _plain(record, where=f"item {name}")} for name, record in zip(ids, records, strict=True)]
        self.index.upsert(ids, vectors, sources=sources)
        return ids

    def delete(self, ids: Iterable[str | int], *, missing_ok: bool = False) -> int:
        """See `LivingIndex.delete`."""
        if isinstance(ids, str | bytes):
            raise DataError(f"items: expected a list of ids, found the text {shown(repr(ids))}; write [...]")
        return self.index.delete(dict.fromkeys(_item_ids(dict.fromkeys(ids), column="items")), missing_ok=missing_ok)

    def refresh(self, counts: pd.DataFrame, *, now_ms: int | None = None) -> int:
        """Encodes items again with what is known of them by now: the gate moves, the vector is replaced in place.

        Args:
          counts: columns with the item's id (named as in the items file), exposures, clicks, and for a log with a
            clock first_time_ms, the Unix milliseconds of the first exposure; totals up to now, not what was added.
          now_ms: the moment that ages are counted to; default: the end of the log, or the latest first exposure.

        Returns:
          How many items were refreshed.

        Raises:
          DataError: a column is missing, an id is not in the index, or counts make no sense; nothing was changed.
        """
        ids, known = self._checked_counts(counts)
        if not ids:
            return 0
        self.index.rows(ids)  # refuses those that it lacks
        catalogue = self._prepared.rows(ids)
        sources = self.index.sources(ids)
        raw = [bool(source and "row" in source) for source in sources]
        unknown = [name for name, row, is_raw in zip(ids, catalogue, raw, strict=True) if row < 0 and not is_raw]
        if unknown:
            raise DataError(
                f"{len(unknown):,} of {len(ids):,} items have no features to encode, as they were upserted as vectors: "
                f"{listed(unknown)}; upsert their vectors again"
            )
        of_raw, of_catalogue = np.flatnonzero(raw), np.flatnonzero(~np.asarray(raw))
        vectors = np.empty((len(ids), *self.index.vectors([]).shape[1:]), np.float32)
        if of_raw.size:
            rows = [sources[place]["row"] for place in of_raw]
            posterior = posterior_of(rows, known[of_raw], vectors=self._vectors, prepared=self._prepared, now_ms=now_ms)
            vectors[of_raw] = self._vectors.of_raw(rows, posterior, cold_bias=self._cold_bias)
        if of_catalogue.size:
            chosen = catalogue[of_catalogue]
            posterior = posterior_of(chosen, known[of_catalogue], prepared=self._prepared, now_ms=now_ms)
            encoded = self._prepared.items.take(pa.array(chosen))
            vectors[of_catalogue] = self._vectors.of_encoded(encoded, posterior, cold_bias=self._cold_bias)
        kept = [{**(source or {}), "counts": own} for source, own in zip(sources, known.tolist(), strict=True)]
        self.index.upsert(ids, vectors, sources=kept)
        return len(ids)

    @property
    def _cold_bias(self) -> float:
        return float(self.index.report.get("cold_bias", 0.0))

    def _require_new(self, ids: Sequence[str]) -> None:
        snapshot = self.index.snapshot()
        held = [name for name in ids if snapshot.row(name) >= 0]
        added = self.added(held)
        theirs = [name for name in held if name not in added]
        if theirs:
            raise DataError(
                f"{len(theirs):,} of {len(ids):,} items are in the catalogue already, with what is known of their "
                f"behaviour: {listed(theirs)}; use refresh_posterior, or delete_items first to start anew"
            )

    def _checked_counts(self, counts: pd.DataFrame) -> tuple[list[str], npt.NDArray[np.int64]]:
        has_clock = self._prepared.manifest["time_unit"] != "order"
        wanted = [self.columns.id, *COUNTS, *([FIRST_TIME] if has_clock else [])]
        if missing := [name for name in wanted if name not in counts.columns]:
            raise DataError(f"counts: no column {', '.join(missing)}; expected {', '.join(wanted)}")
        ids = _item_ids(counts[self.columns.id], column=self.columns.id)
        known = np.zeros((len(ids), 3), np.int64)
        for place, name in enumerate(wanted[1:]):
            values = pd.to_numeric(counts[name], errors="coerce")
            if name == FIRST_TIME:
                values = values.where(counts["exposures"] != 0, 0)  # nobody asks when what never happened happened
            bad = values.isna() | ~np.isfinite(values) | (values < 0) | (values != values.round())
            if bad.any():
                at = [ids[place] for place in np.flatnonzero(bad)]
                raise DataError(f"counts: {name} of {bad.sum():,} items is no whole number from 0: {listed(at)}")
            known[:, place] = values.astype(np.int64)
        if (more := known[:, 1] > known[:, 0]).any():
            at = [ids[place] for place in np.flatnonzero(more)]
            raise DataError(f"counts: {more.sum():,} items have more clicks than exposures: {listed(at)}")
        return ids, known


class ChangesItems:
    """The part of a recaller that changes items.

    Args:
      living: the items, where they may change.
      titles: by id; those of items that were added join them.
    """

    def __init__(self, living: LivingItems | None, *, titles: Mapping[str, str]) -> None:
        self._living = living
        self._titles = {**titles, **(living.titles() if living else {})}

    def add_items(self, rows: RawRows) -> list[str]:
        """Makes new items searchable at once, by their content; see `LivingItems.add`. Returns their ids.

        They are found as others are, and `vectors` and `similar` know them. In histories they are passed over, and by
        content they are neither found nor asked for: the query model and the content search hold the items of training.
        """
        items = self._changing()
        ids = items.add(rows)
        self._titles.update(items.titles(ids))
        return ids

    def delete_items(self, items: Iterable[str | int], *, missing_ok: bool = False) -> int:
        """Removes items: no list holds them any more; see `LivingIndex.delete`. Returns how many were removed."""
        return self._changing().delete(items, missing_ok=missing_ok)

    def refresh_posterior(self, counts: pd.DataFrame, *, now_ms: int | None = None) -> int:
        """Moves the gates of items by what is known of them now; see `LivingItems.refresh`. Returns how many."""
        return self._changing().refresh(counts, now_ms=now_ms)

    def close(self) -> None:
        """Lets another process change the items."""
        if self._living:
            self._living.index.close()

    @property
    def _deleted(self) -> frozenset[str]:
        return self._living.index.deleted if self._living else frozenset()

    def _changing(self) -> LivingItems:
        if self._living is None:
            raise ArtifactError("the index is as it was built; open the run with Recaller.load(run, living=True)")
        return self._living


def posterior_of(
    items: npt.NDArray[np.int64] | Sequence[Mapping[str, Any]],
    counts: npt.NDArray[np.int64],
    *,
    prepared: PreparedData,
    vectors: ItemVectors | None = None,
    now_ms: int | None = None,
) -> Posterior:
    """The posterior of items as training knew it, from totals.

    Args:
      items: rows of the catalogue, or with `vectors` raw rows of items that it lacks.
      counts: int64 [items, 3]: exposures, clicks, Unix milliseconds of the first exposure.
      prepared: data of the run: its prior.
      vectors: of the run: the prior of raw rows.
      now_ms: see `LivingItems.refresh`.
    """
    exposures, clicks, first_ms = counts.T
    known = (exposures > 0) & (prepared.manifest["time_unit"] != "order")
    if now_ms is None:
        now_ms = max(prepared.manifest["last_time_ms"] or 0, int(first_ms[known].max(initial=0)))
    settings = prepared.manifest["posterior"]
    prior = Prior(settings["prior_ctr"], settings["prior_strength"])
    if isinstance(items, np.ndarray):
        # Reading the history of all posteriors takes its time, and only these priors are there.
        theirs = prepared.posterior_history.prior if prepared.has_content_prior else prior
        own = theirs.ctr_of(items, np.full(len(items), now_ms))
    else:
        assert vectors is not None
        by_content = vectors.prior_ctr(items)
        own = prior.ctr if by_content is None else by_content
    ctr = smoothed_ctr(clicks, exposures, prior, prior_ctr=own)
    return Posterior(exposures, clicks, ctr, age_hours(now_ms, first_ms, known=known))


def _records(rows: RawRows) -> list[dict[str, Any]]:
    if isinstance(rows, pd.DataFrame):
        return [dict(zip(rows.columns, values, strict=True)) for values in rows.itertuples(index=False, name=None)]
    return [dict(row) for row in rows]


def _item_ids(values: Iterable[Any], *, column: str) -> list[str]:
    """Ids as the items file's are read."""
    ids = id_list(values, what=column)
    if ids.null_count:
        raise DataError(f"{column}: {ids.null_count:,} of {len(ids):,} items have no id; every item needs one")
    names: list[str] = ids.to_pylist()
    if len(set(names)) < len(names):
        repeated = [name for name, count in collections.Counter(names).items() if count > 1]
        raise DataError(f"{column}: {len(repeated):,} ids stand more than once: {listed(repeated)}")
    return names


def _plain(row: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """A raw row as JSON can hold it; what is missing is left out. Moments become text as ISO 8601 writes them."""
    plain = {name: _plain_value(value) for name, value in row.items()}
    plain = {name: value for name, value in plain.items() if value is not None}
    try:
        return dict(json.loads(json.dumps(plain, allow_nan=False)))
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: a value cannot be kept as JSON ({error})") from None


def _plain_value(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return [_plain_value(part) for part in value]
    return value
