"""Rebalances a living index in the background, once it has moved far enough from its built base."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import threading

from recall.core.background import BackgroundWork
from recall.core.errors import ArtifactError, ConfigError
from recall.index.living.drift import Drift
from recall.index.living.index import LivingIndex

_LOGGER = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class RebalancePolicy:
    """Decide when a living index is built anew. Any one reason is enough.

    Attributes:
      most_recent_share: of the items; recent items are compared one by one, so this bounds the cost of a search.
      most_gone_share: of the base's items; the base still compares them, for nothing.
      least_recall: of a sample of queries near recent items, see `Drift.recall`. None does not measure it, which would
        take an exact search for each query of the sample.
      least_changes: least number of recent and gone items together that is a reason.
      check_every_seconds: time between two checks.
    """

    most_recent_share: float = 0.1
    most_gone_share: float = 0.2
    least_recall: float | None = None
    least_changes: int = 1_000
    check_every_seconds: float = 60.0

    def __post_init__(self) -> None:
        for name in ("most_recent_share", "most_gone_share", "least_recall"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ConfigError(f"{name}: expected a share from 0 to 1, found {value}")
        if self.least_changes < 1:
            raise ConfigError(f"least_changes: expected at least 1, found {self.least_changes}")
        if not 0 < self.check_every_seconds < math.inf:
            raise ConfigError(f"check_every_seconds: expected more than 0, found {self.check_every_seconds}")

    def reason(self, drift: Drift) -> str | None:
        """Return the reason to rebalance an index with this drift; None without one."""
        if drift.items == 0 or drift.recent + drift.gone < self.least_changes:
            return None
        if drift.recent_share > self.most_recent_share:
            return f"{drift.recent_share:.1%} of the items are recent, more than {self.most_recent_share:.1%}"
        if drift.gone_share > self.most_gone_share:
            return f"{drift.gone_share:.1%} of the built items are gone, more than {self.most_gone_share:.1%}"
        if self.least_recall is not None and drift.recall is not None and drift.recall < self.least_recall:
            return f"recall near recent items is {drift.recall:.3f}, less than {self.least_recall:.3f}"
        return None


class Rebalancer:
    """Check an index from time to time in a thread of its own, and rebalance it when the policy gives a reason.

    Use it in a `with` block, or call `start` and `stop`. A failure of any kind is logged and tried again later: the
    thread lives until `stop`.

    Attributes:
      index: the index.
      policy: the policy.
      rebalances: number of finished rebalances.
      work: successes and failures of the checks.
    """

    def __init__(self, index: LivingIndex, policy: RebalancePolicy | None = None) -> None:
        self.index, self.policy = index, policy or RebalancePolicy()
        self.rebalances = 0
        self.work = BackgroundWork("rebalancing", every_seconds=self.policy.check_every_seconds)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def check(self) -> str | None:
        """Check once, in the calling thread: rebalance the index if there is a reason, else tidy its journal.

        Returns:
          The reason of the rebalance, None without one.

        Raises:
          RecallError: see `LivingIndex.rebalance`; or `stop` was called meanwhile.
        """
        sample = 0 if self.policy.least_recall is None else 64
        reason = self.policy.reason(self.index.drift(sample=sample))
        if reason is not None:
            self.index.rebalance(progress=self._go_on)
            self.rebalances += 1
        else:
            self.index.tidy()
        return reason

    def start(self) -> Rebalancer:
        """Start the thread; a second call does nothing while it lives.

        Raises:
          RuntimeError: the system has no thread left.
        """
        if not self.is_running:
            thread = threading.Thread(target=self._run, name="rebalancer", daemon=True)
            thread.start()
            self._thread = thread
        return self

    @property
    def is_running(self) -> bool:
        """Tell whether the thread lives."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def error(self) -> Exception | None:
        """Return the error of the last check; None if it succeeded."""
        return self.work.error

    def stop(self) -> None:
        """End the thread; a rebalance under way is given up after the step of the build that it is at."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def __enter__(self) -> Rebalancer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self) -> None:
        """Check the index until `stop` is called."""
        while not self._stopping.wait(self.work.wait_seconds):
            try:
                reason = self.check()
            except Exception as error:  # no descriptors or memory left, for example: another time there may be
                if self.work.failed(error) and not self._stopping.is_set():
                    _log("not rebalanced: %s (%s)", error, type(error).__name__)
            else:
                self.work.succeeded()
                if reason is not None:
                    _log("rebalanced: %s", reason, level=logging.INFO)

    def _go_on(self, _: str) -> None:
        """Give up a build where the thread is to end."""
        if self._stopping.is_set():
            raise ArtifactError("the rebalance was given up, as the index is being closed")


def _log(text: str, *values: object, level: int = logging.WARNING) -> None:
    """Log a line. What cannot be logged is no reason to end."""
    with contextlib.suppress(Exception):
        _LOGGER.log(level, text, *values)
