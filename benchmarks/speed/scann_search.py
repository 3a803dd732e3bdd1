"""Our index and the ScaNN searcher inside it, at the same settings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed.peers.vector_search import Effort
from benchmarks.speed.vectors import K, Matrix, ids_of, queries_of
from recall.config.index import IndexConfig
from recall.core.artifacts import write_json
from recall.index import build_index, load_index, save_index
from recall.index.build.tuning import tune
from recall.index.results import SearchResult
from recall.index.scann import ScannIndex

SYSTEMS = ("recall", "recall-tuned", "scann", "scann-ids")
"""Index.search, ids included, over a grid of settings; the same at the settings that tuning chose for 0.95 and 0.99;
ScaNN's own calls over the grid, which give rows; and these with the rows looked up in an array of ids."""

# Leaves searched in a hundred -> candidates rescored: the band of the grid in which the frontier lies.
_GRID = {
    0.7: (150, 250, 400),
    1.1: (150, 250, 400),
    1.8: (150, 250, 400),
    3.0: (150, 250, 400, 700),
    5.0: (150, 250, 400, 700),
    9.0: (250, 400, 700, 1200),
    15.0: (250, 700, 1200, 2000),
    25.0: (250, 700, 2000),
    45.0: (250,),
}
_TARGETS = (0.95, 0.99)


def build(vectors: Matrix, folder: Path) -> None:
    """Builds, tunes by queries that nothing else is measured with, and writes."""
    like_asked = queries_of(vectors, 500, seed=4)
    config = IndexConfig(kind="scann", k=K, target_recall=_TARGETS[0])
    index = build_index(ids_of(len(vectors)), vectors, config=config, sample_queries=like_asked)
    assert isinstance(index, ScannIndex)
    tuned = [index, *(tune(index, like_asked, k=K, target=target).index for target in _TARGETS[1:])]
    save_index(index, folder / "index", fingerprint="")
    write_json(folder / "tuned.json", [_settings(one) for one in tuned if one])


def efforts(system: str, folder: Path) -> Iterator[Effort]:
    """Opens what `build` wrote and searches; the effort of a point is the number of leaves searched.

    Points of `recall` have ScaNN's own calls at the same settings beside them.
    """
    index = load_index(folder / "index")
    assert isinstance(index, ScannIndex)
    if system == "recall-tuned":
        for settings in json.loads((folder / "tuned.json").read_text()):
            yield _ours(index.with_effort(**settings))
        return
    for percent, several in _GRID.items():
        leaves = max(1, round(index.settings["leaves"] * percent / 100))
        for rescored in several:
            at_effort = index.with_effort(leaves_to_search=leaves, reorder=rescored)
            if system == "recall":
                beside = {"scann_": _raw(at_effort, with_ids=False), "scann_ids_": _raw(at_effort, with_ids=True)}
                yield _ours(at_effort)._replace(beside=beside)
            else:
                yield _raw(at_effort, with_ids=system == "scann-ids")


def _settings(index: ScannIndex) -> dict[str, int]:
    return {name: index.settings[name] for name in ("leaves_to_search", "reorder")}


def _ours(index: ScannIndex) -> Effort:
    def batch(queries: Matrix) -> SearchResult:
        found = index.search(queries, K)
        assert found.ids is not None  # looked up when it is asked for
        return found

    leaves = index.settings["leaves_to_search"]
    return Effort(leaves, lambda query: index.search(query, K).ids, batch, lambda found: found.rows)


def _raw(index: ScannIndex, *, with_ids: bool) -> Effort:
    """ScaNN's pybind interface as its README calls it; ids by an array of them.

    ScaNN would look up ids itself, in a list and one by one: 300 us a query where this takes 10.
    """
    leaves, rescored = index.settings["leaves_to_search"], index.settings["reorder"]
    searcher, ids = index._searcher, index.ids

    def one(query: Matrix) -> Any:
        rows, scores = searcher.search(query, K, rescored, leaves)
        return (ids[rows] if with_ids else rows), scores

    def batch(queries: Matrix) -> Any:
        rows, scores = searcher.search_batched_parallel(queries, K, rescored, leaves)
        return rows, (ids[rows] if with_ids else None), scores

    return Effort(leaves, one, batch, lambda found: found[0].astype(np.int64))
