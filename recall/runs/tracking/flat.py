"""Makes flat names and values of settings and metrics, as tracking servers store them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

LONGEST_VALUE = 500  # characters of a parameter that every MLflow server takes; older ones refuse more
LONGEST_NAME = 250
_PARTS = ("all", "cold", "cold_among_cold", "ecology")
_REFUSED = re.compile(r"[^\w\-./ ]")


def flat_settings(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Flatten an experiment: dotted key -> value as text, lists as JSON, cut to `LONGEST_VALUE` characters."""
    found: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            found |= flat_settings(value, f"{prefix}{key}.")
            continue
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        found[metric_name(prefix + key)] = text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."
    return found


def metric_name(name: str) -> str:
    """Write a name with the characters that MLflow takes: `recall@50` becomes `recall_at_50`."""
    return _REFUSED.sub("_", name.replace("@", "_at_"))[:LONGEST_NAME]


def flat_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Flatten metrics.json: `test/gated/rolling/all/recall_at_50` -> value; undefined values are left out.

    Of every model the slices `all`, `cold` and `cold_among_cold` and the ecology are there, frozen and rolling; of the
    configured model the slices by exposures, too: `test/gated/by_exposures/10-99/recall_at_50`. All else stands in the
    file itself.
    """
    found: dict[str, float] = {}
    for split in ("test", "validation"):
        for model, content in (metrics.get(split) or {}).items():
            is_configured = model == metrics.get("configured")
            for place, parts in (("", content), ("rolling/", content.get("rolling") or {})):
                chosen = {name: parts[name] for name in _PARTS if isinstance(parts.get(name), Mapping)}
                if is_configured:
                    chosen |= _by_exposures(parts)
                for name, values in chosen.items():
                    found |= dict(_numbers(values, f"{split}/{model}/{place}{name}/"))
    for group in ("index", "timing"):
        found |= dict(_numbers(metrics.get(group) or {}, f"{group}/"))
    return found


def flat_epoch(structure: str, entry: Mapping[str, Any]) -> dict[str, float]:
    """Flatten an entry of the training history: `training/gated/val_recall_at_50` -> value."""
    return dict(_numbers({key: value for key, value in entry.items() if key != "epoch"}, f"training/{structure}/"))


def _by_exposures(parts: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    slices = parts.get("by_exposures") or []
    return {f"by_exposures/{_bucket(part)}": part for part in slices if part.get("examples")}


def _bucket(part: Mapping[str, Any]) -> str:
    low, high = part["from"], part.get("to")
    return f"{low}-" if high is None else str(low) if low == high else f"{low}-{high}"


def _numbers(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    for key, value in values.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number and math.isfinite(value) and key not in ("from", "to"):
            yield metric_name(prefix + key), float(value)
