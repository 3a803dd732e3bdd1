"""DIR/data, what `recall prepare` publishes: the one writer and the one reader of its files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recall.core.arrays import Int64s
from recall.core.artifacts import read_manifest, require_checksum
from recall.core.errors import ArtifactError
from recall.core.parquet import write_parts
from recall.core.ragged import Ragged
from recall.data.content_prior.item_priors import ItemPriors
from recall.data.content_prior.linear_ctr import ContentCtr
from recall.data.content_prior.prior import ContentPrior
from recall.data.features.table_encoder import TableEncoder
from recall.data.features.vocabulary import Vocabulary
from recall.data.posterior import BUCKET_SCHEMA, Posterior, PosteriorHistory, Prior
from recall.data.splits import SPLITS

FORMAT_VERSION = 1
Moment = Literal["serving", "validation", "test"]

_MADE_BY = "recall prepare"
_SHARD = ".tfrecord"
_ITEM_ID, _USER_ID, _TITLE = "item_id", "user_id", "title"
_FEATURE = "feature."  # in front of encoded columns: a feature, too, may be called item_id
_ATTRIBUTE, _ATTRIBUTES = "attribute.", "attributes.parquet"
_VOCABULARIES = "vocabularies"
_HISTORIES = "histories"  # further ones
_CONTENT_PRIOR, _ITEM_PRIORS = "content_prior", "item_priors.parquet"
_POSTERIOR_FILES: dict[str, str] = {
    "serving": "posterior.parquet",
    "validation": "posterior_validation.parquet",
    "test": "posterior_test.parquet",
}


class EncodedRows(NamedTuple):
    """Items or users as the towers read them.

    Attributes:
      ids: string [rows].
      table: encoded columns.
      encoder: what encoded them.
      titles: string [rows] for people, where the catalogue has some.
      attributes: of items, the columns that filters and caps of what is served may name; see `item_attributes.py`.
    """

    ids: pa.StringArray
    table: pa.Table
    encoder: TableEncoder
    titles: pa.Array | None = None
    attributes: pa.Table | None = None


def shard_path(directory: Path, split: int, *, shard: int, shards: int) -> Path:
    """Place of a TFRecord shard, e.g. train-00000-of-00004.tfrecord."""
    return directory / f"{SPLITS[split]}-{shard:05d}-of-{shards:05d}{_SHARD}"


def write_tables(
    directory: Path,
    *,
    items: EncodedRows,
    users: EncodedRows,
    history: Iterable[pa.Table],
    snapshots: dict[str, Posterior],
    sampling_counts: Int64s,
    histories: pa.Table,
    further_histories: Mapping[str, pa.Table],
    history_vocabularies: Mapping[str, Vocabulary],
    rejected: pa.Table,
    content_prior: ContentPrior | None = None,
) -> None:
    """Writes all but shards and manifest into a directory that exists; `history` comes in parts, by item and bucket."""
    item_columns: dict[str, Any] = {_ITEM_ID: items.ids}
    if items.titles is not None:
        item_columns[_TITLE] = items.titles
    _write(directory / "items.parquet", item_columns | _columns(items.table))
    if items.attributes is not None:
        named = {_ATTRIBUTE + name: items.attributes[name] for name in items.attributes.column_names}
        _write(directory / _ATTRIBUTES, {_ITEM_ID: items.ids} | named)
    _write(directory / "users.parquet", {_USER_ID: users.ids} | _columns(users.table))
    items.encoder.save(directory / _VOCABULARIES / "item")
    users.encoder.save(directory / _VOCABULARIES / "user")
    for name, posterior in snapshots.items():
        _write(directory / _POSTERIOR_FILES[name], {"item_id": items.ids, **posterior._asdict()})
    write_parts(directory / "posterior_buckets.parquet", history, BUCKET_SCHEMA)
    _write(directory / "sampling.parquet", {"item_id": items.ids, "count": sampling_counts})
    pq.write_table(histories, directory / "histories.parquet")
    if further_histories:
        (directory / _HISTORIES).mkdir()
    for name, table in further_histories.items():
        pq.write_table(table, directory / _HISTORIES / f"{name}.parquet")
    for name, vocabulary in history_vocabularies.items():
        vocabulary.save(directory / _history_vocabulary(name))
    pq.write_table(rejected, directory / "rejected.parquet")
    if content_prior and content_prior.items and content_prior.serving:
        pq.write_table(content_prior.items.table(), directory / _ITEM_PRIORS)
        content_prior.serving.save(directory / _CONTENT_PRIOR)


class ServingHistories:
    """What users had clicked when the log ended, as item rows; empty for users without a click.

    Further histories likewise, as item rows or codes of their own vocabulary; of these nothing is `seen`.
    """

    def __init__(self, table: pa.Table) -> None:
        self._position = {user: position for position, user in enumerate(table["user_id"].to_pylist())}
        # As NumPy has them: Arrow takes 4 us for each list.
        lists = {name: _flat(table[name]) for name in table.column_names if name != "user_id"}
        self._values = {name: own.values.to_numpy() for name, own in lists.items()}
        self._offsets = {name: own.offsets.to_numpy().astype(np.int64) for name, own in lists.items()}

    def recent(self, user: str) -> Int64s:
        """The last `data.history` clicked items, oldest first."""
        return self._of(user, "recent")

    def recent_times_ms(self, user: str) -> Int64s | None:
        """When each of `recent` was clicked, in Unix milliseconds; None if the data was prepared without it."""
        return self._of(user, "recent_time_ms") if "recent_time_ms" in self._values else None

    def seen(self, user: str) -> Int64s:
        """All clicked items, each once, sorted."""
        return self._of(user, "seen")

    def recent_of(self, users: Sequence[str]) -> Ragged:
        """`recent` of several users."""
        return self._of_many(users, "recent")

    def recent_times_ms_of(self, users: Sequence[str]) -> Ragged | None:
        """`recent_times_ms` of several users."""
        return self._of_many(users, "recent_time_ms") if "recent_time_ms" in self._values else None

    def seen_of(self, users: Sequence[str]) -> Ragged:
        """`seen` of several users."""
        return self._of_many(users, "seen")

    def _of(self, user: str, name: str) -> Int64s:
        position = self._position.get(user)
        if position is None:
            return np.zeros(0, np.int64)
        offsets = self._offsets[name]
        return self._values[name][offsets[position] : offsets[position + 1]]

    def _of_many(self, users: Sequence[str], name: str) -> Ragged:
        if len(users) == 1:  # the usual case, in which a slice will do
            values = self._of(users[0], name)
            return Ragged(values, np.array([0, len(values)]))
        offsets = self._offsets[name]
        positions = np.array([self._position.get(user, -1) for user in users], np.int64)
        starts = offsets[positions]
        lengths = np.where(positions < 0, 0, offsets[positions + 1] - starts)
        places = Ragged.from_spans(starts, lengths)
        return Ragged(self._values[name][places.values], places.offsets)


@dataclass(frozen=True)
class PreparedData:
    """A published DIR/data; files are read when they are asked for, and checked then: see `load`.

    Attributes:
      directory: where it is.
      manifest: counts, split, posterior settings, schema of the examples, checksums.
    """

    directory: Path
    manifest: dict[str, Any]
    _checked: set[str] = field(default_factory=set, init=False, repr=False, compare=False)  # names of files

    @classmethod
    def load(cls, directory: str | Path, *, verify: bool | Literal["tables"] = False) -> PreparedData:
        """Opens what `recall prepare` published.

        Sizes are compared at once, a file's checksum before it is first read: whatever is read is what was written.

        Args:
          directory: DIR/data.
          verify: compare checksums now: of every file, or of `tables`, which are all but the shards of examples.

        Raises:
          ArtifactError: it is not there, damaged, or of another format version; what reads a file raises it, too.
        """
        directory = Path(directory)

        def is_now(name: str) -> bool:
            return verify is True or (verify == "tables" and not name.endswith(_SHARD))

        manifest = read_manifest(directory, made_by=_MADE_BY, verify=is_now)
        if (found := manifest.get("format_version")) != FORMAT_VERSION:
            raise ArtifactError(
                f"{directory}: has format version {found}, expected {FORMAT_VERSION}; run `recall prepare` again"
            )
        data = cls(directory, manifest)
        data._checked.update(filter(is_now, manifest["files"]))
        return data

    @cached_property
    def item_ids(self) -> pa.StringArray:
        """string [items]; the position of an item is its row."""
        return self._column("items.parquet", _ITEM_ID)

    @cached_property
    def user_ids(self) -> pa.StringArray:
        """string [users], aligned with `users`."""
        return self._column("users.parquet", _USER_ID)

    @cached_property
    def titles(self) -> pa.Array | None:
        """string [items], null where an item has none; None if the experiment names no title column."""
        if _TITLE not in pq.read_schema(self._file("items.parquet")).names:
            return None
        return self._column("items.parquet", _TITLE)

    @property
    def titles_by_id(self) -> dict[str, str]:
        """Titles of the items that have one."""
        if self.titles is None:
            return {}
        pairs = zip(self.item_ids.to_pylist(), self.titles.to_pylist(), strict=True)
        return {item: title for item, title in pairs if title is not None}

    @cached_property
    def items(self) -> pa.Table:
        """Encoded features of the items; see `item_encoder.columns`. Vectors are list<float32>, null where missing."""
        return self._encoded("items.parquet", self.item_encoder)

    @cached_property
    def attributes(self) -> pa.Table | None:
        """Columns of the items file by item, for filters and caps; None if the data was prepared without them."""
        if _ATTRIBUTES not in self.manifest["files"]:
            return None
        table = pq.read_table(self._file(_ATTRIBUTES)).drop_columns([_ITEM_ID])
        return table.rename_columns([name.removeprefix(_ATTRIBUTE) for name in table.column_names])

    @cached_property
    def users(self) -> pa.Table:
        """Encoded features of the users; see `user_encoder.columns`."""
        return self._encoded("users.parquet", self.user_encoder)

    @cached_property
    def item_encoder(self) -> TableEncoder:
        """Encodes raw rows of items, new ones too."""
        return TableEncoder.load(self._folder(f"{_VOCABULARIES}/item"))

    @cached_property
    def user_encoder(self) -> TableEncoder:
        """Encodes raw rows of users."""
        return TableEncoder.load(self._folder(f"{_VOCABULARIES}/user"))

    def users_with_unknown(self) -> pa.Table:
        """`users` and, after them, the row of an unknown user: the id out of vocabulary, everything else missing."""
        # No id holds NUL, so this one is in no vocabulary.
        unknown = self.user_encoder.encode(pa.table({self.user_id_name: ["\0"]}))
        return pa.concat_tables([self.users, unknown.cast(self.users.schema)])

    def rows(self, ids: Iterable[str] | pa.StringArray) -> Int64s:
        """Rows of items, -1 for ids that the catalogue lacks."""
        wanted = ids if isinstance(ids, pa.Array) else pa.array(list(ids), pa.string())
        return pc.index_in(wanted, value_set=self.item_ids).fill_null(-1).to_numpy().astype(np.int64)

    @property
    def item_id_feature(self) -> str | None:
        """The feature that is the item's own id, if the towers have it."""
        name: str | None = self.manifest["item_id_feature"]
        return name

    @property
    def user_id_name(self) -> str:
        """The raw column of user ids, for the user encoder."""
        return str(self.manifest["user_id_column"])

    @property
    def training_records(self) -> int:
        """Records in the training shards: clicks, or users in the layout `user`."""
        return int(self.manifest["counts"]["records"]["train"])

    @property
    def is_weighted(self) -> bool:
        """Whether clicks carry a weight (`data.events.weight`)."""
        return "weight" in self.manifest["examples"]["train"]

    def posterior(self, moment: Moment) -> Posterior:
        """Of every item: at serving all events are known, else what is known when the split begins."""
        table = pq.read_table(self._file(_POSTERIOR_FILES[moment]))
        return Posterior(*(table[name].to_numpy() for name in Posterior._fields))

    @cached_property
    def posterior_history(self) -> PosteriorHistory:
        """The posterior of every item at every moment."""
        settings = self.manifest["posterior"]
        items = ItemPriors.from_table(pq.read_table(self._file(_ITEM_PRIORS))) if self.has_content_prior else None
        return PosteriorHistory.from_table(
            pq.read_table(self._file("posterior_buckets.parquet")),
            bucket_ms=settings["bucket_ms"],
            delay_ms=settings["delay_ms"],
            prior=Prior(settings["prior_ctr"], settings["prior_strength"], items),
            clock=self.manifest["time_unit"] != "order",
        )

    @property
    def has_content_prior(self) -> bool:
        """Whether items start from priors of their own (`data.posterior.content_prior`)."""
        return _ITEM_PRIORS in self.manifest["files"]

    @cached_property
    def content_prior(self) -> ContentCtr | None:
        """Predicts the prior CTR of items that the catalogue lacks, as of the end of the log."""
        return ContentCtr.load(self._folder(_CONTENT_PRIOR)) if self.has_content_prior else None

    @cached_property
    def sampling_counts(self) -> Int64s:
        """Training examples per target item, int64 [items]."""
        return pq.read_table(self._file("sampling.parquet"), columns=["count"])["count"].to_numpy()

    @cached_property
    def clicks_by_item_code(self) -> Int64s | None:
        """Training clicks of each code of the item id's vocabulary, int64 [codes]; None without an item id feature."""
        name = self.item_id_feature
        if name is None:
            return None
        codes = np.asarray(self.items[name].combine_chunks())
        size = next(column.size for column in self.item_encoder.columns if column.name == name)
        return np.bincount(codes, weights=self.sampling_counts, minlength=size).astype(np.int64)

    @cached_property
    def histories(self) -> ServingHistories:
        """What every user of the log had clicked when it ended."""
        return ServingHistories(pq.read_table(self._file("histories.parquet")))

    @property
    def history_lengths(self) -> dict[str, int]:
        """Further histories by name: how many entries an example carries at most."""
        return {name: int(settings["length"]) for name, settings in self.manifest.get("histories", {}).items()}

    @cached_property
    def further_histories(self) -> dict[str, ServingHistories]:
        """Further histories by name, as they were when the log ended."""
        files = {name: self._file(f"{_HISTORIES}/{name}.parquet") for name in self.history_lengths}
        return {name: ServingHistories(pq.read_table(path)) for name, path in files.items()}

    @cached_property
    def history_vocabularies(self) -> dict[str, Vocabulary]:
        """Item ids of the further histories whose items are not the catalogue's."""
        named = self.manifest.get("histories", {}).items()
        own = [name for name, settings in named if settings["domain"] == "own"]
        return {name: Vocabulary.load(self._file(_history_vocabulary(name))) for name in own}

    def shards(self, split: str) -> list[Path]:
        """TFRecord files of `train`, `validation` or `test`."""
        shards = self.manifest["shards"]
        code = SPLITS.index(split)
        paths = [shard_path(self.directory, code, shard=shard, shards=shards) for shard in range(shards)]
        # A pass over the bytes is cheap against what is done with them, and TensorFlow names no file when it finds one
        # altered.
        return [self._file(path.name) for path in paths]

    def _file(self, name: str) -> Path:
        """Place of a file that the manifest vouches for, its checksum compared when it is first asked for."""
        path, entry = self.directory / name, self.manifest["files"].get(name)
        if entry is None:
            raise ArtifactError(f"{path}: the manifest does not name it; run `{_MADE_BY}` again")
        if name not in self._checked:
            require_checksum(path, entry, made_by=_MADE_BY)
            self._checked.add(name)
        return path

    def _folder(self, name: str) -> Path:
        """As `_file`, of a folder with all that is in it."""
        for file in self.manifest["files"]:
            if file.startswith(name + "/"):
                self._file(file)
        return self.directory / name

    def _column(self, file: str, name: str) -> pa.Array:
        return _flat(pq.read_table(self._file(file), columns=[name])[name])

    def _encoded(self, file: str, encoder: TableEncoder) -> pa.Table:
        names = [column.name for column in encoder.columns]
        columns = [_FEATURE + name for name in names]
        return pq.read_table(self._file(file), columns=columns).rename_columns(names)


def _history_vocabulary(name: str) -> str:
    return f"{_VOCABULARIES}/history.{name}.parquet"


def _columns(table: pa.Table) -> dict[str, pa.ChunkedArray]:
    return {_FEATURE + name: _storable(column) for name, column in zip(table.column_names, table.columns, strict=True)}


def _storable(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Vectors as lists of any length: Parquet keeps no values of a null, and pyarrow then fails to read fixed sizes."""
    if not pa.types.is_fixed_size_list(column.type):
        return column
    return column.cast(pa.list_(column.type.value_type))


def _write(path: Path, columns: dict[str, Any]) -> None:
    pq.write_table(pa.table(columns), path)


def _flat(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
