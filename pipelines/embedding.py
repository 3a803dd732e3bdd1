"""Transforms the catalogue in the content vectors job: rows -> content without a vector -> saved batches of vectors.

The pipeline is linear with one terminal collection. Elements are keyed by modality, as text and images take the same
steps. Equal content is grouped before it is encoded, so that it is encoded once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa

from pipelines.exchange import Scratch, from_bytes, partitioned
from recall.content.encode.embedded import Batches, hash_array, is_among
from recall.content.encode.encoders import EncoderSpec, encode, identity, load_encoder
from recall.content.encode.raw import UnusableContentError, content_hash, decode_image, read_image_file
from recall.core.errors import DataError

FAILED_SCHEMA = pa.schema([("content_hash", pa.string()), ("reason", pa.string())])


@dataclass(frozen=True)
class EmbeddingJob:
    """Hold the settings of a worker.

    Attributes:
      spec: the encoder.
      identity: fingerprint of the encoder as the driver loaded it.
      image_root: folder that image paths are relative to.
      scratch: holds `rows` (chunks of the catalogue's content) and, per modality, `known.MODALITY` (sorted hashes of
        content with a vector).
      batches: modality -> folder of its vectors.
      batch_sizes: modality -> number of contents that are encoded, and then saved, at once.
      partitions: number of parts of the content of each modality.
    """

    spec: EncoderSpec
    identity: str
    image_root: str
    scratch: Scratch
    batches: dict[str, Batches]
    batch_sizes: dict[str, int]
    partitions: int


def embed_content(pipeline: beam.Pipeline, job: EmbeddingJob, *, chunks: int) -> beam.pvalue.PCollection[str]:
    """Build the pipeline: chunks of the catalogue -> saved batches of vectors; return the names of the partitions."""
    return (
        pipeline
        | "ListChunks" >> beam.Create([(modality, chunk) for modality in job.batches for chunk in range(chunks)])
        | "SpreadChunks" >> beam.Reshuffle()
        | "HashContent" >> beam.ParDo(HashContent(job))
        | "GroupByContent" >> beam.GroupByKey()
        | "EmbedContent" >> beam.ParDo(EmbedContent(job))
    )


class HashContent(beam.DoFn):
    """Hash content: (modality, chunk) -> ((modality, partition), content without a vector).

    The hashes are written to the scratch folder.
    """

    def __init__(self, job: EmbeddingJob) -> None:
        self._job = job

    def setup(self) -> None:
        """Load the hashes of content with a vector."""
        scratch = self._job.scratch
        self._known = {name: hash_array(scratch.read(f"known.{name}")["content_hash"]) for name in self._job.batches}

    def process(self, element: tuple[str, int]) -> Iterator[tuple[tuple[str, int], bytes]]:
        """Read and hash the content of one chunk."""
        modality, chunk = element
        contents = self._job.scratch.read("rows", chunk)[modality].to_pylist()
        hashes, reasons = zip(*(self._hash(modality, content) for content in contents), strict=True)
        hashed = pa.table({"content_hash": pa.array(hashes, pa.string()), "reason": pa.array(reasons, pa.string())})
        self._job.scratch.write(f"hashed.{modality}", chunk, hashed)

        there = pa.table({"content_hash": hashed["content_hash"], "content": pa.array(contents, pa.string())})
        there = there.filter(hashed["content_hash"].is_valid())
        new = there.filter(pa.array(~is_among(hash_array(there["content_hash"]), self._known[modality])))
        for partition, batch in partitioned(new, "content_hash", partitions=self._job.partitions):
            yield (modality, partition), batch

    def _hash(self, modality: str, content: str | None) -> tuple[str | None, str | None]:
        """Compute the hash, or the reason why there is none; neither for missing content."""
        if content is None:
            return None, None
        if modality == "text":
            return content_hash(content.encode()), None
        try:
            return content_hash(read_image_file(Path(self._job.image_root) / content)), None
        except UnusableContentError as error:
            return None, str(error)


class EmbedContent(beam.DoFn):
    """Encode content: ((modality, partition), content) -> name of the partition.

    Vectors are saved, and failures are written to the scratch folder.
    """

    def __init__(self, job: EmbeddingJob) -> None:
        self._job = job

    def setup(self) -> None:
        """Load the model: once per process, and not again where the driver has loaded it in this process.

        Raises:
          DataError: it is not the model of the driver.
        """
        self._encoder = load_encoder(self._job.spec)
        if (found := identity(self._job.spec, self._encoder)) != self._job.identity:
            raise DataError(
                f"model {self._job.spec.model}: a worker loaded another version ({found}) than the driver "
                f"({self._job.identity}); give --revision, or copy the same folder to all workers"
            )

    def process(self, element: tuple[tuple[str, int], Iterable[bytes]]) -> Iterator[str]:
        """Encode the distinct contents of one partition, batch by batch."""
        (modality, partition), streams = element
        table = from_bytes(streams)
        _, first = np.unique(hash_array(table["content_hash"]), return_index=True)
        distinct = table.take(pa.array(first))
        failed = []
        size = self._job.batch_sizes[modality]
        for start in range(0, len(distinct), size):
            batch = distinct.slice(start, size)
            failed += self._embed(modality, batch["content_hash"].to_pylist(), batch["content"].to_pylist())
        rows = [{"content_hash": name, "reason": reason} for name, reason in failed]
        self._job.scratch.write(f"failed.{modality}", partition, pa.Table.from_pylist(rows, schema=FAILED_SCHEMA))
        yield f"{modality}-{partition}"

    def _embed(self, modality: str, hashes: Sequence[str], contents: Sequence[str]) -> list[tuple[str, str]]:
        """Save the vectors of a batch; return hashes and reasons of content without one."""
        usable: list[tuple[str, Any]] = []
        failed: list[tuple[str, str]] = []
        for name, content in zip(hashes, contents, strict=True):
            try:
                usable.append((name, content if modality == "text" else self._image(name, content)))
            except UnusableContentError as error:
                failed.append((name, str(error)))
        if not usable:
            return failed
        vectors = encode(self._encoder, modality, [content for _, content in usable])
        finite = np.asarray(np.isfinite(vectors).all(axis=1))
        good = np.asarray(finite & vectors.any(axis=1))
        failed += [
            (name, "the encoder gave zeros" if is_finite else "the encoder gave NaN or infinity")
            for (name, _), is_good, is_finite in zip(usable, good, finite, strict=True)
            if not is_good
        ]
        if good.any():
            saved = [name for (name, _), is_good in zip(usable, good, strict=True) if is_good]
            self._job.batches[modality].save(saved, vectors[good])
        return failed

    def _image(self, name: str, path: str) -> Any:
        content = read_image_file(Path(self._job.image_root) / path)
        if content_hash(content) != name:
            raise UnusableContentError("file changed while it was read")
        return decode_image(content)
