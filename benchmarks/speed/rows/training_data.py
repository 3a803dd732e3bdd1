"""A log of exposures becomes training examples; by the library, by polars, and by Beam element by element."""

from __future__ import annotations

import importlib
import shutil
import time
from pathlib import Path

from benchmarks.speed.logs import write_log

_EXPERIMENT = """
data:
  events: {{path: "{log}/log-*.parquet", user: user_id, item: item_id, time: time_ms, time_unit: ms, click: is_click}}
  items: {{path: "{log}/items.parquet", id: item_id}}
  history: 20
  shards: {shards}
  split: {{by: time, validation: 0.1, test: 0.1}}
  posterior: {{bucket: 1h, delay: 1h}}
features:
  user: [{{name: user_id, type: id}}]
  behaviour: [{{name: item_id, type: id}}, {{name: author_id, type: id}}]
  meta: [{{name: category, type: category}}, {{name: duration_s, type: number}}]
"""
_PEERS = {"polars": "polars_job", "naive Beam": "beam_elements"}


def prepare(scratch: Path, *, system: str, events: int, shards: int = 4) -> None:
    """Writes the log."""
    del system, shards
    write_log(scratch / f"log-{events}", events=events)


def measure(scratch: Path, *, system: str, events: int, shards: int = 4) -> dict[str, float]:
    """Seconds from the first look at the log to the last file written.

    Args:
      scratch: holds the log.
      system: `recall`, `polars` or `naive Beam`.
      events: length of the log.
      shards: of the library's; a log that is too short to be cut further has a partition for each.
    """
    log, out = scratch / f"log-{events}", scratch / f"out-{system.replace(' ', '-')}-{events}"
    shutil.rmtree(out, ignore_errors=True)
    job = _library_job(log, shards) if system == "recall" else _peer_job(system, log)
    started = time.perf_counter()
    job(out)
    seconds = time.perf_counter() - started
    written = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    shutil.rmtree(out)
    return {"seconds": seconds, "events_per_second": events / seconds, "bytes_written": float(written)}


def write_experiment(log: Path, *, shards: int = 4) -> Path:
    """The experiment file of a log, beside its files; the peers do what it says."""
    path = log / "experiment.yaml"
    path.write_text(_EXPERIMENT.format(log=log, shards=shards))
    return path


def _library_job(log: Path, shards: int):  # type: ignore[no-untyped-def]
    from pipelines.training_data import prepare as prepare_data
    from recall.config.experiment import load_config

    config = load_config(write_experiment(log, shards=shards))
    return lambda out: prepare_data(config, out)


def _peer_job(system: str, log: Path):  # type: ignore[no-untyped-def]
    peer = importlib.import_module(f"benchmarks.speed.peers.{_PEERS[system]}")
    return lambda out: peer.prepare(log, out)
