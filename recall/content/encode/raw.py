"""Reads the texts and the image files of a catalogue, hashes them, and rejects the unusable ones with a reason."""

from __future__ import annotations

import functools
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from recall.content.encode.encoders import require_extra
from recall.core.canonical import texts
from recall.core.errors import ConfigError, DataError
from recall.core.tables import read_table
from recall.data.column_reader import ColumnReader, unique_ids

if TYPE_CHECKING:
    from PIL.Image import Image

BETWEEN_TEXTS = ". "
# Image models look at 224 to 512 pixels; a batch of photographs in full size would fill the memory.
_LONGEST_SIDE = 1024


class UnusableContentError(Exception):
    """Report that one item's content cannot be encoded; the message is the reason, equal for equal failures."""


@dataclass(frozen=True, kw_only=True)
class RawContent:
    """Locate the content of a catalogue.

    Attributes:
      items: the items file.
      id: its column of item ids.
      text: columns whose texts are joined, in this order.
      image: column of image files; paths are absolute or relative to `image_root`.
      image_root: default: the folder of the items file.
      format: of the items file; auto decides by the ending.
    """

    items: Path
    id: str
    text: tuple[str, ...] = ()
    image: str | None = None
    image_root: Path | None = None
    format: str = "auto"

    def __post_init__(self) -> None:
        if not (self.text or self.image):
            raise ConfigError("content: neither text nor image columns are given; expected at least one of them")

    @property
    def modalities(self) -> tuple[str, ...]:
        """List the kinds of content to encode."""
        return (*(["text"] if self.text else []), *(["image"] if self.image else []))

    @property
    def folder(self) -> Path:
        """Return the folder that image paths are relative to."""
        return (self.image_root or self.items.parent).resolve()


def read_raw_content(source: RawContent) -> pa.Table:
    """Read the content of every item.

    Returns:
      `item_id` and, as given, `text` (the columns' texts joined by ". ") and `image` (paths), string [items], in the
      order of the file; null where an item has none or nothing but blanks.

    Raises:
      DataError: the file is unreadable or empty, lacks a column, holds an id twice or a row without, or a column is
        neither text nor numbers.
    """
    wanted = [source.id, *source.text, *([source.image] if source.image else [])]
    table = read_table(source.items, format=source.format, columns=wanted)
    ids = unique_ids(table[source.id], reader=ColumnReader(source.items, source.format), key="id")
    columns: dict[str, pa.ChunkedArray | pa.Array] = {"item_id": ids}
    if source.text:
        texts = [_strings(table[name], f"{source.items}: column {name}") for name in source.text]
        columns["text"] = functools.reduce(_joined, texts)
    if source.image:
        columns["image"] = _strings(table[source.image], f"{source.items}: column {source.image}")
    return pa.table(columns)


def content_hash(content: bytes) -> str:
    """Compute the hash that identifies content: the first 128 bits of its SHA-256, 32 hex digits."""
    return hashlib.sha256(content).hexdigest()[:32]


def read_image_file(path: Path) -> bytes:
    """Read the bytes of an image file.

    Raises:
      UnusableContentError: there is no such file, or it cannot be read.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UnusableContentError("no such file") from None
    except (IsADirectoryError, NotADirectoryError):
        raise UnusableContentError("not a file") from None
    except (OSError, ValueError):  # ValueError: a path with a null character
        raise UnusableContentError("file cannot be read") from None
    if not content:
        raise UnusableContentError("empty file")
    return content


def decode_image(content: bytes) -> Image:
    """Decode an image as people see it: RGB, turned by its EXIF orientation, of an animation the first frame.

    It is shrunk to at most 1,024 pixels on its longer side, more than image models look at.

    Raises:
      UnusableContentError: the image is truncated, of an unknown format, or too large to be decoded in memory.
    """
    images, operations = require_extra("PIL.Image"), require_extra("PIL.ImageOps")
    try:
        with images.open(io.BytesIO(content)) as opened:
            opened.draft("RGB", (_LONGEST_SIDE, _LONGEST_SIDE))  # JPEG is decoded at a fraction of its size at once
            image: Image = operations.exif_transpose(opened).convert("RGB")
    except images.DecompressionBombError:
        raise UnusableContentError("image has too many pixels") from None
    except (OSError, SyntaxError, ValueError, EOFError):  # what Pillow raises on broken files depends on the format
        raise UnusableContentError("not an image that can be decoded") from None
    image.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    return image


def _joined(first: pa.ChunkedArray, second: pa.ChunkedArray) -> pa.ChunkedArray:
    """Join two texts where both exist, else keep the existing one."""
    # Not with null_handling="skip": in pyarrow 25 it leaves rows out in which all are null.
    return pc.coalesce(pc.binary_join_element_wise(first, second, BETWEEN_TEXTS), first, second)


def _strings(column: pa.ChunkedArray, what: str) -> pa.ChunkedArray:
    """Convert a column to stripped text, null where blank."""
    if pa.types.is_nested(column.type):
        raise DataError(f"{what} holds values of type {column.type}; expected one text per row")
    # Chunk by chunk: the texts of a catalogue may exceed the 2 GB of one Arrow string array.
    return pa.chunked_array([texts(chunk) for chunk in column.chunks], pa.string())
