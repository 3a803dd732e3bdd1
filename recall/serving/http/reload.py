"""Watches a run and brings each new version into service without a failed request.

`snapshot.py` loads a version; `service.py` answers from it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import time
from pathlib import Path

import structlog

from recall.core.background import BackgroundWork
from recall.index.living.promise import OtherJournalError
from recall.serving.http.metrics import Metrics
from recall.serving.http.service import Service
from recall.serving.http.settings import ServiceSettings
from recall.serving.http.snapshot import Published, Snapshot, require_one_model
from recall.serving.items.served import Living

_log = structlog.get_logger("recall.serving")


class Reloader:
    """Load versions in a thread and swap each in as a whole.

    Polls two small files, as network file systems report no changes. A version that does not load is logged, and the
    version before goes on answering. So it is with whatever else fails: it is tried again, later each time.

    Attributes:
      work: successes and failures of the looks at the run.
    """

    def __init__(self, run: Path, service: Service, *, settings: ServiceSettings, metrics: Metrics) -> None:
        self._run, self._service, self._settings, self._metrics = run, service, settings, metrics
        self.work = BackgroundWork("reload", every_seconds=settings.reload_seconds, most_seconds=settings.retry_seconds)
        metrics.show(self.work)
        self._tried: Published | None = None
        self._failed_at: float | None = None

    def start_from(self, snapshot: Snapshot) -> None:
        """Serve a version that the caller has loaded."""
        self._tried = snapshot.published
        self._service.swap(snapshot)

    async def load(self) -> None:
        """Load the version that is published now.

        Raises:
          RecallError: it cannot be loaded; the version before, if there is one, still answers.
        """
        started, self._tried = time.perf_counter(), await asyncio.to_thread(Published.of, self._run)
        try:
            snapshot = await asyncio.to_thread(self._loaded)
        except Exception:
            self._failed_at = time.monotonic()
            self._metrics.reloads.labels("failed").inc()
            raise
        await asyncio.to_thread(settle)
        self._tried, self._failed_at = snapshot.published, None
        self._service.swap(snapshot)
        self._metrics.reloads.labels("loaded").inc()
        _log.info("loaded", version=snapshot.version, items=len(snapshot.recaller.index),
                  seconds=round(time.perf_counter() - started, 3))  # fmt: skip
        await asyncio.to_thread(give_back)

    async def watch(self) -> None:
        """Load new versions and follow the changes of another process, until cancelled."""
        while True:
            await asyncio.sleep(self._settings.reload_seconds)
            try:
                if await asyncio.to_thread(self._is_due):
                    await self.load()
                elif self._failed_at is None:
                    await asyncio.to_thread(self._service.follow)
                else:
                    continue
            except Exception as error:  # whatever it is, the version that answers goes on
                self._failed_at = time.monotonic()
                self.note(error)
            else:
                self.work.succeeded()

    def note(self, error: Exception) -> None:
        """Note a failure; log it if it is news."""
        if self.work.failed(error):
            version = self._service.snapshot.version if self._service.is_ready else None
            with contextlib.suppress(Exception):  # what cannot be logged is no reason to end
                _log.error("not loaded", error=str(error), kind=type(error).__name__, still_serving=version)

    def _loaded(self) -> Snapshot:
        writes = self._settings.allow_writes
        living: Living = True if writes else "read_only"
        if not self._service.is_ready:
            return Snapshot.load(self._run, living=living)
        published, now = Published.of(self._run), self._service.snapshot
        if published.model == now.published.model and now.recaller.is_living:
            try:
                return now.refreshed(published)
            except OtherJournalError:  # only a new beginning reads it
                if writes:
                    raise
        if not writes:
            return Snapshot.load(self._run, living=living)
        require_one_model(self._run)  # a version that is not whole yet is no reason to stop writing
        return self._service.take_over(lambda: Snapshot.load(self._run, living=True))

    def _is_due(self) -> bool:
        """Tell whether a new version is published, or the wait before another try is over."""
        if Published.of(self._run) != self._tried:
            return True
        return self._failed_at is not None and time.monotonic() - self._failed_at >= self.work.wait_seconds


def settle() -> None:
    """Take all objects that are there out of the sight of Python's garbage collector.

    It holds all threads while it looks at every object. With TensorFlow and a run loaded these are about a million, and
    a large body is enough to start it: without this call /healthz waited for seconds (benchmarks/service_fuzz).
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def give_back() -> None:
    """Return freed memory to the operating system where the C library is glibc; else do nothing.

    A replaced version frees some hundred megabytes, which the arenas of many threads keep: without this call the
    resident memory of a service grows with every version for a while (benchmarks/serving).
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
