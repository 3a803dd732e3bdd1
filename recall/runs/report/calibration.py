"""Tells in the report whether the scale of the configured model tilts: scores and places by exposures of the items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from recall.evaluation.calibration import PLACES
from recall.evaluation.slices import bucket_label, metric_value
from recall.runs.report.tables import Cell, Row, Table

if TYPE_CHECKING:
    from recall.runs.report.inputs import ReportInputs


def calibration_of(inputs: ReportInputs) -> Mapping[str, Any]:
    """Return the configured model's `calibration` in metrics.json; empty where there is none."""
    return (inputs.rolling.get(inputs.configured) or {}).get("calibration") or {}


def calibration_table(inputs: ReportInputs) -> Table | None:
    """Build the table of scores and places by exposures; None where there is none."""
    calibration = calibration_of(inputs)
    buckets = calibration.get("by_exposures") or []
    if not buckets:
        return None
    shares = ("share_of_clicks", f"share_of_places@{PLACES}", "share_of_candidates")
    columns = ["of all clicks", f"of places in lists of {PLACES}", "of candidates", "score, clicked", "score, random"]
    rows = []
    for bucket in buckets:
        parts = [f"{metric_value(bucket, share):.1%}" for share in shares]
        scores = [f"{metric_value(bucket, name):+.2f}" for name in ("clicked", "random")]
        rows.append(Row(bucket_label(bucket), [Cell(text.replace("nan%", "–").replace("+nan", "–"))
                                               for text in (*parts, *scores)]))  # fmt: skip
    cut = metric_value(calibration, f"cut@{PLACES}")
    note = (
        f"Scores of {inputs.configured}: distance from the mean of all candidates of a query in their standard "
        f"deviations; place {PLACES} has {cut:+.2f}. Exposures as of the click or the refresh. A bucket with a "
        "larger share of places than of clicks is scored too high, whoever asks, or holds the items that are easy to "
        "guess; clicked and random items of a bucket lie apart as far as the model tells them apart."
    )
    return Table(f"Scores and places of {inputs.configured} by exposures of the item", columns, rows, note)


def calibration_sentence(inputs: ReportInputs) -> str | None:
    """Name the items with too few and with too many places for their clicks; None without calibration."""
    buckets = calibration_of(inputs).get("by_exposures") or []
    gaps = {index: gap for index, bucket in enumerate(buckets) if (gap := _gap(bucket)) is not None}
    if len(gaps) < 2:
        return None
    few, many = buckets[min(gaps, key=gaps.__getitem__)], buckets[max(gaps, key=gaps.__getitem__)]
    return (
        f"Items with {bucket_label(few)} exposures get {few['share_of_clicks']:.0%} of the clicks and "
        f"{few[_PLACES]:.0%} of the places in lists of {PLACES}, items with {bucket_label(many)} exposures "
        f"{many['share_of_clicks']:.0%} and {many[_PLACES]:.0%}."
    )


_PLACES = f"share_of_places@{PLACES}"


def _gap(bucket: Mapping[str, Any]) -> float | None:
    clicks, places = bucket.get("share_of_clicks"), bucket.get(_PLACES)
    return None if clicks is None or places is None else places - clicks


def drawn_buckets(calibration: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return the buckets with candidates: the ones that a plot can show."""
    return [bucket for bucket in calibration.get("by_exposures") or [] if bucket.get("share_of_candidates")]
