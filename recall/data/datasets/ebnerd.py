"""Reads EB-NeRD: news impressions with clicks, from Ekstra Bladet.

Published at https://recsys.eb.dk (its code: https://github.com/ebanalyse/ebnerd-benchmark) for research use, under
terms that are accepted at the download, as bundles demo, small and large. Cite: Kruse et al., "EB-NeRD: A Large-Scale
Dataset for News Recommendation", RecSys Challenge 2024, https://arxiv.org/abs/2410.03432.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recall.core.arrays import Int64s
from recall.data.datasets.files import require_columns, require_file, require_folder
from recall.data.datasets.streams import StreamedDataset, parquet_parts

_BEHAVIORS = (
    "impression_id", "session_id", "user_id", "impression_time", "device_type", "article_ids_inview",
    "article_ids_clicked", "next_read_time",
)  # fmt: skip
_PROFILE = ("is_subscriber", "gender", "postcode", "age")
_ARTICLE = ("title", "subtitle", "category_str", "subcategory", "premium", "article_type", "ner_clusters", "topics",
            "sentiment_label")  # fmt: skip
_HISTORY = ("user_id", "article_id_fixed", "impression_time_fixed")
_VECTORS = "contrastive_vector.parquet"
_MISSED = "clicked articles that were not in view"


def read_ebnerd(folder: str | Path) -> StreamedDataset:
    """Read EB-NeRD: one bundle, with its train and validation parts.

    Not taken of the articles: total_inviews, total_pageviews and total_read_time, which sum over the seven days after
    publication, and last_modified_time, so that an example would see its own future; the bodies, URLs and images. Of
    the impressions: read times and scroll depths of the page on which they were shown. The hidden test set has no
    clicks.

    Args:
      folder: the bundle with articles.parquet, train/behaviors.parquet and history.parquet, and the same in validation/
        (one of both is enough). contrastive_vector.parquet, which is published by itself, is found in the folder or in
        folders below; without it there are no vectors.

    Returns:
      events: one row per article in view of an impression: user_id, article_id int64, time_ms int64 (Unix ms; the
        source names no time zone, read as UTC), click int8, impression_id, session_id, device_type, next_read_time (s
        that a clicked article was read, null for others).
      items: article_id int64, published_ms int64, title, subtitle, category_str, subcategory (a list), premium,
        article_type, ner_clusters and topics (lists), sentiment_label, contrastive_vector list<float>.
      users: user_id int64, is_subscriber, gender, postcode, age, as of the user's first impression; most are null.
      extras["history"]: user_id, article_id, time_ms: clicks of the weeks before each part, without what was shown
        beside them. The history of the validation part adds what comes after the user's history of the train part.
      dropped: clicks on articles that were not in view, which are counted while the log is read.

    Raises:
      DataError: a file or a column is missing.
    """
    folder = require_folder(folder)
    articles = require_file(folder, "articles.parquet", of="EB-NeRD")
    parts = [folder / name for name in ("train", "validation") if (folder / name / "behaviors.parquet").is_file()]
    if not parts:
        require_file(folder / "train" if (folder / "train").is_dir() else folder, "behaviors.parquet", of="EB-NeRD")
    logs = [part / "behaviors.parquet" for part in parts]
    histories = [require_file(part, "history.parquet", of="EB-NeRD") for part in parts]
    for paths, wanted in ((logs, (*_BEHAVIORS, *_PROFILE)), (histories, _HISTORY)):
        for path in paths:
            require_columns(path, pq.read_schema(path).names, wanted)
    dropped: dict[str, int] = {}

    def events() -> Iterator[pa.Table]:
        dropped[_MISSED] = 0
        for log in logs:
            for part in parquet_parts(log, list(_BEHAVIORS)):
                shown, missed = _shown(part.combine_chunks())
                dropped[_MISSED] += missed
                yield shown

    return StreamedDataset(
        events=events,
        items=_articles(articles, next(iter(sorted(folder.rglob(_VECTORS))), None)),
        users=_users(logs),
        extras={"history": lambda: _clicks_before(histories)},
        dropped=dropped,
    )


def _shown(part: pa.Table) -> tuple[pa.Table, int]:
    """Make one row per article in view, and count the clicks on others."""
    row, shown = _exploded(part["article_ids_inview"])
    clicked_row, clicked = _exploded(part["article_ids_clicked"])
    # One number for a row of the part and an article: ids of articles have eight digits.
    pairs, clicked_pairs = ((rows << 32) | articles for rows, articles in ((row, shown), (clicked_row, clicked)))
    click = np.isin(pairs, clicked_pairs)
    taken = pa.array(row)
    read = part["next_read_time"].take(taken).combine_chunks()
    columns = {
        "user_id": part["user_id"].cast(pa.int64()).take(taken),
        "article_id": pa.array(shown),
        "time_ms": _unix_ms(part["impression_time"]).take(taken),
        "click": pa.array(click.astype(np.int8)),
        "impression_id": part["impression_id"].take(taken),
        "session_id": part["session_id"].take(taken),
        "device_type": part["device_type"].take(taken),
        "next_read_time": pc.if_else(pa.array(click), read, pa.scalar(None, read.type)),
    }
    return pa.table(columns), int((~np.isin(clicked_pairs, pairs)).sum())


def _exploded(column: pa.ChunkedArray) -> tuple[Int64s, Int64s]:
    """Return the row of each entry of a column of lists, and the entries, int64."""
    lists = column.combine_chunks()
    lists = lists.chunk(0) if isinstance(lists, pa.ChunkedArray) and lists.num_chunks == 1 else lists
    return pc.list_parent_indices(lists).to_numpy().astype(np.int64), pc.list_flatten(lists).cast(pa.int64()).to_numpy()


def _unix_ms(column: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    return column.cast(pa.timestamp("ms"), safe=False).cast(pa.int64())


def _articles(path: Path, vectors: Path | None) -> pa.Table:
    names = pq.read_schema(path).names
    require_columns(path, names, ("article_id", "published_time", *_ARTICLE))
    table = pq.read_table(path, columns=["article_id", "published_time", *_ARTICLE])
    ids = table["article_id"].cast(pa.int64()).combine_chunks()
    columns = {"article_id": ids, "published_ms": _unix_ms(table["published_time"])}
    columns |= {name: table[name] for name in _ARTICLE}
    kind = pa.list_(pa.float32())
    found = pa.nulls(len(ids), kind)
    if vectors is not None:
        require_columns(vectors, pq.read_schema(vectors).names, ("article_id", "contrastive_vector"))
        given = pq.read_table(vectors, columns=["article_id", "contrastive_vector"])
        rows = pc.index_in(ids, value_set=given["article_id"].cast(pa.int64()).combine_chunks())
        found = given["contrastive_vector"].combine_chunks().cast(kind).take(rows)
    return pa.table(columns | {"contrastive_vector": found})


def _users(logs: list[Path]) -> pa.Table:
    """Take the profile of each user's first impression, by user."""
    rows = pa.concat_tables([pq.read_table(log, columns=["user_id", "impression_time", *_PROFILE]) for log in logs])
    user, time = rows["user_id"].cast(pa.int64()).to_numpy(), _unix_ms(rows["impression_time"]).to_numpy()
    order = np.lexsort((time, user))
    first = order[np.append(True, user[order][1:] != user[order][:-1])] if len(order) else order
    taken = rows.take(pa.array(first))
    return pa.table({"user_id": taken["user_id"].cast(pa.int64())} | {name: taken[name] for name in _PROFILE})


def _clicks_before(histories: list[Path]) -> Iterator[pa.Table]:
    """Yield the clicks of the histories; of a user's second history what comes after the end of the first."""
    users, ends = np.zeros(0, np.int64), np.zeros(0, np.int64)
    for path in histories:
        found = [(users, ends)]
        for part in parquet_parts(path, list(_HISTORY)):
            row, article = _exploded(part["article_id_fixed"])
            _, time_ms = _exploded(_lists_of_ms(part["impression_time_fixed"]))
            user = part["user_id"].cast(pa.int64()).to_numpy()[row]
            place = np.minimum(np.searchsorted(users, user), max(len(users) - 1, 0))
            told = (users[place] == user) & (time_ms <= ends[place]) if len(users) else np.zeros(len(user), bool)
            columns = {"user_id": user, "article_id": article, "time_ms": time_ms}
            yield pa.table({name: pa.array(values[~told]) for name, values in columns.items()})
            found.append(_last_of_each(user, time_ms))
        users, ends = _last_of_each(*(np.concatenate(values) for values in zip(*found, strict=True)))


def _last_of_each(user: Int64s, time_ms: Int64s) -> tuple[Int64s, Int64s]:
    """Return the distinct users, rising, and the last time of each."""
    order = np.lexsort((time_ms, user))
    user, time_ms = user[order], time_ms[order]
    last = np.append(user[1:] != user[:-1], True)[: len(user)]
    return user[last], time_ms[last]


def _lists_of_ms(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.list_(pa.timestamp("ms")), safe=False).cast(pa.list_(pa.int64()))
