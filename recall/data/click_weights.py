"""Weighs clicks for the loss: graded feedback, from rules or from a number in the log."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from recall.config.data import WeightConfig
from recall.core.arrays import Bools, Float32s
from recall.core.tables import parse_numbers

# As of a rule: with a larger weight one click would be all of the loss.
_LARGEST = 1e6


def click_weights(raw: pa.Table, config: WeightConfig, *, click: Bools) -> tuple[Float32s, list[tuple[str, Bools]]]:
    """Compute how much each click counts.

    Only clicks have a weight: the values in other rows (often nothing, or 0) are ignored.

    Args:
      raw: the columns that `config.columns` names, under its keys.
      config: a column, or rules of which the largest that holds decides; a click for which none holds weighs 1, and
        a rule does not hold where its column is empty.
      click: bool [rows].

    Returns:
      float32 [rows], 1 for what is no click; and the reasons to set clicks aside, with where they apply: the
      column's number is missing, unreadable, not above 0 in float32, or above 1,000,000, as of a rule.
    """
    weight = np.ones(len(raw), np.float32)
    if config.column:
        value, wrong = parse_numbers(raw["weight"])
        missing = np.isnan(value) & ~wrong
        with np.errstate(over="ignore"):
            weight = np.where(click, value, 1).astype(np.float32)
        large = (weight > _LARGEST) & np.isfinite(weight)
        unusable = ~missing & ~wrong & ~((weight > 0) & np.isfinite(weight))
        faults = {
            "weight is missing": missing,
            "weight is not a number": wrong,
            "weight is not above 0": unusable,
            "weight is above 1,000,000": large,
        }
        return weight, [(reason, mask & click) for reason, mask in faults.items()]
    unreadable = np.zeros(len(raw), bool)
    decided = np.zeros(len(raw), np.float32)
    for key, rule in zip(config.columns, config.rules, strict=True):
        value, wrong = parse_numbers(raw[key])
        unreadable |= wrong
        decided = np.where(value >= rule.at_least, np.maximum(decided, np.float32(rule.weight)), decided)
    weight = np.where(click & (decided > 0), decided, weight)
    return weight, [("weight is not a number", unreadable & click)]
