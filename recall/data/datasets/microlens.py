"""Reads MicroLens: comments on short videos, with titles and vectors of titles, covers and videos.

Published at https://recsys.westlake.edu.cn (the format: https://github.com/westlake-repl/MicroLens) for research, as
MicroLens-50k, -100k and -1M; altered copies may not be redistributed. Cite: Ni et al., "A Content-Driven Micro-Video
Recommendation Dataset at Scale", https://arxiv.org/abs/2309.15379.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recall.core.arrays import Int64s
from recall.core.errors import DataError
from recall.core.tables import read_header
from recall.data.datasets.files import Dataset, as_number, listing, read_delimited, require_folder
from recall.data.features.embeddings import read_npy

_PAIRS = {("user", "item", "timestamp"), ("userID", "videoID", "timestamp")}  # the files, and their readme
_TITLES = ("titles.csv", "title_en.csv", "title.csv")  # of 50k, 100k and 1M
_CATEGORIES = "tags_to_summary.csv"
_FEATURES = {"text": "*_text_features_*.npy", "image": "*_image_features_*.npy", "video": "*_video_features_*.npy"}


def read_microlens(folder: str | Path) -> Dataset:
    """Read MicroLens-50k, -100k or -1M.

    A comment is all that is known of a user and a video: every row is a click, and there are no exposures.

    Not taken: likes and views, and the texts of comments, which were collected at the end, so that an example would see
    its own future; raw covers, audio and videos (`recall content` and `python -m pipelines.content_vectors` encode
    such).

    Args:
      folder: holds MicroLens-SIZE_pairs.csv; as far as they are there also MicroLens-SIZE_titles.csv, _title_en.csv or
        _title.csv, tags_to_summary.csv, and in extracted_modality_features/ the vectors, whose rows are the videos of
        the titles by id.

    Returns:
      events: user_id, item_id, time_ms int64 (Unix ms), in the published order.
      items: videos of titles, categories and pairs, by id: item_id int64, title, category (null where the files are
        missing or empty), and text, image, video list<float> as far as published.

    Raises:
      DataError: a file is missing, a row has no number where one is expected, or vectors do not fit the titles.
    """
    folder = require_folder(folder)
    pairs = _one(folder, "MicroLens-*_pairs.csv")
    if pairs is None:
        raise DataError(f"{folder}: expected a file like MicroLens-100k_pairs.csv; found {listing(folder)}")
    names = tuple(read_header(pairs))
    if names not in _PAIRS:
        raise DataError(f"{pairs}: expected the header user,item,timestamp; found {','.join(names)[:200]!r}")
    events = read_delimited(pairs, names, delimiter=",", header=True)
    for name in names:
        events = as_number(events, name, pa.int64(), path=pairs, first_line=2)
    events = events.rename_columns(["user_id", "item_id", "time_ms"])

    size = pairs.name.removesuffix("_pairs.csv")
    titles = next((folder / f"{size}_{name}" for name in _TITLES if (folder / f"{size}_{name}").is_file()), None)
    title = _texts(titles) if titles else {}
    category = _texts(folder / _CATEGORIES) if (folder / _CATEGORIES).is_file() else {}
    ids = np.unique([*title, *category, *events["item_id"].unique().to_pylist()]).astype(np.int64)
    columns = {"item_id": pa.array(ids)}
    for name, texts in (("title", title), ("category", category)):
        columns[name] = pa.array([texts.get(item) for item in ids.tolist()], pa.string())
    vectors = {name: _one(folder, f"**/{pattern}") for name, pattern in _FEATURES.items()}
    columns |= {name: _vectors(path, ids, sorted(title)) for name, path in vectors.items() if path}
    return Dataset(events=events, items=pa.table(columns))


def _one(folder: Path, pattern: str) -> Path | None:
    found = sorted(folder.glob(pattern))
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise DataError(
            f"{folder}: expected one file like {pattern}, found {names}; keep one size of the data set in a folder"
        )
    return found[0] if found else None


def _texts(path: Path) -> dict[int, str | None]:
    """Read lines `id,text`, with or without a header; commas of a text need no quotes, an empty text is None."""
    texts: dict[int, str | None] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            for number, row in enumerate(csv.reader(stream), start=1):
                if not row or (number == 1 and not row[0].strip().isdigit()):
                    continue
                texts[int(row[0])] = ",".join(row[1:]).strip() or None
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read ({error}); expected lines of `id,text`") from error
    return texts


def _vectors(path: Path, ids: Int64s, titled: list[int]) -> pa.Array:
    """Return the vectors of the videos, list<float> [ids]; row i of the file belongs to the i-th title by id."""
    vectors = read_npy(path, rows=len(titled), key=path.parent.name, table="the file of titles")
    rows = pc.index_in(pa.array(ids), value_set=pa.array(titled, pa.int64()))
    return vectors.cast(pa.list_(pa.float32())).take(rows)
