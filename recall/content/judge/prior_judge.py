"""Judges the content prior by the clicks of each item's first exposures."""

from __future__ import annotations

from typing import Any

import numpy as np

from recall.core.arrays import Float64s, Intps
from recall.core.errors import ArtifactError
from recall.data.content_prior.first_exposures import FirstExposures
from recall.data.prepared import PreparedData

_BINS = 10


def judge_content_prior(prepared: PreparedData, *, first_exposures: int) -> dict[str, Any]:
    """Measure calibration and ranking of the prior at the start of validation and of test, on their clicks.

    The clicks are among each item's first exposures and were not known when the period began. The prior of all items is
    measured beside the content prior and, as a ceiling, the smoothed CTR of the item's later exposures, on the items
    that have some (`followed`).

    Args:
      prepared: data with a content prior.
      first_exposures: number of exposures of an item that count as its first.

    Returns:
      For `validation` and `test` the parts `all`, `new` (items without any exposure before) and `followed`; each holds
      items, exposures, `observed` CTR and, for each prior, the result of `calibration`. A part without items holds
      their number alone.

    Raises:
      ArtifactError: the data has no content prior.
    """
    history = prepared.posterior_history
    own = history.prior.items
    if own is None:
        reason = prepared.manifest["posterior"].get("content_prior", {}).get("reason")
        raise ArtifactError(
            f"{prepared.directory}: has no content prior"
            + (f" ({reason})" if reason else "; set data.posterior.content_prior.enabled: true and run it again")
        )
    count = len(prepared.item_ids)
    first, everything = (
        FirstExposures(history, limit=limit, items=count) for limit in (first_exposures, np.iinfo(np.int64).max)
    )
    rows, split = np.arange(count), prepared.manifest["split"]
    end_ms = prepared.manifest["last_time_ms"] + history.bucket_ms + history.delay_ms
    bounds = [split["validation_start_ms"], split["test_start_ms"], end_ms]
    total, total_clicks = everything.known_at(end_ms)
    found = {}
    for name, start_ms, stop_ms in zip(("validation", "test"), bounds[:-1], bounds[1:], strict=True):
        (before, clicked_before), (after, clicked_after) = first.known_at(start_ms), first.known_at(stop_ms)
        exposures, clicks = after - before, clicked_after - clicked_before
        later = np.maximum(total - after, 0)
        strength, prior_ctr = history.prior.strength, history.prior.ctr
        # What is left of an item whose clicks all came first is not below 0, whatever rounding says.
        later_clicks = np.clip(total_clicks - clicked_after, 0, later)
        predictions = {
            "content": own.of(rows, np.full(count, start_ms)),
            "global": np.full(count, prior_ctr),
            "later": (later_clicks + prior_ctr * strength) / (later + strength),
        }
        shown = exposures > 0
        parts = {"all": shown, "new": shown & (before == 0), "followed": shown & (later > 0.5)}
        found[name] = {
            part: _judged(np.flatnonzero(chosen), predictions, exposures, clicks, ceiling=part == "followed")
            for part, chosen in parts.items()
        }
    return {"first_exposures": first_exposures, **found}


def calibration(predicted: Float64s, exposures: Float64s, clicks: Float64s) -> dict[str, Any]:
    """Measure how well predicted CTRs fit counts; all arguments are float64 [items], each item with some exposure.

    Returns:
      predicted: mean over exposures.
      auc: how often the item of a click is predicted above the item of an exposure without click; None without both.
      calibration_error: expected calibration error, mean |predicted - observed| of tenths of the exposures in order of
        the prediction; items of one prediction stay together.
      log_loss: mean over exposures.
      deciles: predicted, observed and exposures of each tenth.
    """
    value, place = np.unique(predicted, return_inverse=True)
    shown, clicked = (np.bincount(place, weights=counts, minlength=len(value)) for counts in (exposures, clicks))
    total = float(shown.sum())
    middle = (np.cumsum(shown) - shown / 2) / total
    decile = np.minimum((middle * _BINS).astype(int), _BINS - 1)
    sums = [np.bincount(decile, weights=counts, minlength=_BINS) for counts in (shown, clicked, shown * value)]
    deciles = [
        {"predicted": float(expected / number), "observed": float(seen / number), "exposures": float(number)}
        for number, seen, expected in zip(*sums, strict=True)
        if number > 0
    ]
    passed = shown - clicked
    pairs = float(clicked.sum() * passed.sum())
    above = float(clicked @ (np.cumsum(passed) - passed / 2))
    return {
        "predicted": float(shown @ value / total),
        "auc": above / pairs if pairs > 0 else None,
        "calibration_error": float(np.abs(sums[2] - sums[1]).sum() / total),
        "log_loss": float(-(clicked @ np.log(value) + passed @ np.log1p(-value)) / total),
        "deciles": deciles,
    }


def _judged(
    chosen: Intps, predictions: dict[str, Float64s], exposures: Float64s, clicks: Float64s, *, ceiling: bool
) -> dict[str, Any]:
    if not len(chosen):
        return {"items": 0}
    shown, clicked = exposures[chosen], clicks[chosen]
    about = {"items": len(chosen), "exposures": float(shown.sum()), "observed": float(clicked.sum() / shown.sum())}
    names = [name for name in predictions if ceiling or name != "later"]
    return {**about, **{name: calibration(predictions[name][chosen], shown, clicked) for name in names}}
