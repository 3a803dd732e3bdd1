"""Reads MIND: news impressions with clicks, from Microsoft News.

Published at https://msnews.github.io under the Microsoft Research License Terms: research use only, no
redistribution. Cite: Wu et al., "MIND: A Large-scale Dataset for News Recommendation", ACL 2020,
https://aclanthology.org/2020.acl-main.331.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recall.core.arrays import Bools, Int64s
from recall.core.errors import DataError
from recall.data.datasets.files import Dataset, listing, read_delimited, require_file, require_folder
from recall.data.datasets.streams import StreamedDataset, whole

_BEHAVIORS = ("impression_id", "user_id", "time", "history", "impressions")
_NEWS = ("news_id", "category", "subcategory", "title", "abstract", "url", "title_entities", "abstract_entities")
_IMPRESSIONS = 1 << 15  # taken apart at once: about a million rows
_TIME_FORMAT = "%m/%d/%Y %I:%M:%S %p"


def read_mind(folder: str | Path, *, history_as_clicks: bool = False) -> Dataset:
    """Read MIND into memory; see `stream_mind`.

    Args:
      folder: as of `stream_mind`.
      history_as_clicks: MIND gives what a user clicked in the weeks before the log as a list without times and
        without what was shown beside. False leaves these clicks out of the events. True puts them in front, in
        order, one second apart, the last one a second before the first impression of the whole log, with a null
        impression_id: query vectors then have a history from the start, but the times are made up and the items'
        early CTR is too high.
    """
    data = stream_mind(folder)
    events, history = whole(data.events), whole(data.extras["history"])
    if history_as_clicks:
        first_ms = pc.min(events["time_ms"]).as_py()
        events = pa.concat_tables([_as_clicks(history, before_ms=first_ms, schema=events.schema), events])
    return Dataset(events=events, items=data.items, extras={"history": history}, dropped=data.dropped)


def stream_mind(folder: str | Path) -> StreamedDataset:
    """Read MIND: the folder with behaviors.tsv and news.tsv, or one that holds several such folders.

    Given the folder above MINDsmall_train and MINDsmall_dev, or MINDlarge_train and MINDlarge_dev, both logs are read
    one after the other, and news that both list are taken once. MINDlarge_test beside them has no clicks: its news are
    taken and its impressions are not. The impressions are held in memory, and not the news in them one by one.

    Not taken: the entity and relation embeddings (entity_embedding.vec, relation_embedding.vec).

    Args:
      folder: the unpacked folder.

    Returns:
      events: one row per news item of an impression: user_id, news_id, time_ms int64 (Unix ms; the source names no
        time zone, read as UTC), click int8, impression_id.
      items: news_id, category, subcategory, title, abstract, url, and title_entities and abstract_entities,
        list<string> of Wikidata ids.
      users: None.
      extras["history"]: user_id, position int32, news_id: the history at the user's earliest impression.
      dropped: impressions of a test set beside other parts.

    Raises:
      DataError: a file is missing, a line has another number of values, a time, an impression or an entity list
        cannot be read, or no impression carries clicks, as in the test set alone.
    """
    folder = require_folder(folder)
    parts = (
        [folder] if (folder / "behaviors.tsv").exists() else sorted(p.parent for p in folder.glob("*/behaviors.tsv"))
    )
    if not parts:
        raise DataError(
            f"{folder}: expected behaviors.tsv and news.tsv of MIND, here or in folders below; found {listing(folder)}"
        )
    paths = [require_file(part, "behaviors.tsv", of="MIND") for part in parts]
    labelled = [path for path in paths if _has_clicks(path)] or paths
    logs = [_read_behaviors(path) for path in labelled]
    items = pa.concat_tables([_read_news(require_file(part, "news.tsv", of="MIND")) for part in parts])
    history = _history(pa.concat_tables([log.select(["user_id", "time_ms", "history"]) for log in logs]))

    def events() -> Iterator[pa.Table]:
        for log in logs:
            for start in range(0, max(len(log), 1), _IMPRESSIONS):
                yield _events(log.slice(start, _IMPRESSIONS).combine_chunks())

    hidden = sum(len(read_delimited(path, _BEHAVIORS, delimiter="\t")) for path in paths if path not in labelled)
    return StreamedDataset(
        events=events,
        items=_first_of_each(items),
        extras={"history": lambda: iter([history])},
        dropped={"impressions of the test set, which has no clicks": hidden},
    )


def _has_clicks(path: Path) -> bool:
    """Tell whether the first line's impressions say what was clicked."""
    try:
        with path.open(encoding="utf8") as stream:
            impressions = stream.readline().rstrip("\r\n").rpartition("\t")[2]
    except (OSError, UnicodeDecodeError):
        return True  # for the reader to tell
    return not impressions or any(word.endswith(("-0", "-1")) for word in impressions.split(" "))


def _read_behaviors(path: Path) -> pa.Table:
    """Read the log with time_ms, and with impressions and history split into lists."""
    table = read_delimited(path, _BEHAVIORS, delimiter="\t")
    times = pd.to_datetime(table["time"].to_pandas(), format=_TIME_FORMAT, errors="coerce")
    _require(times.notna().to_numpy(), table["time"], path=path, what="time", like="11/12/2019 2:14:46 PM")
    labelled = pc.match_substring_regex(table["impressions"], r"^\S+-[01]( \S+-[01])*$").fill_null(False)
    _require(labelled.to_numpy(), table["impressions"], path=path, what="impressions", like="N43266-0 N6975-1")
    _require(table["user_id"].is_valid().to_numpy(), table["user_id"], path=path, what="user_id", like="U81994")
    milliseconds = times.to_numpy().astype("datetime64[ms]").astype(np.int64)
    return pa.table(
        {
            "impression_id": table["impression_id"],
            "user_id": table["user_id"],
            "time_ms": pa.array(milliseconds),
            "history": pc.split_pattern(table["history"], " "),
            "impressions": pc.split_pattern(table["impressions"], " "),
        }
    ).combine_chunks()


def _require(good: Bools, values: pa.ChunkedArray, *, path: Path, what: str, like: str) -> None:
    if not good.all():
        row = int(np.argmin(good))
        hint = " (the test set has no clicks; use train or dev)" if what == "impressions" else ""
        raise DataError(
            f"{path}, line {row + 1}: {what} is {str(values[row].as_py())[:60]!r}; expected one like {like!r}{hint}"
        )


def _events(log: pa.Table) -> pa.Table:
    """Make one row per item of each impression."""
    impressions = log["impressions"].combine_chunks()
    parents = pc.list_parent_indices(impressions)
    shown = pc.list_flatten(impressions)
    return pa.table(
        {
            "user_id": log["user_id"].take(parents),
            "news_id": pc.utf8_slice_codeunits(shown, 0, -2),
            "time_ms": log["time_ms"].take(parents),
            "click": pc.cast(pc.utf8_slice_codeunits(shown, -1), pa.int8()),
            "impression_id": log["impression_id"].take(parents),
        }
    )


def _history(log: pa.Table) -> pa.Table:
    """List the clicks before each user's earliest impression, in order."""
    order = pc.sort_indices(log, [("time_ms", "ascending")])
    rows = np.sort(_first_rows(log["user_id"].take(order)))
    log = log.take(order).take(pa.array(rows)).combine_chunks()
    history = log["history"].combine_chunks()
    parents = pc.list_parent_indices(history)
    starts = np.searchsorted(parents.to_numpy(), parents.to_numpy(), side="left")
    return pa.table(
        {
            "user_id": log["user_id"].take(parents),
            "position": pa.array(np.arange(len(parents)) - starts, pa.int32()),
            "news_id": pc.list_flatten(history),
        }
    )


def _as_clicks(history: pa.Table, *, before_ms: int, schema: pa.Schema) -> pa.Table:
    users = history["user_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    length = np.bincount(users)[users]
    times = before_ms - 1000 * (length - history["position"].to_numpy())
    columns = {
        "user_id": history["user_id"],
        "news_id": history["news_id"],
        "time_ms": pa.array(times, pa.int64()),
        "click": pa.array(np.ones(len(times)), pa.int8()),
        "impression_id": pa.nulls(len(times), pa.string()),
    }
    return pa.table(columns, schema=schema)


def _read_news(path: Path) -> pa.Table:
    table = read_delimited(path, _NEWS, delimiter="\t")
    for name in ("title_entities", "abstract_entities"):
        entities = [_wikidata_ids(text, f"{path}, line {row + 1}") for row, text in enumerate(table[name].to_pylist())]
        column = pa.chunked_array([pa.array(entities, pa.list_(pa.string()))])
        table = table.set_column(table.column_names.index(name), name, column)
    return table


def _wikidata_ids(text: str | None, where: str) -> list[str]:
    """Read distinct entities in order of appearance; none if the list is empty or missing."""
    if text is None or text == "[]":
        return []
    try:
        return list(dict.fromkeys(entity["WikidataId"] for entity in json.loads(text)))
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(
            f'{where}: cannot read the entities {text[:60]!r}; expected a JSON list of {{"WikidataId": ...}}'
        ) from error


def _first_of_each(items: pa.Table) -> pa.Table:
    return items.take(pa.array(np.sort(_first_rows(items["news_id"]))))


def _first_rows(values: pa.ChunkedArray) -> Int64s:
    """Find the rows [distinct values] at which each value appears for the first time."""
    codes = values.combine_chunks().dictionary_encode().indices.to_numpy()
    return np.unique(codes, return_index=True)[1].astype(np.int64)
