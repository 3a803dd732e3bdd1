"""The k best of many items for a query: our index and its peers, each over its own effort parameter."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed import scann_search
from benchmarks.speed.peers.vector_search import GRAPHS, PEERS, Effort
from benchmarks.speed.vectors import Matrix, recall_of, stored

_RATES = ("queries_per_second", "batch_queries_per_second")
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
    the other ones. What `recall` gives includes the items' ids as strings. In turns with it, at the same settings and
    in the same process, ScaNN's own calls are timed: what disturbs the machine for a second disturbs both.

    Args:
      scratch: holds vectors and indexes.
      system: `recall`, Index.search with its checks and ids at the settings of the curve; `recall-tuned`, at what
        `build_index` and `tune` chose by themselves; `scann`, the searcher inside it called as ScaNN documents it;
        `scann-ids`, the same with a list of ids; or one of `PEERS`.
      items: size of the catalogue.
      dim: width of the vectors.
      cores: threads of a batch.

    Returns:
      Lists effort, recall, queries_per_second, batch_queries_per_second, a number for each effort; of `recall` the
      last two also with the prefixes scann_ and scann_ids_; the best of them at a recall of 0.95 and of 0.99, as
      queries_per_second_at_95 and so on, where there is one; build_seconds.
    """
    vectors, asked, best = stored(scratch, items, dim=dim)
    folder = _folder(scratch, system, items, dim)
    is_scann = system in scann_search.SYSTEMS
    efforts = scann_search.efforts(system, folder) if is_scann else PEERS[system].efforts(folder / "index", cores)
    judged, timed = asked[: len(best)], asked[len(best) :]
    points: list[dict[str, float]] = []
    for effort in efforts:
        found = recall_of(effort.rows(effort.batch(judged)), vectors, judged, best)
        points.append({"effort": effort.value, "recall": found, **_rates(effort, timed)})
        if not is_scann and found >= _ENOUGH_RECALL:
            break
    columns = {name: np.array([point[name] for point in points]) for name in points[0]}
    measured: dict[str, float | list[float]] = {name: values.tolist() for name, values in columns.items()}
    for target in (0.95, 0.99):
        if (reached := columns["recall"] >= target).any():
            for name in _RATES:
                measured[f"{name}_at_{100 * target:.0f}"] = float(columns[name][reached].max())
    return {**measured, "build_seconds": float((folder / "seconds").read_text())}


def _rates(effort: Effort, asked: Matrix) -> dict[str, float]:
    """Queries per second, singly and in batches, of an effort and of what is beside it."""
    all_efforts = {"": effort, **effort.beside}
    singly = [_one_by_one(own.one) for own in all_efforts.values()]
    in_batches = [own.batch for own in all_efforts.values()]
    rates = (_in_turns(singly, asked, together=50), _in_turns(in_batches, asked, together=_BATCH))
    return {
        f"{prefix}{name}": rate
        for name, of_name in zip(_RATES, rates, strict=True)
        for prefix, rate in zip(all_efforts, of_name, strict=True)
    }


def _one_by_one(ask: Callable[[Matrix], Any]) -> Callable[[Matrix], Any]:
    def ask_each(queries: Matrix) -> None:
        for query in queries:
            ask(query)

    return ask_each


def _in_turns(systems: Sequence[Callable[[Matrix], Any]], asked: Matrix, *, together: int) -> list[float]:
    """Queries per second of each system, so many queries at a turn.

    Each goes through the queries at a place of its own: what another one has just read is in the caches.
    """
    parts = [asked[start : start + together] for start in range(0, len(asked) - together + 1, together)]
    seconds, turn = [0.0] * len(systems), 0
    for ask in systems:
        ask(parts[-1])
    while sum(seconds) < _SECONDS * len(systems):
        for place, ask in enumerate(systems):
            part = parts[(turn + place * len(parts) // len(systems)) % len(parts)]
            started = time.perf_counter()
            ask(part)
            seconds[place] += time.perf_counter() - started
        turn += 1
    return [turn * together / own for own in seconds]


def _folder(scratch: Path, system: str, items: int, dim: int) -> Path:
    width = dim + 1 if system in GRAPHS else dim
    return scratch / f"{'scann' if system in scann_search.SYSTEMS else system}-{items}x{width}"
