"""Reads MovieLens: film ratings.

Published by GroupLens at https://grouplens.org/datasets/movielens/ for research use; no redistribution, no
commercial use without permission (see the README of each). Cite: Harper and Konstan, "The MovieLens Datasets:
History and Context", ACM TiiS 5(4), 2015, https://doi.org/10.1145/2827872.

The data sets know no exposures. The usual treatment: a rating is an exposure and a high rating a click
(`click: {column: rating, at_least: 4}`), which is why the rating itself is kept.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recall.core.errors import DataError
from recall.data.datasets.files import Dataset, as_number, listing, read_delimited, require_file, require_folder

# In the order of the flags in u.item.
_GENRES_100K = (
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)
_RATING = ("user_id", "item_id", "rating", "timestamp")
_NO_GENRE = "(no genres listed)"


def read_movielens(folder: str | Path, *, tags: bool = False) -> Dataset:
    """Read MovieLens 100k, 1m, or the CSV layout of 25m, 32m and the small "latest".

    Which one it is is seen from the files: u.data, u.item and u.user; ratings.dat, movies.dat and users.dat; or
    ratings.csv and movies.csv.

    Args:
      folder: the unpacked folder.
      tags: CSV layout only: also read tags.csv, the words that users attached to films. They carry no time in the
        result, although they were written while the ratings were: an example of 1996 sees a word of 2019.

    Returns:
      events: user_id int64, item_id int64, rating float32, timestamp int64 (Unix s).
      items: item_id int64, title, year int32 (from the title; null where it has none), genres joined by `|`;
        with 100k also release_date; with `tags` also tags, list<string>, the most frequent first.
      users: 100k: user_id, age int32, gender, occupation, zip_code. 1m: the same, where age is the lower end of
        one of seven ranges (1 means under 18) and occupation a code of its README. None for the CSV layout.

    Raises:
      DataError: a file is missing, a line has another number of values, a value is no number.
    """
    folder = require_folder(folder)
    if (folder / "u.data").exists():
        return _read_100k(folder)
    if (folder / "ratings.dat").exists():
        return _read_1m(folder)
    if (folder / "ratings.csv").exists():
        return _read_csv(folder, tags=tags)
    raise DataError(
        f"{folder}: expected u.data (100k), ratings.dat (1m) or ratings.csv (25m, 32m) of MovieLens; "
        f"found {listing(folder)}. Give the folder as unpacked"
    )


def _read_100k(folder: Path) -> Dataset:
    path = require_file(folder, "u.item", of="MovieLens 100k")
    films = ("item_id", "title", "release_date", "video_release_date", "url")
    table = read_delimited(path, (*films, *_GENRES_100K), delimiter="|", encoding="latin-1")
    table = as_number(table, "item_id", pa.int64(), path=path)
    items = table.select(["item_id", "title"]).append_column("year", _years(table["title"]))
    items = items.append_column("release_date", table["release_date"]).append_column("genres", _flagged_genres(table))
    path = require_file(folder, "u.user", of="MovieLens 100k")
    users = read_delimited(path, ("user_id", "age", "gender", "occupation", "zip_code"), delimiter="|")
    users = as_number(as_number(users, "user_id", pa.int64(), path=path), "age", pa.int32(), path=path)
    return Dataset(events=_ratings(folder / "u.data", delimiter="\t"), items=items, users=users)


def _read_1m(folder: Path) -> Dataset:
    path = require_file(folder, "movies.dat", of="MovieLens 1m")
    films = read_delimited(path, ("item_id", "title", "genres"), delimiter="::", encoding="latin-1")
    items = _films(as_number(films, "item_id", pa.int64(), path=path))
    path = require_file(folder, "users.dat", of="MovieLens 1m")
    users = read_delimited(path, ("user_id", "gender", "age", "occupation", "zip_code"), delimiter="::")
    users = as_number(as_number(users, "user_id", pa.int64(), path=path), "age", pa.int32(), path=path)
    users = users.select(["user_id", "age", "gender", "occupation", "zip_code"])
    return Dataset(events=_ratings(folder / "ratings.dat", delimiter="::"), items=items, users=users)


def _read_csv(folder: Path, *, tags: bool) -> Dataset:
    path = require_file(folder, "movies.csv", of="MovieLens 25m or 32m")
    films = read_delimited(path, ("movieId", "title", "genres"), delimiter=",", header=True, quoted=True)
    films = as_number(films, "movieId", pa.int64(), path=path, first_line=2)
    items = _films(films.rename_columns(["item_id", "title", "genres"]))
    if tags:
        path = require_file(folder, "tags.csv", of="MovieLens 25m or 32m")
        items = items.append_column("tags", _tags_of(items["item_id"], path))
    published = ("userId", "movieId", "rating", "timestamp")
    return Dataset(events=_ratings(folder / "ratings.csv", delimiter=",", header=published), items=items)


def _ratings(path: Path, *, delimiter: str, header: tuple[str, ...] | None = None) -> pa.Table:
    table = read_delimited(path, header or _RATING, delimiter=delimiter, header=header is not None)
    table = table.rename_columns(list(_RATING))
    kinds = {"user_id": pa.int64(), "item_id": pa.int64(), "rating": pa.float32(), "timestamp": pa.int64()}
    for name, kind in kinds.items():
        table = as_number(table, name, kind, path=path, first_line=2 if header else 1)
    return table


def _films(table: pa.Table) -> pa.Table:
    """Select item_id, title, year and genres, where films without a genre have null."""
    genres = table["genres"]
    genres = pc.if_else(pc.equal(genres, _NO_GENRE), pa.scalar(None, pa.string()), genres)
    items = table.select(["item_id", "title"]).append_column("year", _years(table["title"]))
    return items.append_column("genres", genres)


def _years(titles: pa.ChunkedArray) -> pa.ChunkedArray:
    """Read the year at the end of titles like `Heat (1995)`; int32, null where there is none."""
    return pc.cast(pc.struct_field(pc.extract_regex(titles, r"\((?P<year>\d{4})\)\s*$"), "year"), pa.int32())


def _flagged_genres(table: pa.Table) -> pa.Array:
    """Join the names of the genres whose flag is 1; null for films without any, or `unknown` alone."""
    flags = np.stack([pc.equal(table[name], "1").fill_null(False).to_numpy() for name in _GENRES_100K[1:]], axis=1)
    names = np.array(_GENRES_100K[1:])
    return pa.array(["|".join(names[row]) or None for row in flags], pa.string())


def _tags_of(items: pa.ChunkedArray, path: Path) -> pa.Array:
    """List distinct lower-case tags of each item, the most frequent first, then by name."""
    table = read_delimited(
        path, ("userId", "movieId", "tag", "timestamp"), delimiter=",", header=True, quoted=True
    ).select(["movieId", "tag"])
    table = as_number(table, "movieId", pa.int64(), path=path, first_line=2)
    table = table.set_column(1, "tag", pc.utf8_lower(pc.utf8_trim_whitespace(table["tag"])))
    counts = table.filter(pc.is_valid(table["tag"])).group_by(["movieId", "tag"]).aggregate([([], "count_all")])
    counts = counts.sort_by([("movieId", "ascending"), ("count_all", "descending"), ("tag", "ascending")])
    tags: dict[int, list[str]] = {}
    for item, tag in zip(counts["movieId"].to_pylist(), counts["tag"].to_pylist(), strict=True):
        tags.setdefault(item, []).append(tag)
    return pa.array([tags.get(item) for item in items.to_pylist()], pa.list_(pa.string()))
