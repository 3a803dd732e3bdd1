"""The training data job: log, catalogue and profiles -> DIR/data, with shards, tables and a manifest.

python -m pipelines.training_data --config CONFIG.yaml --out DIR/data [--scratch URI] [--set key=value] [Beam options]
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions
from rich import box
from rich.console import Console
from rich.table import Table

from pipelines.exchange import Scratch
from pipelines.further_histories import build_vocabularies, described, plan_sources, recent_entries, rejected_entries
from pipelines.posterior_blocks import history_tables, whole_history, write_history
from pipelines.running import running
from pipelines.storage import size
from pipelines.summaries import (
    LogSummary,
    encode_tables,
    item_totals,
    require_all_read,
    require_all_written,
    require_usable,
)
from pipelines.transforms import ExampleJob, Source, collect_events, shard_names, write_examples
from recall.config.experiment import Config, load_config
from recall.core.artifacts import publish
from recall.core.errors import RecallError
from recall.core.tables import is_uri
from recall.data.catalogue import ItemTable, UserTable, read_items, read_users
from recall.data.content_prior.prior import fit_content_prior
from recall.data.events import REJECTED_SCHEMA
from recall.data.examples import HISTORY_SCHEMA, example_schema
from recall.data.fingerprints import data_fingerprint
from recall.data.posterior import split_snapshots
from recall.data.prepared import FORMAT_VERSION, write_tables
from recall.data.sampling import sampling_counts
from recall.data.splits import SPLITS

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
) -> dict[str, Any]:
    """Makes the training data and publishes it as `directory`, whole or not at all.

    Args:
      config: the experiment.
      directory: DIR/data; what is there already is replaced.
      fingerprint: kept in the manifest, for the caller to see whether the data is up to date.
      options: of Beam; default: in this process, on one core.
      scratch: where workers leave what they hand on: a folder that all of them mount, or a URI that Beam's FileSystems
        know, such as gs://bucket/folder; default: inside `directory`, which all workers must mount then. What is put
        there is removed at the end, unless the process is killed.
      announce: is told what comes next, in a few words.

    Returns:
      The manifest.

    Raises:
      DataError: the input cannot be used; nothing was written. What can be known cheaply is known at once.
      ArtifactError: the directory cannot be written.
    """
    announce("looking at the input files")
    pieces = plan_sources(config.data)
    items, users = read_items(config), read_users(config)
    manifest: dict[str, Any] = {"format_version": FORMAT_VERSION, "fingerprint": fingerprint}
    with publish(Path(directory), manifest=manifest) as folder:
        parent = scratch.rstrip("/") if scratch and is_uri(scratch) else Path(scratch or folder).resolve()
        place = Scratch(f"{parent}/scratch.{uuid.uuid4().hex[:8]}")
        place.storage.make()
        try:
            manifest.update(
                _Job(config, folder, place, options or PipelineOptions([])).run(pieces, items, users, announce)
            )
        finally:
            with contextlib.suppress(OSError):  # what is left over there spoils nothing
                place.storage.remove()
    return manifest


@dataclass(frozen=True)
class _Job:
    config: Config
    folder: Path
    scratch: Scratch
    options: PipelineOptions

    def run(
        self, pieces: Sequence[Source], items: ItemTable, users: UserTable | None, announce: Callable[[str], None]
    ) -> dict[str, Any]:
        """Runs both pipelines, writes all files, returns what the manifest says."""
        data, scratch = self.config.data, self.scratch
        partitions = _partitions(pieces, data.shards)
        if data.items.unknown == "reject":
            scratch.write("catalogue", 0, pa.table({"item": items.ids}))
        announce("reading and ordering events")
        with running(self.options) as pipeline:
            collect_events(pipeline, pieces, data=data, scratch=scratch, partitions=partitions)

        summary = LogSummary.read(scratch, data.split)
        require_all_read(scratch, summary, pieces=len(pieces), clock=data.events.time_unit != "order")
        rejected = pa.concat_tables([REJECTED_SCHEMA.empty_table(), *scratch.read_all("rejected")])
        require_usable(summary, rejected, path=data.events.path)
        held_out = summary.split(data)
        if data.items.unknown == "add":
            extra = {
                item
                for table in scratch.each("buckets")
                for item in table["item"].combine_chunks().dictionary.to_pylist()
            }
            items = read_items(self.config, extra_ids=extra)
            scratch.write("catalogue", 0, pa.table({"item": items.ids}))
        write_history(
            scratch, scratch.each("buckets"), item_ids=items.ids, data=data, prior=held_out.prior, folder=self.folder
        )
        content_prior = None
        if data.posterior.content_prior.enabled:
            announce("fitting the content prior")
            content_prior = fit_content_prior(
                self.config,
                items.ids,
                items.table,
                history=whole_history(scratch, data=data, prior=held_out.prior),
                moments_ms=held_out.moments_ms,
            )
            if content_prior.items:
                scratch.write("item_priors", 0, content_prior.items.table())

        vocabularies = build_vocabularies(scratch, data, held_out.boundaries)

        announce("writing examples")
        with running(self.options) as pipeline:
            write_examples(
                pipeline,
                ExampleJob(data, scratch, partitions, held_out.boundaries, held_out.prior),
            )
        require_all_written(scratch, summary)
        for name in (name for shard in range(data.shards) for name in shard_names(shard, shards=data.shards)):
            scratch.storage.fetch(name, self.folder / name)

        announce("fitting vocabularies and clusters")
        totals = item_totals(scratch, items=len(items))
        trained = pa.concat_tables(scratch.read_all("users"))
        further_rejected = rejected_entries(scratch, data)
        encoded_items, encoded_users, user_id_column = encode_tables(
            self.config, items, users, item_clicks=sampling_counts(totals), user_clicks=trained
        )
        write_tables(
            self.folder,
            items=encoded_items,
            users=encoded_users,
            history=history_tables(scratch),
            snapshots=split_snapshots(
                totals,
                moments_ms=held_out.moments_ms,
                by_time=data.split.by == "time",
                prior=held_out.prior._replace(items=content_prior.items if content_prior else None),
            ),
            content_prior=content_prior,
            sampling_counts=sampling_counts(totals),
            histories=pa.concat_tables([HISTORY_SCHEMA.empty_table(), *scratch.read_all("histories")]),
            further_histories=recent_entries(scratch, data),
            history_vocabularies=vocabularies,
            rejected=pa.concat_tables([rejected, *further_rejected.values()]).sort_by(
                [("file", "ascending"), ("row", "ascending")]
            ),
        )
        written = pa.concat_tables(scratch.read_all("written"))
        exposed = int((totals.exposures.sum(axis=1) > 0).sum())
        return {
            "layout": data.layout,
            "time_unit": data.events.time_unit,
            "shards": data.shards,
            "counts": {
                **summary.counts(rejected),
                "items": len(items),
                "items_exposed": exposed,
                "examples": _sums(written, "examples"),
                "records": _sums(written, "records"),
            },
            "split": {"by": data.split.by, **(held_out.boundaries._asdict() if held_out.boundaries else {})},
            "posterior": {
                "bucket_ms": data.posterior.bucket,
                "delay_ms": data.posterior.delay,
                "prior_ctr": held_out.prior.ctr,
                "prior_strength": held_out.prior.strength,
                **({"content_prior": content_prior.about} if content_prior else {}),
            },
            "trigger_window_ms": data.trigger.window,
            "history": data.history,
            "last_time_ms": summary.last_time_ms,
            "item_id_feature": _id_feature(self.config),
            "user_id_column": user_id_column,
            "examples": {
                name: {
                    field.name: str(field.type)
                    for field in example_schema(
                        data.layout, split, weighted=data.events.weight is not None, histories=data.histories
                    )
                }
                for split, name in enumerate(SPLITS)
            },
            **({"histories": dict(described(scratch, data, vocabularies, further_rejected))} if data.histories else {}),
        }


def _partitions(pieces: Sequence[Source], shards: int) -> int:
    """A multiple of the shards, so that each shard gets as many partitions as any other."""
    paths = {piece.path for _, piece in pieces}
    total = sum(size(path) if is_uri(path) else Path(path).stat().st_size for path in paths)
    return shards * -(-max(total, 1) // (shards * _BYTES_PER_PARTITION))


def _sums(written: pa.Table, what: str) -> dict[str, int]:
    return {name: sum(written[f"{name}_{what}"].to_pylist()) for name in SPLITS}


def _id_feature(config: Config) -> str | None:
    features = (feature for feature in config.features.item if feature.type == "id")
    return next((feature.name for feature in features if feature.source == config.data.items.id), None)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.training_data", description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="experiment file")
    parser.add_argument("--out", required=True, help="folder to publish, DIR/data")
    parser.add_argument(
        "--scratch", help="where workers leave what they hand on, e.g. gs://bucket/folder; default: --out"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="overrides a key")
    arguments, beam_arguments = parser.parse_known_args(argv)
    errors = Console(stderr=True)
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
    Console().print(counts_table(manifest))
    return 0


def counts_table(manifest: dict[str, Any]) -> Table:
    """The counts of a manifest, for people."""
    counts = manifest["counts"]
    table = Table(title="training data", title_justify="left", show_header=False, box=box.SIMPLE)
    table.add_column("what")
    table.add_column("count", justify="right")
    rows = {"rows read": counts["rows_read"]}
    rows |= {f"rejected: {reason}": number for reason, number in counts["rejected"].items()}
    rows |= {"exact duplicates removed": counts["duplicates"], "events": counts["events"], "clicks": counts["clicks"]}
    rows |= {"users": counts["users"], "items": counts["items"], "items with an exposure": counts["items_exposed"]}
    rows |= {f"{name} examples": number for name, number in counts["examples"].items()}
    for name, number in rows.items():
        table.add_row(name, f"{number:,}")
    return table


if __name__ == "__main__":
    sys.exit(main())
