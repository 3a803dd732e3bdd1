"""Logs on other file systems: what there is, and reading it by way of a copy on the worker's own disk."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pyarrow as pa

from pipelines.storage import download, matching
from recall.config.data import EventsConfig
from recall.core.errors import DataError
from recall.core.tables import is_uri
from recall.data.events import Piece, plan_pieces, read_events


def plan_log(events: EventsConfig, *, section: str = "data.events", click_key: str = "click") -> list[Piece]:
    """As `plan_pieces`, for URIs too: each file is then one piece, at whose columns only a worker looks.

    Raises:
      DataError: as `plan_pieces`; or no file matches, or Beam knows no such file system.
    """
    if not is_uri(events.path):
        return plan_pieces(events, section=section, click_key=click_key)
    if not (found := matching(events.path)):
        raise DataError(f"{section}.path: {events.path}: matches no file; expected one, or a glob like gs://logs/*.csv")
    return [Piece(uri) for uri in found]


def read_log(piece: Piece, events: EventsConfig, *, known_items: pa.StringArray | None) -> tuple[pa.Table, pa.Table]:
    """As `read_events`, for URIs too."""
    if not is_uri(piece.path):
        return read_events(piece, events, known_items=known_items)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / piece.path.rpartition("/")[2]  # its ending tells the format
        download(piece.path, copy)
        try:
            accepted, rejected = read_events(piece._replace(path=str(copy)), events, known_items=known_items)
        except DataError as error:
            raise DataError(str(error).replace(str(copy), piece.path)) from error
    at = rejected.column_names.index("file")
    return accepted, rejected.set_column(at, "file", pa.array([piece.path] * len(rejected), pa.string()))
