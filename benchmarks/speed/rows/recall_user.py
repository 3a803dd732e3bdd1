"""Users in, candidate ids out: what serving adds to a search with a vector that is ready."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed.community import stored_run, user_ids
from benchmarks.speed.vectors import K

_WARM_UP, _SINGLY, _BATCH = 100, 1_000, 256


def prepare(scratch: Path, *, system: str, items: int, clicks: int = 0) -> None:
    """Makes the run, which the rows on encoding and start share."""
    del system, clicks
    stored_run(scratch.parent, items)


def measure(scratch: Path, *, system: str, items: int, clicks: int = 0) -> dict[str, float]:
    """Latency of one user at a time, and throughput of batches of 256, each user asked once.

    Every call is followed by one of ScaNN's pybind search, at the index's settings, with a vector that is ready: the
    time of day hits both. So each case has its own `raw_*` numbers to be held against. The vector is another user's:
    the same one's would find in the caches what the call before has read, which no caller's would (a million items:
    80 us in the place of 105 us).

    Args:
      scratch: the run is beside it.
      system: `recall`, Recaller.recall with all its checks, histories of the log, and what was seen left out;
        `recall-all`, seen items not left out; `tensorflow`, the same but the user tower asked as SavedModel.
      items: size of the catalogue.
      clicks: if above 0, every user is asked with a history of so many clicks that the call brings.

    Returns:
      p50_us, p99_us, raw_p50_us, raw_p99_us, batch_users_per_second, raw_batch_users_per_second.
    """
    from recall.serving.recaller import Recaller

    recaller = Recaller.load(stored_run(scratch.parent, items))
    if system == "tensorflow":
        recaller.user_queries.vectors.arrays = None
    users = user_ids()
    histories = _histories(recaller.index.ids, users, clicks) if clicks else None
    settings = {"k": K, "histories": histories, "exclude_seen": system != "recall-all"}
    asked = [histories[user] if histories else recaller.user_queries.logged.clicked(user) for user in users]
    vectors = np.concatenate([recaller.user_vectors([user], [own]) for user, own in zip(users, asked, strict=True)])
    raw_one, raw_batch = _raw(recaller.index)

    def one(user: str) -> None:
        given = {**settings, "histories": {user: histories[user]}} if histories else settings
        assert recaller.recall([user], **given).ids.shape == (1, K)

    for user, vector in zip(users[:_WARM_UP], vectors, strict=False):
        one(user)
        raw_one(vector)
    ours, raw = [], []
    others = np.roll(vectors, len(vectors) // 2, axis=0)
    for user, vector in zip(users[_WARM_UP : _WARM_UP + _SINGLY], others[_WARM_UP:], strict=False):
        ours.append(_seconds(one, user))
        raw.append(_seconds(raw_one, vector))
    batched, raw_batched = [], []
    for start in range(0, len(users) - _BATCH + 1, _BATCH):
        part = users[start : start + _BATCH]
        given = {**settings, "histories": {user: histories[user] for user in part}} if histories else settings
        batched.append(_seconds(lambda names, own=given: recaller.recall(names, **own).ids, part))
        raw_batched.append(_seconds(raw_batch, others[start : start + _BATCH]))
    return {
        "p50_us": _microseconds(ours, 50),
        "p99_us": _microseconds(ours, 99),
        "raw_p50_us": _microseconds(raw, 50),
        "raw_p99_us": _microseconds(raw, 99),
        "batch_users_per_second": _BATCH / float(np.median(batched)),
        "raw_batch_users_per_second": _BATCH / float(np.median(raw_batched)),
    }


def _raw(index: Any) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """ScaNN's own calls, for a vector and for several, at the settings of an index."""
    searcher = index.searcher
    leaves, rescored = index.scann_settings.effort(K, len(index))
    return (
        lambda vector: searcher.search(vector, K, rescored, leaves),
        lambda vectors: searcher.search_batched_parallel(vectors, K, rescored, leaves),
    )


def _histories(ids: np.ndarray, users: Sequence[str], clicks: int) -> dict[str, list[str]]:
    random = np.random.default_rng(5)
    return {user: ids[random.integers(0, len(ids), clicks)].tolist() for user in users}


def _seconds(ask: Callable[[Any], Any], what: Any) -> float:
    started = time.perf_counter()
    ask(what)
    return time.perf_counter() - started


def _microseconds(seconds: Sequence[float], percentile: float) -> float:
    return 1e6 * float(np.percentile(seconds, percentile))
