"""Reads VK-LSVD: short-video exposures with content embeddings, from VK Clips.

Published at https://huggingface.co/datasets/deepvk/VK-LSVD under Apache 2.0: 40 billion exposures, and subsamples of
users and items. Cite: Poslavsky et al., "VK-LSVD: A Large-Scale Industrial Dataset for Short-Video Recommendation", WWW
2026, https://arxiv.org/abs/2602.04567.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recall.core.arrays import Int64s
from recall.core.errors import DataError
from recall.data.datasets.files import listing, require_columns, require_folder
from recall.data.datasets.streams import StreamedDataset, distinct, parquet_parts

_WEEK_MS = 7 * 86_400_000
_IDS = ("user_id", "item_id")
_CONTEXT = ("place", "platform", "agent")
_FEEDBACK = ("timespent", "like", "dislike", "share", "bookmark", "click_on_author", "open_comments")
_ITEM, _USER = ("item_id", "author_id", "duration"), ("user_id", "age", "gender", "geo")
_METADATA = ("users_metadata.parquet", "items_metadata.parquet", "item_embeddings.npz")


def read_vk_lsvd(folder: str | Path) -> StreamedDataset:
    """Read VK-LSVD: the weeks of the whole log or of one subsample, and the profiles and videos that occur in them.

    The source publishes no times, but files of a week whose rows are in order of time. A row gets the moment at which
    it would lie if the exposures of a week came at an even pace, the last one at the end of the week: row i of n in
    week w is at (w + (i + 1) / n) weeks - 1 ms, counted from 1970. The order of all events is the published one, and
    the last seven days are the last week; ages and gaps within a day are approximate.

    Not taken: train_interactions_rank of users and items, which counts the whole training period, so that an example
    would see its own future.

    Args:
      folder: a folder with train/week_00.parquet, ..., and, as far as they are there, validation/ and test/:
        interactions, or one of subsamples; or the folder above that holds one of these. `metadata` with
        users_metadata.parquet, items_metadata.parquet and item_embeddings.npz lies beside or above.

    Returns:
      events: one row per exposure: user_id, item_id int64, time_ms int64, timespent (s, at most 255), like, dislike,
        share, bookmark, click_on_author, open_comments int8 (0 where the source says nothing), place, platform, agent.
      items: videos of the log, by id: item_id, author_id int64, duration (s), content list<float> (null where the
        source has no embedding).
      users: users of the log, by id: user_id int64, age, gender, geo.
      dropped: rows of the metadata whose video or user does not occur in these weeks.

    Raises:
      DataError: a file or a column is missing, or several samples lie in the folder.
    """
    folder = _sample_folder(require_folder(folder))
    weeks = _weeks(folder)
    metadata = _metadata(folder)
    for path in weeks.values():
        require_columns(path, pq.read_schema(path).names, (*_IDS, *_CONTEXT, *_FEEDBACK))

    def events() -> Iterator[pa.Table]:
        for week, path in weeks.items():
            total, before = pq.read_metadata(path).num_rows, 0
            for part in parquet_parts(path, [*_IDS, *_FEEDBACK, *_CONTEXT]):
                end = np.arange(before + 1, before + len(part) + 1, dtype=np.int64) * _WEEK_MS // max(total, 1)
                yield _event_columns(part, week * _WEEK_MS + np.maximum(end - 1, 0))
                before += len(part)

    found = {name: distinct(_numbers(weeks, name)) for name in _IDS}
    items, no_item = _known(metadata / _METADATA[1], _ITEM, found["item_id"])
    users, no_user = _known(metadata / _METADATA[0], _USER, found["user_id"])
    items = items.append_column("content", _embeddings(metadata / _METADATA[2], items["item_id"].to_numpy()))
    dropped = {
        "videos without an exposure in these weeks": no_item,
        "users without an exposure in these weeks": no_user,
    }
    return StreamedDataset(events=events, items=items, users=users, dropped=dropped)


def _sample_folder(folder: Path) -> Path:
    if (folder / "train").is_dir():
        return folder
    found = sorted({path.parent.parent for path in folder.rglob("train/week_*.parquet")})
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(str(path.relative_to(folder)) for path in found[:6])
        raise DataError(f"{folder}: expected one sample of VK-LSVD, found {names}; give one of these folders")
    raise DataError(
        f"{folder}: expected train/week_00.parquet of VK-LSVD; found {listing(folder)}. "
        "Give the folder interactions, or one of subsamples, as published"
    )


def _weeks(folder: Path) -> dict[int, Path]:
    """Return the files of the log by the number of their week, rising."""
    found = dict[int, Path]()
    for path in sorted(folder.glob("*/week_*.parquet")):
        number = re.fullmatch(r"week_(\d+)\.parquet", path.name)
        if path.parent.name in ("train", "validation", "test") and number:
            week = int(number[1])
            if week in found:
                raise DataError(f"{path}: week {week} is also in {found[week]}; keep one of both")
            found[week] = path
    return dict(sorted(found.items()))


def _metadata(folder: Path) -> Path:
    for place in (folder, *folder.parents[:3]):
        if all((place / "metadata" / name).is_file() for name in _METADATA):
            return place / "metadata"
    raise DataError(
        f"{folder}: expected a folder metadata with {', '.join(_METADATA)} beside it or above, as published; download "
        "it, too"
    )


def _event_columns(part: pa.Table, time_ms: Int64s) -> pa.Table:
    columns = {name: part[name].cast(pa.int64()) for name in _IDS}
    columns |= {"time_ms": pa.array(time_ms), "timespent": part["timespent"]}
    columns |= {name: pc.fill_null(part[name].cast(pa.int8()), 0) for name in _FEEDBACK[1:]}
    return pa.table(columns | {name: part[name] for name in _CONTEXT})


def _numbers(weeks: dict[int, Path], column: str) -> Iterator[Int64s]:
    for path in weeks.values():
        for part in parquet_parts(path, [column]):
            yield part[column].cast(pa.int64()).to_numpy()


def _known(path: Path, columns: tuple[str, ...], ids: Int64s) -> tuple[pa.Table, int]:
    """Read the rows of some ids, by id, and count the others; ids that the file lacks have no row."""
    require_columns(path, pq.read_schema(path).names, columns)
    kept, dropped = [], 0
    for part in parquet_parts(path, list(columns)):
        for name in columns:
            if name.endswith("_id"):
                part = part.set_column(part.column_names.index(name), name, part[name].cast(pa.int64()))
        is_known = np.isin(part[columns[0]].to_numpy(), ids, assume_unique=False)
        kept.append(part.filter(pa.array(is_known)))
        dropped += int((~is_known).sum())
    return pa.concat_tables(kept).sort_by(columns[0]).combine_chunks(), dropped


def _embeddings(path: Path, ids: Int64s) -> pa.Array:
    """Return the embedding of each of the rising ids, list<float>, null where the file has none."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            items, vectors = arrays["item_id"].astype(np.int64), arrays["embedding"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: expected arrays item_id and embedding ({error}); download it once more") from error
    if vectors.ndim != 2 or len(vectors) != len(items):
        raise DataError(f"{path}: embedding has the shape {vectors.shape}; expected [{len(items):,}, dim], as item_id")
    wanted = np.flatnonzero(np.isin(items, ids))
    rows = np.searchsorted(ids, items[wanted])
    lists = np.full(len(ids), -1, np.int64)
    lists[rows] = np.arange(len(wanted))
    return _lists(vectors[wanted].astype(np.float32)).take(pa.array(lists, mask=lists < 0))


def _lists(vectors: npt.NDArray[np.float32]) -> pa.ListArray:
    offsets = np.arange(len(vectors) + 1, dtype=np.int32) * vectors.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(vectors.ravel()))
