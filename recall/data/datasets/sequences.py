"""Reads one sequence of items a user: the next-item benchmarks of S3-Rec (Amazon, Yelp, LastFM).

Published at https://github.com/RUCAIBox/CIKM2020-S3Rec (folder data), for research; the terms are those of the
sources, for three of them the Amazon reviews at https://jmcauley.ucsd.edu/data/amazon/. Cite: Zhou et al., "S3-Rec:
Self-Supervised Learning for Sequential Recommendation with Mutual Information Maximization", CIKM 2020,
https://doi.org/10.1145/3340531.3411954; for Amazon also McAuley et al., SIGIR 2015.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa

from recall.core.errors import DataError
from recall.data.datasets.files import Dataset, listing, require_file, require_folder


def read_sequences(folder: str | Path, *, name: str | None = None) -> Dataset:
    """Read NAME.txt and NAME_item2attributes.json, or sequences.txt and item_attributes.json.

    A line of the first is `user item item ...` in order of time; the second maps items to lists of attribute ids
    (brand and categories). There are no exposures and no times: the order is all that is known of the time
    (`time: position, time_unit: order`), and every row is a click.

    Args:
      folder: folder of both files.
      name: name of the data set, e.g. Beauty; not needed if the folder holds one.

    Returns:
      events: user_id, item_id, position int64 (0-based place in the user's sequence).
      items: item_id and attributes, list<string>; first those with attributes as they are listed, then those that
        only the sequences know, whose attributes are null.
      users: None.

    Raises:
      DataError: a file is missing or there are several to choose from, a line has no item, a user has two lines, the
        JSON is no mapping of lists.
    """
    sequences, attributes = _find(require_folder(folder), name)
    events = _read_lines(sequences)
    tags = _read_attributes(attributes)
    for item in events["item_id"].unique().to_pylist():
        tags.setdefault(item, None)
    items = pa.table({"item_id": list(tags), "attributes": pa.array(tags.values(), pa.list_(pa.string()))})
    return Dataset(events=events, items=items)


def _find(folder: Path, name: str | None) -> tuple[Path, Path]:
    ending = "_item2attributes.json"
    if name is None:
        if (folder / "sequences.txt").is_file():
            of = "a data set of sequences"
            return folder / "sequences.txt", require_file(folder, "item_attributes.json", of=of)
        names = sorted(path.name.removesuffix(ending) for path in folder.glob(f"*{ending}"))
        if len(names) != 1:
            found = f"the data sets {', '.join(names)}; choose one with `name`" if names else listing(folder)
            raise DataError(
                f"{folder}: expected NAME.txt and NAME{ending}, or sequences.txt and item_attributes.json; "
                f"found {found}"
            )
        name = names[0]
    of = "the S3-Rec data sets"
    return require_file(folder, f"{name}.txt", of=of), require_file(folder, f"{name}{ending}", of=of)


def _read_lines(path: Path) -> pa.Table:
    try:
        lines = [line.split() for line in path.read_text(encoding="utf8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); expected lines of `user item item ...`") from error
    first_line: dict[str, int] = {}
    for number, words in enumerate(lines, start=1):
        if len(words) < 2:
            raise DataError(f"{path}, line {number}: expected `user item item ...`, found {' '.join(words)!r}")
        if words[0] in first_line:
            raise DataError(
                f"{path}, line {number}: user {words[0]} has line {first_line[words[0]]} already; expected one each"
            )
        first_line[words[0]] = number
    if not lines:
        raise DataError(f"{path}: is empty; expected lines of `user item item ...`")
    lengths = np.array([len(words) - 1 for words in lines])
    positions = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return pa.table(
        {
            "user_id": pa.array([words[0] for words in lines]).take(
                pa.array(np.repeat(np.arange(len(lines)), lengths))
            ),
            "item_id": pa.array([item for words in lines for item in words[1:]], pa.string()),
            "position": pa.array(positions, pa.int64()),
        }
    )


def _read_attributes(path: Path) -> dict[str, list[str] | None]:
    try:
        content = json.loads(path.read_text(encoding="utf8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); expected JSON like {{'4': [1, 2, 3]}}") from error
    if not isinstance(content, dict) or not all(isinstance(values, list) for values in content.values()):
        raise DataError(f"{path}: expected a mapping of items to lists of attributes, like {{'4': [1, 2, 3]}}")
    return {item: [str(value) for value in values] for item, values in content.items()}
