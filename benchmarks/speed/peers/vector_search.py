"""Other libraries that search vectors, each in the setting that its documentation recommends for high recall.

Graphs get vectors of one length (`of_one_length`): at a million items their recall@100 of inner products ended at 0.91
to 0.93 without.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from benchmarks.speed.vectors import K, Matrix

Rows = npt.NDArray[np.integer]

_WIDTHS = (100, 140, 200, 280, 400, 600, 900, 1400, 2200)  # of a graph search
_PROBES = (2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 160)
# Candidates that IVF-PQ rescores by their vectors, as multiples of K: probes say where to look, these how closely.
_RESCORED = ((5, _PROBES[:8]), (10, _PROBES[3:]), (20, _PROBES[4:]), (40, _PROBES[5:]))


class Effort(NamedTuple):
    """A point of a curve: a system set to search as hard as `value` says.

    Points of one system share the index: each has to be used up before the next is taken.

    Attributes:
      value: of the effort parameter.
      one: a query [dim] -> whatever the system gives of it.
      batch: queries [batch, dim] -> likewise.
      rows: what `batch` gave -> rows [batch, K]; outside of what is timed.
      beside: what else is timed in turns with it, by the prefix of its measures.
    """

    value: float
    one: Callable[[Matrix], Any]
    batch: Callable[[Matrix], Any]
    rows: Callable[[Any], Rows]
    beside: Mapping[str, Effort] = {}


class Peer(Protocol):
    """A library that searches."""

    def build(self, vectors: Matrix, path: Path) -> None:
        """Makes an index on all cores and writes it."""

    def efforts(self, path: Path, cores: int) -> Iterator[Effort]:
        """Reads it and searches on some cores, harder and harder."""


class Faiss:
    """An index of faiss by its factory string, in which {leaves} is 4 sqrt(items), as faiss's guide has it.

    Args:
      factory: see faiss's wiki, "The index factory".
      efforts: what `ParameterSpace` sets, e.g. nprobe=8,k_factor_rf=5, and the number that stands for it.
    """

    def __init__(self, factory: str, efforts: Sequence[tuple[int, str]]) -> None:
        self._factory, self._efforts = factory, efforts
        self._is_graph = "HNSW" in factory

    def build(self, vectors: Matrix, path: Path) -> None:
        """Trains on 64 points per partition, of the 39 to 256 that faiss asks for."""
        import faiss

        faiss.omp_set_num_threads(os.cpu_count() or 1)
        leaves = round(4 * len(vectors) ** 0.5)
        if self._is_graph:
            vectors = of_one_length(vectors)
        index = faiss.index_factory(vectors.shape[1], self._factory.format(leaves=leaves), faiss.METRIC_INNER_PRODUCT)
        if self._is_graph:
            index.hnsw.efConstruction = 128
        else:
            ivf = faiss.extract_index_ivf(index)
            ivf.cp.max_points_per_centroid = 64
        index.train(vectors)
        index.add(vectors)
        faiss.write_index(index, str(path))

    def efforts(self, path: Path, cores: int) -> Iterator[Effort]:
        """As `Peer`."""
        import faiss

        faiss.omp_set_num_threads(cores)
        index, space = faiss.read_index(str(path)), faiss.ParameterSpace()
        asked = with_zero if self._is_graph else np.asarray
        for value, parameters in self._efforts:
            space.set_index_parameters(index, parameters)
            yield Effort(
                value,
                lambda query: index.search(asked(query[np.newaxis]), K),
                lambda batch: index.search(asked(batch), K),
                lambda found: found[1],
            )


def of_one_length(vectors: Matrix) -> Matrix:
    """Items with one more dimension that makes all equally long: inner products with [query, 0] are as before.

    A graph is walked from neighbour to neighbour, and by inner product everybody's neighbours are the longest items,
    so that many of the others cannot be reached. What faiss's wiki ("MetricType and distances") and hnswlib's issues
    advise for maximum inner product search (Bachrach et al., RecSys 2014).
    """
    squares = np.einsum("id,id->i", vectors, vectors)
    return np.concatenate([vectors, np.sqrt(squares.max() - squares)[:, np.newaxis]], axis=1)


def with_zero(queries: Matrix) -> Matrix:
    """Queries for what `of_one_length` made: float32 [..., dim] -> [..., dim + 1]."""
    longer = np.zeros((*queries.shape[:-1], queries.shape[-1] + 1), np.float32)
    longer[..., :-1] = queries
    return longer


class Hnswlib:
    """hnswlib with M = 16 and ef_construction = 200, the values of its documentation."""

    def build(self, vectors: Matrix, path: Path) -> None:
        """As `Peer`."""
        import hnswlib

        vectors = of_one_length(vectors)
        index = hnswlib.Index(space="ip", dim=vectors.shape[1])
        index.init_index(max_elements=len(vectors), ef_construction=200, M=16)
        index.add_items(vectors, num_threads=os.cpu_count() or 1)
        index.save_index(str(path))
        (path.parent / "dim").write_text(str(vectors.shape[1]))

    def efforts(self, path: Path, cores: int) -> Iterator[Effort]:
        """As `Peer`."""
        import hnswlib

        index = hnswlib.Index(space="ip", dim=int((path.parent / "dim").read_text()))
        index.load_index(str(path))
        index.set_num_threads(cores)
        for width in _WIDTHS:
            index.set_ef(width)
            yield Effort(
                width,
                lambda query: index.knn_query(with_zero(query), k=K, num_threads=1),
                lambda batch: index.knn_query(with_zero(batch), k=K),
                lambda found: found[0].astype(np.int64),
            )


class Usearch:
    """usearch with its defaults, in float32 as all others."""

    def build(self, vectors: Matrix, path: Path) -> None:
        """As `Peer`."""
        from usearch.index import Index

        vectors = of_one_length(vectors)
        index = Index(ndim=vectors.shape[1], metric="ip", dtype="f32")
        index.add(np.arange(len(vectors)), vectors, threads=os.cpu_count() or 1)
        index.save(str(path))

    def efforts(self, path: Path, cores: int) -> Iterator[Effort]:
        """As `Peer`."""
        from usearch.index import Index

        index = Index.restore(str(path))
        for width in _WIDTHS:
            index.expansion_search = width
            yield Effort(
                width,
                lambda query: index.search(with_zero(query), K, threads=1),
                lambda batch: index.search(with_zero(batch), K, threads=cores),
                lambda found: found.keys.astype(np.int64),
            )


PEERS: dict[str, Peer] = {
    "faiss-ivf-flat": Faiss("IVF{leaves},Flat", [(probes, f"nprobe={probes}") for probes in _PROBES]),
    # 4-bit codes compared in registers and the best of them by their vectors: faiss's fastest on CPUs.
    "faiss-ivf-pq": Faiss(
        "IVF{leaves},PQ32x4fs,RFlat",
        [(probes, f"nprobe={probes},k_factor_rf={times}") for times, several in _RESCORED for probes in several],
    ),
    "faiss-hnsw": Faiss("HNSW32,Flat", [(width, f"efSearch={width}") for width in _WIDTHS]),
    "hnswlib": Hnswlib(),
    "usearch": Usearch(),
}

GRAPHS = ("faiss-hnsw", "hnswlib", "usearch")
"""Those that get one more dimension."""
