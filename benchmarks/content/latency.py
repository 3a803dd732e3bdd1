"""What a query vector costs online: the exported user tower and its students, asked in turn about the same users.

Time does not depend on what weights have learned, so nothing is trained.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tensorflow as tf

from benchmarks.content.tables import LATENCY
from benchmarks.quality.data import DataFolder
from benchmarks.quality.sweep import Sweep
from recall.config.experiment import Config
from recall.core.artifacts import write_json
from recall.core.environment import commit, versions
from recall.data.prepared import PreparedData
from recall.model.recall_model import RecallModel
from recall.model.saved_model import QueryModule
from recall.runs.latency import BATCH_SIZES, query_latency_ms

TEACHERS = ("transformer", "attention")
KINDS = ("attention", "mean")
_ROUNDS = 5


def measure_latency(sweep: Sweep, folder: DataFolder, results: Path, *, group: str = "distillation") -> None:
    """Measures on the data sets of a group and writes latency.json: per data set and pair, milliseconds per call.

    Each of several rounds asks the large tower and the student in turn; `teacher` and `student` are medians of rounds.
    """
    measured = {
        data: {f"{teacher}, {kind}": _of_pair(folder, data, teacher, kind) for teacher in TEACHERS for kind in KINDS}
        for data in sweep.groups[group].data
    }
    environment = {
        "commit": commit(),
        "versions": {"python": platform.python_version(), **versions()},
        "cores": os.cpu_count(),
    }
    write_json(results / LATENCY, {"measured": measured, "environment": environment})


def _of_pair(folder: DataFolder, data: str, teacher: str, kind: str) -> dict[str, Any]:
    config = folder.config(data, [f"model.history_encoder={teacher}", f"model.student={{kind: {kind}}}"])
    prepared = folder.prepare(data, config)
    with TemporaryDirectory(prefix="recall-latency-") as scratch:
        _export(config, prepared, Path(scratch))
        rounds = [query_latency_ms(Path(scratch), prepared, seed=seed) for seed in range(_ROUNDS)]
    found = {}
    for size in BATCH_SIZES:
        times = {
            name: sorted(one[f"{signature}_query_of_{size}_ms"] for one in rounds)[_ROUNDS // 2]
            for name, signature in (("teacher", "user"), ("student", "student"))
        }
        found[str(size)] = times
    return found


def _export(config: Config, prepared: PreparedData, run: Path) -> None:
    model = RecallModel(config, prepared)
    model.build_layers()
    query = QueryModule(model, prepared.item_ids, prepared.history_vocabularies)
    tf.saved_model.save(query, str(run / "model" / "query"), signatures=query.functions)
