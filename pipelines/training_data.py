"""Runs the training data job: log, catalogue and profiles -> DIR/data, with shards, tables and a manifest.

python -m pipelines.training_data --config CONFIG.yaml --out DIR/data [--scratch URI] [--set key=value] [Beam options]
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions
from rich import box
from rich.console import Console
from rich.table import Table

from pipelines.audience_blocks import audience_snapshots, audience_tables
from pipelines.exchange import Scratch
from pipelines.further_histories import build_vocabularies, clocks_of, plan_sources, recent_entries, rejected_entries
from pipelines.going_on import about_state, add_settled_counts, files_of, keep_state, kept_sources, new_sources
from pipelines.known_ids import known_of_files
from pipelines.manifest import describe
from pipelines.notes import times_of
from pipelines.posterior_blocks import fresh_snapshots, history_tables, read_base, whole_history, write_history
from pipelines.retiring import find_gone
from pipelines.running import running
from pipelines.storage import size
from pipelines.summaries import (
    EncodedTables,
    LogSummary,
    OrderedLog,
    encode_tables,
    item_totals,
    notes_of_log,
    require_all_read,
    require_all_written,
    require_usable,
)
from pipelines.transforms import TAIL, ExampleJob, Source, collect_events, shard_names, write_examples
from recall.config.experiment import Config, load_config
from recall.core.artifacts import publish
from recall.core.errors import RecallError
from recall.core.tables import is_uri
from recall.core.terminal import open_console
from recall.data.catalogue import ItemTable, UserTable, read_items, read_users
from recall.data.clock import Clock
from recall.data.content_prior.prior import ContentPrior, fit_content_prior
from recall.data.events import REJECTED_SCHEMA
from recall.data.examples import HISTORY_SCHEMA
from recall.data.features.vocabulary import Vocabulary
from recall.data.fingerprints import data_fingerprint
from recall.data.item_totals import ItemTotals, split_snapshots
from recall.data.prepared import FORMAT_VERSION
from recall.data.prepared_files import write_tables
from recall.data.settled import Settled, keeps_state, tail_start

_DESCRIPTION = "The training data job: log, catalogue and profiles -> DIR/data, with shards, tables and a manifest."
# A partition is held in memory by one worker; a compressed log grows some ten times on the way.
_BYTES_PER_PARTITION = 64 << 20


def prepare(
    config: Config,
    directory: str | Path,
    *,
    fingerprint: str = "",
    options: PipelineOptions | None = None,
    scratch: str | None = None,
    announce: Callable[[str], None] = lambda step: None,
    since: Path | None = None,
) -> dict[str, Any]:
    """Prepare the training data and publish it as `directory`, whole or not at all.

    Args:
      config: the experiment.
      directory: DIR/data; an existing one is replaced.
      fingerprint: kept in the manifest, so that the caller can tell whether the data is up to date.
      options: options of Beam; default: in this process, on one core.
      scratch: folder for intermediate tables: one that all workers mount, or a URI that Beam's FileSystems know, such
        as gs://bucket/folder; default: inside `directory`, which all workers must mount then. Its files are removed at
        the end, unless the process is killed.
      announce: called with the name of each step, in a few words.
      since: DIR/data of an earlier run to go on from: only files that it has not read are read.

    Returns:
      The manifest.

    Raises:
      DataError: the input cannot be used; nothing was written. Cheap checks come first.
      ArtifactError: the directory cannot be written.
    """
    announce("looking at the input files")
    settled = Settled.of(since, config.data) if since else None
    pieces = plan_sources(config.data)
    files = files_of(pieces, settled)
    pieces = new_sources(pieces, settled)
    clocks = clocks_of(pieces, config.data, now_ms=int(time.time() * 1_000))
    items, users = read_items(config), read_users(config)
    manifest: dict[str, Any] = {"format_version": FORMAT_VERSION, "fingerprint": fingerprint}
    with publish(Path(directory), manifest=manifest) as folder, _scratch_folder(scratch or folder) as place:
        job = _Job(config, folder, place, options or PipelineOptions([]), announce, settled)
        log = job.order_events(pieces, items, clocks=clocks)
        content_prior = job.write_history(log)
        vocabularies = job.write_examples(log, partitions=_partitions(pieces, config.data.shards))
        totals = item_totals(place, items=len(log.items))
        encoded = job.write_tables(log, users, totals=totals, content_prior=content_prior, vocabularies=vocabularies)
        manifest.update(job.keep_state(log, files))
        manifest.update(
            describe(
                config,
                place,
                log,
                totals=totals,
                content_prior=content_prior,
                vocabularies=vocabularies,
                encoded=encoded,
            )
        )
        known, warnings = known_of_files(place, config.data, log, users, totals)
        manifest["counts"]["known"] = known
        assumed = [*items.assumed, *(users.assumed if users else ()), *notes_of_log(place)]
        manifest["notes"] = [*manifest.get("notes", ()), *assumed, *warnings]
    return manifest


@contextlib.contextmanager
def _scratch_folder(parent: str | Path) -> Iterator[Scratch]:
    """Make a folder for intermediate tables, and remove it at the end."""
    parent = parent.rstrip("/") if isinstance(parent, str) and is_uri(parent) else Path(parent).resolve()
    scratch = Scratch(f"{parent}/scratch.{uuid.uuid4().hex[:8]}")
    scratch.storage.make()
    try:
        yield scratch
    finally:
        with contextlib.suppress(OSError):  # A file that is left over there spoils nothing.
            scratch.storage.remove()


@dataclass(frozen=True)
class _Job:
    """Run the steps of the job, in the order of its methods; each reads from `scratch` what the step before wrote."""

    config: Config
    folder: Path
    scratch: Scratch
    options: PipelineOptions
    announce: Callable[[str], None]
    settled: Settled | None = None

    def order_events(
        self, pieces: Sequence[Source], items: ItemTable, *, clocks: Mapping[str, Clock | None]
    ) -> OrderedLog:
        """Read the log, order the events of each user, count exposures and clicks per item and hour.

        Raises:
          DataError: the log has no usable row, no click, or nothing to hold out; or workers lost events.
        """
        data, scratch = self.config.data, self.scratch
        if data.items.unknown == "reject":
            scratch.write("catalogue", 0, pa.table({"item": items.ids}))
        self.announce("reading and ordering events")
        settled, partitions = self.settled, _partitions(pieces, data.shards)
        kept = kept_sources(settled, scratch, items.ids)
        if settled is not None:
            clocks = {name: clock and clock._replace(settled_ms=settled.from_ms) for name, clock in clocks.items()}
        with running(self.options) as pipeline:
            sources = [*pieces, *kept]
            collect_events(pipeline, sources, data=data, scratch=scratch, partitions=partitions, clocks=clocks)
        summary = LogSummary.read(scratch, data.split)
        read = len(pieces) + sum(kind == TAIL for kind, _ in kept)
        require_all_read(scratch, summary, pieces=read, clock=data.events.time_unit != "order")
        rejected = pa.concat_tables([REJECTED_SCHEMA.empty_table(), *scratch.read_all("rejected")])
        require_usable(summary, rejected, data=data, items=items)
        if settled is not None:
            first_ms = min(summary.first_time_ms, settled.state["first_ms"])
            summary = dataclasses.replace(summary, first_time_ms=first_ms)
        if data.items.unknown == "add":
            before = settled.prepared.item_ids.to_pylist() if settled else ()
            items = read_items(self.config, extra_ids=_items_of_log(scratch).union(before))
            scratch.write("catalogue", 0, pa.table({"item": items.ids}))
        if settled is not None:
            refresh_ms = self.config.refresh_ms
            add_settled_counts(settled, scratch, data, item_ids=items.ids, partitions=partitions, refresh_ms=refresh_ms)
        if data.events.time_unit != "order":
            summary = summary.with_end(scratch, bucket_ms=data.posterior.bucket)
        held_out = summary.split(data, settled)
        return OrderedLog(items, summary, held_out, rejected)

    def write_history(self, log: OrderedLog) -> ContentPrior | None:
        """Write the posterior of every item and moment, and fit the content prior where the experiment asks for one."""
        data, scratch, prior = self.config.data, self.scratch, log.held_out.prior
        write_history(
            scratch, scratch.each("buckets"), item_ids=log.items.ids, data=data, prior=prior, folder=self.folder
        )
        if not data.posterior.content_prior.enabled:
            return None
        self.announce("fitting the content prior")
        content_prior = fit_content_prior(
            self.config,
            log.items.ids,
            log.items.table,
            history=whole_history(scratch, data=data, prior=prior),
            moments_ms=log.held_out.moments_ms,
        )
        if content_prior.items:
            scratch.write("item_priors", 0, content_prior.items.table())
        return content_prior

    def write_examples(self, log: OrderedLog, *, partitions: int) -> dict[str, Vocabulary]:
        """Write the shards of examples; returns the vocabularies of histories with items of their own.

        Raises:
          DataError: not every click became an example.
        """
        data, scratch, held_out = self.config.data, self.scratch, log.held_out
        vocabularies = build_vocabularies(scratch, data, held_out.boundaries)
        self.announce("writing examples")
        with running(self.options) as pipeline:
            job = ExampleJob(
                data, scratch, partitions, held_out.boundaries, held_out.prior, refit=self.config.learns_from_all,
                tail_ms=tail_start(log.summary.end_ms, data, self.settled) if keeps_state(data) else None,
            )  # fmt: skip
            write_examples(pipeline, job)
        require_all_written(scratch, log.summary)
        for shard in range(data.shards):
            for name in shard_names(shard, shards=data.shards, refit=job.refit):
                scratch.storage.fetch(name, self.folder / name)
        return vocabularies

    def write_tables(
        self,
        log: OrderedLog,
        users: UserTable | None,
        *,
        totals: ItemTotals,
        content_prior: ContentPrior | None,
        vocabularies: dict[str, Vocabulary],
    ) -> EncodedTables:
        """Encode items and users, and write them with the posteriors; returns both as they were encoded."""
        self.announce("fitting vocabularies and clusters")
        data, scratch, held_out = self.config.data, self.scratch, log.held_out
        end_ms = log.summary.end_ms
        gone = find_gone(scratch, data, item_ids=log.items.ids, end_ms=end_ms, settled=self.settled)
        encoded = encode_tables(
            self.config,
            log.items,
            users,
            item_clicks=totals.sampling_counts(),
            all_item_clicks=totals.all_counts(),
            user_clicks=pa.concat_tables(scratch.read_all("users")),
            settled=self.settled,
            gone=gone,
        )
        rejected = pa.concat_tables([log.rejected, *rejected_entries(scratch, data).values()])
        write_tables(
            self.folder,
            items=encoded.items,
            users=encoded.users,
            history=history_tables(scratch),
            snapshots=split_snapshots(
                totals,
                moments_ms=held_out.moments_ms,
                by_time=data.split.by == "time",
                prior=held_out.prior._replace(items=content_prior.items if content_prior else None),
                fresh=fresh_snapshots(
                    scratch,
                    data=data,
                    moments_ms=held_out.moments_ms or {},
                    prior=held_out.prior,
                    items=len(log.items),
                ),
                sources=audience_snapshots(
                    scratch, data=data, moments_ms=held_out.moments_ms or {}, items=len(log.items)
                ),
            ),
            audience=audience_tables(scratch, data=data, items=len(log.items)) if data.audience else None,
            base=read_base(scratch),
            content_prior=content_prior,
            sampling_counts=totals.sampling_counts(),
            all_counts=totals.all_counts() if self.config.learns_from_all else None,
            histories=pa.concat_tables([HISTORY_SCHEMA.empty_table(), *scratch.read_all("histories")]),
            further_histories=recent_entries(scratch, data),
            history_vocabularies=vocabularies,
            rejected=rejected.sort_by([("file", "ascending"), ("row", "ascending")]),
        )
        return encoded

    def keep_state(self, log: OrderedLog, files: Mapping[str, list[int]]) -> dict[str, Any]:
        """Keep what a run needs that goes on from this one; returns entries of the manifest."""
        data = self.config.data
        if not keeps_state(data):
            return {}
        tail_ms = tail_start(log.summary.end_ms, data, self.settled)
        keep_state(self.scratch, self.folder, data, tail_ms=tail_ms, item_ids=log.items.ids)
        return about_state(self.scratch, data, log, tail_ms=tail_ms, files=files, settled=self.settled)


def _items_of_log(scratch: Scratch) -> set[str]:
    """Collect the ids of all items that the log names."""
    tables = scratch.each("buckets")
    return {item for table in tables for item in table["item"].combine_chunks().dictionary.to_pylist()}


def _partitions(pieces: Sequence[Source], shards: int) -> int:
    """Choose the number of partitions: a multiple of the shards, so that all shards get equally many."""
    paths = {piece.path for _, piece in pieces}
    total = sum(size(path) if is_uri(path) else Path(path).stat().st_size for path in paths)
    return shards * -(-max(total, 1) // (shards * _BYTES_PER_PARTITION))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.training_data",
        description=_DESCRIPTION,
    )
    parser.add_argument("--config", required=True, help="experiment file")
    parser.add_argument("--out", required=True, help="folder to publish, DIR/data")
    parser.add_argument(
        "--scratch", help="where workers leave what they hand on, e.g. gs://bucket/folder; default: --out"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="overrides a key")
    arguments, beam_arguments = parser.parse_known_args(argv)
    errors = open_console(stderr=True)
    try:
        config = load_config(arguments.config, arguments.set)
        with errors.status("starting") as status:
            manifest = prepare(
                config,
                arguments.out,
                fingerprint=data_fingerprint(config),
                options=PipelineOptions(beam_arguments),
                scratch=arguments.scratch,
                announce=status.update,
            )
    except RecallError as error:
        errors.print(f"[red]error:[/red] {error}", highlight=False, soft_wrap=True)
        return 1
    print_counts(manifest, open_console())
    return 0


def print_counts(manifest: dict[str, Any], console: Console) -> None:
    """Print the table of a manifest's counts, and its notes below."""
    console.print(counts_table(manifest))
    print_notes(manifest, console)


def print_notes(manifest: dict[str, Any], console: Console) -> None:
    """Print the notes of a manifest, a line each; data from before there were notes has none."""
    for note in manifest.get("notes", ()):
        console.print(f"note: {note}", style="yellow", markup=False, highlight=False, soft_wrap=True)


def counts_table(manifest: dict[str, Any]) -> Table:
    """Build the table of a manifest's counts, for people."""
    counts = manifest["counts"]
    table = Table(title="training data", title_justify="left", show_header=False, box=box.SIMPLE)
    table.add_column("what")
    table.add_column("count", justify="right")
    rows = {"rows read": counts["rows_read"]}
    rows |= {f"rejected: {reason}": number for reason, number in counts["rejected"].items()}
    rows |= {"exact duplicates removed": counts["duplicates"], "events": counts["events"], "clicks": counts["clicks"]}
    rows |= {"users": counts["users"], "items": counts["items"], "items with an exposure": counts["items_exposed"]}
    for name, known in counts["known"].items():
        rows[f"{name} of the log"] = known["in_log"]
        rows[f"{name} of the log that the {name} file knows"] = known["known"]
    rows |= {f"{name} examples": number for name, number in counts["examples"].items()}
    for name, number in rows.items():
        table.add_row(name, f"{number:,}")
    for name, moment in times_of(manifest).items():
        table.add_row(name, moment)
    return table


if __name__ == "__main__":
    sys.exit(main())
