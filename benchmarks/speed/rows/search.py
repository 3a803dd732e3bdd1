"""The k best of many items for a query: our index and its peers, each over its own effort parameter."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

from benchmarks.speed import scann_search
from benchmarks.speed.peers.vector_search import PEERS, Effort
from benchmarks.speed.vectors import Matrix, recall_of, stored

_COLUMNS = ("effort", "recall", "queries_per_second", "batch_queries_per_second")
_SECONDS = 0.4  # per point, for single queries and for batches each
_BATCH = 256
_ENOUGH_RECALL = 0.998  # more effort has nothing to say


def prepare(scratch: Path, *, system: str, items: int, dim: int = 64, cores: int = 1) -> None:
    """Makes the vectors, and builds an index once for all its efforts and repeats."""
    del cores
    vectors, _, _ = stored(scratch, items, dim=dim)
    folder = _folder(scratch, system, items, dim)
    if (folder / "seconds").exists():
        return
    os.sched_setaffinity(0, range(os.cpu_count() or 1))  # searched on some cores, built on all
    folder.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    if system in scann_search.SYSTEMS:
        scann_search.build(vectors, folder)
    else:
        PEERS[system].build(vectors, folder / "index")
    (folder / "seconds").write_text(str(time.perf_counter() - started))


def measure(scratch: Path, *, system: str, items: int, dim: int = 64, cores: int = 1) -> dict[str, float | list[float]]:
    """Recall@100 against queries per second, a point per effort.

    Recall is of the first 500 queries, asked as a batch; one query at a time and batches of 256 are then timed with
    the other ones, in turn for a second per point. What `recall` gives includes the items' ids as strings.

    Args:
      scratch: holds vectors and indexes.
      system: `recall`, Index.search with its checks and ids at the settings of the curve; `scann`, the searcher inside
        it called as ScaNN documents it; `scann-ids`, the same with a list of ids; or one of `PEERS`.
      items: size of the catalogue.
      dim: width of the vectors.
      cores: threads of a batch.

    Returns:
      Lists effort, recall, single_queries_per_second, batch_queries_per_second, by rising effort; build_seconds;
      and for `recall` what `build_index` chose by itself: tuned_recall_95, tuned_queries_per_second_95 and the same
      with 99.
    """
    vectors, asked, best = stored(scratch, items, dim=dim)
    folder = _folder(scratch, system, items, dim)
    is_scann = system in scann_search.SYSTEMS
    efforts = scann_search.efforts(system, folder) if is_scann else PEERS[system].efforts(folder / "index", cores)
    judged, timed = asked[: len(best)], asked[len(best) :]
    points: list[tuple[float, float, float, float]] = []
    for effort in efforts:
        found = recall_of(effort.rows(effort.batch(judged)), vectors, judged, best)
        points.append((effort.value, found, _singly(effort, timed), _in_batches(effort, timed)))
        if not is_scann and found >= _ENOUGH_RECALL:
            break
    columns = np.array(points, float).T  # [4, points]
    measured: dict[str, float | list[float]] = dict(zip(_COLUMNS, columns.tolist(), strict=True))
    for target in (0.95, 0.99):
        for name, values in zip(_COLUMNS[2:], columns[2:], strict=True):
            if (reached := columns[1] >= target).any():
                measured[f"{name}_at_{100 * target:.0f}"] = float(values[reached].max())
    return {**measured, "build_seconds": float((folder / "seconds").read_text())}


def _singly(effort: Effort, asked: Matrix) -> float:
    """Queries per second."""
    for query in asked[:50]:
        effort.one(query)
    done, end, started = 0, time.perf_counter() + _SECONDS, time.perf_counter()
    while time.perf_counter() < end:
        for query in asked[done % len(asked) : done % len(asked) + 50]:
            effort.one(query)
            done += 1
    return done / (time.perf_counter() - started)


def _in_batches(effort: Effort, asked: Matrix) -> float:
    """Queries per second."""
    batches = [asked[start : start + _BATCH] for start in range(0, len(asked) - _BATCH + 1, _BATCH)]
    done, end, started = 0, time.perf_counter() + _SECONDS, time.perf_counter()
    while time.perf_counter() < end or not done:
        effort.batch(batches[done % len(batches)])
        done += 1
    return done * _BATCH / (time.perf_counter() - started)


def _folder(scratch: Path, system: str, items: int, dim: int) -> Path:
    return scratch / f"{'scann' if system in scann_search.SYSTEMS else system}-{items}x{dim}"
