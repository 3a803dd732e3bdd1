"""Runs the content vectors job: texts and images of a catalogue -> vectors that `embedding` features read.

python -m pipelines.content_vectors --items FILE --id COLUMN [--text COLUMN[,COLUMN]] [--image COLUMN] --model MODEL
                                    --out DIR [--encoder NAME] [--revision REVISION] [Beam options]
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.options.pipeline_options import PipelineOptions
from rich import box
from rich.table import Table

from pipelines.embedded_rows import REJECTED_SCHEMA, write_modality
from pipelines.embedding import EmbeddingJob, embed_content
from pipelines.exchange import Scratch
from pipelines.running import running
from recall.content.encode.embedded import FORMAT_VERSION, Batches, Embedded, require_replaceable
from recall.content.encode.encoders import ENCODERS, EncoderSpec, identity, load_encoder
from recall.content.encode.raw import RawContent, read_raw_content
from recall.core.artifacts import publish
from recall.core.errors import ConfigError, RecallError
from recall.core.terminal import open_console

BATCH_SIZES = {"text": 256, "image": 32}
"""Number of contents that are encoded, and then saved, at once; images lie decoded in memory."""

_DESCRIPTION = "The content vectors job: texts and images of a catalogue -> vectors that `embedding` features read."
_ROWS_PER_CHUNK = 8192
# Content of one partition goes to one worker; few rows are still spread over several workers.
_CONTENTS_PER_PARTITION = 4096
_LEAST_PARTITIONS = 8


def embed_catalogue(
    source: RawContent,
    spec: EncoderSpec,
    directory: str | Path,
    *,
    batch_size: int | None = None,
    options: PipelineOptions | None = None,
    announce: Callable[[str], None] = lambda step: None,
) -> dict[str, Any]:
    """Encode a catalogue's content and publish the vectors as `directory`, whole or not at all.

    Content with a vector of the same encoder is not encoded again: vectors of the replaced folder, or of a killed run,
    are reused. See `recall.content.encode.embedded` for the files.

    Args:
      source: the items file and its columns.
      spec: the encoder.
      directory: folder to publish; an existing one is replaced.
      batch_size: number of contents that are encoded, and then saved, at once; default: `BATCH_SIZES`.
      options: options of Beam; default: in this process, on one core. All workers must reach the folder, its parent
        and the images.
      announce: called with the name of each step, in a few words.

    Returns:
      The manifest.

    Raises:
      ConfigError: no such encoder, or it cannot encode a modality that is asked for.
      DataError: the input or the model cannot be used, or no item got a vector.
      ArtifactError: the folder cannot be written, or holds other files that would be lost.
    """
    directory = Path(directory).resolve()
    if batch_size is not None and batch_size < 1:
        raise ConfigError(f"batch size: expected at least 1, found {batch_size}")
    require_replaceable(directory, source.modalities)
    announce("reading the catalogue")
    rows = read_raw_content(source)
    announce("loading the model")
    encoder = load_encoder(spec)
    if lacking := [name for name in source.modalities if name not in encoder.modalities]:
        raise ConfigError(
            f"model {spec.model}: encodes {' and '.join(encoder.modalities)}, not {lacking[0]}; choose another model "
            f"or encoder ({', '.join(ENCODERS)} or a class), or leave {lacking[0]} out"
        )
    made_by = identity(spec, encoder)
    kept = directory.with_name(f".{directory.name}-embedding")
    manifest: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "encoder": {"kind": spec.kind, "model": spec.model, "revision": spec.revision,
                    "fingerprint": encoder.fingerprint, "identity": made_by},
        "items": {"file": source.items.name, "rows": len(rows)},
    }  # fmt: skip
    with publish(directory, manifest=manifest) as folder:
        scratch = Scratch(str(folder / "scratch"))
        Path(scratch.folder).mkdir()
        job = EmbeddingJob(
            spec, made_by, str(source.folder), scratch,
            batches={name: Batches(str(kept / made_by / name)) for name in source.modalities},
            batch_sizes={name: batch_size or BATCH_SIZES[name] for name in source.modalities},
            partitions=max(_LEAST_PARTITIONS, -(-len(rows) // _CONTENTS_PER_PARTITION)),
        )  # fmt: skip
        published = {name: Embedded.published(directory, name, encoder=made_by) for name in source.modalities}
        known = {name: (published[name] + job.batches[name].embedded()).hashes() for name in source.modalities}
        chunks = _hand_out(rows, known, scratch)
        announce("encoding")
        with _progress(job, announce), running(options or PipelineOptions([])) as pipeline:
            embed_content(pipeline, job, chunks=chunks)

        announce("writing vectors")
        rejected = [REJECTED_SCHEMA.empty_table()]
        manifest["vectors"] = {}
        for name in source.modalities:
            embedded = published[name] + job.batches[name].embedded()
            made = write_modality(folder, name, rows, known[name], embedded, scratch, dim=encoder.dim)
            columns = list(source.text) if name == "text" else [source.image]
            manifest["vectors"][name] = {
                "file": f"{name}.npy", "columns": columns, "dim": encoder.dim, "counts": made.counts
            }  # fmt: skip
            rejected.append(made.rejected)
        pq.write_table(pa.concat_tables(rejected), folder / "rejected.parquet")
        shutil.rmtree(scratch.folder)
    shutil.rmtree(kept, ignore_errors=True)
    return manifest


def _hand_out(rows: pa.Table, known: Mapping[str, npt.NDArray[np.bytes_]], scratch: Scratch) -> int:
    """Write the hashes of encoded content and the catalogue in chunks, for the workers; return the number of chunks."""
    for name, hashes in known.items():
        scratch.write(f"known.{name}", 0, pa.table({"content_hash": np.char.decode(hashes, "ascii")}))
    starts = range(0, len(rows), _ROWS_PER_CHUNK)
    for chunk, start in enumerate(starts):
        scratch.write("rows", chunk, rows.slice(start, _ROWS_PER_CHUNK))
    return len(starts)


@contextlib.contextmanager
def _progress(job: EmbeddingJob, announce: Callable[[str], None]) -> Iterator[None]:
    """Announce the progress every other second, by the number of batches in the folder of all workers."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(2.0):
            saved = sum(len(batches.embedded().files) for batches in job.batches.values())
            announce(f"encoding ({saved:,} batches saved)")

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line, and return the exit code."""
    arguments, beam_arguments = _parser().parse_known_args(argv)
    errors = open_console(stderr=True)
    try:
        source = RawContent(
            items=Path(arguments.items),
            id=arguments.id,
            text=tuple(name.strip() for name in arguments.text.split(",") if name.strip()),
            image=arguments.image,
            image_root=Path(arguments.image_root) if arguments.image_root else None,
            format=arguments.format,
        )
        folder = Path(arguments.model)  # workers may run in another folder than this
        model = str(folder.resolve()) if folder.is_dir() else arguments.model
        spec = EncoderSpec(model, arguments.encoder, arguments.revision)
        with errors.status("starting") as status:
            manifest = embed_catalogue(
                source, spec, arguments.out, batch_size=arguments.batch_size,
                options=PipelineOptions(beam_arguments), announce=status.update,
            )  # fmt: skip
    except RecallError as error:
        # Without markup, which would take the brackets of recall-towers[content] for its own.
        errors.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        return 1
    open_console().print(counts_table(manifest))
    return 0


def _parser() -> argparse.ArgumentParser:
    # Beam's options come after ours: an abbreviation of one of ours may be the whole of one of Beam's.
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.content_vectors",
        description=_DESCRIPTION,
        allow_abbrev=False,
    )
    parser.add_argument("--items", required=True, help="items file: CSV, TSV, JSON lines or Parquet")
    parser.add_argument("--format", default="auto", choices=("auto", "csv", "tsv", "jsonl", "parquet"))
    parser.add_argument("--id", required=True, metavar="COLUMN", help="of item ids")
    parser.add_argument("--text", default="", metavar="COLUMN[,COLUMN]", help="of texts; several are joined")
    parser.add_argument("--image", metavar="COLUMN", help="of paths of image files")
    parser.add_argument("--image-root", metavar="DIR", help="of relative paths; default: that of the items file")
    parser.add_argument("--model", required=True, help="folder, or name on the hub")
    parser.add_argument("--revision", help="branch, tag or commit on the hub")
    parser.add_argument(
        "--encoder", default="sentence-transformers", help=f"{', '.join(ENCODERS)} or package.module:Class"
    )
    parser.add_argument("--batch-size", type=int, help="contents encoded, and saved, at once; 256 texts, 32 images")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to publish")
    return parser


def counts_table(manifest: dict[str, Any]) -> Table:
    """Build the table of counts of items, for people."""
    table = Table(title="content vectors", title_justify="left", box=box.SIMPLE)
    table.add_column("items")
    rows: dict[str, dict[str, int]] = {}
    for modality, made in manifest["vectors"].items():
        table.add_column(modality, justify="right")
        counts = made["counts"]
        ended = {"in the file": manifest["items"]["rows"], "embedded": counts["embedded"], "reused": counts["reused"],
                 "without content": counts["missing"]}  # fmt: skip
        ended |= {f"failed: {reason}": number for reason, number in counts["failed"].items()}
        for what, number in (ended | {"dimensions": made["dim"]}).items():
            rows.setdefault(what, {})[modality] = number
    for what, row in rows.items():
        table.add_row(what, *(f"{row.get(modality, 0):,}" for modality in manifest["vectors"]))
    return table


if __name__ == "__main__":
    sys.exit(main())
