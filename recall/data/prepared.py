"""Opens DIR/data, which `recall prepare` publishes: `PreparedData`.

`prepared_files.py` has the writer and the reader of each file.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recall.core.arrays import Int64s
from recall.core.artifacts import read_manifest, require_checksum
from recall.core.errors import ArtifactError
from recall.data.audience import AudienceHistory
from recall.data.compaction import Base
from recall.data.content_prior.item_priors import ItemPriors
from recall.data.content_prior.linear_ctr import ContentCtr
from recall.data.examples import REFUSED
from recall.data.features.table_encoder import TableEncoder
from recall.data.features.vocabulary import Vocabulary, below
from recall.data.posterior import Posterior, PosteriorHistory, Prior
from recall.data.prepared_files import (
    ATTRIBUTES,
    AUDIENCE,
    CONTENT_PRIOR,
    HISTORIES,
    ITEM_ID,
    ITEM_PRIORS,
    ITEM_VOCABULARIES,
    ITEMS,
    POSTERIOR_BASE,
    POSTERIOR_BUCKETS,
    POSTERIORS,
    REFIT,
    SAMPLING_COUNTS,
    SHARD_ENDING,
    USER_ID,
    USER_VOCABULARIES,
    USERS,
    flat,
    further_history,
    history_vocabulary,
    read_attributes,
    read_column,
    read_features,
    read_posterior,
    read_sampling_counts,
    read_titles,
    shard_path,
)  # fmt: skip
from recall.data.serving_histories import ServingHistories

FORMAT_VERSION = 1
Moment = Literal["serving", "validation", "test"]

_MADE_BY = "recall prepare"


@dataclass(frozen=True)
class PreparedData:
    """Hold a published DIR/data. Files are read when they are asked for, and checked then; see `load`.

    There are two views of it where what is served learns from the whole log (`training.refit`). A model that is judged
    may not know which ids became frequent in the held-out period, and learns from the training examples; what is served
    knows and learns from all. Without a refit both are the same.

    Attributes:
      directory: the directory.
      manifest: counts, split, posterior settings, schema of the examples, checksums.
      is_judged: whether this is the view of a model that is judged; see `judged`.
      replay: share of the training examples that what is served learns once more; see `replaying`.

    Example:
      >>> data = recall.PreparedData.load("runs/mine/data")
      >>> len(data.item_ids), data.posterior("test").exposures.shape
      (150, (150,))
    """

    directory: Path
    manifest: dict[str, Any]
    is_judged: bool = False
    replay: float = 1.0
    _checked: set[str] = field(default_factory=set, init=False, repr=False, compare=False)  # names of files

    @classmethod
    def load(cls, directory: str | Path, *, verify: bool | Literal["tables"] = False) -> PreparedData:
        """Open the directory that `recall prepare` published.

        Sizes are compared at once, a file's checksum before it is first read, so that only the bytes that were written
        are read.

        Args:
          directory: DIR/data.
          verify: compare checksums now: of every file, or of `tables`, which are all but the shards of examples.

        Raises:
          ArtifactError: it is not there, damaged, or of another format version. Members that read a file raise it, too.
        """
        directory = Path(directory)

        def is_now(name: str) -> bool:
            return verify is True or (verify == "tables" and not name.endswith(SHARD_ENDING))

        manifest = read_manifest(directory, made_by=_MADE_BY, verify=is_now)
        if (found := manifest.get("format_version")) != FORMAT_VERSION:
            raise ArtifactError(
                f"{directory}: has format version {found}, expected {FORMAT_VERSION}; run `recall prepare` again"
            )
        data = cls(directory, manifest)
        data._checked.update(filter(is_now, manifest["files"]))
        return data

    def judged(self) -> PreparedData:
        """Return the view of a model that is judged on the held-out examples."""
        return replace(self, is_judged=True) if "judged" in self.manifest else self

    def replaying(self, share: float) -> PreparedData:
        """Return the view of a model that has learned the training examples: it learns a share of them once more."""
        return replace(self, replay=share)

    @cached_property
    def item_ids(self) -> pa.StringArray:
        """Return item ids, string [items]; the position of an item is its row."""
        return read_column(self._file(ITEMS), ITEM_ID)

    @cached_property
    def user_ids(self) -> pa.StringArray:
        """Return user ids, string [users], aligned with `users`."""
        ids = read_column(self._file(USERS), USER_ID)
        return ids[: self._known["user_rows"]] if self.is_judged else ids

    @cached_property
    def titles(self) -> pa.Array | None:
        """Return titles, string [items] with nulls; None if the experiment names no title column."""
        return read_titles(self._file(ITEMS))

    @property
    def titles_by_id(self) -> dict[str, str]:
        """Return the titles of the items that have one."""
        if self.titles is None:
            return {}
        pairs = zip(self.item_ids.to_pylist(), self.titles.to_pylist(), strict=True)
        return {item: title for item, title in pairs if title is not None}

    @cached_property
    def items(self) -> pa.Table:
        """Return the encoded features of the items; see `item_encoder.columns`.

        Vectors are list<float32>, null where missing.
        """
        return self._encoded(ITEMS, self.item_encoder, reused=self._reused("items") if self.is_judged else {})

    @property
    def _known(self) -> Mapping[str, Any]:
        """Return what a judged model knows: numbers of codes by column of the items and of the users, and of users."""
        known: dict[str, Any] = self.manifest["judged"]
        return known

    @cached_property
    def attributes(self) -> pa.Table | None:
        """Return the items' attributes for filters and caps; None if the data was prepared without them."""
        return read_attributes(self._file(ATTRIBUTES)) if ATTRIBUTES in self.manifest["files"] else None

    @cached_property
    def users(self) -> pa.Table:
        """Return the encoded features of the users; see `user_encoder.columns`."""
        encoded = self._encoded(USERS, self.user_encoder, reused=self._reused("users") if self.is_judged else {})
        return encoded[: self._known["user_rows"]] if self.is_judged else encoded

    @cached_property
    def item_encoder(self) -> TableEncoder:
        """Load the encoder of raw item rows, for new items too."""
        encoder = TableEncoder.load(self._folder(ITEM_VOCABULARIES))
        return encoder.first(self._known["items"], without=self._reused("items")) if self.is_judged else encoder

    @cached_property
    def user_encoder(self) -> TableEncoder:
        """Load the encoder of raw user rows."""
        encoder = TableEncoder.load(self._folder(USER_VOCABULARIES))
        return encoder.first(self._known["users"], without=self._reused("users")) if self.is_judged else encoder

    @property
    def reused_codes(self) -> Mapping[str, Mapping[str, Sequence[int]]]:
        """Return the codes by table and column that stand for other values in what is served than in what is judged."""
        reused: dict[str, dict[str, list[int]]] = self.manifest.get("judged", {}).get("reused", {})
        return reused

    def _reused(self, table: str) -> Mapping[str, Sequence[int]]:
        """Return the codes by column that had no value yet, or another one, in the view of a judged model."""
        reused: dict[str, list[int]] = self._known.get("reused", {}).get(table, {})
        return reused

    def users_with_unknown(self) -> pa.Table:
        """Append to `users` the row of an unknown user: id out of vocabulary, everything else missing."""
        # No id holds NUL, so this one is in no vocabulary.
        unknown = self.user_encoder.encode(pa.table({self.user_id_name: ["\0"]}))
        return pa.concat_tables([self.users, unknown.cast(self.users.schema)])

    def rows(self, ids: Iterable[str] | pa.StringArray) -> Int64s:
        """Look up rows of items, -1 for ids that the catalogue lacks."""
        wanted = ids if isinstance(ids, pa.Array) else pa.array(list(ids), pa.string())
        return pc.index_in(wanted, value_set=self.item_ids).fill_null(-1).to_numpy().astype(np.int64)

    @property
    def item_id_feature(self) -> str | None:
        """Name the feature that is the item's own id, if the towers have it."""
        name: str | None = self.manifest["item_id_feature"]
        return name

    @property
    def user_id_name(self) -> str:
        """Name the raw column of user ids, for the user encoder."""
        return str(self.manifest["user_id_column"])

    @property
    def training_records(self) -> int:
        """Count the records in the training shards: clicks, or users in the layout `user`."""
        records: dict[str, int] = self.manifest["counts"]["records"]
        if not self.learns_from_all:
            return records["train"]
        return records[REFIT] + (0 if self._has_users_records else math.floor(self.replay * records["train"]))

    @property
    def _has_users_records(self) -> bool:
        return bool(self.manifest["layout"] == "user")

    @property
    def learns_from_all(self) -> bool:
        """Tell whether the training examples of this view include the held-out clicks."""
        return "judged" in self.manifest and not self.is_judged

    @property
    def learned_until_ms(self) -> int | None:
        """Return when the training period of this view ends; None for a split without a common clock."""
        if self.learns_from_all:
            return int(self.manifest["last_time_ms"])
        start_ms: int | None = self.manifest["split"].get("validation_start_ms")
        return start_ms

    @property
    def is_weighted(self) -> bool:
        """Tell whether clicks carry a weight (`data.events.weight`)."""
        return "weight" in self.manifest["examples"]["train"]

    @property
    def has_refusals(self) -> bool:
        """Tell whether training examples carry what was shown and not clicked (`data.refused`)."""
        return REFUSED in self.manifest["examples"]["train"]

    def posterior(self, moment: Moment) -> Posterior:
        """Read the posterior of every item.

        At `serving` all events are known; at `validation` and `test` the events before the split begins.
        """
        return read_posterior(self._file(POSTERIORS[moment]))

    @cached_property
    def learned_posterior(self) -> Posterior:
        """Read the posterior of every item at the end of the training period of this view."""
        return self.posterior("serving" if self.learns_from_all else "validation")

    @cached_property
    def serving_posterior(self) -> Posterior:
        """Read the posterior of every item at `serving` once, for whoever asks for some items again and again."""
        return self.posterior("serving")

    @cached_property
    def posterior_history(self) -> PosteriorHistory:
        """Read the posterior of every item at every moment; of a run that goes on, since its training begins."""
        settings = self.manifest["posterior"]
        items = ItemPriors.from_table(pq.read_table(self._file(ITEM_PRIORS))) if self.has_content_prior else None
        is_compacted = POSTERIOR_BASE in self.manifest["files"]
        return PosteriorHistory.from_table(
            pq.read_table(self._file(POSTERIOR_BUCKETS)),
            bucket_ms=settings["bucket_ms"],
            delay_ms=settings["delay_ms"],
            prior=Prior(settings["prior_ctr"], settings["prior_strength"], items),
            clock=self.manifest["time_unit"] != "order",
            half_lives_ms=tuple(settings.get("half_lives_ms", ())),  # data from before there were any has none
            base=Base.from_table(pq.read_table(self._file(POSTERIOR_BASE))) if is_compacted else None,
        )

    @property
    def audience(self) -> int:
        """Return the number of sources of an item's audience (`data.posterior.audience`); 0 without audiences."""
        return int(self.manifest["posterior"].get("audience", 0))

    @cached_property
    def audience_history(self) -> AudienceHistory:
        """Read the audience of every item at every moment; the data was prepared with audiences."""
        settings = self.manifest["posterior"]
        return AudienceHistory.from_table(
            pq.read_table(self._file(AUDIENCE)), bucket_ms=settings["bucket_ms"], delay_ms=settings["delay_ms"]
        )

    @property
    def has_content_prior(self) -> bool:
        """Tell whether items start from priors of their own (`data.posterior.content_prior`)."""
        return ITEM_PRIORS in self.manifest["files"]

    @cached_property
    def content_prior(self) -> ContentCtr | None:
        """Load the model that predicts prior CTRs of new items, as of the end of the log."""
        return ContentCtr.load(self._folder(CONTENT_PRIOR)) if self.has_content_prior else None

    @cached_property
    def sampling_counts(self) -> Int64s:
        """Return the number of training examples of each target item, int64 [items]."""
        return read_sampling_counts(self._file(SAMPLING_COUNTS), of_all=self.learns_from_all)

    @cached_property
    def clicks_by_item_code(self) -> Int64s | None:
        """Count training clicks per code of the item id, int64 [codes]; None without an item id feature."""
        name = self.item_id_feature
        if name is None:
            return None
        codes = np.asarray(self.items[name].combine_chunks())
        size = next(column.size for column in self.item_encoder.columns if column.name == name)
        return np.bincount(codes, weights=self.sampling_counts, minlength=size).astype(np.int64)

    @cached_property
    def histories(self) -> ServingHistories:
        """Read every user's clicks as of the end of the log."""
        return ServingHistories(pq.read_table(self._file(HISTORIES)))

    @property
    def history_lengths(self) -> dict[str, int]:
        """Return the further histories by name, with the number of entries that an example carries at most."""
        return {name: int(settings["length"]) for name, settings in self.manifest.get("histories", {}).items()}

    @cached_property
    def further_histories(self) -> dict[str, ServingHistories]:
        """Read the further histories by name, as of the end of the log."""
        files = {name: self._file(further_history(name)) for name in self.history_lengths}
        return {name: ServingHistories(pq.read_table(path)) for name, path in files.items()}

    @cached_property
    def history_vocabularies(self) -> dict[str, Vocabulary]:
        """Load the item ids of the further histories that have a domain of their own."""
        named = self.manifest.get("histories", {}).items()
        own = [name for name, settings in named if settings["domain"] == "own"]
        return {name: Vocabulary.load(self._file(history_vocabulary(name))) for name in own}

    def shards(self, split: str) -> list[Path]:
        """List the TFRecord files of `train`, `validation` or `test`."""
        shards = self.manifest["shards"]
        names = [split]
        if split == "train" and self.learns_from_all:
            names = [REFIT] if self._has_users_records else [split, REFIT]
        paths = [
            shard_path(self.directory, name, shard=shard, shards=shards) for name in names for shard in range(shards)
        ]
        # A pass over the bytes is cheap against training on them, and TensorFlow names no file when it finds one
        # altered.
        return [self._file(path.name) for path in paths]

    def file(self, name: str) -> Path:
        """Return the path of a file that the manifest names, its checksum compared."""
        return self._file(name)

    def _file(self, name: str) -> Path:
        """Find a file that the manifest names, and compare its checksum when it is first asked for."""
        path, entry = self.directory / name, self.manifest["files"].get(name)
        if entry is None:
            raise ArtifactError(f"{path}: the manifest does not name it; run `{_MADE_BY}` again")
        if name not in self._checked:
            require_checksum(path, entry, made_by=_MADE_BY)
            self._checked.add(name)
        return path

    def _folder(self, name: str) -> Path:
        """Find a folder, and check all files in it as `_file` does."""
        for file in self.manifest["files"]:
            if file.startswith(name + "/"):
                self._file(file)
        return self.directory / name

    def _encoded(self, file: str, encoder: TableEncoder, *, reused: Mapping[str, Sequence[int]]) -> pa.Table:
        table = read_features(self._file(file), [column.name for column in encoder.columns])
        if not self.is_judged:
            return table
        for place, column in enumerate(encoder.columns):
            if column.kind in ("code", "codes"):
                table = table.set_column(
                    place,
                    column.name,
                    below(flat(table[column.name]), column.size, without=reused.get(column.name, ())),
                )
        return table
