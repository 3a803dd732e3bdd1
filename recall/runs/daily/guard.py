"""Decides whether a day's model may be published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

_DAYS_BEFORE = 7


@dataclass(frozen=True)
class Guard:
    """Bound how bad a model may be.

    The model that served until today is judged on today's clicks, which it had not learned from: it must not fall
    behind `trending` or its own past. Days differ, so its past is its lead over `trending`, the median of the last
    seven days. The new model has learned these clicks, which flatters it: it is held against the one before on the same
    clicks, and one that is worse even there is broken.

    Attributes:
      against_trending: smallest share of the recall of `trending`.
      against_before: smallest share of the median lead over `trending` of the days before, and, for the new model, of
        the recall of the model before it.
    """

    against_trending: float = 0.8
    against_before: float = 0.8

    def problems(
        self, days: Sequence[Mapping[str, Any]], *, configured: str, metric: str, learned: float | None
    ) -> list[str]:
        """List what speaks against publishing, a sentence each; empty where nothing does.

        Args:
          days: entry `days` of metrics.json, today's last.
          configured: the model.
          metric: the metric that decides, e.g. recall@50.
          learned: that metric of the new model on today's clicks; None where there was none before it.
        """
        today = _pair(days[-1], configured, metric)
        if today is None:
            return []
        own, trending = today
        found = []
        if own < self.against_trending * trending:
            found.append(
                f"{metric} of the model that served until now is {own:.4f} on today's clicks, below "
                f"{self.against_trending:g} x trending ({trending:.4f})"
            )
        leads = [own / trending for own, trending in _pairs(days[:-1][-_DAYS_BEFORE:], configured, metric) if trending]
        if leads and trending and own / trending < self.against_before * median(leads):
            found.append(
                f"its {metric} is {own / trending:.2f} times that of trending, below {self.against_before:g} x the "
                f"{median(leads):.2f} times of the days before"
            )
        if learned is not None and not learned >= self.against_before * own:  # NaN is a problem, too
            found.append(
                f"{metric} of the new model is {learned:.4f} on the clicks that it has learned, below "
                f"{self.against_before:g} x that of the model before it ({own:.4f})"
            )
        return found


def _pairs(days: Sequence[Mapping[str, Any]], configured: str, metric: str) -> list[tuple[float, float]]:
    return [pair for day in days if (pair := _pair(day, configured, metric)) is not None]


def _pair(day: Mapping[str, Any], configured: str, metric: str) -> tuple[float, float] | None:
    models = day["models"]
    if configured not in models or "trending" not in models or not models[configured].get("examples"):
        return None
    return models[configured][metric], models["trending"][metric]
