"""A finished run on a community of any size: what serving and encoding are measured with.

`recall simulate` models every exposure and takes too long for a million items. Here items have topics, users like three
of them, and who was shown what is drawn at once; the run that follows is the library's own, one epoch long.
"""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

_USERS, _EXPOSURES, _TOPICS, _AUTHOR_ITEMS, _TEXT = 2_000, 150_000, 200, 20, 32
_DAY_MS = 86_400_000
_EXPERIMENT = """\
data:
  events: {path: events.parquet, user: user_id, item: item_id, time: time_ms, time_unit: ms, click: is_click}
  items: {path: items.parquet, id: item_id}
  users: {path: users.parquet, id: user_id}
  history: 50
features:
  user: [{name: user_id, type: id}, {name: age_band, type: category}, {name: region, type: category}]
  behaviour: [{name: item_id, type: id}, {name: author_id, type: id}]
  meta: [{name: category, type: category}, {name: tags, type: tags}, {name: duration_s, type: number, log: true},
         {name: text, type: embedding}]
training: {epochs: 1, batch_size: 1024, learning_rate: 0.003}
index: {kind: scann, cold_bias: 0}
seed: 1
"""


def stored_run(folder: Path, items: int, *, index: bool = True) -> Path:
    """The run directory for a catalogue, made if need be: data, model, vectors and index, with the default model."""
    from recall.config.experiment import load_config
    from recall.runs.run import Run

    run = folder / f"run-{items}"
    done = run / ("indexed" if index else "trained")
    if not any(path.exists() for path in (done, run / "indexed")):  # what is indexed was trained
        source = folder / f"community-{items}"
        if not source.exists():
            _write(source.with_suffix(".partial"), items)
            source.with_suffix(".partial").rename(source)
        steps = Run(load_config(source / "experiment.yaml"), run, console=Console(file=io.StringIO()))
        steps.prepare()
        steps.train()
        if index:
            steps.vectors()
            steps.index()
        done.touch()
    return run


def user_ids() -> list[str]:
    """Everybody that the log knows."""
    return [f"user-{row:05d}" for row in range(_USERS)]


def item_ids(items: int) -> list[str]:
    """The catalogue by row."""
    return [f"item-{row:08d}" for row in range(items)]


def _write(folder: Path, items: int) -> None:
    """events, items and users (.parquet) and experiment.yaml."""
    random = np.random.default_rng(1)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    topic = np.sort(random.integers(0, _TOPICS, items))
    ids = np.array(item_ids(items), object)
    of_topics = random.standard_normal((_TOPICS, _TEXT)).astype(np.float32)
    text = of_topics[topic] + 0.7 * random.standard_normal((items, _TEXT), dtype=np.float32)
    tags = np.stack([topic, random.integers(0, _TOPICS, items)], axis=1).ravel()
    columns = {
        "item_id": ids,
        "author_id": np.char.add("author-", (np.arange(items) // _AUTHOR_ITEMS).astype(str)),
        "category": np.char.add("category-", (topic % 20).astype(str)),
        "tags": pa.ListArray.from_arrays(
            np.arange(0, 2 * items + 1, 2, dtype=np.int32), np.char.add("t", tags.astype(str))
        ),
        "duration_s": np.round(random.lognormal(3.5, 0.8, items), 1),
        "text": pa.FixedSizeListArray.from_arrays(pa.array(text.ravel()), _TEXT),
    }
    pq.write_table(pa.table(columns), folder / "items.parquet")

    liked = random.integers(0, _TOPICS, (_USERS, 3))
    users = np.array(user_ids(), object)
    profile = {name: np.char.add(name, random.integers(0, many, _USERS).astype(str)) for name, many in
               (("age_band", 6), ("region", 12))}  # fmt: skip
    pq.write_table(pa.table({"user_id": users, **profile}), folder / "users.parquet")

    user = random.integers(0, _USERS, _EXPOSURES)
    wanted = np.where(random.random(_EXPOSURES) < 0.7, liked[user, random.integers(0, 3, _EXPOSURES)], -1)
    of_wanted = np.searchsorted(topic, wanted) + random.integers(0, items // _TOPICS, _EXPOSURES)
    shown = np.where(wanted >= 0, of_wanted, random.integers(0, items, _EXPOSURES)).clip(max=items - 1)
    is_liked = (liked[user] == topic[shown][:, np.newaxis]).any(axis=1)
    events = {
        "user_id": users[user],
        "item_id": ids[shown],
        "time_ms": np.sort(random.integers(0, 14 * _DAY_MS, _EXPOSURES)) + 1_750_000_000_000,
        "is_click": random.random(_EXPOSURES) < np.where(is_liked, 0.6, 0.05),
    }
    pq.write_table(pa.table(events), folder / "events.parquet")
    (folder / "experiment.yaml").write_text(_EXPERIMENT)
