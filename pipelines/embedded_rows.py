"""Joins the workers' batches with the catalogue: a vector or a reason for every row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.embedding import FAILED_SCHEMA
from pipelines.exchange import Scratch
from recall.content.encode.embedded import Embedded, hash_array, is_among, line_up, write_parts
from recall.core.errors import DataError

REJECTED_SCHEMA = pa.schema(
    [("row", pa.int64())] + [(name, pa.string()) for name in ("item_id", "modality", "reason", "content")]
)
_REASONS_SHOWN = 3


@dataclass(frozen=True)
class Written:
    """Hold the counts and the rejected items of one modality.

    Attributes:
      rejected: `REJECTED_SCHEMA`, items whose content has no vector; row counts from 0.
      counts: numbers of items: embedded now, reused, missing (without content), failed by reason; and encoded, the
        number of distinct contents of the items embedded now.
    """

    rejected: pa.Table
    counts: dict[str, Any]


def write_modality(
    folder: Path,
    name: str,
    rows: pa.Table,
    known: npt.NDArray[np.bytes_],
    embedded: Embedded,
    scratch: Scratch,
    *,
    dim: int,
) -> Written:
    """Write the `.npy` and the Parquet parts of one modality.

    Args:
      folder: folder to write to.
      name: name of the modality.
      rows: the catalogue's content, with `item_id` and a column called as the modality.
      known: sorted hashes of content that had a vector before.
      embedded: all vectors, old and new.
      scratch: holds hash or reason of every row, from the workers.
      dim: length of the vectors.

    Raises:
      DataError: no item has a vector, or vectors from the workers are missing.
    """
    hashed = pa.concat_tables(scratch.read_all(f"hashed.{name}"))
    hashes = hash_array(hashed["content_hash"].fill_null(""))  # [items]
    vectors, present = line_up(folder / f"{name}.npy", hashes, embedded, dim=dim)
    reasons = _reasons(hashed, scratch.read_all(f"failed.{name}"))
    refused = np.array([reason is not None for reason in reasons])
    without = (hashes == b"") & ~refused
    failed = Counter(reason for reason in reasons if reason)
    if lost := int((~present & ~refused & ~without).sum()):
        raise DataError(
            f"{name}: the vectors of {lost:,} items did not arrive beside {folder.parent}; give an --out in a folder "
            "that all workers reach"
        )
    if not present.any():
        why = [f"{int(without.sum()):,} without content"]
        why += [f"{number:,} {reason}" for reason, number in failed.most_common(_REASONS_SHOWN)]
        remedy = "" if name == "text" else " and at --image-root, which its paths are relative to"
        raise DataError(
            f"{name}: none of {len(rows):,} items got a vector ({', '.join(why)}); look at the column{remedy}"
        )
    write_parts(folder / name, rows["item_id"].combine_chunks(), hashes, vectors, present)
    reused = present & is_among(hashes, known)
    chosen = pa.array(refused)
    rejected = {
        "row": np.flatnonzero(refused),
        "item_id": rows["item_id"].filter(chosen),
        "modality": pa.array([name] * int(refused.sum()), pa.string()),
        "reason": pa.array([reason for reason in reasons if reason], pa.string()),
        "content": rows[name].filter(chosen),
    }
    counts = {
        "embedded": int((present & ~reused).sum()),
        "reused": int(reused.sum()),
        "missing": int(without.sum()),
        "failed": dict(failed.most_common()),
        "encoded": len(np.unique(hashes[present & ~reused])),
    }
    return Written(pa.table(rejected, schema=REJECTED_SCHEMA), counts)


def _reasons(hashed: pa.Table, failed: Sequence[pa.Table]) -> list[str | None]:
    """List why an item has no vector although it has content; None where it has both or neither, [items]."""
    table = pa.concat_tables([FAILED_SCHEMA.empty_table(), *failed])
    by_hash = dict(zip(table["content_hash"].to_pylist(), table["reason"].to_pylist(), strict=True))
    pairs = zip(hashed["reason"].to_pylist(), hashed["content_hash"].to_pylist(), strict=True)
    return [reason or by_hash.get(content) for reason, content in pairs]
