"""Reads KuaiRand: short-video exposures with clicks, from the recommender of Kuaishou.

Published at https://kuairand.com (files: https://zenodo.org/records/10439422) under CC BY-SA 4.0 in three
sizes, Pure, 1K and 27K, of one layout. Cite: Gao et al., "KuaiRand: An Unbiased Sequential Recommendation
Dataset with Randomly Exposed Videos", CIKM 2022, https://doi.org/10.1145/3511808.3557624.
"""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from recall.core.errors import DataError
from recall.core.tables import read_table
from recall.data.datasets.files import Dataset, as_number, listing, require_folder

_ENDING = r"\.(csv|csv\.gz|parquet)$"
_LOG_COLUMNS = ("user_id", "video_id", "time_ms", "is_click")


def read_kuairand(folder: str | Path, *, random_exposures: bool = True) -> Dataset:
    """Read KuaiRand-Pure, -1K or -27K.

    The published names are log_standard_4_08_to_4_21_SIZE.csv, log_standard_4_22_to_5_08_SIZE.csv,
    log_random_4_22_to_5_08_SIZE.csv (with _part1, _part2 in 27K), video_features_basic_SIZE.csv and
    user_features_SIZE.csv; gzipped CSV and Parquet of the same names are read too. The video statistics are left
    alone: they sum over the whole period, so that an example would see its own future.

    Args:
      folder: the unpacked folder, or the one above its `data` folder.
      random_exposures: whether to read also the log of videos that replaced recommended ones at random.

    Returns:
      events: the logs one after the other, in the published order and with all published columns; user_id,
        video_id, time_ms (Unix ms) and is_click (0 or 1) are int64. Exact duplicates stay as published.
      items: video_id int64, author_id, video_type, ..., tag, as the published strings.
      users: user_id int64 and the profile, as the published strings.
      All of it is in memory at once: for 27K (over 300 million exposures) point an experiment at the published files
      themselves.

    Raises:
      DataError: a file is missing, or a column, or a value of the log's four columns is not a whole number.
    """
    folder = require_folder(folder)
    if not any(folder.glob("log_*")) and (folder / "data").is_dir():
        folder = folder / "data"
    logs = _matching(folder, r"log_standard_.*" + _ENDING, example="log_standard_4_22_to_5_08_pure.csv")
    if random_exposures:
        logs += _matching(folder, r"log_random_.*" + _ENDING)
    [videos] = _matching(folder, r"video_features_basic_[^_]+" + _ENDING, example="video_features_basic_pure.csv")
    [users] = _matching(folder, r"user_features_[^_]+" + _ENDING, example="user_features_pure.csv")
    return Dataset(
        events=pa.concat_tables([_read(path, _LOG_COLUMNS) for path in logs], promote_options="permissive"),
        items=_read(videos, ("video_id",)),
        users=_read(users, ("user_id",)),
    )


def _matching(folder: Path, pattern: str, *, example: str | None = None) -> list[Path]:
    """List the files whose names match, sorted. With an example one is required, and only the log may have several."""
    found = sorted(path for path in folder.iterdir() if re.fullmatch(pattern[:-1], path.name))
    if example and not found:
        raise DataError(
            f"{folder}: expected a file like {example} of KuaiRand; found {listing(folder)}. "
            "Give the folder with the published logs and feature tables of one size"
        )
    if len(found) > 1 and example and not example.startswith("log_"):
        raise DataError(
            f"{folder}: expected one file like {example}, found {', '.join(path.name for path in found)}; "
            "keep one size of the data set in a folder"
        )
    return found


def _read(path: Path, numbers: tuple[str, ...]) -> pa.Table:
    table = read_table(path)
    for name in numbers:
        if name not in table.column_names:
            raise DataError(f"{path}: has no column {name}; its columns are {', '.join(table.column_names)}")
        if pa.types.is_string(table[name].type) or pa.types.is_large_string(table[name].type):
            table = as_number(table, name, pa.int64(), path=path, first_line=2)
        else:
            table = table.set_column(table.column_names.index(name), name, pc.cast(table[name], pa.int64()))
    return table
