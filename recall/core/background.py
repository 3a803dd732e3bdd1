"""Keeps account of work that repeats in the background: its last success, its failures, and when to try again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

_MOST_DOUBLINGS = 6
_QUIET_SECONDS = 600.0


class BackgroundState(NamedTuple):
    """Describe work in the background at a moment.

    Attributes:
      failures: consecutive failures; 0 after a success.
      last_success: Unix seconds; None before the first success.
      age_seconds: since the last success, or since the work began.
      error: kind of the last error; None after a success. Texts of errors may name files, so that they are in the log
        alone.
    """

    failures: int
    last_success: float | None
    age_seconds: float
    error: str | None


class BackgroundWork:
    """Note successes and failures. Threads may share it.

    Args:
      name: of the work, for people.
      every_seconds: time between two turns.
      most_seconds: longest time to the next turn after failures, which double it.
      clock: seconds since some moment, rising.

    Attributes:
      name: as the argument.
    """

    def __init__(
        self,
        name: str,
        *,
        every_seconds: float,
        most_seconds: float = 3_600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._every_seconds, self._most_seconds, self._clock = every_seconds, max(every_seconds, most_seconds), clock
        self._lock = threading.Lock()
        self._succeeded_at = clock()
        self._last_success: float | None = None
        self._failures = 0
        self._error: Exception | None = None
        self._said_at: dict[str, float] = {}

    def succeeded(self) -> None:
        """Note a success."""
        with self._lock:
            self._succeeded_at, self._last_success = self._clock(), time.time()
            self._failures, self._error = 0, None
            self._said_at.clear()

    def failed(self, error: Exception) -> bool:
        """Note a failure. Return whether to log it: the first one of a kind, and then one in ten minutes."""
        with self._lock:
            self._failures += 1
            self._error = error
            now, kind = self._clock(), _kind_of(error)
            if now - self._said_at.get(kind, -_QUIET_SECONDS) < _QUIET_SECONDS:
                return False
            self._said_at[kind] = now
            return True

    @property
    def error(self) -> Exception | None:
        """Return the error of the last turn; None if it succeeded."""
        return self._error

    @property
    def wait_seconds(self) -> float:
        """Return the time to the next turn; each consecutive failure doubles it."""
        if not self._failures:
            return self._every_seconds
        return float(min(self._most_seconds, self._every_seconds * 2 ** min(self._failures, _MOST_DOUBLINGS)))

    @property
    def state(self) -> BackgroundState:
        """Return the state of this moment."""
        with self._lock:
            age = self._clock() - self._succeeded_at
            kind = None if self._error is None else type(self._error).__name__
            return BackgroundState(self._failures, self._last_success, age, kind)


def _kind_of(error: Exception) -> str:
    """Name the kind of an error, by its number where the system gives one."""
    return f"{type(error).__name__} {getattr(error, 'errno', '')}"
