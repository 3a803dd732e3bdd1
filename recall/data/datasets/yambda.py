"""Reads Yambda: listens and likes of a music service, with audio embeddings, from Yandex Music.

Published at https://huggingface.co/datasets/yandex/yambda under Apache 2.0 in three sizes, 50m, 500m and 5b. Cite:
Ploshkin et al., "Yambda-5B: A Large-Scale Multi-modal Dataset for Ranking And Retrieval", RecSys 2025,
https://arxiv.org/abs/2505.22238.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recall.core.arrays import Int64s
from recall.core.errors import DataError
from recall.data.datasets.files import listing, require_columns, require_folder
from recall.data.datasets.streams import StreamedDataset, distinct, parquet_parts

_MULTI, _LISTENS = "multi_event.parquet", "listens.parquet"
_FEEDBACK = {"like": "likes", "dislike": "dislikes", "unlike": "unlikes", "undislike": "undislikes"}
_EVENT = ("uid", "timestamp", "item_id", "is_organic")
_LISTEN = (*_EVENT, "played_ratio_pct", "track_length_seconds")
_LENGTH_BITS = 20  # of a track's length in seconds, below its id in one number


def read_yambda(folder: str | Path) -> StreamedDataset:
    """Read Yambda in its flat form.

    Every listen is an exposure; the benchmark of its authors takes one as positive where half of the track was played
    (`click: {column: played_ratio_pct, at_least: 50}`). Likes and the other three kinds of feedback are no exposures:
    they go into a table of their own, for `data.histories`.

    Not taken: the sequential form, which holds the same events; organic and recommended listens stay mixed, as
    is_organic tells. A track of several artists or albums keeps the first that the mapping lists.

    Args:
      folder: flat/SIZE with multi_event.parquet, or else listens.parquet and, as far as they are there, likes.parquet,
        dislikes.parquet, unlikes.parquet and undislikes.parquet; or the folder above that holds one size. In it or up
        to two folders above, as published: embeddings.parquet, artist_item_mapping.parquet, album_item_mapping.parquet.

    Returns:
      events: one row per listen in the published order (by user and time): user_id, item_id int64, timestamp int64 (s
        from a moment that is not published, in steps of 5), is_organic int8, played_ratio_pct (may exceed 100).
      items: tracks of the listens, by id: item_id, artist_id, album_id int64, track_length_seconds int64, audio
        list<float> (the normalized embedding); null where nothing is published.
      extras["feedback"]: user_id, item_id, timestamp, is_organic, event_type (like, dislike, unlike, undislike),
        is_like int8.

    Raises:
      DataError: a file or a column is missing, or several sizes lie in the folder.
    """
    folder = _flat_folder(require_folder(folder))
    multi = (folder / _MULTI).is_file()
    listens = folder / (_MULTI if multi else _LISTENS)
    require_columns(listens, pq.read_schema(listens).names, (*_LISTEN, *(("event_type",) if multi else ())))

    def events() -> Iterator[pa.Table]:
        for part in _listens(listens, multi, list(_LISTEN[:-1])):
            yield _renamed(part, "played_ratio_pct")

    def feedback() -> Iterator[pa.Table]:
        if multi:
            for part in parquet_parts(listens, [*_EVENT, "event_type"]):
                kind = part["event_type"].cast(pa.string())
                taken = pc.is_in(kind, value_set=pa.array(list(_FEEDBACK)))
                yield _with_kind(part.filter(taken), kind.filter(taken))
            return
        yield _with_kind(next(parquet_parts(listens, list(_EVENT))), pa.chunked_array([[]], pa.string()))
        for kind, name in _FEEDBACK.items():
            if (path := folder / f"{name}.parquet").is_file():
                for part in parquet_parts(path, list(_EVENT)):
                    yield _with_kind(part, pa.chunked_array([pa.repeat(kind, len(part))]))

    ids, lengths = _tracks(listens, multi)
    columns = {
        "item_id": pa.array(ids),
        "artist_id": _first_of(_above(folder, "artist_item_mapping.parquet"), "artist_id", ids),
        "album_id": _first_of(_above(folder, "album_item_mapping.parquet"), "album_id", ids),
        "track_length_seconds": pa.array(lengths, mask=lengths == 0),
        "audio": _audio(_above(folder, "embeddings.parquet"), ids),
    }
    return StreamedDataset(events=events, items=pa.table(columns), extras={"feedback": feedback})


def _flat_folder(folder: Path) -> Path:
    if (folder / _MULTI).is_file() or (folder / _LISTENS).is_file():
        return folder
    found = sorted({path.parent for name in (_MULTI, _LISTENS) for path in folder.rglob(name)})
    found = [path for path in found if path.parent.name != "sequential"]
    if len(found) == 1:
        return found[0]
    if found:
        sizes = ", ".join(str(path.relative_to(folder)) for path in found)
        raise DataError(f"{folder}: expected one size of Yambda, found {sizes}; give one of these folders")
    raise DataError(
        f"{folder}: expected {_MULTI} or {_LISTENS} of Yambda's flat form; found {listing(folder)}. "
        "Give the folder flat/50m, flat/500m or flat/5b"
    )


def _above(folder: Path, name: str) -> Path | None:
    """Find a file in the folder or up to two folders above, where the source has it; None where it is missing."""
    return next((place / name for place in (folder, *folder.parents[:2]) if (place / name).is_file()), None)


def _listens(path: Path, multi: bool, columns: list[str]) -> Iterator[pa.Table]:
    for part in parquet_parts(path, [*columns, *(["event_type"] if multi else [])]):
        if multi:
            part = part.filter(pc.equal(part["event_type"].cast(pa.string()), "listen")).drop_columns(["event_type"])
        yield part


def _renamed(part: pa.Table, *further: str) -> pa.Table:
    columns = {
        "user_id": part["uid"].cast(pa.int64()),
        "item_id": part["item_id"].cast(pa.int64()),
        "timestamp": part["timestamp"].cast(pa.int64()),
        "is_organic": part["is_organic"].cast(pa.int8()),
    }
    return pa.table(columns | {name: part[name] for name in further})


def _with_kind(part: pa.Table, kind: pa.ChunkedArray) -> pa.Table:
    is_like = pc.equal(kind, "like").cast(pa.int8())
    return _renamed(part).append_column("event_type", kind).append_column("is_like", is_like)


def _tracks(listens: Path, multi: bool) -> tuple[Int64s, Int64s]:
    """Collect the ids of all tracks of the listens, rising, and their lengths in seconds, 0 where unknown."""

    def numbered() -> Iterator[Int64s]:
        for part in _listens(listens, multi, ["item_id", "track_length_seconds"]):
            length = pc.fill_null(part["track_length_seconds"], 0).cast(pa.int64()).to_numpy()
            item = part["item_id"].cast(pa.int64()).to_numpy()
            yield (item << _LENGTH_BITS) | np.clip(length, 0, (1 << _LENGTH_BITS) - 1)

    found = distinct(numbered())
    ids = found >> _LENGTH_BITS
    last = np.append(ids[1:] != ids[:-1], True)[: len(ids)]  # of several lengths the longest
    return ids[last], found[last] & ((1 << _LENGTH_BITS) - 1)


def _first_of(path: Path | None, column: str, ids: Int64s) -> pa.Array:
    """Return the first value that a mapping lists for each id, int64 [ids], null where it lists none."""
    values = np.full(len(ids), -1, np.int64)
    if path is not None:
        require_columns(path, pq.read_schema(path).names, ("item_id", column))
        for part in parquet_parts(path, ["item_id", column]):
            rows, known = _rows_of(part["item_id"], ids)
            found = part[column].cast(pa.int64()).to_numpy()[known]
            rows, first = np.unique(rows, return_index=True)
            new = values[rows] < 0
            values[rows[new]] = found[first[new]]
    return pa.array(values, mask=values < 0)


def _audio(path: Path | None, ids: Int64s) -> pa.Array:
    """Return the normalized audio embedding of each id, list<float>, null where there is none."""
    kind = pa.list_(pa.float32())
    if path is None:
        return pa.nulls(len(ids), kind)
    require_columns(path, pq.read_schema(path).names, ("item_id", "normalized_embed"))
    parts, rows = [pa.nulls(0, kind)], [np.zeros(0, np.int64)]
    for part in parquet_parts(path, ["item_id", "normalized_embed"]):
        place, known = _rows_of(part["item_id"], ids)
        parts.append(part["normalized_embed"].filter(pa.array(known)).combine_chunks().cast(kind))
        rows.append(place)
    place = np.full(len(ids), -1, np.int64)
    order = np.concatenate(rows)
    place[order] = np.arange(len(order))
    return pa.concat_arrays(parts).take(pa.array(place, mask=place < 0))


def _rows_of(column: pa.ChunkedArray, ids: Int64s) -> tuple[Int64s, np.ndarray]:
    """Find ids among the rising `ids`: the rows of known ones, and bool [column] that marks these."""
    values = column.cast(pa.int64()).to_numpy()
    rows = np.minimum(np.searchsorted(ids, values), max(len(ids) - 1, 0))
    known = ids[rows] == values if len(ids) else np.zeros(len(values), bool)
    return rows[known], known
