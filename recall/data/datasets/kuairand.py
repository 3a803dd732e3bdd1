"""Reads KuaiRand: short-video exposures with clicks, from the recommender of Kuaishou.

Published at https://kuairand.com (files: https://zenodo.org/records/10439422; the format:
https://github.com/chongminggao/KuaiRand) under CC BY-SA 4.0 in three sizes, Pure, 1K and 27K, of one layout. Cite: Gao
et al., "KuaiRand: An Unbiased Sequential Recommendation Dataset with Randomly Exposed Videos", CIKM 2022,
https://doi.org/10.1145/3511808.3557624.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from recall.core.errors import DataError
from recall.core.tables import read_header, read_table, table_format
from recall.data.datasets.files import Dataset, as_number, listing, require_columns, require_folder
from recall.data.datasets.streams import StreamedDataset, parquet_parts, whole

_ENDING = r"\.(csv|csv\.gz|parquet)$"
_LOG_COLUMNS = ("user_id", "video_id", "time_ms", "is_click")


def read_kuairand(folder: str | Path, *, random_exposures: bool = True) -> Dataset:
    """Read KuaiRand-Pure or -1K into memory; see `stream_kuairand`."""
    data = stream_kuairand(folder, random_exposures=random_exposures)
    return Dataset(events=whole(data.events), items=data.items, users=data.users)


def stream_kuairand(folder: str | Path, *, random_exposures: bool = True) -> StreamedDataset:
    """Read KuaiRand-Pure, -1K or -27K, the log in parts: 27K has over 300 million exposures.

    The published names are log_standard_4_08_to_4_21_SIZE.csv, log_standard_4_22_to_5_08_SIZE.csv,
    log_random_4_22_to_5_08_SIZE.csv (the standard ones of 27K in _part1, _part2), video_features_basic_SIZE.csv and
    user_features_SIZE.csv; gzipped CSV and Parquet of the same names are read too. The video statistics are left
    alone: they sum over the whole period, so that an example would see its own future.

    Args:
      folder: the unpacked folder, or the one above its `data` folder.
      random_exposures: whether to read also the log of videos that replaced recommended ones at random.

    Returns:
      events: the logs one after the other, in the published order and with all published columns; user_id,
        video_id, time_ms (Unix ms) and is_click (0 or 1) are int64. Exact duplicates stay as published.
      items: video_id int64, author_id, video_type, ..., tag, as the published strings; 32 million rows of 27K need
        some 10 GB of memory.
      users: user_id int64 and the profile, as the published strings.

    Raises:
      DataError: a file is missing, or a column, or (while the log is read) a value of the log's four columns is not a
        whole number.
    """
    folder = require_folder(folder)
    if not any(folder.glob("log_*")) and (folder / "data").is_dir():
        folder = folder / "data"
    logs = _matching(folder, r"log_standard_.*" + _ENDING, example="log_standard_4_22_to_5_08_pure.csv")
    if random_exposures:
        logs += _matching(folder, r"log_random_.*" + _ENDING)
    [videos] = _matching(folder, r"video_features_basic_[^_]+" + _ENDING, example="video_features_basic_pure.csv")
    [users] = _matching(folder, r"user_features_[^_]+" + _ENDING, example="user_features_pure.csv")
    schema = _schema_of(logs)

    def events() -> Iterator[pa.Table]:
        for path in logs:
            yield from _log_parts(path, schema)

    return StreamedDataset(events=events, items=_read(videos, "video_id"), users=_read(users, "user_id"))


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


def _schema_of(logs: list[Path]) -> pa.Schema:
    """Return the columns of all logs; a column whose type differs among them is text."""
    kinds = dict[str, pa.DataType]()
    for path in logs:
        if table_format(path) == "parquet":
            found = {field.name: field.type for field in pq.read_schema(path)}
        else:
            found = dict.fromkeys(read_header(path), pa.string())
        require_columns(path, list(found), _LOG_COLUMNS)
        for name, kind in found.items():
            kinds[name] = kind if kinds.get(name, kind) == kind else pa.string()
    return pa.schema([(name, pa.int64() if name in _LOG_COLUMNS else kind) for name, kind in kinds.items()])


def _log_parts(path: Path, schema: pa.Schema) -> Iterator[pa.Table]:
    rows = 0
    for part in _raw_parts(path):
        table = _with_numbers(part, _LOG_COLUMNS, path=path, first_line=rows + 2)
        rows += len(part)
        columns = [
            table[field.name].cast(field.type) if field.name in table.column_names else pa.nulls(len(table), field.type)
            for field in schema
        ]
        yield pa.table(columns, schema=schema)


def _raw_parts(path: Path) -> Iterator[pa.Table]:
    names = read_header(path)
    if table_format(path) == "parquet":
        yield from parquet_parts(path, names)
        return
    text = pa_csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=[""]
    )
    try:
        with pa.input_stream(path, compression="detect") as stream:
            reader = pa_csv.open_csv(stream, read_options=pa_csv.ReadOptions(block_size=1 << 26), convert_options=text)
            for batch in reader:
                yield pa.Table.from_batches([batch])
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{path}: cannot be read as csv ({' '.join(str(error).split())}); unpack it once more"
        ) from error


def _read(path: Path, number: str) -> pa.Table:
    table = read_table(path)
    require_columns(path, table.column_names, (number,))
    return _with_numbers(table, (number,), path=path, first_line=2)


def _with_numbers(table: pa.Table, names: tuple[str, ...], *, path: Path, first_line: int) -> pa.Table:
    for name in names:
        if pa.types.is_string(table[name].type) or pa.types.is_large_string(table[name].type):
            table = as_number(table, name, pa.int64(), path=path, first_line=first_line)
        else:
            table = table.set_column(table.column_names.index(name), name, pc.cast(table[name], pa.int64()))
    return table
